"""Burda et al. 2016, Table 1: IWAE, two layers, k = 50.

Published numbers: NLL-5000 82.9. Reached: NLL-500 177.32 after 0.1 of 3280 epochs, in 9 s of training on AMD EPYC
(family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py burda_two_layers_iwae_50
"""

from experiments.configs.burda_vae_1 import variant
from experiments.reproduction import Published

options, reproduction = variant(
    "IWAE, two layers, k = 50",
    Published("NLL-5000", 82.9, within=0.4),
    objective="iwae",
    num_samples=50,
    latent_dim=100,
    upper_latent_dims=(50,),
    upper_hidden=(100, 100),
)
