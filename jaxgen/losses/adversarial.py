"""Adversarial losses: pairs of functions of the discriminator's logits.

Each takes floating point vectors (real_logits [B], fake_logits [B]) and returns a loss per example [B]; where a
generator's loss does not depend on the real logits, they are checked all the same.

A logit is log(D / (1 - D)), D the discriminator's probability that an image is real. Nothing here takes
probabilities: log(1 - sigmoid(logit)) is written -softplus(logit), which is finite at any logit. The least squares,
Wasserstein and hinge losses take the same raw output of the network, without reading it as log-odds.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.keys import AxisName
from jaxgen.losses._checks import check_float, check_same_shape

PairLoss = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class AdversarialLoss:
    """The losses of a generator and a discriminator, each (real_logits [B], fake_logits [B]) -> loss per example [B].

    One that needs a mean over the global batch takes a third argument, ``axis_name``, and the step gives it.
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
    """Cross-entropy of telling ``real_logits`` from ``fake_logits`` [B], in nats per example [B].

    -log D(x) - log(1 - D(G(z))) = softplus(-real_logit) + softplus(fake_logit)

    References:
      Goodfellow et al. 2014, "Generative Adversarial Nets", equation 1 (its negative).
    """
    _check_logits(real_logits, fake_logits)
    return jax.nn.softplus(-real_logits) + jax.nn.softplus(fake_logits)


def minimax_generator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """The generator's side of the minimax game, in nats per example [B]; ``real_logits`` are not used.

    log(1 - D(G(z))) = -softplus(fake_logit),  ``fake_logits`` [B]

    Its gradient vanishes where the discriminator is sure; `non_saturating_generator_loss` cures that.

    References:
      Goodfellow et al. 2014, "Generative Adversarial Nets", equation 1.
    """
    _check_logits(real_logits, fake_logits)
    return -jax.nn.softplus(fake_logits)


def non_saturating_generator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """The generator maximises log D(G(z)) instead of minimising log(1 - D(G(z))), in nats per example [B].

    -log D(G(z)) = softplus(-fake_logit),  ``fake_logits`` [B]; ``real_logits`` are not used

    References:
      Goodfellow et al. 2014, "Generative Adversarial Nets", section 3.
    """
    _check_logits(real_logits, fake_logits)
    return jax.nn.softplus(-fake_logits)


def least_squares_discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """The discriminator's raw output is pulled to 1 on real images and to 0 on fakes; loss per example [B].

    (real_logit - 1)^2 / 2 + fake_logit^2 / 2,  ``real_logits`` and ``fake_logits`` [B]

    The factor 1/2 is the paper's. The output is a regression here and no log-odds: 1/2 is undecided.

    References:
      Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 9 (a = 0, b = 1).
    """
    _check_logits(real_logits, fake_logits)
    return 0.5 * (jnp.square(real_logits - 1.0) + jnp.square(fake_logits))


def least_squares_generator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """The generator's side of `least_squares_discriminator_loss`: fakes are pulled to the target of real images.

    (fake_logit - 1)^2 / 2 per example [B],  ``fake_logits`` [B]; ``real_logits`` are not used

    References:
      Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 9 (c = 1).
    """
    _check_logits(real_logits, fake_logits)
    return 0.5 * jnp.square(fake_logits - 1.0)


def wasserstein_discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """The critic maximises the difference of its means; its supremum over 1-Lipschitz critics is the distance.

    f(G(z)) - f(x) = fake_logit - real_logit per pair [B],  ``real_logits`` and ``fake_logits`` [B]

    Minus its mean estimates the 1-Wasserstein distance when the critic is good. The critic must be kept Lipschitz by
    something else: a gradient penalty or a constraint on its weights. A bias of its last layer cancels: its gradient is
    pure round-off, which Adam turns into steps, so leave it out.

    References:
      Arjovsky et al. 2017, "Wasserstein GAN", equation 3 (its negative).
    """
    _check_logits(real_logits, fake_logits)
    return fake_logits - real_logits


def wasserstein_generator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """The generator raises the critic's value of its images; the hinge loss's generator does the same.

    -f(G(z)) = -fake_logit per example [B],  ``fake_logits`` [B]; ``real_logits`` are not used

    References:
      Arjovsky et al. 2017, "Wasserstein GAN", algorithm 1, line 10.
      Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", equation 17.
    """
    _check_logits(real_logits, fake_logits)
    return -fake_logits


def hinge_discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """The discriminator separates real from fake by a margin of 1 on each side of zero; loss per example [B].

    max(0, 1 - real_logit) + max(0, 1 + fake_logit),  ``real_logits`` and ``fake_logits`` [B]

    References:
      Lim & Ye 2017, "Geometric GAN", section 3.
      Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", equation 16 (its negative).
    """
    _check_logits(real_logits, fake_logits)
    return jax.nn.relu(1.0 - real_logits) + jax.nn.relu(1.0 + fake_logits)


