"""The driver's side of the measurement: worker processes, and turns of each in rounds."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxgen.cli.platforms import RIGHT

ROOT = Path(__file__).resolve().parent.parent
# Threads of OpenMP spin for a while after their work, and would take the next candidate's cores.
SPINNING = ("torch_peer", "pythae_peer")
PAUSE, LONG_PAUSE = 0.05, 0.3


class WorkerError(Exception):
    """A worker that could not start, or ended, or took too long: the candidate is left out."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to take a step, to be run as a process of its own.

    Args:
      name: its name in tables.
      module: the module of ``benchmarks`` that is the worker.
      family: the family's name.
      variant: which of the module's candidates.
      python: the interpreter.
      changes: fields of the family to replace.
      environment: variables to set; ``XLA_FLAGS`` is added to the caller's.
    """

    name: str
    module: str
    family: str
    variant: str
    python: str = sys.executable
    changes: tuple[tuple[str, Any], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def command(self) -> list[str]:
        """The command that starts the worker."""
        return [
            *(self.python, "-m", f"benchmarks.{self.module}"),
            *("--family", self.family, "--variant", self.variant, "--changes", json.dumps(dict(self.changes))),
        ]


def environment_of(extra: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """A worker's environment: nothing compiled before, device memory taken as it is needed."""
    said = [part for part in (os.environ.get("XLA_FLAGS"), extra.get("XLA_FLAGS")) if part]
    chosen = any(RIGHT.partition("=")[0] in part for part in said)
    flags = " ".join([*said, *([] if chosen else [RIGHT])])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        **extra,
        "XLA_FLAGS": flags,
    }


def cold_environment(folder: Path) -> dict[str, str]:
    """That of a ``jaxgen`` command for which nothing is compiled yet: it keeps its programs in an empty folder."""
    # Commands keep what they compile below XDG_CACHE_HOME, unless JAX's own variables say otherwise.
    return {
        **{name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name},
        "PYTHONPATH": os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


class Worker:
    """A process that answers one JSON line for each line it is sent.

    Args:
      command: the command.
      scratch: a folder for what it leaves behind.
      environment: variables to set.
      timeout: seconds after which an answer is no longer waited for.
    """

    def __init__(
        self, command: list[str], scratch: Path, environment: Mapping[str, str] | None = None, timeout: float = 300.0
    ) -> None:
        self.timeout = timeout
        self._errors = tempfile.TemporaryFile("w+", dir=scratch)  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                cwd=scratch,
                env=environment_of(environment or {}, scratch),
            )
        except OSError as error:
            self._errors.close()
            raise WorkerError(f"{command[0]} does not run: {error.strerror}") from error

    def read(self) -> dict[str, Any]:
        """The next answer; whatever else a library prints is not one."""
        assert self._process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(self.timeout, give_up)
        timer.start()
        line = self._process.stdout.readline()
        while line and not line.startswith("{"):
            line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            status = self._process.wait()
            why = f"no answer within {self.timeout:.0f} s" if late.is_set() else self._last_error(status)
            self.close()
            raise WorkerError(why)
        return json.loads(line)

    def send(self, line: str) -> None:
        """Send a line, whose answer is read later."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: reading says why
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line; returns the answer."""
        self.send(line)
        return self.read()

    def _last_error(self, status: int) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return lines[-1][:300] if lines else f"ended with status {status}"

    def close(self) -> None:
        """End the process."""
        if not self._errors.closed:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdout, self._errors):
                stream.close()
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


@dataclasses.dataclass
class Result:
    """What was measured of a candidate.

    Args:
      about: what the worker said of itself.
      seconds: seconds a step, of each round.
      steps: steps of a turn.
      compile_seconds: the first step less a later one.
      host_bytes: the most memory that the process has had.
      device_bytes: the most memory on the device.
      extra: whatever else its last answer said.
    """

    about: dict[str, Any]
    seconds: list[float] = dataclasses.field(default_factory=list)
    steps: int = 1
    compile_seconds: float | None = None
    host_bytes: int | None = None
    device_bytes: int | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


