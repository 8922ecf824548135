"""The generative adversarial network: spec, state, init, the generator's losses and updates, step and sampling.

Throughout, ``batch`` holds real images, ``image`` [B, ...] and, for conditional networks, ``label`` int [B]; ``key`` is
a typed key, []; ``axis_name`` names the mapped axis or axes over which the global batch is split, None when it is not.

The discriminator's half is in `jaxgen.adversary`. Goodfellow et al. 2014, "Generative Adversarial Nets".
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import jax.typing
import optax

from jaxgen import batches, losses, modules
from jaxgen.adversary import (
    Augmentation,
    Batch,
    Metrics,
    adapt_augmentation,
    adversary_hyperparams,
    as_float32,
    check_adversary,
    discriminator_init,
    discriminator_loss,
    discriminator_parts,
    discriminator_update,
    generator_loss,
)
from jaxgen.averaging import moved_on
from jaxgen.intervals import Count, Inside, NotNegative, Positive, Rate, RelativeLength, Share
from jaxgen.keys import AxisName, example_keys, named_key, step_key
from jaxgen.parallel import as_varying, average
from jaxgen.spec import (
    LATER,
    Schedule,
    check_latents,
    check_spec,
    check_state,
    initial_hyperparams,
    optimized,
    scheduled_hyperparams,
)


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
      penalties: penalties of the discriminator's gradient, such as ``(losses.R1(), losses.R2())``.
      penalty_weight: weight of their sum, at least 0, or a schedule (``state.hyperparams["penalty_weight"]``).
      penalty_every: take the penalties at every so many steps only, times that number ("lazily").
      weight_clipping: bound c > 0 of every discriminator parameter after its update, or a schedule
        (``state.hyperparams["weight_clipping"]``); None for none.
      discriminator_steps: discriminator updates a step, n, each on its own real and generated images.
      average_lengths: relative lengths of further averages of the generator, kept in ``state.averages`` so that one of
        any length can be made after training, such as ``(0.05, 0.1)``; see `jaxgen.averaging`.
      packing: number of images that the discriminator judges together, m, joined along their last axis.
      augmentation: (images [B, H, W, C], keys [B], probability []) -> images, applied to all that the
        discriminator sees, such as `jaxgen.augmentation.DiffAugment`; None for none.
      augmentation_probability: with which each transformation is applied, in [0, 1], or a schedule
        (``state.hyperparams["augmentation_probability"]``).
      augmentation_target: share of overfitting E[sign D(x)] that the probability is adapted to keep, in (0, 1),
        starting from ``augmentation_probability``; None to leave the probability alone.

    A batch holds n m b images, taken as [n, m, b] over the global batch: update i sees the images [i].

    References:
      Arjovsky et al. 2017, "Wasserstein GAN", algorithm 1 (clipping, n). Karras et al. 2020, "Analyzing and improving
      the image quality of StyleGAN", section 3.1 (lazy penalties). Karras et al. 2020, "Training generative adversarial
      networks with limited data", section 3 (adapted augmentation). Lin et al. 2018, "PacGAN", section 3 (packing).
    """

    generator: Any
    discriminator: Any
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    latent_dim: Count
    loss: losses.AdversarialLoss = losses.non_saturating
    ema_decay: Rate | Schedule | None = None
    penalties: tuple[losses.Penalty, ...] = ()
    penalty_weight: NotNegative | Schedule = 1.0
    penalty_every: Count = 1
    weight_clipping: Positive | Schedule | None = None
    discriminator_steps: Count = 1
    packing: Count = 1
    augmentation: Augmentation | None = None
    augmentation_probability: Share | Schedule = 1.0
    augmentation_target: Inside | None = None
    average_lengths: tuple[RelativeLength, ...] = dataclasses.field(default=(), metadata=LATER)

    of_latents: ClassVar[bool] = False  # whether its images are latents, see `jaxgen.LatentGAN`

    def __post_init__(self) -> None:
        check_spec(self)
        check_adversary(self)
        judged = {} if self.packing > 1 else {"discriminator": (self.discriminator,)}  # a pack has no label
        modules.check_conditional("GAN", {"generator": (self.generator,), **judged})

    @property
    def hyperparams(self) -> dict[str, float | Schedule | None]:
        """The spec's values of what ``state.hyperparams`` holds, numbers or schedules; None for what it does not."""
        return {"ema_decay": self.ema_decay, **adversary_hyperparams(self)}


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
      hyperparams: float32: ``latent_mask`` [D] and, where the spec has them, ``ema_decay``, ``penalty_weight``,
        ``weight_clipping`` and ``augmentation_probability``, each [].
      averages: of the generator like ``ema``, one for each of ``gan.average_lengths``.
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
    averages: tuple[Any, ...] = ()


