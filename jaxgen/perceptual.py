"""Networks for perceptual distances with their weights: LPIPS, which a file holds, and the classifiers that ship.

`jaxgen.networks.VGG16` and `jaxgen.losses.feature_distance` are the parts of LPIPS;
``experiments/pytorch/convert_vgg.py`` writes the file from PyTorch's.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from jaxgen.evaluation.extractors import lenet_weights
from jaxgen.networks import VGG16
from jaxgen.training import manifest
from jaxgen.untrusted import one_line
from jaxgen.weights import read_arrays

LENETS = ("lenet_mnist", "lenet_fashion_mnist", "lenet_color")  # that `find` finds without a file
VGG_SIDE = 16  # pixels of an image's sides, at least
DISTANCE = "distance"  # what arrays of weights of the distance are called by, and their number


class Perceptual(NamedTuple):
    """What LPIPS is made of, besides the network itself.

    Args:
      params: parameters of `jaxgen.networks.VGG16`.
      weights: of the distance, five vectors [C]; None of a file that holds VGG16 alone.
      sha256: of the file.
    """

    params: Any
    weights: tuple[jax.Array, ...] | None
    sha256: str


def arrays_of_vgg16(*, weights: bool) -> dict[str, str]:
    """Type and shape of each array of a file, by its dotted name; of the distance's ``weights`` too if asked for."""
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    maps, variables = jax.eval_shape(VGG16().init_with_output, jax.random.key(0), images)
    stored = traverse_util.flatten_dict(variables["params"], sep=".")
    if weights:
        stored |= {f"{DISTANCE}.{number}": jax.ShapeDtypeStruct(m.shape[3:], m.dtype) for number, m in enumerate(maps)}
    return {name: manifest.describe(leaf) for name, leaf in stored.items()}


def vgg16(path: str | Path) -> Perceptual:
    """Read VGG16's parameters, and the weights of the distance where they are there, from a file at a path.

    ``experiments/pytorch/convert_vgg.py`` has written the file; nothing in it is run.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not such a file, or damaged; the error names what is missing, too much or of another shape.
    """
    path = Path(path)
    arrays, record, sha256 = read_arrays(path)
    weighted = any(name.startswith(f"{DISTANCE}.") for name in arrays)
    wrong = manifest.array_differences(manifest.arrays(arrays), arrays_of_vgg16(weights=weighted))
    if record.get("network") != "VGG16" or wrong:
        found = manifest.summary(wrong) if wrong else "nothing in it says so"
        what = f"does not hold the weights of VGG16: write it with experiments/pytorch/convert_vgg.py ({found})"
        raise ValueError(one_line(path, what))
    leaves = {name: jnp.asarray(array) for name, array in arrays.items()}
    weights = [leaves.pop(f"{DISTANCE}.{number}") for number in range(5)] if weighted else None
    return Perceptual(
        traverse_util.unflatten_dict(leaves, sep="."), None if weights is None else tuple(weights), sha256
    )


class Found(NamedTuple):
    """A network whose features are compared, with what it has learnt.

    Args:
      network: it has a method ``features(x [B, H, W, C], *, train)``.
      params: its parameters.
      weights: of the distance, a vector [C] for each of its maps; None where nobody has learnt any.
      sha256: of the file.
    """

    network: Any
    params: Any
    weights: tuple[jax.Array, ...] | None
    sha256: str


def find(text: str, image_shape: tuple[int, ...], dtype: str = "float32") -> Found:
    """The network that an option names, for images of an ``image_shape`` (H, W, C).

    ``text`` is ``"lenet_mnist"``, ``"lenet_fashion_mnist"``, ``"lenet_color"``, or ``"vgg:PATH"``, which computes in
    ``dtype``.

    Raises:
      ValueError: there is none of that name, the file at PATH is no such file, or it takes no such images.
      FileNotFoundError: there is no file at PATH.
    """
    kind, _, path = text.partition(":")
    if text in LENETS:
        found = lenet_weights(text.removeprefix("lenet_"))
        if found.image_shape != image_shape:
            raise ValueError(
                f"{text} takes images {list(found.image_shape)}, these are {list(image_shape)}: resize them, or "
                "compare features of vgg:PATH or of the discriminator"
            )
        return Found(found.network, found.params, None, found.sha256)
    if kind != "vgg" or not path:
        raise ValueError(
            f"there is no perceptual network {text!r}: choose from none, discriminator, {', '.join(LENETS)} and "
            "vgg:PATH"
        )
    if len(image_shape) != 3 or image_shape[2] not in (1, 3) or min(image_shape[:2]) < VGG_SIDE:
        raise ValueError(
            f"vgg takes images of at least {VGG_SIDE} x {VGG_SIDE} in 1 or 3 channels, these are {list(image_shape)}: "
            "resize them, or compare features of the discriminator"
        )
    params, weights, sha256 = vgg16(Path(path).expanduser())
    return Found(VGG16(dtype), params, weights, sha256)
