"""Lucic et al. 2018 on Fashion-MNIST: DRAGAN.

Published numbers: FID 27.7. Reached: FD-LeNet-FashionMNIST 497.43 after 0.05 of 20 epochs, 1 of 100 settings, in 30 s
of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py lucic_fashion_mnist_dragan

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("dragan", "fashion_mnist")
