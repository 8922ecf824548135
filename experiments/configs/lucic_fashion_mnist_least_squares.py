"""Lucic et al. 2018 on Fashion-MNIST: the least squares GAN: the best of 100 random settings, as ``lucic.py`` says.

uv run experiments/lucic.py --images fashion_mnist --losses least_squares
"""

from experiments.lucic_protocol import protocol

options, reproduction, search = protocol("least_squares", "fashion_mnist")
