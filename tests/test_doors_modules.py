"""What comes in by the doors of a step: anybody's images, optimizers, networks and losses, taken or named in a line."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxgen
from jaxgen import augmentation, batches, losses, modules, networks, parallel, schedules
from jaxgen.gan import generator_update
from jaxgen.training import sentinel
from tests import models

BATCH = {name: array for name, array in models.batch().items() if name == "image"}
UNIT = BATCH["image"] / np.float32(255.0)
BITS = np.random.default_rng(0).integers(0, 2, (16, *models.IMAGE_SHAPE))
IMAGES = BITS.astype(np.float32)


def equal(got: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def close(got: Any, expected: Any, **tolerance: float) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, **{"rtol": 1e-5, "atol": 1e-7, **tolerance}), got, expected)


def refused(make: Callable[[], Any], message: str, kinds: Any = (TypeError, ValueError)) -> None:
    with pytest.raises(kinds, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


SGD = models.sgd()  # one, so that equal specs are one program


def small_gan(**fields: Any) -> jaxgen.GAN:
    return models.gan(**{"generator_optimizer": SGD, "discriminator_optimizer": SGD, **fields})


def small_vae(**fields: Any) -> jaxgen.VAE:
    return models.vae(**{"optimizer": SGD, **fields})


def train(spec: Any, steps: int, batch: Any = BATCH) -> list[Any]:
    """The states from the first on."""
    states = [models.init(spec, jax.random.key(0))]
    for _ in range(steps):
        states.append(models.step(spec)(spec, states[-1], batch, jax.random.key(1))[0])
    return states


def dense(layer: Any, x: Any) -> np.ndarray:
    """What a layer of these parameters makes of rows [N, D]."""
    return np.asarray(x) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


# Images.

BAD_IMAGES: dict[str, tuple[Any, str]] = {
    "0..255": (
        255 * IMAGES,
        r"finite and in \[0, 1\], got values from 0 to 255: rescale them, or give 0..255 as uint8",
    ),
    "-1..1": (2 * IMAGES - 1, r"in \[0, 1\], got values from -1 to 1: rescale"),
    "on the device": (jnp.asarray(2 * IMAGES), r"in \[0, 1\], got values from 0 to 2: rescale"),
    "bfloat16": (jnp.asarray(-IMAGES, jnp.bfloat16), r"in \[0, 1\], got values from -1 to -?0: rescale"),
    "a list": ((2 * IMAGES).tolist(), r"in \[0, 1\], got values from 0 to 2: rescale"),
    "NaN": (np.where(BITS, np.nan, 0.5), "got values from nan to nan: repair those images"),
    "infinite": (np.where(BITS, np.inf, 0.5), "got values from 0.5 to inf: repair those images"),
    "channels first": (
        np.zeros((16, 3, 8, 6), np.uint8),
        r"\[B, H, W, C\], got shape \[16, 3, 8, 6\], channels first: give images.transpose\(0, 2, 3, 1\)",
    ),
    "grey, channels first": (np.zeros((16, 1, 8, 8), np.float32), r"got shape \[16, 1, 8, 8\], channels first"),
    "binary as uint8": (BITS.astype(np.uint8), "binary images must be bool, grey ones 0..255"),
    "NaN in vectors": (np.where(BITS, np.nan, 0.5)[:, 0, 0], "must be finite, got values from nan to nan: repair"),
    "vectors too large for float32": (np.full((16, 2), 1e300), "must be finite, got values from 1e"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
@pytest.mark.parametrize("make", [small_gan, small_vae])
def test_concrete_images_out_of_range_are_refused(make: Any, name: str, key: jax.Array) -> None:
    images, message = BAD_IMAGES[name]
    spec, batch = make(), {"image": images}
    init = jaxgen.gan_init if isinstance(spec, jaxgen.GAN) else jaxgen.vae_init
    state = models.init(spec, key)
    if not isinstance(images, list):  # of numbers, which `jit` would take for as many arrays
        refused(lambda: init(spec, key, batch), message, ValueError)
    refused(lambda: models.step(spec)(spec, state, batch, key), message, ValueError)


@pytest.mark.parametrize(
    "images",
    [np.zeros_like(BITS, np.uint8), BITS.astype(bool), IMAGES.astype(np.float16), jnp.asarray(IMAGES), -0.0 * IMAGES],
)
def test_images_in_range_are_taken(images: Any, key: jax.Array) -> None:
    vae = small_vae()
    state = jaxgen.vae_init(vae, key, {"image": images})
    _, metrics = jaxgen.vae_step(vae, state, {"image": images}, key)
    given = batches.to_float(images).astype(jnp.float32)
    _, expected = jaxgen.vae_step(vae, state, {"image": given}, key)
    close(metrics, expected)


def test_vectors_may_be_anywhere(key: jax.Array) -> None:
    vae = jaxgen.VAE(
        networks.MLPEncoder(2, (8,)), networks.MLPDecoder((3,), (8,)), SGD, 2, losses.gaussian(scale=100.0)
    )
    batch = {"image": np.full((4, 3), -255.0, np.float32)}
    _, metrics = jaxgen.vae_step(vae, jaxgen.vae_init(vae, key, batch), batch, key)
    assert models.finite(metrics)


def test_traced_images_are_not_looked_at(key: jax.Array) -> None:
    vae = small_vae(likelihood=losses.gaussian(scale=1.0))
    state = models.init(vae, key)
    _, metrics = jax.jit(partial(jaxgen.vae_step, vae))(state, {"image": 2 * IMAGES}, key)
    assert models.finite(metrics)


def test_images_over_devices_are_looked_at_once_and_as_a_whole() -> None:
    mesh = parallel.make_mesh({"data": 4})
    dark_and_bright = np.full((16, *models.IMAGE_SHAPE), 200, np.uint8)
    dark_and_bright[:4] = 1
    batches.check_concrete({"image": jax.device_put(dark_and_bright, NamedSharding(mesh, P("data")))})
    bright = np.full((16, *models.IMAGE_SHAPE), 0.5, np.float32)
    bright[13] = 2.0
    split = jax.device_put(bright, NamedSharding(mesh, P("data")))
    refused(lambda: batches.check_concrete({"image": split}), "got values from 0.5 to 2")
    everywhere = jax.device_put(bright, NamedSharding(mesh, P()))
    assert [part.shape for part in batches.concrete_parts(split)] == [(4, *models.IMAGE_SHAPE)] * 4
    assert [part.shape for part in batches.concrete_parts(everywhere)] == [bright.shape]


# Optimizers.


def plateau() -> Any:
    """A transformation that wants the loss, and keeps its mean."""
    return optax.chain(optax.sgd(0.01), optax.contrib.reduce_on_plateau(accumulation_size=100))


def mean_loss(optimizer_state: Any) -> Any:
    return optimizer_state[1].avg_value


@pytest.mark.parametrize("wrap", [lambda o: o, lambda o: optax.MultiSteps(o, 1)])
def test_the_loss_reaches_a_vaes_optimizer(wrap: Any, key: jax.Array) -> None:
    vae = small_vae(optimizer=wrap(plateau()))
    state = models.init(vae, key)
    seen = []
    for _ in range(3):
        state, metrics = jaxgen.vae_step(vae, state, BATCH, key)
        seen.append(float(metrics["loss"]))
    kept = mean_loss(getattr(state.optimizer_state, "inner_opt_state", state.optimizer_state))
    np.testing.assert_allclose(kept, np.mean(seen), rtol=1e-6)


def test_the_losses_reach_a_gans_optimizers(key: jax.Array) -> None:
    gan = small_gan(generator_optimizer=plateau(), discriminator_optimizer=plateau())
    start = models.init(gan, key)
    state, metrics = jaxgen.gan_step(gan, start, BATCH, key)
    close(mean_loss(state.discriminator_optimizer_state), metrics["discriminator_loss"])
    judged = start._replace(
        discriminator_params=state.discriminator_params, discriminator_collections=state.discriminator_collections
    )
    _, against = generator_update(gan, judged, BATCH, key)
    close(mean_loss(state.generator_optimizer_state), against["generator_loss"])
    assert against["generator_loss"] != metrics["generator_loss"]
    found = sentinel.gradients(gan, start, BATCH, key)  # by optimizers that record
    moved = jax.tree.map(lambda p, g: p - 0.01 * g, start.generator_params, found["generator_params"])
    close(state.generator_params, moved)


def test_every_device_is_told_the_loss_of_the_global_batch(key: jax.Array) -> None:
    vae = small_vae(optimizer=plateau())
    state = models.init(vae, key)
    parts = {"image": BATCH["image"].reshape(2, 8, *models.IMAGE_SHAPE)}
    step = jax.vmap(partial(jaxgen.vae_step, vae, axis_name="data"), (None, 0, None), axis_name="data")
    _, whole = jaxgen.vae_step(vae, state, BATCH, key)
    by_device, _ = step(state, parts, key)
    np.testing.assert_allclose(mean_loss(by_device.optimizer_state), [whole["loss"]] * 2, rtol=1e-5)


SAME = {  # optimizers that are SGD of a rate of 0.1, each in its own way
    "extra arguments": lambda: optax.with_extra_args_support(optax.sgd(0.1)),
    "chain": lambda: optax.chain(optax.scale(2.0), optax.sgd(0.05)),
    "schedule": lambda: optax.sgd(optax.piecewise_constant_schedule(0.1, {100: 0.0})),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
    "MultiSteps of one": lambda: optax.MultiSteps(optax.sgd(0.1), 1),
    "multi_transform": lambda: optax.multi_transform(
        {"all": optax.sgd(0.1)}, lambda p: jax.tree.map(lambda _: "all", p)
    ),
    "masked": lambda: optax.masked(optax.sgd(0.1), lambda p: jax.tree.map(lambda _: True, p)),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.sgd(0.1), 1),
    "one's own": lambda: optax.GradientTransformation(
        lambda params: (), lambda g, state, params: (jax.tree.map(lambda x: -0.1 * x, g), state)
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_equal_optimizers_train_equally(name: str) -> None:
    got, expected = (train(small_vae(optimizer=o), 2)[-1].params for o in (SAME[name](), optax.sgd(0.1)))
    close(got, expected)


def test_accumulated_steps_move_by_the_mean_gradient(key: jax.Array) -> None:
    gan = small_gan(
        generator_optimizer=optax.MultiSteps(optax.sgd(0.1), 2), discriminator_optimizer=optax.set_to_zero()
    )
    first, second, third = train(gan, 2)
    equal(second.generator_params, first.generator_params)

    @jax.jit
    def gradient(state: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            fakes, _ = jaxgen.gan_fakes(gan, params, state, BATCH, jax.random.key(1))
            return jaxgen.generator_loss(gan, fakes, state, BATCH, jax.random.key(1))[0]

        return jax.grad(loss)(state.generator_params)

    gradients = [gradient(state) for state in (first, second)]
    expected = jax.tree.map(lambda p, a, b: p - 0.1 * (a + b) / 2, first.generator_params, *gradients)
    close(third.generator_params, expected)
    assert not np.allclose(gradients[0]["output"]["kernel"], gradients[1]["output"]["kernel"])


def test_each_network_may_have_its_own_optimizer() -> None:
    rates = {"encoder": optax.sgd(0.1), "decoder": optax.set_to_zero()}
    first, second = train(small_vae(optimizer=optax.multi_transform(rates, {name: name for name in rates})), 1)
    _, both = train(small_vae(optimizer=optax.sgd(0.1)), 1)
    equal(second.params["decoder"], first.params["decoder"])
    equal(second.params["encoder"], both.params["encoder"])
    assert not np.allclose(both.params["decoder"]["output"]["kernel"], first.params["decoder"]["output"]["kernel"])


def test_a_scheduled_rate_is_written_and_followed() -> None:
    rate = optax.piecewise_constant_schedule(0.1, {1: 0.0})
    first, second, third = train(small_vae(optimizer=optax.inject_hyperparams(optax.sgd)(learning_rate=rate)), 2)
    equal(second.params, train(small_vae(optimizer=optax.sgd(0.1)), 1)[1].params)
    equal(third.params, second.params)
    assert [float(s.optimizer_state.hyperparams["learning_rate"]) for s in (second, third)] == [np.float32(0.1), 0.0]
    assert first.optimizer_state.count == 0


@pytest.mark.parametrize(
    "optimizer", [optax.polyak_sgd(0.1), optax.lbfgs(0.01, linesearch=None), optax.contrib.prodigy()]
)
def test_uncommon_optimizers_train(optimizer: Any) -> None:
    first, *_, last = train(small_vae(optimizer=optimizer), 3)
    assert models.finite(last.params)
    assert not np.allclose(last.params["decoder"]["output"]["bias"], first.params["decoder"]["output"]["bias"])


SEARCH = r"holds a line search, .*: use a learning rate, e.g. optax.adam\(1e-3\)"
BAD_OPTIMIZERS: dict[str, tuple[Any, str]] = {
    "L-BFGS": (optax.lbfgs(), SEARCH),
    "zoom": (optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(5)), SEARCH),
    "backtracking": (optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)), SEARCH),
    "L-BFGS, accumulated": (optax.MultiSteps(optax.lbfgs(), 2), SEARCH),
    "L-BFGS of a network": (
        optax.multi_transform(
            {"encoder": optax.lbfgs(), "decoder": optax.sgd(0.1)}, {"encoder": "encoder", "decoder": "decoder"}
        ),
        SEARCH,
    ),
    "lookahead": (optax.lookahead(optax.sgd(0.1), 5, 0.5), "holds optax.lookahead, .*: use the optimizer inside it"),
    "a function": (optax.adam, r"an optax transformation, got the function adam: e.g. optax.adam\(1e-3\)"),
    "a name": ("adam", r"an optax transformation, got 'adam': e.g. optax.adam\(1e-3\)"),
    "a class": (optax.MultiSteps, "is the class MultiSteps: call it, with its options"),
}


@pytest.mark.parametrize("name", BAD_OPTIMIZERS)
def test_optimizers_that_cannot_work_are_named(name: str) -> None:
    optimizer, message = BAD_OPTIMIZERS[name]
    refused(lambda: small_vae(optimizer=optimizer), rf"^VAE.optimizer .*{message}")
    refused(lambda: small_gan(generator_optimizer=optimizer), rf"^GAN.generator_optimizer .*{message}")
    refused(lambda: small_gan(discriminator_optimizer=optimizer), rf"^GAN.discriminator_optimizer .*{message}")


# Networks.


class Full(nn.Module):
    """A discriminator that takes all."""

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        return nn.Dense(1)(nn.tanh(nn.Dense(8)(x.reshape(x.shape[0], -1))))[:, 0]


class Bare(Full):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        return Full.__call__.__wrapped__(self, x, train=True)  # type: ignore[attr-defined]


class Labelled(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None) -> jax.Array:
        return nn.Dense(1)(nn.tanh(nn.Dense(8)(x.reshape(x.shape[0], -1))))[:, 0]


class Trained(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(1)(nn.tanh(nn.Dense(8)(x.reshape(x.shape[0], -1))))[:, 0]


class Anything(nn.Module):
    @nn.compact
    def __call__(self, *args: Any, **kwargs: Any) -> jax.Array:
        assert len(args) == 1
        assert set(kwargs) == {"label", "train"}
        x = args[0]
        return nn.Dense(1)(nn.tanh(nn.Dense(8)(x.reshape(x.shape[0], -1))))[:, 0]


class Functions:
    """A network of two functions, with no call of its own."""

    def init(self, rngs: Any, x: jax.Array, label: Any = None, *, train: bool) -> Any:
        return Full().init(rngs, x, label, train=train)

    def apply(self, variables: Any, x: jax.Array, label: Any = None, *, train: bool, **kwargs: Any) -> Any:
        return Full().apply(variables, x, label, train=train, **kwargs)


@pytest.mark.parametrize("network", [Bare(), Labelled(), Trained(), Anything(), Functions(), nn.remat(Bare)()])
def test_networks_are_given_what_they_take(network: Any) -> None:
    """Each trains as the one that takes all, bit for bit; the rematerialised one to round-off."""
    got, expected = (train(small_gan(discriminator=d), 3, models.batch())[-1] for d in (network, Full()))
    same = close if type(network).__name__.startswith("Checkpoint") else equal
    same(jax.tree.leaves(got.discriminator_params), jax.tree.leaves(expected.discriminator_params))
    same(got.generator_params, expected.generator_params)


class BareNNX(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.output = nnx.Linear(models.LATENT_DIM, 16, rngs=rngs)

    def __call__(self, z: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(self.output(z)).reshape(-1, *models.IMAGE_SHAPE)


class Column(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x[:, 0]


class BareEncoder(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(models.LATENT_DIM)(x), nn.Dense(models.LATENT_DIM)(x)


class BarePrior(nn.Module):
    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("pseudo_inputs", nn.initializers.constant(0.5), (2, *models.IMAGE_SHAPE))


def flat(x: Any) -> Any:
    return x.reshape(x.shape[0], -1)


def test_a_sequential_discriminator_and_an_nnx_generator_train(key: jax.Array) -> None:
    gan = small_gan(
        generator=networks.from_nnx(BareNNX),
        discriminator=nn.Sequential((flat, nn.Dense(8), nn.tanh, nn.Dense(1), Column())),
    )
    first, *_, last = train(gan, 3)
    layer = last.generator_params["output"]
    z = jax.random.normal(key, (5, models.LATENT_DIM))
    expected = jax.nn.sigmoid(dense(layer, z)).reshape(5, *models.IMAGE_SHAPE)
    close(jaxgen.gan_generate(gan, last, z), expected)
    assert not np.allclose(layer["kernel"], first.generator_params["output"]["kernel"])
    assert models.finite(last)


def test_an_encoder_and_a_learnt_prior_without_arguments_train(key: jax.Array) -> None:
    vae = jaxgen.VAE(
        BareEncoder(), networks.MLPDecoder(models.IMAGE_SHAPE, (8,)), SGD, models.LATENT_DIM, prior=BarePrior()
    )
    first, *_, last = train(vae, 3)
    mean, _ = jaxgen.vae_encode(vae, last, BATCH)
    layer = last.params["encoder"]["Dense_0"]
    close(mean, dense(layer, flat(UNIT)), atol=1e-5)
    assert not np.allclose(last.params["prior"]["pseudo_inputs"], first.params["prior"]["pseudo_inputs"])
    assert jaxgen.vae_sample(vae, last, key, 4).shape == (4, *models.IMAGE_SHAPE)


class Conditional(nn.Module):
    num_classes: int | None = 10

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return nn.Dense(1)(flat(x))[:, 0]


class Otherwise(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        return nn.Dense(1)(flat(x))[:, 0]


class TwoInputs(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, noise: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(1)(flat(x) + noise)[:, 0]


class NoInput(nn.Module):
    @nn.compact
    def __call__(self, *, train: bool) -> jax.Array:
        return jnp.zeros(3)


def conditional(**fields: Any) -> jaxgen.GAN:
    return small_gan(generator=networks.MLPGenerator(models.IMAGE_SHAPE, (8,), num_classes=10), **fields)


EXPECTED = r"must be called as \(x, label=None, \*, train\), without those it needs not, got "
LABEL = (
    r"must take a label, as networks of this (GAN|VAE) have num_classes=10, got {}, which takes none: add label=None"
)
BAD_NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {
    "train by another name": (
        lambda: small_gan(discriminator=Otherwise()),
        rf"GAN.discriminator {EXPECTED}Otherwise\(x, training=False\): take train for training",
    ),
    "two inputs": (
        lambda: small_gan(discriminator=TwoInputs()),
        rf"GAN.discriminator {EXPECTED}TwoInputs\(x, noise, train\): take fields in place of other arguments",
    ),
    "no input": (lambda: small_gan(generator=NoInput()), rf"GAN.generator {EXPECTED}NoInput\(\*, train\)"),
    "a prior with an input": (
        lambda: with_prior(Bare()),
        r"VAE.prior must be called as \(\*, train\), .*got Bare\(x\)",
    ),
    "NNX with more inputs": (
        lambda: small_gan(generator=networks.from_nnx(TwoInputsNNX)),
        rf"GAN.generator {EXPECTED}TwoInputsNNX\(z, noise\)",
    ),
    "an NNX class": (
        lambda: small_gan(generator=BareNNX),
        r"GAN.generator .*the NNX module BareNNX: give jaxgen.networks.from_nnx\(BareNNX, ...\)",
    ),
    "an NNX module": (
        lambda: small_gan(generator=BareNNX(rngs=nnx.Rngs(0))),
        "GAN.generator .*the NNX module BareNNX: give jaxgen.networks.from_nnx",
    ),
    "batch statistics without train": (
        lambda: models.init(small_gan(discriminator=BatchNormed()), jax.random.key(0)),
        r"BatchNormed keeps batch statistics but its call takes no train, .*: add `\*, train: bool`",
    ),
    "num_classes without label": (
        lambda: small_gan(discriminator=Conditional()),
        "GAN.discriminator " + LABEL.format("Conditional"),
    ),
    "beside a conditional generator": (
        lambda: conditional(discriminator=Bare()),
        "GAN.discriminator " + LABEL.format("Bare"),
    ),
    "beside a conditional decoder": (
        lambda: jaxgen.VAE(
            BareEncoder(),
            networks.MLPDecoder(models.IMAGE_SHAPE, (8,), num_classes=10),
            SGD,
            models.LATENT_DIM,
        ),
        "VAE.encoder " + LABEL.format("BareEncoder"),
    ),
}


class TwoInputsNNX(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.output = nnx.Linear(models.LATENT_DIM, 16, rngs=rngs)

    def __call__(self, z: jax.Array, noise: jax.Array) -> jax.Array:
        return self.output(z) + noise


class BatchNormed(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(1)(nn.BatchNorm(use_running_average=False)(flat(x)))[:, 0]


def with_prior(prior: Any) -> jaxgen.VAE:
    return dataclasses.replace(small_vae(), prior=prior)


@pytest.mark.parametrize("name", BAD_NETWORKS)
def test_networks_that_cannot_be_called_are_named(name: str) -> None:
    make, message = BAD_NETWORKS[name]
    refused(make, f"^{message}")


def test_labels_may_be_left_aside_where_that_is_said(key: jax.Array) -> None:
    """By a label that is taken, in a pack, whose images are of several classes, and where no network knows classes."""
    for gan in (conditional(discriminator=Full()), conditional(discriminator=Bare(), packing=2)):
        state, _ = jaxgen.gan_step(gan, models.init(gan, key), models.batch(), key)
        assert models.finite(state)
    bare = small_gan(discriminator=Bare())
    states = [train(bare, 1, batch)[-1].discriminator_params for batch in (BATCH, models.batch())]
    equal(*states)


# What Flax has around modules.


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, _: Any = None) -> tuple[jax.Array, None]:
        return nn.tanh(nn.Dense(x.shape[-1])(x)), None


class Rematerialised(nn.Module):
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kind = nn.remat(Layer) if self.remat else Layer
        for i in range(2):
            x, _ = kind(name=f"layer_{i}")(flat(x))
        return nn.Dense(1)(x)[:, 0]


def test_rematerialised_layers_train_alike() -> None:
    got, expected = (train(small_gan(discriminator=Rematerialised(r)), 3)[-1] for r in (True, False))
    close(got, expected, rtol=1e-4, atol=1e-6)


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        layers = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return nn.Dense(1)(layers(name="layers")(flat(x), None)[0])[:, 0]


def test_scanned_layers_train(key: jax.Array) -> None:
    gan = small_gan(discriminator=Scanned())
    first, *_, last = train(gan, 3)
    before, after = (state.discriminator_params["layers"]["Dense_0"]["kernel"] for state in (first, last))
    assert before.shape == (3, 16, 16)
    assert (np.abs(after - before).max(axis=(1, 2)) > 1e-6).all()
    params = last.discriminator_params
    x = jax.random.uniform(key, (5, *models.IMAGE_SHAPE))
    logits, _ = modules.apply(Scanned(), params, {}, x, train=False, key=key)
    hidden = flat(x)
    for i in range(3):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"]["Dense_0"])
        hidden = np.tanh(dense(layer, hidden))
    close(logits, dense(params["Dense_0"], hidden)[:, 0])


class Watching(nn.Module):
    """An encoder with a collection of its own: the mean image so far, which it subtracts."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        mean = self.variable("seen", "mean", jnp.zeros, x.shape[1:])
        if train and not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * jnp.mean(x, axis=0)
        x = flat(x - mean.value[None])
        return nn.Dense(models.LATENT_DIM)(x), nn.Dense(models.LATENT_DIM)(x)


