"""Losses: arrays in, one value per example out. They see logits and log-weights, never parameters."""

from jaxgen.losses.adversarial import (
    AdversarialLoss,
    PairLoss,
    binary_discriminator_loss,
    minimax,
    minimax_generator_loss,
    non_saturating,
    non_saturating_generator_loss,
    optimal_discriminator_logit,
    relativistic,
    relativistic_average,
    relativistic_average_discriminator_loss,
    relativistic_average_generator_loss,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from jaxgen.losses.divergences import gaussian_kl
from jaxgen.losses.likelihoods import Bernoulli, Gaussian, Likelihood, bernoulli, gaussian
from jaxgen.losses.objectives import elbo

__all__ = [
    "AdversarialLoss",
    "Bernoulli",
    "Gaussian",
    "Likelihood",
    "PairLoss",
    "bernoulli",
    "binary_discriminator_loss",
    "elbo",
    "gaussian",
    "gaussian_kl",
    "minimax",
    "minimax_generator_loss",
    "non_saturating",
    "non_saturating_generator_loss",
    "optimal_discriminator_logit",
    "relativistic",
    "relativistic_average",
    "relativistic_average_discriminator_loss",
    "relativistic_average_generator_loss",
    "relativistic_discriminator_loss",
    "relativistic_generator_loss",
]
