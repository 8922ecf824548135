"""Lucic et al. 2018 on Fashion-MNIST: the WGAN with a gradient penalty.

Published numbers: FID 24.5. Reached: FD-LeNet-FashionMNIST 508.20 after 0.05 of 20 epochs, 1 of 100 settings, in 24 s
of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py lucic_fashion_mnist_wgan_gp

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("wgan_gp", "fashion_mnist")
