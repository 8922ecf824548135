"""Mode counting and the comparison of losses: the data, the networks, the measures and the random settings."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import load_config, lucic
from experiments.reproduction import mode_measures
from experiments.reproduction.mode_measures import FeatureDistance, Modes, StackedModes, mixture_modes
from jaxgen import data, metrics, modules, networks
from jaxgen.cli import runs
from jaxgen.cli.gan_options import GANOptions, InfoGANOptions
from jaxgen.cli.sweeping import plan as sweep_plan
from jaxgen.cli.sweeping import results as sweep_results
from jaxgen.cli.sweeping.plan import Plan, Range, draw_settings
from jaxgen.cli.sweeping.training import sweep
from jaxgen.data.mixtures import NUM_POINTS
from jaxgen.training.run import Run, differences, from_plain, to_plain

CENTERS = np.asarray(metrics.gaussian_grid())


def test_the_points_of_the_gaussians() -> None:
    """Of every centre as many as of the others, each with the deviation that is said; the test points are others."""
    train_points, test_points = (data.load("gaussians", split)["image"] for split in ("train", "test"))
    assert (train_points.shape, train_points.dtype, test_points.shape) == ((100_000, 2), np.float32, (10_000, 2))
    nearest = np.argmin(np.linalg.norm(train_points[:, None] - CENTERS[None], axis=2), axis=1)
    counts = np.bincount(nearest, minlength=25)
    assert abs(np.sum((counts - 4000) ** 2 / 4000) - 24) < 6 * np.sqrt(2 * 24)
    offsets = train_points - CENTERS[nearest]
    # Six standard errors of a mean and of a deviation, of 100,000 points.
    np.testing.assert_allclose(offsets.mean(axis=0), 0.0, atol=6 * 0.05 / np.sqrt(1e5))
    np.testing.assert_allclose(offsets.std(axis=0), 0.05, atol=6 * 0.05 / np.sqrt(2e5))
    assert abs(np.mean(offsets[:, 0] * offsets[:, 1])) < 6 * 0.05**2 / np.sqrt(1e5)
    assert not set(map(tuple, train_points[:1000])) & set(map(tuple, test_points))


def test_the_gaussians_are_always_the_same_however_they_are_read() -> None:
    points = data.load("gaussians", "test")["image"]
    source = data.open_source("gaussians", "test")
    assert (source.num_examples, source.image_shape, source.labels) == (10_000, (2,), False)
    places = np.array([9_999, 3, 3])
    np.testing.assert_array_equal(source.read(places)["image"], points[places])
    rows = data.load("gaussians", "test", rows=lambda num: slice(num // 2, num))["image"]
    np.testing.assert_array_equal(rows, points[5000:])
    # Each point depends on its place alone, so a gold value of the first ones holds for the set.
    np.testing.assert_allclose(points[:2], GOLD, atol=1e-6)


GOLD = [[4.0207906, 4.0585456], [0.0717851, -3.950979]]


def test_the_gaussians_refuse_what_points_do_not_have() -> None:
    with pytest.raises(ValueError, match="unknown split 'validation': use one of train, test"):
        data.load("gaussians", "validation")
    for choice in ({"image_size": 8}, {"color": "grey"}):
        with pytest.raises(ValueError, match="no size and no colour"):
            data.open_source("gaussians", "test", **choice)


def test_modes_of_exact_mixtures_and_of_collapsed_samples() -> None:
    """25 centres evenly; two of them, 3 to 1; points far from all; numbers that are not finite."""
    even = mixture_modes(np.repeat(CENTERS, 4, axis=0), CENTERS, 0.05)
    assert even == pytest.approx({"modes": 25.0, "good samples": 100.0, "reverse KL": 0.0}, abs=1e-6)
    samples = CENTERS[[0, 0, 0, 7]] + np.array([[0.1, 0.0], [0.0, -0.14], [0.5, 0.5], [0.0, 0.0]])
    found = mixture_modes(samples, CENTERS, 0.05)  # 0.5 aside is nearest to its centre, and not good
    assert (found["modes"], found["good samples"]) == (2.0, 75.0)
    np.testing.assert_allclose(found["reverse KL"], 0.75 * np.log(0.75 * 25) + 0.25 * np.log(0.25 * 25), rtol=1e-5)
    broken = np.concatenate([samples, [[np.nan, 0.0]]])
    assert mixture_modes(broken, CENTERS, 0.05)["good samples"] == pytest.approx(60.0)
    np.testing.assert_allclose(mixture_modes(broken, CENTERS, 0.05)["reverse KL"], found["reverse KL"])


def test_a_mixture_of_its_own_scale_is_mostly_good(key: jax.Array) -> None:
    """Within 3 deviations in the plane are 1 - exp(-4.5) = 98.89% of a Gaussian."""
    points = np.asarray(metrics.sample_gaussian_mixture(key, 20_000, jnp.asarray(CENTERS), data.GRID_SCALE))
    found = mixture_modes(points, CENTERS, data.GRID_SCALE)
    assert found["modes"] == 25
    assert abs(found["good samples"] - 98.889) < 6 * 100 * np.sqrt(0.9889 * 0.0111 / 20_000)
    assert found["reverse KL"] < 24 / 20_000 * 3  # about (K - 1) / (2 N)


class Stub:
    """Stands for a run whose model makes given images."""

    def __init__(self, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = images
        monkeypatch.setattr(mode_measures, "subject_of", lambda run, checkpoint: self)

    def sample(self, num: int, labels: Any, binary: bool, progress: Any) -> np.ndarray:
        assert (labels, binary) == (None, False)
        return self.images[:num]


def test_the_measure_of_modes_judges_as_many_samples_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    run: Any = Stub(np.repeat(CENTERS, 2, axis=0), monkeypatch)
    assert Modes(num_samples=10)(run, lambda *_: None)["modes"] == 5
    assert Modes()(run, lambda *_: None)["modes"] == 25


def test_the_measure_of_stacks_reads_each_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that knows a digit by its brightness: two modes, 3 to 1."""
    digits = np.array([[1, 2, 3], [1, 2, 3], [3, 2, 1], [1, 2, 3]])
    images = np.broadcast_to(digits[:, None, None, :] / 10.0, (4, 28, 28, 3)).astype(np.float32)

    def read(_: Any, channel: np.ndarray) -> Any:
        return type("Extracted", (), {"probabilities": np.eye(10)[np.rint(10 * channel[:, 0, 0, 0]).astype(int)]})

    monkeypatch.setattr(mode_measures.extractors, "extract", read)
    run: Any = Stub(images, monkeypatch)
    found = StackedModes()(run, lambda *_: None)
    assert found["modes"] == 2
    np.testing.assert_allclose(found["KL"], 0.75 * np.log(750) + 0.25 * np.log(250), rtol=1e-5)


