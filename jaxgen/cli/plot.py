"""Draw metrics of several runs against their steps, or scores of several sweeps against what they vary.

jaxgen plot runs/one runs/two --metric test_log_likelihood --out curves.png
jaxgen plot runs/sweep-001 runs/sweep-002 --metric test_elbo active_units --out answer.png
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from jaxgen.cli.exit_status import command
from jaxgen.cli.options import flag
from jaxgen.cli.sweeping import results
from jaxgen.evaluation.figures import new_figure, save_figure
from jaxgen.training.monitor import read_rows
from jaxgen.training.run import Run


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw metrics of several runs against their steps, or scores of several sweeps."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The directories that jaxgen train wrote, or jaxgen sweep."""
    metric: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--metrics", "--scores"])] = ()
    """Metrics of the runs' metrics.jsonl, or scores of the sweeps; a panel each. All scores when not given."""
    out: Path = Path("curves.png")
    """The .png file."""
    labels: tuple[str, ...] = ()
    """What to call each run; the names of their folders when not given."""
    steps_per_epoch: float | None = None
    """Count in epochs of so many steps."""
    lowest: float | None = None
    """Lower end of the vertical axis."""


def metrics_of(directory: Path) -> list[str]:
    """The metrics in the log of a run, by name."""
    return sorted({name for row in read_rows(directory / "metrics.jsonl") for name in row if name != "step"})


def read_curve(directory: Path, metric: str) -> tuple[list[int], list[float]]:
    """The steps and the values of a metric of a run, in order."""
    Run.open(directory)  # refuses what is no run
    rows = read_rows(directory / "metrics.jsonl")
    found = [(row["step"], float(row[metric])) for row in rows if metric in row]
    if not found:
        known = metrics_of(directory)
        raise ValueError(f"{directory} has no metric {metric!r}: use one of {', '.join(known) or 'none, it is empty'}")
    return [step for step, _ in found], [value for _, value in found]


def draw_runs(options: Options) -> None:
    """Read every curve, then draw a panel a metric."""
    if not options.metric:
        Run.open(options.runs[0])  # refuses what is no run
        raise ValueError(f"--metric must name a metric, one of {', '.join(metrics_of(options.runs[0]))}")
    names = options.labels or tuple(directory.name for directory in options.runs)
    curves = {
        metric: [(name, *read_curve(run, metric)) for name, run in zip(names, options.runs, strict=True)]
        for metric in options.metric
    }

    figure = new_figure(6.4 * len(curves), 4.0)
    unit = options.steps_per_epoch or 1.0
    for number, (metric, lines) in enumerate(curves.items()):
        axes = figure.add_subplot(1, len(curves), number + 1)
        for name, steps, values in lines:
            x = [step / unit for step in steps]
            axes.plot(x, values, marker="o", markersize=3, label=f"{name} ({values[-1]:.2f})")
        axes.set_xlabel("epoch" if options.steps_per_epoch else "step")
        axes.set_ylabel(metric)
        axes.set_ylim(bottom=options.lowest)
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(options.out, figure)


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
    if options.steps_per_epoch is not None and options.steps_per_epoch <= 0:
        raise ValueError(f"--steps-per-epoch must be above 0, got {options.steps_per_epoch}")
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
