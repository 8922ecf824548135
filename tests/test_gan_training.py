"""What a GAN's spec adds to the plain step: penalties, several updates, packing, clipping, augmentation, labels."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxgen
from jaxgen import adversary, augmentation, losses, networks, parallel, schedules
from tests import models


class LinearDiscriminator(nn.Module):
    """D(x) = w . x, whose gradient by the image is w everywhere."""

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        return nn.Dense(1, use_bias=False, name="output")(x.reshape(x.shape[0], -1))[:, 0]


def linear_gan(**fields: Any) -> jaxgen.GAN:
    return models.gan(discriminator=LinearDiscriminator(), **fields)


def kernel(state: jaxgen.GANState) -> jax.Array:
    return state.discriminator_params["output"]["kernel"]


def test_penalties_are_weighted_and_added(key: jax.Array) -> None:
    """R1 of a linear discriminator is |w|^2 / 2, R2 the same: the loss gains 3 |w|^2."""
    plain, both = linear_gan(), linear_gan(penalties=(losses.R1(), losses.R2()), penalty_weight=3.0)
    batch = models.batch()
    state = models.init(both, key)
    _, without = jaxgen.gan_step(plain, models.init(plain, key), batch, key)
    _, metrics = jaxgen.gan_step(both, state, batch, key)
    square = float(jnp.sum(jnp.square(kernel(state))))
    np.testing.assert_allclose(metrics["penalty"], square, rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator_loss"] - without["discriminator_loss"], 3 * square, rtol=1e-4)
    assert "penalty" not in without
    weighted = state._replace(hyperparams={**state.hyperparams, "penalty_weight": jnp.float32(0.0)})
    _, metrics = jaxgen.gan_step(both, weighted, batch, key)
    np.testing.assert_allclose(metrics["discriminator_loss"], without["discriminator_loss"], rtol=1e-6)


def test_lazy_penalties_come_every_so_often_and_as_much(key: jax.Array) -> None:
    gan = linear_gan(penalties=(losses.R1(),), penalty_every=3)
    state = models.init(gan, key)
    seen = []
    for _ in range(6):
        half = 0.5 * float(jnp.sum(jnp.square(kernel(state))))
        state, metrics = jaxgen.gan_step(gan, state, models.batch(), key)
        seen.append(float(metrics["penalty"]) / half)
    np.testing.assert_allclose(seen, [3, 0, 0, 3, 0, 0], rtol=1e-5)


def test_the_weight_of_a_penalty_can_be_scheduled(key: jax.Array) -> None:
    gan = linear_gan(penalties=(losses.R1(),), penalty_weight=schedules.Linear(4.0, 0.0, 4))
    state = models.init(gan, key)
    weights = []
    for _ in range(6):
        state, _ = jaxgen.gan_step(gan, state, models.batch(), key)
        weights.append(float(state.hyperparams["penalty_weight"]))
    np.testing.assert_allclose(weights, [4, 3, 2, 1, 0, 0])


def test_clipping_bounds_every_parameter_of_the_discriminator(key: jax.Array) -> None:
    gan = models.gan(loss=losses.wasserstein, weight_clipping=0.01)
    state, _ = jaxgen.gan_step(gan, models.init(gan, key), models.batch(), key)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(state.discriminator_params))
    assert largest == pytest.approx(0.01)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(state.generator_params)) > 0.1


def test_each_discriminator_update_sees_its_own_images(key: jax.Array) -> None:
    """A step of two updates is two `discriminator_update`s, on the halves of the batch."""
    still = {"discriminator_optimizer": optax.sgd(0.1), "generator_optimizer": optax.sgd(0.0)}
    gan = linear_gan(discriminator_steps=2, **still)
    state, batch = models.init(gan, key), models.batch()
    new, metrics = jaxgen.gan_step(gan, state, batch, key)
    halves = [{"image": batch["image"][i : i + 8]} for i in (0, 8)]
    update_keys = [key, jax.random.fold_in(jaxgen.keys.named_key(key, "gan discriminator steps"), 1)]
    expected, losses_seen = state, []
    for half, update_key in zip(halves, update_keys, strict=True):
        fakes, _ = jaxgen.gan_fakes(gan, state.generator_params, expected, half, update_key)
        expected, latest = jaxgen.discriminator_update(gan, expected, half, fakes, update_key)
        losses_seen.append(latest["discriminator_loss"])
    np.testing.assert_allclose(kernel(new), kernel(expected), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["discriminator_loss"], losses_seen[0], rtol=1e-6)
    assert not np.allclose(kernel(new), kernel(state), atol=1e-4)


def test_updates_use_fresh_latents(key: jax.Array) -> None:
    gan = linear_gan(discriminator_steps=2)
    state, part = models.init(gan, key), {"image": models.batch()["image"][:8]}
    other = jax.random.fold_in(jaxgen.keys.named_key(key, "gan discriminator steps"), 1)
    first, second = (jaxgen.gan_fakes(gan, state.generator_params, state, part, k)[0] for k in (key, other))
    assert not np.allclose(first, second)


def test_a_batch_is_taken_as_updates_times_packing_times_packs() -> None:
    batch = {"image": np.arange(12.0)[:, None], "label": np.arange(12)}
    parts = parallel.split_updates(batch, 2, 3, None)
    # [2, 3, 2]: update 0 has the rows 0..5; its packs are (0, 2, 4) and (1, 3, 5).
    np.testing.assert_array_equal(parts[0]["label"], [0, 2, 4, 1, 3, 5])
    np.testing.assert_array_equal(parts[1]["image"][:, 0], [6, 8, 10, 7, 9, 11])


def test_a_split_batch_is_divided_like_the_whole_one() -> None:
    batch = {"image": jnp.arange(16.0)[:, None], "label": jnp.arange(16)}
    whole = parallel.split_updates(batch, 2, 2, None)
    mesh = parallel.make_mesh({"data": 4})
    divide = partial(parallel.split_updates, num_updates=2, packing=2, axis_name="data")
    parts = jax.shard_map(divide, mesh=mesh, in_specs=(P("data"),), out_specs=P("data"))(batch)
    chex.assert_trees_all_equal(parts, whole)
    stacked = jax.tree.map(lambda leaf: leaf.reshape(4, 4, *leaf.shape[1:]), batch)
    mapped = jax.vmap(divide, axis_name="data")(stacked)
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), mapped), whole)


def test_packs_are_joined_along_the_channels(key: jax.Array) -> None:
    """A pack's logit is of its images together: w . [x_1, x_2]."""
    gan = linear_gan(packing=2)
    state, batch = models.init(gan, key), models.batch()
    assert kernel(state).shape == (32, 1)
    (part,) = parallel.split_updates({"image": jnp.asarray(batch["image"])}, 1, 2, None)
    fakes, _ = jaxgen.gan_fakes(gan, state.generator_params, state, part, key)
    _, (metrics, _) = jaxgen.discriminator_loss(gan, state.discriminator_params, state, part, fakes, key)
    image = batch["image"] / np.float32(255)
    packs = np.concatenate([image[:8], image[8:]], axis=-1)  # m successive rows of the part are images r and r + 8
    np.testing.assert_allclose(metrics["real_logit"], np.mean(packs.reshape(8, -1) @ kernel(state)), rtol=1e-5)
    np.testing.assert_array_equal(adversary._unpack(gan, adversary._pack(gan, fakes)), fakes)


