"""Matrix products as CPUs compute them fastest: gradients in the order of the memory, bfloat16 where it pays.

A product over many rows is where a convolution spends its time, and the gradient of its matrix, x^T g, sums over them:
XLA's CPU compiler takes up to three times as long for it as for the same numbers with one of the two laid out anew. Of
bfloat16 operands a processor with avx512_bf16 makes a float32 result in half of float32's time, but XLA takes longer
for one of operands of both types, which is what the derivative of a product would be.
"""

import functools
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


def _transposed(x: jax.Array) -> jax.Array:
    """x^T, row after row in memory: of x.T alone XLA makes a view, which the product reads column by column."""
    return with_layout_constraint(x.T, Layout((0, 1)))


@jax.custom_jvp
def _product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    return x @ matrix


def _product_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    (x, matrix), (dx, dmatrix) = primals, tangents
    y = x @ matrix
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(dx @ matrix)
    if not isinstance(dmatrix, SymbolicZero):  # x dmatrix, so written that its transpose is a product of rows
        if x.shape[1] < matrix.shape[1]:
            parts.append(lax.dot_general(_transposed(x), dmatrix, (((0,), (0,)), ((), ()))))
        else:
            turned = lax.dot_general(_transposed(dmatrix), x, (((1,), (1,)), ((), ())))
            parts.append(lax.optimization_barrier(turned).T)
    return y, functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(y)


_product.defjvp(_product_jvp, symbolic_zeros=True)


def _of_rounded(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """The product of bfloat16 operands in float32."""
    return lax.dot_general(x, matrix, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)


@jax.custom_vjp
def _narrow_product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """x @ matrix of float32 operands that are rounded to bfloat16, as are those of its gradients."""
    return _narrow_forward(x, matrix)[0]


def _narrow_forward(x: jax.Array, matrix: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    rounded = x.astype(jnp.bfloat16), matrix.astype(jnp.bfloat16)
    return _of_rounded(*rounded), rounded


def _narrow_backward(rounded: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, matrix = (each.astype(jnp.float32) for each in rounded)  # nothing is computed for this
    if x.shape[1] < matrix.shape[1]:
        of_matrix = _narrow_product(_transposed(x), gradient)
    else:
        of_matrix = lax.optimization_barrier(_narrow_product(_transposed(gradient), x)).T
    return _narrow_product(gradient, matrix.T), of_matrix


_narrow_product.defvjp(_narrow_forward, _narrow_backward)


def product(x: jax.Array, matrix: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """x @ matrix, float32 [N, I] by [I, O] -> [N, O], with gradients that are as fast on a CPU.

    Where ``dtype`` is bfloat16, operands are rounded to it if that is faster; sums, results and gradients are float32.
    There are no derivatives of bfloat16 products in forward mode.
    """
    if len(x) < _MANY_ROWS:
        return x @ matrix
    if jnp.dtype(dtype) != jnp.bfloat16 or not platform.multiplies_bfloat16():
        return _product(x, matrix)
    # Both as split over the axes of a `jax.shard_map` as their sum: a derivative of one's own must be told.
    return _narrow_product(x + jnp.zeros_like(matrix, shape=()), matrix + jnp.zeros_like(x, shape=()))


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
