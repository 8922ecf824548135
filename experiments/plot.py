"""Draw a metric of several runs against their steps.

uv run experiments/plot.py runs/one runs/two --metric test_log_likelihood --out curves.png
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from experiments.command import exit_status
from jaxgen.training.files import replacing
from jaxgen.training.monitor import read_rows
from jaxgen.training.run import Run


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw a metric of several runs against their steps."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The run directories that train.py wrote."""
    metric: str
    """A metric of their metrics.jsonl."""
    out: Path = Path("curves.png")
    """The .png file."""
    labels: tuple[str, ...] = ()
    """What to call each run; the names of their folders when not given."""
    steps_per_epoch: float | None = None
    """Count in epochs of so many steps."""
    lowest: float | None = None
    """Lower end of the vertical axis."""


def read_curve(directory: Path, metric: str) -> tuple[list[int], list[float]]:
    """The steps and the values of a metric of a run, in order."""
    Run.open(directory)  # refuses what is no run
    rows = read_rows(directory / "metrics.jsonl")
    found = [(row["step"], float(row[metric])) for row in rows if metric in row]
    if not found:
        known = sorted({name for row in rows for name in row if name != "step"})
        raise ValueError(f"{directory} has no metric {metric!r}: use one of {', '.join(known) or 'none, it is empty'}")
    return [step for step, _ in found], [value for _, value in found]


def plot(options: Options) -> Path:
    """Read every curve, then draw them; returns the file."""
    if options.out.suffix != ".png":
        raise ValueError(f"--out must end in .png, got {options.out}")
    if not options.runs:
        raise ValueError("name at least one run directory")
    if options.labels and len(options.labels) != len(options.runs):
        raise ValueError(f"--labels must be one a run, {len(options.runs)}, got {len(options.labels)}")
    if options.steps_per_epoch is not None and options.steps_per_epoch <= 0:
        raise ValueError(f"--steps-per-epoch must be above 0, got {options.steps_per_epoch}")
    names = options.labels or tuple(directory.name for directory in options.runs)
    curves = [(name, *read_curve(run, options.metric)) for name, run in zip(names, options.runs, strict=True)]

    from matplotlib.backends.backend_agg import FigureCanvasAgg  # draws without a screen
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    unit = options.steps_per_epoch or 1.0
    for name, steps, values in curves:
        axes.plot([step / unit for step in steps], values, marker="o", markersize=3, label=f"{name} ({values[-1]:.2f})")
    axes.set_xlabel("epoch" if options.steps_per_epoch else "step")
    axes.set_ylabel(options.metric)
    axes.set_ylim(bottom=options.lowest)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(options.out) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))
    return options.out


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns its exit status."""
    return exit_status(lambda: print(plot(tyro.cli(Options, args=arguments, prog="plot.py"))))


if __name__ == "__main__":
    sys.exit(main())
