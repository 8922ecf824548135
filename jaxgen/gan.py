"""The generative adversarial network: spec, state, init, losses, updates, step and sampling.

Goodfellow et al. 2014, "Generative Adversarial Nets".
"""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
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
class GAN:
    """What a GAN is: everything static about it. Build it once: a rebuilt spec is compiled again.

    Args:
      generator: network (z [B, D], label=None, *, train) -> images [B, ...].
      discriminator: network (x [B, ...], label=None, *, train) -> logits [B].
      generator_optimizer: optax transformation of the generator's parameters.
      discriminator_optimizer: optax transformation of the discriminator's parameters.
      latent_dim: number of latent dimensions D; the prior is N(0, I).
      loss: pair of adversarial losses.
      ema_decay: decay per step of the exponential moving average of the generator, a number in [0, 1) or a
        schedule of the step (``state.hyperparams["ema_decay"]``); None for no average.

    Raises:
      TypeError: a field cannot be hashed or is not what its name says.
      ValueError: latent_dim is below 1 or ema_decay is outside [0, 1).
    """

    generator: Any
    discriminator: Any
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    latent_dim: int
    loss: losses.AdversarialLoss = losses.non_saturating
    ema_decay: float | Schedule | None = None

    def __post_init__(self) -> None:
        check_spec(self)
        if self.ema_decay is not None and not callable(self.ema_decay) and not 0 <= self.ema_decay < 1:
            raise ValueError(f"GAN.ema_decay must be in [0, 1), got {self.ema_decay}")


class GANState(NamedTuple):
    """Everything that training changes, arrays only.

    Args:
      step: number of steps done, int32 [].
      generator_params: the generator's parameters.
      discriminator_params: the discriminator's parameters.
      generator_collections: the generator's mutable collections (BatchNorm's ``batch_stats``).
      discriminator_collections: the discriminator's.
      generator_optimizer_state: of ``gan.generator_optimizer``.
      discriminator_optimizer_state: of ``gan.discriminator_optimizer``.
      ema: float32 averages of the generator, ``{"params": ..., "collections": ...}``, or None.
      hyperparams: ``latent_mask`` [D] and, where there is an average, ``ema_decay`` [], float32.
    """

    step: jax.Array
    generator_params: Any
    discriminator_params: Any
    generator_collections: modules.Collections
    discriminator_collections: modules.Collections
    generator_optimizer_state: Any
    discriminator_optimizer_state: Any
    ema: Any
    hyperparams: dict[str, jax.Array]


def _as_float32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


@functools.partial(jax.jit, static_argnums=0)
def _init(gan: GAN, key: jax.Array, batch: Batch) -> GANState:
    images, label = batches.read(batch)
    z = jnp.zeros((images.shape[0], gan.latent_dim))
    generator_params, generator_collections = modules.initialize(
        gan.generator, named_key(key, "gan generator"), z, label=label
    )
    discriminator_params, discriminator_collections = modules.initialize(
        gan.discriminator, named_key(key, "gan discriminator"), images, label=label
    )
    ema = None
    if gan.ema_decay is not None:
        ema = _as_float32({"params": generator_params, "collections": generator_collections})
    state = GANState(
        step=jnp.zeros((), jnp.int32),
        generator_params=generator_params,
        discriminator_params=discriminator_params,
        generator_collections=generator_collections,
        discriminator_collections=discriminator_collections,
        generator_optimizer_state=gan.generator_optimizer.init(generator_params),
        discriminator_optimizer_state=gan.discriminator_optimizer.init(discriminator_params),
        ema=ema,
        hyperparams=initial_hyperparams(gan.latent_dim, ema_decay=gan.ema_decay),
    )
    # Traced for its checks of every shape; its result is not used and costs nothing.
    fakes, _ = gan_fakes(gan, generator_params, state, batch, key)
    discriminator_loss(gan, discriminator_params, state, batch, fakes, key)
    return state


def gan_init(gan: GAN, key: jax.Array, batch: Batch) -> GANState:
    """Initialise the state of a GAN.

    Args:
      gan: the spec.
      key: typed key, [].
      batch: an example batch, ``image`` [B, H, W, C] or [B, D]; its shapes and types are used, not its values.

    Returns:
      The state at step 0.

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: the networks' shapes do not fit the images.
    """
    return _init(gan, key, batches.select(batch))


