"""The image tokenizer: an autoencoder with a bottleneck that is trained against a discriminator.

Throughout, ``batch`` holds images, ``image`` [B, H, W, C]; ``key`` is a typed key, []; ``axis_name`` names the mapped
axis or axes over which the global batch is split, None when it is not. The latents [B, h, w, c] that a trained model
gives and takes are normalised: mean 0 and deviation 1 a channel over the split that they were measured on.

The discriminator's half is in `jaxgen.adversary`. Esser et al. 2021, "Taming Transformers for High-Resolution Image
Synthesis"; Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen import batches, losses, metrics, modules
from jaxgen.adversary import (
    Augmentation,
    Batch,
    Metrics,
    adapt_augmentation,
    adversary_hyperparams,
    as_float32,
    check_adversary,
    discriminator_init,
    discriminator_update,
    generator_loss,
)
from jaxgen.intervals import Count, CountOrNone, Inside, NotNegative, Positive, Rate, Share
from jaxgen.keys import AxisName, named_key, step_key
from jaxgen.networks import Bottled
from jaxgen.parallel import as_varying, average
from jaxgen.spec import (
    Schedule,
    check_spec,
    check_state,
    initial_hyperparams,
    names_in,
    optimized,
    scheduled_hyperparams,
    shown,
)

ACTIVE = 0.01  # variance of a channel above which it says something, as of active units
LEAST_VARIANCE = 1e-12  # of a latent channel that says something
LARGEST_WEIGHT = 1e4  # of the adaptive weight, as in the code of Esser et al. 2021


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """What a tokenizer is: everything static about it. Build it once: a rebuilt spec is compiled again.

    Args:
      encoder: network (x [B, H, W, C], *, train) -> [B, h, w, P], what the bottleneck takes.
      bottleneck: network ([B, h, w, P], *, train) -> `networks.Bottled`, such as `networks.FSQBottleneck`.
      decoder: network (z [B, h, w, c], *, train) -> images or likelihood parameters [B, H, W, ...]; its last layer is
        its parameter ``output/kernel``.
      optimizer: optax transformation of the parameters of all three.
      latent_shape: shape (h, w, c) of an image's latents, of the images that it is trained on.
      discriminator: network (x [B, H, W, C], *, train) -> logits [B], or [B, i, j] of patches; None for none.
      discriminator_optimizer: optax transformation of its parameters.
      reconstruction: (what the decoder makes, images) -> distance [B], or a likelihood, whose distance is -log p(x | z)
        over the number of values.
      reconstruction_weight: weight of that distance.
      perceptual: network with a method ``features(x, *, train) -> maps``, whose parameters `tokenizer_init` is given;
        ``"discriminator"`` for the discriminator's own; None for no perceptual distance.
      perceptual_weight: weight of `losses.feature_distance` between those of images and reconstructions.
      perceptual_sha256: of the file that the network's parameters come from, so that it measures nothing later.
      loss: pair of adversarial losses.
      adversarial_weight: weight of the adversarial loss, or a schedule (``state.hyperparams["adversarial_weight"]``).
      adversarial_start: first step at which the discriminator plays; before it costs nothing.
      adaptive_weight: multiply that weight by |grad r| / (|grad g| + 1e-4), at most 1e4, the norms of the gradients of
        reconstruction (with its perceptual part) and adversarial loss at the decoder's last layer.
      equivariance: `losses.Equivariance`, by which a scaled or rotated latent has to decode to such an image; None.
      equivariance_weight: its weight.
      ema_decay: decay per step of the moving average of encoder, bottleneck and decoder, or a schedule; None for none.
      lecam_weight: weight of `losses.lecam_penalty`, or a schedule; None for none.
      penalties, penalty_weight, penalty_every, weight_clipping: of the discriminator, as in `jaxgen.GAN`.
      augmentation, augmentation_probability, augmentation_target: likewise.

    References:
      Esser et al. 2021, equations 4 to 7. Tseng et al. 2021 (LeCam). Kouzelis et al. 2025, "EQ-VAE".
    """

    encoder: Any
    bottleneck: Any
    decoder: Any
    optimizer: optax.GradientTransformation
    latent_shape: tuple[Count, ...]
    discriminator: Any = None
    discriminator_optimizer: optax.GradientTransformation | None = None
    reconstruction: losses.Likelihood | Callable[[jax.Array, jax.Array], jax.Array] = losses.absolute_error
    reconstruction_weight: NotNegative | Schedule = 1.0
    perceptual: Any = None
    perceptual_weight: NotNegative | Schedule = 1.0
    perceptual_sha256: str | None = None
    loss: losses.AdversarialLoss = losses.hinge
    adversarial_weight: NotNegative | Schedule = 1.0
    adversarial_start: CountOrNone = 0
    adaptive_weight: bool = False
    equivariance: losses.Equivariance | None = None
    equivariance_weight: NotNegative | Schedule = 1.0
    ema_decay: Rate | Schedule | None = None
    lecam_weight: NotNegative | Schedule | None = None
    penalties: tuple[losses.Penalty, ...] = ()
    penalty_weight: NotNegative | Schedule = 1.0
    penalty_every: Count = 1
    weight_clipping: Positive | Schedule | None = None
    augmentation: Augmentation | None = None
    augmentation_probability: Share | Schedule = 1.0
    augmentation_target: Inside | None = None

    discriminator_steps: ClassVar[int] = 1
    packing: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_spec(self)
        check_adversary(self)
        if (self.discriminator is None) != (self.discriminator_optimizer is None):
            raise ValueError(
                "Tokenizer.discriminator and discriminator_optimizer go together: give both, or neither for an "
                "autoencoder without a discriminator"
            )
        if len(self.latent_shape) != 3:
            raise ValueError(f"Tokenizer.latent_shape must be (h, w, c), got {self.latent_shape!r}")
        if not (callable(self.reconstruction) or self._likelihood):
            names = names_in(losses, lambda name, value: name.endswith("_error") or hasattr(value, "log_prob"))
            raise TypeError(
                f"Tokenizer.reconstruction must be a distance or a likelihood, got {shown(self.reconstruction)}: use "
                f"one of jaxgen.losses: {names}"
            )
        self._check_perceptual()
        if self.discriminator is None and (self.lecam_weight is not None or self.penalties or self.augmentation):
            raise ValueError(
                "Tokenizer.lecam_weight, penalties and augmentation are for a discriminator: give one, or leave them out"
            )

    def _check_perceptual(self) -> None:
        if self.perceptual == "discriminator":
            network = self.discriminator
        elif self.perceptual is None or hasattr(self.perceptual, "features"):
            return
        else:
            network = self.perceptual
        if not hasattr(network, "features"):
            raise TypeError(
                f"Tokenizer.perceptual must be 'discriminator' or a network with a method features, got "
                f"{shown(network)}: e.g. jaxgen.networks.LeNet(10), or networks.PatchDiscriminator() as discriminator"
            )

    @property
    def _likelihood(self) -> bool:
        return hasattr(self.reconstruction, "log_prob")

    @property
    def hyperparams(self) -> dict[str, float | Schedule | None]:
        """The spec's values of what ``state.hyperparams`` holds, numbers or schedules; None for what it does not."""
        plays = self.discriminator is not None
        return {
            "reconstruction_weight": self.reconstruction_weight,
            "perceptual_weight": None if self.perceptual is None else self.perceptual_weight,
            "equivariance_weight": None if self.equivariance is None else self.equivariance_weight,
            "adversarial_weight": self.adversarial_weight if plays else None,
            "lecam_weight": self.lecam_weight,
            "ema_decay": self.ema_decay,
            **(adversary_hyperparams(self) if plays else {}),
        }

    def distance(self, made: jax.Array, images: jax.Array) -> jax.Array:
        """The reconstruction's distance [B] of what the decoder makes [B, H, W, ...] from images [B, H, W, C]."""
        if not self._likelihood:
            return self.reconstruction(made, images)
        return -self.reconstruction.log_prob(made, images) / math.prod(images.shape[1:])

    def mean(self, made: jax.Array) -> jax.Array:
        """The images [B, H, W, C] of what the decoder makes."""
        return self.reconstruction.mean(made) if self._likelihood else made


