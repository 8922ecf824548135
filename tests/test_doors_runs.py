"""How runs are begun, gone on with and ended by people: rows of tables, each a habit or a mistake."""

import dataclasses
import errno
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import augment, corruptions, gaussians, train_classifier
from jaxgen import data, families
from jaxgen.cli import compilation_cache, platforms, runs
from jaxgen.cli.gan_options import GANOptions, MLPGANOptions
from jaxgen.cli.main import main
from jaxgen.cli.next_commands import next_commands, resume_command
from jaxgen.cli.options import check_seeds
from jaxgen.cli.parsing import parse, saved_options
from jaxgen.evaluation import during_training
from jaxgen.training import session
from jaxgen.training.files import exclusive
from jaxgen.training.run import Run
from tests.test_interruptions import assert_the_same_run, logged, shown

VAE = ["vae", "--hidden", "8", "--latent-dim", "2", "--batch-size", "16"]
CADENCES = ["--log-every", "7", "--eval-every", "10", "--sample-every", "30", "--checkpoint-every", "10"]
SWEEP = ["--over", "beta=1,2", "--seeds", "1"]


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred embedded images."""
    path = tmp_path_factory.mktemp("data") / "some.npz"
    np.savez(path, image=data.load()["image"][::20])
    return path


@pytest.fixture
def tiny(npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A small run, to be given --steps and --workdir, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    return [*VAE, *CADENCES, "--dataset", f"npz:{npz}"]


@pytest.fixture(scope="module")
def finished(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps; to be copied, not changed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", *VAE, *CADENCES, "--dataset", f"npz:{npz}", "--steps", "3", "--workdir", str(workdir)]) == 0
    return workdir


@pytest.fixture
def copy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a run of three steps, from the current directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "run")
    return "run"


def refused(words: list[str], capsys: Any, *said: str, status: int = 1) -> str:
    """A command that ends at once, in one line that says all of this."""
    capsys.readouterr()
    assert main(words) == status
    error = capsys.readouterr().err
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error
    for part in said:
        assert part in error
    return error


# The last evaluation.


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (5, [(5, "test")]),
        pytest.param(14, [(7, "train"), (10, "test"), (14, "train"), (14, "test")], marks=pytest.mark.slow),
        (15, [(7, "train"), (10, "test"), (14, "train"), (15, "test")]),
        pytest.param(20, [(7, "train"), (10, "test"), (14, "train"), (20, "test")], marks=pytest.mark.slow),
    ],
)
def test_the_evaluation_of_the_last_step_is_in_the_log_with_its_warnings(
    steps: int, expected: list[tuple[int, str]], tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    collapsing = dataclasses.replace(families.named_family("vae"), collapse=lambda *_: ["it has collapsed"])
    monkeypatch.setitem(families._families, "vae", collapsing)
    assert main(["train", *tiny, "--steps", str(steps), "--workdir", "run"]) == 0
    assert main(["sweep", *tiny, *SWEEP, "--steps", str(steps), "--workdir", "sweep"]) == 0
    for workdir in (Path("run"), Path("sweep/members/000"), Path("sweep/members/001")):
        rows = logged(workdir)
        numbers = [row for row in rows if "warning" not in row]
        assert [(row["step"], "test" if "test_elbo" in row else "train") for row in numbers] == expected
        warned = [row["step"] for row in rows if row.get("warning") == "it has collapsed"]
        assert warned == [step for step, kind in expected if kind == "test"]
        assert (steps, "test/elbo") in {(step, tag) for step, tag, *_ in shown(workdir)}


def stop_in_the_evaluation_of(step: int, patch: pytest.MonkeyPatch) -> None:
    """Ask to stop in the evaluation of a step."""
    evaluate = during_training.Evaluation.__call__

    def interrupted(self: during_training.Evaluation, state: Any) -> Any:
        if int(state.step) == step:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
        return evaluate(self, state)

    patch.setattr(during_training.Evaluation, "__call__", interrupted)


def lose_the_last_checkpoint(workdir: Path) -> None:
    """As a kill between the row and the checkpoint leaves it."""
    shutil.rmtree(workdir / "checkpoints" / "15")
    (workdir / "checkpoints" / ".newest").write_text("10\n")


@pytest.mark.parametrize("ends", ["as it should", "by a signal in the last evaluation", "by a kill after it"])
def test_a_run_that_ended_goes_on_without_a_row_twice_or_lost(ends: str, tiny: list[str]) -> None:
    """The rows of the training are those of a run that was never stopped; the last evaluation stands there once."""
    assert main(["train", *tiny, "--steps", "24", "--workdir", "whole"]) == 0
    command = ["train", *tiny, "--steps", "15", "--workdir", "run"]
    with pytest.MonkeyPatch.context() as patch:
        if "signal" in ends:
            stop_in_the_evaluation_of(15, patch)
        assert main(command) == (128 + signal.SIGTERM if "signal" in ends else 0)
    if "kill" in ends:
        lose_the_last_checkpoint(Path("run"))
    for _ in range(2):
        assert main(["train", "--workdir", "run", "--resume"]) == 0
    assert [row["step"] for row in logged(Path("run"))] == [7, 10, 14, 15]
    assert main(["train", "--workdir", "run", "--resume", "--steps", "24"]) == 0
    assert_the_same_run_but_for_pictures(Path("run"), Path("whole"))


def assert_the_same_run_but_for_pictures(directory: Path, expected: Path) -> None:
    """Those of the step where the first session ended are there too."""
    for path in (directory / "samples").glob("*_00000015.png"):
        path.unlink()
    events = [event for event in shown(directory) if event[0] == 15]
    assert {tag for _, tag, *_ in events} >= {"samples", "test/elbo"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.test_interruptions.shown", lambda where: [e for e in shown(where) if not _picture(e)])
        assert_the_same_run(directory, expected, 24, ended=15)


def _picture(event: tuple[Any, ...]) -> bool:
    return event[:2] in ((15, "samples"), (15, "reconstructions"))


# Seeds.

LARGEST = 2**32 - 1
SEEDS: dict[str, tuple[str, str]] = {
    "below": ("train vae --seed -1", "--seed must be from 0 to 4294967295, got -1"),
    "one past": ("train gan --seed 4294967296", "--seed must be from 0 to 4294967295, got 4294967296"),
    "far past": (f"train vae --seed {10**20}", f"got {10**20}"),
    "of a sweep": ("sweep vae --over beta=1,2 --seed -1", "got -1"),
    "of random settings": (f"sweep vae --random 2 --over beta=1:2 --seed {10**20}", f"got {10**20}"),
    "the last of several": (
        f"sweep vae --over beta=1,2 --seeds 2 --seed {LARGEST}",
        "--seed 4294967295 and the seeds after it, 2 in all, go past 4294967295",
    ),
    "of samples": ("sample run --seed 4294967296", "got 4294967296"),
    "of an evaluation": ("evaluate run --seed -3", "got -3"),
    "of an exploration": ("explore truncate run --seed 4294967296", "got 4294967296"),
    "of a comparison": ("compare --seed 4294967296", "got 4294967296"),
}


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_that_32_bits_do_not_hold_are_refused(name: str, copy: str, capsys: Any) -> None:
    words, said = SEEDS[name]
    refused(words.split(), capsys, said)
    assert [path.name for path in Path().iterdir()] == [copy]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (augment, ["--first-seed", str(LARGEST)]),
        (corruptions, ["--seed", "-1"]),
        (gaussians, ["--seeds", str(2**33)]),
        (train_classifier, ["--seed", str(2**32), "--out", "some.safetensors"]),
    ],
)
def test_scripts_refuse_them_too(script: Any, words: list[str], tmp_path: Path, capsys: Any) -> None:
    assert script.main(words) == 1
    error = capsys.readouterr().err
    assert "4294967295" in error or "at most" in error
    assert error.count("\n") == 1


def test_the_largest_seeds_are_seeds() -> None:
    check_seeds(LARGEST, 1)
    check_seeds(LARGEST - 1, 2)
    options: Any = parse(["vae", "--seed", str(LARGEST)])
    options.check()
    bits = {tuple(jax.random.key_data(jax.random.key(seed)).tolist()) for seed in (0, 1, LARGEST - 1, LARGEST)}
    assert len(bits) == 4


# A run of which nothing has been trained.


def forget(workdir: Path) -> None:
    """As a kill before the first row and checkpoint leaves it."""
    for folder in (workdir, *(workdir / "members").glob("*")):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        for log in folder.glob("metrics.jsonl"):
            log.write_text('{"step": 7, "los')  # torn
    (workdir / "checkpoints" / "10.orbax-checkpoint-tmp-3").mkdir(parents=True)


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("train", ["--beta-warmup", "5", "--seed", "3"]),
        pytest.param("train", [], marks=pytest.mark.slow),
        pytest.param("sweep", [], marks=pytest.mark.slow),
        pytest.param("sweep", ["--beta-warmup", "5", "--seed", "3"], marks=pytest.mark.slow),
    ],
)
def test_a_run_of_which_nothing_was_trained_begins_again(
    more: list[str], verb: str, tiny: list[str], capsys: Any
) -> None:
    """As the run that is asked for, be it the same or not."""
    over, other = ([], []) if verb == "train" else (SWEEP, ["--over", "learning_rate=1e-3", "--seeds", "1"])
    command = [verb, *tiny, "--steps", "5", "--workdir"]
    assert main([*command, "run", *over]) == 0
    forget(Path("run"))
    asked = [*more, *(other if more else over)]
    capsys.readouterr()
    assert main([*command, "run", *asked]) == 0
    assert "run holds a run that ended before its first checkpoint: it begins again" in capsys.readouterr().out
    assert main([*command, "fresh", *asked]) == 0
    configs = [Run.open(Path(name)).config for name in ("run", "fresh")]
    assert configs[0]["identity"] == configs[1]["identity"]
    folders = [Path(name) if verb == "train" else Path(name) / "members" / "000" for name in ("run", "fresh")]
    assert_the_same_run(folders[0], folders[1], 5)
    refused([*command, "run", *asked], capsys, "run already holds a run: pass --resume to continue it, or another")


def with_rows(workdir: Path) -> None:
    forget(workdir)
    (workdir / "metrics.jsonl").write_text('{"step": 7, "loss": 1.0}\n')


def with_a_damaged_checkpoint(workdir: Path) -> None:
    forget(workdir)
    (workdir / "checkpoints" / "damaged").mkdir()


def with_the_record_of_one(workdir: Path) -> None:
    forget(workdir)
    (workdir / "checkpoints" / ".newest").write_text("3\n")


def with_a_bad_step(workdir: Path) -> None:
    forget(workdir)
    (workdir / "bad_step").mkdir()


def with_a_members_rows(workdir: Path) -> None:
    forget(workdir)
    (workdir / "members" / "000").mkdir(parents=True)
    (workdir / "members" / "000" / "metrics.jsonl").write_text('{"step": 7, "loss": 1.0}\n')


@pytest.mark.parametrize(
    "left",
    [
        lambda _: None,
        with_rows,
        with_a_damaged_checkpoint,
        with_the_record_of_one,
        with_a_bad_step,
        with_a_members_rows,
    ],
)
def test_what_was_trained_is_never_begun_again(
    left: Callable[[Path], None], copy: str, tiny: list[str], capsys: Any
) -> None:
    left(Path(copy))
    before = {path: path.read_bytes() for path in Path(copy).rglob("*") if path.is_file()}
    for verb in ("train", "sweep"):
        refused([verb, *tiny, "--steps", "3", "--workdir", copy], capsys, "run already holds a run: pass --resume")
    assert {path: path.read_bytes() for path in Path(copy).rglob("*") if path.is_file()} == before


# Going on where there is nothing.


@pytest.mark.parametrize("verb", ["train", "sweep"])
def test_nothing_to_resume_is_an_error_that_names_the_place(verb: str, tiny: list[str], capsys: Any) -> None:
    for words in (tiny, []):
        said = "typo holds no run to resume: give the --workdir of one, leave out --resume", "--requeue"
        refused([verb, *words, "--workdir", "typo", "--resume"], capsys, *said)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("how", "variables", "status"),
    [
        (["--requeue"], {}, 0),
        pytest.param(["--resume", "--requeue"], {}, 0, marks=pytest.mark.slow),
        (["--resume"], {"SLURM_RESTART_COUNT": "1"}, 0),
        pytest.param(["--resume"], {"AWS_BATCH_JOB_ATTEMPT": "2"}, 0, marks=pytest.mark.slow),
        (["--resume"], {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "0"}, 1),
        (["--resume"], {"AWS_BATCH_JOB_ATTEMPT": "1"}, 1),
        (["--resume"], {"SLURM_RESTART_COUNT": "many"}, 1),
    ],
)
def test_what_is_started_again_may_begin(
    how: list[str], variables: dict[str, str], status: int, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in runs.RESTARTS:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["train", *tiny, "--steps", "3", "--workdir", "run", *how]) == status
    assert Run.exists(Path("run")) == (status == 0)
    if status == 0:
        assert main(["train", *tiny, "--steps", "5", "--workdir", "run", *how]) == 0
        assert Run.open(Path("run")).steps()[-1] == 5


def test_requeue_needs_to_know_where_and_what(tiny: list[str], capsys: Any) -> None:
    refused(["train", "vae", "--requeue"], capsys, "--requeue needs the --workdir")
    said = "new holds no run yet, so say what to begin: jaxgen train vae, or jaxgen train gan, or "
    said += "jaxgen train tokenizer"
    refused(["train", "--requeue", "--workdir", "new"], capsys, said, status=2)


# Another run from its weights.


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--batch-size", "8"], "batch_size was 16, now 8"),
        (["--learning-rate", "0.01"], "model.optimizer.learning_rate was 0.001, now 0.01"),
        (["--dataset", "npz:more.npz"], "data.num_examples was 90, now 108"),
    ],
)
def test_another_run_is_begun_from_the_weights(more: list[str], said: str, copy: str, capsys: Any) -> None:
    """As the error says."""
    np.savez("more.npz", image=np.concatenate([data.load()["image"][::20], data.load()["image"][1::100]]))
    remedy = "use the old values, or begin another run with its weights, in a new --workdir: --init-from run"
    refused(["train", "--workdir", copy, "--resume", *more], capsys, said, remedy)
    words = [*VAE, *CADENCES, "--dataset", str(saved_options(Run.open(Path(copy))).dataset), "--steps", "2", *more]
    assert main(["train", *words, "--workdir", "new", "--init-from", copy]) == 0
    assert Run.open(Path("new")).steps() == [2]


def test_weights_that_fit_are_taken_and_the_rest_named(copy: str, tiny: list[str], capsys: Any) -> None:
    wider = ["train", *tiny, "--hidden", "8", "12", "--steps", "1", "--workdir", "new", "--init-from", copy]
    refused(wider, capsys, "the weights of run do not fit: params/decoder/", ": --partial takes those that do")
    assert main([*wider, "--partial"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "arrays are from run" in line]
    assert line.startswith("6 arrays are from run, and 8 are not: params/decoder/hidden_layers/Dense_")
    assert line.endswith("; and 2 more")
    state: Any = Run.open(Path("new")).restore()
    assert state.params["encoder"]["hidden_layers"]["Dense_1"]["kernel"].shape == (8, 12)
    refused(["train", *tiny, "--partial"], capsys, "--partial would have no effect: it is for --init-from", status=2)
    gan = ["train", "gan", "--steps", "1", "--batch-size", "16", *tiny[-2:], "--init-from", copy, "--partial"]
    refused(gan, capsys, "run holds a VAEState, wanted a GANState")


def test_weights_are_taken_bit_by_bit_and_a_new_average_begins_with_them(tiny: list[str], capsys: Any) -> None:
    size = ["--generator-hidden", "8", "--latent-dim", "2", "--batch-size", "16", *tiny[len(VAE) :]]
    assert main(["train", "gan", *size, "--ema-decay", "None", "--steps", "3", "--workdir", "run"]) == 0
    trained: Any = Run.open(Path("run")).restore()
    spec = MLPGANOptions(generator_hidden=(8,), discriminator_hidden=(7,), latent_dim=2).spec((28, 28, 1))
    fresh: Any = runs.init_state(spec, jax.random.key(1), {"image": np.zeros((16, 28, 28, 1), np.uint8)})
    said: list[str] = []
    taken: Any = runs.borrow_weights(fresh, Path("run"), partial=True, say=said.append)
    for mine, theirs in (
        (taken.generator_params, trained.generator_params),
        (taken.ema["params"], trained.generator_params),
    ):
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, mine, theirs)))
    kernels = [state.discriminator_params["hidden_layers"]["Dense_0"]["kernel"] for state in (taken, fresh)]
    assert np.array_equal(*kernels)
    assert int(taken.step) == 0
    assert "ema" not in said[0]
    assert "discriminator_params" in said[0]


# Where the data are.


def test_data_are_found_from_another_directory(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(npz, tmp_path / "here" / "some.npz")
    monkeypatch.chdir(tmp_path / "here")
    assert main(["train", *VAE, "--dataset", "npz:some.npz", "--steps", "2", "--workdir", "run"]) == 0
    config = Run.open(Path("run")).config
    lasting = f"npz:{tmp_path}/here/some.npz"
    assert config["settings"]["options"]["dataset"] == "npz:some.npz"
    assert config["settings"]["paths"] == {"dataset": lasting}
    assert str(tmp_path) not in json.dumps(config["identity"])
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = str(tmp_path / "here" / "run")
    assert saved_options(Run.open(Path(run))).dataset == lasting
    assert main(["train", "--workdir", run, "--resume", "--steps", "3"]) == 0
    assert main(["evaluate", run, "--measures", "elbo", "--out", "evaluated"]) == 0
    # Moved: the error names the option that says where they are, and it does.
    (tmp_path / "here" / "some.npz").rename(tmp_path / "elsewhere" / "moved.npz")
    said = f"there are no data at {tmp_path}/here/some.npz: say where those of {run} are now, with --dataset npz:PATH"
    for verb in (["train", "--workdir", run, "--resume", "--steps", "4"], ["evaluate", run]):
        refused(verb, capsys, said)
    more = ["--steps", "4", "--dataset", "npz:moved.npz"]
    assert main(["train", "--workdir", run, "--resume", *more]) == 0
    # The whole directory moved: what was typed is right again.
    (tmp_path / "elsewhere" / "moved.npz").rename(tmp_path / "here" / "some.npz")
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    assert saved_options(Run.open(Path("run"))).dataset == "npz:some.npz"
    assert main(["train", "--workdir", "run", "--resume", "--steps", "5"]) == 0
    # A run of an earlier version, which has only what was typed.
    config = json.loads(Path("run/config.json").read_text())
    del config["settings"]["paths"]
    Path("run/config.json").write_text(json.dumps(config))
    assert main(["train", "--workdir", "run", "--resume", "--steps", "6"]) == 0


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ({"dataset": "folder:a b"}, {"dataset": "folder:{here}/a b"}),
        ({"dataset": "stacked:idx:a:b"}, {"dataset": "stacked:idx:{here}/a:b"}),
        ({"dataset": "npz:~nobody-of-this-name/a"}, {}),
        ({"dataset": "npz:/a"}, {}),
        ({"dataset": "mnist", "data_dir": Path("a")}, {"data_dir": "{here}/a"}),
        ({"dataset": "gaussians", "extractor": "inception:a"}, {"extractor": "inception:{here}/a"}),
        ({"extractor": "pixels"}, {}),
    ],
)
def test_paths_that_hold_anywhere(
    typed: dict[str, Any], kept: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = GANOptions(**typed).settings()
    assert settings.get("paths", {}) == {name: value.format(here=tmp_path) for name, value in kept.items()}
    assert {name: settings["options"][name] for name in typed} == {name: str(value) for name, value in typed.items()}


# Machines that lack something.


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_run_trains_and_says_so(
    number: int, tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for more in ([], ["--resume"]):
        assert main(["train", *tiny, "--steps", "3", "--workdir", "run", *more]) == 0
        warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
        said = f"its file system has no locks ({os.strerror(number)}): use it with one command at a time"
        assert warned == [f"warning: run is not locked, as {said}"]


def test_other_errors_of_a_lock_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match=r"Input/output error: .*\.lock"), exclusive(tmp_path):
        pass


def no_home(_: Path) -> Path:
    raise RuntimeError("Could not determine home directory.")


def read_only(**_: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize(
    ("patch", "value", "said"),
    [
        ("pathlib.Path.expanduser", no_home, "Could not determine home directory"),
        ("tempfile.TemporaryFile", read_only, "Read-only file system: "),
        ("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0), "No space left on device: "),
    ],
)
def test_caches_that_cannot_be_written_are_one_line(
    patch: str, value: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    told: dict[str, object] = {}
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(patch, value)
    compilation_cache.keep_compiled_programs()
    error = capsys.readouterr().err
    assert error.startswith("compiled programs are not kept: ")
    assert said in error
    assert error.count("\n") == 1
    assert not told


def in_a_process(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    order = [sys.executable, "-m", "jaxgen", *words]
    environment = {**os.environ, **variables}
    return subprocess.run(
        order, env=environment, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C"},
        pytest.param({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, marks=pytest.mark.slow),
        pytest.param({"HOME": "/proc/none", "XDG_CACHE_HOME": ""}, marks=pytest.mark.slow),
    ],
)
def test_names_that_are_not_ascii_and_poor_surroundings_train(variables: dict[str, str], tiny: list[str]) -> None:
    done = in_a_process(["train", *tiny, "--steps", "3", "--workdir", "künstlich/läuft"], **variables)
    assert done.returncode == 0, done.stderr
    assert Run.open(Path("künstlich/läuft")).steps() == [3]
    bar = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip() and " steps" not in line]
    assert bar == []


def test_a_name_that_is_no_text_is_refused_at_once(tiny: list[str], capsys: Any) -> None:
    """Checkpoints could not be written there, which would be found out after hours."""
    for verb in ("train", "sweep"):
        said = "the name 'b\\udcff' is no text in this system's encoding", "set PYTHONUTF8=1, or use another --workdir"
        refused([verb, *tiny, "--steps", "3", "--workdir", "b\udcff"], capsys, *said)
    assert list(Path().iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("named", ["cuda", "nowhere"])
def test_a_platform_that_is_not_here_is_said_in_one_line(named: str, copy: str, tiny: list[str]) -> None:
    for words in (["train", *tiny, "--steps", "3"], ["sample", copy], ["train", "--workdir", copy, "--resume"]):
        done = in_a_process(words, JAX_PLATFORMS=named)
        assert done.returncode == 1
        said = f"error: JAX_PLATFORMS is '{named}', and not all of that is here: there is cpu; name that, or leave it"
        assert done.stderr.startswith(said), done.stderr
        assert done.stderr.count("\n") == 1
    assert Run.open(Path(copy)).steps() == [3]
    assert not (Path(copy) / "checkpoints" / "damaged").exists()


def test_platforms_that_are_here_are_none_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for named in ("cpu", ""):
        monkeypatch.setenv("JAX_PLATFORMS", named)
        assert platforms.missing_platform() is None


# What to type.


def test_a_run_knows_its_family(copy: str, capsys: Any) -> None:
    assert main(["train", "--workdir", copy, "--resume", "--steps", "4"]) == 0
    assert main(["train", "--resume", f"--workdir={copy}", "--steps", "5"]) == 0
    assert Run.open(Path(copy)).steps()[-1] == 5
    for words in (["--workdir", copy], ["--resume"], ["--steps", "3"]):
        refused(["train", *words], capsys, f"no family was given before '{words[0]}': usage: jaxgen train", status=2)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--workdir", copy, "--resume", "--help"])
    assert ended.value.code == 0
    assert "usage: jaxgen train vae [options]" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["train", pytest.param("sweep", marks=pytest.mark.slow)])
def test_a_stop_says_the_whole_command_that_goes_on(
    verb: str, tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """And that command ends as the run that was not stopped."""
    over = [] if verb == "train" else SWEEP
    for workdir in ("a run", "whole"):
        assert main([verb, *tiny, *over, "--steps", "8", "--workdir", workdir]) == 0
    more = ["--steps", "16", "--log-every", "3", "--log-likelihood-samples", "2"]
    assert main([verb, "vae", "--workdir", "whole", "--resume", *more]) == 0
    advance, asked = session.Session.advance, False

    def advance_and_ask(self: session.Session) -> None:
        nonlocal asked
        self.chunk_limit = 1
        advance(self)
        if self.step == 11 and not asked:
            asked = True
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    monkeypatch.setattr(session.Session, "advance", advance_and_ask)
    assert main([verb, "vae", "--workdir", "a run", "--resume", *more]) == 128 + signal.SIGINT
    said = capsys.readouterr().err.splitlines()[-1]
    before, command = said.split(", go on with: ")
    assert before == "stopped by SIGINT: everything is saved"
    assert command.startswith(f"jaxgen {verb} vae --workdir 'a run' --resume --steps 16 --log-every 3")
    assert main(shlex.split(command)[1:]) == 0
    folders = [Path(name) if verb == "train" else Path(name, "members", "001") for name in ("a run", "whole")]
    assert logged(folders[0]) == logged(folders[1])
    assert logged(folders[0])[-1]["step"] == 16


@pytest.mark.parametrize(
    "more",
    [
        ["--keep-every", "3"],
        ["--mesh", "data=2"],
        ["--no-conditional"],
        ["--extractor", "pixels", "--sample-every", "2"],
        ["--dataset", "npz:some.npz"],
        [],
    ],
)
def test_the_command_that_goes_on_has_what_the_run_does_not_keep(more: list[str], copy: str, npz: Path) -> None:
    shutil.copy(npz, "some.npz")
    run, words = Run.open(Path(copy)), ["vae", "--workdir", copy, "--resume", *more]
    options: Any = parse(words)
    expected = [] if more == ["--no-conditional"] else more
    command = shlex.split(resume_command(options, run))
    assert command[:6] == ["jaxgen", "train", "vae", "--workdir", copy, "--resume"]
    assert sorted(command[6:]) == sorted(expected)
    assert parse(command[2:]) == options


@pytest.mark.slow
def test_a_finished_run_ends_with_commands_that_can_be_pasted(tiny: list[str], capsys: Any) -> None:
    np.savez("points.npz", image=np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32))
    points = ["--dataset", "npz:points.npz", "--likelihood", "gaussian"]
    images = data.load()["image"]
    np.savez("images.npz", train_image=images[::20], test_image=images[1::40])
    for verb, workdir, more, verbs in (
        ("train", "a run", ["--dataset", "npz:images.npz"], ["sample", "evaluate", "compare", "plot"]),
        ("train", "points", points, ["sample", "evaluate", "plot"]),
        ("sweep", "sweep", [*SWEEP, "--dataset", "npz:images.npz"], ["sample", "evaluate", "compare", "plot"]),
    ):
        capsys.readouterr()
        assert main([verb, *tiny, *more, "--steps", "3", "--workdir", workdir]) == 0
        _, listed = capsys.readouterr().out.split("\nnext:\n")
        commands = [shlex.split(line) for line in listed.splitlines()]
        assert [words[:2] for words in commands] == [["jaxgen", each] for each in verbs]
        assert listed.splitlines() == next_commands(Path(workdir))
        for words in commands:
            assert main(words[1:]) == 0
