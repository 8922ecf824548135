"""Distances between distributions, against independent computations in double precision."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from scipy import linalg
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from jaxgen import metrics
from jaxgen.metrics import _features


def two_sets(num: int = 300, dim: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated float32 features of two distributions, their mean far from 0, as those of networks are."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((dim, dim)) / np.sqrt(dim)
    real = generator.standard_normal((num, dim)) @ mixing + 5.0
    fake = 1.2 * generator.standard_normal((num + 20, dim)) @ mixing + 5.2
    return real.astype(np.float32), fake.astype(np.float32)


def nuclear_norm_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """tr (C_1 C_2)^(1/2) is the sum of the singular values of A_1 A_2^T with C = A^T A: right for N < D too."""
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (real.astype(float), fake.astype(float))]
    cross = linalg.svdvals(centred[0] @ centred[1].T).sum()
    gap = real.astype(float).mean(0) - fake.astype(float).mean(0)
    return float(gap @ gap + sum((x**2).sum() for x in centred) - 2 * cross)


def test_frechet_distance_is_that_of_scipy() -> None:
    real, fake = two_sets()
    first, second = (np.cov(x.astype(float), rowvar=False) for x in (real, fake))
    gap = real.astype(float).mean(0) - fake.astype(float).mean(0)
    expected = gap @ gap + np.trace(first + second - 2 * linalg.sqrtm(first @ second).real)
    measured = metrics.frechet_distance(metrics.moments(real), metrics.moments(fake))
    np.testing.assert_allclose(measured, expected, rtol=1e-8)
    np.testing.assert_allclose(nuclear_norm_distance(real, fake), expected, rtol=1e-8)


@pytest.mark.parametrize(("num", "dim"), [pytest.param(20, 200, marks=pytest.mark.slow), (5, 64), (150, 100)])
def test_frechet_distance_with_fewer_points_than_dimensions(num: int, dim: int) -> None:
    real, fake = two_sets(num, dim)
    measured = metrics.frechet_distance(metrics.moments(real), metrics.moments(fake))
    np.testing.assert_allclose(measured, nuclear_norm_distance(real, fake), rtol=1e-6)


def test_frechet_distance_of_gaussians_in_closed_form() -> None:
    """Diagonal covariances: sum (m_1 - m_2)^2 + (s_1 - s_2)^2."""
    first = metrics.Moments(10, np.array([0.0, 1.0]), np.diag([4.0, 0.0]))
    second = metrics.Moments(10, np.array([3.0, 1.0]), np.diag([1.0, 9.0]))
    assert metrics.frechet_distance(first, second) == pytest.approx(9.0 + 1.0 + 9.0, rel=1e-12)
    assert metrics.frechet_distance(first, first) == pytest.approx(0.0, abs=1e-12)


def test_a_small_frechet_distance_is_not_lost() -> None:
    """In float32 the traces of covariances of 1e4 leave nothing of a distance of 0.01."""
    generator = np.random.default_rng(1)
    real = generator.standard_normal((500, 10)) * 100.0
    measured = metrics.frechet_distance(metrics.moments(real), metrics.moments(real + 0.1 / np.sqrt(10)))
    np.testing.assert_allclose(measured, 0.01, rtol=1e-6)


def test_moments_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    real, _ = two_sets(301)
    monkeypatch.setattr(_features.chunks, "__defaults__", (64,))
    whole = metrics.moments(real)
    monkeypatch.undo()
    merged = functools.reduce(metrics.merge_moments, [metrics.moments(real[i : i + 43]) for i in range(0, 301, 43)])
    for found in (whole, merged):
        assert found.num_points == 301
        np.testing.assert_allclose(found.mean, real.astype(float).mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(real.astype(float), rowvar=False), rtol=1e-9, atol=1e-12)


def test_the_error_of_a_frechet_distance_is_about_its_spread() -> None:
    """Over 20 draws of both sets, the mean of the reported errors and the spread of the values."""
    fixed = [metrics.frechet_estimate(*_of_one_mixing(seed), jax.random.key(seed), num_groups=5) for seed in range(20)]
    spread = np.std([e.value for e in fixed], ddof=1)
    mean_error = np.mean([e.standard_error for e in fixed])
    assert 0.6 < mean_error / spread < 1.7


def _of_one_mixing(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((200, 6)), 1.3 * generator.standard_normal((200, 6)) + 0.2


def unbiased_discrepancy(real: np.ndarray, fake: np.ndarray) -> float:
    kernel = functools.partial(polynomial_kernel, degree=3, coef0=1)
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in map(kernel, (real, fake))]
    return sum(within) - 2 * kernel(real, fake).mean()


def test_kernel_distance_is_that_of_scikit_learn(key: jax.Array) -> None:
    """Subsets of all points but one: each is known by the point that it leaves out."""
    real, fake = (x.astype(float) for x in two_sets(60, 8))
    fake = fake[:60]
    measured = metrics.kernel_distance(real, fake, key, num_subsets=3, subset_size=59)
    expected = []
    for subset in range(3):
        subset_key = jax.random.fold_in(key, subset)
        drawn = []
        for name, points in (("real", real), ("fake", fake)):
            order = np.asarray(jax.random.permutation(metrics.distances.named_key(subset_key, name), 60))
            drawn.append(points[order[:59]])
        expected.append(unbiased_discrepancy(*drawn))
    np.testing.assert_allclose(measured.value, np.mean(expected), rtol=1e-9)


def test_kernel_distance_is_unbiased_and_its_error_honest(key: jax.Array) -> None:
    """Of one distribution it is 0 on average: 20 pairs of sets, each within its own error."""
    scores = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        real, fake = generator.standard_normal((2, 100, 4))
        estimate = metrics.kernel_distance(real, fake, jax.random.fold_in(key, seed), num_subsets=6, subset_size=25)
        scores.append(estimate.value / estimate.standard_error)
    assert abs(np.mean(scores)) < 3 * np.std(scores) / np.sqrt(20)
    assert np.max(np.abs(scores)) < 3.0
    far = metrics.kernel_distance(real, fake + 1.0, key, num_subsets=6, subset_size=25)
    assert far.value > 3 * far.standard_error


def neighbour_counts(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float, float, float]:
    real_radii, fake_radii = (NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, -1] for x in (real, fake))
    distances = pairwise_distances(real, fake)
    inside = distances <= real_radii[:, None]
    return (
        inside.any(0).mean(),
        (distances <= fake_radii[None]).any(1).mean(),
        inside.sum(0).mean() / k,
        (distances.min(1) <= real_radii).mean(),
    )


@pytest.mark.parametrize("k", [1, 5])
def test_precision_and_recall_count_as_scikit_learn_does(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics.manifolds, "_CHUNK", 77)
    real, fake = (x.astype(float) for x in two_sets(400, 6))
    measured = metrics.precision_recall(real, fake, k)
    expected = neighbour_counts(real, fake, k)
    assert measured == pytest.approx(expected, abs=1e-12)
    assert min(expected) > 0.0
    assert max(expected[:2]) < 1.0


def test_precision_and_recall_see_what_they_should() -> None:
    generator = np.random.default_rng(3)
    real = generator.standard_normal((300, 3))
    one_image = np.repeat(real[:1], 300, axis=0)
    collapsed = metrics.precision_recall(real, one_image)
    assert collapsed.precision == 1.0
    assert collapsed.recall < 0.02
    assert collapsed.coverage < 0.1
    far = metrics.precision_recall(real, real + 100.0)
    assert far == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("order", ["class by class", "in turn"])
def test_classifier_score_in_closed_form(order: str, key: jax.Array) -> None:
    """Of four even classes it is 4, in whatever order the images come; of one class, or of no decision, 1."""
    labels = np.arange(400) // 100 if order == "class by class" else np.arange(400) % 4
    sure = np.eye(4, dtype=np.float32)[labels]
    assert metrics.classifier_score(sure, key, 4).value == pytest.approx(4, rel=0.05)
    assert metrics.classifier_score(np.repeat(sure[:1], 100, axis=0), key, 2) == (1.0, 0.0)
    assert metrics.classifier_score(np.full((40, 4), 0.25, np.float32), key) == pytest.approx((1.0, 0.0), abs=1e-6)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: metrics.moments(x[:1]), "1 points are too few, at least 2"),
        (lambda x: metrics.moments(x[None]), r"features \[N, D\], got shape \[1, 50, 3\]"),
        (lambda x: metrics.frechet_estimate(x[:19], x, jax.random.key(0)), "real: 19 points are too few, at least 20"),
        (lambda x: metrics.frechet_estimate(x, x[:, :2], jax.random.key(0)), "different sizes"),
        (lambda x: metrics.frechet_distance(metrics.moments(x), metrics.moments(x[:, :2])), "different sizes, 3 and 2"),
        (lambda x: metrics.precision_recall(x, x[:5]), "fake: 5 points are too few, at least 6"),
        (lambda x: metrics.precision_recall(x, np.where(x == x[7], np.nan, x)), "fake must be finite.*image 7 "),
        (lambda x: metrics.precision_recall(x, x, 0), "num_neighbours must be at least 1"),
        (lambda x: metrics.kernel_distance(x, x, jax.random.key(0)), "50 points are too few, at least 1001"),
        (lambda x: metrics.classifier_score(x, jax.random.key(0)), r"at least 20 images|row 0 holds no probabilities"),
        (lambda x: metrics.classifier_score(x[:4], jax.random.key(0)), "at least 20 images"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        call(np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32))


def test_integers_are_not_cast() -> None:
    with pytest.raises(TypeError, match="must be floating point, got uint8"):
        metrics.moments(np.zeros((5, 3), np.uint8))


def test_few_points_of_many_features_are_compared_in_their_span(key: jax.Array) -> None:
    """The same number as by the roots of covariances, whose time is the cube of the features: minutes for colour."""
    rng = np.random.default_rng(0)
    real, fake = (
        rng.normal(size=(40, 60)).astype(np.float32),
        (1.2 * rng.normal(size=(50, 60)) + 0.1).astype(np.float32),
    )
    value, error = metrics.frechet_estimate(real, fake, key)
    np.testing.assert_allclose(value, metrics.frechet_distance(metrics.moments(real), metrics.moments(fake)), rtol=1e-9)
    # Features that are nothing new change nothing, and lead to the other way of computing.
    wide, wider = (np.pad(points, ((0, 0), (0, 1))) for points in (real, fake))
    again = metrics.frechet_estimate(wide, wider, key)
    np.testing.assert_allclose([again.value, again.standard_error], [value, error], rtol=1e-9)
    narrow = metrics.frechet_estimate(real[:, :30], fake[:, :30], key)
    widened = [np.pad(points[:, :30], ((0, 0), (0, 30))) for points in (real, fake)]
    padded = metrics.frechet_estimate(widened[0], widened[1], key)
    np.testing.assert_allclose(padded.value, narrow.value, rtol=1e-6)
    np.testing.assert_allclose(padded.standard_error, narrow.standard_error, rtol=1e-4)


@pytest.mark.parametrize(("num_real", "num_fake"), [(40, 50), (90, 80), (40, 90), (90, 40)])
def test_a_frechet_distance_is_the_same_in_the_span_of_the_points(num_real: int, num_fake: int, key: jax.Array) -> None:
    """Fewer points than the 60 features on both sides, on neither, and on one: as by matrices of covariances, whole."""
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(60, 60)) / 8
    real = (rng.normal(size=(num_real, 60)) @ mixing + 3.0).astype(np.float32)
    fake = (1.3 * rng.normal(size=(num_fake, 60)) + 3.1).astype(np.float32)
    value, error = metrics.frechet_estimate(real, fake, key)
    assert value == pytest.approx(metrics.frechet_distance(metrics.moments(real), metrics.moments(fake)), rel=1e-6)
    orders = [
        np.asarray(jax.random.permutation(metrics.distances.named_key(key, name), len(points)))
        for name, points in (("real", real), ("fake", fake))
    ]
    partial = []
    for group in range(10):
        kept = [np.delete(points, order[group::10], axis=0) for points, order in zip((real, fake), orders, strict=True)]
        partial.append(metrics.frechet_distance(*map(metrics.moments, kept)))
    jackknife = np.sqrt(0.9 * np.sum((np.array(partial) - np.mean(partial)) ** 2))
    assert error == pytest.approx(jackknife, rel=1e-5)


def test_a_kernel_distance_is_the_same_from_the_kernels_of_all(key: jax.Array, monkeypatch: Any) -> None:
    """Few points of many features: what is computed once for all subsets, and a subset at a time."""
    rng = np.random.default_rng(2)
    real, fake = (
        rng.normal(size=(40, 70)).astype(np.float32),
        (1.1 * rng.normal(size=(45, 70))).astype(np.float32),
    )
    once = metrics.kernel_distance(real, fake, key, num_subsets=4, subset_size=20)
    monkeypatch.setattr(metrics.distances, "_GRAM", 0)
    assert once == pytest.approx(metrics.kernel_distance(real, fake, key, num_subsets=4, subset_size=20), rel=1e-9)
