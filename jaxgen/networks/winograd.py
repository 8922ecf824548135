"""Convolutions of 3 x 3 and stride 1 by Winograd's F(2 x 2, 3 x 3), and their gradients: sixteen products each.

Four pixels of results a tile, of 4 x 4 pixels that overlap by two, take 16 products instead of 36. Written by sums of
slices; what autodiff makes of those takes two to three times as long as the functions here.

References:
  Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxgen.networks.products import alike, narrow, product, product_of_transposed, transpose_of

Edges = tuple[tuple[int, int], tuple[int, int]]  # pixels of zeros above and below, left and right


def _sizes(x: jax.Array, edges: Edges) -> tuple[int, int]:
    """Lines and columns of what a convolution of images makes."""
    rows, columns = (size + low + high - 2 for size, (low, high) in zip(x.shape[1:3], edges, strict=True))
    return rows, columns


def _pad(x: jax.Array, *edges: tuple[int, int]) -> jax.Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*edge, 0) for edge in edges), (0, 0, 0)])


def _pairs(image: jax.Array, axis: int) -> list[jax.Array]:
    """The even and the odd lines along an axis; by a split, whose transpose is a concatenation."""
    shape = image.shape
    halves = image.reshape(*shape[:axis], shape[axis] // 2, 2, *shape[axis + 1 :])
    return [jnp.squeeze(half, axis + 1) for half in lax.split(halves, (1, 1), axis + 1)]


def _interleaved(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
    both = jnp.concatenate([jnp.expand_dims(even, axis + 1), jnp.expand_dims(odd, axis + 1)], axis + 1)
    return both.reshape(*even.shape[:axis], 2 * even.shape[axis], *even.shape[axis + 1 :])


def _along_both(function: Callable[[list[Any]], list[Any]], table: list[list[Any]]) -> list[list[Any]]:
    """A linear function of lists along the columns of a table, and then along its rows."""
    columns = [function(list(column)) for column in zip(*table, strict=True)]
    return [function(list(row)) for row in zip(*columns, strict=True)]


def _tiles(x: jax.Array, edges: Edges) -> list[list[jax.Array]]:
    """B^T d B of each tile d, [B, rows, columns, C] for each of its 4 x 4 places."""
    evens = [size + size % 2 for size in _sizes(x, edges)]
    rows, columns = evens
    around = zip(x.shape[1:3], edges, evens, strict=True)
    x = _pad(x, *((low, even + 2 - size - low) for size, (low, _), even in around))
    planes = [_pairs(lines, 2) for lines in _pairs(x, 1)]
    tiles = [
        [planes[i % 2][j % 2][:, i // 2 : (i + rows) // 2, j // 2 : (j + columns) // 2] for j in range(4)]
        for i in range(4)
    ]
    return _along_both(lambda d: [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]], tiles)


def _forward(x: jax.Array, kernel: jax.Array, edges: Edges, dtype: Any) -> jax.Array:
    """A^T ((G k G^T) (B^T d B)) A for each tile d.

    Without the barrier around it, XLA makes what its neighbours compute anew for each of the sixteen products.
    """
    inputs, outputs = kernel.shape[2:]
    tiles = _tiles(x, edges)
    taps = [tap[0] for tap in lax.split(kernel.reshape(9, inputs, outputs), (1,) * 9)]
    kernels = _along_both(
        lambda k: [k[0], 0.5 * (k[0] + k[1] + k[2]), 0.5 * (k[0] - k[1] + k[2]), k[2]], [taps[:3], taps[3:6], taps[6:]]
    )

    def multiply(tile: jax.Array, matrix: jax.Array) -> jax.Array:
        return product(tile.reshape(-1, inputs), matrix, dtype).reshape(*tile.shape[:-1], outputs)

    products = [[multiply(tiles[i][j], kernels[i][j]) for j in range(4)] for i in range(4)]
    parts = _along_both(lambda m: [m[0] + m[1] + m[2], m[1] - m[2] - m[3]], products)
    upper, lower = (_interleaved(left, right, 2) for left, right in parts)
    rows, columns = _sizes(x, edges)
    return lax.optimization_barrier(_interleaved(upper, lower, 1)[:, :rows, :columns])


def _of_image(y: jax.Array, kernel: jax.Array, edges: Edges, dtype: Any) -> jax.Array:
    """The gradient of the images, of their results' gradient: a convolution with the kernel turned around."""
    (above, below), (left, right) = edges
    around = (2 - above, 2 - below), (2 - left, 2 - right)
    return _forward(y, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), around, dtype)


def _of_kernel(x: jax.Array, y: jax.Array, edges: Edges, dtype: Any) -> jax.Array:
    """G^T ((B^T d B)^T (A y A^T)) G, the gradient of the kernel [3, 3, I, O], of images and their results' gradient."""
    y = lax.optimization_barrier(_pad(y, *((0, size % 2) for size in y.shape[1:3])))
    planes = [_pairs(lines, 2) for lines in _pairs(y, 1)]
    both = _tiles(x, edges), _along_both(lambda g: [g[0], g[0] + g[1], g[0] - g[1], -g[1]], planes)

    def multiply(i: int, j: int) -> jax.Array:
        of_images, of_results = (tiles[i][j].reshape(-1, tiles[i][j].shape[-1]) for tiles in both)
        return product_of_transposed(of_images, of_results, dtype)

    products = [[multiply(i, j) for j in range(4)] for i in range(4)]
    taps = _along_both(
        lambda p: [p[0] + 0.5 * (p[1] + p[2]), 0.5 * (p[1] - p[2]), 0.5 * (p[1] + p[2]) + p[3]], products
    )
    return jnp.stack([jnp.stack(row) for row in taps])


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _wide(x: jax.Array, kernel: jax.Array, edges: Edges, dtype: Any) -> jax.Array:
    return _forward(x, kernel, edges, dtype)


def _jvp(edges: Edges, dtype: Any, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    y = _wide(x, kernel, edges, dtype)  # by the function itself: a second derivative is one of this
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(transpose_of(lambda g: _of_image(g, kernel, edges, dtype), y)(dx))
    if not isinstance(dkernel, SymbolicZero):
        parts.append(transpose_of(lambda g: _of_kernel(x, g, edges, dtype), y)(dkernel))
    return y, functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(y)


_wide.defjvp(_jvp, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _narrow(x: jax.Array, kernel: jax.Array, edges: Edges, dtype: Any) -> jax.Array:
    return _forward(x, kernel, edges, dtype)


def _backward(edges: Edges, dtype: Any, kept: tuple[jax.Array, jax.Array], y: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    return _of_image(y, kernel, edges, dtype), _of_kernel(x, y, edges, dtype)


_narrow.defvjp(lambda x, kernel, edges, dtype: (_narrow(x, kernel, edges, dtype), (x, kernel)), _backward)


def convolve(x: jax.Array, kernel: jax.Array, edges: Edges, dtype: Any = jnp.float32) -> jax.Array:
    """Images [B, H, W, I] with a kernel [3, 3, I, O], zeros around them; products as those of `products.product`."""
    return (_narrow if narrow(dtype) else _wide)(*alike(x, kernel), edges, dtype)
