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


def binarize_set(images: np.ndarray, first: int | np.ndarray = 0) -> np.ndarray:
    """Binarise a data set once, always with the same draw.

    Args:
      images: uint8, bool or floats in [0, 1], [n, ...].
      first: place of the first image in the whole data set, or the places of all, int [n]: an image's draw depends on
        its place alone.

    Returns:
      Binary images, bool [n, ...].
    """
    places = first + np.arange(len(images)) if isinstance(first, int) else first
    pieces = [slice(i, i + _PIECE) for i in range(0, max(len(images), 1), _PIECE)]
    drawn = [np.asarray(_binarize_at(images[piece], places[piece].astype(np.int32))) for piece in pieces]
    return np.concatenate(drawn)


_PIECE = 4096  # images at a time: bounded memory


@jax.jit
def _binarize_at(images: jax.Array, places: jax.Array) -> jax.Array:
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(0), places)
    return jax.vmap(jax.random.bernoulli)(keys, to_float(images))
