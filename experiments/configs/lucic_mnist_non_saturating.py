"""Lucic et al. 2018 on MNIST: the non-saturating GAN: the best of 100 random settings, as ``lucic.py`` says.

uv run experiments/lucic.py --images mnist --losses non_saturating
"""

from experiments.lucic_protocol import protocol

options, reproduction, search = protocol("non_saturating", "mnist")
