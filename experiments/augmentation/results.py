"""What came out: means over the seeds, paired gains, and the table and the picture of them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.augmentation.cell import Method, Options, Record, methods
from jaxgen import metrics
from jaxgen.evaluation.figures import new_figure, save_figure


def find(runs: Sequence[Record], labels: int, seed: int, method: Method) -> Record | None:
    """The record of one classifier."""
    wanted = (labels, seed, dataclasses.asdict(method))
    return next((run for run in runs if (run["labels"], run["seed"], run["method"]) == wanted), None)


def seeds(options: Options) -> range:
    """The seeds."""
    return range(options.first_seed, options.first_seed + options.seeds)


def accuracies(options: Options, runs: Sequence[Record], labels: int, method: Method) -> np.ndarray:
    """Accuracy of each seed, [seeds]."""
    found = [find(runs, labels, seed, method) for seed in seeds(options)]
    return np.array([run["accuracy"] for run in found if run is not None])


def summarize(options: Options, runs: Sequence[Record]) -> list[Record]:
    """Means over the seeds and their standard errors, of every method and number of labels.

    Args:
      options: say which, all of whose runs are there.
      runs: records of `train_and_measure`.

    Returns:
      ``labels``, ``method`` (its name), ``accuracy`` (value and standard error), ``gains`` (the same by the name of
      what they are over, of the differences of each seed), and ``share_kept`` (None without generated images).
    """
    rows = []
    for method in methods(options):
        for labels in options.labels:
            accuracy = accuracies(options, runs, labels, method)
            gains = {base.name: accuracy - accuracies(options, runs, labels, base) for base in method.bases}
            kept = [found["share_kept"] for seed in seeds(options)
                    if (found := find(runs, labels, seed, method)) is not None and "share_kept" in found]  # fmt: skip
            rows.append(
                {
                    "labels": labels,
                    "method": method.name,
                    "accuracy": metrics.from_repetitions(accuracy.tolist())._asdict(),
                    "gains": {name: metrics.from_repetitions(gain.tolist())._asdict() for name, gain in gains.items()},
                    "share_kept": float(np.mean(kept)) if kept else None,
                }
            )
    return rows


def table(options: Options, summary: Sequence[Record]) -> str:
    """Accuracy, paired gains and the share of generated images that was kept, as Markdown."""
    names = list(dict.fromkeys(row["method"] for row in summary))

    def points(estimate: Record, sign: str = "") -> str:
        value = round(100 * estimate["value"], 2) + 0.0  # no -0.00
        return f"{value:{sign}.2f} +- {100 * estimate['standard_error']:.2f}"

    def lines(title: str, cells: dict[str, list[str]]) -> str:
        head = f"| {title} | " + " | ".join(f"{labels} labels a class" for labels in options.labels) + " |"
        rows = [f"| {name} | " + " | ".join(row) + " |" for name, row in cells.items()]
        return "\n".join([head, "|---|" + "---|" * len(options.labels), *rows])

    accuracy: dict[str, list[str]] = {}
    gain: dict[str, list[str]] = {}
    kept: dict[str, list[str]] = {}
    for name in names:
        rows = [row for row in summary if row["method"] == name]
        accuracy[name] = [points(row["accuracy"]) for row in rows]
        for base in rows[0]["gains"]:
            gain[f"{name}, over {base}"] = [points(row["gains"][base], "+") for row in rows]
        if rows[0]["share_kept"] is not None:
            kept[name] = [f"{row['share_kept']:.0%}" for row in rows]
    where = "test" if options.measure_on == "test" else "other training images'"
    parts = (
        f"Mean +- standard error over {options.seeds} seeds, {options.title}.",
        lines(f"{where} accuracy, %", accuracy),
        lines("paired gain, points", gain),
        lines("share of generated images kept", kept),
    )
    return "\n\n".join(parts) + "\n"


def draw(options: Options, summary: Sequence[Record], path: Path) -> None:
    """Two panels against the number of labels: accuracy, and paired gains."""
    figure = new_figure(11.0, 4.4)
    names = list(dict.fromkeys(row["method"] for row in summary))
    left, right = figure.subplots(1, 2)
    curves = {name: [row for row in summary if row["method"] == name] for name in names}
    for number, (name, rows) in enumerate(curves.items()):
        # Moved apart a little, so that error bars can be told from each other.
        x = [row["labels"] * 1.03 ** (number - len(names) / 2) for row in rows]
        _error_bars(left, x, [row["accuracy"] for row in rows], f"C{number}", name)
        # Over the ordinary augmentation where it is in both: over none that would hide what is generated.
        for base in list(rows[0]["gains"])[-1:]:
            _error_bars(right, x, [row["gains"][base] for row in rows], f"C{number}", f"{name}, over {base}")
    left.set_title("Accuracy of a classifier (higher is better)", fontsize="medium")
    right.set_title("What generated images add (above 0: they help)", fontsize="medium")
    left.set_ylabel(f"accuracy on {'test images' if options.measure_on == 'test' else 'other training images'}, %")
    right.set_ylabel("paired gain in accuracy, percentage points")
    right.axhline(0.0, color="black", linewidth=0.8)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(options.labels, [str(labels) for labels in options.labels])
        axes.minorticks_off()
        axes.set_xlabel("labelled images of each class (logarithmic)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(
        f"Generated images as augmentation, {options.title}: mean and standard error of {options.seeds} seeds"
    )
    if any(method.family for method in methods(options)):
        meaning = (
            "In brackets: share of generated images, and p, the least probability of its class by which one is kept"
        )
        figure.supxlabel(meaning, fontsize="small")
    save_figure(path, figure)


def _error_bars(axes: Any, x: Sequence[float], estimates: Sequence[Record], color: str, label: str) -> None:
    value, error = ([100 * estimate[kind] for estimate in estimates] for kind in ("value", "standard_error"))
    axes.errorbar(x, value, error, fmt="o-", capsize=3, markersize=4, color=color, label=label)