def test_feature_distance_is_named_after_its_features_and_zero_of_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    test = data.load("fashion_mnist_small", "test")["image"]
    monkeypatch.setattr(mode_measures, "load_split", lambda run, split: {"image": test})
    run: Any = Stub(test.astype(np.float32) / 255.0, monkeypatch)
    run.config = {"settings": {"options": {"dataset": "fashion_mnist_small"}}}
    same = FeatureDistance(num_samples=500)(run, lambda *_: None)
    assert list(same) == ["FD-LeNet-FashionMNIST"]
    assert abs(same["FD-LeNet-FashionMNIST"]) < 1e-2
    run.images = 1.0 - run.images
    assert FeatureDistance(num_samples=500)(run, lambda *_: None)["FD-LeNet-FashionMNIST"] > 10


def parameters(network: Any, x: jax.Array) -> tuple[int, dict[str, Any]]:
    params, _ = jax.eval_shape(lambda: modules.initialize(network, jax.random.key(0), x))
    return sum(leaf.size for leaf in jax.tree.leaves(params)), params


@pytest.mark.parametrize("packing", [1, 2])
def test_the_networks_of_pacgan(packing: int) -> None:
    """Sizes counted by hand from the published code: no bias before BatchNorm, five pieces a unit."""
    name = "pacgan_gaussians_plain" if packing == 1 else "pacgan_gaussians_packing_2"
    options = load_config(name, "gan")
    spec: Any = options.spec((2,))
    assert (options.batch_size, spec.packing, spec.generator.output_activation) == (100 * packing, packing, None)
    generator, layers = parameters(spec.generator, jnp.zeros((3, 2)))
    assert generator == 2 * 400 + 3 * 400 * 400 + 4 * 2 * 400 + 400 * 2 + 2
    assert [name for name, layer in layers["hidden_layers"].items() if "bias" in layer] == []
    discriminator, _ = parameters(spec.discriminator, jnp.zeros((3, 2 * packing)))
    assert discriminator == (2 * packing + 1) * 1000 + 2 * 201 * 1000 + 201
    assert (spec.discriminator.dropout_rate, spec.discriminator.input_dropout_rate) == (0.0, 0.0)


