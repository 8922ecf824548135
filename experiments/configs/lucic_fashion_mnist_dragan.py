"""Lucic et al. 2018 on Fashion-MNIST: DRAGAN.

    uv run experiments/lucic.py --images fashion_mnist --losses dragan

The best of 100 random settings; ``lucic.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction, search = protocol("dragan", "fashion_mnist")
