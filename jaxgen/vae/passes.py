"""One pass through a VAE's stochastic layers: samples of each, their log-densities, and the bound's terms.

A VAE of one layer is the tuple of one throughout; only what callers see is then not a tuple.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen import batches, losses, modules
from jaxgen.keys import AxisName, example_keys, named_key, numbered_keys
from jaxgen.parallel import average
from jaxgen.vae.spec import VAE, Batch, VAEState, as_given, layers_of, named


class Call(NamedTuple):
    """How one pass calls the networks."""

    vae: VAE
    params: Any
    state: VAEState
    key: jax.Array
    train: bool
    axis_name: AxisName = None

    def masked(self, layer: int, array: jax.Array) -> jax.Array:
        """What is said of each latent dimension [..., D], zero for those that are masked."""
        mask = layers_of(self.vae, self.state.hyperparams["latent_mask"])[layer]
        return array * jnp.expand_dims(mask, range(array.ndim - 1))

    def rows(self, layer: int, z: jax.Array) -> jax.Array:
        """Latents [..., D] as a network's inputs [N, D]."""
        return self.masked(layer, z.reshape(-1, z.shape[-1]))


def evaluation(vae: VAE, state: VAEState) -> Call:
    # Evaluation mode has no dropout: the networks' key is a formality there.
    return Call(vae, state.params, state, jax.random.key(0), False)


def _apply(call: Call, kind: str, layer: int, inputs: jax.Array, label: Any) -> tuple[Any, modules.Collections]:
    vae = call.vae
    network = (vae.encoders if kind == "encoder" else vae.decoders)[layer]
    params, collections = (layers_of(vae, tree[kind])[layer] for tree in (call.params, call.state.collections))
    network = modules.bind_axis(network, collections, call.axis_name)
    key = named_key(call.key, named(f"{kind} dropout", layer))
    return modules.apply(network, params, collections, inputs, label=label, train=call.train, key=key)


def _gaussian(call: Call, kind: str, network: int, layer: int, arrays: Any, num: int) -> losses.LatentGaussian:
    """What an encoder, or a decoder above the first, says of the latents of a layer, checked."""
    dim = call.vae.latent_dims[layer]
    most = 3 if kind == "encoder" else 2
    arrays = tuple(arrays) if isinstance(arrays, tuple | list) else (arrays,)
    shapes = [list(jnp.shape(array)) for array in arrays]
    if not 2 <= len(arrays) <= most or shapes != [[num, dim]] * len(arrays):
        which = f"{kind}[{network}]" if len(call.vae.latent_dims) > 1 else f"the {kind}"
        direction = " (and optionally a direction)" if kind == "encoder" else ""
        raise ValueError(
            f"{which} must return mean and logvar{direction} of shape {[num, dim]}, got shapes "
            f"{', '.join(map(str, shapes))}: give it latent_dim={dim}"
        )
    # Log-densities are summed in float32 whatever the networks compute in.
    gaussian = losses.LatentGaussian(*(a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in arrays))
    if gaussian.direction is None:
        return gaussian
    return gaussian._replace(direction=call.masked(layer, gaussian.direction))


def posterior_of(
    call: Call, layer: int, inputs: jax.Array, label: Any
) -> tuple[losses.LatentGaussian, modules.Collections]:
    """q(z | inputs) of a layer, [N, D]: inputs are images at the bottom, the latents below elsewhere."""
    arrays, collections = _apply(call, "encoder", layer, inputs, label)
    return _gaussian(call, "encoder", layer, layer, arrays, inputs.shape[0]), collections


def conditional_of(
    call: Call, layer: int, above: jax.Array, label: Any
) -> tuple[losses.LatentGaussian, modules.Collections]:
    """p(z | latents above) of a layer below the top, [N, D]."""
    arrays, collections = _apply(call, "decoder", layer + 1, above, label)
    return _gaussian(call, "decoder", layer + 1, layer, arrays, above.shape[0]), collections


