"""PacGAN's 25 Gaussians in minutes: packs of 2.

    uv run experiments/reproduce.py small_gaussians_packing_2

As ``small_gaussians_plain`` but for that.
"""

from experiments.configs.small_gaussians_plain import variant
from experiments.reproduction import Published

options, reproduction = variant(
    "packs of 2",
    Published("modes", 23.8, standard_error=0.7, better="higher"),
    packing=2,
    batch_size=200,
)
