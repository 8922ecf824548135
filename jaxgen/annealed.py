"""Log-likelihoods of trained GANs and VAEs on one scale: annealed importance sampling under a stated noise.

A GAN has no likelihood of its own: with Gaussian noise around its images it has one, and so has a VAE's decoder, which
makes the two comparable (Wu et al. 2017). The noise is part of the number.
"""

import functools
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import jax.typing

from jaxgen import batches, losses, metrics, modules
from jaxgen.families import family_of
from jaxgen.gan import GAN, GANState
from jaxgen.keys import example_keys, named_key
from jaxgen.spec import check_latents, check_observation_noise, check_state
from jaxgen.vae import VAE, VAEState

Batch = Mapping[str, Any]
_SIZES = ("num_chains", "num_temperatures", "num_leapfrog", "chunk_size")


class Options(TypedDict, total=False):
    """What `annealed_log_likelihood` takes by name."""

    latents: jax.Array | None
    num_chains: int
    num_temperatures: int
    num_leapfrog: int
    chunk_size: int | None


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _draw(
    spec: Any, state: Any, key: jax.Array, num_samples: int, likelihood: Any, label: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    family = family_of(spec)
    latent_keys = example_keys(named_key(key, f"{family.name} simulate"), num_samples)
    shape = (sum(family.latent_dims(spec)),)
    latents = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(latent_keys)
    parameters, drawn = family.observe(spec, state, latents, label, likelihood)
    keys = example_keys(named_key(key, "observation noise"), num_samples)
    return jax.vmap(lambda key, of: drawn.sample(key, of[None])[0])(keys, parameters), latents


def simulate(
    spec: Any, state: Any, key: jax.Array, num_samples: int, likelihood: losses.Likelihood | None, label: Any = None
) -> tuple[dict[str, jax.Array], jax.Array]:
    """`gan_simulate` or `vae_simulate`, whichever the spec is of: (a batch of N images [N, ...], latents [N, D])."""
    _check_noise(spec, likelihood)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    family = family_of(spec)
    modules.check_label_range(label, *family.networks(spec)[family.decoder])
    label = batches.read_label(label, num_samples)
    images, latents = _draw(spec, state, key, num_samples, likelihood, label)
    return batches.select({"image": images, "label": label}), latents


def _check_noise(spec: Any, likelihood: losses.Likelihood | None) -> None:
    if likelihood is not None or family_of(spec).likelihood(spec) is None:
        check_observation_noise(likelihood)


@functools.partial(jax.jit, static_argnums=(0, 4, 6))
def _anneal(
    spec: Any, state: Any, batch: Batch, key: jax.Array, likelihood: Any, latents: Any, sizes: Any
) -> metrics.AnnealedEstimate:
    family, options = family_of(spec), dict(zip(_SIZES, sizes, strict=True))

    def log_likelihood(z: jax.Array, x: Batch) -> jax.Array:
        parameters, observed = family.observe(spec, state, z, x.get("label"), likelihood)
        return observed.log_prob(parameters, x["image"])

    if latents is None:
        size = sum(family.latent_dims(spec))
        return metrics.annealed_importance_sampling(log_likelihood, batch, size, key, **options)
    return metrics.reverse_annealed_importance_sampling(log_likelihood, batch, latents, key, **options)


def annealed_log_likelihood(
    spec: Any,
    state: Any,
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
    """The log-likelihood of each image under a decoder and a stated observation noise, by annealed importance sampling.

    `gan_log_likelihood` or `vae_annealed_log_likelihood`, whichever the spec is of. Estimated from below, see
    `metrics.annealed_importance_sampling`; or from above for images of `simulate` with their latents, see
    `metrics.reverse_annealed_importance_sampling`. In nats, with its standard error and the acceptance, each [B].

    Args:
      spec, state: the GAN or VAE and its state.
      batch: ``image`` [B, ...], ``label`` [B] for a conditional model.
      key: typed key, [].
      likelihood: the noise around the mean images, in units of the image, e.g. ``losses.gaussian(scale=0.1)``; None for
        a VAE's own likelihood.
      latents: what simulated images come from, [B, D], D = D_1 + ... + D_L of a VAE's layers; None for the estimate
        from below.
      num_chains: chains of each image C, at least 2.
      num_temperatures: number of steps from the prior to the posterior T.
      num_leapfrog: gradients of a trajectory.
      chunk_size: images at a time, which bounds the memory; None for all of them, as sharded images need.
    """
    _check_noise(spec, likelihood)
    family = family_of(spec)
    check_state(state, family.state)
    batch = batches.select(batch)
    modules.check_label_range(batch.get("label"), *family.networks(spec)[family.decoder])
    batches.read(batch)  # for its checks
    if latents is not None:
        check_latents(latents, sum(family.latent_dims(spec)))
    sizes = (num_chains, num_temperatures, num_leapfrog, chunk_size)
    return _anneal(spec, state, batch, key, likelihood, latents, sizes)


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

    A batch of N = ``num_samples`` images [N, H, W, C], not clipped to [0, 1], with the label, int [N], that a
    conditional model needs; and the latents [N, D]. Image i depends on the key and on i alone. The ``likelihood`` is
    the noise around the generator's images, e.g. ``losses.gaussian(scale=0.1)``.
    """
    return simulate(gan, state, key, num_samples, likelihood, label)


def gan_log_likelihood(
    gan: GAN,
    state: GANState,
    batch: Batch,
    key: jax.Array,
    likelihood: losses.Likelihood,
    **options: Unpack[Options],
) -> metrics.AnnealedEstimate:
    """The log-likelihood of each image under a GAN and a stated observation noise, in nats [B].

    log p(x) = log int N(z; 0, I) p(x | G(z)) dz

    A GAN has no density of images of its own: the noise is part of the number, and numbers of different noises do not
    compare. The generator is that of `gan_generate`: the moving average where there is one. The ``likelihood`` and the
    options are those of `annealed_log_likelihood`, ``latents`` those of `gan_simulate`.

    References:
      Wu, Burda, Salakhutdinov & Grosse 2017, "On the Quantitative Analysis of Decoder-Based Generative Models".
    """
    return annealed_log_likelihood(gan, state, batch, key, likelihood, **options)


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

    As `gan_simulate`, with ``num_samples`` images [N, H, W, C] of the VAE's own ``likelihood`` when that is None. For
    latents it gives the standard normal noise of all layers, next to the data first, [N, D_1 + ... + D_L]: the latents
    themselves where there is one layer. Not of a learnt prior.
    """
    return simulate(vae, state, key, num_samples, likelihood, label)


def vae_annealed_log_likelihood(
    vae: VAE,
    state: VAEState,
    batch: Batch,
    key: jax.Array,
    likelihood: losses.Likelihood | None = None,
    **options: Unpack[Options],
) -> metrics.AnnealedEstimate:
    """The log-likelihood of each image under a VAE's decoder alone, in nats [B].

    log p(x) = log int N(eps; 0, I) p(x | z_1(eps)) d eps,  eps the standard normal noise of all stochastic layers

    The encoder plays no part, so that it is independent of `vae_importance_sampling`, and comparable with
    `gan_log_likelihood` under the same observation noise. The ``likelihood`` and the options are those of
    `annealed_log_likelihood`, ``latents`` those of `vae_simulate`. Not of a learnt prior.
    """
    return annealed_log_likelihood(vae, state, batch, key, likelihood, **options)
