"""What runs have logged, as panels of curves: of metrics.jsonl alone, so that those of a resumed run are whole."""

import contextlib
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.evaluation.explanations import explain_score
from jaxgen.evaluation.figures import new_figure, save_figure, shortened
from jaxgen.training.monitor import read_rows

COLUMNS = 3  # of panels
WIDTH, HEIGHT = 3.8, 3.0  # of a panel, inches
FEW = 30  # points up to which each is marked
EARLY = 0.1  # share of the steps whose values may lie outside of a panel, where they would flatten the rest
_STYLES = ("-", "--", ":", "-.")
_TRAIN, _TEST = "training images", "test images"
# Titles of panels, what else is to be known of each, and its lines: by what matches the whole name in the log, what it
# is called. What a name adds in parentheses, as the extractor, makes a panel of its own.
PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("ELBO, the evidence lower bound", "", {"elbo": _TRAIN, "test_elbo": _TEST}),
    ("Reconstruction, a part of the ELBO", "", {"reconstruction": _TRAIN, "test_reconstruction": _TEST}),
    ("KL divergence, taken from it", "at 0 the latents say nothing", {"kl": _TRAIN, "test_kl": _TEST}),
    ("Log-likelihood", "", {"test_log_likelihood": _TEST}),
    ("Training loss", "", {"loss": _TRAIN}),
    (
        "Losses of both players",
        "they need not fall, neither may vanish",
        {"generator_loss": "generator", "discriminator_loss": "discriminator"},
    ),
    (
        "What the discriminator says",
        "far apart: it tells them apart",
        {"real_logit": "real images", "fake_logit": "generated images"},
    ),
    ("Penalty of the discriminator", "without its weight", {"penalty": _TRAIN}),
    ("Probability of the augmentation", "", {"augmentation_probability": "images"}),
    ("Sign of the discriminator's output", "1: sure of every real image", {"real_sign": "real images"}),
    ("Sliced Wasserstein distance", "", {"test_sliced_wasserstein": "samples to test images"}),
    ("Fréchet distance", "", {"test_fd_(.+)": "samples to test images"}),
    ("Fréchet inception distance", "", {"test_fid": "samples to test images"}),
    ("Fréchet distance of reconstructions", "", {"test_rfd_(.+)": "to their images"}),
    ("Fréchet inception distance of reconstructions", "", {"test_rfid": "to their images"}),
    ("Codes used", "", {"test_codes_used": _TEST}),
    ("Perplexity of the codes", "", {"test_code_perplexity": _TEST}),
    ("Precision and recall", "", {"test_precision(?:_(.+))?": "precision", "test_recall(?:_(.+))?": "recall"}),
    ("Diversity of samples", "1: as diverse as test images", {"sample_diversity": "samples"}),
    (
        "Active units",
        "0: collapsed",
        {"active_units": "layer 1", **{f"active_units_{layer}": f"layer {layer}" for layer in range(2, 10)}},
    ),
    ("Steps left out as not finite", "", {"skipped_steps": "training"}),
)
# Of tokenizers, which have no ELBO.
_OF_DISTANCES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("Distance of reconstructions", "", {"reconstruction": _TRAIN, "test_reconstruction": _TEST}),
    ("KL divergence, before its weight", "at 0 the latents say nothing", {"kl": _TRAIN, "test_kl": _TEST}),
)


class Log(NamedTuple):
    """What a run has logged.

    Args:
      name: what the run is called.
      curves: steps and values of each number, by name, in the order of the steps.
      warnings: (step, text) of each warning.
    """

    name: str
    curves: dict[str, tuple[list[int], list[float]]]
    warnings: tuple[tuple[int, str], ...] = ()

    @property
    def last(self) -> int:
        """The last step of a curve."""
        return max(steps[-1] for steps, _ in self.curves.values())


class NothingLoggedError(ValueError):
    """A log without a number."""


def read_log(directory: Path, name: str | None = None) -> Log:
    """Read the log of a run directory, which is called ``name``, or by its folder's name; times are left out."""
    path = directory / "metrics.jsonl"
    curves: dict[str, tuple[list[int], list[float]]] = {}
    warnings = []
    for row in read_rows(path):
        for key, value in row.items():
            if key == "warning":
                warnings.append((row["step"], value))
            elif key != "step" and not key.startswith("time_"):
                steps, values = curves.setdefault(key, ([], []))
                steps.append(row["step"])
                values.append(_number(value, f"{path}: {key} of step {row['step']}"))
    if not curves:
        what = "holds no numbers yet" if path.exists() else "is not there"
        raise NothingLoggedError(f"{path} {what}: train the run for at least --log-every steps")
    return Log(name or directory.resolve().name, curves, tuple(warnings))


