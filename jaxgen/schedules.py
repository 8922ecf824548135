"""Schedules: numbers that change with the step, as frozen dataclasses.

Equal ones are equal and hashable, so they fit into a spec and become plain data field by field. Each is called as
``schedule(step)`` with an int32 [] or a Python integer and returns float32 []; they also fit wherever optax takes a
schedule, e.g. ``optax.inject_hyperparams(optax.adam)(learning_rate=Cosine(2e-4, 5e-5, 10_000), b2=0.99)``.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import jax.typing

from jaxgen import intervals
from jaxgen.intervals import Count, CountOrNone, Finite, Positive, Rate


@dataclasses.dataclass(frozen=True)
class _Ramp:
    """What the schedules from one value to another share: fields, checks, and the share of the way done."""

    initial: Finite
    final: Finite
    num_steps: Count
    delay: CountOrNone = 0

    def __post_init__(self) -> None:
        intervals.check(self)

    def _progress(self, step: jax.typing.ArrayLike) -> jax.Array:
        """0 until the delay is over, 1 from ``num_steps`` after it, float32 []."""
        return jnp.clip(jnp.asarray(step) - self.delay, 0, self.num_steps).astype(jnp.float32) / self.num_steps

    def _between(self, share: jax.Array) -> jax.Array:
        """Exactly the initial value at share 0 and the final one at share 1."""
        return jnp.float32(self.initial) * (1.0 - share) + jnp.float32(self.final) * share


@dataclasses.dataclass(frozen=True)
class Linear(_Ramp):
    """A straight line from one value to another, constant before and after.

    value(t) = initial + (final - initial) s,  s = clip((t - delay) / num_steps, 0, 1)

    The way from ``initial`` to ``final`` begins after ``delay`` steps and takes ``num_steps``.

    Called as ``schedule(step [])``; returns float32 [].
    """

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        return self._between(self._progress(step))


@dataclasses.dataclass(frozen=True)
class Cosine(_Ramp):
    """Half a cosine from one value to another, constant before and after.

    value(t) = initial + (final - initial) (1 - cos(pi s)) / 2,  s = clip((t - delay) / num_steps, 0, 1)

    The way from ``initial`` to ``final`` begins after ``delay`` steps and takes ``num_steps``.

    Called as ``schedule(step [])``; returns float32 [].

    References:
      Loshchilov & Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", equation 5.
      Huang et al. 2024, "The GAN is dead; long live the GAN!" (R3GAN), whose burn-in moves every one of its
      hyper-parameters so.
    """

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        return self._between(0.5 * (1.0 - jnp.cos(jnp.pi * self._progress(step))))


@dataclasses.dataclass(frozen=True)
class Exponential(_Ramp):
    """A constant factor per step from one value to another, both above 0, constant before and after.

    value(t) = initial (final / initial)^s,  s = clip((t - delay) / num_steps, 0, 1)

    The way from ``initial`` to ``final`` begins after ``delay`` steps and takes ``num_steps``.

    Called as ``schedule(step [])``; returns float32 [].
    """

    initial: Positive
    final: Positive

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        share = self._progress(step)
        on_the_way = self.initial * jnp.exp(math.log(self.final / self.initial) * share)
        return jnp.where(share < 1.0, on_the_way, jnp.float32(self.final))


@dataclasses.dataclass(frozen=True)
class Piecewise:
    """Constant in stages.

    value(t) = values[i],  i the number of boundaries that are at most t

    The boundaries are steps above 0 that increase; there is one value more than there are boundaries.

    Called as ``schedule(step [])``; returns float32 [].
    """

    boundaries: tuple[Count, ...]
    values: tuple[Finite, ...]

    def __post_init__(self) -> None:
        for name in ("boundaries", "values"):
            if not isinstance(getattr(self, name), tuple):
                raise TypeError(f"Piecewise.{name} must be a tuple, got {getattr(self, name)!r}")
        intervals.check(self)
        if list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError(f"Piecewise.boundaries must increase, got {self.boundaries}")
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"Piecewise.values must be one more than the boundaries, {len(self.boundaries) + 1}, got {self.values}"
            )

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        stage = jnp.sum(jnp.asarray(step) >= jnp.asarray(self.boundaries, jnp.int32))
        return jnp.asarray(self.values, jnp.float32)[stage]


@dataclasses.dataclass(frozen=True)
class EMAWarmup:
    """Decay of a moving average that is short while there is little to average.

    decay(t) = min(decay, (1 + t) / (10 + t)),  decay in [0, 1)

    Called as ``schedule(step [])``; returns float32 [].

    References:
      The form of TensorFlow's ``ExponentialMovingAverage`` when it is given ``num_updates``.
    """

    decay: Rate

    def __post_init__(self) -> None:
        intervals.check(self)

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        t = jnp.asarray(step).astype(jnp.float32)
        return jnp.minimum(jnp.float32(self.decay), (1.0 + t) / (10.0 + t))
