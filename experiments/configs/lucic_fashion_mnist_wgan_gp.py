"""Lucic et al. 2018 on Fashion-MNIST: the WGAN with a gradient penalty.

    uv run experiments/lucic.py --images fashion_mnist --losses wgan_gp

The best of 100 random settings; ``lucic.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction, search = protocol("wgan_gp", "fashion_mnist")
