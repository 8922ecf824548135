"""Gradient penalties on a discriminator: frozen dataclasses, one unweighted value per example.

Each is called as ``penalty(discriminator, real [B, ...], fake [B, ...], keys [B], axis_name=None)``, the discriminator
a function of images [B, ...] -> logits [B] and the keys those of `jaxgen.keys.example_keys`, and returns float32 [B].
The weight is the caller's, as it may be scheduled or differ between the members of a population.

The gradient of each example's logit by its image is taken as the gradient of the sum of all logits. A discriminator
with BatchNorm mixes the examples, and its penalty is that of the mixed gradient: use a discriminator without.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxgen import intervals
from jaxgen.intervals import NotNegative, Positive
from jaxgen.keys import AxisName
from jaxgen.losses._checks import check_batched, check_float, check_same_shape

Discriminator = Callable[[jax.Array], jax.Array]

# Below this the norm's gradient is 0 instead of 0/0.
_SMALLEST_NORM = 1e-12


def _check(real: jax.Array, fake: jax.Array) -> None:
    for name, images in (("real", real), ("fake", fake)):
        check_float(name, images)
        check_batched(name, images)
    check_same_shape(real=real, fake=fake)


def _gradient(discriminator: Discriminator, images: jax.Array) -> jax.Array:
    """Gradient of each logit by its image, flattened: [B, ...] -> float32 [B, D]."""

    def total(images: jax.Array) -> jax.Array:
        logits = discriminator(images)
        if logits.shape != images.shape[:1]:
            raise ValueError(
                f"the discriminator must return one logit per image, [{images.shape[0]}], got {list(logits.shape)}"
            )
        return jnp.sum(logits)

    return jax.grad(total)(images).reshape(images.shape[0], -1).astype(jnp.float32)


def _norm(gradient: jax.Array) -> jax.Array:
    return optax.safe_norm(gradient, _SMALLEST_NORM, axis=1)


def _uniform(keys: jax.Array, images: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """One draw per example from its own key: [B, *shape]."""
    if keys.shape != images.shape[:1]:
        raise ValueError(
            f"keys must be one typed key per image, [{images.shape[0]}], got shape {list(keys.shape)}: make them with "
            "jaxgen.keys.example_keys"
        )
    return jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)


@dataclasses.dataclass(frozen=True)
class GradientPenalty:
    """WGAN-GP: the norm of the critic's gradient is pulled to the target between real and generated images.

    (||grad D(x)|| - target)^2,  x = eps real + (1 - eps) fake,  eps ~ U(0, 1) per example;
    one-sided: max(0, ||grad D(x)|| - target)^2

    Args:
      one_sided: whether only norms above the target cost.
      target: the norm wanted, per unit of the image; 1 for a 1-Lipschitz critic, 0 for a flat one.

    Called as ``penalty(discriminator, real [B, ...], fake [B, ...], keys [B], axis_name=None)``; returns [B].

    References:
      Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3.
      Petzka et al. 2018, "On the Regularization of Wasserstein GANs" (one-sided: WGAN-LP).
    """

    one_sided: bool = False
    target: NotNegative = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.one_sided, bool):
            raise TypeError(f"GradientPenalty.one_sided must be True or False, got {self.one_sided!r}")
        intervals.check(self)

    def __call__(
        self,
        discriminator: Discriminator,
        real: jax.Array,
        fake: jax.Array,
        keys: jax.Array,
        axis_name: AxisName = None,
    ) -> jax.Array:
        """The penalty of each pair of images ``real`` and ``fake`` [B, ...], float32 [B]."""
        _check(real, fake)
        share = _uniform(keys, real, (1,) * (real.ndim - 1))
        between = (share * real + (1.0 - share) * fake).astype(real.dtype)
        excess = _norm(_gradient(discriminator, between)) - self.target
        return jnp.square(jax.nn.relu(excess) if self.one_sided else excess)


@dataclasses.dataclass(frozen=True)
class R1:
    """Zero-centred penalty on real images: half the squared norm of the discriminator's gradient.

    ||grad D(real)||^2 / 2, so that the paper's gamma is the weight

    Called as ``penalty(discriminator, real [B, ...], fake [B, ...], keys [B], axis_name=None)``; returns [B].

    References:
      Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?", equation 9.
    """

    def __call__(
        self,
        discriminator: Discriminator,
        real: jax.Array,
        fake: jax.Array,
        keys: jax.Array,
        axis_name: AxisName = None,
    ) -> jax.Array:
        """The penalty of each image of ``real`` [B, ...], float32 [B]."""
        _check(real, fake)
        return 0.5 * jnp.sum(jnp.square(_gradient(discriminator, real)), axis=1)


@dataclasses.dataclass(frozen=True)
class R2:
    """Zero-centred penalty on generated images: `R1` with the fakes in place of the real images.

    ||grad D(fake)||^2 / 2, so that the paper's gamma is the weight

    Called as ``penalty(discriminator, real [B, ...], fake [B, ...], keys [B], axis_name=None)``; returns [B].

    References:
      Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?", equation 10.
    """

    def __call__(
        self,
        discriminator: Discriminator,
        real: jax.Array,
        fake: jax.Array,
        keys: jax.Array,
        axis_name: AxisName = None,
    ) -> jax.Array:
        """The penalty of each image of ``fake`` [B, ...], float32 [B]."""
        return R1()(discriminator, fake, real, keys, axis_name)


@dataclasses.dataclass(frozen=True)
class DRAGAN:
    """The norm of the discriminator's gradient is pulled to 1 in a neighbourhood of the real images.

    (||grad D(x + scale std(x) u)|| - 1)^2,  u ~ U(0, 1) per pixel, std over every pixel of the global batch

    The paper writes Gaussian noise of a given variance; uniform noise of half the standard deviation, the default
    ``scale``, is what programs use.

    Called as ``penalty(discriminator, real [B, ...], fake [B, ...], keys [B], axis_name=None)``; returns [B].

    References:
      Kodali et al. 2017, "On Convergence and Stability of GANs" (its penalty).
    """

    scale: Positive = 0.5

    def __post_init__(self) -> None:
        intervals.check(self)

    def __call__(
        self,
        discriminator: Discriminator,
        real: jax.Array,
        fake: jax.Array,
        keys: jax.Array,
        axis_name: AxisName = None,
    ) -> jax.Array:
        """The penalty around each image of ``real`` [B, ...], float32 [B]."""
        _check(real, fake)
        noise = _uniform(keys, real, real.shape[1:])
        around = (real + self.scale * _global_std(real, axis_name) * noise).astype(real.dtype)
        return jnp.square(_norm(_gradient(discriminator, around)) - 1.0)


def _global_std(images: jax.Array, axis_name: AxisName) -> jax.Array:
    """Standard deviation of every pixel of the global batch, float32 []; in two passes, which do not cancel."""

    def mean(values: jax.Array) -> jax.Array:
        local = jnp.mean(values)
        return local if axis_name is None else jax.lax.pmean(local, axis_name)

    images = images.astype(jnp.float32)
    return jnp.sqrt(mean(jnp.square(images - mean(images))))


Penalty = GradientPenalty | R1 | R2 | DRAGAN
