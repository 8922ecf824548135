"""Lucic et al. 2018 on Fashion-MNIST: the minimax GAN.

Published numbers: FID 29.6.

    uv run experiments/reproduce.py lucic_fashion_mnist_minimax

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("minimax", "fashion_mnist")
