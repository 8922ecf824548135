"""Stacked MNIST in minutes: a plain GAN of small networks.

Published numbers: modes 99; KL 3.4. Reached: modes 433.50 +- 26.39 after 2 of 2 epochs, 10 of 10 seeds, in 10 min of
training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py small_stacked_plain

Two fully connected layers in either network (128-256 and 128-64 leaky rectifiers), Adam 1e-3 with b1 0.5, 2 epochs of
2,000 steps; the published protocol is ``pacgan_stacked_plain``, whose DCGAN takes 45 hours for its seeds and, here,
finds most modes within half an epoch. Stacks, packs and what counts as a mode are the same, so the order of the methods
can be compared, and their numbers cannot. After one epoch packs find no more modes than the plain GAN.
"""

import dataclasses

from experiments.configs import pacgan_stacked_plain
from experiments.configs.pacgan_stacked_plain import EPOCH
from experiments.options import GANOptions

options = GANOptions(
    dataset="stacked:mnist",
    steps=2 * EPOCH,
    batch_size=64,
    latent_dim=100,
    generator_hidden=(128, 256),
    discriminator_hidden=(128, 64),
    dropout_rate=0.0,
    generator_learning_rate=1e-3,
    discriminator_learning_rate=1e-3,
    b1=0.5,
    ema_decay=None,
    log_every=500,
    eval_every=2 * EPOCH,
    sample_every=2 * EPOCH,
    checkpoint_every=EPOCH,
)

reproduction = dataclasses.replace(
    pacgan_stacked_plain.reproduction,
    title="plain, small networks",
    group="Stacked MNIST, small networks",
    protocol="The stacks, the packs and the measure of PacGAN's protocol; fully connected networks of 128-256 and "
    "128-64 leaky rectifiers, Adam 1e-3 with b1 0.5, 2 epochs of 2,000 steps; mean of 10 seeds trained as one "
    "population. The papers' numbers are of their own protocol: the order of the methods is what is to be seen here.",
    milestones=(1, 2),
)
