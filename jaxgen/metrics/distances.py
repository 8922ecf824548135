"""Distances between two sets of images, or of their features, taken as samples of two distributions."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.batches import to_float
from jaxgen.keys import check_key, named_key
from jaxgen.metrics._features import Rows, check_features, check_pair, chunks, in_double, map_rows
from jaxgen.metrics.estimates import Estimate, from_repetitions

_VALUES = 2**23  # of points whose products with others are made at a time: 67 MB
_GRAM = 2048  # points of each side, at most, whose kernels are all made where features are more than points


def sliced_wasserstein_distance(
    real: jax.Array, fake: jax.Array, key: jax.Array, num_projections: int = 128
) -> jax.Array:
    """Sliced 2-Wasserstein distance between two sets of images of one size, float32 [].

    SW2^2 = E_u [ (1/N) sum_i (sort(u . x)_i - sort(u . y)_i)^2 ],  u uniform on the unit sphere

    ``real`` and ``fake`` are as many images of one shape, uint8, bool or float, [N, ...]; the key draws
    ``num_projections`` directions u. The unit is the flattened images' Euclidean norm over sqrt of its dimension.

    References:
      Bonneel et al. 2015, "Sliced and Radon Wasserstein Barycenters of Measures", section 3.
    """
    if real.shape != fake.shape or real.ndim < 2:
        raise ValueError(f"expected two equally large sets of images, got {list(real.shape)} and {list(fake.shape)}")
    if num_projections < 1:
        raise ValueError(f"num_projections must be at least 1, got {num_projections}")
    real, fake = (to_float(images).reshape(images.shape[0], -1) for images in (real, fake))
    directions = jax.random.normal(key, (real.shape[1], num_projections))
    directions = directions / jnp.linalg.norm(directions, axis=0, keepdims=True)
    gaps = jnp.sort(real @ directions, axis=0) - jnp.sort(fake @ directions, axis=0)
    return jnp.sqrt(jnp.mean(jnp.square(gaps)))


class Moments(NamedTuple):
    """Mean and covariance of features, in double precision, on the host.

    Args:
      num_points: N.
      mean: float64 [D].
      covariance: unbiased, float64 [D, D].
    """

    num_points: int
    mean: Any
    covariance: Any


def _centred(rows: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(count [], mean [D], deviations [D, C])."""
    count = jnp.sum(rows.weights)
    mean = rows.weights @ rows.values / count
    return count, mean, ((rows.values - mean[None]) * rows.weights[:, None]).T


def _scatter(count: jax.Array, mean: jax.Array, deviations: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    return count, mean, deviations @ deviations.T


# Two programs: the transposition is then done, not fused into the product, which takes half the time on the CPU.
_moments = in_double(_centred, _scatter)


def moments(features: Any) -> Moments:
    """Mean [D] and unbiased covariance [D, D] of features [N, D], N >= 2, in double precision.

    mean = (1/N) sum_i x_i,  covariance = (1/(N-1)) sum_i (x_i - mean)(x_i - mean)^T

    In pieces of bounded memory, rows spread over this process's devices. For features that come in pieces, see
    `merge_moments`.
    """
    features = check_features("features", features, 2)
    return _finish(functools.reduce(_merge, map(_moments, chunks(features))))


def _merge(first: tuple[int, Any, Any], second: tuple[int, Any, Any]) -> tuple[int, Any, Any]:
    """(count, mean, scatter) of two sets together."""
    count = first[0] + second[0]
    gap = second[1] - first[1]
    mean = first[1] + gap * (second[0] / count)
    return count, mean, first[2] + second[2] + (gap[:, None] * gap[None]) * (first[0] * second[0] / count)


def _finish(parts: tuple[int, Any, Any]) -> Moments:
    count, mean, scatter = parts
    return Moments(int(count), mean, scatter / (count - 1))


def merge_moments(first: Moments, second: Moments) -> Moments:
    """Moments [D] and [D, D] of a first and a second set together: so that features can be seen a piece at a time.

    M = M_1 + M_2 + (m_2 - m_1)(m_2 - m_1)^T N_1 N_2 / (N_1 + N_2),  M = (N - 1) covariance

    References:
      Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1 for vectors.
    """
    _check_dimensions(first, second)
    return _finish(_merge(*((m.num_points, m.mean, m.covariance * (m.num_points - 1)) for m in (first, second))))


def _check_dimensions(first: Moments, second: Moments) -> None:
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"moments are of features of different sizes, {first.mean.shape[0]} and {second.mean.shape[0]}: use one "
            "extractor for both"
        )


def _roots(eigenvalues: jax.Array) -> jax.Array:
    """Square roots; with fewer points than dimensions most eigenvalues are round-off, whose roots would add up."""
    noise = eigenvalues.shape[0] * jnp.finfo(eigenvalues.dtype).eps * jnp.max(jnp.abs(eigenvalues))
    return jnp.sqrt(jnp.where(eigenvalues > noise, eigenvalues, 0.0))


