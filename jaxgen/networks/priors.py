"""What a VAE's learnt prior is made of."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.intervals import Count, Finite, NotNegative
from jaxgen.networks.network import Network


class VampPrior(Network):
    """The pseudo-inputs of a VampPrior: images, learnt with the rest, whose posteriors are the prior's components.

    p(z) = (1/K) sum_k q(z | u_k),  u_k = clip(v_k, low, high),  v_k ~ N(mean, std^2) at first

    Where v has left the bounds it has no gradient, as in the authors' code: begin inside of them. To begin at images of
    the training set, put K of them at ``state.params["prior"]["pseudo_inputs"]`` before the first step.

    Args:
      image_shape: shape of one image, (H, W, C), or (D,) for vectors.
      num_pseudo_inputs: number of components K.
      mean, std: mean, which is within the bounds, and standard deviation of the initial values.
      bounds: (low, high), what the values are clipped to; None for unbounded data.

    Called as ``prior(train=...)``; returns pseudo-inputs [K, *image_shape].

    References:
      Tomczak & Welling 2018, "VAE with a VampPrior", equation 9; mean and std for MNIST as in the code published with
      it.
    """

    image_shape: tuple[Count, ...]
    num_pseudo_inputs: Count = 500
    mean: Finite = 0.05
    std: NotNegative = 0.01
    bounds: tuple[Finite, Finite] | None = (0.0, 1.0)

    @nn.compact
    def __call__(self, *, train: bool) -> jax.Array:
        if self.bounds is not None and not self.bounds[0] <= self.mean <= self.bounds[1]:
            raise ValueError(f"the mean of pseudo-inputs must be within their bounds {self.bounds}, got {self.mean}")
        shape = (self.num_pseudo_inputs, *self.image_shape)
        values = self.param(
            "pseudo_inputs", lambda key: self.mean + self.std * jax.random.normal(key, shape, jnp.float32)
        )
        return values if self.bounds is None else jnp.clip(values, *self.bounds)
