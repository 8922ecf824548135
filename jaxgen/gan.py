"""The generative adversarial network: spec, state, init, losses, updates, step and sampling.

Goodfellow et al. 2014, "Generative Adversarial Nets".
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.typing
import optax

from jaxgen import batches, losses, modules
from jaxgen.augmentation import adapt_probability
from jaxgen.keys import AxisName, axis_size, example_keys, named_key, step_key
from jaxgen.parallel import as_varying, average, split_updates, value_and_averaged_gradient
from jaxgen.spec import (
    Schedule,
    check_latents,
    check_number,
    check_spec,
    check_state,
    initial_hyperparams,
    scheduled_hyperparams,
)

Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]
Augmentation = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


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
      packing: number of images that the discriminator judges together, m, joined along their last axis.
      augmentation: (images [B, H, W, C], keys [B], probability []) -> images, applied to all that the
        discriminator sees, such as `jaxgen.augmentation.DiffAugment`; None for none.
      augmentation_probability: with which each transformation is applied, in [0, 1], or a schedule
        (``state.hyperparams["augmentation_probability"]``).
      augmentation_target: share of overfitting E[sign D(x)] that the probability is adapted to keep, in (0, 1),
        starting from ``augmentation_probability``; None to leave the probability alone.

    A batch holds n m b images, taken as [n, m, b] over the global batch: update i sees the images [i].

    Raises:
      TypeError: a field cannot be hashed or is not what its name says.
      ValueError: a size is below 1, a weight is negative or a share is outside its interval.

    References:
      Arjovsky et al. 2017, "Wasserstein GAN", algorithm 1 (clipping, n). Karras et al. 2020, "Analyzing and improving
      the image quality of StyleGAN", section 3.1 (lazy penalties). Karras et al. 2020, "Training generative adversarial
      networks with limited data", section 3 (adapted augmentation). Lin et al. 2018, "PacGAN", section 3 (packing).
    """

    generator: Any
    discriminator: Any
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    latent_dim: int
    loss: losses.AdversarialLoss = losses.non_saturating
    ema_decay: float | Schedule | None = None
    penalties: tuple[losses.Penalty, ...] = ()
    penalty_weight: float | Schedule = 1.0
    penalty_every: int = 1
    weight_clipping: float | Schedule | None = None
    discriminator_steps: int = 1
    packing: int = 1
    augmentation: Augmentation | None = None
    augmentation_probability: float | Schedule = 1.0
    augmentation_target: float | None = None

    def __post_init__(self) -> None:
        check_spec(self)
        check_number(self, "ema_decay", "in [0, 1)", lambda value: 0 <= value < 1)
        check_number(self, "penalty_weight", "at least 0", lambda value: value >= 0)
        check_number(self, "weight_clipping", "above 0", lambda value: value > 0)
        check_number(self, "augmentation_probability", "in [0, 1]", lambda value: 0 <= value <= 1)
        check_number(self, "augmentation_target", "in (0, 1)", lambda value: 0 < value < 1)
        if not isinstance(self.penalties, tuple):
            raise TypeError(f"GAN.penalties must be a tuple, got {self.penalties!r}: e.g. (jaxgen.losses.R1(),)")
        if self.augmentation_target is not None and (
            self.augmentation is None or callable(self.augmentation_probability)
        ):
            raise ValueError(
                "GAN.augmentation_target adapts the probability of an augmentation: give an augmentation, and a number "
                "to start from, not a schedule"
            )

    @property
    def hyperparams(self) -> dict[str, float | Schedule | None]:
        """The spec's values of what ``state.hyperparams`` holds, numbers or schedules; None for what it does not."""
        return {
            "ema_decay": self.ema_decay,
            "penalty_weight": self.penalty_weight if self.penalties else None,
            "weight_clipping": self.weight_clipping,
            "augmentation_probability": self.augmentation_probability if self.augmentation else None,
        }


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
    num = -(-images.shape[0] // gan.packing) * gan.packing  # whole packs
    batch = {"image": jnp.zeros((num, *images.shape[1:]))}
    if label is not None:
        batch["label"] = jnp.zeros((num,), label.dtype)
    z = jnp.zeros((num, gan.latent_dim))
    generator_params, generator_collections = modules.initialize(
        gan.generator, named_key(key, "gan generator"), z, label=batch.get("label")
    )
    discriminator_params, discriminator_collections = modules.initialize(
        gan.discriminator,
        named_key(key, "gan discriminator"),
        _pack(gan, batch["image"]),
        label=_pack_label(gan, batch.get("label")),
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
        hyperparams=initial_hyperparams(gan.latent_dim, **gan.hyperparams),
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
      ValueError: the networks' shapes do not fit the images, or a conditional network finds no label.
    """
    return _init(gan, key, batches.select(batch))


def _pack(gan: GAN, images: jax.Array) -> jax.Array:
    """Join each m successive images along their last axis: [b m, ..., C] -> [b, ..., m C]."""
    if gan.packing == 1:
        return images
    packs = jnp.moveaxis(images.reshape(-1, gan.packing, *images.shape[1:]), 1, -2)
    return packs.reshape(*packs.shape[:-2], -1)


def _unpack(gan: GAN, packs: jax.Array) -> jax.Array:
    """The images of each pack, `_pack` undone: [b, ..., m C] -> [b m, ..., C]."""
    if gan.packing == 1:
        return packs
    images = jnp.moveaxis(packs.reshape(*packs.shape[:-1], gan.packing, -1), -2, 1)
    return images.reshape(-1, *images.shape[2:])


def _pack_label(gan: GAN, label: jax.Array | None) -> jax.Array | None:
    """A pack has no label: its images are of several classes."""
    return label if gan.packing == 1 else None


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
    packs: jax.Array,
    label: Any,
    state: GANState,
    key: jax.Array,
    axis_name: AxisName,
) -> tuple[jax.Array, modules.Collections]:
    """Augment and judge packs of images: [b, ..., m C] -> logits [b]."""
    if gan.augmentation is not None:
        images = _unpack(gan, packs)
        keys = example_keys(named_key(key, "augmentation"), images.shape[0], axis_name)
        packs = _pack(gan, gan.augmentation(images, keys, state.hyperparams["augmentation_probability"]))
    discriminator = modules.bind_axis(gan.discriminator, collections, axis_name)
    logits, collections = modules.apply(
        discriminator, params, collections, packs, label=_pack_label(gan, label), train=True, key=key
    )
    if logits.shape != packs.shape[:1]:
        raise ValueError(
            f"the discriminator must return one logit per image, [{packs.shape[0]}], got shape {list(logits.shape)}"
        )
    return logits, collections


def _pair_loss(loss: losses.PairLoss, real_logits: jax.Array, fake_logits: jax.Array, axis_name: AxisName) -> jax.Array:
    """A loss per example; one that needs a mean over the global batch is told the axis."""
    if "axis_name" in inspect.signature(loss).parameters:
        return loss(real_logits, fake_logits, axis_name=axis_name)
    return loss(real_logits, fake_logits)


def _penalty(
    gan: GAN,
    critic: Callable[[jax.Array], jax.Array],
    state: GANState,
    real: jax.Array,
    fake: jax.Array,
    key: jax.Array,
    axis_name: AxisName,
) -> jax.Array:
    """Sum of the penalties, averaged over the batch; all of it at every k-th step, k-fold."""
    keys = example_keys(key, real.shape[0], axis_name)

    def value() -> jax.Array:
        total = sum(jnp.mean(penalty(critic, real, fake, keys, axis_name)) for penalty in gan.penalties)
        return jnp.asarray(gan.penalty_every * total, jnp.float32)

    if gan.penalty_every == 1:
        return value()
    nothing = as_varying(jnp.zeros(()), axis_name)
    return jax.lax.cond(state.step % gan.penalty_every == 0, value, lambda: nothing)


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

    loss = (1/B) sum_b [ loss.discriminator(D(x_b), D(fake_b)) + penalty_weight penalty_b ]

    Real and generated images are normalised as separate batches. Nothing is averaged over devices here. With packing,
    x_b and fake_b are packs of m images. The penalties see the discriminator with the real pass's dropout and
    augmentation.

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
      []: ``discriminator_loss`` (with the penalties), ``generator_loss``, ``real_logit``, ``fake_logit``; ``penalty``
      (unweighted) where there is one; ``real_sign``, E[sign D(x)], where an augmentation is adapted.

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit, or the discriminator does not return one logit an image.

    References:
      Goodfellow et al. 2014, equation 1 and algorithm 1.
    """
    images, label = batches.read(batch)
    key = step_key(key, "gan discriminator step", state.step)
    real, fake = _pack(gan, images), _pack(gan, fakes)
    real_key, fake_key = named_key(key, "real dropout"), named_key(key, "fake dropout")

    def judge(
        packs: jax.Array, collections: modules.Collections, key: jax.Array
    ) -> tuple[jax.Array, modules.Collections]:
        return _discriminate(gan, params, collections, packs, label, state, key, axis_name)

    real_logits, collections = judge(real, state.discriminator_collections, real_key)
    fake_logits, collections = judge(fake, collections, fake_key)
    loss = jnp.mean(_pair_loss(gan.loss.discriminator, real_logits, fake_logits, axis_name))
    metrics = {
        "generator_loss": jnp.mean(_pair_loss(gan.loss.generator, real_logits, fake_logits, axis_name)),
        "real_logit": jnp.mean(real_logits),
        "fake_logit": jnp.mean(fake_logits),
    }
    if gan.penalties:

        def critic(packs: jax.Array) -> jax.Array:
            return judge(packs, state.discriminator_collections, real_key)[0]

        metrics["penalty"] = _penalty(gan, critic, state, real, fake, named_key(key, "penalty"), axis_name)
        loss = loss + state.hyperparams["penalty_weight"] * metrics["penalty"]
    if gan.augmentation_target is not None:
        metrics["real_sign"] = jnp.mean(jnp.sign(real_logits))
    return loss, (_as_float32({"discriminator_loss": loss, **metrics}), collections)


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
    collections, logits = state.discriminator_collections, {}
    for name, packs in (("real", _pack(gan, images)), ("fake", _pack(gan, fakes))):
        logits[name], collections = _discriminate(
            gan,
            state.discriminator_params,
            collections,
            packs,
            label,
            state,
            named_key(key, f"{name} dropout"),
            axis_name,
        )
    loss = jnp.mean(_pair_loss(gan.loss.generator, logits["real"], logits["fake"], axis_name))
    return loss, _as_float32({"generator_loss": loss})


def discriminator_update(
    gan: GAN, state: GANState, batch: Batch, fakes: jax.Array, key: jax.Array, axis_name: AxisName = None
) -> tuple[GANState, Metrics]:
    """Update the discriminator once: gradient, average over the axis, optimizer, clipping.

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
    params = optax.apply_updates(state.discriminator_params, updates)
    if gan.weight_clipping is not None:
        bound = state.hyperparams["weight_clipping"]
        params = jax.tree.map(lambda leaf: jnp.clip(leaf, -bound, bound), params)
    state = state._replace(
        discriminator_params=params,
        discriminator_collections=collections,
        discriminator_optimizer_state=optimizer_state,
    )
    return state, average(metrics, axis_name)


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
    """This step's fakes as `gan_fakes` makes them of the state's generator, with the way back to its parameters.

    Args:
      gan: the spec.
      state: the state.
      batch: its number of images is the number of fakes, [B, ...]; its labels are the fakes' labels.
      key: the run's typed key, [].
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      The fakes [B, ...], for `discriminator_update` and `generator_update`.

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: the generator's images have another shape than the batch's.
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

    Args:
      gan: the spec.
      state: the state; its discriminator is the opponent.
      batch: real images, ``image`` [B, ...], optionally ``label`` [B].
      key: the run's typed key, [].
      axis_name: mapped axis or axes over which the global batch is split.
      generated: the step's fakes, where the discriminator has already seen them; made here when None.

    Returns:
      (state with another generator, metrics as of `generator_loss` averaged over the axis).

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit.
    """
    if generated is None:
        generated = gan_generated(gan, state, batch, key, axis_name)
    fakes, collections, pull_back = generated
    gradient, metrics = jax.grad(
        lambda images: generator_loss(gan, images, state, batch, key, axis_name), has_aux=True
    )(fakes)
    gradient = average(pull_back(gradient)[0], axis_name)
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
    hyperparams = scheduled_hyperparams(state.hyperparams, state.step, **gan.hyperparams)
    state = state._replace(hyperparams=hyperparams)
    metrics: Metrics = {}
    update_key = key
    for i, part in enumerate(split_updates(batch, gan.discriminator_steps, gan.packing, axis_name)):
        update_key = key if i == 0 else jax.random.fold_in(named_key(key, "gan discriminator steps"), i)
        generated = gan_generated(gan, state, part, update_key, axis_name)
        state, latest = discriminator_update(gan, state, part, generated.images, update_key, axis_name)
        metrics = metrics or latest
    state, _ = generator_update(gan, state, part, update_key, axis_name, generated)
    if gan.augmentation_target is not None:
        hyperparams = dict(state.hyperparams)
        num_images = batch["image"].shape[0] * axis_size(axis_name)
        probability = hyperparams["augmentation_probability"]
        metrics["augmentation_probability"] = probability
        hyperparams["augmentation_probability"] = adapt_probability(
            probability, metrics["real_sign"], num_images, gan.augmentation_target
        )
        state = state._replace(hyperparams=hyperparams)
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
        rest is ignored.
      key: the run's typed key, []; the same at every step or a fresh one.
      axis_name: mapped axis or axes over which the global batch is split (pmap, shard_map, vmap).

    Returns:
      (new state, metrics: float32 [] averaged over the axis, of the parameters given: ``generator_loss``,
      ``discriminator_loss``, ``real_logit``, ``fake_logit`` and what `discriminator_loss` adds).

    Raises:
      TypeError: state, key or batch are of the wrong type.
      ValueError: shapes do not fit, the axis is not mapped here, the batch on a device is no multiple of
        discriminator_steps * packing, or a concrete label is out of range.

    References:
      Goodfellow et al. 2014, algorithm 1, with k = ``discriminator_steps``.
    """
    check_state(state, GANState)
    batch = batches.select(batch)
    modules.check_label_range(batch.get("label"), gan.generator, gan.discriminator)
    return _step(gan, state, batch, key, axis_name=axis_name)


@functools.partial(jax.jit, static_argnums=0)
def _generate_images(gan: GAN, state: GANState, z: jax.Array, label: jax.Array | None) -> jax.Array:
    params, collections = state.generator_params, state.generator_collections
    if state.ema is not None:
        params, collections = state.ema["params"], state.ema["collections"]
    mask = state.hyperparams["latent_mask"]
    # Evaluation mode has no dropout: the network's key is a formality here.
    key = jax.random.key(0)
    return _generate(gan, params, collections, mask, z, label, train=False, key=key, axis_name=None)[0]


def gan_generate(gan: GAN, state: GANState, z: jax.Array, label: jax.typing.ArrayLike | None = None) -> jax.Array:
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
      TypeError: the labels are not integers.
      ValueError: z is not [N, D], the labels are not [N] or out of range, or a conditional generator has none.
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
      ValueError: num_samples is below 1, or the labels do not fit; see `gan_generate`.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    return gan_generate(gan, state, _sample_latents(gan, key, num_samples), label)