@pytest.mark.parametrize("of", ["generator", "discriminator"])
def test_weights_start_with_the_deviation_that_is_asked_for(of: str, key: jax.Array) -> None:
    spec: Any = load_config("pacgan_gaussians_plain", "gan").spec((2,))
    params, _ = modules.initialize(getattr(spec, of), key, jnp.zeros((2, 2)))
    kernels = [leaf for path, leaf in jax.tree.flatten_with_path(params)[0] if path[-1].key == "kernel"]
    assert len(kernels) == (5 if of == "generator" else 4)
    for kernel in kernels:  # six standard errors
        np.testing.assert_allclose(jnp.std(kernel), 0.02, atol=6 * 0.02 / np.sqrt(2 * kernel.size))


def test_a_normalised_generator_standardises_its_batch(key: jax.Array) -> None:
    """After BatchNorm a hidden unit has mean 0 and deviation 1 over the batch: what follows is linear in that."""
    network = networks.MLPGenerator((3,), (3,), lambda x: x, None, normalization="batch")
    z = 5.0 + jax.random.normal(key, (50, 4))
    params, collections = modules.initialize(network, key, z)
    x, after = modules.apply(network, params, collections, z, train=True, key=key)
    hidden = np.linalg.solve(params["output"]["kernel"].T, (x - params["output"]["bias"][None]).T)
    np.testing.assert_allclose(hidden.mean(axis=1), 0.0, atol=1e-4)
    np.testing.assert_allclose(hidden.std(axis=1), 1.0, atol=1e-3)
    means = [c["batch_stats"]["hidden_layers"]["BatchNorm_0"]["normalization"]["mean"] for c in (collections, after)]
    expected = 0.1 * (z @ params["hidden_layers"]["Dense_0"]["kernel"]).mean(axis=0)
    np.testing.assert_allclose(means, [np.zeros(3), expected], rtol=1e-4)


def test_older_runs_are_of_the_same_networks() -> None:
    """A config written before these fields were there goes on, and is read as what it was."""
    for network in (networks.MLPGenerator((2,)), networks.MaxoutDiscriminator(), networks.MLPDecoder((2,))):
        now = json.loads(json.dumps(to_plain(network)))
        before = {name: value for name, value in now.items() if name not in ("normalization", "initialization")}
        before.pop("axis_name")
        assert differences(before, now) == differences(now, before) == []
        assert from_plain(before) == network