def prior_components(call: Call) -> losses.LatentGaussian:
    """The Gaussians q(z | u_k) whose equal mixture is a learnt prior, [C, D].

    In evaluation mode while training as well: the prior is a function of what is learnt alone, not of a dropout mask or
    of the statistics of a batch of pseudo-inputs.
    """
    call = call._replace(train=False)
    pseudo_inputs, _ = modules.apply(call.vae.prior, call.params["prior"], {}, train=False, key=call.key)
    return posterior_of(call, 0, pseudo_inputs, None)[0]


def _log_mixture(call: Call, z: jax.Array) -> jax.Array:
    """log (1/C) sum_k q(z | u_k) of latents [B, K, D] under a learnt prior, [B, K]; masked dimensions do not count."""
    components = jax.tree.map(lambda array: array[None, None], prior_components(call))
    log_probs = jnp.sum(call.masked(0, components.log_prob(z[:, :, None])), axis=-1)  # [B, K, C]
    return jax.nn.logsumexp(log_probs, axis=-1) - math.log(log_probs.shape[-1])


def prior_latents(call: Call, noise: jax.Array, key: jax.Array, numbers: jax.Array) -> jax.Array:
    """Latents of the top layer drawn from the prior, [N, D], each of its noise [N, D], the key and its number [N]."""
    if call.vae.prior is None:
        return noise
    components = prior_components(call)
    keys = numbered_keys(named_key(key, "prior component"), numbers)
    chosen = jax.vmap(lambda k: jax.random.randint(k, (), 0, components.mean.shape[0]))(keys)
    return jax.tree.map(lambda array: array[chosen], components).sample(noise)


def likelihood_of(call: Call, z: jax.Array, label: Any) -> tuple[jax.Array, modules.Collections]:
    """The parameters of p(x | z), [N, ...]."""
    parameters, collections = _apply(call, "decoder", 0, z, label)
    return parameters.astype(jnp.promote_types(parameters.dtype, jnp.float32)), collections


def noise_of(
    vae: VAE, key: jax.Array, name: str, batch_size: int, num_samples: int, axis_name: AxisName = None
) -> list[jax.Array]:
    """Standard normal noise of every layer, [B, K, D]: a function of the key and the example's global index."""

    def draw(layer: int, dim: int) -> jax.Array:
        keys = example_keys(named_key(key, named(name, layer)), batch_size, axis_name)
        return jax.vmap(lambda k: jax.random.normal(k, (num_samples, dim), jnp.float32))(keys)

    return [draw(layer, dim) for layer, dim in enumerate(vae.latent_dims)]


class _Layer(NamedTuple):
    """K samples of the latents of one stochastic layer for each example."""

    posterior: losses.LatentGaussian  # [B, 1, D] at the bottom, [B, K, D] above
    noise: jax.Array  # [B, K, D]
    z: jax.Array  # [B, K, D]


def _repeat(array: jax.Array, num_samples: int) -> jax.Array:
    """One row per (example, sample), example-major: a row's place does not depend on the batch's layout."""
    return jnp.repeat(array, num_samples, axis=0, total_repeat_length=array.shape[0] * num_samples)


def _per_example(gaussian: losses.LatentGaussian, batch_size: int) -> losses.LatentGaussian:
    return jax.tree.map(lambda rows: rows.reshape(batch_size, -1, rows.shape[-1]), gaussian)


def _infer(
    call: Call, images: jax.Array, label: Any, noise: list[jax.Array]
) -> tuple[list[_Layer], list[modules.Collections]]:
    """Sample z_1 ~ q(z_1 | x), z_2 ~ q(z_2 | z_1), ... from noise [B, K, D]; and the encoders' collections."""
    batch_size, num_samples = noise[0].shape[:2]
    layers: list[_Layer] = []
    collections = []
    inputs = images
    for index, eps in enumerate(noise):
        posterior, updated = posterior_of(call, index, inputs, label)
        posterior = _per_example(posterior, batch_size)
        layers.append(_Layer(posterior, eps, posterior.sample(eps)))
        collections.append(updated)
        if index == 0 and label is not None:
            label = _repeat(label, num_samples)
        inputs = call.rows(index, layers[-1].z)
    return layers, collections


