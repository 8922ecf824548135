"""Likelihoods p(x | parameters): what a VAE's decoder means by its output.

Each is a frozen dataclass with ``log_prob(parameters, x) -> [B]``, ``mean(parameters)`` and
``sample(key, parameters)``. ``parameters`` is the decoder's output, its first axis the batch.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxgen.losses._checks import check_batched, check_float, check_same_shape, sum_event


def _check(parameters: jax.Array, x: jax.Array) -> None:
    check_float("parameters", parameters)
    check_float("x", x)
    check_batched("parameters", parameters)
    check_same_shape(parameters=parameters, x=x)


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Independent Bernoulli pixels, given by their logits [B, ...].

    log p(x | logits) = sum_i x_i logit_i - softplus(logit_i)

    For x strictly between 0 and 1 it is the usual cross-entropy: a bound on nothing, but what VAEs on grey
    images have always been trained with.
    """

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """Log-probability of images.

        Args:
          parameters: logits, [B, ...].
          x: images in [0, 1], [B, ...].

        Returns:
          Log-probability per example in nats, summed over pixels, [B].

        Raises:
          ValueError: the shapes differ.
          TypeError: one of them is not floating point.

        References:
          Kingma & Welling 2014, "Auto-Encoding Variational Bayes", appendix C.1, equation 11.
        """
        _check(parameters, x)
        return sum_event(x * parameters - jax.nn.softplus(parameters))

    def mean(self, parameters: jax.Array) -> jax.Array:
        """Mean of the pixels: sigmoid(logits), in [0, 1], same shape as ``parameters`` [B, ...]."""
        return jax.nn.sigmoid(parameters)

    def sample(self, key: jax.Array, parameters: jax.Array) -> jax.Array:
        """Draw binary pixels, floats 0 or 1 of the shape of ``parameters`` [B, ...]."""
        return jax.random.bernoulli(key, self.mean(parameters)).astype(parameters.dtype)


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Independent Gaussian pixels of one fixed standard deviation, given by their means [B, ...].

    log p(x | mean) = -sum_i [ (x_i - mean_i)^2 / (2 scale^2) + log(scale) + log(2 pi) / 2 ]

    Args:
      scale: the standard deviation, in units of the image (whose range is 1).
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"gaussian scale must be a finite number above 0, got {self.scale!r}")

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """Log-density of images.

        Args:
          parameters: means, [B, ...].
          x: images, [B, ...].

        Returns:
          Log-density per example in nats, summed over pixels, [B].

        Raises:
          ValueError: the shapes differ.
          TypeError: one of them is not floating point.

        References:
          Kingma & Welling 2014, "Auto-Encoding Variational Bayes", appendix C.2, equation 12.
        """
        _check(parameters, x)
        log_normalizer = math.log(self.scale) + 0.5 * math.log(2.0 * math.pi)
        return -sum_event(0.5 * jnp.square((x - parameters) / self.scale) + log_normalizer)

    def mean(self, parameters: jax.Array) -> jax.Array:
        """Mean of the pixels: the parameters themselves, [B, ...]."""
        return parameters

    def sample(self, key: jax.Array, parameters: jax.Array) -> jax.Array:
        """Draw pixels around the means, of the shape of ``parameters`` [B, ...]; not clipped to [0, 1]."""
        return parameters + self.scale * jax.random.normal(key, parameters.shape, parameters.dtype)


Likelihood = Bernoulli | Gaussian

bernoulli = Bernoulli()
gaussian = Gaussian
