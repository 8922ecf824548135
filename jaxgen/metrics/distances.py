"""Distances between two sets of images, taken as samples of two distributions."""

import jax
import jax.numpy as jnp

from jaxgen.batches import to_float


def sliced_wasserstein_distance(
    real: jax.Array, fake: jax.Array, key: jax.Array, num_projections: int = 128
) -> jax.Array:
    """Sliced 2-Wasserstein distance between two sets of images of one size.

    SW2^2 = E_u [ (1/N) sum_i (sort(u . x)_i - sort(u . y)_i)^2 ],  u uniform on the unit sphere

    Args:
      real: images, uint8, bool or float, [N, ...].
      fake: images, as many and of the same shape, [N, ...].
      key: typed key of the random directions, [].
      num_projections: number of directions.

    Returns:
      The distance in units of the flattened images' Euclidean norm over sqrt of its dimension, float32 [].

    Raises:
      ValueError: the shapes differ, or there is no direction.

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
