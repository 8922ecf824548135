"""The scripts as a person runs them: train, stop, resume in another process, sample, and every mistake."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from experiments import configs
from jaxgen import data, platform
from jaxgen.cli import parsing as options
from jaxgen.cli import plot, runs, sample, train
from jaxgen.evaluation.curves import read_log
from jaxgen.families import family_of
from jaxgen.training import machine
from jaxgen.training.monitor import image_grid
from jaxgen.training.run import Run, from_plain, to_plain
from tests.pictures import grids, words

TINY: dict[str, list[str]] = {
    "vae": ["vae", "--hidden", "16", "--latent-dim", "3", "--batch-size", "32"],
    "gan": ["gan", "--generator-hidden", "16", "--discriminator-hidden", "16", "--latent-dim", "3"],
}
CADENCES = ["--log-every", "20", "--eval-every", "50", "--sample-every", "100", "--checkpoint-every", "50"]


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A hundred embedded images, so that the scripts are quick."""
    path = tmp_path_factory.mktemp("data") / "some.npz"
    some = data.load()
    np.savez(path, image=some["image"][::20], label=some["label"][::20])
    return f"npz:{path}"


def run_in_a_process(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jaxgen", "train", *arguments], capture_output=True, text=True, check=False
    )


def rows_without_time(directory: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: v for name, v in row.items() if not name.startswith("time_")} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vae", "gan"])
def test_a_resumed_run_is_the_uninterrupted_run(family: str, npz: str, tmp_path: Path) -> None:
    """100 steps equal 50, a new process, and 50 more: state, metrics and pictures, bit for bit."""
    common = [*TINY[family], *CADENCES, "--dataset", npz]
    whole = run_in_a_process([*common, "--steps", "100", "--workdir", str(tmp_path / "whole")])
    assert whole.returncode == 0, whole.stderr
    first = run_in_a_process([*common, "--steps", "50", "--workdir", str(tmp_path / "parts")])
    assert first.returncode == 0, first.stderr
    second = run_in_a_process([family, "--workdir", str(tmp_path / "parts"), "--resume", "--steps", "100"])
    assert second.returncode == 0, second.stderr
    assert "resuming from step 50" in second.stdout
    runs = [Run.open(tmp_path / name) for name in ("whole", "parts")]
    states = [run.restore(100) for run in runs]
    chex.assert_trees_all_equal(*states)
    assert rows_without_time(tmp_path / "whole") == rows_without_time(tmp_path / "parts")
    for name in ("samples_00000100.png", *(["reconstructions_00000100.png"] if family == "vae" else [])):
        pictures = [(run.directory / "samples" / name).read_bytes() for run in runs]
        assert pictures[0] == pictures[1]
    again = run_in_a_process([family, "--workdir", str(tmp_path / "parts"), "--resume", "--steps", "100"])
    assert again.returncode == 0
    assert "nothing to do" in again.stdout


@pytest.mark.parametrize("family", TINY)
def test_train_leaves_a_run_and_sample_opens_it(family: str, npz: str, tmp_path: Path, capsys: Any) -> None:
    workdir = tmp_path / "run"
    arguments = [*TINY[family], *CADENCES, "--dataset", npz, "--steps", "100", "--workdir", str(workdir)]
    assert train.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "cpu" in printed
    assert str(workdir / "samples" / "samples_00000100.png") in printed
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [20, 40, 50, 60, 80, 100, 100]
    assert rows[0]["time_steps_per_second"] > 0
    config = json.loads((workdir / "config.json").read_text())
    assert config["identity"]["model"]["type"] == family.upper()
    assert config["identity"]["seed"] == 0
    assert {".lock", "checkpoints", "config.json", "metrics.jsonl", "samples", "tensorboard"} == {
        path.name for path in workdir.iterdir()
    }
    with Run.open(workdir).checkpoints(read_only=True) as checkpoints:
        assert checkpoints.best_step() in (50, 100)

    arrays, grid = tmp_path / "out" / "samples.npz", tmp_path / "out" / "samples.png"
    assert sample.main([str(workdir), "--num", "7", "--out", str(arrays), "--checkpoint", "best"]) == 0
    with np.load(arrays) as archive:
        images = archive["images"]
    assert images.shape == (7, 28, 28, 1)
    assert 0.0 <= images.min() < images.max() <= 1.0
    assert sample.main([str(workdir), "--num", "9", "--out", str(grid)]) == 0
    assert words(grid).startswith(f"9 samples of run, a {family.upper()}, step 100\n")
    (picture,) = grids(grid)
    assert sample.main([str(workdir), "--num", "9", "--out", str(arrays)]) == 0
    with np.load(arrays) as archive:
        np.testing.assert_array_equal(picture[::2, ::2], image_grid(archive["images"]))

    other = tmp_path / "other"
    assert train.main([*arguments[:-1], str(other), "--init-from", str(workdir), "--seed", "5"]) == 0
    assert Run.open(other).config["identity"]["seed"] == 5


