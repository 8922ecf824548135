"""A tokenizer's training: init, the two players' losses, updates and step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgen import batches, losses, modules
from jaxgen.adversary import (
    LOGIT_AVERAGES,
    Batch,
    Metrics,
    adapt_augmentation,
    as_float32,
    discriminator_init,
    discriminator_update,
    generator_loss,
)
from jaxgen.averaging import moved_on
from jaxgen.keys import AxisName, named_key, step_key
from jaxgen.parallel import as_varying, average
from jaxgen.spec import check_state, initial_hyperparams, optimized, scheduled_hyperparams
from jaxgen.tokenizer.spec import PARTS, Pass, Tokenizer, TokenizerState, check_images, select

LARGEST_WEIGHT = 1e4  # of the adaptive weight, as in the code of Esser et al. 2021


def _initial(spec: Tokenizer, key: jax.Array, images: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and collections of encoder, bottleneck and decoder."""
    params, collections, x = {}, {}, images
    for name in PARTS:
        network = getattr(spec, name)
        params[name], collections[name] = modules.initialize(network, named_key(key, f"tokenizer {name}"), x)
        made, _ = jax.eval_shape(
            lambda network=network, name=name, x=x: modules.apply(
                network, params[name], collections[name], x, train=False, key=key
            )
        )
        x = made.latents if name == "bottleneck" else made
        x = jnp.zeros(x.shape, x.dtype)
        if name == "bottleneck" and x.shape[1:] != spec.latent_shape:
            raise ValueError(
                f"latents of images {list(images.shape[1:])} are {list(x.shape[1:])}, Tokenizer.latent_shape is "
                f"{list(spec.latent_shape)}: give it {tuple(x.shape[1:])}"
            )
    return params, collections


@functools.partial(jax.jit, static_argnums=0)
def _init(spec: Tokenizer, key: jax.Array, batch: Batch, perceptual: Any) -> TokenizerState:
    images, _ = batches.read(batch)
    check_images(images)
    params, collections = _initial(spec, key, images)
    discriminator_params: Any = {}
    discriminator_collections: modules.Collections = {}
    discriminator_optimizer_state = None
    if spec.discriminator is not None and spec.discriminator_optimizer is not None:
        discriminator_params, discriminator_collections = discriminator_init(spec, key, images, None)
        discriminator_optimizer_state = spec.discriminator_optimizer.init(discriminator_params)
    if perceptual is None and spec.perceptual not in (None, "discriminator"):
        perceptual, _ = modules.initialize(spec.perceptual, named_key(key, "tokenizer perceptual"), images)
    weights: tuple[jax.Array, ...] = ()
    if spec.perceptual not in (None, "discriminator"):
        maps = jax.eval_shape(
            lambda: spec.perceptual.apply({"params": perceptual}, images, train=False, method="features")
        )
        weights = tuple(jnp.ones((features.shape[-1],)) for features in maps)
    averages = {} if spec.lecam_weight is None else dict.fromkeys(LOGIT_AVERAGES.values(), 0.0)
    channels = spec.latent_shape[2]
    first = as_float32({"params": params, "collections": collections})
    state = TokenizerState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=collections,
        discriminator_params=discriminator_params,
        discriminator_collections=discriminator_collections,
        discriminator_optimizer_state=discriminator_optimizer_state,
        optimizer_state=spec.optimizer.init(params),
        perceptual_params={} if perceptual is None else perceptual,
        perceptual_weights=weights,
        ema=None if spec.ema_decay is None else first,
        hyperparams={
            **initial_hyperparams(None, **spec.hyperparams, **averages),
            "latent_mean": jnp.zeros((channels,)),
            "latent_std": jnp.ones((channels,)),
        },
        averages=(first,) * len(spec.average_lengths),
    )
    jax.eval_shape(lambda: tokenizer_update(spec, state, batch, key))  # for its checks of every shape
    return state


def tokenizer_init(spec: Tokenizer, key: jax.Array, batch: Batch, perceptual: Any = None) -> TokenizerState:
    """The state at step 0, from the shapes and types of an example batch, ``image`` [B, H, W, C].

    ``perceptual`` are the parameters of the network ``spec.perceptual``; without them it has random ones. The weights
    of the distance are ones: put others in their place by ``state._replace(perceptual_weights=...)``.
    """
    return _init(spec, key, select(batch), perceptual)


