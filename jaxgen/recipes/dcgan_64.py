"""A DCGAN for one's own colour images at 64 x 64.

    jaxgen train gan --config dcgan_64 --dataset folder:PATH

The discriminator has a spectral norm and the hinge loss: with BatchNorm it saturated on white backgrounds.
Reached with seed 0 on 3,408 emoji in 23 minutes on one core of an Intel Xeon (Sapphire Rapids) virtual machine:
docs/results.md, beside the other two.
"""

from jaxgen.cli.gan_options import DCGANOptions

options = DCGANOptions(
    image_size=64,
    color="rgb",
    steps=4240,
    batch_size=32,
    width=32,
    latent_dim=100,
    loss="hinge",
    discriminator_normalization="spectral",
    ema_decay=0.999,
    ema_warmup=True,
)