class TokenizerState(NamedTuple):
    """Everything that training changes, and what it is measured by; arrays only.

    Args:
      step: number of steps done, int32 [].
      params: ``{"encoder": ..., "bottleneck": ..., "decoder": ...}``.
      collections: mutable collections of the three, likewise: a codebook that is a moving average is one.
      discriminator_params: the discriminator's parameters; empty without one, as are the next two.
      discriminator_collections: its mutable collections.
      discriminator_optimizer_state: of ``tokenizer.discriminator_optimizer``.
      optimizer_state: of ``tokenizer.optimizer``.
      perceptual_params: of the network whose features are compared, which does not change; empty without one.
      ema: float32 averages, ``{"params": ..., "collections": ...}``, or None.
      hyperparams: float32: ``latent_mean`` and ``latent_std`` [c], by which latents are normalised; the weights that
        the spec has, each []; ``real_logit_average`` and ``fake_logit_average`` [] with LeCam's penalty.
    """

    step: jax.Array
    params: dict[str, Any]
    collections: dict[str, Any]
    discriminator_params: Any
    discriminator_collections: modules.Collections
    discriminator_optimizer_state: Any
    optimizer_state: Any
    perceptual_params: Any
    ema: Any
    hyperparams: dict[str, jax.Array]


_PARTS = ("encoder", "bottleneck", "decoder")


