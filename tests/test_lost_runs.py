"""What was saved stays: while a checkpoint takes another's place, on a disk that refuses, and under a reader's eyes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest

from jaxgen import data
from jaxgen.cli import runs, sweep, train
from jaxgen.evaluation import during_training
from jaxgen.training.checkpoint import Checkpoints, DamagedCheckpointError
from jaxgen.training.run import Run
from tests.test_checkpoints import state_of
from tests.test_interruptions import TINY, assert_the_same_run, logged, newest, start, wait_for

STEPS = 60
CADENCES = ["--log-every", "7", "--eval-every", "20", "--sample-every", "30", "--checkpoint-every", "10"]
COMMANDS: dict[str, Any] = {"train": train, "sweep": sweep}
MORE = {"train": [], "sweep": ["--seeds", "2"]}
pytestmark = [
    pytest.mark.usefixtures("orbax_fails"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred embedded images."""
    path = tmp_path_factory.mktemp("data") / "some.npz"
    np.savez(path, image=data.load()["image"][::20])
    return path


Arguments = Callable[..., list[str]]


@pytest.fixture(scope="module")
def arguments(npz: Path) -> Arguments:
    def of(workdir: Path, command: str = "train", keep: int = 2) -> list[str]:
        size = ["--steps", str(STEPS), "--dataset", f"npz:{npz}", "--keep", str(keep)]
        return [*TINY["vae"], *CADENCES, *size, *MORE[command], "--workdir", str(workdir)]

    return of


def stop_in_the_evaluation(command: str, arguments: list[str], step: int) -> None:
    """Leave a checkpoint of a step that was saved before it was looked at."""
    evaluate = during_training.Evaluation.__call__

    def interrupted(self: during_training.Evaluation, state: Any) -> Any:
        if int(state.step) == step:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
        return evaluate(self, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(during_training.Evaluation, "__call__", interrupted)
        assert COMMANDS[command].main(arguments) == 128 + signal.SIGTERM


def traced(number: int, workdir: Path, command: str, *more: str) -> tuple[int, list[str]]:
    """Resume in a process that is killed before a file operation; its status, and the operations before that."""
    trace = workdir.with_name("trace")
    order = [sys.executable, "-m", "tests.killed", str(number), str(workdir), str(trace), command, "vae"]
    done = subprocess.run([*order, "--workdir", str(workdir), "--resume", *more], capture_output=True, check=False)
    return done.returncode, trace.read_text().splitlines()


def whole(folder: Path) -> dict[str, list[int]]:
    """The checkpoints under a folder that can be read, by where they lie."""
    found: dict[str, list[int]] = {}
    for place in sorted(folder.rglob("checkpoints")):
        with Checkpoints(place, read_only=True) as checkpoints:
            for step in checkpoints.steps():
                leaves = checkpoints.manifest(step)["leaves"]
                wanted: dict[str, Any] = {}
                for path, leaf in leaves.items():
                    kind, _, shape = leaf["array"].partition("[")
                    *above, name = path.split("/")
                    tree = wanted
                    for part in above:
                        tree = tree.setdefault(part, {})
                    tree[name] = jax.ShapeDtypeStruct(tuple(json.loads(f"[{shape}")), kind)
                try:
                    checkpoints.restore(step, wanted)
                except DamagedCheckpointError:
                    continue
                found.setdefault(str(place.relative_to(folder)), []).append(step)
    return found


def assert_the_same_sweep(workdir: Path, expected: Path) -> None:
    for member in ("000", "001"):
        assert_the_same_run(workdir / "members" / member, expected / "members" / member, STEPS)
    assert json.loads((workdir / "results.json").read_text()) == json.loads((expected / "results.json").read_text())


@pytest.mark.parametrize(
    ("command", "keep", "finished", "kills"),
    [
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("train", 1, False, 12),
            ("train", 2, False, 8),
            ("sweep", 1, False, 8),
            ("sweep", 2, False, 6),
            ("sweep", 1, True, 6),
        )
    ],
)
def test_kills_while_a_checkpoint_is_replaced_lose_nothing(
    command: str, keep: int, finished: bool, kills: int, arguments: Arguments, tmp_path: Path
) -> None:
    """At no instant are there fewer whole checkpoints, and the end is bit for bit that of a run left alone.

    The instants are those between the operations on files of a resumption that nobody killed.
    """
    expected, stopped, workdir = tmp_path / "expected", tmp_path / "stopped", tmp_path / "run"
    run = COMMANDS[command]
    assert run.main(arguments(expected, command, keep)) == 0
    if finished:
        shutil.copytree(expected, stopped)
    else:
        stop_in_the_evaluation(command, arguments(stopped, command, keep), 40)
    shutil.copytree(stopped, workdir)
    before = whole(workdir)
    status, operations = traced(-1, workdir, command)
    assert status == 0
    beside = [i for i, line in enumerate(operations) if "/replacements" in line]
    assert beside, operations
    renames = [
        i for i in beside if operations[i].startswith("os.rename") and not operations[i].endswith("replacements")
    ]
    # The last two renames are the swap; the others are spread over the writing before and the deletion after it.
    instants = [renames[-1], *np.linspace(beside[0], min(beside[-1] + 4, len(operations) - 1), kills - 1).astype(int)]
    for instant in instants:
        shutil.rmtree(workdir)
        shutil.copytree(stopped, workdir)
        status, done = traced(int(instant), workdir, command)
        assert status == -signal.SIGKILL
        assert len(done) == instant
        after = whole(workdir)
        for place, steps in before.items():
            assert set(steps) <= set(after[place]) or len(after[place]) >= min(keep, len(steps)), (done[-1], after)
            assert max(after[place]) >= max(steps), done[-1]
        assert run.main(["vae", "--workdir", str(workdir), "--resume"]) == 0, done[-1]
        if command == "train":
            assert_the_same_run(workdir, expected, STEPS)
        else:
            assert_the_same_sweep(workdir, expected)
        assert not [path for path in workdir.rglob("*") if path.name in ("replacements", "deleted")]