class Rebuilt(NamedTuple):
    """A step's reconstructions with the way back from them, so that both players share one pass of the autoencoder.

    Args:
      made: what the decoder makes, [B, H, W, ...]: images or likelihood parameters.
      own_loss: of the bottleneck and of equivariance, [B].
      numbers: what they are made of, [] each by name.
      collections: mutable collections after the pass.
      pull_back: gradients with respect to (``made``, ``own_loss``) -> (gradient like ``state.params``,), this device's.
    """

    made: jax.Array
    own_loss: jax.Array
    numbers: Metrics
    collections: dict[str, Any]
    pull_back: Callable[[tuple[jax.Array, jax.Array]], tuple[Any]]


def tokenizer_rebuilt(
    spec: Tokenizer, state: TokenizerState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> Rebuilt:
    """This step's reconstructions [B, ...] of the batch, and the way to the parameters that made them.

    y = decoder(bottleneck(encoder(x)))
    """
    images, _ = batches.read(batch)
    key = step_key(key, "tokenizer step", state.step)

    def forward(params: dict[str, Any]) -> tuple[tuple[jax.Array, jax.Array], tuple[Metrics, dict[str, Any]]]:
        network = Pass(spec, params, state.collections, True, key, axis_name)
        bottled, collections = network.encode(images)
        made, collections["decoder"] = network.decode(bottled.latents)
        own, numbers = bottled.loss, {name: jnp.mean(value) for name, value in bottled.numbers.items()}
        if spec.equivariance is not None:
            moved, target = spec.equivariance(bottled.latents, images, named_key(key, "equivariance"))
            distance = spec.distance(network.decode(moved)[0], target)
            own = own + state.hyperparams["equivariance_weight"] * distance
            numbers["equivariance"] = jnp.mean(distance)
        if spec.mean(made).shape != images.shape:
            raise ValueError(
                f"the decoder makes images of shape {list(spec.mean(made).shape[1:])}, the batch holds "
                f"{list(images.shape[1:])}: give it the channels of the data and the encoder's factor"
            )
        own = as_varying(own.astype(jnp.float32), axis_name)  # FSQ's are zeros, alike everywhere
        return (made, own), (as_float32(numbers), collections)

    (made, own), pull_back, (numbers, collections) = jax.vjp(forward, as_varying(state.params, axis_name), has_aux=True)
    return Rebuilt(made, own, numbers, collections, pull_back)


def _features(spec: Tokenizer, state: TokenizerState, images: jax.Array, axis_name: AxisName) -> Any:
    """The maps of features of images by the network that the perceptual distance is taken with."""
    if spec.perceptual != "discriminator":
        if not state.perceptual_params:
            raise ValueError(
                "the state has no parameters of Tokenizer.perceptual, which files of weights do not keep: put those of "
                "tokenizer_init(..., perceptual=...) there"
            )
        return spec.perceptual.apply({"params": state.perceptual_params}, images, train=False, method="features")
    network = modules.bind_axis(spec.discriminator, state.discriminator_collections, axis_name)
    variables = {"params": state.discriminator_params, **state.discriminator_collections}
    return network.apply(variables, images, train=False, method="features")


def fidelity_loss(
    spec: Tokenizer, made: jax.Array, state: TokenizerState, batch: Batch, axis_name: AxisName = None
) -> tuple[jax.Array, Metrics]:
    """How far reconstructions are from their images, [], as a pure function of what the decoder made.

    (1/B) sum_b [ reconstruction_weight r(y_b, x_b) + perceptual_weight d(f(y_b), f(x_b)) ]

    ``made`` are images or likelihood parameters [B, H, W, ...]. Returned with it are the metrics ``reconstruction``
    and ``perceptual``, unweighted, float32 [].
    """
    images, _ = batches.read(batch)
    distance = jnp.mean(spec.distance(made, images))
    loss, metrics = state.hyperparams["reconstruction_weight"] * distance, {"reconstruction": distance}
    if spec.perceptual is not None:
        own, real = (_features(spec, state, each, axis_name) for each in (spec.mean(made), images))
        metrics["perceptual"] = jnp.mean(losses.feature_distance(own, real, state.perceptual_weights or None))
        loss = loss + state.hyperparams["perceptual_weight"] * metrics["perceptual"]
    return loss, as_float32(metrics)


class _Played(NamedTuple):
    """What the discriminator's part of a step gives: its new state, and what it says to the autoencoder."""

    params: Any
    collections: modules.Collections
    optimizer_state: Any
    averages: Metrics
    gradient: jax.Array  # of the adversarial loss, by what the decoder made
    metrics: Metrics


def _play(
    spec: Tokenizer, state: TokenizerState, batch: Batch, made: jax.Array, key: jax.Array, axis_name: AxisName
) -> _Played:
    """The discriminator's update against reconstructions, and the gradient that the new one gives them."""
    state, metrics = discriminator_update(spec, state, batch, spec.mean(made), key, axis_name)
    gradient = jax.grad(lambda y: generator_loss(spec, spec.mean(y), state, batch, key, axis_name)[0])(made)
    return _Played(
        state.discriminator_params,
        state.discriminator_collections,
        state.discriminator_optimizer_state,
        {name: state.hyperparams[name] for name in LOGIT_AVERAGES.values() if name in state.hyperparams},
        gradient,
        metrics,
    )


def _wait(played: Any, state: TokenizerState, made: jax.Array, axis_name: AxisName) -> _Played:
    """What it gives, of a shape that is known, before it plays: the same discriminator, and nothing to say."""
    averages = {name: state.hyperparams[name] for name in played.averages}
    nothing = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in played.metrics.items()}
    return _Played(
        state.discriminator_params,
        state.discriminator_collections,
        state.discriminator_optimizer_state,
        averages,
        as_varying(jnp.zeros_like(made), axis_name),
        nothing,
    )


