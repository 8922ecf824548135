"""nbip/IWAE, Tucker et al. 2019 on Burda et al. 2016: IWAE with the DReG gradient, one layer, k = 50.

Published numbers: NLL-5000 84.32 (nbip/IWAE's README). Reached: NLL-500 93.34 after 13 of 3280 epochs, in 11 min of
training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py burda_dreg_50
"""

from experiments.configs.burda_vae_1 import variant
from experiments.reproduction import Published

options, reproduction = variant(
    "IWAE with the DReG gradient, one layer, k = 50",
    Published("NLL-5000", 84.32, within=0.3, source="nbip/IWAE's README"),
    objective="dreg",
    num_samples=50,
)
