"""Get a published number again: train and measure by the paper's protocol, and write down what came out.

    uv run experiments/reproduce.py --list
    uv run experiments/reproduce.py flax_vae
    uv run experiments/reproduce.py burda_vae_1 --minutes 60         # and again, until all of it is done
    uv run experiments/reproduce.py burda_vae_1 --until 13 --dataset idx:PATH
    uv run experiments/reproduce.py --results                          # write RESULTS.md from the records

Whatever stops it, the same command goes on where it was. The run directory is runs/reproductions/NAME; record.json in
it has a row for every milestone of the protocol that was reached. ``--publish`` puts the record into
experiments/records.
"""

import dataclasses
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.reproduction import protocol, report
from experiments.reproduction.protocol import Config, Record, Row
from jaxgen.cli.exit_status import command
from jaxgen.cli.progress import Bars
from jaxgen.cli.runs import train
from jaxgen.cli.sweeping.plan import Plan
from jaxgen.cli.sweeping.training import sweep
from jaxgen.intervals import Count, Interval, Positive
from jaxgen.training import machine
from jaxgen.training.run import Run
from jaxgen.training.stopping import Stopped

Minutes = Annotated[float, Interval(0.0, 100_000.0, "(]")]


@dataclasses.dataclass(frozen=True)
class Options:
    """Get a published number again."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Which: a name that --list lists, of a variant in experiments/configs."""
    list: bool = False
    """List what there is, with what was reached."""
    results: bool = False
    """Write RESULTS.md from the records."""
    until: Positive | None = None
    """Go no further than this epoch, or part of one; all of the protocol when not given."""
    members: Count | None = None
    """Train only the first so many seeds, or settings, of the population."""
    minutes: Minutes | None = None
    """Stop the training after so many minutes; the same command goes on."""
    workdir: Path | None = None
    """The run directory; runs/reproductions/NAME when not given."""
    dataset: str | None = None
    """Where the same images are, if not under their TFDS name: npz:PATH or idx:DIR."""
    data_dir: Path | None = None
    """Where TFDS keeps prepared sets."""
    manual_dir: Path | None = None
    """Folder with the original files of a TFDS set."""
    in_full: bool = False
    """Measure by the paper's measure on the way too, where that is a longer one."""
    publish: bool = False
    """Also write the record into experiments/records."""

    def check(self) -> None:
        """Refuse what makes no sense."""
        if (self.name is not None) + self.list + self.results != 1:
            raise ValueError("give one of: the name of a reproduction, --list, --results")


def reproduce(options: Options) -> Record:
    """Train and measure from where it is to where it is to go; returns the record."""
    assert options.name is not None
    config = protocol.find(options.name)
    directory = options.workdir or Path("runs/reproductions") / config.name
    milestones = wanted(config, options.until)
    most = config.reproduction.members
    if options.members is not None and options.members > most:
        raise ValueError(f"--members {options.members}: {config.name} trains {most}, give at most as many")
    record = open_record(config, directory)
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    for epoch in milestones:
        if any(row.epoch == epoch for row in record.rows):
            continue
        if deadline is not None and time.monotonic() >= deadline:
            raise Stopped(signal.SIGTERM)
        with stopped_at(deadline):
            passed = not advance(config, options, directory, epoch)
        if passed:
            print(f"the run is past epoch {epoch:g}, which was not measured: left out")
            continue
        record.rows.append(measure(config, directory, epoch, options.in_full))
        record.data_sha256 = runs_of(directory)[0].config["identity"]["data"]["sha256"]
        record.versions = machine.versions()
        record.write(directory / "record.json")
        if options.publish:
            record.write(protocol.RECORDS / f"{config.name}.json")
        print(report.line(config, record.rows[-1]), flush=True)
    return record


