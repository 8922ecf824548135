"""Mode counting of PacGAN with packs of 4: 25 Gaussians on a grid.

Published (Lin et al. 2018, table 1): 24.8 modes of 25 after 400 epochs, over 10 runs.

Published numbers: modes 24.8. Reached: modes 5.50 +- 0.50 after 0.5 of 400 epochs, 2 of 10 seeds, in 27 s of training
on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py pacgan_gaussians_packing_4

As ``pacgan_gaussians_plain``, but that the discriminator judges 4 points together.
"""

from experiments.configs.pacgan_gaussians_plain import packed
from experiments.reproduction import Published

options, reproduction = packed(4, Published("modes", 24.8, within=0.4, better="higher"))