def _log_posterior(call: Call, layers: list[_Layer], index: int, label: Any, stop_posterior: bool) -> jax.Array:
    """Terms of log q(z | inputs) of a layer, [B, K, D].

    With ``stop_posterior`` they depend on the latents of this layer and of the one below alone: the encoder is applied
    again with its parameters held fixed, as its answer also moves with the latents below. Values are the same.
    """
    layer = layers[index]
    if not stop_posterior:
        return layer.posterior.log_density(layer.noise)
    if index == 0:
        fixed = jax.lax.stop_gradient(layer.posterior)
    else:
        held = call._replace(params=jax.lax.stop_gradient(call.params))
        fixed, _ = posterior_of(held, index, call.rows(index - 1, layers[index - 1].z), label)
        fixed = _per_example(fixed, layer.z.shape[0])
    # z - mean as a function of both; written so that no digits cancel.
    moved = (layer.z - jax.lax.stop_gradient(layer.z)) - (fixed.mean - jax.lax.stop_gradient(fixed.mean))
    deviation = jax.lax.stop_gradient(layer.posterior.deviation(layer.noise))
    return fixed.log_density(fixed.whiten(deviation + moved))


class _Terms(NamedTuple):
    log_px: jax.Array  # log p(x | z_1), [B, K]
    # log q(z_l | z_{l-1}) - log p(z_l | z_{l+1}) of each layer and dimension, [B, K, D]; [B, K, 1] under a learnt
    # prior, whose log-density is no sum over dimensions.
    kls: list[jax.Array]
    collections: list[modules.Collections]  # of the decoders


def _terms(call: Call, images: jax.Array, label: Any, layers: list[_Layer], stop_posterior: bool) -> _Terms:
    """The log-densities of sampled latents."""
    batch_size, num_samples = layers[0].z.shape[:2]
    label = None if label is None else _repeat(label, num_samples)
    parameters, updated = likelihood_of(call, call.rows(0, layers[0].z), label)
    log_px = call.vae.likelihood.log_prob(parameters, _repeat(images, num_samples))
    kls, collections = [], [updated]
    for index, layer in enumerate(layers):
        log_q = _log_posterior(call, layers, index, label, stop_posterior)
        if call.vae.prior is not None:  # of one layer
            log_q = jnp.sum(call.masked(index, log_q), axis=-1)
            kls.append((log_q - _log_mixture(call, layer.z))[..., None])
            continue
        if index + 1 < len(layers):
            prior, updated = conditional_of(call, index, call.rows(index + 1, layers[index + 1].z), label)
            prior = _per_example(prior, batch_size)
            collections.append(updated)
        else:
            prior = losses.LatentGaussian(jnp.zeros_like(layer.z), jnp.zeros_like(layer.z))
        kls.append(call.masked(index, log_q - prior.log_prob(layer.z)))
    return _Terms(log_px.reshape(batch_size, num_samples), kls, collections)


def _sum_latents(terms: list[jax.Array]) -> jax.Array:
    """Sum over each layer's dimensions [B, K or 1, D] and over the layers, [B, K or 1]."""
    return functools.reduce(jnp.add, [jnp.sum(layer, axis=-1) for layer in terms])


def _log_weights(call: Call, log_px: jax.Array, kls: list[jax.Array]) -> jax.Array:
    """log p(x | z) - beta KL [K, B], of the terms of each layer's KL [B, K or 1, D]."""
    hyperparams = call.state.hyperparams
    if "free_bits" in hyperparams:
        least = hyperparams["free_bits"]
        # The batch mean only chooses the branch, so nothing is differentiated through the average over devices.
        over = [average(jnp.mean(kl, axis=(0, 1), keepdims=True), call.axis_name) > least for kl in kls]
        kls = [
            jnp.where(above, kl, call.masked(layer, jnp.full_like(kl, least)))
            for layer, (above, kl) in enumerate(zip(over, kls, strict=True))
        ]
    return (log_px - hyperparams["beta"] * _sum_latents(kls)).T


