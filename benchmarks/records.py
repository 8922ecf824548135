"""The speed board: seconds from a cold start to a result, each by one command of ``jaxgen train``, kept in records.md.

    uv run benchmarks/records.py --data DIR

The clock runs from the start of the command, with nothing compiled before, to its end, with the trained model on the
disk; then its number is measured. A time is entered where it beats the board's own for this machine, and what it beats
is kept below. Where a command fails the board stays as it is.

DIR holds ``mnist`` and ``fashion_mnist``, folders of the original files, and ``binarized_mnist.npz`` (or a folder
``binarized_mnist`` with it) of the arrays ``train`` and ``test``, 0 and 1, [N, 784].
"""

import argparse
import dataclasses
import datetime
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxgen
from benchmarks.machine import commit
from benchmarks.report import stored
from benchmarks.workers import cold_environment
from jaxgen import data, metrics
from jaxgen.cli.exit_status import exit_status
from jaxgen.cli.options import UsageError
from jaxgen.evaluation import extractors
from jaxgen.evaluation.sample_measures import stacked_modes
from jaxgen.training import machine
from jaxgen.training.files import check_place, write_text
from jaxgen.training.monitor import read_rows

FORMAT = 1
NUMBERS = Path(__file__).parent / "results" / "records.json"
Board = dict[str, Any]
Row = dict[str, Any]


class Bound(NamedTuple):
    """What a number must be.

    Args:
      metric: its name.
      least: at least this, where it is given.
      most: at most this, where it is given.
    """

    metric: str
    least: float = -np.inf
    most: float = np.inf


@dataclasses.dataclass(frozen=True)
class Goal:
    """Something to reach, and the fastest command known to reach it.

    Args:
      name: on the command line.
      title: in the table.
      needs: what ``--data`` must hold: a folder's name, or ``binarized_mnist``; None for nothing.
      dataset: the command's data set, ``DATA`` in the place of what is needed.
      options: the command's other words, after ``jaxgen train``.
      measure: (run directory, data set) -> numbers by name.
      bounds: what they must be.
    """

    name: str
    title: str
    needs: str | None
    dataset: str
    options: str
    measure: Callable[[Path, str], dict[str, float]]
    bounds: tuple[Bound, ...]

    def command(self, place: str) -> list[str]:
        """The words after ``jaxgen``, with what is needed at a place."""
        family, *others = shlex.split(self.options)
        return ["train", family, "--dataset", self.dataset.replace("DATA", place), *others]

    def reached(self, numbers: Mapping[str, float]) -> bool:
        """Whether the numbers are what they must be."""
        return all(bound.least <= numbers[bound.metric] <= bound.most for bound in self.bounds)


def _samples(run: Path, num: int, label: np.ndarray | None = None) -> jax.Array:
    model = jaxgen.load(run)
    return model.sample(jax.random.key(0), num, None if model.num_classes is None else label)


def negative_elbo(run: Path, dataset: str) -> dict[str, float]:
    """Of the test split, one latent sample an image, in nats: the run's own last evaluation."""
    return {"-ELBO": -[row["test_elbo"] for row in read_rows(run / "metrics.jsonl") if "test_elbo" in row][-1]}


def gaussian_modes(run: Path, dataset: str) -> dict[str, float]:
    """Modes of 25 that one of 2,500 samples is within three standard deviations of, and the share of such samples."""
    found, good = metrics.mode_coverage(_samples(run, 2500), metrics.gaussian_grid(), data.GRID_SCALE)
    return {"modes": float(found), "good samples": float(good)}


def lenet_distance(run: Path, dataset: str) -> dict[str, float]:
    """The Frechet distance of 10,000 samples from the test images, on the features of Fashion-MNIST's classifier.

    A conditional generator is given the labels of the test images.
    """
    test = data.load(dataset, "test")
    lenet, samples = extractors.lenet("fashion_mnist"), _samples(run, len(test["image"]), test["label"])
    sides = [extractors.extract(lenet, images).features for images in (test["image"], np.asarray(samples))]
    return {lenet.metric_name("FD"): float(metrics.frechet_distance(*map(metrics.moments, sides)))}


def digit_modes(run: Path, dataset: str) -> dict[str, float]:
    """Modes of 1,000 that 26,000 samples show, and the KL of their histogram from the even one."""
    return dict(zip(("modes", "KL"), stacked_modes(np.asarray(_samples(run, 26_000))), strict=True))


