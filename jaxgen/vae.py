"""The variational autoencoder: spec, state, init, losses, updates, step, and what to do with a trained one.

Kingma & Welling 2014, "Auto-Encoding Variational Bayes".
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgen import batches, losses, modules
from jaxgen.keys import AxisName, example_keys, named_key, step_key
from jaxgen.parallel import average, value_and_averaged_gradient
from jaxgen.spec import Schedule, check_latents, check_spec, check_state, initial_hyperparams, scheduled_hyperparams

Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class VAE:
    """What a VAE is: everything static about it. Build it once: a rebuilt spec is compiled again.

    Args:
      encoder: network (x [B, ...], label=None, *, train) -> (mean [B, D], logvar [B, D]).
      decoder: network (z [B, D], label=None, *, train) -> likelihood parameters [B, ...].
      optimizer: optax transformation of encoder and decoder parameters together.
      latent_dim: number of latent dimensions D.
      likelihood: p(x | z), with ``log_prob``, ``mean`` and ``sample``.
      objective: log-weights [K, B] -> lower bound per example [B].
      num_samples: latent samples per example in training, K.
      beta: weight of the KL, a number or a schedule of the step; ``state.hyperparams["beta"]``.

    Raises:
      TypeError: a field cannot be hashed or is not what its name says.
      ValueError: a size is below 1 or beta is negative.
    """

    encoder: Any
    decoder: Any
    optimizer: optax.GradientTransformation
    latent_dim: int
    likelihood: losses.Likelihood = losses.bernoulli
    objective: Callable[[jax.Array], jax.Array] = losses.elbo
    num_samples: int = 1
    beta: float | Schedule = 1.0

    def __post_init__(self) -> None:
        check_spec(self)
        if not callable(self.beta) and not self.beta >= 0:
            raise ValueError(f"VAE.beta must be at least 0, got {self.beta}")


class VAEState(NamedTuple):
    """Everything that training changes, arrays only.

    Args:
      step: number of steps done, int32 [].
      params: ``{"encoder": ..., "decoder": ...}``.
      collections: mutable collections of the two networks, likewise.
      optimizer_state: of ``vae.optimizer``.
      hyperparams: ``beta`` [] and ``latent_mask`` [D], float32.
    """

    step: jax.Array
    params: dict[str, Any]
    collections: dict[str, modules.Collections]
    optimizer_state: Any
    hyperparams: dict[str, jax.Array]


@functools.partial(jax.jit, static_argnums=0)
def _init(vae: VAE, key: jax.Array, batch: Batch) -> VAEState:
    images, label = batches.read(batch)
    z = jnp.zeros((images.shape[0], vae.latent_dim))
    params, collections = {}, {}
    for name, network, inputs in (("encoder", vae.encoder, images), ("decoder", vae.decoder, z)):
        network_key = named_key(key, f"vae {name}")
        params[name], collections[name] = modules.initialize(network, network_key, inputs, label=label)
    state = VAEState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=collections,
        optimizer_state=vae.optimizer.init(params),
        hyperparams=initial_hyperparams(vae.latent_dim, beta=vae.beta),
    )
    # Traced for its checks of every shape; its result is not used and costs nothing.
    vae_loss(vae, params, state, batch, key)
    return state


def vae_init(vae: VAE, key: jax.Array, batch: Batch) -> VAEState:
    """Initialise the state of a VAE.

    Args:
      vae: the spec.
      key: typed key, [].
      batch: an example batch, ``image`` [B, H, W, C] or [B, D]; its shapes and types are used, not its values.

    Returns:
      The state at step 0.

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: the networks' shapes do not fit the images or each other.
    """
    return _init(vae, key, batches.select(batch))


def _encode(
    vae: VAE,
    params: Any,
    state: VAEState,
    images: jax.Array,
    label: Any,
    key: jax.Array,
    train: bool,
    axis: AxisName,
) -> tuple[tuple[jax.Array, jax.Array], modules.Collections]:
    collections = state.collections["encoder"]
    encoder = modules.bind_axis(vae.encoder, collections, axis)
    (mean, logvar), collections = modules.apply(
        encoder, params["encoder"], collections, images, label=label, train=train, key=key
    )
    expected = (images.shape[0], vae.latent_dim)
    if mean.shape != expected or logvar.shape != expected:
        raise ValueError(
            f"the encoder must return mean and logvar of shape {list(expected)}, got "
            f"{list(mean.shape)} and {list(logvar.shape)}: give it latent_dim={vae.latent_dim}"
        )
    return (mean, logvar), collections


def _decode(
    vae: VAE,
    params: Any,
    state: VAEState,
    z: jax.Array,
    label: Any,
    key: jax.Array,
    train: bool,
    axis: AxisName,
) -> tuple[jax.Array, modules.Collections]:
    collections = state.collections["decoder"]
    decoder = modules.bind_axis(vae.decoder, collections, axis)
    return modules.apply(
        decoder,
        params["decoder"],
        collections,
        z * state.hyperparams["latent_mask"][None],
        label=label,
        train=train,
        key=key,
    )


class _Bound(NamedTuple):
    log_weights: jax.Array  # [K, B], the KL weighted by beta
    reconstruction: jax.Array  # E log p(x | z), [B]
    kl: jax.Array  # [B]
    collections: dict[str, modules.Collections]


def _bound(
    vae: VAE,
    params: Any,
    state: VAEState,
    batch: Batch,
    key: jax.Array,
    num_samples: int,
    train: bool,
    axis_name: AxisName,
) -> _Bound:
    """The terms of the lower bound of each example, with the KL in closed form."""
    images, label = batches.read(batch)
    batch_size = images.shape[0]
    (mean, logvar), encoder_collections = _encode(
        vae, params, state, images, label, named_key(key, "encoder dropout"), train, axis_name
    )
    # One row per (example, sample), example-major: a row's place does not depend on the batch's layout.
    noise_keys = example_keys(named_key(key, "noise"), batch_size, axis_name)
    noise = jax.vmap(lambda k: jax.random.normal(k, (num_samples, vae.latent_dim), mean.dtype))(noise_keys)
    z = mean[:, None] + jnp.exp(0.5 * logvar)[:, None] * noise
    rows = batch_size * num_samples
    repeat = functools.partial(jnp.repeat, repeats=num_samples, axis=0, total_repeat_length=rows)
    parameters, decoder_collections = _decode(
        vae,
        params,
        state,
        z.reshape(rows, vae.latent_dim),
        None if label is None else repeat(label),
        named_key(key, "decoder dropout"),
        train,
        axis_name,
    )
    log_px = vae.likelihood.log_prob(parameters, repeat(images)).reshape(batch_size, num_samples)
    kl = losses.gaussian_kl(mean, logvar, state.hyperparams["latent_mask"])
    return _Bound(
        log_weights=(log_px - (state.hyperparams["beta"] * kl)[:, None]).T,
        reconstruction=jnp.mean(log_px, axis=1),
        kl=kl,
        collections={"encoder": encoder_collections, "decoder": decoder_collections},
    )


def vae_loss(
    vae: VAE, params: Any, state: VAEState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[jax.Array, tuple[Metrics, dict[str, modules.Collections]]]:
    """The loss of a VAE as a pure function of its parameters.

    loss = -(1/B) sum_b bound(log w_b),  log w = log p(x | z) - beta KL(q(z | x) || p(z)),  z = mean + std eps

    Meant for ``jax.value_and_grad(..., argnums=1, has_aux=True)``. Nothing is averaged over devices here.

    Args:
      vae: the spec.
      params: ``{"encoder": ..., "decoder": ...}``; the state's own are not used.
      state: gives the step, the mutable collections and the hyper-parameters.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: the run's typed key, []; the step's number is folded in here.
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      (loss [] in nats per example, (metrics, mutable collections after the pass)). The metrics are float32 []:
      ``loss``, ``elbo`` (with beta = 1, whatever the loss), ``reconstruction`` = E log p(x | z), ``kl``.

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit.

    References:
      Kingma & Welling 2014, equation 10; Higgins et al. 2017, "beta-VAE", equation 4.
    """
    bound = _bound(vae, params, state, batch, step_key(key, "vae step", state.step), vae.num_samples, True, axis_name)
    loss = -jnp.mean(vae.objective(bound.log_weights))
    metrics = {
        "loss": loss,
        "elbo": jnp.mean(bound.reconstruction - bound.kl),
        "reconstruction": jnp.mean(bound.reconstruction),
        "kl": jnp.mean(bound.kl),
    }
    metrics = {name: value.astype(jnp.float32) for name, value in metrics.items()}
    return loss, (metrics, bound.collections)


def vae_update(
    vae: VAE, state: VAEState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[VAEState, Metrics]:
    """Gradient, average over the axis, optimizer: everything of a step but schedules and counting.

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: the run's typed key, [].
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      (state with new parameters, collections and optimizer state, metrics as of `vae_loss` averaged over the axis).

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit.
    """
    (_, (metrics, collections)), gradient = value_and_averaged_gradient(
        lambda params: vae_loss(vae, params, state, batch, key, axis_name), state.params, axis_name
    )
    updates, optimizer_state = vae.optimizer.update(gradient, state.optimizer_state, state.params)
    state = state._replace(
        params=optax.apply_updates(state.params, updates),
        collections=collections,
        optimizer_state=optimizer_state,
    )
    return state, average(metrics, axis_name)


@functools.partial(jax.jit, static_argnums=0, static_argnames="axis_name")
def _step(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, axis_name: AxisName) -> tuple[VAEState, Metrics]:
    hyperparams = scheduled_hyperparams(state.hyperparams, state.step, beta=vae.beta)
    state, metrics = vae_update(vae, state._replace(hyperparams=hyperparams), batch, key, axis_name)
    return state._replace(step=state.step + 1), metrics


def vae_step(
    vae: VAE, state: VAEState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[VAEState, Metrics]:
    """One training step of a VAE, compiled.

    Args:
      vae: the spec (static).
      state: the state.
      batch: ``image`` [B, H, W, C] or [B, D] (uint8, bool or float), optionally ``label`` int [B]; the rest is ignored.
      key: the run's typed key, []; the same at every step or a fresh one.
      axis_name: mapped axis or axes over which the global batch is split (pmap, shard_map, vmap).

    Returns:
      (new state, metrics: float32 [] averaged over the axis, of the parameters given: ``loss``, ``elbo``,
      ``reconstruction``, ``kl`` in nats per example).

    Raises:
      TypeError: state, key or batch are of the wrong type.
      ValueError: shapes do not fit, or the axis is not mapped here.

    References:
      Kingma & Welling 2014, algorithm 1.
    """
    check_state(state, VAEState)
    return _step(vae, state, batches.select(batch), key, axis_name=axis_name)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _evaluate(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int) -> Metrics:
    key = named_key(key, "vae evaluate")
    bound = _bound(vae, state.params, state, batch, key, num_samples, False, None)
    return {
        "elbo": bound.reconstruction - bound.kl,
        "reconstruction": bound.reconstruction,
        "kl": bound.kl,
    }


def vae_evaluate(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int = 1) -> dict[str, jax.Array]:
    """The ELBO of each example and its two terms, with the networks in evaluation mode.

    elbo = reconstruction - kl,  reconstruction = (1/K) sum_k log p(x | z_k)

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: typed key, [].
      num_samples: latent samples per example, K.

    Returns:
      ``elbo``, ``reconstruction`` and ``kl`` in nats, each [B].

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit, or num_samples is below 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    return _evaluate(vae, state, batches.select(batch), key, num_samples)


