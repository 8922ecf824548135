"""However a run ends, the last step is there, and the run goes on as if it had not ended."""

import contextlib
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import chex
import jax
import numpy as np
import pytest
from tensorboardX.event_file_writer import EventsWriter

from jaxgen import data
from jaxgen.cli import standard_streams, train
from jaxgen.cli.main import refuse_if_held
from jaxgen.evaluation import during_training
from jaxgen.training import session, stopping
from jaxgen.training.checkpoint import Checkpoints
from jaxgen.training.events import EventFile, read_events
from jaxgen.training.files import exclusive
from jaxgen.training.monitor import Monitor, read_rows
from jaxgen.training.run import Run

TINY: dict[str, list[str]] = {
    "vae": ["vae", "--hidden", "16", "--latent-dim", "3", "--batch-size", "32"],
    "gan": ["gan", "--generator-hidden", "16", "--discriminator-hidden", "16", "--latent-dim", "3"],
    # All that a state of it can hold: moving averages of codes and of logits, restarts, a discriminator that waits.
    "tokenizer": [
        *("tokenizer", "--width", "2", "--bottleneck", "vq", "--codebook-size", "8", "--batch-size", "8"),
        *("--discriminator-width", "2", "--adversarial-start", "20", "--lecam-weight", "0.001", "--penalty", "r1"),
    ],
}
CADENCES = ["--log-every", "7", "--eval-every", "20", "--sample-every", "30", "--checkpoint-every", "10"]
STEPS = 60
ASKING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A hundred embedded images, so that the scripts are quick."""
    path = tmp_path_factory.mktemp("data") / "some.npz"
    np.savez(path, image=data.load()["image"][::20])
    return f"npz:{path}"


@pytest.fixture(scope="module")
def command(npz: str) -> Callable[..., list[str]]:
    def arguments(family: str, workdir: Path, *more: str) -> list[str]:
        steps = ["--steps", str(STEPS), "--dataset", npz]
        return [*TINY[family], *CADENCES, *steps, "--workdir", str(workdir), *more]

    return arguments


@pytest.fixture(scope="module")
def whole(command: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The uninterrupted run of a family."""
    folder = tmp_path_factory.mktemp("whole")

    def run(family: str) -> Path:
        if not (folder / family).exists():
            assert train.main(command(family, folder / family)) == 0
        return folder / family

    return run


def logged(directory: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: v for name, v in row.items() if not name.startswith("time_")} for row in rows]


def shown(directory: Path) -> list[tuple[Any, ...]]:
    """What TensorBoard is told, all but the times."""
    events = [event for path in sorted((directory / "tensorboard").iterdir()) for event, _ in read_events(path)]
    values = [(event.step, value) for event in events for value in event.summary.value]
    return [
        (step, value.tag, value.simple_value, value.image.encoded_image_string)
        for step, value in values
        if not value.tag.startswith(("time_", "time/"))
    ]


def assert_the_same_run(directory: Path, expected: Path, steps: int = STEPS, ended: int | None = None) -> None:
    """State, log, TensorBoard and pictures, bit for bit; the evaluation where a session ended stands there once."""
    states = [Run.open(path).restore(steps) for path in (directory, expected)]
    chex.assert_trees_all_equal(*states)
    last = [row for row in logged(directory) if row["step"] == ended and "test_elbo" in row]
    assert len(last) == (ended is not None)
    assert [row for row in logged(directory) if row not in last] == logged(expected)
    evaluated = [(row["step"], f"test/{name.removeprefix('test_')}") for row in last for name in row if name != "step"]
    assert [event for event in shown(directory) if event[:2] not in evaluated] == shown(expected)
    assert set(evaluated) <= {event[:2] for event in shown(directory)}
    assert len(shown(directory)) == len({(step, tag) for step, tag, *_ in shown(directory)})
    pictures = [{p.name: p.read_bytes() for p in (path / "samples").iterdir()} for path in (directory, expected)]
    assert pictures[0] == pictures[1]


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Do something once, just after a step, in the middle of a chunk's end."""

    def arrange(step: int, what: Callable[[], None]) -> None:
        monkeypatch.setattr(session, "CHUNK_SECONDS", 1e-9)  # chunks of one step
        advance = session.Session.advance
        done = False

        def advance_and_more(self: session.Session) -> None:
            nonlocal done
            advance(self)
            if self.step == step and not done:
                done = True
                what()

        monkeypatch.setattr(session.Session, "advance", advance_and_more)

    return arrange