def test_own_collections_are_kept_and_change_in_training_alone(key: jax.Array) -> None:
    vae = dataclasses.replace(small_vae(), encoder=Watching())
    first, second, third = train(vae, 2)
    mean = UNIT.mean(axis=0)
    for state, share in ((first, 0.0), (second, 0.1), (third, 0.19)):
        close(state.collections["encoder"]["seen"]["mean"], share * mean)
    layer = third.params["encoder"]["Dense_0"]
    encoded, _ = jaxgen.vae_encode(vae, third, BATCH)
    close(encoded, dense(layer, flat(UNIT - 0.19 * mean)), atol=1e-5)


class Boxed(nn.Module):
    partitioned: bool

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        kernel: Any = nn.initializers.lecun_normal()
        if self.partitioned:
            kernel = nn.with_partitioning(kernel, (None, "model"))
        return jax.nn.sigmoid(nn.Dense(16, kernel_init=kernel)(z)).reshape(-1, *models.IMAGE_SHAPE)


def test_partitioned_parameters_train_alike_and_keep_their_names() -> None:
    got, expected = (train(small_gan(generator=Boxed(p), ema_decay=0.5), 3)[-1] for p in (True, False))
    kernel = got.generator_params["Dense_0"]["kernel"]
    assert isinstance(kernel, nn.Partitioned)
    assert kernel.names == (None, "model")
    equal(nn.meta.unbox(got.generator_params), expected.generator_params)
    equal(nn.meta.unbox(got.ema), expected.ema)


