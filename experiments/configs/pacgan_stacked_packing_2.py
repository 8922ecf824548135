"""Stacked MNIST, a DCGAN with packs of 2: how many of 1,000 modes it finds.

Published (Lin et al. 2018, table 3): all 1,000 modes and a KL divergence of 0.06 nats after 50 epochs.

Published numbers: modes 1000; KL 0.06. Reached: modes 826.00 after 0.5 of 50 epochs, 1 of 10 seeds, in 4 min of
training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py pacgan_stacked_packing_2

As ``pacgan_stacked_plain``, but that the discriminator judges two images together.
"""

import dataclasses

from experiments.configs import pacgan_stacked_plain
from experiments.reproduction import Published

PACKING = 2

options = dataclasses.replace(
    pacgan_stacked_plain.options, packing=PACKING, batch_size=PACKING * pacgan_stacked_plain.options.batch_size
)

reproduction = dataclasses.replace(
    pacgan_stacked_plain.reproduction,
    title="DCGAN, packs of 2",
    published=(
        Published("modes", 1000.0, within=10.0, better="higher"),
        Published("KL", 0.06, within=0.02),
    ),
)
