"""Burda et al. 2016, Table 1: VAE, one layer, k = 5.

uv run experiments/reproduce.py burda_vae_5
"""

from experiments.configs.burda_vae_1 import variant
from experiments.reproduction import Published

options, reproduction = variant(
    "VAE, one layer, k = 5",
    Published("NLL-5000", 86.47, within=0.3),
    objective="sampled_elbo",
    num_samples=5,
)
