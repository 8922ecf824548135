"""The options of the scripts: those of the package, and the named configurations of experiments/configs."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

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


def load_config(name: str, family: str) -> VAEOptions | GANOptions:
    """Find a named configuration.

    Args:
      name: a file of experiments/configs, without its ending.
      family: ``"vae"`` or ``"gan"``.

    Returns:
      Its options.

    Raises:
      UsageError: there is none of that name for the family; the error lists those that there are.
    """
    package = importlib.import_module("experiments.configs")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    configs = {n: importlib.import_module(f"experiments.configs.{n}").options for n in names}
    known = sorted(n for n, options in configs.items() if isinstance(options, FAMILIES[family]))
    if name not in known:
        raise UsageError(f"unknown configuration {name!r} for {family}: use one of {', '.join(known)}")
    return dataclasses.replace(configs[name], config=name)


def parse(arguments: Sequence[str], program: str = "train.py") -> Any:
    """Options of the command line, see `jaxgen.cli.parsing.parse`."""
    return parsing.parse(arguments, program, load_config)
