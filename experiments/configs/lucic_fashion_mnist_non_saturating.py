"""Lucic et al. 2018 on Fashion-MNIST: the non-saturating GAN.

    uv run experiments/lucic.py --images fashion_mnist --losses non_saturating

The best of 100 random settings; ``lucic.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction, search = protocol("non_saturating", "fashion_mnist")
