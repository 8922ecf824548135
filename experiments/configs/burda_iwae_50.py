"""Burda et al. 2016, Table 1: IWAE, one layer, k = 50.

Published numbers: NLL-5000 84.78. Reached: NLL-500 94.15 after 13 of 3280 epochs, in 11 min of training on AMD EPYC
(family 25, model 17, stepping 1), 1 core.

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
