"""Log-likelihoods of trained GANs and VAEs on one scale: annealed importance sampling under a stated noise.

A GAN has no likelihood of its own: with Gaussian noise around its images it has one, and so has a VAE's decoder, which
makes the two comparable (Wu et al. 2017). The noise is part of the number.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.typing

from jaxgen import batches, losses, metrics, modules
from jaxgen._stochastic_layers import layers_of
from jaxgen.gan import GAN, GANState, gan_generate
from jaxgen.keys import example_keys, named_key
from jaxgen.spec import check_latents, check_observation_noise, check_state
from jaxgen.vae import VAE, VAEState, vae_decode_noise

Batch = Mapping[str, Any]


def _latents(key: jax.Array, num: int, size: int) -> jax.Array:
    """Standard normal numbers [N, D], row i of the key and of i alone."""
    return jax.vmap(lambda key: jax.random.normal(key, (size,), jnp.float32))(example_keys(key, num))


def _decoders(vae: VAE) -> tuple[Any, ...]:
    return layers_of(vae, vae.decoder)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _simulate_gan(
    gan: GAN, state: GANState, key: jax.Array, num_samples: int, likelihood: Any, label: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    latents = _latents(named_key(key, "gan simulate"), num_samples, gan.latent_dim)
    means = gan_generate(gan, state, latents, label)
    keys = example_keys(named_key(key, "observation noise"), num_samples)
    return jax.vmap(lambda key, mean: likelihood.sample(key, mean[None])[0])(keys, means), latents


def gan_simulate(
    gan: GAN,
    state: GANState,
    key: jax.Array,
    num_samples: int,
    likelihood: losses.Likelihood,
    label: jax.typing.ArrayLike | None = None,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Draw noisy images together with the latents that they come from: data whose posterior has a known sample.

    z ~ N(0, I), x ~ p(x | G(z))

    Args:
      gan: the spec.
      state: the state.
      key: typed key, []; image i depends on the key and on i alone.
      num_samples: number of images N.
      likelihood: the noise around the generator's images, e.g. ``losses.gaussian(scale=0.1)``.
      label: labels for a conditional model, int [N].

    Returns:
      (a batch: ``image`` [N, H, W, C], not clipped to [0, 1], and the ``label`` if one was given; latents [N, D]).

    Raises:
      TypeError: the key is no typed key, or the likelihood's parameters are not mean images.
      ValueError: num_samples is below 1, or the labels do not fit; see `gan_generate`.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    check_observation_noise(likelihood)
    modules.check_label_range(label, gan.generator)
    label = batches.read_label(label, num_samples)
    images, latents = _simulate_gan(gan, state, key, num_samples, likelihood, label)
    return batches.select({"image": images, "label": label}), latents


@functools.partial(jax.jit, static_argnums=(0, 4, 6))
def _anneal_gan(
    gan: GAN, state: GANState, batch: Batch, key: jax.Array, likelihood: Any, latents: Any, sizes: tuple[Any, ...]
) -> metrics.AnnealedEstimate:
    def log_likelihood(z: jax.Array, x: Batch) -> jax.Array:
        return likelihood.log_prob(gan_generate(gan, state, z, x.get("label")), x["image"])

    if latents is None:
        return metrics.annealed_importance_sampling(log_likelihood, batch, gan.latent_dim, key, **dict(sizes))
    return metrics.reverse_annealed_importance_sampling(log_likelihood, batch, latents, key, **dict(sizes))


def gan_log_likelihood(
    gan: GAN,
    state: GANState,
    batch: Batch,
    key: jax.Array,
    likelihood: losses.Likelihood,
    *,
    latents: jax.Array | None = None,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    num_leapfrog: int = 10,
    chunk_size: int | None = None,
) -> metrics.AnnealedEstimate:
    """The log-likelihood of each image under a GAN and a stated observation noise, by annealed importance sampling.

    log p(x) = log int N(z; 0, I) p(x | G(z)) dz

    A GAN has no density of images of its own: the noise is part of the number, and numbers of different noises do not
    compare. Estimated from below, see `metrics.annealed_importance_sampling`; or from above for images of
    `gan_simulate` with their latents, see `metrics.reverse_annealed_importance_sampling`. The generator is that of
    `gan_generate`: the moving average where there is one.

    Args:
      gan: the spec.
      state: the state.
      batch: ``image`` [B, ...], ``label`` [B] for a conditional model.
      key: typed key, [].
      likelihood: the noise around the generator's images, e.g. ``losses.gaussian(scale=0.1)``, in units of the image.
      latents: the latents that simulated images come from, [B, D]; None for the estimate from below.
      num_chains: chains of each image C, at least 2.
      num_temperatures: number of steps from the prior to the posterior T.
      num_leapfrog: gradients of a trajectory.
      chunk_size: images at a time, which bounds the memory; None for all of them, as sharded images need.

    Returns:
      The estimate in nats, its standard error and the acceptance, each [B].

    Raises:
      TypeError: key or batch are of the wrong type, or the likelihood's parameters are not mean images.
      ValueError: shapes do not fit, or a size is too small.

    References:
      Wu, Burda, Salakhutdinov & Grosse 2017, "On the Quantitative Analysis of Decoder-Based Generative Models".
    """
    check_state(state, GANState)
    check_observation_noise(likelihood)
    batch = batches.select(batch)
    modules.check_label_range(batch.get("label"), gan.generator)
    batches.read(batch)  # for its checks
    if latents is not None:
        check_latents(latents, gan.latent_dim)
    sizes = {"num_chains": num_chains, "num_temperatures": num_temperatures, "num_leapfrog": num_leapfrog}
    settings = (*sizes.items(), ("chunk_size", chunk_size))
    return _anneal_gan(gan, state, batch, key, likelihood, latents, settings)


def _observe_noise(vae: VAE, state: VAEState, z: jax.Array, label: Any, likelihood: Any) -> tuple[jax.Array, Any]:
    """(parameters of the images made by the noise of all layers [N, D_1 + ... + D_L], the likelihood they are of)."""
    parameters = vae_decode_noise(vae, state, z, label)
    if likelihood is None:
        return parameters, vae.likelihood
    return vae.likelihood.mean(parameters), likelihood


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _simulate_vae(
    vae: VAE, state: VAEState, key: jax.Array, num_samples: int, likelihood: Any, label: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    latents = _latents(named_key(key, "vae simulate"), num_samples, sum(layers_of(vae, vae.latent_dim)))
    parameters, drawn = _observe_noise(vae, state, latents, label, likelihood)
    keys = example_keys(named_key(key, "observation noise"), num_samples)
    return jax.vmap(lambda key, of: drawn.sample(key, of[None])[0])(keys, parameters), latents


def vae_simulate(
    vae: VAE,
    state: VAEState,
    key: jax.Array,
    num_samples: int,
    likelihood: losses.Likelihood | None = None,
    label: jax.typing.ArrayLike | None = None,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Draw images, noise and all, together with the latents that they come from: their posterior has a known sample.

    eps ~ N(0, I) of every stochastic layer, z_L = eps_L, z_l = mean_l(z_{l+1}) + std_l(z_{l+1}) eps_l, x ~ p(x | z_1)

    Args:
      vae: the spec.
      state: the state.
      key: typed key, []; image i depends on the key and on i alone.
      num_samples: number of images N.
      likelihood: noise around the mean images, e.g. ``losses.gaussian(scale=0.1)``; None for the VAE's own likelihood.
      label: labels for a conditional model, int [N].

    Returns:
      (a batch: ``image`` [N, H, W, C] and the ``label`` if one was given; the standard normal noise of all layers, next
      to the data first, [N, D_1 + ... + D_L]: the latents themselves where there is one layer).

    Raises:
      TypeError: the key is no typed key, or the likelihood's parameters are not mean images.
      ValueError: num_samples is below 1, or the labels do not fit; see `vae_decode`.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if likelihood is not None:
        check_observation_noise(likelihood)
    modules.check_label_range(label, *_decoders(vae))
    label = batches.read_label(label, num_samples)
    images, latents = _simulate_vae(vae, state, key, num_samples, likelihood, label)
    return batches.select({"image": images, "label": label}), latents


@functools.partial(jax.jit, static_argnums=(0, 4, 6))
def _anneal_vae(
    vae: VAE, state: VAEState, batch: Batch, key: jax.Array, likelihood: Any, latents: Any, sizes: tuple[Any, ...]
) -> metrics.AnnealedEstimate:
    def log_likelihood(z: jax.Array, x: Batch) -> jax.Array:
        parameters, observed = _observe_noise(vae, state, z, x.get("label"), likelihood)
        return observed.log_prob(parameters, x["image"])

    if latents is None:
        latent_dim = sum(layers_of(vae, vae.latent_dim))
        return metrics.annealed_importance_sampling(log_likelihood, batch, latent_dim, key, **dict(sizes))
    return metrics.reverse_annealed_importance_sampling(log_likelihood, batch, latents, key, **dict(sizes))


def vae_annealed_log_likelihood(
    vae: VAE,
    state: VAEState,
    batch: Batch,
    key: jax.Array,
    likelihood: losses.Likelihood | None = None,
    *,
    latents: jax.Array | None = None,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    num_leapfrog: int = 10,
    chunk_size: int | None = None,
) -> metrics.AnnealedEstimate:
    """The log-likelihood of each image under a VAE's decoder alone, by annealed importance sampling.

    log p(x) = log int N(eps; 0, I) p(x | z_1(eps)) d eps,  eps the standard normal noise of all stochastic layers

    The encoder plays no part, so that it is independent of `vae_importance_sampling`, and comparable with
    `gan_log_likelihood` under the same observation noise. Estimated from below, see
    `metrics.annealed_importance_sampling`; or from above for images of `vae_simulate` with their latents, see
    `metrics.reverse_annealed_importance_sampling`.

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: typed key, [].
      likelihood: noise around the mean images, e.g. ``losses.gaussian(scale=0.1)``; None for the VAE's own likelihood.
      latents: the noise that simulated images come from, [B, D_1 + ... + D_L]; None for the estimate from below.
      num_chains: chains of each image C, at least 2.
      num_temperatures: number of steps from the prior to the posterior T.
      num_leapfrog: gradients of a trajectory.
      chunk_size: images at a time, which bounds the memory; None for all of them, as sharded images need.

    Returns:
      The estimate in nats, its standard error and the acceptance, each [B].

    Raises:
      TypeError: key or batch are of the wrong type, or the likelihood's parameters are not mean images.
      ValueError: shapes do not fit, or a size is too small.

    References:
      Wu, Burda, Salakhutdinov & Grosse 2017, "On the Quantitative Analysis of Decoder-Based Generative Models".
    """
    check_state(state, VAEState)
    if likelihood is not None:
        check_observation_noise(likelihood)
    batch = batches.select(batch)
    modules.check_label_range(batch.get("label"), *_decoders(vae))
    batches.read(batch)  # for its checks
    if latents is not None:
        check_latents(latents, sum(layers_of(vae, vae.latent_dim)))
    sizes = {"num_chains": num_chains, "num_temperatures": num_temperatures, "num_leapfrog": num_leapfrog}
    settings = (*sizes.items(), ("chunk_size", chunk_size))
    return _anneal_vae(vae, state, batch, key, likelihood, latents, settings)
