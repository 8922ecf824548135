"""jaxgen: GANs and VAEs in JAX as pure functions."""

from jaxgen import batches, data, keys, losses, metrics, networks, parallel
from jaxgen.gan import (
    GAN,
    GANState,
    discriminator_loss,
    discriminator_update,
    gan_fakes,
    gan_generate,
    gan_init,
    gan_sample,
    gan_step,
    generator_loss,
    generator_update,
)
from jaxgen.vae import (
    VAE,
    VAEState,
    vae_decode,
    vae_encode,
    vae_evaluate,
    vae_init,
    vae_loss,
    vae_reconstruct,
    vae_sample,
    vae_step,
    vae_update,
)

__version__ = "0.1.0"

__all__ = [
    "GAN",
    "VAE",
    "GANState",
    "VAEState",
    "batches",
    "data",
    "discriminator_loss",
    "discriminator_update",
    "gan_fakes",
    "gan_generate",
    "gan_init",
    "gan_sample",
    "gan_step",
    "generator_loss",
    "generator_update",
    "keys",
    "losses",
    "metrics",
    "networks",
    "parallel",
    "vae_decode",
    "vae_encode",
    "vae_evaluate",
    "vae_init",
    "vae_loss",
    "vae_reconstruct",
    "vae_sample",
    "vae_step",
    "vae_update",
]