def _generate(
    gan: GAN,
    params: Any,
    collections: modules.Collections,
    mask: jax.Array,
    z: jax.Array,
    label: Any,
    *,
    train: bool,
    key: jax.Array,
    axis_name: AxisName,
) -> tuple[jax.Array, modules.Collections]:
    generator = modules.bind_axis(gan.generator, collections, axis_name)
    return modules.apply(generator, params, collections, z * mask[None], label=label, train=train, key=key)


def _normal_latents(gan: GAN, key: jax.Array, num: int, axis_name: AxisName = None) -> jax.Array:
    keys = example_keys(key, num, axis_name)
    return jax.vmap(lambda k: jax.random.normal(k, (gan.latent_dim,)))(keys)


def _discriminate(
    gan: GAN,
    params: Any,
    collections: modules.Collections,
    images: jax.Array,
    label: Any,
    key: jax.Array,
    axis_name: AxisName,
) -> tuple[jax.Array, modules.Collections]:
    discriminator = modules.bind_axis(gan.discriminator, collections, axis_name)
    logits, collections = modules.apply(discriminator, params, collections, images, label=label, train=True, key=key)
    if logits.shape != images.shape[:1]:
        raise ValueError(
            f"the discriminator must return one logit per image, [{images.shape[0]}], got shape {list(logits.shape)}"
        )
    return logits, collections


def _pair_loss(loss: losses.PairLoss, real_logits: jax.Array, fake_logits: jax.Array, axis_name: AxisName) -> jax.Array:
    """A loss per example; one that needs a mean over the global batch is told the axis."""
    if "axis_name" in inspect.signature(loss).parameters:
        return loss(real_logits, fake_logits, axis_name=axis_name)
    return loss(real_logits, fake_logits)


