"""Named configurations, ``jaxgen train vae --config NAME``: each says what it reached, in what time, by which command.

The table says which module holds a name, so that one is found without importing the others.
"""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

NAMES = (
    "binarized_iwae",
    "binarized_two_layers",
    "binarized_vae",
    "conv_vae",
    "dcgan",
    "dcgan_64",
    "dcgan_conditional",
    "latent_gan",
    "latent_vae",
    "r3gan",
    "tokenizer_256",
    "tokenizer_fsq",
    "tokenizer_kl",
    "tokenizer_vq",
)
FILES = {name: f"{__name__}.{name}" for name in NAMES}


def load(name: str, known: Mapping[str, str] = FILES) -> tuple[Any, Any]:
    """The options of a known name, and its reproduction, None of our own results; imports one module only."""
    module = importlib.import_module(known[name])
    if hasattr(module, "VARIANTS"):
        return module.VARIANTS[name]
    return module.options, getattr(module, "reproduction", None)


def nearest(name: str, known: Iterable[str] = tuple(FILES)) -> str:
    """The known names that are most like one, for an error."""
    return ", ".join(difflib.get_close_matches(name, known, cutoff=0.0))