def test_init_from_borrows_the_weights(npz: str, tmp_path: Path) -> None:
    arguments = [*TINY["gan"], *CADENCES, "--dataset", npz, "--steps", "10", "--workdir"]
    assert train.main([*arguments, str(tmp_path / "a")]) == 0
    source = Run.open(tmp_path / "a")
    trained: Any = source.restore()
    fresh = jax.tree.map(np.zeros_like, trained)
    borrowed: Any = runs.borrow_weights(fresh, tmp_path / "a")
    chex.assert_trees_all_equal(borrowed.generator_params, trained.generator_params)
    chex.assert_trees_all_equal(borrowed.ema, trained.ema)
    assert int(borrowed.step) == 0
    chex.assert_trees_all_equal(borrowed.generator_optimizer_state, fresh.generator_optimizer_state)


def test_a_borrowed_run_resumes_without_its_source_and_elsewhere(
    npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    arguments = [*TINY["vae"], "--dataset", npz, "--steps", "10", "--workdir"]
    assert train.main([*arguments, str(tmp_path / "source")]) == 0
    assert train.main([*arguments, str(tmp_path / "run"), "--init-from", str(tmp_path / "source")]) == 0
    (tmp_path / "source").rename(tmp_path / "gone")
    monkeypatch.setattr(machine, "topology", lambda: {"platform": "tpu"})
    assert train.main(["vae", "--workdir", str(tmp_path / "run"), "--resume", "--steps", "20"]) == 0
    assert Run.open(tmp_path / "run").steps() == [10, 20]
    assert "its bits may be others from here: topology.platform was 'cpu', now 'tpu'" in capsys.readouterr().out


def test_requeue_without_a_checkpoint_starts_at_0_and_says_so(npz: str, tmp_path: Path, capsys: Any) -> None:
    arguments = [
        *TINY["vae"],
        "--dataset",
        npz,
        "--steps",
        "3",
        "--workdir",
        str(tmp_path / "run"),
        "--requeue",
    ]
    assert train.main(arguments) == 0
    assert "no completed checkpoint: starting at step 0" in capsys.readouterr().out


@pytest.mark.parametrize("binarization", ["static", "dynamic"])
def test_binarised_training(binarization: str, npz: str, tmp_path: Path) -> None:
    arguments = [*TINY["vae"], "--dataset", npz, "--steps", "5", "--binarization", binarization]
    assert train.main([*arguments, "--workdir", str(tmp_path / "run")]) == 0
    identity = Run.open(tmp_path / "run").config["identity"]
    assert identity["data"]["image_type"] == ("bool" if binarization == "static" else "uint8")


def test_the_default_workdir_is_the_next_free_one(npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert train.main([*TINY["vae"], "--dataset", npz, "--steps", "2"]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["vae-001", "vae-002"]


def test_vectors_train_without_pictures(tmp_path: Path) -> None:
    np.savez(tmp_path / "points.npz", image=np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32))
    arguments = [*TINY["vae"], "--dataset", f"npz:{tmp_path / 'points.npz'}", "--likelihood", "gaussian"]
    assert train.main([*arguments, "--steps", "5", "--workdir", str(tmp_path / "run")]) == 0


def test_every_named_configuration_builds() -> None:
    assert "flax_vae" in configs.FILES
    for name in configs.FILES:
        family = next(f for f in options.FAMILIES if _has(name, f))
        side = 32 if family == "tokenizer" else 28  # a factor of 8 divides it
        spec = configs.load_config(name, family).spec((side, side, 1), num_classes=10)
        assert sum(family_of(spec).latent_dims(spec)) > 0


def _has(name: str, family: str) -> bool:
    try:
        configs.load_config(name, family)
    except ValueError:
        return False
    return True


def test_the_readmes_commands_describe_models() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    commands = re.findall(r"uv run jaxgen train ([^#`\n]+)", readme)
    assert len(commands) >= 8
    for command in commands:
        if "--resume" not in command:
            assert options.parse(shlex.split(command)).spec((28, 28, 1), num_classes=10)


@pytest.mark.parametrize(
    "arguments",
    [
        "gan --architecture resnet --discriminator-normalization none --penalty r1_r2 --final-penalty-weight 0.1 "
        "--burn-in 100 --final-b2 0.99 --final-learning-rate-factor 0.5 --ema-warmup",
        "gan --architecture maxout --packing 2 --loss least_squares --augmentation adaptive",
        "gan --loss wasserstein --weight-clipping 0.01 --discriminator-steps 5 --batch-size 60 "
        "--no-conditional --ema-decay None",
        "gan --architecture dcgan --minibatch-stddev --discriminator-normalization spectral --dtype bfloat16",
        "gan --penalty dragan --penalty-every 4 --augmentation diffaugment --conditional",
        "vae --likelihood discretized_logistic_mixture --num-components 3 --architecture conv --conditional",
        "vae --upper-latent-dims 5 --covariance rank_one --objective dreg --num-samples 4",
        "vae --objective stl --beta-warmup 100 --likelihood gaussian_learned_variance",
        "vae --free-bits 0.1 --likelihood continuous_bernoulli",
        "vae --prior vamp --num-pseudo-inputs 7 --activation glu --logvar-bounds -6 2 --initialization he "
        "--optimizer rmsprop --beta-warmup 5",
        "vae --config pythae_vamp",
        "vae --config pythae_vae_two_hidden",
    ],
)
def test_every_option_becomes_plain_data_and_back(arguments: str) -> None:
    """The spec that a run's config.json rebuilds is equal to the one that was trained."""
    spec = options.parse(arguments.split(), known=configs.FILES).spec((28, 28, 1), num_classes=10)
    plain = json.loads(json.dumps(to_plain(spec)))
    assert from_plain(plain) == spec


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("gan --conditional", "needs a data set with labels"),
        ("gan --architecture dcgan", "makes images, this data set has examples of shape \\[6\\]"),
        ("gan --augmentation diffaugment", "--augmentation is for images"),
        ("vae --architecture conv --covariance rank_one", "use --architecture mlp"),
        ("vae --architecture conv --logvar-bounds -6 2", "--logvar-bounds is an option of mlp, not of conv"),
        ("vae --prior vamp --upper-latent-dims 5", "a learnt prior is for one stochastic layer"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options.parse(arguments.split()).spec((6,))


@pytest.mark.parametrize("family", ["gan", pytest.param("vae", marks=pytest.mark.slow)])
def test_conditional_models_draw_one_class_a_row(family: str, npz: str, tmp_path: Path, capsys: Any) -> None:
    workdir = tmp_path / "run"
    arguments = [*TINY[family], "--conditional", "--dataset", npz, "--steps", "4", "--workdir", str(workdir)]
    assert train.main(arguments) == 0
    picture = workdir / "samples" / "samples_00000004.png"
    (grid,) = grids(picture)
    assert grid.shape == (2 * (10 * 30 + 2), 2 * (8 * 30 + 2), 3)  # small pictures are shown twice as large
    assert f"Samples of a {family.upper()} trained on some.npz, seed 0, step 4\n" in words(picture)
    assert "Rows, from above: class 0, class 1, class 2, class 3, class 4, class 5," in words(picture)
    drawn = tmp_path / "drawn.npz"
    assert sample.main([str(workdir), "--num", "24", "--out", str(drawn)]) == 0
    np.testing.assert_array_equal(np.load(drawn)["labels"], np.repeat([0, 1, 2], 8))
    assert sample.main([str(workdir), "--num", "5", "--label", "7", "--out", str(drawn)]) == 0
    np.testing.assert_array_equal(np.load(drawn)["labels"], [7] * 5)
    assert sample.main([str(workdir), "--label", "10", "--out", str(drawn)]) == 1
    assert "label must be a class from 0 to 9, got '10'" in capsys.readouterr().err


def test_a_label_for_an_unconditional_model_is_refused(npz: str, tmp_path: Path, capsys: Any) -> None:
    workdir = tmp_path / "run"
    assert train.main([*TINY["vae"], "--dataset", npz, "--steps", "2", "--workdir", str(workdir)]) == 0
    assert sample.main([str(workdir), "--label", "1", "--out", str(tmp_path / "drawn.png")]) == 1
    assert "trained without --conditional" in capsys.readouterr().err


def test_curves_of_the_likelihood(npz: str, tmp_path: Path, capsys: Any) -> None:
    """log p(x) is estimated where that is asked for, lies above the ELBO, and is drawn for several runs."""
    workdir, out = str(tmp_path / "run"), tmp_path / "curves.png"
    cadences = ["--steps", "4", "--eval-every", "2", "--log-likelihood-samples", "20"]
    assert train.main([*TINY["vae"], "--dataset", npz, *cadences, "--workdir", workdir]) == 0
    rows = [row for row in rows_without_time(Path(workdir)) if "test_elbo" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert all(row["test_elbo"] < row["test_log_likelihood"] < 0 for row in rows)
    assert read_log(Path(workdir)).curves["test_elbo"] == ([2, 4], [row["test_elbo"] for row in rows])
    with (Path(workdir) / "metrics.jsonl").open("a") as log:
        log.write('{"step": 6, "test_el')  # cut short by a kill
    assert read_log(Path(workdir)).curves["test_elbo"][0] == [2, 4]
    assert plot.main([workdir, workdir, "--metric", "test_log_likelihood", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert min(picture.size) > 300
    capsys.readouterr()
    for arguments, message in (
        ([workdir, "--metric", "test_fid"], "no metric 'test_fid': use one of .*test_elbo, .*test_log_likelihood"),
        ([str(tmp_path), "--metric", "elbo"], "holds no run"),
        ([workdir, "--metric", "elbo", "--labels", "a", "b"], "--labels must be one a run, 1, got 2"),
        ([workdir, "--metric", "elbo", "--steps-per-epoch", "0"], "--steps-per-epoch must be above 0, got 0"),
        ([workdir, "--metric", "elbo", "--out", "curves.pdf"], "--out must end in .png, got curves.pdf"),
        (["--metric", "elbo"], "name at least one run directory"),
    ):
        assert plot.main(arguments) == 1
        assert re.search(message, capsys.readouterr().err)


def test_options_override_a_configuration() -> None:
    parsed = options.parse(["vae", "--config", "flax_vae", "--seed", "3"], known=configs.FILES)
    expected = dataclasses.replace(configs.load_config("flax_vae", "vae"), seed=3)
    assert parsed == expected


BAD_COMMANDS: dict[str, tuple[list[str], str]] = {
    "unknown family": (["vea"], "unknown family 'vea'"),
    "unknown configuration": (
        ["vae", "--config", "nope"],
        r"unknown configuration 'nope' for vae: the nearest are (\w+, )*\w+$",
    ),
    "a configuration that is misspelt": (
        ["vae", "--config", "binarised_vae"],
        r"unknown configuration 'binarised_vae' for vae: the nearest are binarized_vae(, \w+)*$",
    ),
    "a configuration of the other family": (
        ["gan", "--config", "conv_vae"],
        "unknown configuration 'conv_vae' for gan: it is one of vae",
    ),
    "unknown data set": (["vae", "--dataset", "fashion_mnits"], "unknown data set"),
    "batch size 0": (["gan", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
    "negative steps": (["gan", "--steps", "-5"], "--steps must be at least 1, got -5"),
    "more than there is": (
        ["vae", "--batch-size", "2001"],
        "--batch-size 2001 is larger than .* 2000 training images",
    ),
    "layers of nothing": (["vae", "--hidden", "0"], "--hidden must be sizes of at least 1"),
    "no latents": (["vae", "--latent-dim", "0"], "--latent-dim must be at least 1"),
    "no importance samples": (
        ["vae", "--log-likelihood-samples", "0"],
        "--log-likelihood-samples must be at least 1, got 0",
    ),
    "negative beta": (["vae", "--beta", "-1"], "--beta must be at least 0"),
    "scale 0": (["vae", "--likelihood", "gaussian", "--scale", "0"], "--scale must be above 0, got 0"),
    "all dropped": (["gan", "--dropout-rate", "1"], r"--dropout-rate must be in \[0, 1\)"),
    "unknown split": (["vae", "--test-split", "valid"], "unknown split 'valid': use one of test, train"),
    "resume nothing": (["vae", "--resume"], "--resume needs the --workdir"),
    "no such run to begin from": (["vae", "--init-from", "nowhere"], "nowhere holds no run"),
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
def test_bad_commands_get_one_clear_line_and_leave_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD_COMMANDS[name]
    assert train.main(arguments) == (2 if "unknown family" in message or "unknown configuration" in message else 1)
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_used_run_directory_is_refused_and_a_changed_run_named(npz: str, tmp_path: Path, capsys: Any) -> None:
    workdir = str(tmp_path / "run")
    arguments = [*TINY["vae"], "--dataset", npz, "--steps", "5", "--workdir", workdir]
    assert train.main(arguments) == 0
    before = {path: path.read_bytes() for path in Path(workdir).rglob("*") if path.is_file()}
    assert train.main(arguments) == 1
    assert "already holds a run: pass --resume" in capsys.readouterr().err
    assert train.main(["vae", "--workdir", workdir, "--resume", "--seed", "7", "--learning-rate", "0.5"]) == 1
    error = capsys.readouterr().err
    assert "model.optimizer.learning_rate was 0.001, now 0.5" in error
    assert "seed was 0, now 7" in error
    assert train.main(["vae", "--workdir", workdir, "--resume", "--hidden", "8"]) == 1
    assert "model.encoder.hidden was [16], now [8]" in capsys.readouterr().err
    assert train.main(["gan", "--workdir", workdir, "--resume"]) == 1
    assert "holds a vae" in capsys.readouterr().err
    assert train.main(["vae", "--workdir", workdir, "--resume", "--dataset", "fashion_mnist_small"]) == 1
    assert "data.sha256 was" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path(workdir).rglob("*") if path.is_file()} == before
    wider = [*arguments[:-1], str(tmp_path / "other"), "--hidden", "8", "--init-from", workdir]
    assert train.main(wider) == 1
    assert "params/decoder/hidden_layers/Dense_0/kernel: saved float32" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


BAD_SAMPLES: dict[str, tuple[list[str], str]] = {
    "no run": (["nowhere"], "nowhere holds no run"),
    "another format": (["nowhere", "--out", "samples.gif"], "must be a folder, or end in .png or .npz"),
    "no samples": (["nowhere", "--num", "0"], "--num must be at least 1, got 0"),
    "a checkpoint of no kind": (["nowhere", "--checkpoint", "last"], "newest, best or a step"),
}


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_bad_samples_get_one_clear_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD_SAMPLES[name]
    assert sample.main(arguments) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_compute_type_that_is_slower_here_is_not_taken(
    npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(platform, "multiplies_bfloat16", lambda: False)
    arguments = [*TINY["vae"], "--dataset", npz, "--steps", "2", "--workdir"]
    for wanted in ("bfloat16", "auto"):
        assert train.main([*arguments, str(tmp_path / wanted), "--dtype", wanted]) == 0
        assert ("networks compute in float32" in capsys.readouterr().out) == (wanted == "bfloat16")
        config = json.loads((tmp_path / wanted / "config.json").read_text())
        assert config["settings"]["options"]["dtype"] == "float32"
        assert '"dtype": "bfloat16"' not in json.dumps(config)
        for again in ("bfloat16", "auto", "float32"):  # as a scheduler starts it again
            more = ["--requeue", "--dtype", again]
            assert train.main([*arguments, str(tmp_path / wanted), *more]) == 0, again
    # A run that computes in bfloat16, from an accelerator or from before, goes on so.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "computed_dtype", lambda wanted: "bfloat16")
        assert train.main([*arguments, str(tmp_path / "run"), "--dtype", "auto"]) == 0
    assert '"dtype": "bfloat16"' in (tmp_path / "run" / "config.json").read_text()
    for more in ([], ["--dtype", "bfloat16"], ["--dtype", "auto"]):
        assert train.main([*arguments, str(tmp_path / "run"), "--resume", "--steps", "4", *more]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as refused:
        train.main([*arguments, str(tmp_path / "float16"), "--dtype", "float16"])
    assert refused.value.code == 2
    assert "invalid choice 'float16' for argument '--dtype'" in capsys.readouterr().err
    assert not (tmp_path / "float16").exists()
