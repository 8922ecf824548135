"""PacGAN's 25 Gaussians in minutes: R1, not in the paper.

Published numbers: modes 17.3 (plain GAN of the paper). Reached: modes 24.90 +- 0.10 after 20 of 20 epochs, 10 of 10
seeds, in 3 min of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py small_gaussians_r1

As ``small_gaussians_plain`` but for that.
"""

import dataclasses

from experiments.configs import small_gaussians_plain
from experiments.reproduction import Published

options = dataclasses.replace(small_gaussians_plain.options, penalty="r1", penalty_weight=0.1)

reproduction = dataclasses.replace(
    small_gaussians_plain.reproduction,
    title="R1, not in the paper, small networks",
    published=(Published("modes", 17.3, better="higher", source="plain GAN of the paper"),),
)
