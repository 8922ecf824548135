"""The discriminator's half of a step: its loss, its update and what it says to whoever made the fakes.

The fakes come from anywhere: a generator, a decoder, another model. Nothing here knows of latents or of who made them.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import optax

from jaxgen import batches, intervals, losses, modules
from jaxgen.augmentation import adapt_probability
from jaxgen.keys import AxisName, axis_size, example_keys, named_key, step_key
from jaxgen.modules import Collections
from jaxgen.parallel import as_varying, average, split_updates, value_and_averaged_gradient
from jaxgen.spec import Schedule, names_in, optimized, shown

Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]
Augmentation = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Adversary(Protocol):
    """What is asked of a spec with a discriminator [B, ...] -> [B]; fields and defaults are those of `jaxgen.GAN`."""

    @property
    def discriminator(self) -> Any: ...
    @property
    def discriminator_optimizer(self) -> optax.GradientTransformation: ...
    @property
    def loss(self) -> losses.AdversarialLoss: ...
    @property
    def penalties(self) -> tuple[losses.Penalty, ...]: ...
    @property
    def penalty_weight(self) -> float | Schedule: ...
    @property
    def penalty_every(self) -> int: ...
    @property
    def weight_clipping(self) -> float | Schedule | None: ...
    @property
    def discriminator_steps(self) -> int: ...
    @property
    def packing(self) -> int: ...
    @property
    def augmentation(self) -> Augmentation | None: ...
    @property
    def augmentation_probability(self) -> float | Schedule: ...
    @property
    def augmentation_target(self) -> float | None: ...


class AdversaryState(Protocol):
    """What is asked of its state, a NamedTuple of arrays; fields are those of `jaxgen.GANState`."""

    @property
    def step(self) -> jax.Array: ...
    @property
    def discriminator_params(self) -> Any: ...
    @property
    def discriminator_collections(self) -> Collections: ...
    @property
    def discriminator_optimizer_state(self) -> Any: ...
    @property
    def hyperparams(self) -> dict[str, Any]: ...
    @property
    def _replace(self) -> Any: ...


State = TypeVar("State", bound=AdversaryState)

LOGIT_AVERAGES = {"real_logit": "real_logit_average", "fake_logit": "fake_logit_average"}  # in hyperparams, of LeCam's
LOGIT_MEMORY = 0.999  # share of them that an update keeps


def _lecam_weight(gan: Adversary) -> float | Schedule | None:
    """The field of a spec that has LeCam's penalty."""
    return getattr(gan, "lecam_weight", None)


def as_float32(tree: Any) -> Any:
    """The tree of arrays in float32."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


def check_adversary(gan: Adversary) -> None:
    """Refuse a spec whose fields of the discriminator's training are not what they should be; see `jaxgen.GAN`."""
    kind = type(gan).__name__
    if not all(callable(getattr(gan.loss, name, None)) for name in ("generator", "discriminator")):
        names = names_in(losses, lambda _, value: isinstance(value, losses.AdversarialLoss))
        raise TypeError(
            f"{kind}.loss must be a pair of losses, generator and discriminator, got {shown(gan.loss)}: use one of "
            f"jaxgen.losses: {names}"
        )
    intervals.check(gan)
    if not isinstance(gan.penalties, tuple):
        raise TypeError(f"{kind}.penalties must be a tuple, got {gan.penalties!r}: e.g. (jaxgen.losses.R1(),)")
    for penalty in gan.penalties:
        if not callable(penalty):
            names = ", ".join(f"{penalty.__name__}()" for penalty in typing.get_args(losses.Penalty))
            raise TypeError(
                f"{kind}.penalties must hold penalties, got {shown(penalty)}: use of jaxgen.losses: {names}"
            )
    if gan.augmentation is not None and not callable(gan.augmentation):
        raise TypeError(
            f"{kind}.augmentation must be a function of (images, keys, probability) or None, got "
            f"{shown(gan.augmentation)}: e.g. jaxgen.augmentation.DiffAugment()"
        )
    if gan.augmentation_target is not None and (gan.augmentation is None or callable(gan.augmentation_probability)):
        raise ValueError(
            f"{kind}.augmentation_target adapts the probability of an augmentation: give an augmentation, and a number "
            "to start from, not a schedule"
        )


