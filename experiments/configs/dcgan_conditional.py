"""A class-conditional DCGAN on Fashion-MNIST: projection, class-conditional BatchNorm, hinge loss, spectral norm.

    uv run experiments/train.py gan --config dcgan_conditional

The grid of samples has one class a row.
"""

import dataclasses

from experiments.configs import dcgan

options = dataclasses.replace(
    dcgan.options, conditional=True, loss="hinge", discriminator_normalization="spectral", ema_warmup=True
)
