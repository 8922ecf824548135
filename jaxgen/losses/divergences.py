"""Divergences between distributions with a closed form, in nats."""

import jax

from jaxgen.losses._checks import check_batched, check_float, check_same_shape, sum_event
from jaxgen.losses.gaussians import LatentGaussian


def gaussian_kl(
    mean: jax.Array, logvar: jax.Array, mask: jax.Array | None = None, direction: jax.Array | None = None
) -> jax.Array:
    """KL divergence from a Gaussian to the standard normal, in nats per example [B].

    KL(N(mean, exp(logvar)) || N(0, I)) = sum_d (exp(logvar_d) + mean_d^2 - 1 - logvar_d) / 2

    With a direction u the precision is diag(exp(-logvar)) + u u^T; see `LatentGaussian`.

    The *sum* over dimensions, never their mean: the reconstruction is a sum over pixels as well. Above
    logvar = 50 the exponential is continued by its tangent, so that the value and its gradient stay finite.

    Args:
      mean, logvar: means and log-variances (without the direction), [B, D].
      mask: 1 for the dimensions that count and 0 for those that do not, [D]; all of them when None.
      direction: u, [B, D]; a diagonal Gaussian when None.

    References:
      Kingma & Welling 2014, "Auto-Encoding Variational Bayes", appendix B; Rezende et al. 2014, section 4.3.
    """
    given = {"mean": mean, "logvar": logvar} | ({} if direction is None else {"direction": direction})
    for name, array in given.items():
        check_float(name, array)
        check_batched(name, array)
    check_same_shape(**given)
    if mask is not None:
        check_same_shape(mask=mask, dimensions=mean[0])
        direction = None if direction is None else direction * mask[None]
    terms = LatentGaussian(mean, logvar, direction).kl()
    return sum_event(terms if mask is None else terms * mask[None])
