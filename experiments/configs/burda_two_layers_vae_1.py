"""Burda et al. 2016, Table 1: VAE = IWAE, two layers, k = 1.

Published numbers: NLL-5000 85.33. Reached: NLL-500 114.08 after 4 of 3280 epochs, in 50 s of training on AMD EPYC
(family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py burda_two_layers_vae_1
"""

from experiments.configs.burda_vae_1 import variant
from experiments.reproduction import Published

options, reproduction = variant(
    "VAE = IWAE, two layers, k = 1",
    Published("NLL-5000", 85.33, within=0.4),
    objective="sampled_elbo",
    num_samples=1,
    latent_dim=100,
    upper_latent_dims=(50,),
    upper_hidden=(100, 100),
)
