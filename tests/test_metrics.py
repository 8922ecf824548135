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
