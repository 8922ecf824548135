"""The named configurations of papers, one file a paper, beside the recipes that ship with the package.

The table says which file holds a name, so that one is found without importing the others.
"""

from typing import Any

from jaxgen import recipes
from jaxgen.cli import parsing

NAMES: dict[str, tuple[str, ...]] = {
    "burda": (
        *("burda_vae_1", "burda_vae_5", "burda_vae_50", "burda_iwae_5", "burda_iwae_50", "burda_dreg_50"),
        *("burda_two_layers_vae_1", "burda_two_layers_vae_5", "burda_two_layers_vae_50"),
        *("burda_two_layers_iwae_5", "burda_two_layers_iwae_50"),
    ),
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
    "radford": ("radford_features",),
    "rezende": ("rezende_dlgm",),
}
FILES = {**{name: f"{__name__}.{file}" for file, names in NAMES.items() for name in names}, **recipes.FILES}


def load(name: str) -> tuple[Any, Any]:
    """The options of a name, and its reproduction, None of our own results; imports the one file that holds it."""
    return recipes.load(name, FILES)


def load_config(name: str, family: str) -> Any:
    """The options of a name, with it in them; a UsageError where there is none of that name for the family."""
    return parsing.load_config(name, family, FILES)
