"""Lucic et al. 2018 on MNIST: the least squares GAN.

    uv run experiments/lucic.py --images mnist --losses least_squares

The best of 100 random settings; ``lucic.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction, search = protocol("least_squares", "mnist")