def gan_fakes(
    gan: GAN, params: Any, state: GANState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[jax.Array, modules.Collections]:
    """This step's generated images as a pure function of the generator's parameters.

    x = G(z),  z_i ~ N(0, I) drawn from (key, step, i), i the example's global index

    The same key and step give the same latents, so that both players of a step see the same fakes.

    Args:
      gan: the spec.
      params: the generator's parameters; the state's own are not used.
      state: gives the step, the generator's mutable collections and the hyper-parameters.
      batch: its number of images is the number of fakes; its labels are the fakes' labels.
      key: the run's typed key, []; the step's number is folded in here.
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      (images [B, ...], the generator's mutable collections after the pass).

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: the generator's images have another shape than the batch's.
    """
    images, label = batches.read(batch)
    key = step_key(key, "gan generator step", state.step)
    z = _normal_latents(gan, named_key(key, "latents"), images.shape[0], axis_name)
    fakes, collections = _generate(
        gan,
        params,
        state.generator_collections,
        state.hyperparams["latent_mask"],
        z,
        label,
        train=True,
        key=named_key(key, "dropout"),
        axis_name=axis_name,
    )
    if fakes.shape != images.shape:
        raise ValueError(
            f"the generator makes images of shape {list(fakes.shape[1:])}, the batch holds {list(images.shape[1:])}: "
            "give the generator the shape of the data"
        )
    return fakes, collections


def discriminator_loss(
    gan: GAN,
    params: Any,
    state: GANState,
    batch: Batch,
    fakes: jax.Array,
    key: jax.Array,
    axis_name: AxisName = None,
) -> tuple[jax.Array, tuple[Metrics, modules.Collections]]:
    """The discriminator's loss as a pure function of its parameters and of anybody's fakes.

    loss = (1/B) sum_b loss.discriminator(D(x_b), D(fake_b))

    Real and generated images are normalised as separate batches. Nothing is averaged over devices here.

    Args:
      gan: the spec.
      params: the discriminator's parameters; the state's own are not used.
      state: gives the step and the discriminator's mutable collections.
      batch: real images, ``image`` [B, ...], optionally ``label`` [B].
      fakes: generated images from any generator, [B, ...].
      key: the run's typed key, []; the step's number is folded in here.
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      (loss [], (metrics, the discriminator's mutable collections after both passes)). The metrics are float32
      []: ``discriminator_loss``, ``generator_loss``, ``real_logit`` and ``fake_logit``.

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit, or the discriminator does not return one logit an image.

    References:
      Goodfellow et al. 2014, equation 1 and algorithm 1.
    """
    images, label = batches.read(batch)
    key = step_key(key, "gan discriminator step", state.step)
    collections = state.discriminator_collections
    real_logits, collections = _discriminate(
        gan, params, collections, images, label, named_key(key, "real dropout"), axis_name
    )
    fake_logits, collections = _discriminate(
        gan, params, collections, fakes, label, named_key(key, "fake dropout"), axis_name
    )
    loss = jnp.mean(_pair_loss(gan.loss.discriminator, real_logits, fake_logits, axis_name))
    metrics = {
        "discriminator_loss": loss,
        "generator_loss": jnp.mean(_pair_loss(gan.loss.generator, real_logits, fake_logits, axis_name)),
        "real_logit": jnp.mean(real_logits),
        "fake_logit": jnp.mean(fake_logits),
    }
    return loss, (_as_float32(metrics), collections)


def generator_loss(
    gan: GAN, fakes: jax.Array, state: GANState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[jax.Array, Metrics]:
    """The generator's loss as a pure function of its images, against the state's discriminator.

    loss = (1/B) sum_b loss.generator(D(x_b), D(fake_b))

    A function of the images, so that they may come from any generator (a VAE's decoder, a distilled model):
    compose it with `gan_fakes` for the GAN's own. The discriminator's statistics do not change here.

    Args:
      gan: the spec.
      fakes: generated images, [B, ...].
      state: gives the step, the discriminator's parameters and mutable collections.
      batch: real images, ``image`` [B, ...], optionally ``label`` [B].
      key: the run's typed key, []; the step's number is folded in here.
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      (loss [], metrics: ``generator_loss`` float32 []).

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit, or the discriminator does not return one logit an image.

    References:
      Goodfellow et al. 2014, algorithm 1 and section 3.
    """
    images, label = batches.read(batch)
    key = step_key(key, "gan generator loss", state.step)
    params, collections = state.discriminator_params, state.discriminator_collections
    real_logits, collections = _discriminate(
        gan, params, collections, images, label, named_key(key, "real dropout"), axis_name
    )
    fake_logits, _ = _discriminate(gan, params, collections, fakes, label, named_key(key, "fake dropout"), axis_name)
    loss = jnp.mean(_pair_loss(gan.loss.generator, real_logits, fake_logits, axis_name))
    return loss, _as_float32({"generator_loss": loss})


def discriminator_update(
    gan: GAN, state: GANState, batch: Batch, fakes: jax.Array, key: jax.Array, axis_name: AxisName = None
) -> tuple[GANState, Metrics]:
    """Update the discriminator once: gradient, average over the axis, optimizer.

    Args:
      gan: the spec.
      state: the state.
      batch: real images, ``image`` [B, ...], optionally ``label`` [B].
      fakes: generated images from any generator, [B, ...].
      key: the run's typed key, [].
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      (state with another discriminator, metrics as of `discriminator_loss` averaged over the axis).

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit.
    """
    (_, (metrics, collections)), gradient = value_and_averaged_gradient(
        lambda params: discriminator_loss(gan, params, state, batch, fakes, key, axis_name),
        state.discriminator_params,
        axis_name,
    )
    updates, optimizer_state = gan.discriminator_optimizer.update(
        gradient, state.discriminator_optimizer_state, state.discriminator_params
    )
    state = state._replace(
        discriminator_params=optax.apply_updates(state.discriminator_params, updates),
        discriminator_collections=collections,
        discriminator_optimizer_state=optimizer_state,
    )
    return state, average(metrics, axis_name)


def generator_update(
    gan: GAN, state: GANState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[GANState, Metrics]:
    """Update the generator once: gradient, average over the axis, optimizer, moving average.

    Args:
      gan: the spec.
      state: the state; its discriminator is the opponent.
      batch: real images, ``image`` [B, ...], optionally ``label`` [B].
      key: the run's typed key, [].
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      (state with another generator, metrics as of `generator_loss` averaged over the axis).

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit.
    """

    def loss(params: Any) -> tuple[jax.Array, tuple[Metrics, modules.Collections]]:
        fakes, collections = gan_fakes(gan, params, state, batch, key, axis_name)
        value, metrics = generator_loss(gan, fakes, state, batch, key, axis_name)
        return value, (metrics, collections)

    (_, (metrics, collections)), gradient = value_and_averaged_gradient(loss, state.generator_params, axis_name)
    updates, optimizer_state = gan.generator_optimizer.update(
        gradient, state.generator_optimizer_state, state.generator_params
    )
    params = optax.apply_updates(state.generator_params, updates)
    ema = state.ema
    if ema is not None:
        latest = _as_float32({"params": params, "collections": collections})
        ema = optax.incremental_update(latest, ema, 1.0 - state.hyperparams["ema_decay"])
    state = state._replace(
        generator_params=params,
        generator_collections=collections,
        generator_optimizer_state=optimizer_state,
        ema=ema,
    )
    return state, average(metrics, axis_name)


@functools.partial(jax.jit, static_argnums=0, static_argnames="axis_name")
def _step(gan: GAN, state: GANState, batch: Batch, key: jax.Array, axis_name: AxisName) -> tuple[GANState, Metrics]:
    hyperparams = scheduled_hyperparams(state.hyperparams, state.step, ema_decay=gan.ema_decay)
    state = state._replace(hyperparams=hyperparams)
    fakes, _ = gan_fakes(gan, state.generator_params, state, batch, key, axis_name)
    state, metrics = discriminator_update(gan, state, batch, fakes, key, axis_name)
    state, _ = generator_update(gan, state, batch, key, axis_name)
    return state._replace(step=state.step + 1), metrics


def gan_step(
    gan: GAN, state: GANState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[GANState, Metrics]:
    """One training step of a GAN, compiled: the discriminator, then the generator against the new discriminator.

    Args:
      gan: the spec (static).
      state: the state.
      batch: real images, ``image`` [B, H, W, C] or [B, D] (uint8, bool or float), optionally ``label`` int [B]; the
        rest is ignored.
      key: the run's typed key, []; the same at every step or a fresh one.
      axis_name: mapped axis or axes over which the global batch is split (pmap, shard_map, vmap).

    Returns:
      (new state, metrics: float32 [] averaged over the axis, of the parameters given: ``generator_loss``,
      ``discriminator_loss``, ``real_logit``, ``fake_logit``).

    Raises:
      TypeError: state, key or batch are of the wrong type.
      ValueError: shapes do not fit, or the axis is not mapped here.

    References:
      Goodfellow et al. 2014, algorithm 1, with one discriminator update a step.
    """
    check_state(state, GANState)
    return _step(gan, state, batches.select(batch), key, axis_name=axis_name)


@functools.partial(jax.jit, static_argnums=0)
def gan_generate(gan: GAN, state: GANState, z: jax.Array, label: jax.Array | None = None) -> jax.Array:
    """The image of each latent, by the generator's moving average where there is one.

    For the raw generator: ``gan_generate(gan, state._replace(ema=None), z)``.

    Args:
      gan: the spec.
      state: the state.
      z: latents, [N, D].
      label: labels for a conditional model, int [N].

    Returns:
      Images, [N, H, W, C], in [0, 1] for image generators.

    Raises:
      ValueError: z is not [N, D].
    """
    check_latents(z, gan.latent_dim)
    params, collections = state.generator_params, state.generator_collections
    if state.ema is not None:
        params, collections = state.ema["params"], state.ema["collections"]
    mask = state.hyperparams["latent_mask"]
    # Evaluation mode has no dropout: the network's key is a formality here.
    key = jax.random.key(0)
    return _generate(gan, params, collections, mask, z, label, train=False, key=key, axis_name=None)[0]


@functools.partial(jax.jit, static_argnums=(0, 3))
def gan_sample(
    gan: GAN, state: GANState, key: jax.Array, num_samples: int, label: jax.Array | None = None
) -> jax.Array:
    """Images of latents drawn from the prior, by the generator's moving average where there is one.

    z ~ N(0, I), image = G(z)

    Args:
      gan: the spec.
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
    return gan_generate(gan, state, _normal_latents(gan, named_key(key, "gan sample"), num_samples), label)