# Losses, likelihoods and what else a spec holds.

PAIR = "GAN.loss must be a pair of losses, generator and discriminator, got {}: use one of jaxgen.losses: hinge, "
LIKELIHOOD = (
    "VAE.likelihood must have log_prob, mean and sample, got {}: use one of jaxgen.losses: bernoulli, .*gaussian"
)
BAD_FIELDS: dict[str, tuple[Callable[[], Any], str]] = {
    "a loss's name": (lambda: small_gan(loss="hinge"), PAIR.format("'hinge'")),
    "half a loss": (
        lambda: small_gan(loss=losses.hinge_discriminator_loss),
        PAIR.format("the function hinge_discriminator_loss"),
    ),
    "a loss's class": (
        lambda: small_gan(loss=losses.AdversarialLoss),
        "GAN.loss is the class AdversarialLoss: call it",
    ),
    "a penalty's class": (lambda: small_gan(penalties=(losses.R1,)), "GAN.penalties is the class R1: call it"),
    "a penalty's name": (
        lambda: small_gan(penalties=("R1",)),
        r"GAN.penalties must hold penalties, got 'R1': use of jaxgen.losses: GradientPenalty\(\), R1\(\)",
    ),
    "an augmentation's class": (
        lambda: small_gan(augmentation=augmentation.DiffAugment),
        "GAN.augmentation is the class DiffAugment: call it",
    ),
    "an augmentation's name": (
        lambda: small_gan(augmentation="diffaugment"),
        r"GAN.augmentation must be a function .* got 'diffaugment': e.g. jaxgen.augmentation.DiffAugment\(\)",
    ),
    "a network's class": (
        lambda: small_gan(generator=networks.MLPGenerator),
        "GAN.generator is the class MLPGenerator: call it",
    ),
    "an encoder's class in a tuple": (
        lambda: jaxgen.VAE((networks.MLPEncoder,), (networks.MLPDecoder,), SGD, (2,)),
        "VAE.encoder is the class MLPEncoder: call it",
    ),
    "a schedule's class": (lambda: small_vae(beta=schedules.Linear), "VAE.beta is the class Linear: call it"),
    "a number in words": (lambda: small_vae(beta="1"), "VAE.beta must be a number at least 0, or a schedule, got '1'"),
    "a likelihood's class": (
        lambda: small_vae(likelihood=losses.Gaussian),
        "VAE.likelihood is the class Gaussian: call it, with its options",
    ),
    "a likelihood's name": (lambda: small_vae(likelihood="bernoulli"), LIKELIHOOD.format("'bernoulli'")),
    "half a likelihood": (
        lambda: small_vae(likelihood=losses.gaussian_kl),
        LIKELIHOOD.format("the function gaussian_kl"),
    ),
    "an objective's name": (
        lambda: small_vae(objective="elbo"),
        r"VAE.objective must be a function of log-weights \[K, B\], got 'elbo': use one of jaxgen.losses: dreg, elbo",
    ),
    "an objective's class": (lambda: small_vae(objective=losses.Objective), "VAE.objective is the class Objective"),
    "a prior's class": (
        lambda: with_prior(networks.VampPrior),
        "VAE.prior is the class VampPrior: call it",
    ),
    "a prior's name": (lambda: with_prior("vamp"), "VAE.prior must be None or a network"),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_what_cannot_be_a_field_is_named(name: str) -> None:
    make, message = BAD_FIELDS[name]
    refused(make, f"^{message}")
