"""What a sweep found: means over seeds with their standard errors, as a table, as plain data and as a picture."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgen.evaluation.explanations import explain_score
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


def best_and_ties(rows: Sequence[Row], name: str) -> tuple[Row | None, list[Row]]:
    """(the row whose mean of a score is best, those that are within two standard errors of the difference from it).

    None and no rows where neither end of the score is better; no ties where a standard error is not known.
    """
    better = explain_score(name, score_names(rows)).better
    there = [row for row in rows if row["scores"].get(name, {}).get("mean") is not None]
    if better == "neither" or len(there) < 2:
        return None, []
    best = (max if better == "higher" else min)(there, key=lambda row: row["scores"][name]["mean"])

    def ties(row: Row) -> bool:
        one, two = best["scores"][name], row["scores"][name]
        if None in (one["standard_error"], two["standard_error"]):
            return False
        return abs(one["mean"] - two["mean"]) <= 2.0 * math.hypot(one["standard_error"], two["standard_error"])

    return best, [row for row in there if row is not best and ties(row)]


def draw(sweeps: Mapping[str, Sequence[Row]], path: Path, shown: Sequence[str] = (), of: str = "") -> None:
    """A panel a score: the first field along the horizontal axis, a line for each combination of the others.

    Args:
      sweeps: rows of `summarize`, by what to call the sweep.
      path: the .png file.
      shown: which scores; all that there are when empty.
      of: what was trained, in words.
    """
    panels = [(title, rows, n) for title, rows in sweeps.items() for n in score_names(rows) if not shown or n in shown]
    columns = min(COLUMNS, max(1, len(panels)))
    height = max(1, -(-len(panels) // columns))
    figure = new_figure(max(5.0, 3.6 * columns), 3.0 * height + 1.0)
    marked = [
        _panel(figure.add_subplot(height, columns, number + 1), title, rows, name)
        for number, (title, rows, name) in enumerate(panels)
    ]
    figure.suptitle(f"Scores by setting: {of}" if of else "Scores by setting")
    _legend(figure, [row for rows in sweeps.values() for row in rows], any(marked))
    save_figure(path, figure)


BEST: dict[str, Any] = {"marker": "*", "markersize": 15, "markerfacecolor": "none", "markeredgecolor": "black"}
TIED: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": "black"}


def _legend(figure: Any, rows: Sequence[Row], marked: bool) -> None:
    """Say what the bars and the marks are, and which settings are not there."""
    from matplotlib.lines import Line2D

    seeds = sorted({row["seeds"] for row in rows if row.get("seeds")}) or [0]
    counts = " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
    means = "of one seed, so without errors" if seeds[-1] <= 1 else f"mean and standard error over {counts} seeds"
    entries = [Line2D([], [], color="C0", marker="o" if seeds[-1] <= 1 else "|", markersize=5, label=means)]
    if marked:
        entries.append(Line2D([], [], linestyle="none", label="best mean", **BEST))
    if marked and seeds[-1] > 1:
        tied = "not told apart from it: within two standard errors of the difference"
        entries.append(Line2D([], [], linestyle="none", label=tied, **TIED))
    lost = dict.fromkeys(_setting_text(row["setting"]) for row in rows if row.get("diverged") and not row["scores"])
    if lost:
        text = f"not drawn, as every seed diverged: {'; '.join(lost)}"
        entries.append(Line2D([], [], linestyle="none", label=text))
    figure.legend(handles=entries, loc="outside lower center", fontsize="small")


def _setting_text(setting: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())


def _panel(axes: Any, title: str, rows: Sequence[Row], name: str) -> bool:
    """Draw one score with its error bars into Matplotlib's axes; returns whether a best setting is marked."""
    score = explain_score(name, score_names(rows))
    end = "" if score.better == "neither" else f"{score.better} is better"
    known = ", ".join(filter(None, (name if score.title != name else "", end)))
    over = f"{title}: {score.title}" if title else score.title
    axes.set_title(f"{over}\n({known})" if known else over, fontsize="medium")
    first, *others = list(rows[0]["setting"]) or ["setting"]
    lines: dict[tuple[float, ...], list[tuple[float, float, float]]] = {}

    def point(row: Row) -> tuple[float, float, float]:
        found = row["scores"][name]
        return row["setting"].get(first, 0.0), found["mean"], found["standard_error"] or 0.0

    for row in rows:
        if name in row["scores"]:
            lines.setdefault(tuple(row["setting"][other] for other in others), []).append(point(row))
    # Random settings have nothing in common that a line could join.
    drawn = [one for points in lines.values() for one in points]
    scattered = bool(others) and len(drawn) == len(lines) == len({one[0] for one in drawn})
    if scattered:
        x, mean, error = zip(*drawn, strict=True)
        axes.errorbar(x, mean, yerr=error if any(error) else None, fmt="o", markersize=3, capsize=3)
    for values, points in () if scattered else lines.items():
        x, mean, error = zip(*sorted(points), strict=True)
        label = ", ".join(f"{other} {value:g}" for other, value in zip(others, values, strict=True))
        axes.errorbar(x, mean, yerr=error if any(error) else None, fmt="o-", markersize=3, capsize=3, label=label)
    best, ties = best_and_ties(rows, name)
    for row, marker in [*([(best, BEST)] if best is not None else []), *((row, TIED) for row in ties)]:
        axes.plot(*point(row)[:2], **marker)
    ticks = sorted({row["setting"].get(first, 0.0) for row in rows})
    if ticks[0] > 0 and ticks[-1] >= 10 * ticks[0]:
        axes.set_xscale("log")
    if not scattered:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks] if rows[0]["setting"] else ["the only one"])
        axes.minorticks_off()
    axes.set_xlabel(f"{first.replace('_', ' ')}{' (the other options vary, too)' * scattered}")
    axes.set_ylabel(score.unit or "score")
    axes.grid(alpha=0.3)
    if others and not scattered:
        axes.legend(fontsize="small")
    return best is not None


def is_sweep(directory: Path) -> bool:
    """Whether a folder is a sweep's: finished, or of several members."""
    return (directory / "results.json").is_file() or (directory / "members").is_dir()


def read(directory: Path) -> list[Row]:
    """The rows that a sweep left."""
    path = directory / "results.json"
    if not path.is_file():
        raise FileNotFoundError(f"{directory} holds no finished sweep: expected {path}, which jaxgen sweep writes")
    return json.loads(path.read_text())["settings"]
