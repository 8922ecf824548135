"""Sums over all places of an image for each channel, and what they are the transpose of, fast on the CPU.

XLA's CPU compiler sums columns of an array in one thread, against the order of the memory, and computes what it sums
anew: a product with ones takes a fifth to a tenth of the time, and so does the gradient of what is spread by one.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax


def _ones(like: jax.Array, *shape: int) -> jax.Array:
    """Ones that XLA does not know for a constant: products with such are what it has compiled wrongly."""
    return lax.optimization_barrier(jnp.ones(shape, like.dtype))


def channel_sum(x: jax.Array) -> jax.Array:
    """sum_n x[n, c] over all axes but the last, [..., C] -> [C]."""

    def by_product(x: jax.Array) -> jax.Array:
        rows = x.reshape(-1, x.shape[-1])
        return lax.dot_general(_ones(x, len(rows)), rows, (((0,), (0,)), ((), ())))

    return lax.platform_dependent(x, cpu=by_product, default=lambda x: jnp.sum(x, tuple(range(x.ndim - 1))))


def spread(vector: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """y[n, c] = vector[c], the transpose of `channel_sum`: [C] -> [..., C] of a shape."""

    def by_product(vector: jax.Array) -> jax.Array:  # XLA makes a broadcast of it
        places = _ones(vector, math.prod(shape[:-1]), 1)
        return lax.dot_general(places, vector[None], (((1,), (0,)), ((), ()))).reshape(shape)

    return lax.platform_dependent(vector, cpu=by_product, default=lambda vector: jnp.broadcast_to(vector, shape))