# Evaluation mode has no dropout: the networks' key is a formality there.
def _no_key() -> jax.Array:
    return jax.random.key(0)


@functools.partial(jax.jit, static_argnums=0)
def _encode_images(vae: VAE, state: VAEState, batch: Batch) -> tuple[jax.Array, jax.Array]:
    images, label = batches.read(batch)
    return _encode(vae, state.params, state, images, label, _no_key(), False, None)[0]


def vae_encode(vae: VAE, state: VAEState, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The approximate posterior q(z | x) of each image.

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].

    Returns:
      (mean [B, D], logvar [B, D]).

    Raises:
      TypeError: the batch is of the wrong type.
      ValueError: shapes do not fit.
    """
    return _encode_images(vae, state, batches.select(batch))


@functools.partial(jax.jit, static_argnums=0)
def vae_decode(vae: VAE, state: VAEState, z: jax.Array, label: jax.Array | None = None) -> jax.Array:
    """The mean image of each latent.

    Args:
      vae: the spec.
      state: the state.
      z: latents, [N, D].
      label: labels for a conditional model, int [N].

    Returns:
      Means of p(x | z), [N, H, W, C], in [0, 1] for image likelihoods.

    Raises:
      ValueError: z is not [N, D].
    """
    check_latents(z, vae.latent_dim)
    parameters, _ = _decode(vae, state.params, state, z, label, _no_key(), False, None)
    return vae.likelihood.mean(parameters)


@functools.partial(jax.jit, static_argnums=(0, 3))
def vae_sample(
    vae: VAE, state: VAEState, key: jax.Array, num_samples: int, label: jax.Array | None = None
) -> jax.Array:
    """Mean images of latents drawn from the prior.

    z ~ N(0, I), image = E[x | z]

    Args:
      vae: the spec.
      state: the state.
      key: typed key, []; image i depends on the key and on i alone.
      num_samples: number of images N.
      label: labels for a conditional model, int [N].

    Returns:
      Images, [N, H, W, C].

    Raises:
      TypeError: the key is not a typed threefry key.
      ValueError: num_samples is below 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    keys = example_keys(named_key(key, "vae sample"), num_samples)
    z = jax.vmap(lambda k: jax.random.normal(k, (vae.latent_dim,)))(keys)
    return vae_decode(vae, state, z, label)


@functools.partial(jax.jit, static_argnums=0)
def _reconstruct(vae: VAE, state: VAEState, batch: Batch, key: jax.Array) -> jax.Array:
    mean, logvar = _encode_images(vae, state, batch)
    keys = example_keys(named_key(key, "vae reconstruct"), mean.shape[0])
    noise = jax.vmap(lambda k: jax.random.normal(k, (vae.latent_dim,), mean.dtype))(keys)
    return vae_decode(vae, state, mean + jnp.exp(0.5 * logvar) * noise, batch.get("label"))


def vae_reconstruct(vae: VAE, state: VAEState, batch: Batch, key: jax.Array) -> jax.Array:
    """Mean images decoded from a posterior sample of each image.

    z ~ q(z | x), image = E[x | z]

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: typed key, [].

    Returns:
      Images, [B, H, W, C].

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit.
    """
    return _reconstruct(vae, state, batches.select(batch), key)
