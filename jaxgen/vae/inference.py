"""What to do with a trained VAE: bounds and likelihoods of images, encode, decode, sample and reconstruct."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.typing

from jaxgen import batches, losses
from jaxgen.keys import example_keys, named_key
from jaxgen.spec import check_latents
from jaxgen.vae.passes import (
    Bound,
    bound_of,
    evaluation,
    likelihood_of,
    noise_of,
    observe,
    posterior_of,
    prior_latents,
    whitened_means,
)
from jaxgen.vae.spec import VAE, Batch, VAEState, as_given, check_labels, check_standard_prior, named, select


def _evaluated(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int) -> Bound:
    noise = noise_of(vae, named_key(key, "vae evaluate"), "noise", batches.read(batch)[0].shape[0], num_samples)
    return bound_of(evaluation(vae, state), batch, noise, losses.elbo)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _evaluate(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int) -> dict[str, jax.Array]:
    bound = _evaluated(vae, state, batch, key, num_samples)
    return {
        "elbo": bound.reconstruction - bound.kl,
        "reconstruction": bound.reconstruction,
        "kl": bound.kl,
    }


def vae_evaluate(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int = 1) -> dict[str, jax.Array]:
    """The ELBO of each example and its two terms, with the networks in evaluation mode.

    elbo = reconstruction - kl,  reconstruction = (1/K) sum_k log p(x | z_k)

    The KL of the top stochastic layer is in closed form, that of the layers below it and of a learnt prior sampled.
    ``elbo``, ``reconstruction`` and ``kl`` are in nats, each [B]; ``num_samples`` is K.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    return _evaluate(vae, state, select(vae, batch), key, num_samples)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _latent_kl(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int) -> Any:
    return as_given(vae, _evaluated(vae, state, batch, key, num_samples).latent_kls)