_FAST = "--generator-learning-rate 4e-4 --discriminator-learning-rate 4e-4"
# No pictures, checkpoints or evaluations before the end.
_QUIET = "--eval-every 1000000 --sample-every 1000000 --checkpoint-every 1000000"
GOALS = {
    goal.name: goal
    for goal in (
        Goal(
            "binarized_mnist",
            "-ELBO of 101.5 nats on binarised MNIST",
            "binarized_mnist",
            "npz:DATA",
            "vae --steps 3000 --batch-size 128 --latent-dim 32 --hidden 500 --activation relu --learning-rate 3e-3 "
            f"--learning-rate-boundaries 2000 2600 --later-learning-rates 1e-3 3e-4 {_QUIET}",
            negative_elbo,
            (Bound("-ELBO", most=101.5),),
        ),
        Goal(
            "gaussians",
            "25 of 25 Gaussians, and at least a tenth of the samples good",
            None,
            "gaussians",
            "gan --steps 6000 --batch-size 256 --latent-dim 2 --generator-hidden 128 128 --dropout-rate 0 "
            "--discriminator-hidden 128 128 --generator-learning-rate 2e-3 --discriminator-learning-rate 2e-3 --b1 0.5 "
            f"--penalty r1 --penalty-weight 0.1 --ema-decay 0.99 --log-every 500 {_QUIET}",
            gaussian_modes,
            (Bound("modes", least=25), Bound("good samples", least=0.1)),
        ),
        Goal(
            "fashion_mnist",
            "FD-LeNet of 30 on Fashion-MNIST, by a GAN",
            "fashion_mnist",
            "idx:DATA",
            "gan --architecture dcgan --steps 6500 --batch-size 64 --latent-dim 64 --width 32 --conditional "
            f"--loss hinge --discriminator-normalization spectral --ema-decay 0.998 --ema-warmup {_FAST} {_QUIET}",
            lenet_distance,
            (Bound("FD-LeNet-FashionMNIST", most=30),),
        ),
        Goal(
            "stacked_mnist",
            "all 1,000 modes of stacked MNIST",
            "mnist",
            "stacked:idx:DATA",
            "gan --architecture dcgan --steps 5000 --batch-size 64 --latent-dim 100 --width 32 --ema-decay 0.99 "
            f"--loss hinge --discriminator-normalization spectral {_FAST} {_QUIET}",
            digit_modes,
            (Bound("modes", least=1000),),
        ),
    )
}


def find(goal: Goal, folder: Path | None, scratch: Path) -> str | None:
    """Where what a goal needs is, as the command names it; None where it is not."""
    if goal.needs is None:
        return ""
    if folder is None:
        return None
    if goal.needs != "binarized_mnist":
        place = folder / goal.needs
        return str(place.resolve()) if place.is_dir() else None
    there = [path for path in (folder / "binarized_mnist.npz", folder / "binarized_mnist/binarized_mnist.npz")
             if path.is_file()]  # fmt: skip
    if not there:
        return None
    with np.load(there[0]) as arrays:
        if not {"train", "test"} <= set(arrays):
            raise UsageError(f"{there[0]} has the arrays {', '.join(arrays)}: expected train and test, [N, 784]")
        splits = {name: arrays[name].reshape(-1, 28, 28, 1) for name in ("train", "test")}
    if any(split.max() > 1 for split in splits.values()):
        raise UsageError(f"{there[0]} has numbers above 1: expected 0 and 1, the fixed binarisation")
    np.savez(scratch / "binarized.npz", **{f"{name}_image": split.astype(bool) for name, split in splits.items()})
    return str(scratch / "binarized.npz")


class CommandError(Exception):
    """A command of the board that ended with an error."""


