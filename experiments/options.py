"""The options of the scripts: those of the package, and the named configurations of experiments/configs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments import configs
from jaxgen.cli import parsing
from jaxgen.cli.gan_options import (
    DCGANOptions,
    GANOptions,
    InfoGANOptions,
    MaxoutGANOptions,
    MLPGANOptions,
    ResNetGANOptions,
)
from jaxgen.cli.options import Options, UsageError
from jaxgen.cli.parsing import FAMILIES, saved_options, value_of
from jaxgen.cli.vae_options import ConvVAEOptions, MLPVAEOptions, VAEOptions

__all__ = [
    "FAMILIES",
    "ConvVAEOptions",
    "DCGANOptions",
    "GANOptions",
    "InfoGANOptions",
    "MLPGANOptions",
    "MLPVAEOptions",
    "MaxoutGANOptions",
    "Options",
    "ResNetGANOptions",
    "VAEOptions",
    "load_config",
    "parse",
    "saved_options",
    "value_of",
]


def load_config(name: str, family: str) -> Any:
    """The options of a named configuration.

    Args:
      name: one of experiments/configs.
      family: ``"vae"`` or ``"gan"``.

    Returns:
      Its options.

    Raises:
      UsageError: there is none of that name for the family; the error lists the nearest ones.
    """
    if name not in configs.FILES:
        raise UsageError(f"unknown configuration {name!r} for {family}: the nearest are {configs.nearest(name)}")
    options, _ = configs.load(name)
    if options.family != family:
        raise UsageError(f"unknown configuration {name!r} for {family}: it is one of {options.family}")
    return dataclasses.replace(options, config=name)


def parse(arguments: Sequence[str], program: str = "train.py") -> Any:
    """Options of the command line, see `jaxgen.cli.parsing.parse`."""
    return parsing.parse(arguments, program, load_config)
