"""What it is to reproduce a published number: the paper, its protocol, what it says, and the record of what came out.

A variant in a file of experiments/configs whose result is a published one has, besides its options, a reproduction.
``reproduce.py NAME`` trains and measures it, and writes the record.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from experiments import configs as named
from jaxgen import recipes
from jaxgen.cli.gan_options import GANOptions
from jaxgen.cli.sweeping.plan import Search
from jaxgen.cli.vae_options import VAEOptions
from jaxgen.evaluation.records import mean_and_error
from jaxgen.evaluation.subject import Progress
from jaxgen.training.files import write_text
from jaxgen.training.monitor import read_rows
from jaxgen.training.run import Run

RECORDS = Path(__file__).parents[1] / "records"
# What changes neither what is trained nor what is measured.
NOT_IDENTITY = (
    *("config", "data_dir", "manual_dir", "streaming", "steps", "log_every", "eval_every", "sample_every", "keep"),
    *("checkpoint_every", "keep_every", "checkpointing", "mesh", "coordinator", "num_processes", "process_id"),
    *("workdir", "resume", "requeue", "init_from", "partial", "log_likelihood_samples", "extractor"),
)


class Measure(Protocol):
    """A paper's way to judge a trained run: a frozen dataclass of its settings."""

    def __call__(self, run: Run, progress: Progress) -> Mapping[str, float]:
        """Numbers by name, of the run's checkpoint."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A number of a paper.

    Args:
      metric: its name, as the measure names it.
      value: the number.
      epoch: after how many epochs; the end of the protocol when None.
      standard_error: its error, as far as the paper gives one.
      within: how far from it the number reached may be, to count as the same; None where nothing is said.
      better: ``"lower"`` or ``"higher"``; a number that is better by more than ``within`` counts too.
      source: where it stands, when that is not the reproduction's paper.
    """

    metric: str
    value: float
    epoch: float | None = None
    standard_error: float | None = None
    within: float | None = None
    better: str = "lower"
    source: str | None = None

    def reached_by(self, value: float) -> bool | None:
        """Whether a number counts as this one; None where no tolerance is said."""
        if self.within is None:
            return None
        worse = value - self.value if self.better == "lower" else self.value - value
        return worse <= self.within


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A published result, and how it is got again.

    Args:
      title: what it is, in a few words.
      paper: authors, year, title.
      where: the table, figure or section.
      protocol: how it is trained and measured, and where this differs from the paper.
      published: the numbers.
      epoch: steps in an epoch.
      milestones: epochs after which it is measured; the last one ends the published protocol.
      measure: how it is measured, as the paper does.
      on_the_way: how it is measured before the last milestone, where the paper's measure takes long; the same when
        None.
      seeds: how many runs, trained as one population.
      search: settings that are tried instead, trained as one population, of which the best one counts; None for none.
      group: which table of RESULTS.md it is a row of.
    """

    title: str
    paper: str
    where: str
    protocol: str
    published: tuple[Published, ...]
    epoch: int
    milestones: tuple[float, ...]
    measure: Measure
    group: str
    on_the_way: Measure | None = None
    seeds: int = 1
    search: Search | None = None

    @property
    def last(self) -> float:
        """Epochs of the whole protocol."""
        return self.milestones[-1]

    def steps(self, epochs: float) -> int:
        """Steps in so many epochs."""
        return round(epochs * self.epoch)

    @property
    def members(self) -> int:
        """How many runs its population has: seeds or settings; 1 for a run that is alone."""
        return self.seeds if self.search is None else self.search.num

    def of(self, row: "Row", metric: str) -> float:
        """What a row says of a metric: the mean over the seeds, or the best of the settings."""
        values = row.values[metric]
        if self.search is None:
            return float(np.mean(values))
        return min(values) if self.published[0].better == "lower" else max(values)

    def error_of(self, row: "Row", metric: str) -> float | None:
        """Standard error of the mean over the seeds; None of one seed, and of the best of settings."""
        values = row.values[metric]
        return None if self.search is not None else mean_and_error(values)[1]


class Config(NamedTuple):
    """A reproduction, and the options of ``jaxgen train`` that it trains with."""

    name: str
    options: VAEOptions | GANOptions
    reproduction: Reproduction

    def identity(self) -> dict[str, Any]:
        """What makes its numbers what they are, as plain data."""
        options = dataclasses.asdict(self.options)
        kept = {name: value for name, value in options.items() if name not in NOT_IDENTITY}
        family = self.options.family
        measures = (self.reproduction.measure, self.reproduction.on_the_way)
        plain = {
            "family": family,
            "options": kept,
            "measures": [_plain_measure(measure) for measure in measures if measure is not None],
            "seeds": self.reproduction.seeds,
            "epoch": self.reproduction.epoch,
        }
        if self.reproduction.search is not None:
            plain["search"] = dataclasses.asdict(self.reproduction.search)
        return json.loads(json.dumps(plain))

    def differences(self, record: "Record") -> list[str]:
        """Where a record is of another config; an option that is newer than the record has its default in it."""
        now, then = self.identity(), json.loads(json.dumps(record.identity))
        defaults = {field.name: field.default for field in dataclasses.fields(self.options)}
        # Older records have the options of all architectures.
        old = then.get("options", {})
        then["options"] = {name: old.get(name, json.loads(json.dumps(defaults[name]))) for name in now["options"]}
        flat, other = _flat(now), _flat(then)
        return [
            f"{name}: {other.get(name)!r} in the record, {flat.get(name)!r} in the config"
            for name in sorted({*flat, *other})
            if flat.get(name) != other.get(name)
        ]


def _plain_measure(measure: Any) -> dict[str, Any]:
    return {"name": type(measure).__name__, **dataclasses.asdict(measure)}


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    return {name: value for key, sub in tree.items() for name, value in _flat(sub, f"{path}.{key}".strip(".")).items()}


class Row(NamedTuple):
    """What was measured after an epoch.

    Args:
      epoch: after how many epochs.
      values: number by metric and member of the population: seed or setting, from the first one on.
      seconds: of training until then, on this machine.
      seconds_measuring: of measuring.
      hardware: what it was trained and measured on.
      diverged: members that diverged, and have no values.
    """

    epoch: float
    values: dict[str, list[float]]
    seconds: float
    seconds_measuring: float
    hardware: str
    diverged: int = 0


@dataclasses.dataclass
class Record:
    """What came out, so far.

    Args:
      name: of the config.
      identity: of the config it was made with, see `Config.identity`.
      data_sha256: of the training images, by a sample of them.
      rows: what was measured, by epoch.
      versions: of the libraries.
      command: what was run.
    """

    name: str
    identity: dict[str, Any]
    data_sha256: str
    rows: list[Row]
    versions: dict[str, str]
    command: str

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        plain = {**dataclasses.asdict(self), "rows": [row._asdict() for row in self.rows]}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(plain, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read one.

        Raises:
          ValueError: the file is no record.
        """
        try:
            plain = json.loads(path.read_text())
            return cls(**{**plain, "rows": [Row(**row) for row in plain["rows"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path} is not the record of a reproduction ({error}): remove it, or write it anew"
            ) from error


def configs() -> dict[str, Config]:
    """Every reproduction of experiments/configs, by name."""
    found = {}
    for name in sorted(named.FILES):
        options, reproduction = named.load(name)
        if reproduction is not None:
            found[name] = Config(name, dataclasses.replace(options, config=name), reproduction)
    return found


def find(name: str) -> Config:
    """The reproduction of a name.

    Raises:
      ValueError: there is none; the error lists the nearest ones.
    """
    known = configs()
    if name not in known:
        raise ValueError(f"unknown reproduction {name!r}: the nearest are {recipes.nearest(name, known)}")
    return known[name]


def seconds_at_median_speed(directory: Path) -> float:
    """Seconds of training behind a run, at the median speed of its log: a pause does not count, nor compilation."""
    rows = read_rows(directory / "metrics.jsonl")
    speeds = [row["time_steps_per_second"] for row in rows if "time_steps_per_second" in row]
    if not speeds:
        raise ValueError(f"{directory} has no log of its speed: train it again to know the time it takes")
    return max(row["step"] for row in rows) / float(np.median(speeds))


def number(value: float, digits: int = 2) -> str:
    """A number as it is printed, in RESULTS.md and in docstrings."""
    return f"{value:.{digits}f}"


def reached(what: Reproduction, row: Row, metric: str) -> str:
    """What a row says of a metric, as it is printed."""
    error = what.error_of(row, metric)
    return number(what.of(row, metric)) + ("" if error is None else f" +- {number(error)}")
