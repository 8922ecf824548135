"""VAE objectives: lower bounds on log p(x) as functions of importance log-weights [K, B]."""

import jax
import jax.numpy as jnp

from jaxgen.losses._checks import check_float


def elbo(log_weights: jax.Array) -> jax.Array:
    """Evidence lower bound: the mean log-weight.

    ELBO = E_q[log w],  w_k = p(x, z_k) / q(z_k | x),  estimated by (1/K) sum_k log w_k

    A log-weight may hold the KL in closed form, log w_k = log p(x | z_k) - KL(q(z | x) || p(z)): the same
    expectation with less variance.

    Args:
      log_weights: log w of K samples for each of B examples in nats, [K, B].

    Returns:
      Bound per example in nats, [B].

    Raises:
      ValueError: log_weights is not a matrix with at least one sample.
      TypeError: it is not floating point.

    References:
      Kingma & Welling 2014, "Auto-Encoding Variational Bayes", equations 2, 6 and 7.
    """
    check_float("log_weights", log_weights)
    if log_weights.ndim != 2 or log_weights.shape[0] < 1:
        raise ValueError(f"log_weights must be [K, B] with K >= 1 samples, got shape {list(log_weights.shape)}")
    return jnp.mean(log_weights, axis=0)