def relativistic_discriminator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """The discriminator tells which of a pair is real, instead of judging each alone; nats per pair [B].

    -log sigmoid(real_logit - fake_logit) = softplus(fake_logit - real_logit),  ``real_logits`` and ``fake_logits`` [B]

    A bias of the discriminator's last layer cancels: its gradient is pure round-off, which Adam turns into steps, so
    leave it out.

    References:
      Jolicoeur-Martineau 2019, "The relativistic discriminator", section 4.1 (RSGAN).
    """
    _check_logits(real_logits, fake_logits)
    return jax.nn.softplus(fake_logits - real_logits)


def relativistic_generator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """The generator makes its image of a pair the more real one; nats per pair [B].

    -log sigmoid(fake_logit - real_logit) = softplus(real_logit - fake_logit),  ``real_logits`` and ``fake_logits`` [B]

    References:
      Jolicoeur-Martineau 2019, "The relativistic discriminator", section 4.1 (RSGAN).
    """
    return relativistic_discriminator_loss(fake_logits, real_logits)


def relativistic_average_discriminator_loss(
    real_logits: jax.Array, fake_logits: jax.Array, axis_name: AxisName = None
) -> jax.Array:
    """The discriminator compares each image with the average one of the other kind, over the global batch.

    softplus(-(real_logit - mean fake_logit)) + softplus(fake_logit - mean real_logit)

    Nats per example [B] of ``real_logits`` and ``fake_logits`` [B]. A bias of the discriminator's last layer cancels:
    its gradient is pure round-off, which Adam turns into steps, so leave it out.

    References:
      Jolicoeur-Martineau 2019, "The relativistic discriminator", section 4.2 (RaSGAN).
    """
    _check_logits(real_logits, fake_logits)
    real_mean, fake_mean = jnp.mean(real_logits), jnp.mean(fake_logits)
    if axis_name is not None:
        real_mean, fake_mean = jax.lax.pmean((real_mean, fake_mean), axis_name)
    return jax.nn.softplus(fake_mean - real_logits) + jax.nn.softplus(fake_logits - real_mean)


def relativistic_average_generator_loss(
    real_logits: jax.Array, fake_logits: jax.Array, axis_name: AxisName = None
) -> jax.Array:
    """The generator's side of `relativistic_average_discriminator_loss`: the same with the kinds exchanged.

    softplus(-(fake_logit - mean real_logit)) + softplus(real_logit - mean fake_logit)

    Nats per example [B] of ``real_logits`` and ``fake_logits`` [B].

    References:
      Jolicoeur-Martineau 2019, "The relativistic discriminator", section 4.2 (RaSGAN).
    """
    return relativistic_average_discriminator_loss(fake_logits, real_logits, axis_name)


def optimal_discriminator_logit(log_p_data: jax.Array, log_p_generator: jax.Array) -> jax.Array:
    """The logit [B] of the best discriminator between two known densities; its sigmoid is D*.

    D*(x) = p_data(x) / (p_data(x) + p_g(x)), whose logit is log p_data(x) - log p_g(x)

    ``log_p_data`` and ``log_p_generator`` are log-densities of the same points in nats, [B].

    References:
      Goodfellow et al. 2014, "Generative Adversarial Nets", proposition 1, equation 2.
    """
    check_same_shape(log_p_data=log_p_data, log_p_generator=log_p_generator)
    return log_p_data - log_p_generator


minimax = AdversarialLoss(minimax_generator_loss, binary_discriminator_loss)
non_saturating = AdversarialLoss(non_saturating_generator_loss, binary_discriminator_loss)
least_squares = AdversarialLoss(least_squares_generator_loss, least_squares_discriminator_loss)
wasserstein = AdversarialLoss(wasserstein_generator_loss, wasserstein_discriminator_loss)
hinge = AdversarialLoss(wasserstein_generator_loss, hinge_discriminator_loss)
relativistic = AdversarialLoss(relativistic_generator_loss, relativistic_discriminator_loss)
relativistic_average = AdversarialLoss(relativistic_average_generator_loss, relativistic_average_discriminator_loss)


def lecam_penalty(
    real_logits: jax.Array, fake_logits: jax.Array, real_average: jax.Array, fake_average: jax.Array
) -> jax.Array:
    """LeCam's penalty: logits are kept from running past the moving average of those of the other side, [B].

    max(0, D(x) - a_fake)^2 + max(0, a_real - D(G(z)))^2

    Args:
      real_logits: [B].
      fake_logits: [B].
      real_average: moving average of the logits of real images, [].
      fake_average: of those of generated images, [].

    References:
      Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data", equation 5; that only what
      is past the average costs is their code's.
    """
    _check_logits(real_logits, fake_logits)
    past = jax.nn.relu(real_logits - fake_average), jax.nn.relu(real_average - fake_logits)
    return jnp.square(past[0]) + jnp.square(past[1])
