"""A class-conditional DCGAN on Fashion-MNIST: projection discriminator, class-conditional BatchNorm, hinge loss.

    uv run experiments/train.py gan --config dcgan_conditional

The grid of samples has one class a row.
"""

import dataclasses

from experiments.configs import dcgan

options = dataclasses.replace(dcgan.options, conditional=True, loss="hinge")
