"""What a classifier says of generated images."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.keys import check_key
from jaxgen.metrics.estimates import Estimate, from_repetitions


def classifier_score(probabilities: Any, key: jax.Array, num_splits: int = 10) -> Estimate:
    """How sure a classifier is of each image, and how many classes it sees in all: the Inception Score's formula.

    score = exp((1/N) sum_i KL(p(y | x_i) || p(y))),  p(y) = (1/N) sum_i p(y | x_i)

    The mean over random splits of the images, and its standard error over them. Between 1 and the number of classes. It
    sees neither copies nor what images of a class look like. With the probabilities of InceptionV3 it is the Inception
    Score.

    Args:
      probabilities: p(y | x), each row summing to 1, [N, K] with N >= 2 S.
      key: typed key of the splits, []: images may come class by class, or in turn.
      num_splits: number of splits S, at least 2.

    References:
      Salimans et al. 2016, "Improved techniques for training GANs", section 4.
    """
    if num_splits < 2:
        raise ValueError(f"num_splits must be at least 2, got {num_splits}")
    probabilities = jnp.asarray(jax.device_get(probabilities), jnp.float32)
    if probabilities.ndim != 2 or probabilities.shape[0] < 2 * num_splits:
        raise ValueError(
            f"expected the probabilities of at least {2 * num_splits} images, [N, K], got shape "
            f"{list(probabilities.shape)}: take more images or fewer splits"
        )
    off = jnp.abs(jnp.sum(probabilities, axis=1) - 1.0)
    bad = ~((off < 1e-3) & jnp.all(probabilities >= 0.0, axis=1))
    if bool(jnp.any(bad)):
        row = int(jnp.argmax(bad))
        raise ValueError(f"row {row} holds no probabilities (its sum is {1 + float(off[row]):.4g}): apply a softmax")
    check_key(key)
    probabilities = jax.random.permutation(key, probabilities)
    return from_repetitions([float(_score(probabilities[split::num_splits])) for split in range(num_splits)])


@jax.jit
def _score(probabilities: jax.Array) -> jax.Array:
    marginal = jnp.mean(probabilities, axis=0, keepdims=True)
    gain = jax.scipy.special.rel_entr(probabilities, marginal)
    return jnp.exp(jnp.mean(jnp.sum(gain, axis=1)))
