"""Binarised images: every pixel drawn as a Bernoulli variable of its intensity."""

from typing import Literal

import jax
import numpy as np

from jaxgen.batches import to_float
from jaxgen.keys import AxisName, example_keys

Binarization = Literal["none", "static", "dynamic"]


def binarize(images: jax.Array | np.ndarray, key: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """Draw binary images whose pixels' probabilities are the grey images' intensities.

    x_i ~ Bernoulli(intensity_i)

    Called once, it makes a statically binarised set; called at every step with the step's key, a dynamically
    binarised one.

    Args:
      images: uint8, bool or floats in [0, 1], [B, ...].
      key: typed key, []; each image's draw depends on its global index in the batch.
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      Binary images, bool [B, ...].

    Raises:
      TypeError: the images are of another type, or the key is not a typed threefry key.

    References:
      Burda et al. 2016, "Importance Weighted Autoencoders", section 5.
    """
    keys = example_keys(key, images.shape[0], axis_name)
    return jax.vmap(jax.random.bernoulli)(keys, to_float(images))


def binarize_set(images: np.ndarray) -> np.ndarray:
    """Binarise a whole data set once, always with the same draw.

    Args:
      images: uint8, bool or floats in [0, 1], [N, ...].

    Returns:
      Binary images, bool [N, ...]: `binarize` with ``jax.random.key(0)``, in pieces of bounded memory.
    """
    pieces = range(0, len(images), 4096)
    keys = jax.random.split(jax.random.key(0), max(len(pieces), 1))
    drawn = [np.asarray(_binarize(images[i : i + 4096], key)) for i, key in zip(pieces, keys, strict=True)]
    return np.concatenate(drawn)


_binarize = jax.jit(binarize, static_argnames="axis_name")
