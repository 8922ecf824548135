"""How GANs are judged in papers: Parzen windows, a discriminator's features, and what a 2014 training needs."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.reproduction import gan_measures
from experiments.reproduction.gan_measures import (
    LinearFeatures,
    Parzen,
    discriminator_features,
    error_rates,
    linear_errors,
    max_pool_to,
    settle_statistics,
    svm_loss,
    train_svms,
)
from jaxgen import data, gan_init, gan_sample, modules, networks, schedules
from jaxgen.cli import parsing as options
from jaxgen.training.run import to_plain
from tests.test_data import write_idx, write_pictures

SHAPE = (8, 8, 1)


def random_images(num: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)


class FakeRun:
    """A run of a tiny GAN whose checkpoints are states made here."""

    def __init__(self, states: dict[int, Any], spec: Any) -> None:
        self.states, self.spec = states, spec

    def steps(self) -> list[int]:
        return sorted(self.states)

    def restore(self, step: int | str) -> Any:
        return self.states[max(self.states) if step == "newest" else cast(int, step)]


def tiny_gan(**chosen: Any) -> tuple[Any, Any]:
    if chosen.get("architecture", "mlp") == "mlp":
        chosen = {"generator_hidden": (4,), "discriminator_hidden": (4,), **chosen}
    chosen.setdefault("latent_dim", 2)
    spec = options.GANOptions(**chosen).spec(SHAPE)
    return spec, gan_init(spec, jax.random.key(1), {"image": random_images(2)})


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    images = {"valid": random_images(12, seed=1), "test": random_images(5, seed=2)}
    monkeypatch.setattr(gan_measures, "load_split", lambda run, split: {"image": images[split]})
    return images


def log_likelihood(samples: np.ndarray, images: np.ndarray, sigma: float) -> np.ndarray:
    """Of each image, in double precision."""
    samples, images = (x.reshape(len(x), -1).astype(float) for x in (samples, images))
    densities = -np.square(images[:, None] - samples[None]).sum(2) / (2 * sigma**2)
    largest = densities.max(1)
    sums = largest + np.log(np.exp(densities - largest[:, None]).mean(1))
    return sums - samples.shape[1] * np.log(sigma * np.sqrt(2 * np.pi))


def test_parzen_is_the_density_of_the_test_images_with_the_width_of_others(
    splits: dict[str, np.ndarray],
) -> None:
    spec, state = tiny_gan()
    other = state._replace(ema=jax.tree.map(lambda leaf: leaf + 0.3, state.ema))
    run: Any = FakeRun({10: state, 20: other}, spec)
    measure = Parzen(num_samples=30, num_validation=7, validation="valid", split="test", checkpoints="kept")
    samples = {step: np.asarray(measure.samples(run, step)) for step in (10, 20)}
    assert samples[10].shape == (30, *SHAPE)
    valid, test = (splits[name] / 255 for name in ("valid", "test"))
    chosen = max(
        (log_likelihood(samples[step], valid[:7], sigma).mean(), sigma, step)
        for step in (10, 20)
        for sigma in measure.sigmas
    )
    expected = log_likelihood(samples[chosen[2]], test, chosen[1])
    found = measure(run, lambda *_: None)
    np.testing.assert_allclose(found["Parzen"], expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["standard error"], expected.std() / np.sqrt(5), rtol=1e-4)
    np.testing.assert_allclose(found["Parzen of validation images"], chosen[0], rtol=1e-5)
    assert (found["sigma"], found["step"]) == chosen[1:]
    newest = dataclasses.replace(measure, checkpoints="newest")(run, lambda *_: None)
    assert newest["step"] == 20


def test_parzen_samples_are_of_the_average_or_of_the_generator(splits: dict[str, np.ndarray]) -> None:
    spec, state = tiny_gan()
    run: Any = FakeRun({1: state._replace(ema=jax.tree.map(jnp.zeros_like, state.ema))}, spec)
    average = Parzen(num_samples=600).samples(run, 1)
    np.testing.assert_array_equal(average, np.full((600, *SHAPE), 0.5, np.float32))
    own = np.asarray(Parzen(num_samples=600, average=False).samples(run, 1))
    assert len(np.unique(own[:, 0, 0, 0])) > 590  # two rounds of different latents
    raw: Any = state._replace(ema=None)
    assert gan_sample(spec, raw, jax.random.key(0), 1).shape == (1, *SHAPE)


def test_max_pooling_to_a_grid() -> None:
    x = jnp.arange(8.0)[None, :, None, None] + 10.0 * jnp.arange(8.0)[None, None, :, None]
    np.testing.assert_array_equal(max_pool_to(x, 4)[0, :, :, 0], x[0, 1::2, 1::2, 0])
    # Seven pixels: cells 0-1, 1-3, 3-5 and 5-6, each with the border it shares.
    uneven = jnp.arange(7.0)[None, :, None, None] * jnp.ones((1, 1, 7, 1))
    np.testing.assert_array_equal(max_pool_to(uneven, 4)[0, :, 0, 0], [1, 3, 5, 6])
    np.testing.assert_array_equal(max_pool_to(x[:, :4, :4], 4), x[:, :4, :4])


def test_features_are_all_activations_and_of_the_weights() -> None:
    spec, state = tiny_gan(architecture="dcgan", width=2)
    images = jnp.asarray(random_images(3))
    params, collections = state.discriminator_params, state.discriminator_collections
    found = discriminator_features(spec, params, collections, images, grid=2)
    assert found.shape == (3, 2 * 2 * (2 + 4))
    # The first layer by hand: a convolution, and the rectifier.
    layer = params["features"]["down_0"]
    convolved = networks.conv(2.0 * images / 255.0 - 1.0, layer["kernel"], (2, 2)) + layer["bias"][None, None, None]
    first = max_pool_to(networks.leaky_relu(convolved), 2).reshape(3, -1)
    np.testing.assert_allclose(found[:, :8], first, rtol=1e-5, atol=1e-6)
    changed = jax.tree.map(lambda leaf: -leaf, params)
    assert np.all(np.abs(discriminator_features(spec, changed, collections, images, grid=2) - found).max(1) > 1e-4)
    # Asking for them changes nothing else, and a training does not keep them.
    plain = modules.apply(spec.discriminator, params, collections, images / 255.0, train=False, key=jax.random.key(0))
    assert plain[0].shape == (3,)
    assert set(plain[1]) == {"batch_stats"}
    with pytest.raises(ValueError, match="keeps no activations"):
        discriminator_features(*tiny_gan()[:1], tiny_gan()[1].discriminator_params, {}, images)


def test_statistics_settle_on_those_of_the_images() -> None:
    spec, state = tiny_gan(architecture="dcgan", width=2)
    images, params = random_images(20), state.discriminator_params
    settled = settle_statistics(spec, params, state.discriminator_collections, images, passes=120)
    layers: Any = {"params": params, **settled}
    _, kept = cast(Any, spec.discriminator).apply(
        layers, images / 255.0, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    before = kept["intermediates"]["features"]["down_1"]["__call__"][0]
    mean = settled["batch_stats"]["features"]["norm_1"]["normalization"]["mean"]
    np.testing.assert_allclose(mean, before.mean((0, 1, 2)), rtol=1e-3, atol=1e-6)


def blobs(num: int, seed: int, spread: float = 0.05) -> dict[str, np.ndarray]:
    """Three groups of points in the plane, each opposite to the others."""
    generator = np.random.default_rng(seed)
    label = np.arange(num) % 3
    centers = np.array([[1.0, 0.0], [-0.5, 0.87], [-0.5, -0.87]])
    image = centers[label] + spread * generator.normal(size=(num, 2))
    return {"image": image.astype(np.float32), "label": label.astype(np.int32)}


def test_the_svm_is_at_the_minimum_of_its_objective() -> None:
    examples = blobs(60, 0, spread=0.6)
    features = jnp.concatenate([jnp.asarray(examples["image"]), jnp.ones((60, 1))], axis=1)
    signs = 2.0 * jax.nn.one_hot(examples["label"], 3) - 1.0
    constants = jnp.asarray([0.1, 10.0])
    weights = train_svms(features, signs, constants)
    gradients = jax.vmap(jax.grad(svm_loss), in_axes=(0, None, None, 0))(weights, features, signs, constants)
    starts = jax.vmap(jax.grad(svm_loss), in_axes=(0, None, None, 0))(0 * weights, features, signs, constants)
    for gradient, start in zip(gradients, starts, strict=True):
        assert float(optax.tree.norm(gradient)) < 1e-4 * float(optax.tree.norm(start))
    # One example at x = (1, 0, 0), and nothing to learn from the others: W = 2 C (s - W), so W = 2 C s / (1 + 2 C).
    one = train_svms(jnp.zeros((60, 3)).at[0, 0].set(1.0), signs, constants)
    expected = np.asarray([[0.2 / 1.2], [20 / 21]]) * np.asarray(signs[0])[None]
    np.testing.assert_allclose(one[:, 0], expected, rtol=1e-4)


def test_classifiers_separate_what_can_be_separated() -> None:
    labelled, validation, test = (blobs(90, seed) for seed in range(3))
    errors, constant = linear_errors(lambda x: x, labelled, validation, test, 5, 3, (0.1, 1.0, 10.0))
    np.testing.assert_array_equal(errors, np.zeros(3))
    assert constant in (0.1, 1.0, 10.0)
    shuffled = {**test, "label": (test["label"] + 1) % 3}
    errors, _ = linear_errors(lambda x: x, labelled, validation, shuffled, 5, 3, (0.1, 1.0, 10.0))
    np.testing.assert_array_equal(errors, np.ones(3))


def test_the_regularisation_is_chosen_on_the_validation_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where test and validation images want different ones, validation decides."""
    per_constant = {"valid": jnp.asarray([0.3, 0.1, 0.2]), "test": jnp.asarray([0.0, 0.9, 0.5])}
    labelled, validation, test = (blobs(30, seed) for seed in range(3))
    sizes = {20: "valid", 30: "test"}
    validation = {name: array[:20] for name, array in validation.items()}
    monkeypatch.setattr(gan_measures, "error_rates", lambda weights, features, labels: per_constant[sizes[len(labels)]])
    errors, constant = linear_errors(lambda x: x, labelled, validation, test, 5, 2, (0.1, 1.0, 10.0))
    assert constant == 1.0
    np.testing.assert_allclose(errors, [0.9, 0.9], rtol=1e-6)


