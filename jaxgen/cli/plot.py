"""Draw what runs have logged against their steps, or scores of several sweeps against what they vary.

jaxgen plot runs/one runs/two
jaxgen plot runs/one runs/two --metric test_log_likelihood --out curves.png
jaxgen plot runs/sweep-001 runs/sweep-002 --metric test_elbo active_units --out answer.png
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from jaxgen.cli.exit_status import command
from jaxgen.cli.options import flag
from jaxgen.cli.sweeping import results
from jaxgen.evaluation.curves import draw, read_log
from jaxgen.intervals import Finite, Positive
from jaxgen.training.run import Run


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw what runs have logged against their steps, or scores of several sweeps."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The directories that jaxgen train wrote, or jaxgen sweep."""
    metric: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--metrics", "--scores"])] = ()
    """Metrics of the runs' metrics.jsonl, or scores of the sweeps; a panel each. When not given, all
    there are: of runs in panels of what belongs together."""
    out: Path = Path("curves.png")
    """The .png file."""
    labels: tuple[str, ...] = ()
    """What to call each run; the names of their folders when not given."""
    steps_per_epoch: Positive | None = None
    """Count in epochs of so many steps."""
    lowest: Finite | None = None
    """Lower end of the vertical axis."""


def names_of(directories: Sequence[Path]) -> list[str]:
    """What to call runs: the names of their folders, or their paths where two folders have the same name."""
    names = [directory.resolve().name for directory in directories]
    return [str(path) if names.count(name) > 1 else name for path, name in zip(directories, names, strict=True)]


def draw_runs(options: Options) -> None:
    """Read every log, then draw the panels."""
    if options.lowest is not None and not options.metric:
        raise ValueError("--lowest is the end of the axis of a metric: name it with --metric")
    logs = []
    for directory, name in zip(options.runs, options.labels or names_of(options.runs), strict=True):
        Run.open(directory)  # refuses what is no run
        log = read_log(directory, name)
        missing = [metric for metric in options.metric if metric not in log.curves]
        if missing:
            known = ", ".join(sorted(log.curves))
            raise ValueError(f"{directory} has no metric {missing[0]!r}: use one of {known}")
        logs.append(log)
    draw(options.out, logs, options.metric, options.steps_per_epoch, options.lowest)


def draw_sweeps(options: Options) -> None:
    """Read every sweep, then draw a panel a score of each."""
    unused = [name for name in ("labels", "steps_per_epoch", "lowest") if getattr(options, name)]
    if unused:
        raise ValueError(f"{flag(unused[0])} is for runs, and these are sweeps: leave it out")
    sweeps = {directory.name: results.read(directory) for directory in options.runs}
    known = sorted({name for rows in sweeps.values() for name in results.score_names(rows)})
    for name in options.metric:
        if name not in known:
            raise ValueError(f"no score {name!r}: use one of {', '.join(known)}")
    results.draw(sweeps, options.out, options.metric)


def plot(options: Options) -> Path:
    """Draw what the directories hold; returns the file."""
    if options.out.suffix != ".png":
        raise ValueError(f"--out must end in .png, got {options.out}")
    if not options.runs:
        raise ValueError("name at least one run directory")
    if options.labels and len(options.labels) != len(options.runs):
        raise ValueError(f"--labels must be one a run, {len(options.runs)}, got {len(options.labels)}")
    sweeps = [results.is_sweep(directory) for directory in options.runs]
    if any(sweeps) and not all(sweeps):
        other = options.runs[sweeps.index(False)]
        raise ValueError(f"{other} holds no sweep, and others here do: draw runs, or draw sweeps")
    if all(sweeps):
        draw_sweeps(options)
    else:
        draw_runs(options)
    return options.out


main = command(Options, plot, "jaxgen plot")
