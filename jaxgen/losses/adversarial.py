"""Adversarial losses: pairs of functions of the discriminator's logits.

A logit is log(D / (1 - D)), D the discriminator's probability that an image is real. Nothing here takes
probabilities: log(1 - sigmoid(logit)) is written -softplus(logit), which is finite at any logit.
"""

import dataclasses
from collections.abc import Callable

import jax

from jaxgen.losses._checks import check_float, check_same_shape

PairLoss = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class AdversarialLoss:
    """A generator's and a discriminator's loss, each a function of (real logits [B], fake logits [B]).

    Args:
      generator: (real_logits [B], fake_logits [B]) -> generator loss per example [B].
      discriminator: (real_logits [B], fake_logits [B]) -> discriminator loss per example [B].

    Both functions must be module-level or frozen dataclasses, so that equal losses compare equal and a
    compiled step is found again.
    """

    generator: PairLoss
    discriminator: PairLoss


def _check_logits(real_logits: jax.Array, fake_logits: jax.Array) -> None:
    for name, logits in (("real_logits", real_logits), ("fake_logits", fake_logits)):
        check_float(name, logits)
        if logits.ndim != 1:
            raise ValueError(f"{name} must be one logit per example [B], got shape {list(logits.shape)}")
    check_same_shape(real_logits=real_logits, fake_logits=fake_logits)


def binary_discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Cross-entropy of telling real from fake.

    -log D(x) - log(1 - D(G(z))) = softplus(-real_logit) + softplus(fake_logit)

    Args:
      real_logits: discriminator's logits of real images, [B].
      fake_logits: discriminator's logits of generated images, [B].

    Returns:
      Loss per example in nats, [B].

    Raises:
      ValueError: the logits are not two vectors of one length.
      TypeError: the logits are not floating point.

    References:
      Goodfellow et al. 2014, "Generative Adversarial Nets", equation 1 (its negative).
    """
    _check_logits(real_logits, fake_logits)
    return jax.nn.softplus(-real_logits) + jax.nn.softplus(fake_logits)


def minimax_generator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """The generator's side of the minimax game.

    log(1 - D(G(z))) = -softplus(fake_logit)

    Its gradient vanishes where the discriminator is sure; `non_saturating_generator_loss` cures that.

    Args:
      real_logits: discriminator's logits of real images, [B]; checked, not used.
      fake_logits: discriminator's logits of generated images, [B].

    Returns:
      Loss per example in nats, [B].

    Raises:
      ValueError: the logits are not two vectors of one length.
      TypeError: the logits are not floating point.

    References:
      Goodfellow et al. 2014, "Generative Adversarial Nets", equation 1.
    """
    _check_logits(real_logits, fake_logits)
    return -jax.nn.softplus(fake_logits)


def non_saturating_generator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """The generator maximises log D(G(z)) instead of minimising log(1 - D(G(z))).

    -log D(G(z)) = softplus(-fake_logit)

    Args:
      real_logits: discriminator's logits of real images, [B]; checked, not used.
      fake_logits: discriminator's logits of generated images, [B].

    Returns:
      Loss per example in nats, [B].

    Raises:
      ValueError: the logits are not two vectors of one length.
      TypeError: the logits are not floating point.

    References:
      Goodfellow et al. 2014, "Generative Adversarial Nets", section 3.
    """
    _check_logits(real_logits, fake_logits)
    return jax.nn.softplus(-fake_logits)


def optimal_discriminator_logit(log_p_data: jax.Array, log_p_generator: jax.Array) -> jax.Array:
    """The logit of the best discriminator between two known densities.

    D*(x) = p_data(x) / (p_data(x) + p_g(x)), whose logit is log p_data(x) - log p_g(x)

    Args:
      log_p_data: log-density of the data at each point in nats, [B].
      log_p_generator: log-density of the generator at the same points in nats, [B].

    Returns:
      Logit per point, [B]; its sigmoid is D*.

    Raises:
      ValueError: the two have different shapes.

    References:
      Goodfellow et al. 2014, "Generative Adversarial Nets", proposition 1, equation 2.
    """
    check_same_shape(log_p_data=log_p_data, log_p_generator=log_p_generator)
    return log_p_data - log_p_generator


minimax = AdversarialLoss(minimax_generator_loss, binary_discriminator_loss)
non_saturating = AdversarialLoss(non_saturating_generator_loss, binary_discriminator_loss)