def race(goal: Goal, place: str, scratch: Path, limit: float) -> Row:
    """Run a goal's command from a cold start and measure what it made.

    Raises:
      CommandError: it ended with an error; the message is its last line.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        run, log = Path(folder) / "run", Path(folder) / "output"
        command = [sys.executable, "-m", "jaxgen", *goal.command(place), "--workdir", str(run)]
        environment = cold_environment(Path(folder))
        with log.open("w") as output:
            start = time.perf_counter()
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder
            )
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                return {"seconds": None, "reached": False, "numbers": {}, "limit": limit}
            finally:
                process.kill()
                process.wait()
            seconds = time.perf_counter() - start
        if status:
            lines = [line for line in log.read_text().split("\n") if line.strip()] or [f"status {status}"]
            raise CommandError(lines[-1][:300])
        numbers = goal.measure(run, goal.dataset.replace("DATA", place))
    return {"seconds": round(seconds, 1), "reached": goal.reached(numbers), "numbers": numbers, "limit": limit}


def enter(board: Board, chip: str, name: str, row: Row) -> str:
    """Enter a row where it is the best of its goal on a machine; returns what came of it, in words."""
    there = board["machines"].setdefault(chip, {"records": {}, "beaten": []})
    old = there["records"].get(name)
    if old is not None and old["reached"]:
        if not row["reached"]:
            return f"{outcome(row)}; the record stays {outcome(old)}"
        if row["seconds"] >= old["seconds"]:
            return f"{outcome(row)}, not faster than the record of {outcome(old)}"
        there["beaten"].append({"goal": name, **old})
    there["records"][name] = row
    before = f"; before, {outcome(old)}" if old is not None else ""
    return f"{outcome(row)}{', a record' if row['reached'] else ''}{before}"


def outcome(row: Row) -> str:
    """What came of a run, in words."""
    if row["seconds"] is None:
        return f"not reached within {row['limit']:g} s"
    seconds, numbers = row["seconds"], ", ".join(f"{name} {value:.4g}" for name, value in row["numbers"].items())
    return f"{seconds:.1f} s ({numbers})" if row["reached"] else f"not reached: {numbers} after {seconds:.1f} s"


def _line(name: str, row: Row) -> str:
    title = GOALS[name].title if name in GOALS else name
    versions = f"Python {row['versions']['python']}, jax {row['versions']['jax']}"
    flags = row["xla_flags"] or "unset"
    return f"| {title} | {outcome(row)} | {row['date']} | {row['commit']} | {versions} | `{flags}` |"


def page(board: Board) -> str:
    """records.md: of each machine a table, the commands, and what was beaten."""
    lines = [
        "# Speed records",
        "",
        "Made by `uv run benchmarks/records.py --data DIR`: do not edit. Seconds from the start of a command, with",
        "nothing compiled before, to its end, with the trained model on the disk; one run, seed 0. Imports,",
        "compilation, reading the data, the last evaluation and its pictures are on the clock, the measurement",
        "afterwards is not. How each number is measured: [README.md](README.md). A time counts against those of the",
        "same machine alone.",
    ]
    header = ["| goal | reached | date | commit | versions | XLA_FLAGS |", "|---|---|---|---|---|---|"]
    for chip, there in sorted(board["machines"].items()):
        names = sorted(there["records"], key=lambda name: list(GOALS).index(name) if name in GOALS else len(GOALS))
        lines += ["", f"## {chip}", "", *header, *(_line(name, there["records"][name]) for name in names), ""]
        lines += ["By, in this order:", ""]
        lines += [f"    {there['records'][name]['command']}" for name in names]
        if there["beaten"]:
            lines += ["", "Beaten since:", "", *header, *(_line(row["goal"], row) for row in there["beaten"][::-1]), ""]
            lines += [f"    {row['command']}" for row in there["beaten"][::-1]]
    return "\n".join(lines) + "\n"


def read(path: Path) -> Board:
    """The board's numbers; an empty board where there are none."""
    return stored(path, {"format": FORMAT, "machines": {}})


def write(board: Board, numbers: Path) -> Path:
    """Write the numbers and, from them, records.md in the folder above; each whole or not at all."""
    write_text(numbers, json.dumps(board, indent=1, sort_keys=True) + "\n")
    write_text(numbers.parents[1] / "records.md", page(board))
    return numbers.parents[1] / "records.md"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mnist, fashion_mnist and binarized_mnist.npz")
    parser.add_argument("--goals", help=f"only these of {','.join(GOALS)}, with commas between them")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds after which a goal is not reached")
    parser.add_argument(
        "--numbers", type=Path, default=NUMBERS, help="the board's file; records.md is in the folder above"
    )
    options = parser.parse_args(arguments)
    options.goals = list(GOALS) if options.goals is None else [name.strip() for name in options.goals.split(",")]
    unknown = [name for name in options.goals if name not in GOALS]
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}: there are {', '.join(GOALS)}")
    if not options.limit > 0:
        parser.error(f"--limit must be more than 0 seconds, got {options.limit:g}")
    if options.data is not None and not options.data.is_dir():
        parser.error(
            f"--data {options.data} is no folder: name one that holds mnist, fashion_mnist, binarized_mnist.npz"
        )
    return options


def act(options: argparse.Namespace) -> None:
    """Run the goals that can be run, and write the board after each."""
    numbers = options.numbers.absolute()
    read(numbers)  # refused before anything is run
    check_place(numbers)
    chip, failed = machine.chip(), []
    # Of what is run: the sources may change while it is.
    stamp = {"commit": commit(), "versions": machine.versions(), "xla_flags": machine.compiler_flags()}
    print(chip, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for goal in (GOALS[name] for name in options.goals):
            place = find(goal, options.data, Path(scratch))
            if place is None:
                print(f"skipped: {goal.title}: it needs {goal.needs} in the folder --data", flush=True)
                continue
            print(f"{goal.title}: {shown(goal)}", flush=True)
            try:
                row = race(goal, place, Path(scratch), options.limit)
            except CommandError as error:
                failed.append(goal.name)
                print(f"failed: {goal.title}: {error}: the board stays as it is", flush=True)
                continue
            row |= {
                "command": shown(goal),
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                **stamp,
            }
            board = read(numbers)
            print(f"  {enter(board, chip, goal.name, row)}", flush=True)
            print(f"  {write(board, numbers)}", flush=True)
    if failed:
        raise ValueError(f"{', '.join(failed)} failed: see above")


def shown(goal: Goal) -> str:
    """The command as a person would write it."""
    place = "BINARIZED.npz" if goal.needs == "binarized_mnist" else f"DIR/{goal.needs}"
    return shlex.join(["jaxgen", *goal.command(place)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the board; returns the exit status."""
    return exit_status(lambda: parse(arguments), act)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the command that runs ends, too
    sys.exit(main())
