"""Averages whose length is chosen after training: against sums over all steps, in a step, and in a run."""

import collections
import json
import shutil
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import averaging, plain, weights
from jaxgen.cli import explore, train
from jaxgen.training import checkpoint, snapshots
from jaxgen.training.run import Run
from tests import models
from tests.test_tokenizer_doors import SMALL, refused, save

LENGTHS = (0.05, 0.1)


def weights_over_steps(exponent: float, num: int) -> np.ndarray:
    """What an average over steps 1 to num gives each of them."""
    return np.diff((np.arange(num + 1) / num) ** (exponent + 1))


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_a_length_is_the_deviation_of_the_steps(length: float) -> None:
    """Of the density (g + 1) s^g on [0, 1], by a sum over many steps."""
    w, s = weights_over_steps(averaging.power_exponent(length), 200_000), (np.arange(200_000) + 0.5) / 200_000
    assert np.sqrt(w @ s**2 - (w @ s) ** 2) == pytest.approx(length, rel=1e-4)
    assert w.sum() == pytest.approx(1.0)


def test_the_decay_makes_those_weights() -> None:
    exponent = averaging.power_exponent(0.1)
    values = np.random.default_rng(0).normal(size=30)
    average = 0.0
    for step, value in enumerate(values):
        decay = float(averaging.power_decay(jnp.int32(step), exponent))
        average = decay * average + (1.0 - decay) * value
    assert average == pytest.approx(weights_over_steps(exponent, 30) @ values, rel=1e-5)


def test_any_length_is_made_of_two() -> None:
    """Of weights that drift and wander as trained ones do; those that were kept come back exactly."""
    values = np.cumsum(np.random.default_rng(0).normal(size=(2000, 40)), axis=0) / 30 + np.linspace(0, 3, 2000)[:, None]

    def exact(length: float, step: int) -> np.ndarray:
        return weights_over_steps(averaging.power_exponent(length), step) @ values[:step]

    taken = [(step, length) for step in range(50, 2001, 50) for length in LENGTHS]
    trees = [exact(length, step) for step, length in taken]
    exponents = [averaging.power_exponent(length) for _, length in taken]
    for step, length, close in ((2000, 0.05, 1e-12), (2000, 0.03, 1e-4), (2000, 0.075, 1e-5), (1500, 0.15, 1e-4)):
        seen = [number for number, (at, _) in enumerate(taken) if at <= step]
        weights, off = snapshots.mixture(
            [taken[n][0] for n in seen], [exponents[n] for n in seen], step, averaging.power_exponent(length)
        )
        made = snapshots.combined([trees[n] for n in seen], list(weights))
        expected = exact(length, step)
        assert np.linalg.norm(made - expected) < close * np.linalg.norm(expected), length
        # How far off it says to be: of the weights over steps themselves.
        given = sum(
            w * np.pad(weights_over_steps(exponents[n], taken[n][0]), (0, 2000 - taken[n][0]))
            for w, n in zip(weights, seen, strict=True)
        )
        own = np.pad(weights_over_steps(averaging.power_exponent(length), step), (0, 2000 - step))
        assert off == pytest.approx(np.linalg.norm(given - own) / np.linalg.norm(own), abs=2e-3)
        assert off < 0.02
    for wrong in (0.0, 0.29, -1.0):
        with pytest.raises(ValueError, match=r"a relative length must be in \(0, 0.2887\)"):
            averaging.power_exponent(wrong)
    with pytest.raises(ValueError, match="as many times as exponents, at least one, got 1 and 2"):
        snapshots.mixture([1], [1.0, 2.0], 1, 1.0)


@pytest.mark.parametrize("name", ["gan", pytest.param("tokenizer", marks=pytest.mark.slow)])
def test_a_step_keeps_averages_of_the_weights(name: str, key: jax.Array) -> None:
    make: Any = models.batch_norm_gan if name == "gan" else models.vq_tokenizer
    spec = make(average_lengths=LENGTHS)
    plain_spec = make()
    step: Any = jaxgen.gan_step if name == "gan" else jaxgen.tokenizer_step
    state, alone = models.init(spec, key), models.init(plain_spec, key)
    seen = []
    for seed in range(4):
        batch = models.batch(seed=seed)
        state, _ = step(spec, state, batch, key)
        alone, _ = step(plain_spec, alone, batch, key)
        if name == "gan":
            seen.append({"params": state.generator_params, "collections": state.generator_collections})
        else:
            seen.append({"params": state.params, "collections": state.collections})
    chex.assert_trees_all_close(state._replace(averages=()), alone, rtol=1e-6)  # they change nothing else
    for length, average in zip(LENGTHS, state.averages, strict=True):
        weights = weights_over_steps(averaging.power_exponent(length), 4)
        expected = jax.tree.map(lambda *leaves, w=weights: sum(a * b for a, b in zip(w, leaves, strict=True)), *seen)
        chex.assert_trees_all_close(average, expected, rtol=1e-4, atol=1e-6)


