"""Stacked MNIST in minutes: packs of 2, small networks.

Published numbers: modes 1000; KL 0.06. Reached: modes 664.50 +- 13.95 after 2 of 2 epochs, 10 of 10 seeds, in 26 min
of training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py small_stacked_packing_2

As ``small_stacked_plain``, but that the discriminator judges two images together.
"""

import dataclasses

from experiments.configs import pacgan_stacked_packing_2 as paper
from experiments.configs import small_stacked_plain

options = dataclasses.replace(
    small_stacked_plain.options,
    packing=paper.PACKING,
    batch_size=paper.PACKING * small_stacked_plain.options.batch_size,
)

reproduction = dataclasses.replace(
    small_stacked_plain.reproduction,
    title="packs of 2, small networks",
    published=tuple(dataclasses.replace(number, within=None) for number in paper.reproduction.published),
)
