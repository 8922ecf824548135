"""Divergences between distributions with a closed form, in nats."""

import jax
import jax.numpy as jnp

from jaxgen.losses._checks import bounded_exp, check_batched, check_float, check_same_shape, sum_event


def gaussian_kl(mean: jax.Array, logvar: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """KL divergence from a diagonal Gaussian to the standard normal.

    KL(N(mean, exp(logvar)) || N(0, I)) = sum_d (exp(logvar_d) + mean_d^2 - 1 - logvar_d) / 2

    The *sum* over dimensions, never their mean: the reconstruction is a sum over pixels as well. Above
    logvar = 50 the exponential is continued by its tangent, so that the value and its gradient stay finite.

    Args:
      mean: means of the Gaussian, [B, D].
      logvar: logarithms of its variances, [B, D].
      mask: 1 for the dimensions that count and 0 for those that do not, [D]; all of them when None.

    Returns:
      KL per example in nats, [B].

    Raises:
      ValueError: mean and logvar have different shapes or no batch axis, or the mask is not [D].
      TypeError: one of them is not floating point.

    References:
      Kingma & Welling 2014, "Auto-Encoding Variational Bayes", appendix B.
    """
    for name, array in (("mean", mean), ("logvar", logvar)):
        check_float(name, array)
        check_batched(name, array)
    check_same_shape(mean=mean, logvar=logvar)
    per_dimension = 0.5 * (bounded_exp(logvar) + jnp.square(mean) - 1.0 - logvar)
    if mask is not None:
        check_same_shape(mask=mask, dimensions=mean[0])
        per_dimension = per_dimension * mask[None]
    return sum_event(per_dimension)
