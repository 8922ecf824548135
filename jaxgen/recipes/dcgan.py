"""A DCGAN on the whole of Fashion-MNIST, 28 x 28.

    jaxgen train gan --config dcgan

Radford et al. 2016: 4 x 4 kernels, BatchNorm, Adam 2e-4 with b1 0.5. The samples are of the moving average. On the
2,000 embedded images the discriminator wants augmentation:

    jaxgen train gan --config dcgan --dataset fashion_mnist_small --augmentation diffaugment

Reached with seed 0 in 5 minutes on one core of an Intel Xeon (Sapphire Rapids) virtual machine: docs/dcgan_samples.png.
"""

from jaxgen.cli.gan_options import DCGANOptions

options = DCGANOptions(
    dataset="fashion_mnist",
    steps=6 * 937,
    batch_size=64,
    width=32,
    latent_dim=64,
    ema_warmup=True,
    eval_every=937,
    sample_every=937,
    checkpoint_every=937,
)
