"""The image tokenizer: its losses and a whole step against equations written out, and what a trained one is asked."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxgen
from jaxgen import losses, networks, tokenizer, weights
from jaxgen.adversary import discriminator_update
from jaxgen.evaluation.during_training import Evaluation
from jaxgen.families import family_of
from jaxgen.keys import named_key, step_key
from jaxgen.plain import optimizer
from tests import models

BOTTLENECKS: dict[str, Any] = {
    "kl": networks.KLBottleneck(2),
    "fsq": networks.FSQBottleneck((3, 4)),
    "vq": networks.VQBottleneck(5, 3),
    "averages": networks.VQBottleneck(5, 3, normalized=False, decay=0.9),
    "lfq": networks.LFQBottleneck(3),
}
LEARNT = ("params", "collections")


def but_slow(*names: str, usual: str = "averages") -> list[Any]:
    """The names of bottlenecks: one, and those that wait for the slow tests."""
    return [usual, *(pytest.param(name, marks=pytest.mark.slow) for name in names or BOTTLENECKS if name != usual)]


def images(num: int = 16, height: int = 4, width: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(seed).integers(0, 256, (num, height, width, 1), dtype=np.uint8)}


def floats(batch: dict[str, np.ndarray]) -> jax.Array:
    return jnp.asarray(batch["image"], jnp.float32) / 255


def plain(**fields: Any) -> jaxgen.Tokenizer:
    """A tokenizer without a discriminator."""
    return models.tokenizer(**{"discriminator": None, "discriminator_optimizer": None, **fields})


@functools.cache
def trained(name: str) -> tuple[jaxgen.Tokenizer, jaxgen.TokenizerState]:
    """A tokenizer of each bottleneck after a few steps, used by its moving average."""
    spec = plain(bottleneck=BOTTLENECKS[name], ema_decay=0.5, optimizer=optax.adam(1e-2))
    key = jax.random.key(0)
    state = jaxgen.tokenizer_init(spec, key, images())
    for seed in range(4):
        state, _ = jaxgen.tokenizer_step(spec, state, images(seed=seed), key)
    return spec, state


def made_of(spec: Any, params: Any, x: jax.Array) -> tuple[Any, jax.Array]:
    """What bottleneck and decoder make of images, with networks that draw nothing and have no collections."""
    bottled = spec.bottleneck.apply(
        {"params": params["bottleneck"]}, spec.encoder.apply({"params": params["encoder"]}, x, train=True), train=True
    )
    return bottled, spec.decoder.apply({"params": params["decoder"]}, bottled.latents, train=True)


def judged(spec: Any, params: Any, x: jax.Array) -> jax.Array:
    return spec.discriminator.apply({"params": params}, x, train=False)


def test_reconstruction_errors_by_hand() -> None:
    made, right = jnp.array([[[0.0, 1.0]], [[0.5, 2.0]]]), jnp.array([[[0.0, 0.5]], [[0.0, -1.0]]])
    np.testing.assert_allclose(losses.absolute_error(made, right), [0.25, 1.75])
    np.testing.assert_allclose(losses.squared_error(made, right), [0.125, 4.625])
    for distance in (losses.absolute_error, losses.squared_error):
        with pytest.raises(ValueError, match="shape"):
            distance(made, right[:1])
        with pytest.raises(TypeError, match="images must be float"):
            distance(made, jnp.zeros((2, 1, 2), jnp.uint8))


def test_lecam_penalty_by_hand() -> None:
    """At averages of 0.3 and -0.2: only what is past the other side's average costs."""
    real, fake = jnp.array([2.0, -1.0, 0.5]), jnp.array([-0.7, 1.0, 0.1])
    found = losses.lecam_penalty(real, fake, jnp.float32(0.3), jnp.float32(-0.2))
    np.testing.assert_allclose(found, [2.2**2 + 1.0**2, 0.0, 0.7**2 + 0.2**2], rtol=1e-6)
    with pytest.raises(ValueError, match=r"one logit per example \[B\]"):
        losses.lecam_penalty(real[None], fake[None], jnp.float32(0.3), jnp.float32(-0.2))


@pytest.mark.slow
def test_lecam_averages_follow_the_logits(key: jax.Array) -> None:
    spec = models.tokenizer(
        discriminator=models.Patches(dropout_rate=0.0),
        discriminator_optimizer=optax.sgd(0.3),
        loss=losses.least_squares,
        lecam_weight=0.5,
    )
    state = jaxgen.tokenizer_init(spec, key, images())
    # As if after many steps, such that both terms are there.
    state = state._replace(
        hyperparams={
            **state.hyperparams,
            "real_logit_average": jnp.float32(0.8),
            "fake_logit_average": jnp.float32(-0.4),
        }
    )
    fakes = floats(images(seed=5))
    averages = {"real": 0.8, "fake": -0.4}
    for seed in range(4):
        batch = images(seed=seed)
        real, fake = (np.asarray(judged(spec, state.discriminator_params, x)).ravel() for x in (floats(batch), fakes))
        penalty = np.maximum(real - averages["fake"], 0) ** 2 + np.maximum(averages["real"] - fake, 0) ** 2
        own = 0.5 * (real - 1) ** 2 + 0.5 * fake**2
        state, metrics = discriminator_update(spec, state, batch, fakes, key)
        np.testing.assert_allclose(metrics["lecam"], penalty.mean(), rtol=1e-4)
        np.testing.assert_allclose(metrics["discriminator_loss"], (own + 0.5 * penalty).mean(), rtol=1e-4)
        averages = {
            "real": 0.999 * averages["real"] + 0.001 * real.mean(),
            "fake": 0.999 * averages["fake"] + 0.001 * fake.mean(),
        }
        for name, average in averages.items():
            np.testing.assert_allclose(state.hyperparams[f"{name}_logit_average"], average, rtol=1e-5)