@functools.partial(jax.jit, static_argnums=0)
def _init(gan: GAN, key: jax.Array, batch: Batch) -> GANState:
    images, label = batches.read(batch)
    num = -(-images.shape[0] // gan.packing) * gan.packing  # whole packs
    label = None if label is None else jnp.zeros((num,), label.dtype)
    batch = batches.select({"image": jnp.zeros((num, *images.shape[1:])), "label": label})
    z = jnp.zeros((num, gan.latent_dim))
    generator_params, generator_collections = modules.initialize(
        gan.generator, named_key(key, "gan generator"), z, label=label
    )
    discriminator_params, discriminator_collections = discriminator_init(gan, key, batch["image"], label)
    first = as_float32({"params": generator_params, "collections": generator_collections})
    state = GANState(
        step=jnp.zeros((), jnp.int32),
        generator_params=generator_params,
        discriminator_params=discriminator_params,
        generator_collections=generator_collections,
        discriminator_collections=discriminator_collections,
        generator_optimizer_state=gan.generator_optimizer.init(generator_params),
        discriminator_optimizer_state=gan.discriminator_optimizer.init(discriminator_params),
        ema=None if gan.ema_decay is None else first,
        hyperparams=initial_hyperparams(gan.latent_dim, **gan.hyperparams),
        averages=(first,) * len(gan.average_lengths),
    )
    # Traced for its checks of every shape; its result is not used and costs nothing.
    fakes, _ = gan_fakes(gan, generator_params, state, batch, key)
    discriminator_loss(gan, discriminator_params, state, batch, fakes, key)
    return state


def gan_init(gan: GAN, key: jax.Array, batch: Batch) -> GANState:
    """The state at step 0, from the shapes and types of an example batch, ``image`` [B, H, W, C] or [B, D]."""
    batch = batches.select(batch)
    batches.check_concrete(batch, gan.of_latents)
    return _init(gan, key, batch)


def _normal_latents(gan: GAN, key: jax.Array, num: int, axis_name: AxisName = None) -> jax.Array:
    keys = example_keys(key, num, axis_name)
    return jax.vmap(lambda k: jax.random.normal(k, (gan.latent_dim,)))(keys)


def gan_fakes(
    gan: GAN, params: Any, state: GANState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[jax.Array, modules.Collections]:
    """This step's generated images [B, ...] as a pure function of the generator's parameters.

    x = G(z),  z_i ~ N(0, I) drawn from (key, step, i), i the example's global index

    The same key and step give the same latents, so that both players of a step see the same fakes. They are as many as
    the batch's images and have its labels. ``params`` take the place of the state's own. Returned with them are the
    generator's mutable collections after the pass.
    """
    images, label = batches.read(batch)
    key = step_key(key, "gan generator step", state.step)
    z = _normal_latents(gan, named_key(key, "latents"), images.shape[0], axis_name)
    z = z * state.hyperparams["latent_mask"][None]
    generator = modules.bind_axis(gan.generator, state.generator_collections, axis_name)
    fakes, collections = modules.apply(
        generator, params, state.generator_collections, z, label=label, train=True, key=named_key(key, "dropout")
    )
    if fakes.shape != images.shape:
        raise ValueError(
            f"the generator makes images of shape {list(fakes.shape[1:])}, the batch holds {list(images.shape[1:])}: "
            "give the generator the shape of the data"
        )
    return fakes, collections


class Generated(NamedTuple):
    """A step's fakes with the way back from them, so that both players of a step share one pass of the generator.

    Args:
      images: the fakes, [B, ...].
      collections: the generator's mutable collections after the pass.
      pull_back: gradient with respect to the images [B, ...] -> (gradient like the generator's parameters,), of this
        device.
    """

    images: jax.Array
    collections: modules.Collections
    pull_back: Callable[[jax.Array], tuple[Any]]


def gan_generated(gan: GAN, state: GANState, batch: Batch, key: jax.Array, axis_name: AxisName = None) -> Generated:
    """This step's fakes [B, ...] as `gan_fakes` makes them of the state's generator, and the way to its parameters.

    For `discriminator_update` and `generator_update`, which then share one pass of the generator.
    """
    images, pull_back, collections = jax.vjp(
        lambda params: gan_fakes(gan, params, state, batch, key, axis_name),
        as_varying(state.generator_params, axis_name),
        has_aux=True,
    )
    return Generated(images, collections, pull_back)


def generator_update(
    gan: GAN,
    state: GANState,
    batch: Batch,
    key: jax.Array,
    axis_name: AxisName = None,
    generated: Generated | None = None,
) -> tuple[GANState, Metrics]:
    """Update the generator once: gradient, average over the axis, optimizer, moving average.

    The opponent is the state's discriminator. ``generated`` are the step's fakes [B, ...], where the discriminator has
    already seen them; made here when None. Returned are the new state, and metrics as of `generator_loss` averaged over
    the axis.
    """
    if generated is None:
        generated = gan_generated(gan, state, batch, key, axis_name)
    fakes, collections, pull_back = generated
    gradient, metrics = jax.grad(
        lambda images: generator_loss(gan, images, state, batch, key, axis_name), has_aux=True
    )(fakes)
    gradient = average(pull_back(gradient)[0], axis_name)
    metrics = average(metrics, axis_name)
    updates, optimizer_state = optimized(
        gan.generator_optimizer,
        gradient,
        state.generator_optimizer_state,
        state.generator_params,
        metrics["generator_loss"],
    )
    params = optax.apply_updates(state.generator_params, updates)
    ema, latest = state.ema, as_float32({"params": params, "collections": collections})
    if ema is not None:
        ema = optax.incremental_update(latest, ema, 1.0 - state.hyperparams["ema_decay"])
    state = state._replace(
        generator_params=params,
        generator_collections=collections,
        generator_optimizer_state=optimizer_state,
        ema=ema,
        averages=moved_on(state.averages, gan.average_lengths, latest, state.step),
    )
    return state, metrics


@functools.partial(jax.jit, static_argnums=0, static_argnames="axis_name")
def _step(gan: GAN, state: GANState, batch: Batch, key: jax.Array, axis_name: AxisName) -> tuple[GANState, Metrics]:
    hyperparams = scheduled_hyperparams(state.hyperparams, state.step, **gan.hyperparams)
    state = state._replace(hyperparams=hyperparams)
    metrics: Metrics = {}
    for part, update_key in discriminator_parts(gan, batch, key, axis_name):
        generated = gan_generated(gan, state, part, update_key, axis_name)
        state, latest = discriminator_update(gan, state, part, generated.images, update_key, axis_name)
        metrics = metrics or latest
    state, _ = generator_update(gan, state, part, update_key, axis_name, generated)
    state, metrics = adapt_augmentation(gan, state, metrics, batch["image"].shape[0], axis_name)
    return state._replace(step=state.step + 1), metrics


def gan_step(
    gan: GAN, state: GANState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[GANState, Metrics]:
    """One training step of a GAN, compiled: the discriminator, then the generator against the new discriminator.

    Several discriminator updates take their parts of the batch one after the other; the generator then meets the last
    one's images and fakes.

    Args:
      gan: the spec (static).
      state: the state.
      batch: real images, ``image`` [B, H, W, C] or [B, D] (uint8, bool or float), optionally ``label`` int [B]; the
        rest is ignored. On each device B is a multiple of discriminator_steps * packing.
      key: the run's typed key, []; the same at every step or a fresh one.
      axis_name: mapped axis or axes over which the global batch is split (pmap, shard_map, vmap).

    Returns:
      (new state, metrics: float32 [] averaged over the axis, of the parameters given: ``generator_loss``,
      ``discriminator_loss``, ``real_logit``, ``fake_logit`` and what `discriminator_loss` adds).

    References:
      Goodfellow et al. 2014, algorithm 1, with k = ``discriminator_steps``.
    """
    check_state(state, GANState)
    batch = batches.select(batch)
    batches.check_concrete(batch, gan.of_latents)
    modules.check_label_range(batch.get("label"), gan.generator, gan.discriminator)
    return _step(gan, state, batch, key, axis_name=axis_name)


@functools.partial(jax.jit, static_argnums=0)
def _generate_images(gan: GAN, state: GANState, z: jax.Array, label: jax.Array | None) -> jax.Array:
    params, collections = state.generator_params, state.generator_collections
    if state.ema is not None:
        params, collections = state.ema["params"], state.ema["collections"]
    z = z * state.hyperparams["latent_mask"][None]
    # Evaluation mode has no dropout: the network's key is a formality here.
    key = jax.random.key(0)
    return modules.apply(gan.generator, params, collections, z, label=label, train=False, key=key)[0]


def gan_generate(gan: GAN, state: GANState, z: jax.Array, label: jax.typing.ArrayLike | None = None) -> jax.Array:
    """The image [N, H, W, C] of each latent z [N, D], by the generator's moving average where there is one.

    In [0, 1] for image generators; a conditional model needs the label, int [N]. For the raw generator:
    ``gan_generate(gan, state._replace(ema=None), z)``.
    """
    check_latents(z, gan.latent_dim)
    modules.check_label_range(label, gan.generator)
    return _generate_images(gan, state, z, batches.read_label(label, z.shape[0]))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _sample_latents(gan: GAN, key: jax.Array, num_samples: int) -> jax.Array:
    return _normal_latents(gan, named_key(key, "gan sample"), num_samples)


def gan_sample(
    gan: GAN, state: GANState, key: jax.Array, num_samples: int, label: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """Images [N, H, W, C] of latents drawn from the prior, by the generator's moving average where there is one.

    z ~ N(0, I), image = G(z),  N = num_samples

    Image i depends on the key and on i alone; a conditional model needs the label, int [N].
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    return gan_generate(gan, state, _sample_latents(gan, key, num_samples), label)


def gan_kept(state: GANState) -> dict[str, Any]:
    generator = {"params": state.generator_params, "collections": state.generator_collections}
    if state.ema is not None:  # the one that samples; in the types of the network itself
        generator = jax.tree.map(lambda average, leaf: jnp.asarray(average, leaf.dtype), state.ema, generator)
    return {
        "generator": generator["params"],
        "generator_collections": generator["collections"],
        "discriminator": state.discriminator_params,
        "discriminator_collections": state.discriminator_collections,
        "hyperparams": state.hyperparams,
        "step": state.step,
    }


def gan_restored(gan: GAN, kept: dict[str, Any]) -> GANState:
    """A moving average starts from the stored generator."""
    generator = {"params": kept["generator"], "collections": kept["generator_collections"]}
    average = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), generator)
    return GANState(
        step=kept["step"],
        generator_params=generator["params"],
        discriminator_params=kept["discriminator"],
        generator_collections=generator["collections"],
        discriminator_collections=kept["discriminator_collections"],
        generator_optimizer_state=gan.generator_optimizer.init(generator["params"]),
        discriminator_optimizer_state=gan.discriminator_optimizer.init(kept["discriminator"]),
        ema=None if gan.ema_decay is None else average,
        hyperparams=kept["hyperparams"],
        averages=(average,) * len(gan.average_lengths),
    )


def gan_to_decode(gan: GAN, state: GANState) -> GANState:
    unused = ["discriminator_params", "discriminator_collections", "discriminator_optimizer_state"]
    if state.ema is not None:
        unused += ["generator_params", "generator_collections"]
    nothing: dict[str, Any] = dict.fromkeys([*unused, "generator_optimizer_state"])
    return state._replace(averages=(), **nothing)
