"""Averages of weights over a training whose length is chosen after it.

Two averages that forget by a power of the step are kept while a model trains, and some of their values on the way: an
average of any other length is a combination of those (`jaxgen.training.snapshots`).

References:
  Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", section 3 and appendix C.
"""

from typing import Any

import jax
import jax.numpy as jnp


def power_exponent(relative_length: float) -> float:
    """The exponent g of an average over t steps, sum_s w(s) x(s) with w(s) ~ s^g, of some relative length.

    relative_length^2 = (g + 1) / ((g + 2)^2 (g + 3)), the variance of s / t under w; between 0 and 12^-0.5
    """
    if not 0.0 < relative_length < 12**-0.5:
        raise ValueError(f"a relative length must be in (0, {12**-0.5:.4f}), got {relative_length}")
    low, high = 0.0, 1.0 / relative_length  # at which the variance is larger, and smaller: it falls with g
    while low < (middle := 0.5 * (low + high)) < high:
        larger = (middle + 1.0) / ((middle + 2.0) ** 2 * (middle + 3.0)) > relative_length**2
        low, high = (middle, high) if larger else (low, middle)
    return low


def power_decay(step: jax.Array, exponent: float) -> jax.Array:
    """The decay [] of such an average in the step after ``step`` [] others: (1 - 1 / t)^(g + 1), t = step + 1.

    It is exact: the average of x(1) to x(t) has the weights (s^(g + 1) - (s - 1)^(g + 1)) / t^(g + 1).
    """
    return jnp.power(step / (step + jnp.float32(1.0)), exponent + 1.0)


def moved_on(averages: tuple[Any, ...], lengths: tuple[float, ...], latest: Any, step: jax.Array) -> tuple[Any, ...]:
    """Averages of relative lengths after one more step, of trees of float32 arrays; ``step`` [] were done before."""

    def one(average: Any, length: float) -> Any:
        decay = power_decay(step, power_exponent(length))
        return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, average, latest)

    return tuple(one(average, length) for average, length in zip(averages, lengths, strict=True))