class _Pass(NamedTuple):
    """Encoder, bottleneck and decoder as a step or a trained model sees them."""

    spec: Tokenizer
    params: dict[str, Any]
    collections: dict[str, Any]
    train: bool
    key: jax.Array
    axis_name: AxisName

    def _apply(self, name: str, x: jax.Array, train: bool) -> tuple[Any, modules.Collections]:
        network = modules.bind_axis(getattr(self.spec, name), self.collections[name], self.axis_name)
        key = named_key(self.key, f"tokenizer {name}")
        return modules.apply(network, self.params[name], self.collections[name], x, train=train, key=key)

    def encode(self, images: jax.Array, draw: bool = False) -> tuple[Bottled, dict[str, Any]]:
        """What the bottleneck makes of images [B, H, W, C], drawn as in training if asked for, and the collections."""
        hidden, encoder = self._apply("encoder", images, self.train)
        bottled, bottleneck = self._apply("bottleneck", hidden, self.train or draw)
        return bottled, {"encoder": encoder, "bottleneck": bottleneck}

    def decode(self, latents: jax.Array) -> tuple[jax.Array, modules.Collections]:
        """What the decoder makes of latents [B, h, w, c], and its collections after the pass."""
        return self._apply("decoder", latents, self.train)


def _check_images(images: jax.Array) -> None:
    if images.ndim != 4:
        raise ValueError(f"a tokenizer takes images [B, H, W, C], got shape {list(images.shape)}")


