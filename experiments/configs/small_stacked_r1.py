"""Stacked MNIST in minutes: R1, small networks.

Published numbers: modes 99 (plain DCGAN of the paper); KL 3.4 (plain DCGAN of the paper). Reached: modes 931.60 +-
7.77 after 2 of 2 epochs, 10 of 10 seeds, in 5 min of training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py small_stacked_r1

As ``small_stacked_plain`` but for the penalty, of the weight that ``pacgan_stacked_r1`` has. The paper has no such row;
the number beside it is its plain DCGAN's.
"""

import dataclasses

from experiments.configs import pacgan_stacked_r1 as paper
from experiments.configs import small_stacked_plain

options = dataclasses.replace(small_stacked_plain.options, penalty="r1", penalty_weight=paper.options.penalty_weight)

reproduction = dataclasses.replace(
    small_stacked_plain.reproduction, title="R1, small networks", published=paper.reproduction.published
)
