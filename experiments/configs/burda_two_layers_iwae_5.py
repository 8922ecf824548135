"""Burda et al. 2016, Table 1: IWAE, two layers, k = 5.

Published numbers: NLL-5000 83.89. Reached: NLL-500 158.94 after 0.2 of 3280 epochs, in 2 s of training on AMD EPYC
(family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py burda_two_layers_iwae_5
"""

from experiments.configs.burda_vae_1 import variant
from experiments.reproduction import Published

options, reproduction = variant(
    "IWAE, two layers, k = 5",
    Published("NLL-5000", 83.89, within=0.4),
    objective="iwae",
    num_samples=5,
    latent_dim=100,
    upper_latent_dims=(50,),
    upper_hidden=(100, 100),
)