def test_checkpoints_of_older_runs_are_read(key: jax.Array, tmp_path: Path) -> None:
    """States had no such field: their trees were others."""
    for name, make in (("gan", models.gan), ("tokenizer", models.tokenizer)):
        state = models.init(make(), key)
        fields = [field for field in state._fields if field != "averages"]
        older = collections.namedtuple(type(state).__name__, fields)(*(getattr(state, each) for each in fields))
        with checkpoint.Checkpoints(tmp_path / name) as checkpoints:
            checkpoints.save(1, {"state": older})
            checkpoints.wait()
            chex.assert_trees_all_equal(checkpoints.restore(1, {"state": state}).items["state"], state)
        kept = models.init(make(average_lengths=LENGTHS), key)
        with checkpoint.Checkpoints(tmp_path / f"{name} averaged") as checkpoints:
            checkpoints.save(1, {"state": kept})
            checkpoints.wait()
            chex.assert_trees_all_equal(checkpoints.restore(1, {"state": kept}).items["state"], kept)
            with pytest.raises(ValueError, match="is of another model"):
                checkpoints.restore(1, {"state": state._replace(averages=(state.hyperparams,))})


def test_plain_data_of_older_runs_say_nothing_of_it() -> None:
    adam: Any = plain.optimizer("adam", learning_rate=0.1)
    optimizers: Any = {"generator_optimizer": adam, "discriminator_optimizer": adam}
    described: Any = plain.to_plain(models.gan(**optimizers))
    assert "average_lengths" not in described
    more: Any = plain.to_plain(models.gan(average_lengths=LENGTHS, **optimizers))
    assert more == {**described, "average_lengths": [0.05, 0.1]}
    assert plain.from_plain(more).average_lengths == LENGTHS
    with pytest.raises(ValueError, match=r"average_lengths must be in \(0, 0.288675\), got \(0.5,\)"):
        models.gan(average_lengths=(0.5,))


