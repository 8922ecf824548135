"""Burda et al. 2016, Table 1: VAE, one layer, k = 50.

Published numbers: NLL-5000 86.35. Reached: NLL-500 94.60 after 13 of 3280 epochs, in 11 min of training on AMD EPYC
(family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py burda_vae_50
"""

from experiments.configs.burda_vae_1 import variant
from experiments.reproduction import Published

options, reproduction = variant(
    "VAE, one layer, k = 50",
    Published("NLL-5000", 86.35, within=0.3),
    objective="sampled_elbo",
    num_samples=50,
)
