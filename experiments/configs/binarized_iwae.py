"""The VAE of ``binarized_vae`` trained on the bound of 50 importance samples."""

import dataclasses

from experiments.configs import binarized_vae

options = dataclasses.replace(binarized_vae.options, objective="iwae", num_samples=50)