def wanted(config: Config, until: float | None) -> list[float]:
    """The milestones to reach; an epoch between two of them is measured too."""
    last = config.reproduction.last if until is None else until
    if last > config.reproduction.last:
        raise ValueError(f"--until {until:g}: {config.name} ends after {config.reproduction.last:g} epochs")
    return sorted({*(epoch for epoch in config.reproduction.milestones if epoch <= last), last})


def open_record(config: Config, directory: Path) -> Record:
    """The record of a run directory, or a new one; refuses that of another config."""
    path = directory / "record.json"
    if not path.is_file():
        command = f"uv run experiments/reproduce.py {config.name}"
        return Record(config.name, config.identity(), "", [], machine.versions(), command)
    record = Record.read(path)
    changed = config.differences(record)
    if changed:
        raise ValueError(f"{path} is of another config: {'; '.join(changed)}: use another --workdir")
    return record


class stopped_at:  # noqa: N801 - it reads as what it does
    """Asks the training inside to stop when the time has come, as a scheduler would: by a signal, once it listens."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline, self._over = deadline, threading.Event()

    def __enter__(self) -> None:
        if self._deadline is not None:
            self._deaf = signal.getsignal(signal.SIGTERM)
            threading.Thread(target=self._ask, args=(self._deadline,), daemon=True).start()

    def _ask(self, deadline: float) -> None:
        late = self._over.wait(max(0.0, deadline - time.monotonic()))
        while not late and signal.getsignal(signal.SIGTERM) is self._deaf:
            late = self._over.wait(0.1)
        if not late:
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *error: object) -> None:
        self._over.set()


def advance(config: Config, options: Options, directory: Path, epoch: float) -> bool:
    """Train until an epoch is over; returns whether the run is there, and not further."""
    places: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("dataset", "data_dir", "manual_dir")
        if getattr(options, name) is not None
    }
    steps = config.reproduction.steps(epoch)
    places["log_every"] = max(1, min(config.options.log_every, steps // 4))  # what the speed is read from
    chosen = dataclasses.replace(config.options, steps=steps, workdir=directory, resume=Run.exists(directory), **places)
    what = config.reproduction
    if what.search is not None:
        sweep(Plan(chosen, {}, 1, listed=what.search.settings(options.members)))
    elif what.seeds > 1:
        sweep(Plan(chosen, {}, options.members or what.seeds))
    else:
        train(chosen)
    return max(Run.open(directory).steps()) == steps


def runs_of(directory: Path) -> list[Run]:
    """The runs that are measured: one, or the members of a population."""
    members = directory / "members"
    return [Run.open(path) for path in (sorted(members.iterdir()) if members.is_dir() else [directory])]


def measure(config: Config, directory: Path, epoch: float, in_full: bool) -> Row:
    """Measure what is there: on the way to the end perhaps by a shorter measure, at the end by both."""
    what = config.reproduction
    measures = [what.measure] if what.on_the_way is None else [what.on_the_way]
    if what.on_the_way is not None and (epoch == what.last or in_full):
        measures.append(what.measure)
    began = time.perf_counter()
    runs = runs_of(directory)
    whole = [run for run in runs if max(run.steps()) == what.steps(epoch)]
    values: dict[str, list[float]] = {}
    with Bars() as bars:
        for number, run in enumerate(whole):
            progress = bars.begin(f"{config.name} after epoch {epoch:g}, run {number + 1} of {len(whole)}")
            found = {name: value for one in measures for name, value in one(run, progress).items()}
            for name, value in found.items():
                values.setdefault(name, []).append(float(value))
    seconds = protocol.seconds_at_median_speed(runs[0].directory)
    measuring = time.perf_counter() - began
    return Row(epoch, values, round(seconds, 1), round(measuring, 1), machine.chip(), len(runs) - len(whole))


def act(options: Options) -> None:
    """Do what the options say."""
    options.check()
    if options.list or options.results:
        found = report.published(protocol.configs())
        if options.list:
            print(report.listed(found))
        else:
            print(report.write(found))
    else:
        reproduce(options)


main = command(Options, act, "reproduce.py", go_on="the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
