"""Burda et al. 2016, Table 1: IWAE, one layer, k = 5.

uv run experiments/reproduce.py burda_iwae_5
"""

from experiments.configs.burda_vae_1 import variant
from experiments.reproduction import Published

options, reproduction = variant(
    "IWAE, one layer, k = 5",
    Published("NLL-5000", 85.54, within=0.3),
    objective="iwae",
    num_samples=5,
)
