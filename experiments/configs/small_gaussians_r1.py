"""PacGAN's 25 Gaussians in minutes: R1, not in the paper.

    uv run experiments/reproduce.py small_gaussians_r1

As ``small_gaussians_plain`` but for that.
"""

from experiments.configs.small_gaussians_plain import variant
from experiments.reproduction import Published

options, reproduction = variant(
    "R1, not in the paper",
    Published("modes", 17.3, better="higher", source="plain GAN of the paper"),
    penalty="r1",
    penalty_weight=0.1,
)