def test_the_networks_of_infogan() -> None:
    """Sizes counted by hand from the published code: 1,024 units, 128 and 64 channels, 4 x 4 kernels."""
    generator, layers = parameters(networks.InfoGANGenerator((28, 28, 1)), jnp.zeros((2, 64)))
    corner = 7 * 7 * 128
    norms = 2 * (1024 + corner + 64)
    assert generator == 64 * 1024 + 1024 * corner + 16 * 128 * 64 + 16 * 64 + 1 + norms
    assert [name for name, layer in layers.items() if "bias" in layer] == ["output"]
    discriminator, _ = parameters(networks.InfoGANDiscriminator(), jnp.zeros((2, 28, 28, 1)))
    kernels = 16 * 64 + 16 * 64 * 128 + corner * 1024 + 1024
    assert discriminator == kernels + 64 + 1 + 2 * (128 + 1024)
    bare, _ = parameters(networks.InfoGANDiscriminator(batch_norm=False), jnp.zeros((2, 28, 28, 1)))
    assert bare == kernels + 64 + 128 + 1024 + 1
    with pytest.raises(ValueError, match="multiples of 4"):
        networks.InfoGANGenerator((30, 28, 1))
    with pytest.raises(ValueError, match="multiples of 4"):
        parameters(networks.InfoGANDiscriminator(), jnp.zeros((2, 30, 28, 1)))


def test_infogan_by_name() -> None:
    options = InfoGANOptions(width=8, discriminator_normalization="none")
    spec: Any = options.spec((28, 28, 1))
    assert spec.generator == networks.InfoGANGenerator((28, 28, 1), 8)
    assert spec.discriminator == networks.InfoGANDiscriminator(8, batch_norm=False)
    with pytest.raises(ValueError, match="spectral is not for infogan"):
        dataclasses.replace(options, discriminator_normalization="spectral").spec((28, 28, 1))


def test_random_settings_depend_on_the_seed_and_their_number_alone() -> None:
    over: Any = {"a+b": Range(1e-5, 1e-2, log=True), "c": Range(-1.0, 3.0), "d": (1.0, 5.0)}
    few, many = draw_settings(over, 3, seed=4), draw_settings(over, 40, seed=4)
    assert few == many[:3]
    assert draw_settings(over, 3, seed=5) != few
    assert draw_settings(dict(reversed(over.items())), 3, seed=4) == few
    for setting in many:
        assert list(setting) == ["a", "b", "c", "d"]
        assert setting["a"] == setting["b"]
        assert 1e-5 <= setting["a"] < 1e-2
        assert -1.0 <= setting["c"] < 3.0
    assert {setting["d"] for setting in many} == {1.0, 5.0}
    # Evenly by the logarithm: about a third in each decade, within five standard deviations.
    decades = np.bincount([int(np.log10(s["a"] / 1e-5)) for s in many], minlength=3)
    assert np.abs(decades - 40 / 3).max() < 5 * np.sqrt(40 * (1 / 3) * (2 / 3))


def test_a_range_is_what_it_says() -> None:
    assert [Range(1e-5, 1e-2, log=True).at(share) for share in (0.0, 1 / 3)] == pytest.approx([1e-5, 1e-4])
    assert [Range(-1.0, 3.0).at(share) for share in (0.0, 0.5)] == [-1.0, 1.0]
    for low, high, log in ((1.0, 1.0, False), (0.0, 1.0, True), (0.0, np.inf, False)):
        with pytest.raises(ValueError, match=r"a (logarithmic )?range needs"):
            Range(low, high, log)


