"""Lucic et al. 2018 on Fashion-MNIST: the WGAN with a gradient penalty.

Published numbers: FID 24.5.

    uv run experiments/reproduce.py lucic_fashion_mnist_wgan_gp

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("wgan_gp", "fashion_mnist")