def brightened(images: jax.Array, keys: jax.Array, probability: jax.Array) -> jax.Array:
    """An augmentation that a test can follow: adds the probability to every pixel."""
    return images + probability


def test_augmentation_is_of_everything_the_discriminator_sees(key: jax.Array) -> None:
    gan = linear_gan(augmentation=brightened, augmentation_probability=0.25)
    state, batch = models.init(gan, key), models.batch()
    plain = linear_gan()
    _, with_it = jaxgen.gan_step(gan, state, batch, key)
    _, without = jaxgen.gan_step(plain, models.init(plain, key), batch, key)
    shift = 0.25 * float(jnp.sum(kernel(state)))
    for name in ("real_logit", "fake_logit"):
        np.testing.assert_allclose(with_it[name], without[name] + shift, rtol=1e-4, atol=1e-5)
    fakes, _ = jaxgen.gan_fakes(gan, state.generator_params, state, batch, key)
    value, _ = jaxgen.generator_loss(gan, fakes, state, batch, key)
    other, _ = jaxgen.generator_loss(plain, fakes + 0.25, state, batch, key)
    np.testing.assert_allclose(value, other, rtol=1e-5)


@pytest.mark.parametrize(("bias", "direction"), [(1e3, 1.0), (-1e3, -1.0)])
def test_the_probability_adapts_to_overfitting(bias: float, direction: float, key: jax.Array) -> None:
    gan = models.gan(augmentation=augmentation.DiffAugment(), augmentation_probability=0.5, augmentation_target=0.6)
    state = models.init(gan, key)
    params = state.discriminator_params
    params = {**params, "output": {**params["output"], "bias": jnp.full((1,), bias)}}
    state, metrics = jaxgen.gan_step(gan, state._replace(discriminator_params=params), models.batch(), key)
    assert float(metrics["real_sign"]) == direction
    moved = float(state.hyperparams["augmentation_probability"]) - 0.5
    np.testing.assert_allclose(moved, direction * 16 / 500_000, rtol=1e-3)