def adversary_hyperparams(gan: Adversary) -> dict[str, float | Schedule | None]:
    """The discriminator's part of what ``state.hyperparams`` holds: numbers [], schedules, None for what it lacks."""
    return {
        "penalty_weight": gan.penalty_weight if gan.penalties else None,
        "weight_clipping": gan.weight_clipping,
        "augmentation_probability": gan.augmentation_probability if gan.augmentation else None,
    }


def discriminator_init(
    gan: Adversary, key: jax.Array, images: jax.Array, label: jax.Array | None
) -> tuple[Any, Collections]:
    """Parameters and mutable collections of a new discriminator of images [B, ...], a multiple of the packing."""
    key = named_key(key, "gan discriminator")
    return modules.initialize(gan.discriminator, key, _pack(gan, images), label=_pack_label(gan, label))


def _pack(gan: Adversary, images: jax.Array) -> jax.Array:
    """Join each m successive images along their last axis: [b m, ..., C] -> [b, ..., m C]."""
    if gan.packing == 1:
        return images
    packs = jnp.moveaxis(images.reshape(-1, gan.packing, *images.shape[1:]), 1, -2)
    return packs.reshape(*packs.shape[:-2], -1)


def _unpack(gan: Adversary, packs: jax.Array) -> jax.Array:
    """The images of each pack, `_pack` undone: [b, ..., m C] -> [b m, ..., C]."""
    if gan.packing == 1:
        return packs
    images = jnp.moveaxis(packs.reshape(*packs.shape[:-1], gan.packing, -1), -2, 1)
    return images.reshape(-1, *images.shape[2:])


def _pack_label(gan: Adversary, label: jax.Array | None) -> jax.Array | None:
    """A pack has no label: its images are of several classes."""
    return label if gan.packing == 1 else None


