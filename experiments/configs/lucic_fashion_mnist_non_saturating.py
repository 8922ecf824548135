"""Lucic et al. 2018 on Fashion-MNIST: the non-saturating GAN.

Published numbers: FID 26.5.

    uv run experiments/reproduce.py lucic_fashion_mnist_non_saturating

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("non_saturating", "fashion_mnist")
