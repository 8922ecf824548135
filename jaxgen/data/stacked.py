"""Stacked digits: colour images whose channels are three grey ones, a data set of 1,000 modes (stacked MNIST)."""

from collections.abc import Mapping

import jax
import numpy as np

from jaxgen.data.sources import Source
from jaxgen.keys import named_key

DIGITS = 10
TRAINING_STACKS, TEST_STACKS = 128_000, 26_000


def stack_channels(digits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Make the channels of one colour image of each three grey images.

    Args:
      digits: ``image`` [3 n, H, W, 1] and ``label`` int [3 n], from 0 to 9; the first three are the red, green and blue
        of the first stack.

    Returns:
      ``image`` [n, H, W, 3] and ``label`` int32 [n], 100 r + 10 g + b of the three labels.

    Raises:
      ValueError: they are not grey images with labels from 0 to 9, or not three for each stack.

    References:
      Metz et al. 2017, "Unrolled Generative Adversarial Networks".
    """
    image, label = digits["image"], digits.get("label")
    if image.ndim != 4 or image.shape[-1] != 1 or len(image) % 3 or label is None or label.shape != image.shape[:1]:
        labelled = "no labels" if label is None else f"labels {list(label.shape)}"
        raise ValueError(
            f"stacks are made of grey images [3 n, H, W, 1] with labels [3 n], got {list(image.shape)} and {labelled}"
        )
    if label.size and not (label.min() >= 0 and label.max() < DIGITS):
        raise ValueError(
            f"stacks are made of images of {DIGITS} classes, labels 0 to {DIGITS - 1}, got {label.min()} to "
            f"{label.max()}: renumber them"
        )
    threes = np.moveaxis(image[..., 0].reshape(-1, 3, *image.shape[1:3]), 1, -1)
    labels = label.reshape(-1, 3).astype(np.int32) @ np.array([DIGITS**2, DIGITS, 1], np.int32)
    return {"image": np.ascontiguousarray(threes), "label": labels}


def draw_stacks(key: jax.Array, places: np.ndarray, num_digits: int) -> np.ndarray:
    """Which three images, each drawn from all, are in the stacks of these places.

    Args:
      key: typed key, []; a stack depends on it and on its place alone.
      places: of the stacks, int [n].
      num_digits: number of grey images N.

    Returns:
      Places of the grey images, int64 [n, 3].

    Raises:
      TypeError: the key is not one typed threefry key.
    """
    return np.asarray(_draw(named_key(key, "stacks"), places.astype(np.int32), num_digits), np.int64)


@jax.jit
def _draw(key: jax.Array, places: jax.Array, num_digits: jax.Array) -> jax.Array:
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)
    return jax.vmap(lambda k: jax.random.randint(k, (3,), 0, num_digits))(keys)


def stacked(source: Source, num_stacks: int) -> Source:
    """A source of stacks of a source's images, three drawn at random for each, always with the same draws.

    Args:
      source: of grey images with labels from 0 to 9, [N, H, W, 1].
      num_stacks: number of stacks.

    Returns:
      A source of colour images [num_stacks, H, W, 3], of 1,000 classes.

    Raises:
      ValueError: the images are not grey, or have no labels, or labels of more than ten classes.
    """
    if len(source.image_shape) != 3 or source.image_shape[-1] != 1 or not source.labels:
        raise ValueError(
            f"{source.name}: stacks are made of grey images [H, W, 1] with labels, got {list(source.image_shape)} "
            f"{'with' if source.labels else 'without'} labels: make colour images grey (--color grey)"
        )
    if source.num_classes is not None and source.num_classes > DIGITS:
        raise ValueError(
            f"{source.name}: stacks are made of {DIGITS} classes, got labels up to {source.num_classes - 1}"
        )
    shape = (*source.image_shape[:2], 3)

    def read(places: np.ndarray) -> dict[str, np.ndarray]:
        stacks = {"image": np.empty((len(places), *shape), source.image_type), "label": np.empty(len(places), np.int32)}
        for start in range(0, len(places), _PIECE):
            piece = slice(start, start + _PIECE)
            drawn = draw_stacks(jax.random.key(0), places[piece], source.num_examples)
            for name, array in stack_channels(source.read(drawn.reshape(-1))).items():
                stacks[name][piece] = array
        return stacks

    return Source(source.name, num_stacks, shape, source.image_type, True, DIGITS**3, read)


_PIECE = 4096  # stacks at a time: bounded memory
