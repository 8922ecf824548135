"""Losses: arrays in, one value per example out. They see logits and log-weights, never parameters."""

from jaxgen.losses.adversarial import (
    AdversarialLoss,
    binary_discriminator_loss,
    minimax,
    minimax_generator_loss,
    non_saturating,
    non_saturating_generator_loss,
    optimal_discriminator_logit,
)
from jaxgen.losses.divergences import gaussian_kl
from jaxgen.losses.likelihoods import Bernoulli, Gaussian, Likelihood, bernoulli, gaussian
from jaxgen.losses.objectives import elbo

__all__ = [
    "AdversarialLoss",
    "Bernoulli",
    "Gaussian",
    "Likelihood",
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
]