def adversarial_play(
    spec: Tokenizer, state: TokenizerState, batch: Batch, rebuilt: Rebuilt, key: jax.Array, axis_name: AxisName = None
) -> tuple[TokenizerState, jax.Array, Metrics]:
    """The discriminator's part of a step, from ``adversarial_start`` on: its update, and what it says of the images.

    Returned are the new state, the gradient of the adversarial loss by ``rebuilt.made`` [B, H, W, ...], and metrics as
    of `jaxgen.adversary.discriminator_update`; before that step the same state, and zeros.
    """

    def play() -> _Played:
        return _play(spec, state, batch, rebuilt.made, key, axis_name)

    if spec.adversarial_start == 0:
        played = play()
    else:
        shapes = jax.eval_shape(play)
        played = jax.lax.cond(
            state.step >= spec.adversarial_start, play, lambda: _wait(shapes, state, rebuilt.made, axis_name)
        )
    state = state._replace(
        discriminator_params=played.params,
        discriminator_collections=played.collections,
        discriminator_optimizer_state=played.optimizer_state,
        hyperparams={**state.hyperparams, **played.averages},
    )
    return state, played.gradient, played.metrics


def adaptive_factor(fidelity: jax.Array, adversarial: jax.Array) -> jax.Array:
    """By what the adversarial loss is multiplied, [], of gradients at the decoder's last layer, of one shape.

    min(|fidelity| / (|adversarial| + 1e-4), 1e4)

    References:
      Esser et al. 2021, equation 7; the bound is their code's.
    """
    norms = [jnp.sqrt(jnp.sum(jnp.square(each))) for each in (fidelity, adversarial)]
    return jnp.clip(norms[0] / (norms[1] + 1e-4), 0.0, LARGEST_WEIGHT)


