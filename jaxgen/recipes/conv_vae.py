"""A convolutional VAE for one's own colour images at 64 x 64.

    jaxgen train vae --config conv_vae --dataset folder:PATH

Reached with seed 0 on 3,408 emoji in 23 minutes on one core of an Intel Xeon (Sapphire Rapids) virtual machine:
docs/results.md, beside the other two.
"""

from jaxgen.cli.vae_options import ConvVAEOptions

options = ConvVAEOptions(
    image_size=64,
    color="rgb",
    steps=7370,
    batch_size=32,
    width=32,
    latent_dim=128,
    likelihood="gaussian",
    scale=0.1,
)
