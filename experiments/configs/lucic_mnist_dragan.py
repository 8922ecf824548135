"""Lucic et al. 2018 on MNIST: the DRAGAN: the best of 100 random settings, as ``lucic.py`` says.

uv run experiments/lucic.py --images mnist --losses dragan
"""

from experiments.lucic_protocol import protocol

options, reproduction, search = protocol("dragan", "mnist")
