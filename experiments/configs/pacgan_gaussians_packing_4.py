"""Mode counting of PacGAN with packs of 4: 25 Gaussians on a grid.

Published (Lin et al. 2018, table 1): 24.8 modes of 25 after 400 epochs, over 10 runs.

Published numbers: modes 24.8.

    uv run experiments/reproduce.py pacgan_gaussians_packing_4

As ``pacgan_gaussians_plain``, but that the discriminator judges 4 points together.
"""

import dataclasses

from experiments.configs import pacgan_gaussians_plain
from experiments.reproduction import Published

PACKING = 4

options = dataclasses.replace(
    pacgan_gaussians_plain.options,
    packing=PACKING,
    batch_size=PACKING * pacgan_gaussians_plain.options.batch_size,
)

reproduction = dataclasses.replace(
    pacgan_gaussians_plain.reproduction,
    title=f"packs of {PACKING}",
    published=(Published("modes", 24.8, within=0.4, better="higher"),),
)