def test_what_only_lies_among_the_deleted_is_brought_back(tmp_path: Path) -> None:
    """As earlier versions left it, or a kill in a deletion while what is newer is damaged."""
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, {"state": state_of("vae", step)}, notes={"looked": True})
    (folder / "deleted").mkdir()
    for step in (10, 20, 30):
        (folder / str(step)).rename(folder / "deleted" / str(step))
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.steps() == [10, 20, 30]
        assert checkpoints.restore_newest({"state": state_of("vae")}).step == 30
        assert not (folder / "30").exists(), "a reader changes nothing"
    with Checkpoints(folder, keep=3) as checkpoints:
        assert checkpoints.restore_newest({"state": state_of("vae")}).step == 30
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20", "30"]
    (folder / "deleted").mkdir()
    for step in (10, 20):
        (folder / str(step)).rename(folder / "deleted" / str(step))
    (folder / "30" / "manifest" / "metadata").unlink()
    with Checkpoints(folder, keep=3) as checkpoints:
        restored = checkpoints.restore_newest({"state": state_of("vae")})
        chex.assert_trees_all_equal(restored.items["state"], state_of("vae", 20))
        assert list(restored.damaged) == [30]
        checkpoints.save(30, {"state": state_of("vae", 30)})
        assert checkpoints.steps() == [20, 30]
    # The one that was replaced, where the one in its place is damaged, and no other is left.
    shutil.rmtree(folder / "20")
    (folder / "deleted").mkdir(exist_ok=True)
    shutil.copytree(folder / "30", folder / "deleted" / "30")
    (folder / "30" / "manifest" / "metadata").unlink()
    with Checkpoints(folder, keep=3) as checkpoints:
        restored = checkpoints.restore_newest({"state": state_of("vae")})
        chex.assert_trees_all_equal(restored.items["state"], state_of("vae", 30))
        assert checkpoints.steps() == [30]


