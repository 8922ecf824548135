"""What the platform of a process does rightly and fast: the type to compute in, and the programs that some version of
the compiler is known to compile wrongly.

On a CPU, jaxlib 0.10.2 to 0.12.0 hands sums of products to the library YNNPACK, and some of them are then wrong by any
amount without a word, or end the process. XLA itself sums rightly: `RIGHT` in ``XLA_FLAGS`` before JAX starts, which
the command ``jaxgen`` sets where nobody has.

References:
  jax-ml/jax issues 39103 (wrong), 39257 and 40412 (crashes).
"""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

RIGHT = "--xla_cpu_experimental_ynn_fusion_type=-reduce"
PROCESSOR = Path("/proc/cpuinfo")
TOLERANCE = 1e-5  # of the largest value


class Canary(NamedTuple):
    """A program that was found to be compiled wrongly.

    Args:
      program: a function of arrays of any shapes.
      arguments: the arrays.
      expected: what it gives, by hand.
    """

    program: Callable[..., jax.Array]
    arguments: tuple[jax.Array, ...]
    expected: jax.Array


def _product_with_a_constant() -> Canary:
    """[64, 8, 16] times ones [64, 8, 16] over the last axis: 16 a, eight times, squared and summed."""
    values = jnp.arange(64.0 * 8.0).reshape(64, 8)

    def program(a: jax.Array) -> jax.Array:
        product = jnp.einsum("bik,bjk->bij", a, jnp.broadcast_to(jnp.ones(16), (64, 8, 16)))
        return jnp.sum(product * product, -1)

    return Canary(program, (jnp.broadcast_to(values[..., None], (64, 8, 16)),), 8.0 * 256.0 * values**2)


def _rows_times_a_constant() -> Canary:
    """The squared norm of each of 32,769 rows (i, 0, 0) times the identity: i squared."""
    i = jnp.arange(32_769.0)

    def program(rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(rows)

    return Canary(program, (jnp.stack((i, jnp.zeros_like(i), jnp.zeros_like(i)), axis=1),), i**2)


def _sum_at_seven_axes() -> Canary:
    """Ones times twos, [3, 1, 2, 2, 8, 8, 8], over an axis of two."""
    ones = jnp.ones((3, 1, 2, 2, 8, 8, 8))
    return Canary(lambda a, b: jnp.sum(a * b, axis=3), (ones, 2.0 * ones), jnp.full((3, 1, 2, 8, 8, 8), 4.0))


def _sum_at_eight_axes() -> Canary:
    """Ones [10, 4, 6], broadcast, times ones of eight axes, over the axis of six."""
    arguments = jnp.ones((10, 4, 6)), jnp.ones((10, 4, 6, 9, 9, 9, 9, 9))

    def program(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(a[..., None, None, None, None, None] * b, axis=2)

    return Canary(program, arguments, jnp.full((10, 4, 9, 9, 9, 9, 9), 6.0))


CANARIES: dict[str, Callable[[], Canary]] = {
    "product with a constant": _product_with_a_constant,
    "rows times a constant": _rows_times_a_constant,
}
# Which end the process that they go wrong in.
CRASHING: dict[str, Callable[[], Canary]] = {
    "sum at seven axes": _sum_at_seven_axes,
    "sum at eight axes": _sum_at_eight_axes,
}


def error_of(canary: Canary) -> float:
    """The largest error of a compiled program, over the largest value: round-off of some 1e-7, or anything."""
    found: Any = jax.jit(canary.program)(*canary.arguments)
    return float(jnp.max(jnp.abs(found - canary.expected)) / jnp.max(jnp.abs(canary.expected)))


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether this machine's processor has instructions for products of bfloat16: avx512_bf16, AMX or ARM's bf16."""
    try:
        flags = set(PROCESSOR.read_text().split())
    except OSError:
        return False  # not Linux
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def computed_dtype(wanted: str) -> str:
    """The type that networks compute in here where float32, bfloat16 or ``auto`` is wanted.

    bfloat16 on GPUs and TPUs, and on CPUs that multiply it (`multiplies_bfloat16`); float32 elsewhere.
    """
    narrow = jax.default_backend() != "cpu" or multiplies_bfloat16()
    return "bfloat16" if narrow and wanted != "float32" else "float32"


def wrong_programs() -> list[str]:
    """Which of `CANARIES` this process compiles wrongly, by name."""
    return [name for name, make in CANARIES.items() if not error_of(make()) <= TOLERANCE]


def check() -> list[str]:
    """Warn where this process compiles a program wrongly, and name it; returns the names.

    It takes some tenths of a second. What it does not know it does not find.
    """
    wrong = wrong_programs()
    if wrong:
        warnings.warn(
            f"XLA compiles some programs wrongly here ({', '.join(wrong)}): set XLA_FLAGS={RIGHT} before JAX starts",
            RuntimeWarning,
            stacklevel=2,
        )
    return wrong