def test_error_rates() -> None:
    weights = jnp.asarray([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    features, labels = jnp.eye(2)[jnp.asarray([0, 1, 1, 0])], jnp.asarray([0, 1, 1, 1])
    np.testing.assert_allclose(error_rates(weights, features, labels), [0.25, 0.75])


def test_linear_features_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that differ in which half is bright: any of the three kinds of features tells them apart."""
    images = np.zeros((40, *SHAPE), np.uint8)
    label = np.arange(40, dtype=np.int32) % 2
    images[label == 0, :4], images[label == 1, 4:] = 200, 200
    images += np.random.default_rng(0).integers(0, 50, images.shape, dtype=np.uint8)
    monkeypatch.setattr(gan_measures, "load_split", lambda run, split: {"image": images, "label": label})
    spec, state = tiny_gan(architecture="dcgan", width=2)
    run: Any = FakeRun({1: state}, spec)
    found = LinearFeatures(per_class=5, draws=2, regularizations=(10.0,), grid=2)(run, lambda *_: None)
    for name in ("error", "error of pixels", "error of random weights"):
        assert (found[name], found[f"{name}, standard error"], found[f"{name}, C"]) == (0.0, 0.0, 10.0)


def test_weights_begin_in_a_range() -> None:
    network = networks.MLPGenerator((3, 3, 1), (50,), initialization=("uniform", 0.05))
    params = network.init(jax.random.key(0), jnp.zeros((1, 20)), train=False)["params"]
    kernels = [params["hidden_layers"]["Dense_0"]["kernel"], params["output"]["kernel"]]
    for kernel in kernels:
        assert 0.04 < float(jnp.abs(kernel).max()) <= 0.05
        assert abs(float(jnp.std(kernel)) - 0.05 / np.sqrt(3)) < 0.003
    with pytest.raises(ValueError, match=r"MLPGenerator.initialization must be above 0, got \('uniform', 0.0\)"):
        networks.MLPGenerator((3,), initialization=("uniform", 0.0))


def test_options_of_2014() -> None:
    arguments = (
        "gan --architecture maxout --optimizer sgd --generator-learning-rate 0.1 --discriminator-learning-rate 0.05 "
        "--learning-rate-divisor 1.000004 --momentum 0.5 --final-momentum 0.7 --momentum-steps 1000 "
        "--generator-initial-range 0.05 --generator-hidden 4 --ema-decay None"
    )
    parsed: Any = options.parse(arguments.split())
    spec = parsed.spec(SHAPE)
    assert (spec.generator, spec.ema_decay) == (
        networks.MLPGenerator(SHAPE, (4,), networks.leaky_relu, initialization=("uniform", 0.05)),
        None,
    )
    rates = dict(spec.generator_optimizer.arguments)
    np.testing.assert_allclose(rates["learning_rate"](100_000), 0.1 / 1.000004**100_000, rtol=1e-4)
    np.testing.assert_allclose(rates["learning_rate"](10_000_000), 1e-6, rtol=1e-6)
    np.testing.assert_allclose(dict(spec.discriminator_optimizer.arguments)["learning_rate"](0), 0.05, rtol=1e-6)
    assert rates["momentum"] == schedules.Linear(0.5, 0.7, 1000)
    # Descent by hand: the velocity is the gradient and half of the one before.
    state = spec.generator_optimizer.init({"w": jnp.zeros(())})
    first, state = spec.generator_optimizer.update({"w": jnp.ones(())}, state)
    second, state = spec.generator_optimizer.update({"w": jnp.ones(())}, state)
    np.testing.assert_allclose([first["w"], second["w"]], [-0.1, -0.15], rtol=1e-3)


@pytest.mark.parametrize(
    ("chosen", "match"),
    [
        ({"learning_rate_divisor": 0.5}, "--learning-rate-divisor must be at least 1"),
        ({"final_momentum": 0.7}, "--final-momentum needs the --momentum-steps"),
        ({"burn_in": 10}, "--burn-in is for adam"),
    ],
)
def test_options_of_sgd_that_make_no_sense(chosen: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        options.GANOptions(optimizer="sgd", **chosen).spec(SHAPE)


@pytest.mark.parametrize("chosen", [{"learning_rate_divisor": 1.1}, {"final_momentum": 0.7}, {"momentum_steps": 5}])
def test_options_of_sgd_are_not_for_adam(chosen: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="are for sgd: leave them out"):
        options.GANOptions(**chosen).spec(SHAPE)


def test_b1_is_not_for_rmsprop() -> None:
    with pytest.raises(ValueError, match=r"--b1 is for adam, got 0\.5"):
        options.VAEOptions(optimizer="rmsprop", b1=0.5).spec(SHAPE)


def test_the_identity_of_runs_with_default_options_is_what_it_was() -> None:
    plain = to_plain(options.GANOptions().spec((28, 28, 1)))
    given = {name: value for name, value in plain["generator"].items() if value is not None}
    assert given == {
        "type": "MLPGenerator",
        "image_shape": [28, 28, 1],
        "hidden": [256, 512],
        "activation": {"named": "leaky_relu"},
        "output_activation": {"named": "sigmoid"},
        "dtype": "float32",
    }
    assert plain["generator_optimizer"] == {"optimizer": "adam", "b1": 0.5, "b2": 0.999, "learning_rate": 2e-4}


SLICES = {
    "train[:7]": slice(0, 7),
    "train[7:]": slice(7, 30),
    "train[5:8]": slice(5, 8),
    "train[-4:]": slice(26, 30),
    "train[:-25]": slice(0, 5),
    "train[:50%]": slice(0, 15),
    "train[-10%:]": slice(27, 30),
    "train[:]": slice(0, 30),
}


def write_sets(path: Path) -> dict[str, str]:
    images, labels = random_images(30, (4, 4)), np.arange(30, dtype=np.uint8) % 10
    idx, gzipped = path / "idx", path / "gzipped"
    for folder, ending in ((idx, ""), (gzipped, ".gz")):
        folder.mkdir()
        write_idx(folder / f"train-images-idx3-ubyte{ending}", images)
        write_idx(folder / f"train-labels-idx1-ubyte{ending}", labels)
    arrays: dict[str, Any] = {"train_image": images[..., None], "train_label": labels}
    arrays |= {"test_image": images[:3, ..., None], "test_label": labels[:3]}  # or some of train would be held out
    np.savez(path / "stored.npz", **arrays)
    np.savez_compressed(path / "packed.npz", **arrays)
    archives = {name: f"npz:{path}/{name}.npz" for name in ("stored", "packed")}
    return {"idx": f"idx:{idx}", "gzipped": f"idx:{gzipped}", **archives}


@pytest.mark.parametrize("kind", ["idx", "gzipped", "stored", "packed"])
def test_slices_of_files(tmp_path: Path, kind: str) -> None:
    name = write_sets(tmp_path)[kind]
    whole = data.load(name, "train")
    for split, rows in SLICES.items():
        loaded, source = data.load(name, split), data.open_source(name, split)
        assert source.num_examples == rows.stop - rows.start
        places = np.arange(source.num_examples)
        for key in ("image", "label"):
            np.testing.assert_array_equal(loaded[key], whole[key][rows])
            np.testing.assert_array_equal(source.read(places)[key], whole[key][rows])
    half = data.load(name, "train[10:20]", rows=lambda num: slice(num // 2, num))
    np.testing.assert_array_equal(half["image"], whole["image"][15:20])
    assert source.read(np.array([3]))["image"].shape == (1, 4, 4, 1)


def test_slices_of_sets_that_are_held_out(tmp_path: Path) -> None:
    """The slice is of the split, not of the file."""
    images = random_images(20, (4, 4, 1))
    np.savez(tmp_path / "one.npz", image=images)
    name = f"npz:{tmp_path}/one.npz"
    kept = images[np.arange(20) % 10 != 9]
    np.testing.assert_array_equal(data.load(name, "train[8:11]")["image"], kept[8:11])
    np.testing.assert_array_equal(data.open_source(name, "train[8:11]").read(np.arange(3))["image"], kept[8:11])
    assert data.load("fashion_mnist_small", "train[:90%]")["image"].shape == (1800, 28, 28, 1)
    stacks = data.open_source("stacked:fashion_mnist_small", "train[:10]")
    assert stacks.num_examples == 128_000
    assert stacks.read(np.array([0]))["image"].shape == (1, 28, 28, 3)


def test_slices_of_folders(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train" / "boots", num=6)
    write_pictures(tmp_path / "test" / "boots", num=2)
    name = f"folder:{tmp_path}"
    whole = data.load(name, "train")["image"]
    np.testing.assert_array_equal(data.load(name, "train[2:5]")["image"], whole[2:5])
    np.testing.assert_array_equal(data.open_source(name, "train[2:5]").read(np.arange(3))["image"], whole[2:5])


@pytest.mark.parametrize(
    ("split", "match"),
    [
        ("train[:x]", "use slices such as"),
        ("train[", "use slices such as"),
        ("train[20:99]", "goes beyond its 30 images"),
        ("train[:-31]", "goes beyond its 30 images"),
        ("train[3:3]", "has no images: use a larger slice"),
        ("training[:3]", "unknown split 'training': use one of"),
    ],
)
@pytest.mark.parametrize("read", [data.load, data.open_source])
def test_slices_that_files_do_not_have(tmp_path: Path, split: str, match: str, read: Any) -> None:
    with pytest.raises(ValueError, match=match):
        read(write_sets(tmp_path)["idx"], split)