TINY = ["--steps", "12", "--eval-every", "6", "--sample-every", "12", "--checkpoint-every", "4", "--batch-size", "10"]
AVERAGED = ["--average-lengths", "0.05", "0.1", "--snapshot-every", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, and a GAN of it that keeps averages."""
    place = tmp_path_factory.mktemp("averages")
    words = ["--dataset", save(place / "bars.npz"), *TINY, "--generator-hidden", "8", "--discriminator-hidden", "8"]
    assert train.main(["gan", *words, *AVERAGED, "--workdir", str(place / "gan")]) == 0
    assert train.main(["gan", *words, "--workdir", str(place / "none")]) == 0
    return place


def test_a_run_leaves_averages_of_which_others_are_made(folder: Path, tmp_path: Path, capsys: Any) -> None:
    run = folder / "gan"
    assert sorted(path.name for path in (run / "averages").iterdir()) == [f"{n:08d}.safetensors" for n in (3, 6, 9, 12)]
    state = Run.open(run).restore("newest")
    found = snapshots.read(run, 12)
    assert found.steps == (3, 3, 6, 6, 9, 9, 12, 12)
    for number, length in enumerate(LENGTHS):
        made, off = snapshots.average(found, 12, length, state.averages[0])
        assert off < 1e-6
        chex.assert_trees_all_close(made, state.averages[number], rtol=1e-5, atol=1e-6)
    capsys.readouterr()
    words = ["ema", str(run), "--lengths", "0.01", "0.04", "0.2", "--num", "30", "--out", str(tmp_path / "ema")]
    assert explore.main(words) == 0
    numbers = json.loads((tmp_path / "ema" / "numbers.json").read_text())
    assert sorted(numbers["by_length"], key=float) == ["0.01", "0.04", "0.05", "0.1", "0.2"]
    assert numbers["measure"] == "test_fd_pixels"
    best = str(numbers["best_length"])
    # Of four snapshots short averages cannot be made; it says so.
    assert "length 0.04: test_fd_pixels" in (said := capsys.readouterr().out)
    assert f"length 0.01: test_fd_pixels {numbers['by_length']['0.01']:.4f}; its weights over steps are" in said
    assert numbers["by_length"][best] == min(numbers["by_length"].values())
    with Image.open(tmp_path / "ema" / "ema.png") as picture:
        assert picture.info["Title"] == "gan, step 12: distance by the length of its weights' average"
        told = picture.info["Description"]
        for each in ("kept while training", "the run's own moving average", "% of the training", "(lower is better)"):
            assert each in told
    model = jaxgen.load(tmp_path / "ema" / "ema.safetensors")
    expected, off = snapshots.average(found, 12, numbers["best_length"], state.averages[0])
    assert numbers["off_by_length"][best] == pytest.approx(off)
    chex.assert_trees_all_close(model.state.generator_params, expected["params"], rtol=1e-6)
    # A run in two sessions leaves the same ones.
    given = ["gan", "--dataset", f"npz:{folder}/bars.npz", *TINY, "--generator-hidden", "8", "--discriminator-hidden"]
    place = ["--workdir", str(tmp_path / "again")]
    assert train.main([*given, "8", *AVERAGED, "--steps", "5", *place]) == 0
    assert train.main(["gan", *place, "--resume", "--steps", "12"]) == 0
    for name in ("00000006.safetensors", "00000012.safetensors"):
        assert (tmp_path / "again" / "averages" / name).read_bytes() == (run / "averages" / name).read_bytes()


def test_bad_input_is_refused_in_one_line(folder: Path, tmp_path: Path, capsys: Any) -> None:
    refused(explore.main, ["ema", folder / "none"], capsys, "kept no averages: train with --average-lengths 0.05 0.1")
    refused(explore.main, ["ema", folder / "gan", "--lengths", "0.4"], capsys, "--lengths must be in (0, 0.288675)")
    given = ["gan", "--snapshot-every", "5", "--workdir", str(tmp_path / "run")]
    assert train.main(given) == 2
    assert "--snapshot-every would have no effect: it is for --average-lengths" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="has left no averages up to step 2"):
        snapshots.read(folder / "gan", 2)
    # What a write that was cut off has left is none of them; another file in their place is named.
    shutil.copytree(folder / "gan" / "averages", tmp_path / "averages")
    (tmp_path / "averages" / ".00000012.partial.safetensors").write_bytes(b"")
    assert snapshots.read(tmp_path, 12).steps == (3, 3, 6, 6, 9, 9, 12, 12)
    weights.write_arrays(tmp_path / "averages" / "00000003.safetensors", {}, {"step": 3})
    with pytest.raises(ValueError, match=r"00000003\.safetensors holds no averages of a run"):
        snapshots.read(tmp_path, 12)


def test_a_step_between_snapshots_has_its_own(key: jax.Array) -> None:
    state = models.init(models.gan(average_lengths=LENGTHS), key)
    older = jax.tree.map(lambda leaf: leaf + 1.0, state.averages)
    nothing = snapshots.Snapshots((), (), ())
    found = snapshots.with_own(snapshots.with_own(nothing, 8, LENGTHS, older), 11, LENGTHS, state.averages)
    assert found.steps == (8, 8, 11, 11)
    assert snapshots.with_own(found, 11, LENGTHS, older) is found
    made, off = snapshots.average(found, 11, 0.1, state.averages[0])
    chex.assert_trees_all_close(made, state.averages[1], rtol=1e-5, atol=1e-6)
    assert off < 1e-6


@pytest.mark.slow
def test_a_tokenizer_keeps_averages_too(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "kl"
    words = ["--dataset", f"npz:{folder}/bars.npz", *TINY, *SMALL, "--channels", "2", "--workdir", str(run)]
    assert train.main(["tokenizer", *words, *AVERAGED]) == 0
    assert explore.main(["ema", str(run), "--num", "30", "--out", str(tmp_path / "ema")]) == 0
    numbers = json.loads((tmp_path / "ema" / "numbers.json").read_text())
    assert numbers["measure"] == "test_rfd_pixels"
    model = jaxgen.load(tmp_path / "ema" / "ema.safetensors")
    assert model.state.hyperparams["latent_std"].shape == (2,)
    assert not np.array_equal(model.state.hyperparams["latent_std"], np.ones(2))