def _number(value: Any, what: str) -> float:
    try:
        return float(value)  # what is not finite is there as a word
    except (TypeError, ValueError):
        raise ValueError(f"{what} is no number: {str(value)[:40]!r}") from None


class Panel(NamedTuple):
    """Curves in one frame, by their names in the log, with what each is called."""

    title: str
    note: str
    unit: str
    lines: dict[str, str]


def panels(logs: Sequence[Log], metrics: Sequence[str] = ()) -> list[Panel]:
    """The panels of logs: one for each of the numbers ``metrics``, or else all that belong to any of the logs."""
    names = dict.fromkeys(name for log in logs for name in log.curves)
    beside = tuple(names)
    if metrics:
        titles = {name: explain_score(name, beside).title for name in metrics}
        return [_panel(f"{titles[n]} ({n})" if titles[n] != n else n, "", n, {n: n}, beside) for n in metrics]
    if all(map(_is_negative_elbo, logs)):
        names.pop("loss", None)  # the same curve upside down
    found: list[Panel] = []
    for title, note, patterns in PANELS if any("elbo" in name for name in names) else (*_OF_DISTANCES, *PANELS):
        together: dict[str, dict[str, str]] = {}
        for pattern, line in patterns.items():
            for match in filter(None, [re.fullmatch(pattern, name) for name in names]):
                together.setdefault("".join(match.groups("")), {})[match[0]] = line
                del names[match[0]]
        for of, lines in together.items():
            found.append(_panel(title, "; ".join(filter(None, (of, note))), next(iter(lines)), lines, beside))
    others = [_panel(name, "", name, {name: _TEST if name.startswith("test_") else _TRAIN}, beside) for name in names]
    return [*found, *others]


def _panel(title: str, note: str, name: str, lines: dict[str, str], beside: Sequence[str]) -> Panel:
    """A panel of what a number, one of its lines, is: its unit, and which end is better."""
    score = explain_score(name, beside)
    better = "" if score.better == "neither" else f"{score.better} is better"
    return Panel(title, "; ".join(filter(None, (note, better))), score.unit or "value", lines)


def _is_negative_elbo(log: Log) -> bool:
    loss, elbo = (log.curves.get(name, ([], []))[1] for name in ("loss", "elbo"))
    return len(loss) == len(elbo) and all(math.isclose(a, -b, rel_tol=1e-4) for a, b in zip(loss, elbo, strict=True))


def draw_run(directory: Path) -> Path:
    """Draw the log of a run directory, in ``curves.png`` there: returns that."""
    path = directory / "curves.png"
    draw(path, [read_log(directory)])
    return path


def prepare() -> None:
    """Import what draws, which takes most of a second: for a thread beside a compilation."""
    with contextlib.suppress(Exception):  # said when something is to be drawn
        from matplotlib.backends import backend_agg  # noqa: F401


