"""What jaxgen evaluate found, side by side: a table, and pictures."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.batches import to_float
from jaxgen.evaluation import records
from jaxgen.evaluation.explanations import explain
from jaxgen.evaluation.figures import new_figure, one_line, save_figure, save_picture, stacked
from jaxgen.evaluation.records import Protocol, Record
from jaxgen.evaluation.sample_measures import nearest
from jaxgen.training.files import write_text
from jaxgen.training.monitor import interleaved, titled_grid

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


def short_names(models: Iterable[str]) -> dict[str, str]:
    """What pictures call models, by what records call them: the last part of the path, where these all differ."""
    models = list(dict.fromkeys(models))
    ends = [Path(model).name for model in models]
    return {
        model: one_line(name)
        for model, name in zip(models, ends if len(set(ends)) == len(ends) else models, strict=True)
    }


def draw_measures(path: Path, found: Sequence[Record]) -> None:
    """A panel a protocol: a bar a model with two standard errors, and a line where real images are."""
    rows = rows_of(found)
    names = short_names(record.model for record in found)
    columns = min(COLUMNS, len(rows))
    height = -(-len(rows) // columns)
    figure = new_figure(3.2 * max(2, columns), 2.4 * height + 0.6 + 0.2 * len(names))
    for number, (protocol, row) in enumerate(rows):
        axes = figure.add_subplot(height, columns, number + 1)
        end = f"{protocol.better} is better" if protocol.better != "neither" else "neither end is better"
        title = explain(protocol.metric).title
        own = "" if title == protocol.metric else f"{protocol.metric}, "
        axes.set_title(f"{title}\n({own}{end})", fontsize="small")
        for place, model in enumerate(names):
            record = row.get(model)
            if record is not None and math.isfinite(record.value):
                error = None if record.standard_error is None else 2 * record.standard_error
                axes.bar(place, record.value, yerr=error, capsize=4, color=f"C{place % 10}")
            else:
                said = "none" if record is None else f"{record.value:g}"
                middle = axes.get_xaxis_transform()  # data across, the panel's height up
                axes.text(place, 0.5, said, transform=middle, ha="center", rotation=90, fontsize="x-small")
        calibration = next((r.calibration for r in row.values() if r.calibration is not None), None)
        if calibration is not None and math.isfinite(calibration):
            axes.axhline(calibration, color="black", linestyle="--", linewidth=1)
        axes.set_xticks(range(len(names)), [str(place + 1) for place in range(len(names))], fontsize="x-small")
        axes.set_xlim(-0.8, len(names) - 0.2)
        axes.set_ylabel(protocol.unit, fontsize="x-small")
        axes.tick_params(axis="y", labelsize="x-small")
        axes.grid(axis="y", alpha=0.3)
    _measures_legend(figure, names, found)
    data = sorted({f"{protocol.dataset}, split {protocol.split}" for protocol, _ in rows})
    figure.suptitle(f"Measured on {'; '.join(data)}")
    save_figure(path, figure)


def _measures_legend(figure: Any, names: Mapping[str, str], found: Sequence[Record]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Any] = [
        Patch(color=f"C{place % 10}", label=f"{place + 1}: {name}") for place, name in enumerate(names.values())
    ]
    line: dict[str, Any] = {"color": "black", "linewidth": 1}
    if any(record.calibration is not None for record in found):
        entries.append(Line2D([], [], linestyle="--", label="real images in the model's place", **line))
    if any(record.standard_error is not None for record in found):
        entries.append(Line2D([], [], marker="|", markersize=9, label="two standard errors to either side", **line))
    figure.legend(handles=entries, loc="outside lower left", fontsize="small", ncols=2)


def draw_samples(path: Path, samples: Mapping[str, tuple[np.ndarray, np.ndarray, str]]) -> None:
    """For each run, samples above their nearest neighbours, of (samples, images with these, what those images are)."""
    pictures = []
    for name, (images, known, among) in samples.items():
        pair = [np.asarray(to_float(each)) for each in (images, known[nearest(images, known)[1]])]
        rows = ["sample", "nearest"] * -(-len(images) // PER_ROW)
        title = f"{name}: samples, and below each the nearest of the {among}"
        note = "Nearest by the squared error of the pixels. Where the two are the same, the model copies."
        pictures.append(titled_grid(interleaved(*pair, columns=PER_ROW), PER_ROW, title, note, rows))
    save_picture(path, stacked(pictures, f"Samples and what is nearest to them, of {', '.join(samples)}"))


def draw_latents(path: Path, latents: Mapping[str, Sequence[np.ndarray]], found: Sequence[Record] = ()) -> None:
    """The KL of each latent dimension, the largest first, a panel a run; with the active units that records tell of."""
    columns = min(3, len(latents))
    height = -(-len(latents) // columns)
    figure = new_figure(max(5.6, 4.2 * columns), 2.9 * height + 0.7)
    active = {(r.model, r.protocol.metric): r.value for r in found if r.protocol.metric.startswith("active-units")}
    names = short_names(latents)
    for number, (model, layers) in enumerate(latents.items()):
        axes = figure.add_subplot(height, columns, number + 1)
        for layer, kl in enumerate(layers, 1):
            units = active.get((model, "active-units" if layer == 1 else f"active-units-{layer}"))
            told = "" if units is None else f", {units:g} of {len(kl)} active"
            label = f"layer {layer}: {kl.sum():.1f} nats in all{told}"
            axes.plot(np.arange(1, len(kl) + 1), np.sort(kl)[::-1], marker="o", markersize=3, label=label)
        axes.set_title(names[model], fontsize="medium")
        axes.set_xlabel("latent dimension, the largest KL first", fontsize="small")
        axes.set_ylabel("KL to the prior, nats", fontsize="small")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle("What each latent dimension tells of test images")
    meaning = "Near 0 nats it tells nothing."
    if active:
        meaning += " Active: the mean that the encoder gives it has a variance above 0.01 over the images."
    figure.supxlabel(meaning, fontsize="small")
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
        draw_latents(out / "latents.png", latents, found)