def tokenizer_update(
    spec: Tokenizer, state: TokenizerState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[TokenizerState, Metrics]:
    """Update the discriminator, then the autoencoder against the new one: all of a step but schedules and counting.

    loss = fidelity + bottleneck + equivariance + adversarial_weight factor (1/B) sum_b g(D(x_b), D(y_b)),  y the
    reconstructions and the factor `adaptive_factor`, or 1

    The new state, and metrics averaged over the axis, [].
    """
    rebuilt = tokenizer_rebuilt(spec, state, batch, key, axis_name)
    adversarial: jax.Array | None = None
    metrics: Metrics = {}
    if spec.discriminator is not None:
        state, adversarial, metrics = adversarial_play(spec, state, batch, rebuilt, key, axis_name)
    fidelity, (loss, fidelity_metrics) = _value_and_grad(
        lambda made: fidelity_loss(spec, made, state, batch, axis_name), rebuilt.made
    )
    size = rebuilt.own_loss.shape[0]
    numbers = {"loss": loss + jnp.mean(rebuilt.own_loss), **fidelity_metrics, **rebuilt.numbers}
    gradient = fidelity
    if adversarial is not None:
        factor = state.hyperparams["adversarial_weight"]
        if spec.adaptive_weight:
            ends = [average(_at_the_end(rebuilt, each), axis_name) for each in (fidelity, adversarial)]
            plays = state.step >= spec.adversarial_start
            metrics["adaptive_weight"] = jnp.where(plays, adaptive_factor(*ends), 0.0)
            factor = factor * metrics["adaptive_weight"]
        gradient = fidelity + (factor * adversarial).astype(fidelity.dtype)
    (gradient,) = rebuilt.pull_back((gradient, as_varying(jnp.full((size,), 1.0 / size), axis_name)))
    gradient = average(gradient, axis_name)
    metrics = {**average(as_float32(numbers), axis_name), **metrics}
    updates, optimizer_state = optimized(spec.optimizer, gradient, state.optimizer_state, state.params, metrics["loss"])
    state = state._replace(
        params=optax.apply_updates(state.params, updates),
        collections=rebuilt.collections,
        optimizer_state=optimizer_state,
    )
    latest = as_float32({"params": state.params, "collections": state.collections})
    state = state._replace(averages=moved_on(state.averages, spec.average_lengths, latest, state.step))
    if state.ema is not None:
        state = state._replace(ema=optax.incremental_update(latest, state.ema, 1.0 - state.hyperparams["ema_decay"]))
    return state, metrics


def _value_and_grad(function: Callable[[jax.Array], Any], x: jax.Array) -> tuple[jax.Array, Any]:
    value, gradient = jax.value_and_grad(function, has_aux=True)(x)
    return gradient, value


def _at_the_end(rebuilt: Rebuilt, gradient: jax.Array) -> jax.Array:
    """A gradient by what the decoder made, pulled back to the kernel of its last layer; the rest is not computed."""
    (pulled,) = rebuilt.pull_back((gradient, jnp.zeros_like(rebuilt.own_loss)))
    last = pulled["decoder"].get("output")
    if last is None or "kernel" not in last:
        raise ValueError(
            "Tokenizer.adaptive_weight needs a decoder whose last layer is the parameter output/kernel, got "
            f"{', '.join(pulled['decoder'])}: name that layer output, or use a fixed weight"
        )
    return last["kernel"]


@functools.partial(jax.jit, static_argnums=0, static_argnames="axis_name")
def _step(
    spec: Tokenizer, state: TokenizerState, batch: Batch, key: jax.Array, axis_name: AxisName
) -> tuple[TokenizerState, Metrics]:
    hyperparams = scheduled_hyperparams(state.hyperparams, state.step, **spec.hyperparams)
    state, metrics = tokenizer_update(spec, state._replace(hyperparams=hyperparams), batch, key, axis_name)
    if spec.discriminator is not None:
        state, metrics = adapt_augmentation(spec, state, metrics, batch["image"].shape[0], axis_name)
    return state._replace(step=state.step + 1), metrics


def tokenizer_step(
    spec: Tokenizer, state: TokenizerState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[TokenizerState, Metrics]:
    """One training step of a tokenizer, compiled: the discriminator, then the autoencoder against the new one.

    Both see one pass of the autoencoder. Before ``adversarial_start`` the discriminator does not play, and its metrics
    are 0.

    Args:
      spec: the spec (static).
      state: the state.
      batch: ``image`` [B, H, W, C] (uint8, bool or float); the rest is ignored.
      key: the run's typed key, []; the same at every step or a fresh one.
      axis_name: mapped axis or axes over which the global batch is split (pmap, shard_map, vmap).

    Returns:
      (new state, metrics: float32 [] averaged over the axis, of the parameters given: ``loss`` without its adversarial
      part, ``reconstruction``, and what spec and bottleneck have: ``perceptual``, ``equivariance``, ``kl``,
      ``commitment``, ``adaptive_weight``, and those of `jaxgen.discriminator_loss`).
    """
    check_state(state, TokenizerState)
    return _step(spec, state, select(batch), key, axis_name=axis_name)
