"""Lucic et al. 2018 on Fashion-MNIST: the non-saturating GAN.

    uv run experiments/reproduce.py lucic_fashion_mnist_non_saturating

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("non_saturating", "fashion_mnist")
