"""A convolutional VAE for one's own colour images at 64 x 64.

uv run experiments/train.py vae --config conv_vae --dataset folder:PATH --image-size 64 --color rgb
"""

from experiments.options import VAEOptions

options = VAEOptions(
    architecture="conv",
    image_size=64,
    color="rgb",
    steps=7370,
    batch_size=32,
    width=32,
    latent_dim=128,
    likelihood="gaussian",
    scale=0.1,
)
