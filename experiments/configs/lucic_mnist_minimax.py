"""Lucic et al. 2018 on MNIST: the minimax GAN.

Published numbers: FID 9.8. Reached: FD-LeNet-MNIST 691.42 after 0.1 of 20 epochs, 2 of 100 settings, in 74 s of
training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py lucic_mnist_minimax

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("minimax", "mnist")
