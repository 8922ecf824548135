"""Lucic et al. 2018 on Fashion-MNIST: the WGAN with gradient penalty.

uv run experiments/lucic.py --images fashion_mnist --losses wgan_gp
"""

from experiments.lucic_protocol import protocol

options, reproduction, search = protocol("wgan_gp", "fashion_mnist")
