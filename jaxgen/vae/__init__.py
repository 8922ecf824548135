"""The variational autoencoder: spec, state, init, losses, updates, step, and what to do with a trained one.

Throughout, ``batch`` holds ``image`` [B, ...] and, for conditional networks, ``label`` int [B]; ``key`` is a typed key,
[]; ``axis_name`` names the mapped axis or axes over which the global batch is split, None when it is not.

Kingma & Welling 2014, "Auto-Encoding Variational Bayes"; several stochastic layers as in Rezende et al. 2014 and
Burda et al. 2016. The prior may be learnt, as in Tomczak & Welling 2018.
"""

from jaxgen.vae.inference import (
    LikelihoodEstimate,
    vae_decode,
    vae_decode_noise,
    vae_encode,
    vae_encode_noise,
    vae_evaluate,
    vae_importance_sampling,
    vae_latent_kl,
    vae_log_likelihood,
    vae_reconstruct,
    vae_sample,
)
from jaxgen.vae.spec import VAE, Batch, VAEState, as_given, layers_of
from jaxgen.vae.training import Metrics, vae_init, vae_loss, vae_step, vae_update

__all__ = [
    "VAE",
    "Batch",
    "LikelihoodEstimate",
    "Metrics",
    "VAEState",
    "as_given",
    "layers_of",
    "vae_decode",
    "vae_decode_noise",
    "vae_encode",
    "vae_encode_noise",
    "vae_evaluate",
    "vae_importance_sampling",
    "vae_init",
    "vae_latent_kl",
    "vae_log_likelihood",
    "vae_loss",
    "vae_reconstruct",
    "vae_sample",
    "vae_step",
    "vae_update",
]
