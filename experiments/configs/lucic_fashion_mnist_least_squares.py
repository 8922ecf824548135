"""Lucic et al. 2018 on Fashion-MNIST: the least squares GAN.

Published numbers: FID 30.7. Reached: FD-LeNet-FashionMNIST 478.30 after 0.05 of 20 epochs, 1 of 100 settings, in 22 s
of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py lucic_fashion_mnist_least_squares

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("least_squares", "fashion_mnist")
