"""What the classes of samples say about them: which are missing, and how the others are spread.

The labels of samples come from a classifier, or from what a conditional model was asked for. Labels out of range raise
where their values are known; inside a caller's ``jit`` they make every number NaN, and a count -1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.metrics._histograms import shares

_DIGITS = 10


class ClassCoverage(NamedTuple):
    """Which classes there are among samples: the ``shares`` float32 [K], and ``num_covered`` int32 []."""

    shares: jax.Array
    num_covered: jax.Array


class StackedModes(NamedTuple):
    """Which of the 1,000 modes of stacked MNIST there are among samples.

    Args:
      num_modes: modes with at least one sample, of 1,000, int32 [].
      kl: Kullback-Leibler divergence of the samples' histogram of modes from the even one, in nats, float32 [].
    """

    num_modes: jax.Array
    kl: jax.Array


def label_histogram(labels: jax.Array, num_classes: int) -> jax.Array:
    """Share of each class among labels, float32 [K].

    p_k = (1/N) #{i: y_i = k}

    The labels are integers [N] from 0 to num_classes - 1, K of them. All is NaN where traced labels are out of range.
    """
    valid, counts = _in_range(labels, num_classes), _count(labels, num_classes)
    return jnp.where(valid, counts / labels.shape[0], jnp.nan)


def histogram_kl(samples_histogram: jax.Array, data_histogram: jax.Array) -> jax.Array:
    """Kullback-Leibler divergence of the samples' classes from those of the data, in nats, float32 [].

    KL(p || q) = sum_k p_k ln(p_k / q_k),  p of the samples, q of the data, 0 ln 0 = 0

    ``samples_histogram`` and ``data_histogram`` are counts or shares, at least 0, [K]; NaN where traced ones are
    negative or empty. Infinite where samples are of a class that the data lack. Classes that the samples lack add
    nothing by themselves: what is missing there is too much elsewhere. Of N samples drawn
    from q itself it is about (K - 1) / (2 N), not 0: 0.02 for 26,000 samples of 1,000 classes.

    References:
      Srivastava et al. 2017, "VEEGAN", and Lin et al. 2018, "PacGAN": the divergence reported of stacked MNIST.
      Miller 1955, "Note on the bias of information estimates".
    """
    if jnp.ndim(data_histogram) != 1 or jnp.shape(samples_histogram) != jnp.shape(data_histogram):
        raise ValueError(
            f"histograms must be [K] with one K, got {list(jnp.shape(samples_histogram))} and "
            f"{list(jnp.shape(data_histogram))}"
        )
    p, q = shares("samples_histogram", samples_histogram), shares("data_histogram", data_histogram)
    terms = jnp.where(p == 0, 0.0, p * (jnp.log(jnp.where(p == 0, 1.0, p)) - jnp.log(q)))
    # Rounding may leave a sum just below 0; NaN stays.
    return jnp.maximum(jnp.sum(terms), 0.0)


def class_coverage(labels: jax.Array, num_classes: int, least_share: float = 0.1) -> ClassCoverage:
    """Share of each class among samples, and how many classes are covered.

    Class k is covered when p_k > 0 and p_k >= least_share / K

    The labels are integers [N] from 0 to num_classes - 1, K of them. The default of ``least_share``, in [0, 1], asks
    for a tenth of an even share, so that the errors of a classifier, a percent of the samples, do not cover a class
    that is missing; 0 asks for one sample, as counts of modes do. NaN and -1 where traced labels are out of range.

    References:
      Santurkar, Schmidt & Madry 2018, "A Classification-Based Study of Covariate Shift in GAN Distributions", on
      the shares of classes that a classifier finds.
    """
    if not 0 <= least_share <= 1:
        raise ValueError(f"least_share must be in [0, 1], in units of an even share, got {least_share!r}")
    valid, counts = _in_range(labels, num_classes), _count(labels, num_classes)
    least = max(math.ceil(least_share * labels.shape[0] / num_classes - 1e-9), 1)  # samples
    covered = jnp.sum(counts >= least, dtype=jnp.int32)
    return ClassCoverage(jnp.where(valid, counts / labels.shape[0], jnp.nan), jnp.where(valid, covered, -1))


def stacked_modes(labels: jax.Array) -> StackedModes:
    """How many of the 1,000 modes of stacked MNIST samples find, and how evenly.

    Mode 100 a + 10 b + c of an image whose red, green and blue digits are a, b and c; KL(p || even)

    The labels are the digits from 0 to 9 that a classifier of grey digits finds in each channel, int [N, 3]. The
    divergence is at most ln 1000 = 6.91 nats; -1 and NaN where traced labels are out of range.

    References:
      Metz et al. 2017, "Unrolled Generative Adversarial Networks".
      Srivastava et al. 2017, "VEEGAN"; Lin et al. 2018, "PacGAN": 26,000 samples.
    """
    if jnp.ndim(labels) != 2 or labels.shape[1] != 3:
        raise ValueError(
            f"labels must be one digit a channel, [N, 3], got shape {list(jnp.shape(labels))}: classify each channel"
        )
    valid = _in_range(labels.reshape(-1), _DIGITS)
    hundreds, tens, ones = jnp.moveaxis(jnp.asarray(labels).astype(jnp.int32), 1, 0)
    counts = _count(100 * hundreds + 10 * tens + ones, _DIGITS**3)
    kl = histogram_kl(jnp.where(valid, counts, jnp.nan), jnp.ones(_DIGITS**3))
    return StackedModes(jnp.where(valid, jnp.sum(counts > 0, dtype=jnp.int32), -1), kl)


def _in_range(labels: jax.Array, num_classes: int) -> jax.Array:
    """Whether all labels are in range, bool []; raised where it is known that one is not."""
    labels = jnp.asarray(labels)
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.ndim != 1 or labels.shape[0] < 1:
        raise ValueError(f"labels must be [N] with N >= 1, got shape {list(labels.shape)}")
    low, high = jnp.min(labels), jnp.max(labels)
    valid = (low >= 0) & (high < num_classes)
    if not isinstance(valid, jax.core.Tracer) and not bool(valid):
        raise ValueError(
            f"labels must be from 0 to {num_classes - 1}, got values from {int(low)} to {int(high)}: "
            f"num_classes={num_classes} does not fit them"
        )
    return valid


def _count(labels: jax.Array, num_classes: int) -> jax.Array:
    """Number of each label, int32 [K]."""
    return jnp.zeros(num_classes, jnp.int32).at[jnp.asarray(labels)].add(1)
