"""PacGAN's 25 Gaussians in minutes: a plain GAN of small networks.

Published numbers: modes 17.3 +- 0.8. Reached: modes 18.10 +- 0.87 after 20 of 20 epochs, 10 of 10 seeds, in 3 min of
training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py small_gaussians_plain

Two layers of 128 leaky rectifiers for either network, Adam 1e-3 with b1 0.5, the generator's moving average, 20 epochs
of 1,000 steps; the paper's own protocol is ``pacgan_gaussians_plain``. Points, packs and what counts as a mode are the
same, so the order of the methods can be compared, and their numbers cannot.
"""

import dataclasses

from experiments.configs import pacgan_gaussians_plain
from experiments.options import GANOptions
from experiments.reproduction import Published

EPOCH = 1000  # steps

options = GANOptions(
    dataset="gaussians",
    steps=20 * EPOCH,
    batch_size=100,
    latent_dim=2,
    generator_hidden=(128, 128),
    discriminator_hidden=(128, 128),
    dropout_rate=0.0,
    generator_learning_rate=1e-3,
    discriminator_learning_rate=1e-3,
    b1=0.5,
    ema_decay=0.999,
    log_every=EPOCH,
    eval_every=20 * EPOCH,
    sample_every=20 * EPOCH,
    checkpoint_every=10 * EPOCH,
)

reproduction = dataclasses.replace(
    pacgan_gaussians_plain.reproduction,
    title="plain, small networks",
    group="PacGAN: modes of 25 Gaussians, small networks",
    protocol="The points, the packs and the measure of PacGAN's protocol; 128-128 leaky rectifiers, Adam 1e-3 with b1 "
    "0.5, the generator's moving average, 20 epochs of 1,000 steps; mean of 10 seeds trained as one population. The "
    "paper's numbers are of its own protocol: the order of the methods is what is to be seen here.",
    published=(Published("modes", 17.3, standard_error=0.8, better="higher"),),
    milestones=(5, 10, 20),
)