@pytest.mark.parametrize("killed", ["before the swap", "between its renames", "after them"])
def test_a_swap_that_was_cut_off_is_mended(killed: str, tmp_path: Path) -> None:
    """What a kill leaves at each of the instants of a replacement's end: a reader finds all, and a run goes on."""
    folder, beside = tmp_path / "checkpoints", tmp_path / "beside"
    for place, value in ((folder, 1), (beside, 2)):
        with Checkpoints(place, keep=1) as checkpoints:
            checkpoints.save(10, {"state": state_of("vae", value)})
    if killed == "before the swap":
        beside.rename(folder / "replacements")
    else:
        (folder / "deleted").mkdir()
        (folder / "10").rename(folder / "deleted" / "10")
        (beside / "10").rename(folder / "10" if killed == "after them" else beside / "10")
        beside.rename(folder / "replacements")
    kept = state_of("vae", 1 if killed == "before the swap" else 2)
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.steps() == [10]
        chex.assert_trees_all_equal(checkpoints.restore(10, {"state": kept}).items["state"], kept)
    with Checkpoints(folder, keep=1) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore_newest({"state": kept}).items["state"], kept)
        assert [path.name for path in folder.iterdir()] == ["10"]
        checkpoints.save(10, {"state": state_of("vae", 3)})
        checkpoints.save(11, {"state": state_of("vae", 4)})
    assert [path.name for path in folder.iterdir()] == ["11"]


def test_a_run_that_had_a_checkpoint_never_begins_anew(arguments: Arguments, tmp_path: Path, capsys: Any) -> None:
    workdir = tmp_path / "run"
    resume = ["vae", "--workdir", str(workdir), "--resume"]
    assert train.main([*arguments(workdir), "--steps", "20"]) == 0
    log = (workdir / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    for lost, what in (
        (["."], "its checkpoints cannot be found: put "),
        (["10", "20"], "its checkpoint of step 20 cannot be found: put "),
        (["20"], f"warning: checkpoint 20 was saved in {workdir / 'checkpoints'} and is not there"),
    ):
        shutil.copytree(workdir, tmp_path / "copy")
        for name in lost:
            shutil.rmtree(workdir / "checkpoints" / name)
        status, said = train.main([*resume, "--steps", "30"]), capsys.readouterr()
        assert what in said.out + said.err
        assert status == (0 if "warning" in what else 1)
        if status:
            assert (workdir / "metrics.jsonl").read_bytes() == log
            shutil.rmtree(workdir)
            shutil.copytree(tmp_path / "copy", workdir)
        shutil.rmtree(tmp_path / "copy")
    # Of a run that was killed before its first checkpoint nothing is lost.
    fresh = tmp_path / "fresh"
    assert train.main([*arguments(fresh), "--steps", "20"]) == 0
    for path in (fresh / "checkpoints").iterdir():
        path.unlink() if path.is_file() else shutil.rmtree(path)
    capsys.readouterr()
    assert train.main(["vae", "--workdir", str(fresh), "--resume"]) == 0
    assert "no completed checkpoint: starting at step 0" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["dangling link", "file", "pipe"])
def test_what_is_no_folder_is_said_for_what_it_is(kind: str, arguments: Arguments, tmp_path: Path, capsys: Any) -> None:
    workdir = tmp_path / "run"
    assert train.main([*arguments(workdir), "--steps", "20"]) == 0
    log = (workdir / "metrics.jsonl").read_bytes()
    made: dict[str, Callable[[Path], None]] = {
        "dangling link": lambda path: path.symlink_to(tmp_path / "gone"),
        "file": lambda path: path.touch(),
        "pipe": lambda path: os.mkfifo(path),
    }
    words = {
        "dangling link": f"a link to {tmp_path / 'gone'}, which is not there",
        "file": "a file",
        "pipe": "a named pipe",
    }
    resume = ["vae", "--workdir", str(workdir), "--resume", "--steps", "30"]
    for place in (workdir / "checkpoints", workdir / "checkpoints" / "20"):
        away = tmp_path / "away"
        place.rename(away)
        made[kind](place)
        capsys.readouterr()
        status = train.main(resume)
        said = capsys.readouterr()
        assert words[kind] in said.out + said.err
        if place.name == "checkpoints" or kind == "dangling link":
            assert status == 1
            assert len(said.err.splitlines()) == 1
            assert (workdir / "metrics.jsonl").read_bytes() == log
            assert os.path.lexists(place), "it is not moved away: what it stands for may come back"
            place.unlink()
            away.rename(place)
        else:
            assert status == 0, "what is no checkpoint is set aside"
            assert os.path.lexists(workdir / "checkpoints" / "damaged" / "20-0")


