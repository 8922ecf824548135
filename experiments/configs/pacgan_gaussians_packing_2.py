"""Mode counting of PacGAN with packs of 2: 25 Gaussians on a grid.

Published (Lin et al. 2018, table 1): 23.8 +- 0.7 modes of 25 after 400 epochs, over 10 runs.

Published numbers: modes 23.8 +- 0.7. Reached: modes 14.00 +- 1.00 after 0.5 of 400 epochs, 2 of 10 seeds, in 22 s of
training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py pacgan_gaussians_packing_2

As ``pacgan_gaussians_plain``, but that the discriminator judges 2 points together.

Seed 0 alone found 4 modes after 1 epoch and 12 after 3, with 2% of the samples good: too early to tell
from the plain GAN.
"""

from experiments.configs.pacgan_gaussians_plain import packed
from experiments.reproduction import Published

options, reproduction = packed(2, Published("modes", 23.8, standard_error=0.7, within=1.4, better="higher"))
