"""How many different images a generator can make, from how often two of its samples are the same."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.metrics._neighbours import check_points, nearest

_MOST = 46_340  # samples, so that the number of ordered pairs fits into int32
_CONFIDENCE = 0.95
_QUANTILE = 1.6449  # of the normal distribution, at that confidence


class BirthdayTest(NamedTuple):
    """What the pairs of near-duplicates among samples say about the support they were drawn from.

    Args:
      num_pairs: pairs of samples within the threshold, int32 [].
      collision_rate: share c of all pairs, an estimate of the probability that two samples are the same, float32 [].
      standard_error: of the collision rate, float32 [].
      support_size: 1/c, the number of equally likely images that would collide as often, float32 []; infinite where no
        pair was found. Where images are not equally likely, there may be more of them.
      least_support_size: a support of that size or smaller would, with a probability of 0.95 (0.87 among 64 samples of
        a very uneven distribution), have shown more pairs than were found, float32 [].
      half_batch: number of samples among which two are the same with probability 1/2, float32 [].
      closest_pairs: numbers of the samples of the closest pairs, for the eye: each sample with its nearest other one,
        the closest first, int32 [K, 2].
      closest_distances: their Euclidean distances, float32 [K].
    """

    num_pairs: jax.Array
    collision_rate: jax.Array
    standard_error: jax.Array
    support_size: jax.Array
    least_support_size: jax.Array
    half_batch: jax.Array
    closest_pairs: jax.Array
    closest_distances: jax.Array


def birthday_test(samples: jax.Array, threshold: jax.Array | float, num_closest: int = 20) -> BirthdayTest:
    """Estimate the size of a distribution's support from the duplicates among samples.

    c = #{i < j: |x_i - x_j| <= threshold} / (N (N - 1) / 2),  support 1 / c

    Two samples of n equally likely images are the same with probability c = 1 / n; among N samples a duplicate has
    probability 1/2 once N (N - 1) / 2 = ln(2) / c. The standard error is that of a U-statistic, which knows that pairs
    share samples, and no smaller than that of as many independent pairs. Without any pair, all that is known is that c
    is below ln(20) / (N (N - 1) / 2), with confidence 0.95. The rate and what follows from it are NaN where a sample is
    not finite.

    Take the threshold from real images (`birthday_threshold`), look at the closest pairs, and report the same test of
    as many other real images beside the number: what they show is the chance of two images that are alike and not the
    same.

    Args:
      samples: generated images or features of them, uint8, bool or float, [N, ...] with 4 <= N <= 46,340.
      threshold: greatest Euclidean distance of near-duplicates, at least 0; copies count for any.
      num_closest: most pairs to show, K the smaller of this and N // 2.

    References:
      Arora, Risteski & Zhang 2018, "Do GANs learn the distribution? Some Theory and Empirics".
      Hoeffding 1948, "A class of statistics with asymptotically normal distribution", on the variance.
      Hanley & Lippman-Hand 1983, "If nothing goes wrong, is everything all right?", on the bound without any pair.
      Wilson & Hilferty 1931, "The distribution of chi-square", for the bound with pairs.
    """
    samples = jnp.asarray(samples)
    _check_samples("samples", samples)
    if num_closest < 0:
        raise ValueError(f"num_closest must be at least 0, got {num_closest}")
    if not isinstance(threshold, jax.core.Tracer) and not float(threshold) >= 0:
        raise ValueError(f"threshold must be a distance of at least 0, got {threshold!r}")
    with jax.enable_x64(True):
        return _test(samples, threshold, min(num_closest, samples.shape[0] // 2))


def birthday_threshold(real: jax.Array, num_pairs: int = 1) -> jax.Array:
    """A threshold for `birthday_test`, float32 []: the Euclidean distance that as many real images hardly ever reach.

    The num_pairs-th smallest distance of an image of ``real`` [N, ...] (uint8, bool or float; or features) to its
    nearest other one, each pair counted once, num_pairs from 1 to N // 2: among as many samples of a model that draws
    images like the data does, about num_pairs pairs are expected within it by chance. Where real images are copies of
    each other it is 0, and then only exact copies count.
    """
    real = jnp.asarray(real)
    _check_samples("real", real)
    if not 1 <= num_pairs <= real.shape[0] // 2:
        raise ValueError(f"num_pairs must be from 1 to {real.shape[0] // 2}, half of the images, got {num_pairs}")
    distances, numbers, _ = nearest(real, real, itself=False)
    return _closest(distances, numbers, num_pairs)[0][-1]


@functools.partial(jax.jit, static_argnums=2)
def _test(samples: jax.Array, threshold: jax.Array | float, num_closest: int) -> BirthdayTest:
    num = samples.shape[0]
    distances, numbers, counts = nearest(samples, samples, threshold, itself=False)
    closest_distances, closest_pairs = _closest(distances, numbers, num_closest)
    num_pairs = jnp.sum(counts, dtype=jnp.int32) // 2
    all_pairs = num * (num - 1) / 2
    found, degrees = num_pairs.astype(jnp.float64), counts.astype(jnp.float64)
    rate = jnp.where(jnp.all(jnp.isfinite(distances)), found / all_pairs, jnp.nan)
    # Var U = E U^2 - (E U)^2, and pairs of pairs that share no sample estimate (E U)^2 without bias.
    apart = found * (found - 1) / 2 - jnp.sum(degrees * (degrees - 1)) / 2
    variance = rate**2 - apart / (all_pairs * (num - 2) * (num - 3) / 4)
    error = jnp.sqrt(jnp.maximum(variance, rate * (1 - rate) / all_pairs))
    # The upper limit of a Poisson variable's mean: exact for none, else from an approximate quantile of chi^2.
    more = found + 1
    limit = more * (1 - 1 / (9 * more) + _QUANTILE / (3 * jnp.sqrt(more))) ** 3
    limit = jnp.where(num_pairs == 0, -math.log(1 - _CONFIDENCE), limit) / all_pairs
    upper = jnp.minimum(jnp.maximum(limit, rate + _QUANTILE * error), 1.0)
    half_batch = 0.5 + jnp.sqrt(0.25 + 2 * math.log(2) / rate)
    return BirthdayTest(
        num_pairs=num_pairs,
        collision_rate=rate.astype(jnp.float32),
        standard_error=error.astype(jnp.float32),
        support_size=(1 / rate).astype(jnp.float32),
        least_support_size=(1 / upper).astype(jnp.float32),
        half_batch=half_batch.astype(jnp.float32),
        closest_pairs=closest_pairs,
        closest_distances=closest_distances,
    )


def _check_samples(name: str, samples: jax.Array) -> None:
    check_points(name, samples, 4)
    if samples.shape[0] > _MOST:
        raise ValueError(f"{name} must be at most {_MOST:,}, got {samples.shape[0]:,}: take fewer of them")


@functools.partial(jax.jit, static_argnums=2)
def _closest(distances: jax.Array, numbers: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """The closest pairs of each point [N] and its nearest other one: (distances [K] ascending, pairs [K, 2])."""
    places = jnp.arange(numbers.shape[0], dtype=jnp.int32)
    seen = (numbers[numbers] == places) & (numbers < places)  # the pair is there from its other end
    negative, first = jax.lax.top_k(jnp.where(seen, -jnp.inf, -distances), num)
    pairs = jnp.stack([first, numbers[first]], axis=1)
    return -negative, jnp.sort(pairs, axis=1)