@in_double
def _trace_of_root(first: jax.Array, second: jax.Array) -> jax.Array:
    """tr (C_1^(1/2) C_2 C_1^(1/2))^(1/2)."""
    values, vectors = jnp.linalg.eigh(first)
    root = (vectors * _roots(values)[None]) @ vectors.T
    product = root @ second @ root
    return jnp.sum(_roots(jnp.linalg.eigvalsh((product + product.T) / 2.0)))


def frechet_distance(first: Moments, second: Moments) -> float:
    """Frechet distance between the Gaussians with the moments [D] and [D, D] of two sets of features, first and second.

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1^(1/2) C_2 C_1^(1/2))^(1/2))

    This is d^2, which is what the field reports, in units of the features squared; below 0 by round-off at most. It is
    biased upwards by an amount that falls with the numbers of points: compare values at equal numbers only. On the
    features of InceptionV3 it is the FID; on others it is not.

    References:
      Dowson & Landau 1982, "The Frechet distance between multivariate normal distributions", equation 4.
      Heusel et al. 2017, "GANs trained by a two time-scale update rule", equation 6.
    """
    _check_dimensions(first, second)
    gap = first.mean - second.mean
    traces = first.covariance.trace() + second.covariance.trace()
    return float(gap @ gap + traces - 2.0 * _trace_of_root(first.covariance, second.covariance))


def _inner(rows: Rows, others: jax.Array, centre: jax.Array) -> jax.Array:
    """Products of rows and others about a centre, [C, N]."""
    return (rows.values - centre[None]) @ (others.astype(rows.values.dtype) - centre[None]).T


