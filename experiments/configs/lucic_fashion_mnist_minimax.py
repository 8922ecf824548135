"""Lucic et al. 2018 on Fashion-MNIST: the minimax GAN.

Published numbers: FID 29.6. Reached: FD-LeNet-FashionMNIST 475.92 after 0.05 of 20 epochs, 1 of 100 settings, in 37 s
of training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py lucic_fashion_mnist_minimax

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("minimax", "fashion_mnist")
