"""PacGAN's 25 Gaussians in minutes: packs of 2.

Published numbers: modes 23.8 +- 0.7. Reached: modes 24.90 +- 0.10 after 20 of 20 epochs, 10 of 10 seeds, in 4 min of
training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py small_gaussians_packing_2

As ``small_gaussians_plain`` but for that.
"""

import dataclasses

from experiments.configs import small_gaussians_plain
from experiments.reproduction import Published

options = dataclasses.replace(small_gaussians_plain.options, packing=2, batch_size=200)

reproduction = dataclasses.replace(
    small_gaussians_plain.reproduction,
    title="packs of 2, small networks",
    published=(Published("modes", 23.8, standard_error=0.7, better="higher"),),
)