def triangle(size: int, smaller: int) -> np.ndarray:
    """The weights of antialiased linear interpolation, [smaller, size]."""
    ratio = size / smaller
    centers = (np.arange(smaller) + 0.5) * ratio
    far = np.abs(np.arange(size)[None] + 0.5 - centers[:, None]) / ratio
    table = np.maximum(1 - far, 0)
    return table / table.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("latent", "factor", "scale", "expected"),
    [((4, 4), 2, 0.5, (2, 2)), ((4, 6), 4, 0.5, (2, 3)), ((6, 6), 2, 0.7, (4, 4)), ((3, 2), 2, 0.25, (1, 1))],
)
def test_equivariance_scales_both_in_proportion(
    latent: tuple[int, int], factor: int, scale: float, expected: tuple[int, int], key: jax.Array
) -> None:
    drawn = np.random.default_rng(0)
    z = drawn.normal(size=(2, *latent, 3)).astype(np.float32)
    x = drawn.normal(size=(2, factor * latent[0], factor * latent[1], 1)).astype(np.float32)
    moved = losses.Equivariance(scale, rotates=False)(jnp.asarray(z), jnp.asarray(x), key)
    assert [each.shape[1:3] for each in moved] == [expected, (factor * expected[0], factor * expected[1])]
    for found, given in zip(moved, (z, x), strict=True):
        rows, columns = (triangle(given.shape[axis], found.shape[axis]) for axis in (1, 2))
        np.testing.assert_allclose(found, np.einsum("ih,jw,bhwc->bijc", rows, columns, given), atol=1e-5)


@pytest.mark.parametrize(("sides", "turns"), [((4, 4), {0, 1, 2, 3}), ((4, 8), {0, 2})])
def test_equivariance_turns_both_alike(sides: tuple[int, int], turns: set[int]) -> None:
    drawn = np.random.default_rng(0)
    z = jnp.asarray(drawn.normal(size=(3, *sides, 2)), jnp.float32)
    x = jnp.asarray(drawn.normal(size=(3, 2 * sides[0], 2 * sides[1], 1)), jnp.float32)
    straight = losses.Equivariance(rotates=False)(z, x, jax.random.key(0))
    move = jax.jit(losses.Equivariance())
    found = set()
    for seed in range(20):
        moved = move(z, x, jax.random.key(seed))
        fits = [
            turn
            for turn in turns
            if all(
                np.allclose(np.rot90(np.asarray(old), turn, axes=(1, 2)), new, atol=1e-6)
                for old, new in zip(straight, moved, strict=True)
            )
        ]
        assert len(fits) == 1
        found.update(fits)
    assert found == turns


def test_equivariance_refuses_what_is_no_scale() -> None:
    with pytest.raises(ValueError, match=r"Equivariance\.scale must be in \(0, 1\), got 1\.0"):
        losses.Equivariance(1.0)
    with pytest.raises(TypeError, match=r"Equivariance\.rotates must be True or False, got 1"):
        losses.Equivariance(rotates=1)  # type: ignore[arg-type]


