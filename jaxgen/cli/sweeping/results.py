"""What a sweep found: means over seeds with their standard errors, as a table, as plain data and as a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgen.evaluation.figures import new_figure, save_figure
from jaxgen.evaluation.records import mean_and_error
from jaxgen.evaluation.report import number_text

Row = dict[str, Any]  # of one setting or one member: see `summarize`
COLUMNS = 3  # of panels in the picture


def summarize(settings: Sequence[Mapping[str, float]], members: Sequence[Row]) -> list[Row]:
    """Means over the seeds of each setting.

    Args:
      settings: numbers by option.
      members: ``setting``, ``diverged`` (bool) and ``scores`` (numbers by name, of those that have not diverged).

    Returns:
      One row a setting: ``setting``, ``seeds`` (those that count), ``diverged`` (how many), and ``scores``: by name,
      ``mean`` and ``standard_error``, std / sqrt(seeds) with seeds - 1 degrees of freedom; None of one seed.
    """
    rows = []
    for setting in settings:
        here = [member for member in members if member["setting"] == setting]
        whole = [member["scores"] for member in here if not member["diverged"]]
        names = [name for name in whole[0] if all(name in scores for scores in whole)] if whole else []
        found = {name: mean_and_error([each[name] for each in whole]) for name in names}
        scores = {name: {"mean": mean, "standard_error": error} for name, (mean, error) in found.items()}
        rows.append(
            {"setting": dict(setting), "seeds": len(whole), "diverged": len(here) - len(whole), "scores": scores}
        )
    return rows


def score_names(rows: Sequence[Row]) -> list[str]:
    """Every score that a setting has, in order."""
    return list(dict.fromkeys(name for row in rows for name in row["scores"]))


def table(rows: Sequence[Row]) -> str:
    """The rows as text, mean +- standard error, ready for Markdown."""
    fields = list(rows[0]["setting"])
    names = score_names(rows)
    lines = [[*fields, "seeds", *names]]
    for row in rows:
        diverged = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        cells = [_cell(row["scores"].get(name)) for name in names]
        lines.append([*(f"{row['setting'][field]:g}" for field in fields), f"{row['seeds']}{diverged}", *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|", *text[1:]])


def _cell(score: Mapping[str, float | None] | None) -> str:
    if score is None or score["mean"] is None:
        return "-"
    mean, error = score["mean"], score["standard_error"]
    return f"{mean:.2f} +- 0.00" if error == 0 else number_text(mean, error)


def draw(sweeps: Mapping[str, Sequence[Row]], path: Path, shown: Sequence[str] = ()) -> None:
    """A panel a score: the first field along the horizontal axis, a line for each combination of the others.

    Args:
      sweeps: rows of `summarize`, by what to call the sweep.
      path: the .png file.
      shown: which scores; all that there are when empty.
    """
    panels = [(title, rows, n) for title, rows in sweeps.items() for n in score_names(rows) if not shown or n in shown]
    columns = min(COLUMNS, max(1, len(panels)))
    height = max(1, -(-len(panels) // columns))
    figure = new_figure(3.4 * columns, 2.7 * height)
    for number, (title, rows, name) in enumerate(panels):
        axes = figure.add_subplot(height, columns, number + 1)
        axes.set_title(f"{title}: {name}" if title else name, fontsize="medium")
        _panel(axes, rows, name)
    save_figure(path, figure)


def _panel(axes: Any, rows: Sequence[Row], name: str) -> None:
    """Draw one score with its error bars into Matplotlib's axes."""
    first, *others = list(rows[0]["setting"]) or ["setting"]
    lines: dict[tuple[float, ...], list[tuple[float, float, float]]] = {}
    for row in rows:
        if name not in row["scores"]:
            continue
        score, setting = row["scores"][name], row["setting"]
        point = (setting.get(first, 0.0), score["mean"], score["standard_error"] or 0.0)
        lines.setdefault(tuple(setting[other] for other in others), []).append(point)
    # Random settings have nothing in common that a line could join.
    drawn = [point for points in lines.values() for point in points]
    scattered = bool(others) and len(drawn) == len(lines) == len({point[0] for point in drawn})
    if scattered:
        x, mean, error = zip(*drawn, strict=True)
        axes.errorbar(x, mean, yerr=error, marker="o", markersize=3, capsize=3, linestyle="none")
    for values, points in () if scattered else lines.items():
        x, mean, error = zip(*sorted(points), strict=True)
        label = ", ".join(f"{other} {value:g}" for other, value in zip(others, values, strict=True))
        axes.errorbar(x, mean, yerr=error, marker="o", markersize=3, capsize=3, label=label)
    ticks = sorted({row["setting"].get(first, 0.0) for row in rows})
    if ticks[0] > 0 and ticks[-1] >= 10 * ticks[0]:
        axes.set_xscale("log")
    if not scattered:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.set_xlabel(first)
    axes.grid(alpha=0.3)
    if others and not scattered:
        axes.legend(fontsize="small")


def is_sweep(directory: Path) -> bool:
    """Whether a folder is a sweep's: finished, or of several members."""
    return (directory / "results.json").is_file() or (directory / "members").is_dir()


def read(directory: Path) -> list[Row]:
    """The rows that a sweep left."""
    path = directory / "results.json"
    if not path.is_file():
        raise FileNotFoundError(f"{directory} holds no finished sweep: expected {path}, which jaxgen sweep writes")
    return json.loads(path.read_text())["settings"]
