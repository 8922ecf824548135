"""Lucic et al. 2018 on MNIST: the non-saturating GAN.

Published numbers: FID 6.8.

    uv run experiments/reproduce.py lucic_mnist_non_saturating

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("non_saturating", "mnist")
