"""Stacked MNIST, a DCGAN with R1 and without BatchNorm in its discriminator: how many of 1,000 modes it finds.

Published numbers: modes 99 (plain DCGAN of the paper); KL 3.4 (plain DCGAN of the paper). Reached: modes 249.00 after
0.1 of 50 epochs, 1 of 10 seeds, in 52 s of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py pacgan_stacked_r1

As ``pacgan_stacked_plain`` but for the penalty, of weight 2.5: the 10 of Mescheder et al. 2018 for images in [-1, 1],
which are in [0, 1] here. The paper has no such row; the number beside it is its plain DCGAN's.
"""

import dataclasses

from experiments.configs import pacgan_stacked_plain

SOURCE = "plain DCGAN of the paper"

options = dataclasses.replace(
    pacgan_stacked_plain.options, penalty="r1", penalty_weight=2.5, discriminator_normalization="none"
)

reproduction = dataclasses.replace(
    pacgan_stacked_plain.reproduction,
    title="DCGAN with R1, not in the paper",
    published=tuple(
        dataclasses.replace(number, source=SOURCE) for number in pacgan_stacked_plain.reproduction.published
    ),
)
