"""Matrix products as CPUs compute them fastest: gradients in the order of the memory, bfloat16 where it pays.

A product over many rows is where a convolution spends its time, and the gradient of its matrix, x^T g, sums over them:
XLA's CPU compiler takes up to three times as long for it as for the same numbers with one of the two laid out anew. Of
bfloat16 operands a processor with avx512_bf16 makes a float32 result in half of float32's time, but XLA takes longer
for one of operands of both types, which is what the derivative of a product would be.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.experimental.layout import Layout, with_layout_constraint

from jaxgen import platform

# Over fewer rows it costs more to lay out or to round an operand than that gains (benchmarks/README.md).
_MANY_ROWS = 1024
# Nor, in float32, for a smaller gradient.
_LARGE_GRADIENT = 8192


def _has_many_rows(x: jax.Array) -> bool:
    """Whether it has; of an exported program it is not known, and it may."""
    rows: Any = x.shape[0]
    return not isinstance(rows, int) or rows >= _MANY_ROWS


def _transposed(x: jax.Array) -> jax.Array:
    """x^T, row after row in memory: of x.T alone XLA makes a view, which the product reads column by column."""
    return with_layout_constraint(x.T, Layout((0, 1)))


def narrow(dtype: Any) -> bool:
    """Whether products in that type are of operands rounded to bfloat16 here."""
    return jnp.dtype(dtype) == jnp.bfloat16 and platform.multiplies_bfloat16()


def product_of_transposed(x: jax.Array, y: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """x^T y, float32 [N, I] and [N, O] -> [I, O], the gradient of a product's matrix, as fast as it is on a CPU."""
    if not _has_many_rows(x):
        return x.T @ y
    if narrow(dtype):
        return _narrow_product(_transposed(x), y)
    if x.shape[1] * y.shape[1] < _LARGE_GRADIENT:
        return x.T @ y
    if x.shape[1] < y.shape[1]:
        return _transposed(x) @ y
    return lax.optimization_barrier(_transposed(y) @ x).T


def transpose_of(function: Callable[[jax.Array], jax.Array], like: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The transpose of a linear function of an array like ``like``.

    Of a derivative that is written so, the transpose is the function itself: where forward mode is for completeness
    and reverse mode for speed.
    """
    _, pull_back = jax.vjp(function, jnp.zeros_like(like))
    return lambda x: pull_back(x)[0]


@jax.custom_jvp
def _product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    return x @ matrix


def _product_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    (x, matrix), (dx, dmatrix) = primals, tangents
    y = _product(x, matrix)  # by the function itself: a second derivative is one of this
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(dx @ matrix)
    if not isinstance(dmatrix, SymbolicZero):
        parts.append(transpose_of(lambda g: product_of_transposed(x, g), y)(dmatrix))
    return y, functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(y)


_product.defjvp(_product_jvp, symbolic_zeros=True)


@jax.custom_vjp
def _narrow_product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """x @ matrix of float32 operands that are rounded to bfloat16, as are those of its gradients.

    Without the barrier, XLA merges a transposition of the result into the product after it has chosen what multiplies
    bfloat16, and the process ends: "Unsupported element type for DotThunk".
    """
    rounded = x.astype(jnp.bfloat16), matrix.astype(jnp.bfloat16)
    y = lax.dot_general(*rounded, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return lax.optimization_barrier(y)


def _narrow_forward(x: jax.Array, matrix: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # By the function itself, not its product: a second derivative is one of this.
    return _narrow_product(x, matrix), (x.astype(jnp.bfloat16), matrix.astype(jnp.bfloat16))


def _narrow_backward(rounded: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, matrix = (each.astype(jnp.float32) for each in rounded)  # nothing is computed for this
    return _narrow_product(gradient, matrix.T), product_of_transposed(x, gradient, jnp.bfloat16)


_narrow_product.defvjp(_narrow_forward, _narrow_backward)


def alike(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both as split over the axes of a `jax.shard_map` as their sum: a derivative of one's own must be told."""
    return x + jnp.zeros_like(y, shape=()), y + jnp.zeros_like(x, shape=())


def product(x: jax.Array, matrix: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """x @ matrix, float32 [N, I] by [I, O] -> [N, O], with gradients that are as fast on a CPU.

    Where ``dtype`` is bfloat16, operands are rounded to it if that is faster, which takes many rows on a device; sums,
    results and gradients are float32. There are no derivatives of bfloat16 products in forward mode.
    """
    if not _has_many_rows(x):
        return x @ matrix
    return (_narrow_product if narrow(dtype) else _product)(*alike(x, matrix))


def _on_a_cpu(dtype: Any) -> bool:
    return dtype is not None and jnp.dtype(dtype) == jnp.bfloat16 and jax.default_backend() == "cpu"


def _promote(*args: jax.Array | None, dtype: Any = None, inexact: bool = True) -> list[Any]:
    return promote_dtype(*args, dtype="float32" if _on_a_cpu(dtype) else dtype, inexact=inexact)


def Dense(features: int, *, dtype: Any = None, **options: Any) -> nn.Dense:  # noqa: N802
    """Flax's layer; on a CPU bfloat16 is that of `product`, and the rest is computed in float32."""
    if _on_a_cpu(dtype):
        options["dot_general"] = lambda x, kernel, *_, **__: _rows_product(x, kernel, dtype)
    return nn.Dense(features, dtype=dtype, promote_dtype=_promote, **options)


def _rows_product(x: jax.Array, kernel: jax.Array, dtype: Any) -> jax.Array:
    return product(x.reshape(-1, x.shape[-1]), kernel, dtype).reshape(*x.shape[:-1], -1)
