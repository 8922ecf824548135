"""Gaussians over latents: diagonal, or with a diagonal precision plus one direction."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.losses._checks import EXPONENT_BOUND, bounded_exp

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class LatentGaussian(NamedTuple):
    """N(mean, C) over D latents, its precision diagonal or diagonal plus rank one.

    C^-1 = diag(exp(-logvar)) + u u^T,  u the direction, zero when there is none

    With s = exp(logvar / 2), a = s u and r = sqrt(1 + a^T a), everything follows from the unit-bounded vector a / r:

    C = R R^T,  R = diag(s) (I - (a / r) (a / r)^T / (1 + 1 / r)),  log|C| = sum_d logvar_d - 2 log r

    What is a sum over dimensions is returned as its terms [..., D], so that a mask or free bits can act on them; the
    information that the direction adds, log r, is shared out in proportion to (s_d u_d)^2. A direction of exactly zero
    has no gradient (u and -u mean the same), so initialise it at random. Above logvar = 50 exponentials are continued
    by their tangents and stay finite.

    Args:
      mean: means, [..., D].
      logvar: logarithms of the variances that there would be without a direction, [..., D].
      direction: u, [..., D], or None for a diagonal Gaussian.

    References:
      Rezende, Mohamed & Wierstra 2014, "Stochastic Backpropagation and Approximate Inference in Deep Generative
      Models", section 4.3, rewritten so that nothing is divided by a^T a.
    """

    mean: jax.Array
    logvar: jax.Array
    direction: jax.Array | None = None

    def _std(self) -> jax.Array:
        return bounded_exp(0.5 * self.logvar, 0.5 * EXPONENT_BOUND)

    def _coupling(self) -> tuple[jax.Array, jax.Array]:
        """(a / r [..., D], r [..., 1]), computed at a scale at which no square overflows."""
        a = self._std() * jnp.asarray(self.direction)
        scale = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(a), axis=-1, keepdims=True), 1.0))
        r = scale * jnp.sqrt(jnp.square(1.0 / scale) + jnp.sum(jnp.square(a / scale), axis=-1, keepdims=True))
        return a / r, r

    def _shared_log_r(self) -> jax.Array:
        unit, r = self._coupling()
        share = jnp.square(unit) + 1e-12  # any shares will do where there is nothing to share
        return jnp.log(r) * share / jnp.sum(share, axis=-1, keepdims=True)

    def deviation(self, noise: jax.Array) -> jax.Array:
        """R eps for standard normal noise [..., D]: what a sample adds to the mean, [..., D]."""
        if self.direction is None:
            return self._std() * noise
        unit, r = self._coupling()
        along = jnp.sum(unit * noise, axis=-1, keepdims=True) / (1.0 + 1.0 / r)
        return self._std() * (noise - unit * along)

    def sample(self, noise: jax.Array) -> jax.Array:
        """The reparameterised sample mean + R eps of standard normal noise [..., D], [..., D]."""
        return self.mean + self.deviation(noise)

    def whiten(self, deviation: jax.Array) -> jax.Array:
        """R^-1 (z - mean) of deviations from the mean [..., D]: the noise that makes them, [..., D]."""
        scaled = deviation * bounded_exp(-0.5 * self.logvar, 0.5 * EXPONENT_BOUND)
        if self.direction is None:
            return scaled
        unit, r = self._coupling()
        along = jnp.sum(unit * scaled, axis=-1, keepdims=True) * (r / (1.0 + 1.0 / r))
        return scaled + unit * along

    def log_density(self, noise: jax.Array) -> jax.Array:
        """Terms of log N(z; mean, C) in nats, for z given by its whitened noise [..., D]: they sum to it, [..., D]."""
        terms = -0.5 * (jnp.square(noise) + self.logvar) - _HALF_LOG_2PI
        return terms if self.direction is None else terms + self._shared_log_r()

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Terms of log N(z; mean, C) in nats at latents z [..., D]: they sum to it, [..., D]."""
        return self.log_density(self.whiten(z - self.mean))

    def kl(self) -> jax.Array:
        """Terms of KL(N(mean, C) || N(0, I)) in nats: they sum to it, [..., D]."""
        variance = bounded_exp(self.logvar)
        if self.direction is None:
            return 0.5 * (variance + jnp.square(self.mean) - 1.0 - self.logvar)
        unit, _ = self._coupling()
        variance = variance * (1.0 - jnp.square(unit))
        return 0.5 * (variance + jnp.square(self.mean) - 1.0 - self.logvar) + self._shared_log_r()