def confined(program: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run Python as one whom the system refuses something: root without the right to read and write everything."""
    order = [sys.executable, "-c", f"import sys\nfrom jaxgen.cli import runs, train\n{program}", *more]
    if os.getuid() == 0:
        order = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *order]
    return subprocess.run(order, capture_output=True, text=True, check=False, timeout=60)


TRAIN = "sys.exit(train.main(sys.argv[1:]))"


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(arguments: Arguments, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    assert train.main([*arguments(workdir), "--steps", "20"]) == 0
    (workdir / "checkpoints" / "20").chmod(0)
    done = confined(TRAIN, "vae", "--workdir", str(workdir), "--resume", "--steps", "30")
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: checkpoint 20 in ")
    assert "cannot be read (Permission denied: " in done.stderr
    assert "does not mean that it is damaged" in done.stderr
    assert (workdir / "checkpoints" / "20").exists()
    (workdir / "checkpoints" / "20").chmod(0o777)
    assert train.main(["vae", "--workdir", str(workdir), "--resume", "--steps", "30"]) == 0


def small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("no disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def few_files(tmp_path: Path) -> Iterator[Path]:
    """A disk that holds some hundred files."""
    yield from small_disk(tmp_path / "disk", "size=20m,nr_inodes=300")


REFUSALS = ["not writable", "few descriptors", "no inodes"]


@pytest.mark.parametrize(
    ("checkpointing", "kind"),
    [
        ("asynchronous", "not writable"),
        *(
            pytest.param(how, kind, marks=pytest.mark.slow)
            for how in ("asynchronous", "synchronous")
            for kind in REFUSALS
        ),
    ],
)
def test_a_folder_that_cannot_be_made_ends_the_run_at_once(
    checkpointing: str, kind: str, arguments: Arguments, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Status 1 and one line with the path, in seconds; with room again the run goes on."""
    folder = request.getfixturevalue("few_files") if kind == "no inodes" else tmp_path
    expected, workdir = tmp_path / "expected", folder / "run"
    assert train.main(arguments(expected)) == 0
    assert train.main([*arguments(workdir), "--checkpointing", checkpointing, "--steps", "30"]) == 0
    resume = ["vae", "--workdir", str(workdir), "--resume", "--steps", str(STEPS)]
    filled: list[Path] = []
    if kind == "not writable":
        (workdir / "checkpoints").chmod(0o555)
        program = TRAIN
    elif kind == "few descriptors":
        # Three more than the process has when its first steps are done.
        program = (
            "import os, resource\nfrom jaxgen.training import session\nadvance = session.Session.advance\n"
            "def limited(self):\n    advance(self)\n    used = len(os.listdir('/proc/self/fd'))\n"
            "    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, used + 3))\n"
            f"session.Session.advance = limited\n{TRAIN}"
        )
    else:
        program = TRAIN
        while os.statvfs(folder).f_ffree > 3:
            filled.append(folder / f"filler{len(filled)}")
            filled[-1].touch()
    began = time.monotonic()
    done = confined(program, *resume)
    assert time.monotonic() - began < 15 + 15  # to import and compile, and to give up
    error = done.stderr.replace("\r", "\n").splitlines()[-1]
    assert done.returncode == 1, done.stderr
    assert error.startswith("error: checkpoint 40 could not be written in "), done.stderr
    assert str(workdir) in error
    assert "Traceback" not in done.stderr
    (workdir / "checkpoints").chmod(0o777)
    for path in filled:
        path.unlink()
    assert Run.open(workdir).steps()[:1] == [20], "what was there is there"
    assert train.main(resume) == 0
    assert_the_same_run(workdir, expected, STEPS, ended=30)


@pytest.mark.parametrize("reads", [pytest.param(1000, marks=pytest.mark.slow)])
def test_a_run_can_be_read_while_it_trains(reads: int, arguments: Arguments, tmp_path: Path) -> None:
    """The checkpoint that is being read may be deleted at any instant."""
    workdir = tmp_path / "run"
    often = ["--steps", "10000000", "--eval-every", "10000000", "--sample-every", "10000000", "--log-every", "1000000"]
    process = start([*arguments(workdir, keep=1), *often, "--checkpoint-every", "3"])
    try:
        wait_for(lambda: newest(workdir / "checkpoints") > 3 or process.poll() is not None)
        run, seen = Run.open(workdir), set()
        for _ in range(reads):
            seen.add(int(run.restore().step))
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    assert len(seen) > 3, "it went on meanwhile"
    assert all(step % 3 == 0 for step in seen)


def test_what_is_deleted_while_it_is_read_is_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest is another one then; of a step that is asked for there is none."""
    folder, beside = tmp_path / "checkpoints", tmp_path / "beside"
    for place, step in ((folder, 10), (beside, 20)):
        with Checkpoints(place) as checkpoints:
            checkpoints.save(step, {"state": state_of("vae", step)}, float(step))
    read = Checkpoints._read

    def meanwhile(self: Checkpoints, step: int, arguments: Any) -> Any:
        if step == 10 and "state" in arguments:
            (beside / "20").rename(folder / "20")
            shutil.rmtree(folder / "10")
        return read(self, step, arguments)

    monkeypatch.setattr(Checkpoints, "_read", meanwhile)
    choices: list[Any] = ["newest", "best", 10]
    for which in choices:
        shutil.copytree(folder, tmp_path / "copy")
        with Checkpoints(folder, read_only=True) as checkpoints:
            if which == 10:
                with pytest.raises(FileNotFoundError, match=r"no 10 checkpoint in .*: there are \[20\]"):
                    checkpoints.restore_one(10, {"state": state_of("vae")})
            else:
                restored = checkpoints.restore_one(which, {"state": state_of("vae")})
                chex.assert_trees_all_equal(restored.items["state"], state_of("vae", 20))
                assert restored.damaged == {}
        (folder / "20").rename(beside / "20")
        shutil.rmtree(folder)
        (tmp_path / "copy").rename(folder)


def test_other_test_images_are_noticed(npz: Path, arguments: Arguments, tmp_path: Path, capsys: Any) -> None:
    """They are no part of what is learnt: the run goes on, says so, keeps it in its log, and seeks the best anew."""
    images = np.load(npz)["image"]
    folders = {}
    for name, test in {"as it was": images[:20], "changed": 255 - images[:20], "fewer": images[:19]}.items():
        folders[name] = tmp_path / f"{name.replace(' ', '_')}.npz"
        np.savez(folders[name], train_image=images, test_image=test)
    workdir = tmp_path / "run"
    first = [*arguments(workdir), "--dataset", f"npz:{folders['as it was']}", "--steps", "20"]
    assert train.main(first) == 0
    best = Run.open(workdir)
    with best.checkpoints(read_only=True) as checkpoints:
        assert checkpoints.best_step() == 20
    for steps, name in ((40, "changed"), (60, "fewer")):
        capsys.readouterr()
        more = ["--dataset", f"npz:{folders[name]}", "--steps", str(steps)]
        assert train.main(["vae", "--workdir", str(workdir), "--resume", *more]) == 0
        printed = capsys.readouterr().out
        assert "warning: what is measured from here is measured on other test images" in printed
        (row,) = [row for row in logged(workdir) if row["step"] == steps - 20 and "warning" in row]
        assert ("test images.num_examples was 20, now 19" in row["warning"]) == (name == "fewer")
        with best.checkpoints(read_only=True) as checkpoints:
            assert checkpoints.best_step() == steps, "the only one that was scored on these images"
    capsys.readouterr()
    assert train.main(["vae", "--workdir", str(workdir), "--resume", *more[:2], "--steps", "80"]) == 0
    assert "other test images" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["gan", "--packing", "3", "--batch-size", "16"], r"--batch-size 16 must be a multiple of .* use 15"),
        (["vae", "--learning-rate", "nan"], "--learning-rate must be finite, in float32 too, got nan"),
        (["gan", "--init-scale", "1e39"], "--init-scale must be finite"),
    ],
)
def test_what_cannot_be_trained_leaves_no_directory(
    options: list[str], said: str, npz: Path, tmp_path: Path, capsys: Any
) -> None:
    again = [*options, "--dataset", f"npz:{npz}"]
    for command, more in ((train, []), (sweep, ["--seeds", "2"])):
        for _ in range(2):
            assert command.main([*again, *more, "--workdir", str(tmp_path / "run")]) == 1
            error = capsys.readouterr().err
            assert re.search(said, error), error
            assert len(error.splitlines()) == 1
        assert not (tmp_path / "run").exists()


def test_an_error_before_the_first_step_takes_the_directory_away(
    arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was; but not what was there before."""
    monkeypatch.setattr(runs, "starting_point", lambda *_: 1 / 0)
    for made in (True, False):
        workdir = tmp_path / f"{made}"
        if not made:
            workdir.mkdir()
            for name in ("notes.txt", "tensorboard/other", "members/000/config.json"):
                (workdir / name).parent.mkdir(parents=True, exist_ok=True)
                (workdir / name).write_text("mine")
        with pytest.raises(ZeroDivisionError):
            train.main(arguments(workdir))
        assert not Run.exists(workdir)
        assert workdir.exists() != made
        if not made:
            kept = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
            assert kept == {".lock", "notes.txt", "tensorboard/other", "members/000/config.json"}


def test_a_state_that_is_not_saved_is_said_beside_another_error(
    arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Whatever the error was, unless it is that of the saving itself."""

    def fail(text: str) -> Callable[..., None]:
        def raise_it(*_: Any, **__: Any) -> None:
            raise OSError(text)

        return raise_it

    monkeypatch.setattr(during_training.Evaluation, "__call__", fail("the features are gone"))
    monkeypatch.setattr(Checkpoints, "save", fail("the disk is full"))
    assert train.main([*arguments(tmp_path / "run"), "--checkpoint-every", "1000"]) == 1
    error = capsys.readouterr().err
    assert "the state of step 20 was not saved: the disk is full" in error
    assert error.splitlines()[-1] == "error: the features are gone"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 20 MB."""
    yield from small_disk(tmp_path / "disk", "size=20m")


def damage(workdir: Path) -> None:
    """Flip a bit of the largest file of every checkpoint."""
    for place in (path for path in (workdir / "checkpoints").iterdir() if path.is_dir()):
        largest = max((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)


@pytest.mark.parametrize(
    ("checkpointing", "left"),
    [
        pytest.param(how, left, marks=pytest.mark.slow)
        for how in ("asynchronous", "synchronous")
        for left in (0, 20_000, 100_000, "damaged")
    ],
)
def test_what_goes_wrong_is_said_in_one_line(
    checkpointing: str, left: int | str, arguments: Arguments, small: Path
) -> None:
    """With the path, and without the tracebacks of what Orbax leaves running; then the run goes on."""
    workdir = small / "run"
    order = ["--checkpointing", checkpointing, "--steps", "30"]
    assert train.main([*arguments(workdir), *order]) == 0
    filler = small / "filler"
    if isinstance(left, int):
        free = os.statvfs(small)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize - left))
    else:
        damage(workdir)
    process = start(["vae", "--workdir", str(workdir), "--resume", "--steps", str(STEPS)])
    printed, _ = process.communicate(timeout=120)
    bar = re.compile(r"\s*\d+%\||^\s*$|^(vae on|run directory|resuming|step \d)")
    lines = [line for line in printed.replace("\r", "\n").splitlines() if not bar.search(line)]
    assert process.returncode == 1, printed
    assert len(lines) == 1, printed
    assert lines[0].startswith("error: ")
    assert str(workdir) in lines[0]
    assert ("is damaged" if left == "damaged" else "No space left on device") in lines[0]
    if left != "damaged":
        filler.unlink()
        assert train.main(["vae", "--workdir", str(workdir), "--resume", "--steps", str(STEPS)]) == 0
