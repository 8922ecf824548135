"""Burda et al. 2016, Table 1: IWAE, one layer, k = 50.

uv run experiments/reproduce.py burda_iwae_50
"""

from experiments.configs.burda_vae_1 import variant
from experiments.reproduction import Published

options, reproduction = variant(
    "IWAE, one layer, k = 50",
    Published("NLL-5000", 84.78, within=0.3),
    objective="iwae",
    num_samples=50,
)
