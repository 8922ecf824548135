"""Mode counting of PacGAN's protocol with R1 instead of packing: 25 Gaussians on a grid.

Published numbers: modes 17.3 +- 0.8 (plain GAN of the paper). Reached: modes 6.00 +- 1.00 after 0.5 of 400 epochs, 2
of 10 seeds, in 19 s of training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py pacgan_gaussians_r1

As ``pacgan_gaussians_plain``, with R1 of weight 0.1 (as in ``gaussians.py``). The paper has no such row; the number
beside it is its plain GAN's.
"""

import dataclasses

from experiments.configs import pacgan_gaussians_plain

options = dataclasses.replace(pacgan_gaussians_plain.options, penalty="r1", penalty_weight=0.1)

reproduction = dataclasses.replace(
    pacgan_gaussians_plain.reproduction,
    title="R1, not in the paper",
    published=tuple(
        dataclasses.replace(number, within=None, source="plain GAN of the paper")
        for number in pacgan_gaussians_plain.reproduction.published
    ),
)