def wait_for(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("family", "signum", "step"),
    [
        pytest.param("vae", signal.SIGTERM, 33, marks=pytest.mark.slow),
        pytest.param("vae", signal.SIGINT, 20, marks=pytest.mark.slow),
        pytest.param("gan", signal.SIGINT, 41, marks=pytest.mark.slow),
        pytest.param("gan", signal.SIGTERM, 1, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_the_step_and_the_run_goes_on(
    family: str,
    signum: int,
    step: int,
    command: Callable[..., list[str]],
    whole: Callable[[str], Path],
    at_step: Any,
    tmp_path: Path,
    capsys: Any,
) -> None:
    expected, workdir = whole(family), tmp_path / "run"

    def send() -> None:
        os.kill(os.getpid(), signum)
        time.sleep(0.3)  # the signal is seen in another thread

    at_step(step, send)
    before = [signal.getsignal(each) for each in stopping.SIGNALS]
    assert train.main(command(family, workdir)) == 128 + signum
    assert [signal.getsignal(each) for each in stopping.SIGNALS] == before
    assert f"stopped by {signal.Signals(signum).name}: everything is saved" in capsys.readouterr().err
    assert Run.open(workdir).steps()[-1] == step
    assert train.main([family, "--workdir", str(workdir), "--resume"]) == 0
    assert f"resuming from step {step}" in capsys.readouterr().out
    assert_the_same_run(workdir, expected)


@pytest.mark.parametrize("kind", ["signal", pytest.param("error", marks=pytest.mark.slow)])
def test_an_evaluation_is_cut_short_and_done_again(
    kind: str,
    command: Callable[..., list[str]],
    whole: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: Any,
) -> None:
    """The row of the log that was written before, and the one that was not, are both there once in the end."""
    expected, workdir = whole("vae"), tmp_path / "run"
    evaluate = during_training.Evaluation.__call__

    def interrupted(self: during_training.Evaluation, state: Any) -> Any:
        if int(state.step) == 40 and kind == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
        if int(state.step) == 40 and kind == "error":
            raise RuntimeError("something else is broken")
        return evaluate(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(during_training.Evaluation, "__call__", interrupted)
        if kind == "signal":
            assert train.main(command("vae", workdir)) == 128 + signal.SIGTERM
        else:
            with pytest.raises(RuntimeError, match="something else"):
                train.main(command("vae", workdir))
    assert Run.open(workdir).steps()[-1] == 40
    assert not [row for row in logged(workdir) if row["step"] == 40 and "test_elbo" in row]
    assert train.main(["vae", "--workdir", str(workdir), "--resume"]) == 0
    assert_the_same_run(workdir, expected)
    with Run.open(workdir).checkpoints(read_only=True) as checkpoints:
        assert checkpoints.manifest(checkpoints.find("newest"))["looked"]


@pytest.mark.slow
def test_an_error_elsewhere_saves_the_step(
    command: Callable[..., list[str]], whole: Callable[[str], Path], at_step: Any, tmp_path: Path
) -> None:
    expected, workdir = whole("vae"), tmp_path / "run"

    def fail() -> None:
        raise RuntimeError("something else is broken")

    at_step(35, fail)
    with pytest.raises(RuntimeError, match="something else"):
        train.main(command("vae", workdir))
    assert Run.open(workdir).steps()[-1] == 35
    assert train.main(["vae", "--workdir", str(workdir), "--resume"]) == 0
    assert_the_same_run(workdir, expected)


def test_leaving_the_checkpoints_waits_for_them(tmp_path: Path) -> None:
    """Falling through, and an exception: what was saved in the background is on the disk."""
    items = {"state": {"w": np.ones((2000, 1000), np.float32)}}
    with Checkpoints(tmp_path / "through", asynchronous=True) as checkpoints:
        checkpoints.save(1, items)

    def fail() -> None:
        with Checkpoints(tmp_path / "exception", asynchronous=True) as checkpoints:
            checkpoints.save(1, items)
            raise RuntimeError("something else is broken")

    with pytest.raises(RuntimeError, match="something else"):
        fail()
    for name in ("through", "exception"):
        assert Checkpoints(tmp_path / name, read_only=True).steps() == [1]


def start(
    arguments: list[str], redirect: str = "2>&1", before: str = "", session: bool = False
) -> subprocess.Popen[str]:
    """A process of its own, perhaps in a session of its own, its descriptors as a shell's words have them."""
    # As a user has it: JAX may be killed while it writes into the folder of compiled programs, which it does without
    # care, and reads what is left there the next time.
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = os.environ["JAX_COMPILATION_CACHE_DIR"]
    environment["PYTHONUNBUFFERED"] = ""
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup, which is inherited
    try:
        return subprocess.Popen(
            ["sh", "-c", f'{before} exec "$@" {redirect}', "sh", sys.executable, "-m", "jaxgen", "train", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=session,
        )
    finally:
        signal.signal(signal.SIGHUP, hangup)


@pytest.fixture
def training(command: Callable[..., list[str]], tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A long run in a process of its own, which has begun."""
    workdir = tmp_path / "run"
    process = start([*command("vae", workdir), "--steps", "10000000", "--eval-every", "10000000"])
    wait_for(lambda: (workdir / "checkpoints" / "10").exists() or process.poll() is not None)
    yield process, workdir
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_while_the_first_one_lives(
    training: tuple[subprocess.Popen[str], Path], command: Callable[..., list[str]], capsys: Any
) -> None:
    process, workdir = training
    refusal = f"error: {workdir} is in use by process {process.pid} on "
    for more in ([], ["--resume"]):
        assert train.main([*command("vae", workdir), *more]) == 1
        assert capsys.readouterr().err.startswith(refusal)
        began = time.monotonic()
        second = start([*command("vae", workdir), *more])
        printed, _ = second.communicate()
        assert time.monotonic() - began < 5
        assert second.returncode == 1
        assert printed.startswith(refusal)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # The lock went with it.
    with Run.open(workdir).lock():
        pass


def wait_for_an_instant(
    kind: int, generator: np.random.Generator, checkpoints: Path, most: int, done: Callable[[], bool]
) -> None:
    """While the program starts; or, some steps later, in a save, at any time, or in a deletion."""
    if kind == 0:
        time.sleep(generator.uniform(0, 5))
        return
    step = newest(checkpoints) + int(generator.integers(1, most))
    wait_for(lambda: done() or newest(checkpoints) > step)
    if kind == 2:
        time.sleep(generator.uniform(0, 0.3))
    else:
        wait_for(lambda: done() or any(checkpoints.glob("*tmp*" if kind == 1 else "deleted")))


def newest(checkpoints: Path) -> int:
    return max(Checkpoints(checkpoints, read_only=True).steps(), default=0)


@pytest.mark.parametrize(
    ("family", "checkpointing", "kinds"),
    [
        ("vae", "asynchronous", (1,)),
        *(
            pytest.param(family, checkpointing, (0, 1, 2, 3) * 8, marks=pytest.mark.slow)
            for family in ("vae", "gan")
            for checkpointing in ("asynchronous", "synchronous")
        ),
        pytest.param("tokenizer", "asynchronous", (0, 1, 2, 3) * 5, marks=pytest.mark.slow),
    ],
)
def test_kills_at_any_instant_change_nothing(
    family: str,
    checkpointing: str,
    kinds: tuple[int, ...],
    command: Callable[..., list[str]],
    whole: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Killed and started again and again, a run ends as the one that was left alone, and all it lists restores."""
    steps = STEPS * len(kinds)
    workdir, generator = tmp_path / "killed", np.random.default_rng(0)
    arguments = [*command(family, workdir), "--steps", str(steps)]
    if steps == STEPS:
        alone = whole(family)
    else:
        alone = tmp_path / "alone"
        assert train.main([*arguments, "--workdir", str(alone)]) == 0
    often = ["--checkpoint-every", "3", "--checkpointing", checkpointing, "--requeue"]
    reached = []
    for kind in kinds:
        process = start([*arguments, *often])
        wait_for_an_instant(kind, generator, workdir / "checkpoints", 40, lambda p=process: p.poll() is not None)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        printed, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, printed
        for step in Checkpoints(workdir / "checkpoints", read_only=True).steps():
            Run.open(workdir).restore(step)
        reached.append(newest(workdir / "checkpoints"))
    assert 0 < reached[-1] < steps
    assert reached == sorted(reached), "what was on the disk stays there"
    assert train.main([*arguments, *often]) == 0
    assert_the_same_run(workdir, alone, steps)
    leftovers = [path for path in workdir.rglob("*") if "tmp" in path.name or "partial" in path.name]
    assert leftovers == []


@pytest.mark.slow
@pytest.mark.parametrize("signum", ASKING)
def test_a_signal_ends_a_process_with_its_status_and_the_last_step(
    signum: int, training: tuple[subprocess.Popen[str], Path]
) -> None:
    process, workdir = training
    process.send_signal(signum)
    began = time.monotonic()
    printed, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 128 + signum, printed
    last = max(row["step"] for row in logged(workdir))
    assert Run.open(workdir).steps()[-1] >= last


@pytest.mark.slow
@pytest.mark.parametrize("redirect", ["2>&-", ">&-", ">&- 2>&- <&-"])
def test_closed_streams_change_nothing(
    redirect: str, command: Callable[..., list[str]], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    """The number of a closed descriptor goes to none of the run's files."""
    expected, workdir = whole("vae"), tmp_path / "run"
    process = start(command("vae", workdir), redirect)
    printed = process.communicate()
    assert process.returncode == 0, printed
    assert_the_same_run(workdir, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_leaves_changes_nothing(
    name: str, command: Callable[..., list[str]], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    """As with ``| head -1``."""
    expected, workdir = whole("vae"), tmp_path / "run"
    process = start(command("vae", workdir), redirect="")
    leaving, staying = (process.stdout, process.stderr) if name == "stdout" else (process.stderr, process.stdout)
    assert leaving is not None
    assert staying is not None
    assert leaving.read(4)
    leaving.close()
    with staying:
        printed = staying.read()
    assert process.wait() == 0, printed
    assert "rror" not in printed
    assert_the_same_run(workdir, expected)


@pytest.mark.slow
def test_a_closed_terminal_saves_the_last_step_and_nohup_goes_on(
    command: Callable[..., list[str]], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    """The system sends SIGHUP, and whatever is written to the terminal from then on is an error."""
    expected = whole("vae")
    for before, more, status in (("", ["--steps", "10000000"], 128 + signal.SIGHUP), ("trap '' HUP;", [], 0)):
        workdir = tmp_path / f"run{status}"
        terminal, name = os.openpty()
        # The first terminal that a session opens is its own.
        process = start([*command("vae", workdir), *more], "<{0} >{0} 2>{0}".format(os.ttyname(name)), before, True)
        wait_for(lambda w=workdir: (w / "checkpoints" / "10").exists())  # type: ignore[misc]
        os.close(terminal)
        os.close(name)
        process.communicate(timeout=60)
        assert process.returncode == status
        assert Run.open(workdir).steps()[-1] >= max(row["step"] for row in logged(workdir))
    assert_the_same_run(workdir, expected)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("early", [True, False])
def test_prints_outlive_their_reader(early: bool, name: str) -> None:
    """No error, no status, nothing at the end of the interpreter; what nobody reads is written nowhere."""
    program = f"""
import contextlib, sys
from jaxgen.cli.standard_streams import outlive_readers
if not {early}:
    outlive_readers()
print("first", file=sys.{name}, flush=True)
sys.stdin.readline()
if {early}:
    with contextlib.suppress(OSError):
        print("what an import says", file=sys.{name})
    outlive_readers()
for _ in range(3):
    print("more" * 10000, file=sys.{name}, end="", flush=True)
print("unfinished", file=sys.{name}, end="")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    reader: IO[str] = getattr(process, name)
    assert reader.readline() == "first\n"
    reader.close()
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write("go on\n")
    process.stdin.close()
    rest = (process.stderr if name == "stdout" else process.stdout).read()
    assert (process.wait(), rest) == (0, "")
    process.stdout.close()
    process.stderr.close()


def test_a_full_disk_is_no_reader_that_left() -> None:
    """What a command prints into a file is not lost in silence."""
    with Path("/dev/full").open("w") as full:
        raw = standard_streams._Outliving(full.fileno(), "w", closefd=False)
        with pytest.raises(OSError, match="No space left"):
            raw.write(b"a result")


def check_that_a_full_disk_ends_the_run_and_room_lets_it_go_on(
    workdir: Path, fill: Callable[[], None], make_room: Callable[[], None], capsys: Any
) -> None:
    """Some steps on a disk with room; more on a full one; the rest with room again."""
    capsys.readouterr()
    resume = ["vae", "--workdir", str(workdir), "--resume", "--steps", str(STEPS)]
    before = Run.open(workdir).steps()
    assert before
    fill()
    assert train.main(resume) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert str(workdir) in error
    assert "File too large" in error or "No space left on device" in error
    assert Run.open(workdir).steps()[: len(before)] == before
    Run.open(workdir).restore()
    leftovers = [path for path in workdir.rglob("*") if "tmp" in path.name or "partial" in path.name]
    assert leftovers == [], "what was written in vain does not keep the disk full"
    make_room()
    assert train.main(resume) == 0


@pytest.mark.usefixtures("orbax_fails")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("checkpointing", ["asynchronous", pytest.param("synchronous", marks=pytest.mark.slow)])
def test_a_disk_that_takes_no_more(
    checkpointing: str, command: Callable[..., list[str]], whole: Callable[[str], Path], tmp_path: Path, capsys: Any
) -> None:
    """Simulated by the system's limit on the size of a file."""
    expected, workdir = whole("vae"), tmp_path / "run"
    assert train.main([*command("vae", workdir, "--checkpointing", checkpointing, "--keep", "9"), "--steps", "30"]) == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    keeps_programs = jax.config.values["jax_persistent_cache_min_compile_time_secs"]

    def limit(size: int) -> None:
        # JAX is not to write compiled programs meanwhile: those are files too.
        limited = size != soft
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9 if limited else keeps_programs)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    try:
        check_that_a_full_disk_ends_the_run_and_room_lets_it_go_on(
            workdir, lambda: limit(30_000), lambda: limit(soft), capsys
        )
    finally:
        limit(soft)
    assert_the_same_run(workdir, expected, ended=30)


@pytest.mark.usefixtures("orbax_fails")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["asynchronous", "synchronous"])
def test_a_full_disk(
    checkpointing: str, command: Callable[..., list[str]], whole: Callable[[str], Path], tmp_path: Path, capsys: Any
) -> None:
    """A small disk in memory, where one can be mounted."""
    expected, disk = whole("vae"), tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no disk can be mounted here")
    workdir, filler = disk / "run", disk / "filler"

    def fill() -> None:
        free = os.statvfs(disk)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 100_000))

    try:
        arguments = command("vae", workdir, "--checkpointing", checkpointing, "--keep", "9")
        assert train.main([*arguments, "--steps", "30"]) == 0
        check_that_a_full_disk_ends_the_run_and_room_lets_it_go_on(workdir, fill, filler.unlink, capsys)
        assert_the_same_run(workdir, expected, ended=30)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("signum", ASKING)
def test_stop_requests(signum: signal.Signals) -> None:
    assert signum in stopping.SIGNALS  # it would end this process
    before = signal.signal(signum, signal.default_int_handler)  # these tests may run under nohup
    try:
        with stopping.StopRequest() as stop:
            stop.check()
            os.kill(os.getpid(), signum)
            wait_for(lambda: stop.signum is not None)
            with pytest.raises(stopping.Stopped, match=f"stopped by {signum.name}$") as stopped:
                stop.check()
    finally:
        signal.signal(signum, before)
    assert stopped.value.status == 128 + signum
    seen = []
    thread = threading.Thread(target=lambda: seen.append(stopping.StopRequest().__enter__().signum))
    thread.start()
    thread.join()
    assert seen == [None]


# Without jaxgen, whose import takes seconds.
STOP_REQUEST = f"import runpy, time\nStopRequest = runpy.run_path({stopping.__file__!r})['StopRequest']\n"


def test_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for(lambda: stop.signum is not None)
        assert stop.signum == signal.SIGTERM
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_stop_is_heard_where_nobody_reads_of_it() -> None:
    """The first signal, and the second one."""
    program = (
        f"{STOP_REQUEST}with StopRequest() as stop:\n    print('ready', flush=True)\n    time.sleep(1)\n"
        "    print(stop.signum, flush=True)\n    time.sleep(20)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stderr.close()
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read(3) == "15\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=15) == 128 + signal.SIGUSR1
    process.stdout.close()


def test_a_second_signal_ends_at_once_unless_it_came_with_the_first() -> None:
    program = f"{STOP_REQUEST}with StopRequest():\n    print('ready', flush=True)\n    time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    time.sleep(stopping.TOGETHER)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=5)
    assert process.returncode == 128 + signal.SIGINT
    assert "asked again: ending at once" in printed


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    holder = rf"in use by process {os.getpid()} on .*: wait for it, stop it"
    with exclusive(tmp_path), pytest.raises(BlockingIOError, match=holder), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


@contextlib.contextmanager
def held_with(lock: Path, text: bytes) -> Iterator[None]:
    lock.write_bytes(text)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_lock_of_bytes_that_are_no_text_is_held(tmp_path: Path, capsys: Any) -> None:
    with held_with(tmp_path / ".lock", b"\xff\n\xfe" * 1000):
        with pytest.raises(SystemExit) as ended:
            refuse_if_held(["vae", "--workdir", str(tmp_path)])
        with pytest.raises(BlockingIOError) as refused, exclusive(tmp_path):
            pass
    assert ended.value.code == 1
    (printed,) = capsys.readouterr().err.splitlines()
    for line in (printed.removeprefix("error: "), str(refused.value)):
        assert line.startswith(f"{tmp_path} is in use by \N{REPLACEMENT CHARACTER} ")
        assert "\n" not in line
        assert len(line) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_lock_that_is_no_file_is_named(make: Any, tmp_path: Path) -> None:
    """And nobody waits for the other end of a fifo."""
    make(tmp_path / ".lock")
    refuse_if_held(["vae", "--workdir", str(tmp_path)])
    with pytest.raises(OSError, match=rf"^{tmp_path}/\.lock is no file: remove it"), exclusive(tmp_path):
        pass


def test_a_glance_leaves_to_the_lock_what_it_cannot_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for place in ("a" * 300, "a\0b", str(tmp_path)):
        refuse_if_held(["vae", "--workdir", place])
        refuse_if_held(["vae", f"--workdir={place}"])
    assert train.main(["vae", "--workdir", "a" * 300]) == 1
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith("error: ")
    assert "File name too long: 'aaa" in printed

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with held_with(tmp_path / ".lock", b"process 1"), monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        refuse_if_held(["vae", "--workdir", str(tmp_path)])


def line(step: int) -> bytes:
    return b'{"step": %d, "loss": 0.10}' % step


@pytest.mark.parametrize(
    ("log", "kept", "cut"),
    [
        (b"%b\r\n%b\r\n" % (line(20), line(30)), line(20) + b"\r\n", line(30) + b"\r\n"),
        (b"%b\n%b\n%b\n" % (line(30), line(10), line(20)), b"%b\n%b\n" % (line(10), line(20)), line(30) + b"\n"),
        (b"%b\n%b" % (line(10), line(20)), b"%b\n%b\n" % (line(10), line(20)), None),
        (b"%b\n%b" % (line(20), line(30)), line(20) + b"\n", line(30) + b"\n"),
        (b'%b\n{"step": 20, "lo' % line(10), line(10) + b"\n", b'{"step": 20, "lo\n'),
        (b"%b\n\n%b\n \n" % (line(10), line(20)), b"%b\n\n%b\n \n" % (line(10), line(20)), None),
        (b"\xef\xbb\xbf%b\n%b\n" % (line(10), line(30)), b"\xef\xbb\xbf%b\n" % line(10), line(30) + b"\n"),
    ],
    ids=["CRLF", "later row first", "no newline", "no newline, later", "torn", "blank lines", "BOM"],
)  # fmt: skip
def test_a_log_is_cut_where_its_rows_are(log: bytes, kept: bytes, cut: bytes | None, tmp_path: Path) -> None:
    """Rows that stay are there byte for byte, the others beside them, and the next session finds the same."""
    path, beside = tmp_path / "metrics.jsonl", tmp_path / "metrics.cut.jsonl"
    path.write_bytes(log)
    steps = [row["step"] for row in read_rows(path, 20)]
    for _ in range(2):
        with Monitor(tmp_path, 20):
            assert path.read_bytes() == kept
        assert (beside.read_bytes() if beside.exists() else None) == cut
    with Monitor(tmp_path, 20) as monitor:
        monitor.write(30, {"loss": 1.0})
    assert path.read_bytes() == kept + b'{"step": 30, "loss": 1.0}\n'
    assert [row["step"] for row in read_rows(path)] == [*steps, 30]
    with Monitor(tmp_path, 25):
        assert path.read_bytes() == kept
    assert beside.read_bytes() == (cut or b"") + b'{"step": 30, "loss": 1.0}\n'


@pytest.mark.parametrize(
    "wrong", [b"null", b"[1]", b'{"loss": 1}', b'{"step": "3"}', b'{"step": 20, "lo', b"\xff", b"[" * 99999]
)
def test_a_line_that_is_no_row_changes_nothing(wrong: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"%b\n%b\n%b\n" % (line(30), wrong, line(10)))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"metrics\.jsonl: not a log of metrics \(line 2: .*\): move it away"):
        Monitor(tmp_path, 20)
    with pytest.raises(ValueError, match="not a log of metrics"):
        read_rows(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_the_monitor_goes_on_where_the_checkpoint_is(tmp_path: Path) -> None:
    with Monitor(tmp_path, 0) as monitor:
        for step in (10, 20, 30):
            monitor.write(step, {"loss": step / 7, "warning": "words"})
            monitor.show(step, "samples", np.zeros((1, 2, 2, 1)))
    events = tmp_path / "tensorboard" / "events.out.tfevents.jaxgen"
    events.write_bytes(events.read_bytes()[:-9])  # killed while writing
    with Monitor(tmp_path, 20) as monitor:
        monitor.write(30, {"loss": 1.0})
    assert [row["step"] for row in logged(tmp_path)] == [10, 20, 30]
    assert [(step, tag) for step, tag, *_ in shown(tmp_path)] == [
        (10, "train/loss"),
        (10, "samples"),
        (20, "train/loss"),
        (20, "samples"),
        (30, "train/loss"),
    ]
    whole = events.read_bytes()
    for torn in (whole + bytes(40), whole[:-1] + b"?", whole + whole[:20]):  # after a power cut, or a kill
        events.write_bytes(torn)
        with Monitor(tmp_path, 30):
            assert whole.startswith(events.read_bytes())
        assert [step for step, *_ in shown(tmp_path)] in ([10, 10, 20, 20, 30], [10, 10, 20, 20])
    with Monitor(tmp_path, 5):
        pass
    assert logged(tmp_path) == shown(tmp_path) == []
    with Monitor(tmp_path, 5) as monitor, pytest.raises(ValueError, match=r"letters, digits, _ and -, got '\.\./x'"):
        monitor.show(5, "../x", np.zeros((1, 2, 2, 1)))


def test_tensorboard_has_groups_and_an_older_run_goes_on_without(tmp_path: Path) -> None:
    row, measured = {"elbo": 1.0, "time_steps_per_second": 9.0}, {"test_elbo": 2.0, "sample_diversity": 0.5}
    with EventFile(tmp_path / "tensorboard", 0) as old:
        old.scalar("elbo", 1.0, 10)
        old.scalar("test_elbo", 2.0, 10)
        old.scalar("elbo", 7.0, 15)  # which is done again
    for step in (20, 30):
        with Monitor(tmp_path, step - 10) as monitor:
            monitor.write(step, row)
            monitor.write(step, measured, "test")
    names = ["elbo", "test_elbo", "sample_diversity"]
    assert [(step, tag) for step, tag, *_ in shown(tmp_path)] == [
        (10, "elbo"),
        (10, "test_elbo"),
        *((step, name) for step in (20, 30) for name in names),
    ]
    with Monitor(tmp_path, 0) as monitor:  # all of it is done again
        monitor.write(10, row)
        monitor.write(10, measured, "test")
    groups = ["train/elbo", "time/steps_per_second", "test/elbo", "test/sample_diversity"]
    events = [event for event, _ in read_events(tmp_path / "tensorboard" / "events.out.tfevents.jaxgen")]
    assert [(event.step, event.summary.value[0].tag) for event in events[1:]] == [(10, name) for name in groups]
    assert logged(tmp_path) == [{"step": 10, "elbo": 1.0}, {"step": 10, **measured}]  # named as they have always been


def test_events_are_tensorboards(tmp_path: Path) -> None:
    """The same bytes around an event as tensorboardX writes, which TensorBoard reads."""
    with EventFile(tmp_path / "ours", 0) as ours:
        ours.scalar("loss", 0.5, 7)
    ((_, _), (event, _)) = read_events(tmp_path / "ours" / "events.out.tfevents.jaxgen")
    theirs = EventsWriter(str(tmp_path / "theirs"))
    theirs.write_event(event)
    theirs.close()
    (path,) = tmp_path.glob("theirs*")
    assert [e.step for e, _ in read_events(path)] == [0, 7]
    size = len(event.SerializeToString()) + 16
    assert path.read_bytes()[-size:] == (tmp_path / "ours" / "events.out.tfevents.jaxgen").read_bytes()[-size:]