def measure(
    candidates: list[Candidate],
    *,
    rounds: int,
    turn_seconds: float,
    deadline: float,
    say: Callable[[str], None],
    scratch: Path,
    timeout: float = 300.0,
    on_cpu: bool = True,
) -> dict[str, Result]:
    """Time candidates in turns, round after round, in one order and in the other.

    All start at once; each then takes its first step, which compiles, alone. Where the steps themselves are taken on
    another device, what PyTorch compiles is compiled meanwhile.

    Args:
      candidates: what to time.
      rounds: turns of each.
      turn_seconds: about how long a turn is.
      deadline: when to stop, by `time.monotonic`; what is left out is said.
      say: told of every candidate and round that is left out.
      scratch: a folder for what the workers leave behind.
      timeout: seconds to wait for an answer.
      on_cpu: whether the candidates share the processor's cores.

    Returns:
      Results by name, of the candidates that ran.
    """
    workers: dict[str, Worker] = {}
    results: dict[str, Result] = {}
    pauses = {each.name: LONG_PAUSE if on_cpu and each.module in SPINNING else PAUSE for each in candidates}

    def drop(name: str, why: object) -> None:
        say(f"skipped: {name}: {why}")
        if name in workers:
            workers.pop(name).close()
        results.pop(name, None)

    try:
        for candidate in candidates:
            try:
                workers[candidate.name] = Worker(candidate.command, scratch, dict(candidate.environment), timeout)
            except WorkerError as error:
                drop(candidate.name, error)
        for name in list(workers):
            workers[name].timeout = min(timeout, max(1.0, deadline - time.monotonic()))
            try:
                results[name] = Result(workers[name].read())
            except WorkerError as error:
                drop(name, error)
        early = {
            each.name for each in candidates if each.module == "torch_peer" and each.name in workers and not on_cpu
        }
        for name in early:
            workers[name].send("1")
        for name in sorted(workers, key=lambda name: name in early):
            left = deadline - time.monotonic()
            if left <= 0:
                drop(name, "no time left of the budget to compile it")
                continue
            workers[name].timeout = min(timeout, left + 1.0)
            try:
                first = workers[name].read() if name in early else workers[name].ask("1")
                _trials(workers[name], results[name], first, turn_seconds)
            except WorkerError as error:
                drop(name, error)
            time.sleep(pauses[name])
        for number in range(rounds if workers else 0):
            left = deadline - time.monotonic()
            if (
                left < sum(results[name].steps * results[name].seconds[0] + pauses[name] for name in results)
                and number >= 2
            ):
                say(f"left out {rounds - number} of {rounds} rounds: no time left of the budget")
                break
            for name in list(workers) if number % 2 else reversed(list(workers)):
                try:
                    workers[name].timeout = timeout
                    _turn(workers[name], results[name])
                except WorkerError as error:
                    drop(name, error)
                time.sleep(pauses[name])
        for name in list(workers):
            results[name].seconds.pop(0)  # the trial
            try:
                memory = workers[name].ask("memory")
            except WorkerError as error:
                drop(name, error)
                continue
            results[name].host_bytes, results[name].device_bytes = memory["host_bytes"], memory["device_bytes"]
    finally:
        for worker in workers.values():
            worker.close()
    return results


def _turn(worker: Worker, result: Result) -> float:
    """Take a turn; returns the seconds that a step took."""
    answer = worker.ask(str(result.steps))
    seconds = float(answer.pop("seconds"))
    each = seconds / int(answer.pop("steps", result.steps))
    result.seconds.append(each)
    result.extra = answer
    return each


def _trials(worker: Worker, result: Result, first: dict[str, Any], turn_seconds: float) -> None:
    """Find how many steps make a turn, after the first step; leaves one trial in the seconds."""
    each = _turn(worker, result)
    for _ in range(2):  # a single step says little of a fast one
        result.steps = max(1, min(100_000, round(turn_seconds / max(each, 1e-7))))
        each = _turn(worker, result)
    result.seconds = [each]
    result.compile_seconds = max(0.0, float(first["seconds"]) - each * int(first.get("steps", 1)))