BAD = {
    "--over b1=0:0.9": "a range is for random settings: give their number with --random",
    "--random 3": "at least 1 setting and an --over",
    "--random x --over b1=0:0.9": "--random must be a whole number",
    "--random 2 --over b1=0.9:0": "the lower one first",
    "--random 2 --over b1=0:0.9:linear": "LOW:HIGH or LOW:HIGH:log",
    "--random 2 --over latent_dim=2:9": "expected whole numbers",
    "--over b1+b2=0.5,0.9 --over b2=0.5": "--over b2 is there twice",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_searches_are_refused(arguments: str) -> None:
    with pytest.raises(ValueError, match=BAD[arguments]):
        sweep_plan.parse_plan(["gan", *arguments.split()])


def test_the_plan_of_a_random_search() -> None:
    rates = "--over generator-learning-rate+discriminator-learning-rate=1e-5:1e-2:log"
    plan = sweep_plan.parse_plan(["gan", "--random", "2", *rates.split(), "--over", "b1=0:0.9", "--seeds", "1"])
    assert plan.over == {}
    members = plan.members((28, 28, 1), None)
    assert [member.setting for member in members] == list(plan.listed)
    for member in members:
        options: Any = member.options
        assert options.generator_learning_rate == options.discriminator_learning_rate == member.setting[RATE]
        assert options.b1 == member.setting["b1"]
    again = sweep_plan.parse_plan(["gan", "--random", "2", *rates.split(), "--over", "b1=0:0.9", "--seeds", "1"])
    assert json.loads(json.dumps(plan.identity())) == again.identity()
    with pytest.raises(ValueError, match="leave out the grid"):
        dataclasses.replace(plan, over={"b1": (0.5,)}).check()
    with pytest.raises(ValueError, match="static with these options"):
        dataclasses.replace(plan, listed=({"penalty_weight": 1.0},)).members((28, 28, 1), None)


RATE = "generator_learning_rate"


def test_the_identity_of_a_grid_is_what_it_was() -> None:
    plan = Plan(GANOptions(), {"b1": (0.0, 0.5)}, 3)
    assert plan.identity() == {"over": {"b1": [0.0, 0.5]}, "seeds": 3}


@pytest.mark.parametrize("name", lucic.LOSSES)
def test_the_protocol_of_lucic(name: str) -> None:
    """What is searched are numbers in the state; the discriminator sees the same number of images an epoch."""
    options, reproduction = lucic.protocol(name, "mnist")
    search = reproduction.search
    assert search is not None
    settings = search.settings(4)
    assert search.settings(3) == settings[:3]
    assert len(search.settings(1)) == 1
    members = Plan(options, {}, 1, listed=settings).members((28, 28, 1), None)
    assert len({member.spec for member in members}) == 4
    assert [list(setting) for setting in settings] == [list(settings[0])] * 4
    assert options.batch_size == 64 * options.discriminator_steps
    assert abs(reproduction.epoch * options.batch_size - 60_000) < options.batch_size
    assert ("penalty_weight" in settings[0]) == (options.penalty != "none")


@pytest.mark.slow
def test_points_are_trained_saved_measured_and_resumed_like_images(tmp_path: Path) -> None:
    """Two seeds of PacGAN's protocol with small networks, in one population."""
    cadences: Any = dict.fromkeys(("log_every", "eval_every", "sample_every", "checkpoint_every"), 2)
    published: Any = load_config("pacgan_gaussians_packing_2", "gan")
    options: Any = dataclasses.replace(
        published,
        generator_hidden=(8, 8),
        maxout_hidden=(4,),
        steps=2,
        workdir=tmp_path / "run",
        **cadences,
    )
    sweep(Plan(options, {}, 2))
    run = Run.open(tmp_path / "run" / "members" / "001")
    found = Modes(num_samples=50)(run, lambda *_: None)
    assert found["good samples"] <= 100.0
    assert 0.0 <= found["reverse KL"] <= np.log(25) + 1e-6
    assert run.config["identity"]["data"]["num_examples"] == NUM_POINTS["train"]
    runs.train(dataclasses.replace(options, workdir=run.directory, seed=1, steps=3, resume=True))
    assert run.steps()[-1] == 3


def test_random_settings_are_drawn_as_points(tmp_path: Path) -> None:
    """A line and a legend for each would leave no room for the panels, of which Matplotlib warns."""
    settings = lucic.protocol("dragan", "mnist")[1].search
    assert settings is not None
    rows = [
        {"setting": setting, "scores": {name: {"mean": 1.0, "standard_error": None} for name in ("first", "second")}}
        for setting in settings.settings(6)
    ]
    sweep_results.draw({"": rows}, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 1000
