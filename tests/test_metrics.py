"""Metrics against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import metrics


def test_sliced_wasserstein_of_a_shift_has_a_closed_form(key: jax.Array) -> None:
    """Shifted by v, every projection moves by u . v, whose mean square is |v|^2 / dimension."""
    points = jax.random.normal(key, (40, 6))
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


def test_nearest_neighbour_distances_by_hand() -> None:
    """On a line at 0, 3, 4 and 10 the nearest are 3, 1, 1 and 6 away; 1 and -1 are 255 grey levels apart as uint8."""
    points = jnp.array([[0.0], [3.0], [4.0], [10.0]])
    np.testing.assert_allclose(jax.jit(metrics.nearest_neighbour_distances)(points), [3.0, 1.0, 1.0, 6.0])
    np.testing.assert_allclose(metrics.nearest_neighbour_distances(jnp.array([[0], [255]], jnp.uint8)), [1.0, 1.0])


def test_nearest_neighbour_distances_do_not_cancel(key: jax.Array) -> None:
    """Points 1e-4 apart, far from the origin, against float64."""
    points = np.asarray(7.0 + 1e-4 * jax.random.normal(key, (20, 3, 3, 1)))
    flat = points.reshape(20, -1).astype(np.float64)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=2) + np.diag(np.full(20, np.inf))
    np.testing.assert_allclose(metrics.nearest_neighbour_distances(jnp.asarray(points)), distances.min(1), rtol=1e-4)


def test_sample_diversity_of_a_shrunk_set_is_the_factor(key: jax.Array) -> None:
    points = jax.random.normal(key, (64, 5))
    diversity = jax.jit(metrics.sample_diversity)
    np.testing.assert_allclose(diversity(points, points[::-1]), 1.0, rtol=1e-6)
    np.testing.assert_allclose(diversity(points, 3.0 + 0.1 * points), 0.1, rtol=1e-4)
    np.testing.assert_allclose(diversity(points, jnp.ones_like(points)), 0.0)


def test_sample_diversity_sees_clumps_of_a_quarter(key: jax.Array) -> None:
    """64 different points; a third of them in five clumps; a tenth; a tenth with the lowest twentieth compared."""
    real, points = jax.random.normal(key, (2, 64, 5))
    few, many = points.at[:6].set(points[0]), points.at[:21].set(jnp.repeat(points[:5], 5, axis=0)[:21])
    assert float(metrics.sample_diversity(real, many)) == 0.0
    assert 0.7 < float(metrics.sample_diversity(real, few)) < 1.3
    assert float(metrics.sample_diversity(real, few, quantile=0.05)) == 0.0


def test_sample_diversity_of_copies_is_not_a_number() -> None:
    assert not np.isfinite(metrics.sample_diversity(jnp.zeros((4, 2)), jnp.arange(8.0).reshape(4, 2)))


def test_active_units_by_hand() -> None:
    """Variances over the images of 0, 0.0025, 0.0144 and 1."""
    means = jnp.array([[0.5, 0.05, 0.12, 1.0], [0.5, -0.05, -0.12, -1.0]])
    active = jax.jit(metrics.active_units)(means)
    assert (int(active), active.dtype) == (2, jnp.int32)
    assert int(metrics.active_units(means, threshold=0.002)) == 3
    assert int(metrics.active_units(means + 100.0, threshold=0.0)) == 3


def test_bad_diversities_are_refused() -> None:
    with pytest.raises(ValueError, match="equally large sets"):
        metrics.sample_diversity(jnp.zeros((3, 4)), jnp.zeros((4, 4)))
    with pytest.raises(ValueError, match="quantile must be in"):
        metrics.sample_diversity(jnp.zeros((3, 4)), jnp.zeros((3, 4)), quantile=1.5)
    with pytest.raises(ValueError, match="at least two points"):
        metrics.nearest_neighbour_distances(jnp.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"means must be \[N, D\]"):
        metrics.active_units(jnp.zeros((1, 4)))
    with pytest.raises(ValueError, match="threshold must be at least 0"):
        metrics.active_units(jnp.zeros((2, 4)), -1.0)