def draw(
    path: Path,
    logs: Sequence[Log],
    metrics: Sequence[str] = (),
    steps_per_epoch: float | None = None,
    lowest: float | None = None,
) -> None:
    """Draw logs as a PNG file: of one run a colour for each curve of a panel, of several a colour for each run.

    Args:
      path: the .png file.
      logs: of at least one run; a panel shows those that have its numbers.
      metrics: names of numbers in the log, a panel each; all that belong together in one when empty.
      steps_per_epoch: count in epochs of so many steps.
      lowest: lower end of the vertical axes.
    """
    shown = panels(logs, metrics)
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    wide, high = (2 * WIDTH, 1.5 * HEIGHT) if len(shown) == 1 else (WIDTH, HEIGHT)  # of a panel
    colors = _colors(len(logs))
    # One legend of all runs, where a panel's own has to say what its kinds of lines are.
    shared = len(logs) > 1 and any(len(panel.lines) > 1 for panel in shown)
    in_a_row = max(1, int(wide * columns / (0.08 * max(len(shortened(log.name)) for log in logs) + 0.6)))
    below = 0.2 * (1 + -(-len(logs) // in_a_row)) if shared else 0.0
    heading = _heading(logs, int(11 * wide * columns))
    above = 0.1 + 0.2 * len(heading.splitlines())
    width, height = wide * columns, above + high * rows + below
    figure = new_figure(width, height, layout=None)  # a layout that is computed takes as long as the drawing
    figure.suptitle(heading, fontsize="medium", y=1 - 0.1 / height, va="top")
    for number, panel in enumerate(shown):
        left, bottom = wide * (number % columns) + 0.8, height - above - high * (1 + number // columns) + 0.5
        axes = figure.add_axes((left / width, bottom / height, (wide - 0.95) / width, (high - 1.1) / height))
        for log, color in zip(logs, colors, strict=True):
            for place, (metric, line) in enumerate(panel.lines.items()):
                steps, values = log.curves.get(metric, ([], []))
                if not steps:
                    continue
                label = f"{line if len(logs) == 1 and not metrics else log.name} ({values[-1]:.4g})"
                axes.plot(
                    [step / (steps_per_epoch or 1.0) for step in steps],
                    values,
                    color=color if len(logs) > 1 else f"C{place}",
                    linestyle=_STYLES[place % len(_STYLES)],
                    marker="o" if len(steps) <= FEW else None,
                    markersize=3,
                    label=None if shared else label,
                )
        _finish(axes, panel, lowest)
        axes.set_xlabel("epoch" if steps_per_epoch else "step", fontsize="small")
        if not shared or len(panel.lines) > 1:
            axes.legend(handles=_styles(panel) if shared else None, fontsize="x-small")
    if shared:
        handles = [_key(log.name, color=color) for log, color in zip(logs, colors, strict=True)]
        figure.legend(handles=handles, loc="lower center", ncols=in_a_row, fontsize="small")
    save_figure(path, figure)


def _heading(logs: Sequence[Log], letters: int) -> str:
    """What the picture is, and the last warning where it is of one run."""
    steps = f"{max(log.last for log in logs):,} steps"
    if len(logs) > 1:
        return f"Logs of {len(logs)} runs, up to {steps}"
    lines = [f"Log of {logs[0].name}, {steps}"]
    if logs[0].warnings:
        step, text = logs[0].warnings[-1]
        number = len(logs[0].warnings)
        said = f"{number} warning{'s' * (number > 1)}, the last at step {step:,}: {text}"
        lines += textwrap.wrap(said, letters, max_lines=2, placeholder=" …")
    return "\n".join(lines)


def _colors(number: int) -> list[Any]:
    """Colours that differ, as many as there are runs."""
    from matplotlib import colormaps

    return [f"C{i}" for i in range(number)] if number <= 10 else list(colormaps["turbo"](np.linspace(0.0, 1.0, number)))


def _key(label: str, **look: Any) -> Any:
    """A line of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def _styles(panel: Panel) -> list[Any]:
    """What the kinds of lines of a panel are."""
    lines = enumerate(panel.lines.values())
    return [_key(line, color="black", linestyle=_STYLES[place % len(_STYLES)]) for place, line in lines]


def _finish(axes: Any, panel: Panel, lowest: float | None) -> None:
    """Title, labels and limits: the first steps may lie outside where the others would be a flat line."""
    every: list[float] = []
    later: list[float] = []  # of each run, however long
    for steps, values in (line.get_data() for line in axes.lines):
        finite = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
        every += [value for _, value in finite]
        later += [value for step, value in finite if step > EARLY * max(steps) or len(finite) == 1]
    notes = [panel.note] * bool(panel.note)
    lost = sum(len(line.get_data()[0]) for line in axes.lines) - len(every)
    if lost:
        notes.append(f"not finite: {lost}")
    if later and lowest is None:
        low, high = min(later), max(later)
        if high - low < (max(every) - min(every)) / 3:
            room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
            axes.set_ylim(low - room, high + room)
            notes.append("first steps outside")
    axes.set_ylim(bottom=lowest)
    if all(value == int(value) for value in every):  # a count, as of active units
        axes.locator_params(axis="y", integer=True)
    axes.set_title("\n".join([panel.title, *textwrap.wrap("; ".join(notes), 52)]), fontsize="small")
    axes.set_ylabel(panel.unit, fontsize="small")
    axes.tick_params(labelsize="small")
    axes.xaxis.set_major_formatter("{x:,.6g}")
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