class _Judge(NamedTuple):
    """The discriminator as a step sees it."""

    gan: Adversary
    params: Any
    state: AdversaryState
    label: jax.Array | None
    axis_name: AxisName

    def one(self, packs: jax.Array, collections: Collections, key: jax.Array) -> tuple[jax.Array, Collections]:
        """Augment and judge packs of images: [b, ..., m C] -> logits [b], or [b, h, w] of patches."""
        gan = self.gan
        if gan.augmentation is not None:
            images = _unpack(gan, packs)
            keys = example_keys(named_key(key, "augmentation"), images.shape[0], self.axis_name)
            packs = _pack(gan, gan.augmentation(images, keys, self.state.hyperparams["augmentation_probability"]))
        discriminator = modules.bind_axis(gan.discriminator, collections, self.axis_name)
        label = _pack_label(gan, self.label)
        logits, collections = modules.apply(
            discriminator, self.params, collections, packs, label=label, train=True, key=key
        )
        if logits.shape[:1] != packs.shape[:1] or logits.ndim not in (1, 3):
            raise ValueError(
                f"the discriminator must return one logit per image, [{packs.shape[0]}], got shape {list(logits.shape)}"
            )
        return logits, collections

    def both(self, real: jax.Array, fake: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Collections]:
        """Logits of real and of generated packs, as separate batches, and the collections after both passes."""
        collections = self.state.discriminator_collections
        real_logits, collections = self.one(real, collections, named_key(key, "real dropout"))
        fake_logits, collections = self.one(fake, collections, named_key(key, "fake dropout"))
        return real_logits, fake_logits, collections

    def penalty(self, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        """Sum of the penalties, averaged over the batch; all of it at every k-th step, k-fold."""
        gan, axis_name = self.gan, self.axis_name
        keys = example_keys(named_key(key, "penalty"), real.shape[0], axis_name)

        def critic(packs: jax.Array) -> jax.Array:
            logits, _ = self.one(packs, self.state.discriminator_collections, named_key(key, "real dropout"))
            return logits if logits.ndim == 1 else jnp.mean(logits, axis=(1, 2))

        def value() -> jax.Array:
            total = sum(jnp.mean(penalty(critic, real, fake, keys, axis_name)) for penalty in gan.penalties)
            return jnp.asarray(gan.penalty_every * total, jnp.float32)

        if gan.penalty_every == 1:
            return value()
        nothing = as_varying(jnp.zeros(()), axis_name)
        return jax.lax.cond(self.state.step % gan.penalty_every == 0, value, lambda: nothing)


def _pair_loss(loss: losses.PairLoss, real_logits: jax.Array, fake_logits: jax.Array, axis_name: AxisName) -> jax.Array:
    """A loss per logit; one that needs a mean over the global batch is told the axis."""
    real_logits, fake_logits = real_logits.reshape(-1), fake_logits.reshape(-1)
    if "axis_name" in inspect.signature(loss).parameters:
        return loss(real_logits, fake_logits, axis_name=axis_name)
    return loss(real_logits, fake_logits)


def discriminator_loss(
    gan: Adversary,
    params: Any,
    state: AdversaryState,
    batch: Batch,
    fakes: jax.Array,
    key: jax.Array,
    axis_name: AxisName = None,
) -> tuple[jax.Array, tuple[Metrics, Collections]]:
    """The discriminator's loss as a pure function of its parameters and of anybody's fakes.

    loss = (1/B) sum_b [ loss.discriminator(D(x_b), D(fake_b)) + penalty_weight penalty_b ]

    Real and generated images are normalised as separate batches. Nothing is averaged over devices here. With packing,
    x_b and fake_b are packs of m images. Logits of patches [B, h, w] are taken as so many examples. The penalties see
    the discriminator, its patches averaged, with the real pass's dropout and augmentation.

    Args:
      gan: the spec, a `GAN` or another with the fields of `jaxgen.adversary.Adversary`.
      params: the discriminator's parameters; the state's own are not used.
      state: gives the step and the discriminator's mutable collections.
      batch: real images, ``image`` [B, ...], optionally ``label`` [B].
      fakes: generated images, of anyone's making, [B, ...].
      key: the run's typed key, []; the step's number is folded in here.
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      (loss [], (metrics, the discriminator's mutable collections after both passes)). The metrics are float32
      []: ``discriminator_loss`` (with the penalties), ``generator_loss``, ``real_logit``, ``fake_logit``; ``penalty``
      (unweighted) where there is one, and ``lecam``; ``real_sign``, E[sign D(x)], where an augmentation is adapted.

    References:
      Goodfellow et al. 2014, equation 1 and algorithm 1.
    """
    images, label = batches.read(batch)
    key = step_key(key, "gan discriminator step", state.step)
    judge = _Judge(gan, params, state, label, axis_name)
    real, fake = _pack(gan, images), _pack(gan, fakes)
    real_logits, fake_logits, collections = judge.both(real, fake, key)
    loss = jnp.mean(_pair_loss(gan.loss.discriminator, real_logits, fake_logits, axis_name))
    metrics = {
        "generator_loss": jnp.mean(_pair_loss(gan.loss.generator, real_logits, fake_logits, axis_name)),
        "real_logit": jnp.mean(real_logits),
        "fake_logit": jnp.mean(fake_logits),
    }
    if gan.penalties:
        metrics["penalty"] = judge.penalty(real, fake, key)
        loss = loss + state.hyperparams["penalty_weight"] * metrics["penalty"]
    if _lecam_weight(gan) is not None:
        averages = [state.hyperparams[name] for name in LOGIT_AVERAGES.values()]
        metrics["lecam"] = jnp.mean(losses.lecam_penalty(real_logits.reshape(-1), fake_logits.reshape(-1), *averages))
        loss = loss + state.hyperparams["lecam_weight"] * metrics["lecam"]
    if gan.augmentation_target is not None:
        metrics["real_sign"] = jnp.mean(jnp.sign(real_logits))
    return loss, (as_float32({"discriminator_loss": loss, **metrics}), collections)


def generator_loss(
    gan: Adversary, fakes: jax.Array, state: AdversaryState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[jax.Array, Metrics]:
    """The generator's loss [] as a pure function of its images, against the state's discriminator.

    loss = (1/B) sum_b loss.generator(D(x_b), D(fake_b))

    A function of the images, ``fakes`` [B, ...], so that they may come from any generator (a VAE's decoder, a distilled
    model): compose it with `jaxgen.gan_fakes` for a GAN's own. The discriminator's statistics do not change here. The
    step's number is folded into the key. Returned with it is the metric ``generator_loss``, float32 [].

    References:
      Goodfellow et al. 2014, algorithm 1 and section 3.
    """
    images, label = batches.read(batch)
    key = step_key(key, "gan generator loss", state.step)
    judge = _Judge(gan, state.discriminator_params, state, label, axis_name)
    real_logits, fake_logits, _ = judge.both(_pack(gan, images), _pack(gan, fakes), key)
    loss = jnp.mean(_pair_loss(gan.loss.generator, real_logits, fake_logits, axis_name))
    return loss, as_float32({"generator_loss": loss})


def discriminator_update(
    gan: Adversary, state: State, batch: Batch, fakes: jax.Array, key: jax.Array, axis_name: AxisName = None
) -> tuple[State, Metrics]:
    """Update the discriminator once: gradient, average over the axis, optimizer, clipping.

    ``fakes`` are generated images, of anyone's making, [B, ...]. Returned are the new state, and metrics as of
    `discriminator_loss` averaged over the axis.
    """
    (_, (metrics, collections)), gradient = value_and_averaged_gradient(
        lambda params: discriminator_loss(gan, params, state, batch, fakes, key, axis_name),
        state.discriminator_params,
        axis_name,
    )
    metrics = average(metrics, axis_name)
    updates, optimizer_state = optimized(
        gan.discriminator_optimizer,
        gradient,
        state.discriminator_optimizer_state,
        state.discriminator_params,
        metrics["discriminator_loss"],
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
    if _lecam_weight(gan) is not None:
        latest = {
            average: LOGIT_MEMORY * state.hyperparams[average] + (1.0 - LOGIT_MEMORY) * metrics[logit]
            for logit, average in LOGIT_AVERAGES.items()
        }
        state = state._replace(hyperparams={**state.hyperparams, **latest})
    return state, metrics


def discriminator_parts(
    gan: Adversary, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> list[tuple[dict[str, Any], jax.Array]]:
    """The part of a step's batch, [B / n, ...], and the key of each of its n discriminator updates."""
    parts = split_updates(batch, gan.discriminator_steps, gan.packing, axis_name)
    keys = [key, *(jax.random.fold_in(named_key(key, "gan discriminator steps"), i) for i in range(1, len(parts)))]
    return list(zip(parts, keys, strict=True))


def adapt_augmentation(
    gan: Adversary, state: State, metrics: Metrics, num_images: int, axis_name: AxisName = None
) -> tuple[State, Metrics]:
    """At a step's end, of so many images on a device, move ``augmentation_probability`` [] to what keeps the target."""
    if gan.augmentation_target is None:
        return state, metrics
    probability = state.hyperparams["augmentation_probability"]
    adapted = adapt_probability(
        probability, metrics["real_sign"], num_images * axis_size(axis_name), gan.augmentation_target
    )
    state = state._replace(hyperparams={**state.hyperparams, "augmentation_probability": adapted})
    return state, {**metrics, "augmentation_probability": probability}
