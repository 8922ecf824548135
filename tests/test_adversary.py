"""The discriminator's half serves anyone's fakes: here a toy autoencoder's, with a spec and a state of its own."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxgen import adversary, augmentation, batches, losses, parallel, schedules
from jaxgen.spec import Schedule, initial_hyperparams, scheduled_hyperparams
from tests import models


class Autoencoder(nn.Module):
    """Images through four numbers and back."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        code = nn.Dense(4)(x.reshape(x.shape[0], -1))
        return nn.sigmoid(nn.Dense(16)(nn.tanh(code))).reshape(x.shape)


class Patches(nn.Module):
    """Logits [B, 2, 2] of the quarters of an image or of a pack of them."""

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        return nn.Conv(1, (1, 1))(nn.softplus(nn.Conv(8, (2, 2), (2, 2))(x)))[..., 0]


@dataclasses.dataclass(frozen=True)
class Toy:
    """An autoencoder with an adversary: no latents, no prior, no generator."""

    autoencoder: Any
    optimizer: optax.GradientTransformation
    discriminator: Any
    discriminator_optimizer: optax.GradientTransformation
    loss: losses.AdversarialLoss
    penalties: tuple[losses.Penalty, ...]
    penalty_weight: float | Schedule
    augmentation: Any
    augmentation_target: float | None
    packing: int
    augmentation_probability: float = 0.5
    discriminator_steps: int = 2
    penalty_every: int = 1
    weight_clipping: float | None = None

    def __post_init__(self) -> None:
        adversary.check_adversary(self)


def make(**fields: Any) -> Toy:
    """All that sees the global batch: packs, the relativistic average, an adapted augmentation."""
    fields = {
        "loss": losses.relativistic_average,
        "penalties": (losses.R1(),),
        "penalty_weight": schedules.Linear(1.0, 0.1, 3),
        "augmentation": augmentation.DiffAugment(),
        "augmentation_target": 0.6,
        "packing": 2,
        **fields,
    }
    return Toy(Autoencoder(), models.sgd(), Patches(), models.sgd(), **fields)


class ToyState(NamedTuple):
    step: jax.Array
    params: Any
    optimizer_state: Any
    discriminator_params: Any
    discriminator_collections: Any
    discriminator_optimizer_state: Any
    hyperparams: dict[str, Any]


def init(toy: Toy, key: jax.Array) -> ToyState:
    images, label = batches.read(batch())
    params = toy.autoencoder.init(key, images)
    judge, collections = adversary.discriminator_init(toy, key, images, label)
    optimizer_states = toy.optimizer.init(params), toy.discriminator_optimizer.init(judge)
    hyperparams = initial_hyperparams(None, **adversary.adversary_hyperparams(toy))
    return ToyState(jnp.int32(0), params, optimizer_states[0], judge, collections, optimizer_states[1], hyperparams)


def step(
    toy: Toy, state: ToyState, batch: adversary.Batch, key: jax.Array, axis_name: Any = None
) -> tuple[ToyState, adversary.Metrics]:
    hyperparams = scheduled_hyperparams(state.hyperparams, state.step, **adversary.adversary_hyperparams(toy))
    state = state._replace(hyperparams=hyperparams)
    metrics: adversary.Metrics = {}
    for part, update_key in adversary.discriminator_parts(toy, batch, key, axis_name):
        images, _ = batches.read(part)
        fakes = toy.autoencoder.apply(state.params, images)
        state, latest = adversary.discriminator_update(toy, state, part, fakes, update_key, axis_name)
        metrics = metrics or latest

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        rebuilt = toy.autoencoder.apply(params, images)
        adversarial, _ = adversary.generator_loss(toy, rebuilt, state, part, update_key, axis_name)
        error = jnp.mean(jnp.square(rebuilt - images))
        return error + 0.1 * adversarial, error

    (_, error), gradient = parallel.value_and_averaged_gradient(loss, state.params, axis_name)
    metrics["reconstruction"] = parallel.average(error, axis_name)
    updates, optimizer_state = toy.optimizer.update(gradient, state.optimizer_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state, metrics = adversary.adapt_augmentation(toy, state, metrics, len(batch["image"]), axis_name)
    return state._replace(step=state.step + 1, params=params, optimizer_state=optimizer_state), metrics


def batch(seed: int = 0) -> dict[str, jax.Array]:
    return {"image": jnp.asarray(models.batch(16, seed)["image"])}


@pytest.mark.slow
def test_another_model_trains_a_discriminator_alike_in_every_regime(key: jax.Array) -> None:
    """Eager, compiled, and mapped over four parts of the batch: packs, two updates, penalty, adapted augmentation."""
    toy = make()
    mapped = jax.jit(
        jax.vmap(partial(step, toy, axis_name="data"), in_axes=(None, 0, None), out_axes=None, axis_name="data")
    )
    regimes: dict[str, Any] = {
        "eager": (partial(step, toy), lambda b: b),
        "jit": (jax.jit(partial(step, toy)), lambda b: b),
        "vmap": (mapped, lambda b: jax.tree.map(lambda leaf: leaf.reshape(4, 4, *leaf.shape[1:]), b)),
    }
    ends = {}
    for name, (take, part) in regimes.items():
        state: Any = init(toy, key)
        for i in range(3):
            state, metrics = take(state, part(batch(i)), key)
        ends[name] = state, metrics
    start = init(toy, key)
    assert models.finite(ends["eager"])
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), start.discriminator_params, ends["jit"][0].discriminator_params
    )
    assert moved["Conv_0"]["kernel"] > 1e-3
    assert set(ends["jit"][1]) >= {"discriminator_loss", "generator_loss", "penalty", "augmentation_probability"}
    assert float(ends["jit"][0].hyperparams["augmentation_probability"]) != 0.5
    for name in ("jit", "vmap"):
        chex.assert_trees_all_close(ends[name], ends["eager"], atol=2e-5)


def test_logits_of_patches_are_so_many_examples(key: jax.Array) -> None:
    toy = make(loss=losses.non_saturating, packing=1, augmentation=None, augmentation_target=None)
    state = init(toy, key)
    real, fake = (batches.read(batch(seed))[0] for seed in (0, 1))
    loss, (metrics, _) = adversary.discriminator_loss(toy, state.discriminator_params, state, batch(), fake, key)
    of_real, of_fake = (
        toy.discriminator.apply({"params": state.discriminator_params}, x, train=True) for x in (real, fake)
    )
    assert of_real.shape == (16, 2, 2)
    expected = np.mean(np.logaddexp(0, -of_real) + np.logaddexp(0, of_fake))
    np.testing.assert_allclose(loss - metrics["penalty"], expected, rtol=1e-5)

    def logit(image: jax.Array) -> jax.Array:
        return toy.discriminator.apply({"params": state.discriminator_params}, image[None], train=True).mean()

    slopes = jax.vmap(jax.grad(logit))(real)
    np.testing.assert_allclose(metrics["penalty"], 0.5 * jnp.sum(slopes**2) / 16, rtol=1e-4)  # of the mean over patches
    said, _ = adversary.generator_loss(toy, fake, state, batch(), key)
    np.testing.assert_allclose(said, np.mean(np.logaddexp(0, -of_fake)), rtol=1e-5)


def test_its_spec_is_checked_in_its_own_name() -> None:
    with pytest.raises(TypeError, match=r"Toy\.penalties must be a tuple"):
        make(penalties=losses.R1())
    with pytest.raises(ValueError, match=r"Toy\.augmentation_target adapts the probability"):
        make(augmentation=None)
