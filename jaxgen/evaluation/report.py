"""What jaxgen evaluate found, side by side: a table, and pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxgen.batches import to_float
from jaxgen.evaluation import records
from jaxgen.evaluation.figures import new_figure, save_figure
from jaxgen.evaluation.records import Protocol, Record
from jaxgen.evaluation.sample_measures import nearest
from jaxgen.training.files import write_text
from jaxgen.training.monitor import image_grid, interleaved

COLUMNS = 4  # panels in a row
SHOWN = 32  # samples of each run
PER_ROW = 16


def rows_of(found: Sequence[Record]) -> list[tuple[Protocol, dict[str, Record]]]:
    """The records of each protocol by model, in the order in which they were made."""
    rows: dict[Protocol, dict[str, Record]] = {}
    for record in found:
        rows.setdefault(record.protocol, {})[record.model] = record
    order = {metric: place for place, metric in enumerate(dict.fromkeys(r.protocol.metric for r in found))}
    return sorted(rows.items(), key=lambda row: order[row[0].metric])


def best_of(row: Mapping[str, Record]) -> str | None:
    """The model that is better than every other one by more than two standard errors; None where none is."""
    for name, record in row.items():
        others = [other for other in row.values() if other is not record]
        if others and all(records.compare(record, other).better == "first" for other in others):
            return name
    return None


def number_text(value: float, error: float | None) -> str:
    """A number with as many digits as its error leaves it."""
    if not math.isfinite(value) or error is None or error == 0 or not math.isfinite(error):
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def table(found: Sequence[Record]) -> str:
    """Every protocol a line, every model a column, and what real images reach; then what is to be known of them."""
    models = list(dict.fromkeys(record.model for record in found))
    warnings: list[str] = []
    lines = [["", "unit", "better", *models, "real"]]
    for protocol, row in rows_of(found):
        best, cells = best_of(row), []
        for model in models:
            record = row.get(model)
            if record is None:
                cells.append("")
                continue
            notes = []
            for warning in record.warnings:
                text = f"{protocol.metric} of {model}: {warning}"
                warnings += [] if text in warnings else [text]
                notes.append(f"[{warnings.index(text) + 1}]")
            star = "*" if best == model else ""
            cells.append(f"{number_text(record.value, record.standard_error)}{star}{''.join(notes)}")
        calibrations = {record.calibration for record in row.values()} - {None}
        real = f"{calibrations.pop():.4g}" if len(calibrations) == 1 else ""
        lines.append([protocol.metric, protocol.unit, protocol.better, *cells, real])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    padded.insert(1, "  ".join("-" * width for width in widths))
    notes = ["* better than every other by more than two standard errors; real: real images in the model's place"]
    data = {(p.dataset, p.split, p.binarization) for p, _ in rows_of(found)}
    notes += [f"data: {name}, split {split}, binarization {binary}" for name, split, binary in sorted(data)]
    notes += [f"[{number}] {warning}" for number, warning in enumerate(warnings, 1)]
    return "\n".join([*padded, "", *notes]) + "\n"


def draw_measures(path: Path, found: Sequence[Record]) -> None:
    """A panel a protocol: a bar a model with two standard errors, and a line where real images are."""
    rows = [(p, {m: r for m, r in row.items() if math.isfinite(r.value)}) for p, row in rows_of(found)]
    rows = [(protocol, row) for protocol, row in rows if row]
    height = max(1, -(-len(rows) // COLUMNS))
    figure = new_figure(3.2 * COLUMNS, 2.3 * height)
    models = list(dict.fromkeys(record.model for record in found))
    for number, (protocol, row) in enumerate(rows):
        axes = figure.add_subplot(height, COLUMNS, number + 1)
        arrow = {"lower": " (lower is better)", "higher": " (higher is better)", "neither": ""}[protocol.better]
        axes.set_title(f"{protocol.metric}{arrow}", fontsize="small")
        for place, model in enumerate(models):
            if model in row:
                error = row[model].standard_error
                axes.bar(
                    place,
                    row[model].value,
                    yerr=None if error is None else 2 * error,
                    capsize=4,
                    color=f"C{place % 10}",
                )
        calibration = next((r.calibration for r in row.values() if r.calibration is not None), None)
        if calibration is not None and math.isfinite(calibration):
            axes.axhline(calibration, color="black", linestyle="--", linewidth=1)
        axes.set_xticks(range(len(models)), [Path(m).name for m in models], rotation=20, fontsize="x-small")
        axes.tick_params(axis="y", labelsize="x-small")
        axes.grid(axis="y", alpha=0.3)
    save_figure(path, figure)


def draw_samples(path: Path, samples: Mapping[str, tuple[np.ndarray, np.ndarray, str]]) -> None:
    """For each run, samples above their nearest neighbours, of (samples, images with these, what those images are)."""
    figure = new_figure(9.0, 0.4 + 2.4 * len(samples))
    for number, (name, (images, known, among)) in enumerate(samples.items()):
        pair = [np.asarray(to_float(each)) for each in (images, known[nearest(images, known)[1]])]
        axes = figure.add_subplot(len(samples), 1, number + 1)
        axes.imshow(image_grid(interleaved(*pair, columns=PER_ROW), PER_ROW))
        axes.set_title(f"{name}: samples, and below each the nearest of the {among}", fontsize="small")
        axes.axis("off")
    save_figure(path, figure)


def draw_latents(path: Path, latents: Mapping[str, Sequence[np.ndarray]]) -> None:
    """The KL of each latent dimension, the largest first, a panel a run."""
    figure = new_figure(4.2 * min(3, len(latents)), 2.8 * -(-len(latents) // 3))
    for number, (name, layers) in enumerate(latents.items()):
        axes = figure.add_subplot(-(-len(latents) // 3), min(3, len(latents)), number + 1)
        for layer, kl in enumerate(layers, 1):
            label = f"layer {layer}: {kl.sum():.1f} nats"
            axes.plot(np.arange(1, len(kl) + 1), np.sort(kl)[::-1], marker="o", markersize=3, label=label)
        axes.set_title(f"{name}: KL of each latent", fontsize="small")
        axes.set_ylabel("nats")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save_figure(path, figure)


def write(
    out: Path,
    found: Sequence[Record],
    samples: Mapping[str, tuple[np.ndarray, np.ndarray, str]],
    latents: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """Write the table and the pictures of what was found."""
    samples = {name: pair for name, pair in samples.items() if pair[0].ndim == 4}
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "table.txt", table(found))
    draw_measures(out / "measures.png", found)
    if samples:
        draw_samples(out / "samples.png", samples)
    if latents:
        draw_latents(out / "latents.png", latents)
