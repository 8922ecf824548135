"""Burda et al. 2016, Table 1: VAE, one layer, k = 50.

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
