"""VAE objectives: lower bounds on log p(x) as functions of importance log-weights [K, B], and how to estimate
their gradients."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.losses._checks import check_float


def _check_log_weights(log_weights: jax.Array) -> None:
    check_float("log_weights", log_weights)
    if log_weights.ndim != 2 or log_weights.shape[0] < 1:
        raise ValueError(f"log_weights must be [K, B] with K >= 1 samples, got shape {list(log_weights.shape)}")


def mean_log_weight(log_weights: jax.Array) -> jax.Array:
    """The evidence lower bound from K samples: the mean log-weight.

    ELBO = E_q[log w],  w_k = p(x, z_k) / q(z_k | x),  estimated by (1/K) sum_k log w_k

    Nats [B] of ``log_weights`` [K, B]. A log-weight may hold a KL in closed form,
    log w_k = log p(x | z_k) - KL(q(z | x) || p(z)): the same expectation with less variance.

    References:
      Kingma & Welling 2014, "Auto-Encoding Variational Bayes", equations 2, 6 and 7.
    """
    _check_log_weights(log_weights)
    return jnp.mean(log_weights, axis=0)


def log_mean_weight(log_weights: jax.Array) -> jax.Array:
    """The importance-weighted bound from K samples: the log of the mean weight, nats [B] of ``log_weights`` [K, B].

    L_K = log (1/K) sum_k w_k,  ELBO = E L_1 <= E L_2 <= ... <= log p(x)

    References:
      Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders", equation 8 and theorem 1.
    """
    _check_log_weights(log_weights)
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])


def doubly_reparameterized_weights(log_weights: jax.Array, beta: jax.Array) -> jax.Array:
    """What multiplies a sample's path gradient of `log_mean_weight` when its score term is reparameterised again.

    1 - beta (1 - v_k),  v_k = w_k / sum_j w_j,  [K, B] of ``log_weights`` [K, B] in which the KL has the weight beta []

    The bound's gradient is sum_k v_k (path_k - beta score_k), and E[v_k score_k] = E[(v_k - v_k^2) path_k], path_k
    being the gradient of log w_k through z_k alone. With beta = 1 a path's whole weight is then v_k^2.

    References:
      Tucker et al. 2019, "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives", for beta = 1; Bauer &
      Mnih 2021, "Generalized Doubly Reparameterized Gradient Estimators", for several stochastic layers.
    """
    return 1.0 - beta * (1.0 - jax.nn.softmax(log_weights, axis=0))


@dataclasses.dataclass(frozen=True)
class Objective:
    """A bound of importance log-weights [K, B], with the way its gradient is estimated. Called like its bound.

    Args:
      bound: log-weights [K, B] -> bound per example [B].
      analytic_kl: the log-weights hold the KL of the top stochastic layer in closed form: less variance, but they are
        no importance weights any more, so only for a bound that is their mean.
      stop_posterior: log q(z | x) is differentiated through z alone, not through the posterior's parameters. The term
        left out has expectation zero in a mean of log-weights, and vanishes as q approaches the true posterior.
      path_weights: (log-weights [K, B], beta []) -> what the gradient through each sample's latents is multiplied by,
        [K, B]; the generative model's own gradient is not. Needs ``stop_posterior``.
    """

    bound: Callable[[jax.Array], jax.Array]
    analytic_kl: bool = False
    stop_posterior: bool = False
    path_weights: Callable[[jax.Array, jax.Array], jax.Array] | None = None

    def __post_init__(self) -> None:
        if self.analytic_kl and self.stop_posterior:
            raise ValueError("Objective: a KL in closed form has no sampled log q to stop: choose one of the two")
        if self.path_weights is not None and not self.stop_posterior:
            raise ValueError("Objective: path_weights replace the gradient of log q: set stop_posterior=True as well")

    def __call__(self, log_weights: jax.Array) -> jax.Array:
        """The bound per example in nats [B] of log-weights [K, B]."""
        return self.bound(log_weights)


# Kingma & Welling 2014: equation 7 where the KL has a closed form, equation 6 with sampled KLs only.
elbo = Objective(mean_log_weight, analytic_kl=True)
sampled_elbo = Objective(mean_log_weight)
# Burda, Grosse & Salakhutdinov 2016, equation 8.
iwae = Objective(log_mean_weight)
# Roeder, Wu & Duvenaud 2017, "Sticking the Landing". Under `log_mean_weight` the same stop is biased
# (Tucker et al. 2019), which is why that pair has no name here: use `dreg`.
stl = Objective(mean_log_weight, stop_posterior=True)
# Tucker et al. 2019: squared normalised weights for the encoder, plain ones for the decoder.
dreg = Objective(log_mean_weight, stop_posterior=True, path_weights=doubly_reparameterized_weights)
