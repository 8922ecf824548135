"""Layers that must know their place in the global batch."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.keys import AxisName, example_keys


class Dropout(nn.Module):
    """Dropout whose mask depends on the example's global index, not on how the batch is laid out over devices.

    y = x * mask / (1 - rate),  mask ~ Bernoulli(1 - rate), drawn per example

    Args:
      rate: share of the units set to zero, in [0, 1).
      axis_name: mapped axis or axes over which the global batch is split.

    Called as ``dropout(x [B, ...], train=...)``; needs a ``dropout`` key when training. Returns [B, ...].

    Raises:
      ValueError: the rate is not in [0, 1).

    References:
      Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", section 4.
    """

    rate: float
    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if not 0 <= self.rate < 1:
            raise ValueError(f"dropout rate must be in [0, 1), got {self.rate}")
        if not train or self.rate == 0:
            return x
        axis_name: AxisName = self.axis_name
        keys = example_keys(self.make_rng("dropout"), x.shape[0], axis_name)
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1.0 - self.rate), 0.0)
