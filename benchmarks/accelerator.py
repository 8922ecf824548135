"""All that wants an accelerator, in one call of nine minutes, which the next call goes on with.

    python -m benchmarks.accelerator --out FOLDER --data DIR
    uv run benchmarks/accelerator.py --plan                  # what it would run, and for how long
    uv run benchmarks/accelerator.py --quick                 # a trial of every part, on a CPU too

The tests of tests/test_accelerator.py, the families in float32, TF32 and bfloat16, populations of 8 and 64, and in the
time that is left slices of published numbers, each of which goes on where the last one stopped. A part that would not
fit is left out and said, one that fails is said, and the others go on. accelerator.json in the folder is written after
every part; a part is done once for a chip, a commit and its versions.

DIR holds ``mnist`` and ``fashion_mnist``, folders of the original files.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import commit
from benchmarks.report import stored
from benchmarks.run import probe
from benchmarks.workers import ROOT, environment_of
from jaxgen.training.files import check_place, write_text

FORMAT = 1
SAVING = 15.0  # seconds in which what is asked to stop saves itself
SLICE = 150.0  # seconds of a reproduction before another one has its turn
LEAST_SLICE = 45.0  # in which one starts, compiles, and trains a little
STOPPED = 143  # exit status of a command that SIGTERM has stopped, all of it saved
# Published numbers that want an accelerator, and the data set that each needs, ``DATA`` in the place of --data.
REPRODUCTIONS = {
    "pacgan_gaussians_packing_2": None,
    "burda_iwae_5": "idx:DATA/mnist",
    "lucic_fashion_mnist_non_saturating": "idx:DATA/fashion_mnist",
    "burda_two_layers_vae_1": "idx:DATA/mnist",
    "pacgan_gaussians_plain": None,
    "pacgan_stacked_packing_2": "stacked:idx:DATA/mnist",
    "burda_iwae_50": "idx:DATA/mnist",
}
Log = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """A command of its own.

    Args:
      name: in the log, and of the files that it writes.
      command: what ``python -m`` runs.
      least: seconds without which it is not begun.
      most: seconds after which it is stopped.
      environment: variables to set.
      says: a word without which its last line is no success.
    """

    name: str
    command: tuple[str, ...]
    least: float
    most: float
    environment: tuple[tuple[str, str], ...] = ()
    says: str = ""


def parts(out: Path, quick: bool) -> list[Part]:
    """Tests and benchmarks, those that matter most first."""
    tests = ("pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/test_accelerator.py")
    found = [Part("tests", tests, 40.0, 150.0, says="" if quick else "passed")]  # none pass without a chip
    families, rounds = ("gan", ("--quick",)) if quick else ("vae,gan,dcgan", ("--rounds", "7"))
    budget = 20.0 if quick else 60.0
    for name in ("float32", "tf32", "bfloat16"):
        precision = {"float32": "float32", "tf32": "tensorfloat32"}.get(name)
        here = families if precision or quick else f"{families},dcgan64"
        command = (
            *("benchmarks.run", "--families", here, "--candidates", "fused,floor", "--budget", f"{budget:.0f}"),
            *(*rounds, "--dtype", "float32" if precision else "bfloat16", "--json", str(out / f"{name}.json")),
        )
        environment = (("JAX_DEFAULT_MATMUL_PRECISION", precision),) if precision else ()
        found.append(Part(name, command, budget / 2, budget + 30.0, environment))
    turns = ("--rounds", "1", "--turn-seconds", "0.02") if quick else ("--rounds", "5", "--turn-seconds", "0.2")
    for number in (8, 64):
        name, models = f"population_{number}", "gan" if quick else "vae,gan"
        words = ("--members", str(2 if quick else number), "--models", models, "--json", str(out / f"{name}.json"))
        found.append(Part(name, ("benchmarks.population", *words, *turns), 15.0 if quick else 40.0, 90.0))
    return found


def reproduction(name: str, out: Path, dataset: str | None, seconds: float, quick: bool) -> Part:
    """A slice of a published number."""
    run = out / ("trials" if quick else "reproductions") / name
    words = ("--minutes", f"{max(seconds - SAVING, 1.0) / 60:.3f}", "--workdir", str(run))
    more = (("--dataset", dataset) if dataset else ()) + (("--members", "1") if quick else ())
    # What one slice compiles, the next one finds.
    kept = (("JAX_ENABLE_COMPILATION_CACHE", "true"), ("JAX_COMPILATION_CACHE_DIR", str(out / "cache")))
    return Part(name, ("experiments.reproduce", name, *words, *more), LEAST_SLICE, seconds, kept)


def needed(name: str, folder: Path | None) -> str | None:
    """The data set of a reproduction as its command takes it; None where it needs no other than its own.

    Raises:
      FileNotFoundError: it is not there.
    """
    dataset = REPRODUCTIONS.get(name)
    if dataset is None:
        return None
    what = dataset.rpartition("/")[2]
    if folder is None or not (folder / what).is_dir():
        raise FileNotFoundError(f"it needs {what} in the folder --data")
    return dataset.replace("DATA", str(folder.resolve()))


class Call:
    """A call: its time, its folder, and the log that the next one goes on with.

    Args:
      out: the folder.
      machine: what `benchmarks.run.probe` says.
      end: when to be done, by `time.monotonic`.
      say: told of every part.
      quick: whether it is a trial, whose parts are not those of others.
    """

    def __init__(
        self, out: Path, machine: dict[str, Any], end: float, say: Callable[[str], None], quick: bool = False
    ) -> None:
        self.out, self.end, self.say = out, end, say
        self.path = out / "accelerator.json"
        self.quick = quick
        self.stamp = {"chip": machine["chip"], "commit": commit(), "versions": machine["versions"], "quick": quick}
        self.log: Log = read(self.path)
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.log["calls"].append({"began": began, **self.stamp})
        self.failed = False

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def is_done(self, name: str) -> bool:
        """Whether an earlier call has done it, of the same code on the same chip."""
        before = self.log["parts"].get(name, {})
        return before.get("status") == "done" and all(before[key] == value for key, value in self.stamp.items())

    def note(self, name: str, status: str, **more: Any) -> None:
        """Say what came of a part, and write it down."""
        taken = f" in {more['seconds']:.0f} s" if "seconds" in more else ""
        self.say(f"{name}: {status}{taken}{': ' if more.get('why') else ''}{more.get('why', '')}")
        self.failed |= status == "failed"
        before = self.log["parts"].get(name, {})
        if status != "left out" or not before:  # what was done for another commit stays in the log
            total = before.get("total_seconds", 0.0) + more.get("seconds", 0.0)
            self.log["parts"][name] = {"status": status, **more, "total_seconds": round(total, 1), **self.stamp}
        write_text(self.path, json.dumps(self.log, indent=1) + "\n")

    def take(self, part: Part) -> None:
        """Run a part in the time there is, and write down what came of it."""
        room = min(part.most, self.left - SAVING)
        if room < part.least:
            self.note(
                part.name, "left out", why=f"{max(self.left, 0.0):.0f} s are left, it needs {part.least + SAVING:.0f}"
            )
            return
        start = time.monotonic()
        status, last = execute(part, self.out / "logs" / f"{part.name}.txt", room)
        seconds = round(time.monotonic() - start, 1)
        if status is None:
            self.note(part.name, "failed", seconds=seconds, why=f"not done within {room:.0f} s")
        elif status == 0 and part.says in last:
            self.note(part.name, "done", seconds=seconds, why=last if part.command[0] == "pytest" else "")
        elif status == STOPPED and part.command[0] == "experiments.reproduce":
            self.note(part.name, "stopped, goes on", seconds=seconds)
        else:
            self.note(part.name, "failed", seconds=seconds, why=last)


def execute(part: Part, log: Path, seconds: float) -> tuple[int | None, str]:
    """Run a command, its output in a file: (exit status, None where it was stopped as too slow; its last line)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, log.open("w") as output:
        environment = {**environment_of({}, Path(scratch)), **dict(part.environment)}
        process = subprocess.Popen(
            [sys.executable, "-m", *part.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
        )
        status: int | None = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(seconds)
        finally:
            if status is None:  # too slow, or this call is stopped
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(SAVING)
            with contextlib.suppress(ProcessLookupError):  # its workers too
                os.killpg(process.pid, 9)
            process.wait()
    lines = [line.strip() for line in log.read_text(errors="replace").replace("\r", "\n").split("\n") if line.strip()]
    return status, lines[-1][:300] if lines else "no output"


def read(path: Path) -> Log:
    """The log of earlier calls; an empty one where there were none."""
    return stored(path, {"format": FORMAT, "calls": [], "parts": {}})


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/accelerator"), help="folder of all results")
    parser.add_argument("--data", type=Path, help="folder of the folders mnist and fashion_mnist")
    parser.add_argument("--minutes", type=float, help="minutes for everything: 9, or 2.5 with --quick")
    parser.add_argument("--parts", help="names with commas between them; all when not given")
    parser.add_argument("--reproductions", help="names of reproductions, see experiments/reproduce.py --list")
    parser.add_argument("--quick", action="store_true", help="a trial: every part as small as it can be")
    parser.add_argument("--plan", action="store_true", help="print what would be run, and run nothing")
    options = parser.parse_args(arguments)
    options.minutes = options.minutes if options.minutes is not None else 2.5 if options.quick else 9.0
    if not options.minutes > 0:
        parser.error(f"--minutes must be more than 0, got {options.minutes:g}")
    usual = ["small_gaussians_r1"] if options.quick else list(REPRODUCTIONS)
    options.reproductions = usual if options.reproductions is None else _split(options.reproductions)
    known = [*(part.name for part in parts(options.out, options.quick)), "reproductions"]
    options.parts = known if options.parts is None else _split(options.parts)
    unknown = [name for name in options.parts if name not in known]
    if unknown:
        parser.error(f"unknown --parts {', '.join(unknown)}: there are {', '.join(known)}")
    if options.data is not None and not options.data.is_dir():
        parser.error(f"--data {options.data} is no folder: name one that holds mnist and fashion_mnist")
    return options


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def plan(options: argparse.Namespace) -> list[str]:
    """Lines on what would be run."""
    lines = [f"{options.minutes:g} minutes, results in {options.out}"]
    for part in parts(options.out, options.quick):
        if part.name in options.parts:
            variables = [f"{name}={value}" for name, value in part.environment]
            words = shlex.join([*variables, "python", "-m", *part.command])
            lines.append(f"{part.name}: {part.least:.0f} to {part.most:.0f} s: {words}")
    for name in options.reproductions if "reproductions" in options.parts else []:
        try:
            needed(name, options.data)
            lines.append(f"{name}: {LEAST_SLICE:.0f} to {SLICE:.0f} s at a time, in turns: experiments.reproduce")
        except FileNotFoundError as error:
            lines.append(f"{name}: left out: {error}")
    return lines


def reproduce(call: Call, names: list[str], folder: Path | None) -> None:
    """Go on with published numbers, those first that have had the least time, until none is left."""
    places: dict[str, str | None] = {}
    for name in names:
        try:
            places[name] = needed(name, folder)
        except FileNotFoundError as error:
            call.note(name, "left out", why=str(error))
    while waiting := [name for name in places if not call.is_done(name)]:
        had = {name: call.log["parts"].get(name, {}).get("total_seconds", 0.0) for name in waiting}
        name = min(waiting, key=lambda name: had[name])
        call.take(reproduction(name, call.out, places[name], min(SLICE, call.left - SAVING), call.quick))
        if call.left - SAVING < LEAST_SLICE:
            break
        if call.log["parts"][name]["status"] == "failed":
            places.pop(name)  # until the next call


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; the exit status is 1 where one has failed."""
    start, options = time.monotonic(), parse(arguments)
    if options.plan:
        print("\n".join(plan(options)))
        return 0
    out = options.out.absolute()
    options.out = out
    try:
        check_place(out / "accelerator.json")
        read(out / "accelerator.json")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    machine = probe()
    if machine["platform"] == "cpu" and not options.quick:
        print("error: there is no accelerator here: --plan prints what would be run, --quick tries it", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))  # and what runs is asked to stop, too
    call = Call(out, machine, start + 60 * options.minutes, lambda line: print(line, flush=True), options.quick)
    call.say(f"{machine['chip']}, {call.stamp['commit']}: {options.minutes:g} minutes, results in {out}")
    chosen = [part for part in parts(out, options.quick) if part.name in options.parts]
    for part in sorted(chosen, key=lambda part: call.log["parts"].get(part.name, {}).get("status") == "failed"):
        if call.is_done(part.name):
            call.say(f"{part.name}: done in an earlier call")
        else:
            call.take(part)
    if "reproductions" in options.parts:
        reproduce(call, options.reproductions, options.data)
    call.say(f"took {time.monotonic() - start:.0f} s; the same command goes on")
    return int(call.failed)


if __name__ == "__main__":
    sys.exit(main())