def written_out(
    spec: jaxgen.Tokenizer, state: jaxgen.TokenizerState, x: jax.Array, key: jax.Array
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """A step's gradients of all parameters, by the equations, for squares, hinge, R1, LeCam and a drawn turn; and its
    numbers. Networks draw nothing, and rates are 1."""
    weight = state.hyperparams

    def distance(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.mean(jnp.abs(a - b))

    def discriminator_loss(params: Any) -> jax.Array:
        _, y = made_of(spec, state.params, x)
        real, fake = judged(spec, params, x), judged(spec, params, y)
        slope = jax.grad(lambda x: jnp.sum(jnp.mean(judged(spec, params, x), axis=(1, 2))))(x)
        penalty = 0.5 * jnp.mean(jnp.sum(slope**2, axis=(1, 2, 3)))
        past = (jnp.maximum(real - weight["fake_logit_average"], 0) ** 2).mean()
        past = past + (jnp.maximum(weight["real_logit_average"] - fake, 0) ** 2).mean()
        hinge = jnp.mean(jnp.maximum(1 - real, 0)) + jnp.mean(jnp.maximum(1 + fake, 0))
        return hinge + 0.3 * penalty + 0.2 * past

    of_discriminator = jax.grad(discriminator_loss)(state.discriminator_params)
    updated = jax.tree.map(jnp.subtract, state.discriminator_params, of_discriminator)

    def parts(params: Any) -> dict[str, jax.Array]:
        bottled, y = made_of(spec, params, x)
        seen = [jnp.tanh(spec.discriminator.apply({"params": updated}, each, method="before")) for each in (x, y)]
        unit = [each / jnp.sqrt((each**2).sum(-1, keepdims=True)) for each in seen]
        moved = losses.Equivariance()(
            bottled.latents, x, named_key(step_key(key, "tokenizer step", state.step), "equivariance")
        )
        turned = spec.decoder.apply({"params": params["decoder"]}, moved[0], train=True)
        return {
            "reconstruction": distance(y, x),
            "perceptual": jnp.mean(jnp.sum((unit[0] - unit[1]) ** 2, axis=-1)),
            "commitment": jnp.mean(bottled.numbers["commitment"]),
            "own": jnp.mean(bottled.loss),
            "equivariance": distance(turned, moved[1]),
            "adversarial": -jnp.mean(judged(spec, updated, y)),
        }

    def loss(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        found = parts(params)
        fidelity = 2.0 * found["reconstruction"] + 0.5 * found["perceptual"]
        without = fidelity + found["own"] + 0.7 * found["equivariance"]
        return without + 0.4 * found["adversarial"], {**found, "loss": without}

    (_, numbers), of_autoencoder = jax.value_and_grad(loss, has_aux=True)(state.params)
    return {"params": of_autoencoder, "discriminator_params": of_discriminator}, numbers


class Seen(models.Patches):
    """Patches without dropout, which say what they are before the activation."""

    dropout_rate: float = 0.0

    def before(self, x: jax.Array) -> jax.Array:
        return self.hidden(2.0 * x - 1.0)


def rich(**fields: Any) -> jaxgen.Tokenizer:
    """A tokenizer with every loss, whose networks draw nothing; rates are 1."""
    fields = {
        "bottleneck": networks.VQBottleneck(6, 3),
        "discriminator": Seen(),
        "optimizer": optax.sgd(1.0),
        "discriminator_optimizer": optax.sgd(1.0),
        "reconstruction_weight": 2.0,
        "perceptual": "discriminator",
        "perceptual_weight": 0.5,
        "adversarial_weight": 0.4,
        "equivariance": losses.Equivariance(),
        "equivariance_weight": 0.7,
        "lecam_weight": 0.2,
        "penalties": (losses.R1(),),
        "penalty_weight": 0.3,
        **fields,
    }
    return models.tokenizer(**fields)


def test_a_step_is_the_gradient_of_the_written_out_loss(key: jax.Array) -> None:
    spec = rich()
    state = jaxgen.tokenizer_init(spec, key, images())
    averages = {"real_logit_average": jnp.float32(0.3), "fake_logit_average": jnp.float32(-0.2)}
    state = state._replace(hyperparams={**state.hyperparams, **averages}, step=jnp.int32(7))
    stepped, metrics = jaxgen.tokenizer_step(spec, state, images(), key)
    gradients, numbers = jax.jit(functools.partial(written_out, spec))(state, floats(images()), key)
    for name, gradient in gradients.items():
        moved = jax.tree.map(jnp.subtract, getattr(state, name), getattr(stepped, name))
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 0.01
        chex.assert_trees_all_close(moved, gradient, rtol=1e-3, atol=2e-6)
    for name in ("reconstruction", "perceptual", "commitment", "equivariance", "loss"):
        np.testing.assert_allclose(metrics[name], numbers[name], rtol=1e-4)
    assert set(metrics) == {
        *("loss", "reconstruction", "perceptual", "commitment", "equivariance"),
        *("discriminator_loss", "generator_loss", "real_logit", "fake_logit", "penalty", "lecam"),
    }
    assert int(stepped.step) == 8
    assert all(value.dtype == jnp.float32 and value.shape == () for value in metrics.values())


@pytest.mark.slow
def test_the_adaptive_factor_by_finite_differences(key: jax.Array) -> None:
    """Both losses by each weight of the decoder's last kernel: the squared error is a parabola in it."""
    spec = rich(reconstruction=losses.squared_error, perceptual=None, adaptive_weight=True)
    state = jaxgen.tokenizer_init(spec, key, images())
    stepped, metrics = jaxgen.tokenizer_step(spec, state, images(), key)
    x = floats(images())
    bottled, _ = made_of(spec, state.params, x)
    kernel = state.params["decoder"]["output"]["kernel"]

    @jax.jit
    def at(kernel: jax.Array) -> jax.Array:
        params = {**state.params["decoder"], "output": {**state.params["decoder"]["output"], "kernel": kernel}}
        y = spec.decoder.apply({"params": params}, bottled.latents, train=True)
        adversarial = -jnp.mean(judged(spec, stepped.discriminator_params, y))
        return jnp.stack([2.0 * jnp.mean((y - x) ** 2), adversarial])

    step = 0.02
    slopes = []
    for place in range(kernel.size):
        moved = jnp.zeros(kernel.size).at[place].set(step).reshape(kernel.shape)
        slopes.append((np.asarray(at(kernel + moved), np.float64) - np.asarray(at(kernel - moved), np.float64)) / step)
    fidelity, adversarial = np.sqrt(np.sum(np.square(np.array(slopes) / 2), axis=0))
    np.testing.assert_allclose(metrics["adaptive_weight"], fidelity / (adversarial + 1e-4), rtol=5e-3)
    # And that is what the adversarial loss is multiplied by.
    times = float(metrics["adaptive_weight"])
    fixed = rich(reconstruction=losses.squared_error, perceptual=None, adversarial_weight=0.4 * times)
    expected, _ = jaxgen.tokenizer_step(fixed, jaxgen.tokenizer_init(fixed, key, images()), images(), key)
    chex.assert_trees_all_close(stepped.params, expected.params, rtol=1e-4, atol=1e-5)


def test_the_adaptive_factor_has_bounds() -> None:
    found = tokenizer.adaptive_factor(jnp.array([[3.0], [4.0]]), jnp.array([[0.0], [2.0]]))
    np.testing.assert_allclose(found, 5.0 / 2.0001, rtol=1e-6)
    assert float(tokenizer.adaptive_factor(jnp.ones(4), jnp.zeros(4))) == pytest.approx(1e4)
    assert float(tokenizer.adaptive_factor(jnp.zeros(4), jnp.zeros(4))) == 0.0


class Ends(nn.Module):
    """A decoder whose last layer has another name."""

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        return nn.ConvTranspose(1, (2, 2), (2, 2), name="last")(z)


@pytest.mark.slow
def test_the_adaptive_factor_needs_to_know_the_last_layer(key: jax.Array) -> None:
    spec = models.tokenizer(decoder=Ends(), adaptive_weight=True)
    with pytest.raises(ValueError, match=r"parameter output/kernel, got last: name that layer output"):
        jaxgen.tokenizer_init(spec, key, images())
    jaxgen.tokenizer_init(models.tokenizer(decoder=Ends()), key, images())


@pytest.mark.slow
def test_before_its_start_the_discriminator_does_not_play(key: jax.Array) -> None:
    spec = rich(adversarial_start=2, perceptual=None, adaptive_weight=True)
    nothing: dict[str, Any] = {"discriminator": None, "discriminator_optimizer": None, "perceptual": None}
    alone = rich(**nothing, adaptive_weight=False, lecam_weight=None, penalties=())
    state, other = (jaxgen.tokenizer_init(each, key, images()) for each in (spec, alone))
    chex.assert_trees_all_equal(state.params, other.params)
    played = ("discriminator_params", "discriminator_optimizer_state", "discriminator_collections")
    averages = ("real_logit_average", "fake_logit_average")
    for step in range(3):
        before = state
        state, metrics = jaxgen.tokenizer_step(spec, state, images(seed=step), key)
        other, expected = jaxgen.tokenizer_step(alone, other, images(seed=step), key)
        numbers = ("discriminator_loss", "generator_loss", "real_logit", "lecam", "penalty", "adaptive_weight")
        if step < 2:
            for name in played:
                chex.assert_trees_all_equal(getattr(state, name), getattr(before, name))
            assert all(float(state.hyperparams[name]) == 0.0 for name in averages)
            chex.assert_trees_all_close(state.params, other.params, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
            assert all(float(metrics[name]) == 0.0 for name in numbers)
        else:
            moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state, before)
            assert min(jax.tree.leaves(moved.discriminator_params["output"]["kernel"])) > 1e-4
            assert all(float(state.hyperparams[name]) != 0.0 for name in averages)
            apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.params, other.params)
            assert apart["decoder"]["output"]["kernel"] > 1e-4
            assert all(float(metrics[name]) != 0.0 for name in numbers)


@pytest.mark.slow
def test_the_moving_average_is_of_all_three(key: jax.Array) -> None:
    spec = plain(bottleneck=BOTTLENECKS["averages"], ema_decay=0.75)
    state = jaxgen.tokenizer_init(spec, key, images())
    expected = {name: getattr(state, name) for name in LEARNT}
    chex.assert_trees_all_equal(state.ema, expected)
    for seed in range(3):
        state, _ = jaxgen.tokenizer_step(spec, state, images(seed=seed), key)
        latest = {name: getattr(state, name) for name in LEARNT}
        expected = jax.tree.map(lambda a, b: 0.75 * np.asarray(a) + 0.25 * np.asarray(b), expected, latest)
    chex.assert_trees_all_close(state.ema, expected, atol=1e-6)
    assert set(state.ema["collections"]["bottleneck"]["codebook"]) == {"codes", "counts", "sums"}
    # And it is what is used.
    used = state._replace(ema=None, params=state.ema["params"], collections=state.ema["collections"])
    chex.assert_trees_all_close(
        jaxgen.tokenizer_reconstruct(spec, state, images()),
        jaxgen.tokenizer_reconstruct(plain(bottleneck=BOTTLENECKS["averages"]), used, images()),
        atol=1e-6,
    )


SPLIT = [images(5, seed=11), images(16, seed=12), images(3, seed=13)]


@pytest.mark.parametrize("name", but_slow())
def test_latents_are_normalised_by_what_is_measured(name: str) -> None:
    spec, state = trained(name)
    raw = np.concatenate([np.asarray(jaxgen.tokenizer_encode(spec, state, batch)) for batch in SPLIT], dtype=np.float64)
    assert raw.shape == (24, *spec.latent_shape)
    measured = tokenizer.tokenizer_settle(spec, state, SPLIT)
    np.testing.assert_allclose(measured["latent_mean"], raw.mean(axis=(0, 1, 2)), atol=1e-5)
    deviation = raw.std(axis=(0, 1, 2))
    np.testing.assert_allclose(measured["latent_std"], np.where(deviation > 0, deviation, 1.0), rtol=1e-4)
    settled = state._replace(hyperparams={**state.hyperparams, **measured})
    latents = np.concatenate([np.asarray(jaxgen.tokenizer_encode(spec, settled, batch)) for batch in SPLIT])
    np.testing.assert_allclose(latents.mean(axis=(0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(latents.std(axis=(0, 1, 2))[deviation > 0], 1.0, rtol=1e-4)
    # Decoding undoes it.
    batch = SPLIT[1]
    rebuilt = jaxgen.tokenizer_reconstruct(spec, settled, batch)
    decoded = jaxgen.tokenizer_decode(spec, settled, jaxgen.tokenizer_encode(spec, settled, batch))
    assert rebuilt.shape == batch["image"].shape
    np.testing.assert_allclose(decoded, rebuilt, atol=2e-5)
    np.testing.assert_allclose(rebuilt, jaxgen.tokenizer_reconstruct(spec, state, batch), atol=1e-6)


@pytest.mark.slow
def test_a_channel_that_says_nothing_keeps_its_size(key: jax.Array) -> None:
    spec = plain(bottleneck=BOTTLENECKS["kl"])
    state = jaxgen.tokenizer_init(spec, key, images())
    output = state.params["encoder"]["output"]
    still = {"kernel": output["kernel"].at[..., 1].set(0.0), "bias": output["bias"].at[1].set(0.3)}
    state = state._replace(params={**state.params, "encoder": {**state.params["encoder"], "output": still}})
    measured = tokenizer.tokenizer_settle(spec, state, SPLIT)
    np.testing.assert_allclose(measured["latent_mean"][1], 0.3, rtol=1e-6)
    assert float(measured["latent_std"][1]) == 1.0
    assert tokenizer.tokenizer_watch(spec, state, SPLIT) == {"active_channels": 1.0}
    with pytest.raises(ValueError, match="a split must hold at least one batch of images, got none"):
        tokenizer.tokenizer_settle(spec, state, [])


@pytest.mark.parametrize("name", but_slow("fsq", "vq", "lfq"))
def test_codes_make_the_image_again(name: str) -> None:
    spec, state = trained(name)
    codes = jaxgen.tokenizer_codes(spec, state, images())
    assert codes.shape == (16, 2, 2)
    assert codes.dtype == jnp.int32
    assert 0 <= int(codes.min()) < int(codes.max()) < spec.num_codes
    made = jaxgen.tokenizer_decode_codes(spec, state, codes)
    np.testing.assert_allclose(made, jaxgen.tokenizer_reconstruct(spec, state, images()), atol=1e-5)


@pytest.mark.parametrize("name", but_slow())
def test_what_a_split_shows(name: str) -> None:
    spec, state = trained(name)
    found = tokenizer.tokenizer_watch(spec, state, SPLIT)
    if name == "kl":
        raw = np.concatenate([np.asarray(jaxgen.tokenizer_encode(spec, state, batch)) for batch in SPLIT])
        assert found == {"active_channels": float((raw.var(axis=(0, 1, 2)) > 0.01).sum())}
        return
    codes = np.concatenate([np.asarray(jaxgen.tokenizer_codes(spec, state, batch)).ravel() for batch in SPLIT])
    _, counts = np.unique(codes, return_counts=True)
    shares = counts / counts.sum()
    assert set(found) == {"codes_used", "code_perplexity"}
    assert found["codes_used"] == pytest.approx(len(counts) / spec.num_codes)
    assert found["code_perplexity"] == pytest.approx(np.exp(-np.sum(shares * np.log(shares))), rel=1e-4)


def test_what_is_measured_of_images(key: jax.Array) -> None:
    spec, state = trained("averages")
    found = tokenizer.tokenizer_evaluate(spec, state, images(), key)
    off = np.asarray(jaxgen.tokenizer_reconstruct(spec, state, images()) - floats(images()))
    np.testing.assert_allclose(found["reconstruction"], np.abs(off).mean(axis=(1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(found["absolute_error"], np.abs(off).mean(axis=(1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(found["squared_error"], np.square(off).mean(axis=(1, 2, 3)), rtol=1e-4)
    assert set(found) == {"reconstruction", "absolute_error", "squared_error", "commitment"}


def test_an_evaluation_has_what_a_tokenizer_can_say(key: jax.Array) -> None:
    spec, state = trained("averages")
    split = {"image": np.concatenate([batch["image"] for batch in SPLIT])}
    evaluation = Evaluation(spec, split, key)
    measured, score = evaluation(state)
    assert set(measured) == {
        *("test_reconstruction", "test_absolute_error", "test_squared_error", "test_commitment"),
        *("test_codes_used", "test_code_perplexity"),
    }
    off = np.asarray(jaxgen.tokenizer_reconstruct(spec, state, split) - floats(split))
    np.testing.assert_allclose(measured["test_squared_error"], np.square(off).mean(), rtol=1e-4)
    assert score == -measured["test_squared_error"], "less of it is better"
    chex.assert_trees_all_close(
        evaluation.settled(state), tokenizer.tokenizer_settle(spec, state, SPLIT), rtol=1e-4, atol=1e-5
    )


class Repeats(nn.Module):
    """The latents themselves, each at four pixels."""

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        return jnp.repeat(jnp.repeat(z, 2, axis=1), 2, axis=2)


@pytest.mark.slow
def test_sampled_reconstructions_are_those_of_draws(key: jax.Array) -> None:
    """Under a decoder that shows the latents, a Gaussian: means 0 and squares 1 where it is standardised."""
    spec = plain(bottleneck=networks.KLBottleneck(1), decoder=Repeats())
    state = jaxgen.tokenizer_init(spec, key, images())
    mean, logvar = jnp.split(
        spec.encoder.apply({"params": state.params["encoder"]}, floats(images()), train=False), 2, axis=-1
    )
    np.testing.assert_allclose(jaxgen.tokenizer_reconstruct(spec, state, images())[:, ::2, ::2], mean, atol=1e-5)
    drawn = []
    for seed in range(60):
        found = jaxgen.tokenizer_reconstruct(spec, state, images(), jax.random.key(seed), sampled=True)
        drawn.append(np.asarray((found[:, ::2, ::2] - mean) / jnp.exp(0.5 * logvar)))
    values = np.stack(drawn)
    assert values.size == 3840
    assert abs(values.mean()) < 4 / np.sqrt(values.size)
    assert abs(np.square(values).mean() - 1.0) < 4 * np.sqrt(2 / values.size)
    correlations = np.corrcoef(values.reshape(60 * 16, 4).T) - np.eye(4)
    assert np.abs(correlations).max() < 0.15
    with pytest.raises(ValueError, match=r"sampled reconstructions need a key: pass jax\.random\.key"):
        jaxgen.tokenizer_reconstruct(spec, state, images(), sampled=True)


@pytest.mark.parametrize("name", but_slow("fsq"))
def test_codes_are_not_drawn(name: str, key: jax.Array) -> None:
    spec, state = trained(name)
    chex.assert_trees_all_equal(
        jaxgen.tokenizer_reconstruct(spec, state, images(), key, sampled=True),
        jaxgen.tokenizer_reconstruct(spec, state, images()),
    )


@pytest.mark.slow
def test_the_likelihood_is_a_distance_a_value(key: jax.Array) -> None:
    spec = models.kl_tokenizer()
    state = jaxgen.tokenizer_init(spec, key, images())
    likelihood: Any = spec.reconstruction
    batch = images()
    made = tokenizer.tokenizer_made(spec, state, jaxgen.tokenizer_encode(spec, state, batch))
    assert made.shape == (16, 4, 4, 2)
    expected = -np.asarray(likelihood.log_prob(made, floats(batch))) / 16
    found = tokenizer.tokenizer_evaluate(spec, state, batch)
    np.testing.assert_allclose(found["reconstruction"], expected, rtol=1e-4)
    np.testing.assert_allclose(
        jaxgen.tokenizer_reconstruct(spec, state, batch), likelihood.mean(made), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(found["kl"] >= 0, np.ones(16))
    _, metrics = jaxgen.tokenizer_step(spec, state, batch, key)
    assert set(metrics) == {"loss", "reconstruction", "kl"}
    np.testing.assert_allclose(metrics["loss"], metrics["reconstruction"] + 0.01 * metrics["kl"], rtol=1e-5)


def lenet_tokenizer(**fields: Any) -> jaxgen.Tokenizer:
    fields = {"perceptual": networks.LeNet(3, (2, 3), 4), "latent_shape": (8, 8, 2), **fields}
    return plain(**fields)


@pytest.mark.slow
def test_a_network_whose_features_are_compared(key: jax.Array) -> None:
    spec, batch = lenet_tokenizer(perceptual_weight=3.0), images(4, 16, 16)
    network: Any = spec.perceptual
    given = network.init(jax.random.key(5), floats(batch))["params"]
    state = jaxgen.tokenizer_init(spec, key, batch, perceptual=given)
    chex.assert_trees_all_equal(state.perceptual_params, given)
    rebuilt = spec.decoder.apply(
        {"params": state.params["decoder"]},
        spec.bottleneck.apply(
            {}, spec.encoder.apply({"params": state.params["encoder"]}, floats(batch), train=True), train=True
        ).latents,
        train=True,
    )
    stepped, metrics = jaxgen.tokenizer_step(spec, state, batch, key)
    distance = 0.0
    maps = [network.apply({"params": given}, x, method="features") for x in (floats(batch), rebuilt)]
    for a, b in zip(*maps, strict=True):
        units = [np.asarray(each) / np.linalg.norm(each, axis=-1, keepdims=True) for each in (a, b)]
        distance += np.square(units[0] - units[1]).sum(-1).mean()
    np.testing.assert_allclose(metrics["perceptual"], distance, rtol=1e-3)
    np.testing.assert_allclose(metrics["loss"], metrics["reconstruction"] + 3.0 * metrics["perceptual"], rtol=1e-5)
    chex.assert_trees_all_equal(stepped.perceptual_params, given)
    unlike = jaxgen.tokenizer_init(spec, key, batch).perceptual_params
    chex.assert_trees_all_equal_shapes_and_dtypes(unlike, given)
    assert not np.allclose(unlike["conv_0"]["kernel"], given["conv_0"]["kernel"])
    with pytest.raises(ValueError, match=r"the state has no parameters of Tokenizer\.perceptual"):
        jaxgen.tokenizer_step(spec, state._replace(perceptual_params={}), batch, key)


@pytest.mark.parametrize("name", but_slow("kl", "fsq"))
def test_images_of_another_size(name: str) -> None:
    spec, state = trained(name)
    state = state._replace(hyperparams={**state.hyperparams, **tokenizer.tokenizer_settle(spec, state, SPLIT)})
    larger = images(3, 8, 6)
    latents = jaxgen.tokenizer_encode(spec, state, larger)
    assert latents.shape == (3, 4, 3, spec.latent_shape[2])
    rebuilt = jaxgen.tokenizer_reconstruct(spec, state, larger)
    assert rebuilt.shape == (3, 8, 6, 1)
    np.testing.assert_allclose(jaxgen.tokenizer_decode(spec, state, latents), rebuilt, atol=2e-5)
    if name != "kl":
        codes = jaxgen.tokenizer_codes(spec, state, larger)
        assert codes.shape == (3, 4, 3)
        np.testing.assert_allclose(jaxgen.tokenizer_decode_codes(spec, state, codes), rebuilt, atol=2e-5)
    with pytest.raises(ValueError, match=r"multiples of 2, got \[3, 5, 6, 1\]"):
        jaxgen.tokenizer_encode(spec, state, images(3, 5, 6))


@pytest.mark.slow
def test_what_is_no_latent_and_no_image_is_refused(key: jax.Array) -> None:
    spec, state = trained("kl")
    with pytest.raises(ValueError, match=r"latents must be \[N, h, w, 2\], such as \[1, 2, 2, 2\], got shape \[3, 8\]"):
        jaxgen.tokenizer_decode(spec, state, jnp.zeros((3, 8)))
    with pytest.raises(TypeError, match="KLBottleneck has no codes: use tokenizer_encode, or a tokenizer with FSQ"):
        jaxgen.tokenizer_codes(spec, state, images())
    with pytest.raises(TypeError, match="KLBottleneck has no codes"):
        jaxgen.tokenizer_decode_codes(spec, state, jnp.zeros((1, 2, 2), jnp.int32))
    with pytest.raises(ValueError, match=r"a tokenizer takes images \[B, H, W, C\], got shape \[16, 4\]"):
        jaxgen.tokenizer_init(spec, key, {"image": np.zeros((16, 4), np.float32)})
    other = models.init(models.vae(), key)
    with pytest.raises(TypeError, match="must be a TokenizerState, got VAEState"):
        jaxgen.tokenizer_step(spec, other, images(), key)
    fsq, of_fsq = trained("fsq")
    with pytest.raises(ValueError, match="codes must be from 0 to 11, got values from 0 to 12"):
        jaxgen.tokenizer_decode_codes(fsq, of_fsq, jnp.array([[[0, 1], [2, 12]]]))
    with pytest.raises(ValueError, match=r"codes must be \[N, h, w\], such as \[1, 2, 2\], got \[2, 2\]"):
        jaxgen.tokenizer_decode_codes(fsq, of_fsq, jnp.zeros((2, 2), jnp.int32))
    with pytest.raises(TypeError, match="codes must be integers, got float32"):
        jaxgen.tokenizer_decode_codes(fsq, of_fsq, jnp.zeros((1, 2, 2)))


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a discriminator without an optimizer": (
        {"discriminator_optimizer": None},
        ValueError,
        "Tokenizer.discriminator and discriminator_optimizer go together",
    ),
    "an optimizer without a discriminator": ({"discriminator": None}, ValueError, "give both, or neither"),
    "a flat latent shape": ({"latent_shape": (4,)}, ValueError, r"latent_shape must be \(h, w, c\), got \(4,\)"),
    "no size": ({"latent_shape": (2, 0, 2)}, ValueError, r"Tokenizer.latent_shape must be .*at least 1"),
    "no distance": (
        {"reconstruction": 3},
        TypeError,
        "must be a distance or a likelihood, got 3: use one of .*absolut",
    ),
    "no features": (
        {"perceptual": "discriminator"},
        TypeError,
        "Tokenizer.perceptual must be 'discriminator' or a network with a method features, got MLPDiscriminator",
    ),
    "another word": ({"perceptual": "lenet"}, TypeError, "got 'lenet'"),
    "a perceptual discriminator without one": (
        {"perceptual": "discriminator", "discriminator": None, "discriminator_optimizer": None},
        TypeError,
        "with a method features, got None",
    ),
    "LeCam without a discriminator": (
        {"lecam_weight": 0.1, "discriminator": None, "discriminator_optimizer": None},
        ValueError,
        "lecam_weight, penalties and augmentation are for a discriminator",
    ),
    "a start before the first step": ({"adversarial_start": -1}, ValueError, "adversarial_start must be at least 0"),
    "a weight below zero": ({"adversarial_weight": -0.5}, ValueError, "adversarial_weight must be .*at least 0"),
    "a decay of 1": ({"ema_decay": 1.0}, ValueError, "ema_decay must be"),
    "no network": ({"bottleneck": 3, "latent_shape": (2, 2, 2)}, TypeError, "Tokenizer.bottleneck must be a network"),
    "a class": ({"encoder": networks.AutoencoderEncoder}, TypeError, "is the class AutoencoderEncoder: call it"),
    "a list": ({"penalties": [losses.R1()]}, TypeError, "must be hashable"),
}


@pytest.mark.parametrize("name", WRONG)
def test_specs_that_make_no_sense_are_refused(name: str) -> None:
    fields, error, message = WRONG[name]
    with pytest.raises(error, match=message) as caught:
        dataclasses.replace(models.tokenizer(), **fields)
    assert "\n" not in str(caught.value)


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "another latent shape": (
        {"latent_shape": (4, 4, 2)},
        r"latents of images \[4, 4, 1\] are \[2, 2, 2\], Tokenizer.latent_shape is \[4, 4, 2\]: give it \(2, 2, 2\)",
    ),
    "other channels than the bottleneck's": (
        {"encoder": networks.AutoencoderEncoder(3, 4, (1, 2), groups=2)},
        r"FSQBottleneck takes \[B, h, w, 2\], got \[16, 2, 2, 3\]: let the encoder end in 2 channels",
    ),
    "other channels than the images'": (
        {"decoder": networks.AutoencoderDecoder(3, 4, (1, 2), groups=2)},
        r"the decoder makes images of shape \[4, 4, 3\], the batch holds \[4, 4, 1\]: give it the channels of the data",
    ),
    "another factor": (
        {"decoder": networks.AutoencoderDecoder(1, 4, (1, 2, 2), groups=2)},
        r"the decoder makes images of shape \[8, 8, 1\], the batch holds \[4, 4, 1\]",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_networks_that_do_not_fit_are_refused(name: str, key: jax.Array) -> None:
    fields, message = UNFIT[name]
    with pytest.raises(ValueError, match=message) as caught:
        jaxgen.tokenizer_init(models.tokenizer(**fields), key, images())
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_file_of_weights_holds_it(tmp_path: Path, key: jax.Array) -> None:
    adam = optimizer("adam", learning_rate=1e-3)
    spec = models.tokenizer(
        bottleneck=BOTTLENECKS["averages"],
        optimizer=adam,
        discriminator_optimizer=adam,
        ema_decay=0.9,
        lecam_weight=0.01,
        equivariance=losses.Equivariance(0.25),
    )
    state = jaxgen.tokenizer_init(spec, key, images())
    for seed in range(3):
        state, _ = jaxgen.tokenizer_step(spec, state, images(seed=seed), key)
    state = state._replace(hyperparams={**state.hyperparams, **tokenizer.tokenizer_settle(spec, state, SPLIT)})
    path = tmp_path / "it.safetensors"
    weights.save_weights(path, spec, state, image_shape=(4, 4, 1), image_type="uint8")
    model: Any = jaxgen.load(path)
    assert model.spec == spec
    assert repr(model) == "Trained('it': tokenizer, images [4, 4, 1], 12 latents, 5 codes)"
    chex.assert_trees_all_equal_shapes_and_dtypes(model.state, state)
    chex.assert_trees_all_equal(model.state.hyperparams, state.hyperparams)
    chex.assert_trees_all_equal(model.state.discriminator_params, state.discriminator_params)
    for name in LEARNT:
        chex.assert_trees_all_equal(getattr(model.state, name), state.ema[name])
    chex.assert_trees_all_equal(model.state.ema, state.ema)
    chex.assert_trees_all_equal(model.state.optimizer_state, adam.init(state.params))
    given = images()["image"]
    encoded = model.encode(given)
    assert encoded.shape == (16, 12)
    np.testing.assert_allclose(
        encoded, jaxgen.tokenizer_encode(spec, state, images()).reshape(16, -1), rtol=1e-5, atol=1e-5
    )
    rebuilt = jaxgen.tokenizer_reconstruct(spec, state, images())
    np.testing.assert_allclose(model.decode(encoded), rebuilt, atol=2e-5)
    np.testing.assert_allclose(model.reconstruct(given, key), rebuilt, atol=1e-5)
    with pytest.raises(TypeError, match="it is a tokenizer, which has no prior to draw from: train a second stage"):
        model.sample(key, 4)
    with pytest.raises(ValueError, match="a search for latents needs latents with a prior, and a tokenizer has none"):
        model.invert(given, key)
    onward, _ = jaxgen.tokenizer_step(spec, model.state, images(), key)
    assert models.finite(onward)


@pytest.mark.parametrize("part", ["to_decode", "to_encode"])
@pytest.mark.parametrize("ema_decay", [pytest.param(None, marks=pytest.mark.slow), 0.9])
def test_what_is_left_out_is_not_needed(part: str, ema_decay: float | None, key: jax.Array) -> None:
    spec = models.tokenizer(bottleneck=BOTTLENECKS["averages"], ema_decay=ema_decay)
    family, state = family_of(spec), jaxgen.tokenizer_init(spec, key, images())
    z = family.encode(spec, state, images())
    reduced = getattr(family, part)(spec, state)
    if part == "to_decode":
        np.testing.assert_allclose(family.decode(spec, reduced, z), family.decode(spec, state, z), atol=1e-6)
    else:
        np.testing.assert_allclose(family.encode(spec, reduced, images()), z, atol=1e-6)
    left = {name for name in reduced._fields if jax.tree.leaves(getattr(reduced, name))}
    assert left == {"step", "hyperparams", *(LEARNT if ema_decay is None else ("ema",))}