def _initial(spec: Tokenizer, key: jax.Array, images: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and collections of encoder, bottleneck and decoder."""
    params, collections, x = {}, {}, images
    for name in _PARTS:
        network = getattr(spec, name)
        params[name], collections[name] = modules.initialize(network, named_key(key, f"tokenizer {name}"), x)
        made, _ = modules.apply(network, params[name], collections[name], x, train=False, key=key)
        x = made.latents if name == "bottleneck" else made
        if name == "bottleneck" and x.shape[1:] != spec.latent_shape:
            raise ValueError(
                f"latents of images {list(images.shape[1:])} are {list(x.shape[1:])}, Tokenizer.latent_shape is "
                f"{list(spec.latent_shape)}: give it {tuple(x.shape[1:])}"
            )
    return params, collections


@functools.partial(jax.jit, static_argnums=0)
def _init(spec: Tokenizer, key: jax.Array, batch: Batch, perceptual: Any) -> TokenizerState:
    images, _ = batches.read(batch)
    _check_images(images)
    params, collections = _initial(spec, key, images)
    discriminator_params, discriminator_collections, discriminator_optimizer_state = {}, {}, None
    if spec.discriminator is not None:
        discriminator_params, discriminator_collections = discriminator_init(spec, key, images, None)
        discriminator_optimizer_state = spec.discriminator_optimizer.init(discriminator_params)
    if perceptual is None and spec.perceptual not in (None, "discriminator"):
        perceptual, _ = modules.initialize(spec.perceptual, named_key(key, "tokenizer perceptual"), images)
    averages = {} if spec.lecam_weight is None else {"real_logit_average": 0.0, "fake_logit_average": 0.0}
    channels = spec.latent_shape[2]
    state = TokenizerState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=collections,
        discriminator_params=discriminator_params,
        discriminator_collections=discriminator_collections,
        discriminator_optimizer_state=discriminator_optimizer_state,
        optimizer_state=spec.optimizer.init(params),
        perceptual_params={} if perceptual is None else perceptual,
        ema=None if spec.ema_decay is None else as_float32({"params": params, "collections": collections}),
        hyperparams={
            **initial_hyperparams(None, **spec.hyperparams, **averages),
            "latent_mean": jnp.zeros((channels,)),
            "latent_std": jnp.ones((channels,)),
        },
    )
    # Traced for its checks of every shape; its result is not used and costs nothing.
    tokenizer_update(spec, state, batch, key)
    return state


def tokenizer_init(spec: Tokenizer, key: jax.Array, batch: Batch, perceptual: Any = None) -> TokenizerState:
    """The state at step 0, from the shapes and types of an example batch, ``image`` [B, H, W, C].

    ``perceptual`` are the parameters of the network ``spec.perceptual``; without them it has random ones.
    """
    batch = batches.select(batch)
    batches.check_concrete(batch)
    return _init(spec, key, {"image": batch["image"]}, perceptual)


class Rebuilt(NamedTuple):
    """A step's reconstructions with the way back from them, so that both players share one pass of the autoencoder.

    Args:
      made: what the decoder makes, [B, H, W, ...]: images or likelihood parameters.
      own_loss: of the bottleneck and of equivariance, [B].
      numbers: what they are made of, [] each by name.
      collections: mutable collections after the pass.
      pull_back: gradients with respect to (``made``, ``own_loss``) -> (gradient like ``state.params``,), of this device.
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
        network = _Pass(spec, params, state.collections, True, key, axis_name)
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
        return (made, own.astype(jnp.float32)), (as_float32(numbers), collections)

    (made, own), pull_back, (numbers, collections) = jax.vjp(
        forward, as_varying(state.params, axis_name), has_aux=True
    )
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
        maps = [_features(spec, state, each, axis_name) for each in (spec.mean(made), images)]
        metrics["perceptual"] = jnp.mean(losses.feature_distance(*maps))
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
        {name: state.hyperparams[name] for name in state.hyperparams if name.endswith("logit_average")},
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
            metrics["adaptive_weight"] = adaptive_factor(*ends)
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
    if state.ema is not None:
        latest = as_float32({"params": state.params, "collections": state.collections})
        state = state._replace(ema=optax.incremental_update(latest, state.ema, 1.0 - state.hyperparams["ema_decay"]))
    return state, metrics


def _value_and_grad(function: Callable[[jax.Array], Any], x: jax.Array) -> tuple[jax.Array, Any]:
    value, gradient = jax.value_and_grad(function, has_aux=True)(x)
    return gradient, value


def _at_the_end(rebuilt: Rebuilt, gradient: jax.Array) -> jax.Array:
    """A gradient by what the decoder made, pulled back to the kernel of its last layer alone; the rest is not computed."""
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
    batch = batches.select(batch)
    batches.check_concrete(batch)
    return _step(spec, state, {"image": batch["image"]}, key, axis_name=axis_name)


def _trained(spec: Tokenizer, state: TokenizerState) -> _Pass:
    """Encoder, bottleneck and decoder as they are used: by their moving averages where there are some."""
    params, collections = state.params, state.collections
    if state.ema is not None:
        averaged = state.ema["params"], state.ema["collections"]
        params, collections = averaged
    # Evaluation mode has no dropout and draws nothing: the networks' key is a formality here.
    return _Pass(spec, params, collections, False, jax.random.key(0), None)


def _normalized(state: TokenizerState, latents: jax.Array) -> jax.Array:
    return (latents - state.hyperparams["latent_mean"]) / state.hyperparams["latent_std"]


def _check_latents(spec: Tokenizer, z: jax.Array) -> None:
    if z.ndim != 4 or z.shape[3] != spec.latent_shape[2]:
        raise ValueError(
            f"latents must be [N, h, w, {spec.latent_shape[2]}], such as {[1, *spec.latent_shape]}, got shape "
            f"{list(z.shape)}"
        )


@functools.partial(jax.jit, static_argnums=0)
def _encode(spec: Tokenizer, state: TokenizerState, batch: Batch) -> tuple[jax.Array, jax.Array | None]:
    images, _ = batches.read(batch)
    _check_images(images)
    bottled, _ = _trained(spec, state).encode(images)
    return bottled.latents, bottled.codes


def _read(batch: Batch) -> Batch:
    batch = batches.select(batch)
    batches.check_concrete(batch)
    return {"image": batch["image"]}


def tokenizer_encode(spec: Tokenizer, state: TokenizerState, batch: Batch) -> jax.Array:
    """The normalised latents [B, h, w, c] of images, quantised ones and of a KL bottleneck the means.

    (z - mean) / std, of each channel over the split on which they were measured, see `tokenizer_settle`
    """
    return _normalized(state, _encode(spec, state, _read(batch))[0])


def tokenizer_codes(spec: Tokenizer, state: TokenizerState, batch: Batch) -> jax.Array:
    """The codes of images, int32 [B, h, w], from 0 to the number of codes less 1."""
    _check_codes(spec)
    codes = _encode(spec, state, _read(batch))[1]
    assert codes is not None
    return codes


def _check_codes(spec: Tokenizer) -> None:
    if spec.bottleneck.num_codes is None:
        raise TypeError(
            f"{type(spec.bottleneck).__name__} has no codes: use tokenizer_encode, or a tokenizer with FSQ, VQ or LFQ"
        )


@functools.partial(jax.jit, static_argnums=0)
def _made(spec: Tokenizer, state: TokenizerState, z: jax.Array) -> jax.Array:
    latents = z * state.hyperparams["latent_std"] + state.hyperparams["latent_mean"]
    return _trained(spec, state).decode(latents)[0]


def tokenizer_made(spec: Tokenizer, state: TokenizerState, z: jax.Array) -> jax.Array:
    """What the decoder makes [N, H, W, ...] of normalised latents z [N, h, w, c]: a likelihood's parameters, or images."""
    _check_latents(spec, z)
    return _made(spec, state, z)


def tokenizer_decode(spec: Tokenizer, state: TokenizerState, z: jax.Array) -> jax.Array:
    """The image [N, H, W, C] of normalised latents z [N, h, w, c], such as `tokenizer_encode` gives."""
    return spec.mean(tokenizer_made(spec, state, z))


@functools.partial(jax.jit, static_argnums=0)
def _decode_codes(spec: Tokenizer, state: TokenizerState, codes: jax.Array) -> jax.Array:
    network = _trained(spec, state)
    variables = {"params": network.params["bottleneck"], **network.collections["bottleneck"]}
    latents = spec.bottleneck.apply(variables, codes, method="embed")
    return spec.mean(network.decode(latents)[0])


def tokenizer_decode_codes(spec: Tokenizer, state: TokenizerState, codes: jax.Array) -> jax.Array:
    """The image [N, H, W, C] of codes, int [N, h, w], such as `tokenizer_codes` gives."""
    _check_codes(spec)
    return _decode_codes(spec, state, codes)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _reconstruct(spec: Tokenizer, state: TokenizerState, batch: Batch, key: jax.Array, sampled: bool) -> jax.Array:
    network, (images, _) = _trained(spec, state), batches.read(batch)
    _check_images(images)
    drawing = network._replace(key=named_key(key, "tokenizer reconstruct")) if sampled else network
    return spec.mean(network.decode(drawing.encode(images, draw=sampled)[0].latents)[0])


def tokenizer_reconstruct(
    spec: Tokenizer, state: TokenizerState, batch: Batch, key: jax.Array | None = None, *, sampled: bool = False
) -> jax.Array:
    """Images [B, H, W, C] encoded and decoded; ``sampled``: of a KL bottleneck from a draw, which needs a key."""
    if sampled and key is None:
        raise ValueError("sampled reconstructions need a key: pass jax.random.key(seed)")
    return _reconstruct(spec, state, _read(batch), jax.random.key(0) if key is None else key, sampled)


class _OfASplit(NamedTuple):
    """What is summed up of a batch: over the places of latents, and of codes how often each occurs."""

    first: jax.Array
    second: jax.Array
    counts: jax.Array


@functools.partial(jax.jit, static_argnums=0)
def _sums(spec: Tokenizer, state: TokenizerState, batch: Batch) -> _OfASplit:
    latents, codes = _encode(spec, state, batch)
    rows = latents.reshape(-1, latents.shape[-1])
    counts = jnp.zeros((0,), jnp.int32) if codes is None else jnp.bincount(codes.ravel(), length=spec.bottleneck.num_codes)
    return _OfASplit(jnp.sum(rows, axis=0), jnp.sum(jnp.square(rows), axis=0), counts)


def _of_split(spec: Tokenizer, state: TokenizerState, split: Iterable[Batch]) -> tuple[Any, Any, Any, int]:
    """(mean [c], variance [c], counts of codes [K], places) of a split's latents, in double precision."""
    found, places = None, 0
    for batch in split:
        sums = [np.asarray(each, np.float64) for each in _sums(spec, state, _read(batch))]
        found = sums if found is None else [a + b for a, b in zip(found, sums, strict=True)]
        places += len(batch["image"]) * spec.latent_shape[0] * spec.latent_shape[1]
    if found is None:
        raise ValueError("a split must hold at least one batch of images, got none")
    mean = found[0] / places
    return mean, np.maximum(found[1] / places - mean**2, 0.0), found[2], places


def tokenizer_settle(spec: Tokenizer, state: TokenizerState, split: Iterable[Batch]) -> dict[str, jax.Array]:
    """Mean and standard deviation of each latent channel over a split's images, to be kept in ``state.hyperparams``.

    ``split`` are batches, each ``image`` [B, H, W, C]. A channel that does not vary keeps the deviation 1. Returned are
    ``latent_mean`` and ``latent_std``, float32 [c], by which `tokenizer_encode` normalises and `tokenizer_decode`
    undoes it.
    """
    mean, variance, _, _ = _of_split(spec, state, split)
    deviation = np.where(variance > LEAST_VARIANCE, np.sqrt(variance), 1.0)
    return {"latent_mean": jnp.asarray(mean, jnp.float32), "latent_std": jnp.asarray(deviation, jnp.float32)}


def tokenizer_watch(spec: Tokenizer, state: TokenizerState, split: Iterable[Batch]) -> dict[str, float]:
    """What only a whole split shows of latents: how many codes are used, or how many channels say something.

    ``codes_used``, the share of all codes that occur, and ``code_perplexity``, exp of the entropy of how often each
    does; of a bottleneck without codes ``active_channels``, whose means vary by more than 0.01. ``split`` are batches,
    each ``image`` [B, H, W, C].
    """
    _, variance, counts, _ = _of_split(spec, state, split)
    if spec.bottleneck.num_codes is None:
        return {"active_channels": float(np.sum(variance > ACTIVE))}
    used, perplexity = metrics.code_usage(jnp.asarray(counts, jnp.float32))
    return {"codes_used": float(used), "code_perplexity": float(perplexity)}


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(spec: Tokenizer, state: TokenizerState, batch: Batch) -> Metrics:
    network, (images, _) = _trained(spec, state), batches.read(batch)
    _check_images(images)
    bottled, _ = network.encode(images)
    made, _ = network.decode(bottled.latents)
    rebuilt = spec.mean(made)
    found = {
        "reconstruction": spec.distance(made, images),
        "squared_error": losses.squared_error(rebuilt, images),
        "absolute_error": losses.absolute_error(rebuilt, images),
        **bottled.numbers,
    }
    return as_float32(found)


def tokenizer_evaluate(spec: Tokenizer, state: TokenizerState, batch: Batch, key: jax.Array | None = None) -> Metrics:
    """What a tokenizer makes of images, float32 [B] each: nothing is drawn, and the key is not used.

    ``reconstruction``, the spec's distance; ``squared_error`` and ``absolute_error`` of the reconstructed images, means
    over their values; and the numbers of the bottleneck.
    """
    return _evaluate(spec, state, _read(batch))


def check_no_prior(spec: Tokenizer, what: str) -> None:
    """Raise ValueError, which names ``what`` needs a prior: a tokenizer has none."""
    raise ValueError(
        f"{what} needs latents with a prior, and a tokenizer has none: train a second stage on its latents"
    )