def _inner_products(points: Any, others: Any, centre: Any) -> Any:
    """(x_i - c) . (y_j - c) of points [N, D] and others [M, D], float64 [N, M] on the host."""
    return map_rows(_inner, points, others, centre, size=max(64, _VALUES // points.shape[1]))


@in_double
def _nuclear_norm(products: jax.Array, first: jax.Array, second: jax.Array, left_out: jax.Array) -> jax.Array:
    """The sum of the singular values of the products [N, M] of centred points, but those of a group, int [N], [M]."""
    kept, others = ((groups != left_out).astype(products.dtype) for groups in (first, second))
    rows, columns = (products @ others) / jnp.sum(others), (kept @ products) / jnp.sum(kept)
    centred = products - rows[:, None] - columns[None] + (kept @ rows) / jnp.sum(kept)
    centred = centred * kept[:, None] * others[None]
    # Roots of eigenvalues, as of covariances: the singular values themselves take ten times as long.
    small = centred @ centred.T if centred.shape[0] <= centred.shape[1] else centred.T @ centred
    return jnp.sum(_roots(jnp.linalg.eigvalsh(small)))


class _Few:
    """`frechet_distance` of few points of many features, with and without groups of them.

    With C = A^T A / (N - 1), A the centred points, tr (C_1^(1/2) C_2 C_1^(1/2))^(1/2) is the sum of the singular values
    of A_1 A_2^T / ((N - 1) (M - 1))^(1/2), an [N, M] matrix: whatever the number of features, which cost once.
    """

    def __init__(self, real: Any, fake: Any, groups: Sequence[Any], num_groups: int) -> None:
        # About their common centre little cancels where what is kept is centred anew.
        centre = (real.mean(0, dtype="float64") + fake.mean(0, dtype="float64")) / 2.0
        self._products, self._groups = _inner_products(real, fake, centre), groups
        self._sums = [
            [_sums(points[of_side == g] - centre) for g in range(num_groups)]
            for points, of_side in zip((real, fake), groups, strict=True)
        ]

    def distance(self, left_out: int | None) -> float:
        """d^2 without a group of both sides."""
        means, total, freedom = [], 0.0, 1.0
        for side in self._sums:
            counts, points, squares = zip(*(each for g, each in enumerate(side) if g != left_out), strict=True)
            count, mean = sum(counts), sum(points) / sum(counts)
            total += (sum(squares) - count * (mean @ mean)) / (count - 1)
            freedom *= count - 1
            means.append(mean)
        gap = means[0] - means[1]
        root = _nuclear_norm(self._products, *self._groups, -1 if left_out is None else left_out)
        return float(gap @ gap + total - 2.0 * root / freedom**0.5)


def _sums(points: Any) -> tuple[int, Any, Any]:
    """(number, sum [D], sum of squares []) of points [N, D]."""
    return len(points), points.sum(0), (points**2).sum()


def frechet_estimate(real: Any, fake: Any, key: jax.Array, num_groups: int = 10) -> Estimate:
    """`frechet_distance` of two sets of features with its standard error, by leaving out a tenth of both at a time.

    error^2 = ((G - 1) / G) sum_g (d_(g) - mean)^2,  d_(g) without group g of both sets

    Args:
      real, fake: features of real and of generated images, [N, D] and [M, D], N and M at least 2 G.
      key: typed key of the groups, []: points may come class by class, or in turn.
      num_groups: number of groups G, at least 2.

    References:
      Efron & Tibshirani 1993, "An Introduction to the Bootstrap", equation 11.5 (the jackknife), for groups.
    """
    if num_groups < 2:
        raise ValueError(f"num_groups must be at least 2, got {num_groups}")
    real, fake = check_pair(real, fake, 2 * num_groups)
    check_key(key)
    orders = [
        jax.device_get(jax.random.permutation(named_key(key, name), len(points)))
        for name, points in (("real", real), ("fake", fake))
    ]
    if min(len(real), len(fake)) < real.shape[1]:
        # Groups in turn along the order: which each point is in.
        distance = _Few(real, fake, [order.argsort() % num_groups for order in orders], num_groups).distance
    else:
        sides = [
            [moments(points[order[g::num_groups]]) for g in range(num_groups)]
            for points, order in zip((real, fake), orders, strict=True)
        ]

        def distance(left_out: int | None) -> float:
            return frechet_distance(*(_together(side, left_out) for side in sides))

    partial = [distance(g) for g in range(num_groups)]
    return Estimate(distance(None), from_repetitions(partial).standard_error * (num_groups - 1))


def _together(groups: Sequence[Moments], left_out: int | None) -> Moments:
    return functools.reduce(merge_moments, [m for g, m in enumerate(groups) if g != left_out])


def _kernel(products: Any, dim: int) -> Any:
    return (products / dim + 1.0) ** 3


@in_double
def _mean_discrepancy(real: Rows, fake: Rows) -> jax.Array:
    """The unbiased estimate of MMD^2 of two pieces of rows."""
    dim = real.values.shape[1]

    def within(rows: Rows) -> jax.Array:
        count = jnp.sum(rows.weights)
        diagonal = _kernel(jnp.sum(jnp.square(rows.values), axis=1), dim)
        total = rows.weights @ _kernel(rows.values @ rows.values.T, dim) @ rows.weights - rows.weights @ diagonal
        return total / (count * (count - 1.0))

    across = real.weights @ _kernel(real.values @ fake.values.T, dim) @ fake.weights
    across = across / (jnp.sum(real.weights) * jnp.sum(fake.weights))
    return within(real) + within(fake) - 2.0 * across


def _discrepancies_of_few(real: Any, fake: Any, subsets: Sequence[tuple[Any, Any]]) -> list[float]:
    """The same of subsets of few points of many features, from the kernels of all of them, which cost once."""
    origin = real[0] * 0.0
    pairs = ((real, real), (fake, fake), (real, fake))
    kernels = [_kernel(_inner_products(*pair, origin), real.shape[1]) for pair in pairs]

    def within(kernel: Any, places: Any) -> Any:
        chosen = kernel[places[:, None], places[None]]
        return (chosen.sum() - chosen.trace()) / (len(places) * (len(places) - 1.0))

    return [
        float(within(kernels[0], x) + within(kernels[1], y) - 2.0 * kernels[2][x[:, None], y[None]].mean())
        for x, y in subsets
    ]


def kernel_distance(real: Any, fake: Any, key: jax.Array, num_subsets: int = 100, subset_size: int = 1000) -> Estimate:
    """Kernel distance of two sets of features: the squared maximum mean discrepancy, unbiased, over random subsets.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),
    k(x, y) = (x . y / D + 1)^3

    The mean over S subsets of m points drawn without replacement, in units of the kernel; it may be below 0 where it is
    not far from 0. Its variance is taken as s^2 / S + s^2 f / (1 - f), with s^2 the subsets' variance and f = m / N:
    subsets overlap, so many of them do not make the N points more. That is too much rather than too little where the
    two distributions are one. On InceptionV3's features this is the KID.

    Args:
      real, fake: features of real and of generated images, [N, D] and [M, D].
      key: typed key of the subsets, [].
      num_subsets: number of subsets S.
      subset_size: points in each m, less than N and M.

    References:
      Gretton et al. 2012, "A kernel two-sample test", equation 3; Binkowski et al. 2018, "Demystifying MMD GANs",
      section 4 (the kernel, and blocks of 1000).
    """
    check_key(key)
    for name, size in (("num_subsets", num_subsets), ("subset_size", subset_size)):
        if size < 2:
            raise ValueError(f"{name} must be at least 2, got {size}")
    real, fake = check_pair(real, fake, subset_size + 1)
    subsets = []
    for subset in range(num_subsets):
        subset_key = jax.random.fold_in(key, subset)
        drawn = (
            jax.device_get(jax.random.permutation(named_key(subset_key, name), len(points))[:subset_size])
            for name, points in (("real", real), ("fake", fake))
        )
        subsets.append(tuple(drawn))
    if real.shape[1] > subset_size and max(len(real), len(fake)) <= _GRAM:
        values = _discrepancies_of_few(real, fake, subsets)
    else:
        pairs = ([next(chunks(side, subset_size)) for side in (real[x], fake[y])] for x, y in subsets)
        values = [float(_mean_discrepancy(*pair)) for pair in pairs]
    share = subset_size / min(len(real), len(fake))
    estimate = from_repetitions(values)
    return Estimate(estimate.value, estimate.standard_error * (1.0 + num_subsets * share / (1.0 - share)) ** 0.5)
