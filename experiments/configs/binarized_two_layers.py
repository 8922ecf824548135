"""Two stochastic layers on fixed binarised MNIST: 100 latents under 50, the rest as ``binarized_vae``."""

import dataclasses

from experiments.configs import binarized_vae

options = dataclasses.replace(
    binarized_vae.options,
    latent_dim=100,
    upper_latent_dims=(50,),
    upper_hidden=(100, 100),
)