@jax.custom_jvp
def _scale_path(z: jax.Array, weight: jax.Array) -> jax.Array:
    """The identity of z, with its gradient multiplied by a weight of the same rank."""
    return z


@_scale_path.defjvp
def _(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    z, weight = primals
    return z, tangents[0] * weight


class Bound(NamedTuple):
    log_weights: jax.Array  # [K, B], the KL weighted by beta
    reconstruction: jax.Array  # E log p(x | z), [B]
    kl: jax.Array  # [B]
    latent_kls: list[jax.Array]  # its terms, of each layer, [B, D]; [B, 1] under a learnt prior
    collections: dict[str, Any]


def bound_of(call: Call, batch: Batch, noise: list[jax.Array], objective: Any) -> Bound:
    """The terms of the lower bound of each example, the top layer's KL in closed form where that is asked for.

    Of a learnt prior it has no closed form, and is sampled.
    """
    images, label = batches.read(batch)
    layers, encoder_collections = _infer(call, images, label, noise)
    # Broadcast over the samples where there is one layer: its posterior does not depend on a sample.
    closed = call.masked(-1, layers[-1].posterior.kl()) if call.vae.prior is None else None

    def weigh(layers: list[_Layer]) -> tuple[jax.Array, _Terms]:
        terms = _terms(call, images, label, layers, getattr(objective, "stop_posterior", False))
        top = closed if getattr(objective, "analytic_kl", False) else None
        return _log_weights(call, terms.log_px, [*terms.kls[:-1], terms.kls[-1] if top is None else top]), terms

    log_weights, terms = weigh(layers)
    path_weights = getattr(objective, "path_weights", None)
    if path_weights is not None:
        # The second pass has the values of the first, which the compiler therefore computes once.
        scale = path_weights(log_weights, call.state.hyperparams["beta"]).T[..., None]
        layers = [layer._replace(z=_scale_path(layer.z, scale)) for layer in layers]
        log_weights, terms = weigh(layers)
    kls = [*terms.kls[:-1], terms.kls[-1] if closed is None else closed]
    return Bound(
        log_weights=log_weights,
        reconstruction=jnp.mean(terms.log_px, axis=1),
        kl=jnp.mean(_sum_latents(kls), axis=1),
        latent_kls=[jnp.mean(layer, axis=1) for layer in kls],
        collections={
            "encoder": as_given(call.vae, encoder_collections),
            "decoder": as_given(call.vae, terms.collections),
        },
    )


def observe(call: Call, z: jax.Array, label: jax.Array | None, noise: list[jax.Array] | None) -> jax.Array:
    """Likelihood parameters of the topmost latents [N, D], through samples of the layers between where there is noise
    [N, D] of each."""
    top = len(call.vae.latent_dims) - 1
    for layer in reversed(range(top)):
        conditional, _ = conditional_of(call, layer, call.rows(layer + 1, z), label)
        z = conditional.mean if noise is None else conditional.sample(noise[layer])
    return likelihood_of(call, call.rows(0, z), label)[0]


def whitened_means(call: Call, images: jax.Array, label: jax.Array | None) -> list[jax.Array]:
    """The noise of each layer [N, D] that makes the posterior means, each layer's given the mean of the one below: from
    it `observe` comes through these very latents."""
    means = []
    inputs = images
    for layer in range(len(call.vae.latent_dims)):
        posterior, _ = posterior_of(call, layer, inputs, label)
        means.append(call.rows(layer, posterior.mean))
        inputs = means[-1]
    noise = [means[-1]]
    for layer in reversed(range(len(means) - 1)):
        conditional, _ = conditional_of(call, layer, means[layer + 1], label)
        noise.insert(0, call.masked(layer, conditional.whiten(means[layer] - conditional.mean)))
    return noise