def vae_latent_kl(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int = 1) -> Any:
    """The KL of each latent dimension of each image: averaged over images, it says which dimensions are used.

    KL_d = E_q[log q(z_d | ...) - log p(z_d | ...)],  sum_d KL_d = ``kl`` of `vae_evaluate` with the same arguments

    Nats [B, D]; of a VAE with tuples, a tuple of these, one a stochastic layer. ``num_samples`` latents are drawn for
    each example; of a VAE of one layer none. The top stochastic layer's KL is in closed form given a sample of the
    layer below, that of the layers below is sampled and may be negative for an image. A rank-one posterior's shared
    information is divided between the dimensions as `losses.LatentGaussian` says. A dimension whose mean is a hundredth
    of a nat or less says nothing of the image; a masked one is zero. The KL of a learnt prior is no sum over
    dimensions.

    References:
      Hoffman & Johnson 2016, "ELBO surgery: yet another way to carve up the variational evidence lower bound"; Burda et
      al. 2016, on inactive units.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    check_standard_prior(vae, "the KL of each latent dimension")
    return _latent_kl(vae, state, select(vae, batch), key, num_samples)


class LikelihoodEstimate(NamedTuple):
    """An importance-sampled log-likelihood with what its weights say of its error.

    Args:
      log_likelihood: estimate of log p(x) in nats, [B].
      standard_error: its standard error in nats, [B].
      effective_samples: number of equally weighted samples that would be worth as much, from 1 to K, [B].
    """

    log_likelihood: jax.Array
    standard_error: jax.Array
    effective_samples: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _importance_sampling(
    vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int, chunk_size: int
) -> LikelihoodEstimate:
    batch_size = batches.read(batch)[0].shape[0]
    # The weights are those of p(x, z) / q(z | x), whatever the training's.
    hyperparams = {"beta": jnp.ones(()), "latent_mask": state.hyperparams["latent_mask"]}
    call = evaluation(vae, state._replace(hyperparams=hyperparams))
    keys = [
        example_keys(named_key(key, named("vae log likelihood", layer)), batch_size)
        for layer in range(len(vae.latent_dims))
    ]

    def chunk(carry: tuple[jax.Array, jax.Array], start: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        indices = start + jnp.arange(chunk_size)
        fold = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)), in_axes=(0, None))
        noise = [
            jax.vmap(jax.vmap(lambda k, dim=dim: jax.random.normal(k, (dim,), jnp.float32)))(fold(example, indices))
            for example, dim in zip(keys, vae.latent_dims, strict=True)
        ]
        log_weights = bound_of(call, batch, noise, losses.iwae).log_weights
        log_weights = jnp.where((indices < num_samples)[:, None], log_weights, -jnp.inf)
        before, squares = carry
        total = jnp.logaddexp(before, jax.nn.logsumexp(log_weights, axis=0))
        # Squares of the weights' shares of their sum: of differences, which keep their digits at any log p(x).
        squares = jnp.logaddexp(
            squares + 2.0 * (before - total), jax.nn.logsumexp(2.0 * (log_weights - total[None]), axis=0)
        )
        return (total, squares), None

    starts = jnp.arange(0, num_samples, chunk_size)
    nothing = jnp.full((batch_size,), -jnp.inf)
    (total, squares), _ = jax.lax.scan(chunk, (nothing, nothing), starts)
    return LikelihoodEstimate(
        log_likelihood=total - jnp.log(num_samples),
        standard_error=jnp.sqrt(jnp.maximum(jnp.exp(squares) - 1.0 / num_samples, 0.0)),
        effective_samples=jnp.exp(-squares),
    )


def vae_importance_sampling(
    vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int = 5000, chunk_size: int = 100
) -> LikelihoodEstimate:
    """The log-likelihood of each example by importance sampling from the posterior, with its standard error.

    log p(x) ~ log (1/K) sum_k w_k,  w_k = p(x, z_k) / q(z_k | x),  z_k ~ q(z | x)
    error^2 ~ sum_k w_k^2 / (sum_k w_k)^2 - 1/K,  effective samples = (sum_k w_k)^2 / sum_k w_k^2

    A lower bound in expectation that approaches log p(x) as K grows; by half the squared error, about. The error is
    that of the delta method, and is itself estimated from the weights: where few samples are effective (tens, say, of
    thousands), one or two of them carry the sum, the posterior q misses where p(x, z) has its mass, and then the
    estimate is too low by more than the error admits; an error of zero for one sample says nothing. Draw more samples,
    or use `vae_annealed_log_likelihood`.

    It is computed for ``chunk_size`` of the K = ``num_samples`` samples of each example [B] at a time, in evaluation
    mode, and the draws depend on the key, the example's place in the batch and the sample's number only, so that the
    chunks' size changes the memory it takes and, but for round-off, nothing else. The batch may be sharded over
    devices.

    References:
      Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders", equation 8; Kong, Liu & Wong 1994,
      "Sequential Imputations and Bayesian Missing Data Problems" (effective samples); Owen 2013, "Monte Carlo theory,
      methods and examples", chapter 9.
    """
    for name, size in (("num_samples", num_samples), ("chunk_size", chunk_size)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    return _importance_sampling(vae, state, select(vae, batch), key, num_samples, min(chunk_size, num_samples))


def vae_log_likelihood(
    vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int = 5000, chunk_size: int = 100
) -> jax.Array:
    """The log-likelihood of each example in nats [B]: `vae_importance_sampling` without what that says of its error.

    log p(x) ~ log (1/K) sum_k p(x, z_k) / q(z_k | x),  z_k ~ q(z | x)

    K is ``num_samples``, of which ``chunk_size`` are held in memory at a time.
    """
    return vae_importance_sampling(vae, state, batch, key, num_samples, chunk_size).log_likelihood


@functools.partial(jax.jit, static_argnums=0)
def _encode_images(vae: VAE, state: VAEState, batch: Batch) -> Any:
    inputs, label = batches.read(batch)
    call = evaluation(vae, state)
    posteriors = []
    for layer in range(len(vae.latent_dims)):
        posterior, _ = posterior_of(call, layer, inputs, label)
        # Of a masked dimension the encoder says what its initialisation made it say.
        posteriors.append(tuple(call.masked(layer, array) for array in posterior if array is not None))
        inputs = call.rows(layer, posterior.mean)
    return as_given(vae, posteriors)


def vae_encode(vae: VAE, state: VAEState, batch: Batch) -> Any:
    """The approximate posterior q(z | x) of each image: (mean [B, D], logvar [B, D]).

    With the direction [B, D] where the encoder gives one. Of a VAE with tuples, a tuple of these, one a stochastic
    layer: q(z_1 | x), and q(z_{l+1} | z_l) at the mean of the layer below. All zero for masked dimensions, which say
    nothing of the image.
    """
    return _encode_images(vae, state, select(vae, batch))


def _generate(
    vae: VAE, state: VAEState, z: jax.Array, label: jax.Array | None, noise: list[jax.Array] | None = None
) -> jax.Array:
    """Mean images of the topmost latents; see `observe`."""
    return vae.likelihood.mean(observe(evaluation(vae, state), z, label, noise))


_decode = functools.partial(jax.jit, static_argnums=0)(_generate)


def vae_decode(vae: VAE, state: VAEState, z: jax.Array, label: jax.typing.ArrayLike | None = None) -> jax.Array:
    """The mean image of each latent z [N, D] of the top stochastic layer; the layers between take their means.

    Means of p(x | z), [N, H, W, C], in [0, 1] for image likelihoods; a conditional model needs the label, int [N].
    """
    check_latents(z, vae.latent_dims[-1])
    check_labels(vae, label)
    return _decode(vae, state, z, batches.read_label(label, z.shape[0]))


@functools.partial(jax.jit, static_argnums=0)
def _decode_noise(vae: VAE, state: VAEState, noise: jax.Array, label: jax.Array | None) -> jax.Array:
    ends = list(itertools.accumulate(vae.latent_dims))
    layers = jnp.split(noise, ends[:-1], axis=1)
    return observe(evaluation(vae, state), layers[-1], label, layers)


def vae_decode_noise(
    vae: VAE, state: VAEState, noise: jax.Array, label: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """The likelihood's parameters as a function of standard normal noise: a VAE of any depth as one decoder.

    z_L = eps_L,  z_l = mean_l(z_{l+1}) + std_l(z_{l+1}) eps_l,  parameters of p(x | z_1),  eps ~ N(0, I)

    The noise of all stochastic layers side by side, next to the data first, [N, D_1 + ... + D_L], is a latent with a
    standard normal prior, so that what is written for one decoder (`jaxgen.latents`) holds for every VAE but one with a
    learnt prior, whose latents are no function of such noise. With one layer it is the latent. A conditional model
    needs the label, int [N]. Images are ``vae.likelihood.mean(parameters)`` of the parameters [N, ...].

    References:
      Rezende, Mohamed & Wierstra 2014, equations 1 to 4 (deep latent Gaussian models).
    """
    check_standard_prior(vae, "vae_decode_noise")
    check_latents(noise, sum(vae.latent_dims))
    check_labels(vae, label)
    return _decode_noise(vae, state, noise, batches.read_label(label, noise.shape[0]))


@functools.partial(jax.jit, static_argnums=0)
def _encode_noise(vae: VAE, state: VAEState, batch: Batch) -> jax.Array:
    images, label = batches.read(batch)
    return jnp.concatenate(whitened_means(evaluation(vae, state), images, label), axis=1)


def vae_encode_noise(vae: VAE, state: VAEState, batch: Batch) -> jax.Array:
    """The noise from which `vae_decode_noise` comes through the posterior means of each image, [B, D_1 + ... + D_L].

    eps_L = mean of q(z_L | ...),  eps_l = (mean of q(z_l | ...) - mean_l(z_{l+1})) / std_l(z_{l+1})

    With one layer these are the posterior means. Zero for masked dimensions.
    """
    check_standard_prior(vae, "vae_encode_noise")
    return _encode_noise(vae, state, select(vae, batch))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _sample(vae: VAE, state: VAEState, key: jax.Array, num_samples: int, label: jax.Array | None) -> jax.Array:
    noise = [layer[:, 0] for layer in noise_of(vae, key, "vae sample", num_samples, 1)]
    z = prior_latents(evaluation(vae, state), noise[-1], key, jnp.arange(num_samples))
    return _generate(vae, state, z, label, noise)


def vae_sample(
    vae: VAE, state: VAEState, key: jax.Array, num_samples: int, label: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """Mean images [N, H, W, C] of ``num_samples`` N latents drawn from the prior, layer by layer.

    z_L ~ N(0, I), z_l ~ p(z_l | z_{l+1}), image = E[x | z_1]

    Of a learnt prior, z ~ q(z | u_k) of a pseudo-input u_k drawn uniformly. Image i depends on the key and on i alone;
    a conditional model needs the label, int [N].
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    check_labels(vae, label)
    return _sample(vae, state, key, num_samples, batches.read_label(label, num_samples))


@functools.partial(jax.jit, static_argnums=0)
def _reconstruct(vae: VAE, state: VAEState, batch: Batch, key: jax.Array) -> jax.Array:
    images, label = batches.read(batch)
    call = evaluation(vae, state)
    posterior, _ = posterior_of(call, 0, images, label)
    z = posterior.sample(noise_of(vae, key, "vae reconstruct", images.shape[0], 1)[0][:, 0])
    parameters, _ = likelihood_of(call, call.rows(0, z), label)
    return vae.likelihood.mean(parameters)


def vae_reconstruct(vae: VAE, state: VAEState, batch: Batch, key: jax.Array) -> jax.Array:
    """Mean images [B, H, W, C] decoded from a posterior sample of each image, of the stochastic layer next to the data.

    z_1 ~ q(z_1 | x), image = E[x | z_1]
    """
    return _reconstruct(vae, state, select(vae, batch), key)