class ConditionalDiscriminator(nn.Module):
    """A discriminator that needs a label."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        if label is None:
            raise ValueError("ConditionalDiscriminator needs a label")
        return nn.Embed(self.num_classes, 1)(label)[:, 0] + jnp.mean(x, axis=(1, 2, 3))


def test_labels_are_checked_where_they_are_concrete(key: jax.Array) -> None:
    gan = models.gan(
        generator=networks.MLPGenerator(models.IMAGE_SHAPE, num_classes=10), discriminator=ConditionalDiscriminator()
    )
    state, batch = models.init(gan, key), models.batch()
    state, _ = jaxgen.gan_step(gan, state, batch, key)
    for wrong in (np.full(16, 10), np.full(16, -1)):
        with pytest.raises(ValueError, match="labels must be from 0 to 9, got values from"):
            jaxgen.gan_step(gan, state, {**batch, "label": wrong}, key)
        with pytest.raises(ValueError, match="labels must be from 0 to 9"):
            jaxgen.gan_sample(gan, state, key, 16, wrong)
    with pytest.raises(ValueError, match="one per image, \\[4\\]"):
        jaxgen.gan_sample(gan, state, key, 4, np.zeros(3, np.int32))
    with pytest.raises(TypeError, match="labels must be integers"):
        jaxgen.gan_sample(gan, state, key, 4, np.zeros(4))
    with pytest.raises(ValueError, match="label"):
        jaxgen.gan_sample(gan, state, key, 4)
    with pytest.raises(ValueError, match=r"MLPGenerator.*is conditional and was given no label"):
        jaxgen.gan_step(gan, state, {"image": batch["image"]}, key)
    with pytest.raises(ValueError, match="needs a label"):  # a pack has images of several classes
        models.init(models.gan(discriminator=ConditionalDiscriminator(), packing=2), key)


def test_bad_numbers_are_refused(key: jax.Array) -> None:
    for fields, message in (
        ({"penalty_weight": -1.0}, "penalty_weight must be at least 0, got -1.0"),
        ({"penalty_every": 0}, "penalty_every must be at least 1"),
        ({"weight_clipping": 0.0}, "weight_clipping must be above 0"),
        ({"discriminator_steps": 0}, "discriminator_steps must be at least 1"),
        ({"packing": 0}, "packing must be at least 1"),
        ({"augmentation_probability": 1.5}, r"augmentation_probability must be in \[0, 1\]"),
        ({"augmentation_target": 0.6}, "give an augmentation"),
    ):
        with pytest.raises(ValueError, match=message):
            models.gan(**fields)
    with pytest.raises(TypeError, match="must be a tuple"):
        models.gan(penalties=losses.R1())
    with pytest.raises(TypeError, match="must be a whole number"):
        models.gan(packing=2.0)
    gan = models.gan(packing=3)
    with pytest.raises(ValueError, match=r"16 images on a device is no multiple of .* = 1 \* 3"):
        jaxgen.gan_step(gan, models.init(gan, key), models.batch(), key)


def test_packing_must_divide_the_part_of_a_device(key: jax.Array) -> None:
    gan = models.gan(packing=4)
    state, batch = models.init(gan, key), {"image": models.batch()["image"]}
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    step = partial(jaxgen.gan_step, gan, axis_name="data")
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data"), P()), out_specs=P())
    with pytest.raises(ValueError, match="2 images on a device"):
        mapped(state, batch, key)
