"""Lucic et al. 2018 on MNIST: the WGAN with gradient penalty: the best of 100 random settings, as ``lucic.py`` says.

uv run experiments/lucic.py --images mnist --losses wgan_gp
"""

from experiments.lucic_protocol import protocol

options, reproduction, search = protocol("wgan_gp", "mnist")
