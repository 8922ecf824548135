"""Classes among samples and the birthday test, against closed forms and numbers worked out by hand."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2, entropy

from jaxgen import metrics


def test_a_histogram_by_hand() -> None:
    labels = jnp.array([0, 2, 2, 1, 2], jnp.uint8)
    for histogram in (metrics.label_histogram, jax.jit(metrics.label_histogram, static_argnums=1)):
        np.testing.assert_allclose(histogram(labels, 4), [0.2, 0.2, 0.6, 0.0])


def test_kl_of_histograms_by_hand_and_by_scipy(key: jax.Array) -> None:
    """(1/2, 1/2, 0) from (1/4, 1/4, 1/2) is ln 2; counts and shares are the same; the other way round is infinite."""
    few, all_classes = jnp.array([7, 7, 0]), jnp.array([0.25, 0.25, 0.5])
    np.testing.assert_allclose(metrics.histogram_kl(few, all_classes), math.log(2), rtol=1e-6)
    assert float(metrics.histogram_kl(all_classes, few)) == math.inf
    assert float(metrics.histogram_kl(few, few)) == 0.0
    samples, others = jax.random.uniform(key, (2, 50))
    expected = entropy(np.asarray(samples, np.float64), np.asarray(others, np.float64))
    np.testing.assert_allclose(jax.jit(metrics.histogram_kl)(samples, others), expected, rtol=1e-5)


def test_kl_of_a_perfect_model_is_its_known_bias() -> None:
    """Of 26,000 samples of 1,000 even modes, (K - 1) / (2 N) = 0.019, with a standard deviation of 0.0009."""
    labels = jnp.asarray(np.random.default_rng(0).integers(0, 10, (26_000, 3)))
    found = metrics.stacked_modes(labels)
    assert int(found.num_modes) == 1000
    np.testing.assert_allclose(found.kl, 999 / 52_000, atol=0.003)


def test_stacked_modes_by_hand() -> None:
    """Three of four stacks alike: KL = ln 1000 - H(3/4, 1/4); the order of the channels matters."""
    labels = jnp.array([[1, 2, 3], [1, 2, 3], [3, 2, 1], [1, 2, 3]])
    for modes in (metrics.stacked_modes, jax.jit(metrics.stacked_modes)):
        found = modes(labels)
        assert (int(found.num_modes), found.num_modes.dtype) == (2, jnp.int32)
        np.testing.assert_allclose(found.kl, math.log(1000) - entropy([0.75, 0.25]), rtol=1e-6)
    every: Any = np.indices((10, 10, 10)).reshape(3, -1).T
    assert [float(each) for each in metrics.stacked_modes(every)] == [1000, 0.0]


def test_class_coverage_by_hand() -> None:
    """Ten classes, 200 samples: a tenth of an even share is 2 samples."""
    labels = jnp.repeat(jnp.arange(10), jnp.array([100, 50, 20, 20, 5, 2, 2, 1, 0, 0]))
    coverage = metrics.class_coverage(labels, 10)
    np.testing.assert_allclose(coverage.shares, np.array([100, 50, 20, 20, 5, 2, 2, 1, 0, 0]) / 200)
    assert (int(coverage.num_covered), coverage.num_covered.dtype) == (7, jnp.int32)
    assert int(metrics.class_coverage(labels, 10, least_share=0.0).num_covered) == 8
    assert int(metrics.class_coverage(labels, 10, least_share=1.0).num_covered) == 4
    counted = jax.jit(metrics.class_coverage, static_argnums=1)(labels, 12)
    assert (counted.shares.shape, int(counted.num_covered)) == ((12,), 7)


def test_labels_out_of_range_are_never_a_silent_number() -> None:
    for labels in (jnp.array([0, 10]), jnp.array([-1, 3])):
        with pytest.raises(ValueError, match="labels must be from 0 to 9, got values from"):
            metrics.label_histogram(labels, 10)
        with pytest.raises(ValueError, match="labels must be from 0 to 9"):
            metrics.class_coverage(labels, 10)
        with pytest.raises(ValueError, match="labels must be from 0 to 9"):
            metrics.stacked_modes(jnp.stack([labels] * 3, axis=1))
        assert np.isnan(jax.jit(metrics.label_histogram, static_argnums=1)(labels, 10)).all()
        shares, covered = jax.jit(metrics.class_coverage, static_argnums=1)(labels, 10)
        assert np.isnan(shares).all()
        assert int(covered) == -1
        num_modes, kl = jax.jit(metrics.stacked_modes)(jnp.stack([labels] * 3, axis=1))
        assert int(num_modes) == -1
        assert np.isnan(kl)


def test_bad_labels_and_histograms_are_refused() -> None:
    with pytest.raises(TypeError, match="must be integers, got float32"):
        metrics.label_histogram(jnp.zeros(3), 10)
    with pytest.raises(ValueError, match=r"labels must be \[N\] with N >= 1"):
        metrics.label_histogram(jnp.zeros(0, int), 10)
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        metrics.class_coverage(jnp.zeros(3, int), 0)
    with pytest.raises(ValueError, match=r"least_share must be in \[0, 1\]"):
        metrics.class_coverage(jnp.zeros(3, int), 2, least_share=2.0)
    with pytest.raises(ValueError, match=r"\[N, 3\], got shape \[4\]"):
        metrics.stacked_modes(jnp.zeros(4, int))
    with pytest.raises(ValueError, match=r"one K, got \[3\] and \[4\]"):
        metrics.histogram_kl(jnp.ones(3), jnp.ones(4))
    for bad in ([0.0, 0.0], [1.0, -0.5], [1.0, math.nan], [1.0, math.inf]):
        with pytest.raises(ValueError, match="data_histogram must be finite"):
            metrics.histogram_kl(jnp.ones(2), jnp.array(bad))
        assert np.isnan(jax.jit(metrics.histogram_kl)(jnp.array(bad), jnp.ones(2)))


def test_a_birthday_by_hand() -> None:
    """Two pairs of six within 1: c = 1/3. No pair of pairs is disjoint, so that all of c^2 is variance."""
    samples = jnp.array([[0.0], [1.0], [2.0], [10.0]])
    test = metrics.birthday_test(samples, 1.0)
    assert (int(test.num_pairs), test.num_pairs.dtype) == (2, jnp.int32)
    np.testing.assert_allclose(test.collision_rate, 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(test.standard_error, 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(test.support_size, 3.0, rtol=1e-6)
    assert test.closest_pairs.tolist() == [[0, 1], [1, 2]]
    np.testing.assert_allclose(test.closest_distances, [1.0, 1.0], rtol=1e-6)
    assert int(metrics.birthday_test(samples, 0.99).num_pairs) == 0


@pytest.mark.parametrize("shares", [np.full(50, 1 / 50), np.array([0.4, *np.full(30, 0.02)])], ids=["even", "uneven"])
def test_the_collision_rate_of_a_discrete_distribution(shares: np.ndarray) -> None:
    """c = sum_k p_k^2, 1/n where all are equally likely, and its spread over 300 draws is the standard error."""
    draws = np.random.default_rng(0)
    birthdays = jax.jit(jax.vmap(lambda x: metrics.birthday_test(x, 0.5)))
    tests = birthdays(draws.choice(len(shares), p=shares, size=(300, 64, 1)).astype(np.float32))
    expected, spread = float(np.sum(shares**2)), np.std(tests.collision_rate)
    np.testing.assert_allclose(np.mean(tests.collision_rate), expected, atol=4 * spread / np.sqrt(300))
    np.testing.assert_allclose(np.sqrt(np.mean(tests.standard_error**2)), spread, rtol=0.15)
    assert np.mean(tests.least_support_size <= 1 / expected) > (0.93 if len(shares) == 50 else 0.85)


def test_copies_are_found_for_any_threshold_and_half_a_batch_is_the_birthday_paradox(key: jax.Array) -> None:
    """365 days once each, and one more copy of each: 365 pairs; 23 people have a birthday in common."""
    days = jax.random.normal(key, (365, 3, 3, 1))
    test = metrics.birthday_test(jnp.concatenate([days, days]), 0.0)
    assert int(test.num_pairs) == 365
    np.testing.assert_allclose(test.collision_rate, 365 / (730 * 729 / 2), rtol=1e-6)
    assert test.closest_pairs.shape == (20, 2)
    assert (test.closest_pairs[:, 1] - test.closest_pairs[:, 0] == 365).all()
    assert test.closest_distances.tolist() == [0.0] * 20
    even = metrics.birthday_test(jnp.arange(365.0)[:, None].repeat(2, axis=0), 0.5)
    np.testing.assert_allclose(even.half_batch, 0.5 + np.sqrt(0.25 + 2 * np.log(2) / even.collision_rate), rtol=1e-6)
    collapsed = metrics.birthday_test(jnp.ones((50, 4)), 0.1)
    assert [float(each) for each in collapsed[:5]] == [50 * 49 / 2, 1.0, 0.0, 1.0, 1.0]
    n = 365
    np.testing.assert_allclose(0.5 + np.sqrt(0.25 + 2 * np.log(2) * n), 23, atol=0.01)


def test_the_bound_without_a_pair_and_with_some() -> None:
    """Without one, ln 20 over the pairs; else the upper limit of a Poisson variable's mean, by scipy's chi^2."""
    points = 10.0 * jnp.arange(100)[:, None]
    pairs = 100 * 99 / 2
    none = metrics.birthday_test(points, 1.0)
    assert (int(none.num_pairs), float(none.collision_rate), float(none.standard_error)) == (0, 0.0, 0.0)
    assert float(none.support_size) == math.inf
    assert float(none.half_batch) == math.inf
    np.testing.assert_allclose(none.least_support_size, pairs / np.log(20), rtol=1e-5)
    for num in (1, 2, 7):
        some = metrics.birthday_test(points.at[: 2 * num : 2].add(9.5), 1.0)
        assert int(some.num_pairs) == num
        np.testing.assert_allclose(some.standard_error, np.sqrt(num) / pairs, rtol=0.01)
        np.testing.assert_allclose(some.least_support_size, pairs / (chi2.ppf(0.95, 2 * num + 2) / 2), rtol=0.01)


def test_a_threshold_is_a_distance_of_real_images() -> None:
    """On a line at 0, 1, 3, 7, 15, ...: the nearest pairs are 1, 2, 4 apart; mutual ones are counted once."""
    line = 2.0 ** jnp.arange(9)[:, None]
    for num, distance in ((1, 1.0), (2, 2.0), (3, 4.0)):
        np.testing.assert_allclose(metrics.birthday_threshold(line, num), distance, rtol=1e-6)
    assert float(jax.jit(metrics.birthday_threshold)(jnp.zeros((4, 2)))) == 0.0


def test_collapse_shows_and_diversity_does_not(key: jax.Array) -> None:
    """The threshold of real points: other real points hardly reach it, ten images with a little noise always do."""
    real, other, noise = jax.random.normal(key, (3, 300, 20))
    threshold = metrics.birthday_threshold(real)
    assert int(metrics.birthday_test(other, threshold).num_pairs) <= 5
    collapsed = metrics.birthday_test(other[jnp.arange(300) % 10] + 0.1 * noise, threshold)
    np.testing.assert_allclose(collapsed.support_size, 10, rtol=0.05)


def test_samples_that_are_not_finite_give_no_number() -> None:
    test = metrics.birthday_test(jnp.arange(10.0)[:, None].at[3].set(jnp.nan), 0.1)
    assert np.isnan([float(each) for each in test[1:6]]).all()


def test_bad_birthdays_are_refused() -> None:
    with pytest.raises(ValueError, match=r"samples must be \[N, ...\] with N >= 4"):
        metrics.birthday_test(jnp.zeros((3, 2)), 0.1)
    with pytest.raises(ValueError, match="at most 46,340, got 46,341"):
        metrics.birthday_test(jnp.zeros((46_341, 1)), 0.1)
    for threshold in (-0.1, math.nan):
        with pytest.raises(ValueError, match="threshold must be a distance"):
            metrics.birthday_test(jnp.zeros((4, 2)), threshold)
    with pytest.raises(ValueError, match="num_closest must be"):
        metrics.birthday_test(jnp.zeros((4, 2)), 0.1, -1)
    for num in (0, 3):
        with pytest.raises(ValueError, match="num_pairs must be from 1 to 2"):
            metrics.birthday_threshold(jnp.zeros((4, 2)), num)
