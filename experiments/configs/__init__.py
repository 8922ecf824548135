"""Named configurations: one file a paper, which says of each what was reached, in what time, by which command.

The table says which file holds a name, so that one is found without importing the others.
"""

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

NAMES: dict[str, tuple[str, ...]] = {
    "binarized_iwae": ("binarized_iwae",),
    "binarized_two_layers": ("binarized_two_layers",),
    "binarized_vae": ("binarized_vae",),
    "burda": (
        *("burda_vae_1", "burda_vae_5", "burda_vae_50", "burda_iwae_5", "burda_iwae_50", "burda_dreg_50"),
        *("burda_two_layers_vae_1", "burda_two_layers_vae_5", "burda_two_layers_vae_50"),
        *("burda_two_layers_iwae_5", "burda_two_layers_iwae_50"),
    ),
    "conv_vae": ("conv_vae",),
    "dcgan": ("dcgan",),
    "dcgan_64": ("dcgan_64",),
    "dcgan_conditional": ("dcgan_conditional",),
    "flax_vae": ("flax_vae",),
    "goodfellow": ("goodfellow_mnist", "goodfellow_adam"),
    "lucic": tuple(
        f"lucic_{images}_{loss}"
        for images in ("mnist", "fashion_mnist")
        for loss in ("minimax", "non_saturating", "least_squares", "wgan_gp", "dragan")
    ),
    "pacgan": (
        *("pacgan_gaussians_plain", "pacgan_gaussians_packing_2", "pacgan_gaussians_packing_4", "pacgan_gaussians_r1"),
        *("pacgan_stacked_plain", "pacgan_stacked_packing_2", "pacgan_stacked_r1"),
        *("small_gaussians_plain", "small_gaussians_packing_2", "small_gaussians_r1"),
        *("small_stacked_plain", "small_stacked_packing_2", "small_stacked_r1"),
    ),
    "pythae": ("pythae_vae", "pythae_vae_two_hidden", "pythae_vamp"),
    "r3gan": ("r3gan",),
    "radford": ("radford_features",),
    "rezende": ("rezende_dlgm",),
}
FILES = {name: file for file, names in NAMES.items() for name in names}


def load(name: str) -> tuple[Any, Any]:
    """The options of a name, and its reproduction, None of our own results; imports the one file that holds it."""
    module = importlib.import_module(f"{__name__}.{FILES[name]}")
    if hasattr(module, "VARIANTS"):
        return module.VARIANTS[name]
    return module.options, getattr(module, "reproduction", None)


def nearest(name: str, known: Iterable[str] = tuple(FILES)) -> str:
    """The known names that are most like one, for an error."""
    return ", ".join(difflib.get_close_matches(name, known, cutoff=0.0))
