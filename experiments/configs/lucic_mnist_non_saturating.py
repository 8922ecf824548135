"""Lucic et al. 2018 on MNIST: the non-saturating GAN.

Published numbers: FID 6.8. Reached: FD-LeNet-MNIST 691.13 after 0.1 of 20 epochs, 2 of 100 settings, in 2 min of
training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py lucic_mnist_non_saturating

The best of 100 random settings; ``lucic_protocol.py`` says how this differs from the paper.
"""

from experiments.lucic_protocol import protocol

options, reproduction = protocol("non_saturating", "mnist")
