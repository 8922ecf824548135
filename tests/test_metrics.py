"""Metrics against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import metrics


def test_sliced_wasserstein_of_a_shift_has_a_closed_form(key: jax.Array) -> None:
    """Shifted by v, every projection moves by u . v, whose mean square is |v|^2 / dimension."""
    points = jax.random.normal(key, (400, 6))
    shift = jnp.array([[3.0, 0.0, 0.0, 4.0, 0.0, 0.0]])
    distance = metrics.sliced_wasserstein_distance(points, points + shift, jax.random.key(1), 20_000)
    np.testing.assert_allclose(distance, 5.0 / np.sqrt(6), rtol=0.02)


def test_sliced_wasserstein_ignores_order_and_is_zero_between_equals(key: jax.Array) -> None:
    images = jax.random.uniform(key, (50, 4, 4, 1))
    assert float(metrics.sliced_wasserstein_distance(images, images[::-1], key)) == 0.0


def test_sliced_wasserstein_refuses_other_sizes(key: jax.Array) -> None:
    with pytest.raises(ValueError, match="equally large sets"):
        metrics.sliced_wasserstein_distance(jnp.zeros((3, 4)), jnp.zeros((4, 4)), key)
    with pytest.raises(ValueError, match="at least 1"):
        metrics.sliced_wasserstein_distance(jnp.zeros((3, 4)), jnp.zeros((3, 4)), key, 0)


def test_mode_coverage_by_hand() -> None:
    """Radius 0.3 around the centres: 3 good samples of 6 on 2 modes of 4."""
    centers = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [10.0, 10.0]])
    samples = jnp.array([
        [0.1, -0.2],  # on the first
        [0.0, 0.29],  # on the first again
        [1.0, 0.31],  # next to the second, not on it
        [0.0, 1.0],  # the third itself
        [5.0, 5.0],  # nowhere
        [jnp.nan, 0.0],  # nowhere either
    ])  # fmt: skip
    found, good = jax.jit(lambda x: metrics.mode_coverage(x, centers, 0.1))(samples)
    assert (int(found), found.dtype, good.dtype) == (2, jnp.int32, jnp.float32)
    np.testing.assert_allclose(good, 3 / 6)
    assert int(metrics.mode_coverage(samples, centers, 0.1, num_scales=3.2)[0]) == 3
    assert int(metrics.mode_coverage(samples[2:3], centers, 0.1)[0]) == 0


def test_a_sample_counts_for_its_nearest_mode_only() -> None:
    centers = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    found, good = metrics.mode_coverage(jnp.array([[0.4, 0.0]]), centers, scale=1.0)  # on both, nearest to the first
    assert (int(found), float(good)) == (1, 1.0)


def test_mixtures_have_their_centres() -> None:
    grid = metrics.gaussian_grid()
    assert sorted(map(tuple, grid.tolist())) == [(float(x), float(y)) for x in range(-4, 5, 2) for y in range(-4, 5, 2)]
    np.testing.assert_allclose(metrics.gaussian_grid(2, 3.0), [[-1.5, -1.5], [-1.5, 1.5], [1.5, -1.5], [1.5, 1.5]])
    ring = metrics.gaussian_ring(4, radius=2.0)
    np.testing.assert_allclose(ring, [[2, 0], [0, 2], [-2, 0], [0, -2]], atol=1e-6)
    assert metrics.gaussian_ring().shape == (8, 2)


@pytest.mark.parametrize(("centers", "scale"), [(metrics.gaussian_grid(), 0.05), (metrics.gaussian_ring(), 0.01)])
def test_a_mixture_covers_itself(centers: jax.Array, scale: float, key: jax.Array) -> None:
    """In two dimensions, the share within 3 standard deviations is 1 - exp(-9 / 2)."""
    num, modes = 20_000, centers.shape[0]
    sample = jax.jit(metrics.sample_gaussian_mixture, static_argnums=(1, 3))
    coverage = jax.jit(metrics.mode_coverage, static_argnums=2)
    samples = np.asarray(sample(key, num, centers, scale))
    found, good = coverage(samples, centers, scale)
    assert int(found) == modes
    share = 1 - np.exp(-4.5)
    np.testing.assert_allclose(good, share, atol=4 * np.sqrt(share * (1 - share) / num))
    nearest = np.argmin(np.linalg.norm(samples[:, None] - np.asarray(centers)[None], axis=2), axis=1)
    counts = np.bincount(nearest, minlength=modes)
    assert (np.abs(counts - num / modes) < 5 * np.sqrt(num / modes)).all()
    np.testing.assert_allclose((samples - np.asarray(centers)[nearest]).std(0), scale, rtol=0.03)
    collapsed, _ = coverage(np.where(nearest[:, None] < 3, samples, samples[nearest == 0][0]), centers, scale)
    assert int(collapsed) == 3


def test_a_sample_of_a_mixture_depends_on_its_number_only(key: jax.Array) -> None:
    few, more = (metrics.sample_gaussian_mixture(key, num, metrics.gaussian_ring(), 0.1) for num in (3, 5))
    np.testing.assert_allclose(few, more[:3], rtol=1e-6)


def test_bad_mixtures_are_refused(key: jax.Array) -> None:
    centers = metrics.gaussian_ring()
    with pytest.raises(ValueError, match=r"samples must be \[N, 2\]"):
        metrics.mode_coverage(jnp.zeros((4, 3)), centers, 0.1)
    with pytest.raises(ValueError, match=r"centers must be \[M, D\]"):
        metrics.mode_coverage(jnp.zeros((4, 2)), centers[0], 0.1)
    with pytest.raises(ValueError, match="scale must be a finite number above 0"):
        metrics.mode_coverage(jnp.zeros((4, 2)), centers, 0.0)
    with pytest.raises(ValueError, match="num_scales must be above 0"):
        metrics.mode_coverage(jnp.zeros((4, 2)), centers, 0.1, -1.0)
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        metrics.sample_gaussian_mixture(key, 0, centers, 0.1)
    with pytest.raises(ValueError, match="side must be"):
        metrics.gaussian_grid(0)
    with pytest.raises(ValueError, match="spacing must be"):
        metrics.gaussian_grid(2, 0.0)
    with pytest.raises(ValueError, match="num_modes must be"):
        metrics.gaussian_ring(0)
    with pytest.raises(ValueError, match="radius must be"):
        metrics.gaussian_ring(3, -1.0)
