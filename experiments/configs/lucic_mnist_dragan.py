"""Lucic et al. 2018 on MNIST: DRAGAN.

Published numbers: FID 7.6.

    uv run experiments/reproduce.py lucic_mnist_dragan

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("dragan", "mnist")
