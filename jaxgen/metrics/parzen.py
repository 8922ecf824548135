"""The Parzen window estimate of 2014: a likelihood of samples, for comparison with the papers that report it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.batches import to_float

_CHUNK = 250  # images whose distances to all samples are in memory


def parzen_log_likelihood(samples: jax.Array, images: jax.Array, sigma: float | jax.Array) -> jax.Array:
    """Log-density of images [M, ...] under Gaussians around samples [N, ...] of a model, in nats, float32 [M].

    log p(x) = log (1/N) sum_i N(x; s_i, sigma^2 I)

    Samples and images are uint8, bool or float, and sigma is in units of their range. The number says little of a
    model: it depends on N and sigma more than on anything else, samples by k-means beat real images, and in hundreds of
    dimensions the sum never comes near log p(x) (Theis et al.). It is here because papers of 2014 report it. Distances
    are summed in float64: divided by sigma^2, their round-off would be nats.

    References:
      Breuleux, Bengio & Vincent 2011; Goodfellow et al. 2014, "Generative adversarial nets", section 5; Theis, van den
      Oord & Bethge 2016, "A note on the evaluation of generative models", section 3.2.
    """
    if jnp.shape(samples)[1:] != jnp.shape(images)[1:] or jnp.ndim(samples) < 2 or min(len(samples), len(images)) < 1:
        raise ValueError(
            f"samples and images must be [N, ...] and [M, ...] of one shape, got {list(jnp.shape(samples))} and "
            f"{list(jnp.shape(images))}"
        )
    if not isinstance(sigma, jax.core.Tracer) and not (math.isfinite(float(sigma)) and float(sigma) > 0):
        raise ValueError(f"sigma must be a finite number above 0, got {sigma!r}")
    with jax.enable_x64(True):
        return _log_likelihood(samples, images, jnp.asarray(sigma, jnp.float64))


@jax.jit
def _log_likelihood(samples: jax.Array, images: jax.Array, sigma: jax.Array) -> jax.Array:
    samples, images = (to_float(x).reshape(len(x), -1).astype(jnp.float64) for x in (samples, images))
    squares = jnp.sum(jnp.square(samples), axis=1)
    log_normalizer = math.log(samples.shape[0]) + samples.shape[1] * (jnp.log(sigma) + 0.5 * math.log(2 * math.pi))

    def one(x: jax.Array) -> jax.Array:
        distances = squares - 2.0 * (samples @ x) + jnp.sum(jnp.square(x))
        return jax.nn.logsumexp(-0.5 * distances / jnp.square(sigma))

    found = jax.lax.map(one, images, batch_size=min(_CHUNK, images.shape[0]))
    return (found - log_normalizer).astype(jnp.float32)


class ParzenBandwidth(NamedTuple):
    """Standard deviations tried, and the best.

    Args:
      sigma: the best.
      candidates: all, ascending.
      log_likelihoods: mean over the validation images of each, in nats.
      at_end: whether the best is the first or the last of several, where a better one may lie outside.
    """

    sigma: float
    candidates: list[float]
    log_likelihoods: list[float]
    at_end: bool


def parzen_bandwidth(
    samples: jax.Array, validation: jax.Array, sigmas: Sequence[float] | None = None
) -> ParzenBandwidth:
    """The standard deviation under which validation images are likeliest, as in the papers of 2014.

    sigma = argmax_sigma (1/M) sum_i log p_sigma(x_i)

    Args:
      samples: of the model, [N, ...].
      validation: real images that are used for nothing else, [M, ...].
      sigmas: candidates, ascending; ten from 0.05 to 1, evenly spaced in their logarithms, when None.

    References:
      Goodfellow et al. 2014, "Generative adversarial nets", section 5: sigma by cross-validation.
    """
    candidates = [0.05 * 20 ** (i / 9) for i in range(10)] if sigmas is None else [float(sigma) for sigma in sigmas]
    if not candidates or candidates != sorted(set(candidates)):
        raise ValueError(f"sigmas must be ascending numbers, at least one, got {candidates}")
    if candidates[0] <= 0:
        raise ValueError(f"sigmas must be above 0, got {candidates}")

    def mean(sigma: jax.Array) -> jax.Array:
        return jnp.mean(parzen_log_likelihood(samples, validation, sigma))

    # All at once, so that the distances are computed once.
    means = jax.vmap(mean)(jnp.asarray(candidates)).tolist()
    best = max(range(len(means)), key=means.__getitem__)
    at_end = len(candidates) > 1 and best in (0, len(candidates) - 1)
    return ParzenBandwidth(candidates[best], candidates, means, at_end)
