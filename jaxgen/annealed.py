"""Log-likelihoods of trained GANs and VAEs on one scale: annealed importance sampling under a stated noise.

A GAN has no likelihood of its own: with Gaussian noise around its images it has one, and so has a VAE's decoder, which
makes the two comparable (Wu et al. 2017). The noise is part of the number.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax

from jaxgen import batches, modules
from jaxgen.gan import GAN, GANState, gan_generate
from jaxgen.keys import example_keys, named_key
from jaxgen.losses import Likelihood
from jaxgen.metrics.annealing import (
    AnnealedEstimate,
    annealed_importance_sampling,
    reverse_annealed_importance_sampling,
)
from jaxgen.spec import check_latents, check_state
from jaxgen.vae import VAE, VAEState, vae_latent_size, vae_likelihood_parameters

Batch = Mapping[str, Any]


@functools.partial(jax.jit, static_argnums=(0, 4, 6))
def _gan(
    gan: GAN, state: GANState, batch: Batch, key: jax.Array, noise: Likelihood, latents: Any, options: tuple[Any, ...]
) -> AnnealedEstimate:
    images, label = batches.read(batch)

    def log_likelihood(z: jax.Array, examples: tuple[jax.Array, Any]) -> jax.Array:
        x, labels = examples
        return noise.log_prob(gan_generate(gan, state, z, labels), x)

    return _run(log_likelihood, (images, label), gan.latent_dim, latents, key, options)


@functools.partial(jax.jit, static_argnums=(0, 4, 6))
def _vae(
    vae: VAE,
    state: VAEState,
    batch: Batch,
    key: jax.Array,
    noise: Likelihood | None,
    latents: Any,
    options: tuple[Any, ...],
) -> AnnealedEstimate:
    images, label = batches.read(batch)

    def log_likelihood(z: jax.Array, examples: tuple[jax.Array, Any]) -> jax.Array:
        x, labels = examples
        parameters = vae_likelihood_parameters(vae, state, z, labels)
        if noise is None:
            return vae.likelihood.log_prob(parameters, x)
        return noise.log_prob(vae.likelihood.mean(parameters), x)

    return _run(log_likelihood, (images, label), vae_latent_size(vae), latents, key, options)


def _run(
    log_likelihood: Any, examples: Any, latent_dim: int, latents: Any, key: jax.Array, options: tuple[Any, ...]
) -> AnnealedEstimate:
    named: dict[str, int] = dict(options)
    if latents is None:
        return annealed_importance_sampling(log_likelihood, examples, latent_dim, key, **named)
    return reverse_annealed_importance_sampling(log_likelihood, examples, latents, key, **named)


def gan_log_likelihood(
    gan: GAN,
    state: GANState,
    batch: Batch,
    key: jax.Array,
    likelihood: Likelihood,
    latents: jax.Array | None = None,
    **options: int,
) -> AnnealedEstimate:
    """Log-likelihood of images under a GAN whose images are observed with noise, by annealed importance sampling.

    p(x) = int N(z; 0, I) p(x | G(z)) dz,  p(x | G(z)) such as N(x; G(z), scale^2 I)

    Args:
      gan: the spec.
      state: the state; the generator's moving average where there is one.
      batch: ``image`` [B, ...], and ``label`` [B] for a conditional model.
      key: typed key, [].
      likelihood: the noise, a likelihood whose parameters are mean images, such as ``losses.gaussian(scale=0.1)``.
      latents: what simulated images were made from, [B, D]: the estimate is then from above. See `gan_simulate`.
      **options: num_chains, num_temperatures, num_leapfrog, chunk_size of `metrics.annealed_importance_sampling`.

    Returns:
      The estimates, each [B], in nats.

    Raises:
      TypeError: state, key or batch are of the wrong type.
      ValueError: shapes do not fit, a number is below 1, or a conditional generator has no labels.

    References:
      Wu et al. 2017, "On the quantitative analysis of decoder-based generative models", sections 2.2 and 3.
    """
    check_state(state, GANState)
    batch = _select(batch, gan.generator)
    if latents is not None:
        check_latents(latents, gan.latent_dim)
    return _gan(gan, state, batch, key, likelihood, latents, tuple(sorted(options.items())))


def vae_annealed_log_likelihood(
    vae: VAE,
    state: VAEState,
    batch: Batch,
    key: jax.Array,
    likelihood: Likelihood | None = None,
    latents: jax.Array | None = None,
    **options: int,
) -> AnnealedEstimate:
    """Log-likelihood of images under a VAE's decoder, by annealed importance sampling: the encoder is not used.

    p(x) = int N(eps; 0, I) p(x | z_1(eps)) d eps,  eps the noise of all stochastic layers

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], and ``label`` [B] for a conditional model.
      key: typed key, [].
      likelihood: noise around the decoder's mean images, such as ``losses.gaussian(scale=0.1)``, on which GANs have
        likelihoods too; None for the VAE's own likelihood.
      latents: the noise that simulated images were made from, [B, `vae_latent_size`]: the estimate is then from above.
        See `vae_simulate`.
      **options: num_chains, num_temperatures, num_leapfrog, chunk_size of `metrics.annealed_importance_sampling`.

    Returns:
      The estimates, each [B], in nats.

    Raises:
      TypeError: state, key or batch are of the wrong type.
      ValueError: shapes do not fit, a number is below 1, or a conditional decoder has no labels.

    References:
      Wu et al. 2017, "On the quantitative analysis of decoder-based generative models", section 3.
    """
    check_state(state, VAEState)
    decoders = vae.decoder if isinstance(vae.decoder, tuple) else (vae.decoder,)
    batch = _select(batch, *decoders)
    if latents is not None:
        check_latents(latents, vae_latent_size(vae))
    return _vae(vae, state, batch, key, likelihood, latents, tuple(sorted(options.items())))


def _select(batch: Batch, *networks: Any) -> Batch:
    batch = batches.select(batch)
    modules.check_label_range(batch.get("label"), *networks)
    return batch


def gan_simulate(
    gan: GAN, state: GANState, key: jax.Array, num_samples: int, likelihood: Likelihood, label: Any = None
) -> tuple[jax.Array, jax.Array]:
    """Images of a GAN with noise, and the latents that they were made from: an exact sample of their posterior.

    z ~ N(0, I), x ~ p(x | G(z))

    Args:
      gan: the spec.
      state: the state.
      key: typed key, [].
      num_samples: number of images N.
      likelihood: the noise.
      label: labels for a conditional model, int [N].

    Returns:
      (images [N, ...], latents [N, D]).

    Raises:
      TypeError: the key is not a typed threefry key.
      ValueError: the labels do not fit.
    """
    z = _noise(key, num_samples, gan.latent_dim)
    return likelihood.sample(named_key(key, "observation"), gan_generate(gan, state, z, label)), z


def vae_simulate(
    vae: VAE,
    state: VAEState,
    key: jax.Array,
    num_samples: int,
    likelihood: Likelihood | None = None,
    label: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Images of a VAE's decoder with noise, and the noise of all layers that they were made from.

    eps ~ N(0, I), x ~ p(x | z_1(eps))

    Args:
      vae: the spec.
      state: the state.
      key: typed key, [].
      num_samples: number of images N.
      likelihood: noise around the mean images; None for the VAE's own likelihood.
      label: labels for a conditional model, int [N].

    Returns:
      (images [N, ...], noise [N, `vae_latent_size`]).

    Raises:
      TypeError: the key is not a typed threefry key.
      ValueError: the labels do not fit.
    """
    noise = _noise(key, num_samples, vae_latent_size(vae))
    parameters = vae_likelihood_parameters(vae, state, noise, batches.read_label(label, num_samples))
    key = named_key(key, "observation")
    if likelihood is None:
        return vae.likelihood.sample(key, parameters), noise
    return likelihood.sample(key, vae.likelihood.mean(parameters)), noise


def _noise(key: jax.Array, num_samples: int, size: int) -> jax.Array:
    keys = example_keys(named_key(key, "simulate"), num_samples)
    return jax.vmap(lambda key: jax.random.normal(key, (size,)))(keys)
