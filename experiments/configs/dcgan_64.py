"""A DCGAN for one's own colour images at 64 x 64.

uv run experiments/train.py gan --config dcgan_64 --dataset folder:PATH --image-size 64 --color rgb
"""

from experiments.options import GANOptions

options = GANOptions(
    architecture="dcgan",
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
