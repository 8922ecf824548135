"""Nearest neighbours of many points among many, a tile of the matrix of distances at a time."""

import functools

import jax
import jax.numpy as jnp

from jaxgen.batches import to_float

Best = tuple[jax.Array, jax.Array, jax.Array]  # squares of distances, numbers, counts
_ROWS, _COLUMNS = 1024, 4096  # of a tile: 34 MB of distances
_TILE_VALUES = 2**22  # at most so many values of points in a tile: 34 MB


def check_points(name: str, points: jax.Array, least: int) -> None:
    """Raise ValueError unless the points are [N, ...] with at least ``least`` of them."""
    if jnp.ndim(points) < 2 or points.shape[0] < least:
        raise ValueError(f"{name} must be [N, ...] with N >= {least}, got shape {list(jnp.shape(points))}")


def nearest(points: jax.Array, others: jax.Array, radius: jax.Array | float = 0.0, *, itself: bool = True) -> Best:
    """The nearest of the others to each point, and how many of them lie within a radius.

    In float64: |x|^2 - 2 x.y + |y|^2, a matrix product, would cancel in float32 where neighbours are near. The
    distance to the neighbour found is that of the differences, so that it is 0 to a copy.

    Args:
      points, others: uint8, bool or float, [N, ...] and [M, ...].
      radius: greatest distance that counts, [].
      itself: whether the other of a point's own number is one of the others.

    Returns:
      (Euclidean distances float32 [N], infinite where there is none; numbers of the nearest int32 [N]; how many others
      lie within the radius int32 [N]). What is not finite is nobody's neighbour and has none.
    """
    with jax.enable_x64(True):  # out here, so that under vmap it holds for what the compiled function becomes
        return _nearest(points, others, jnp.asarray(radius, jnp.float64), itself)


@functools.partial(jax.jit, static_argnames="itself")
def _nearest(points: jax.Array, others: jax.Array, radius: jax.Array, itself: bool) -> Best:
    num, num_others = points.shape[0], others.shape[0]
    dim = points.size // num
    rows = min(num, _ROWS, max(1, _TILE_VALUES // dim))
    columns = min(num_others, _COLUMNS, max(1, _TILE_VALUES // dim))

    def take(array: jax.Array, places: jax.Array) -> jax.Array:
        taken = to_float(array[jnp.minimum(places, array.shape[0] - 1)])
        return taken.reshape(places.shape[0], dim).astype(jnp.float64)

    def tile(x: jax.Array, row: jax.Array, best: Best, start: jax.Array) -> Best:
        column = start + jnp.arange(columns, dtype=jnp.int32)
        y = take(others, column)
        sizes = jnp.sum(x * x, 1)[:, None] + jnp.sum(y * y, 1)[None]
        squares = sizes - 2 * jnp.matmul(x, y.T, precision="highest")
        allowed = (column < num_others)[None] & (squares < jnp.inf)
        if not itself:
            allowed &= column[None] != row[:, None]
        squares = jnp.where(allowed, squares, jnp.inf)
        square, number, count = best
        nearer = jnp.min(squares, axis=1)
        # Not argmin, which under a caller's jit is lowered outside of the context of float64, and fails.
        first = jnp.min(jnp.where(squares == nearer[:, None], column[None], num_others), axis=1)
        # A copy's distance is 0 up to rounding, and within any radius.
        within = allowed & (squares <= radius**2 + dim * 2.0**-51 * sizes)
        return (
            jnp.minimum(square, nearer),
            jnp.where(nearer < square, first, number),
            count + jnp.sum(within, axis=1, dtype=jnp.int32),
        )

    def some(start: jax.Array) -> Best:
        row = start + jnp.arange(rows, dtype=jnp.int32)
        x = take(points, row)
        none = (jnp.full(rows, jnp.inf), jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.int32))
        starts = jnp.arange(0, num_others, columns, dtype=jnp.int32)
        square, number, count = jax.lax.scan(lambda best, at: (tile(x, row, best, at), None), none, starts)[0]
        distance = jnp.linalg.norm(x - take(others, number), axis=1)
        return jnp.where(square < jnp.inf, distance, jnp.inf).astype(jnp.float32), number, count

    found = jax.lax.map(some, jnp.arange(0, num, rows, dtype=jnp.int32))
    distances, numbers, counts = (each.reshape(-1)[:num] for each in found)
    return distances, numbers, counts
