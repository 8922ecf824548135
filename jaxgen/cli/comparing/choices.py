"""What to choose when: statements that follow from the numbers measured, by rules."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jaxgen.cli.comparing.costs import SAMPLES, Cost
from jaxgen.evaluation import records
from jaxgen.evaluation.records import Record
from jaxgen.evaluation.report import number_text

CLOSE = 1.1  # costs within this factor of the least are not told apart: the machine's own noise is about as large
LITTLE_RECALL = 0.25  # of what real images reach

# What a person may want, the metric that says how well it is met, and what the metric is called in a sentence.
WISHES = (
    ("Samples that together look like the data", "FD", "Fréchet distance"),
    ("Few samples out of place", "precision", "precision"),
    ("All the variety of the data", "recall", "recall"),
    ("Images rebuilt from their latents", "rebuilt-MSE", "squared error of rebuilt images"),
    ("Missing parts filled in", "completion-MSE", "squared error of completions"),
    ("A probability for an image", "log-likelihood", "log-likelihood"),
)


class Choice(NamedTuple):
    """A wish, the models that meet it best, and the numbers that say so."""

    wish: str
    models: tuple[str, ...]
    because: str


def is_metric(record: Record, name: str) -> bool:
    """Whether a record is of a metric, whatever extractor is in its name."""
    metric = record.protocol.metric
    return metric == name or metric.startswith(f"{name}-") or (name == "FD" and metric == "FID")


def rows(found: Sequence[Record], name: str) -> list[dict[str, Record]]:
    """Records of a metric by model, those of one protocol together; the largest group first."""
    groups: dict[records.Protocol, dict[str, Record]] = {}
    for record in found:
        if is_metric(record, name):
            groups.setdefault(record.protocol, {})[record.model] = record
    return sorted(groups.values(), key=len, reverse=True)


def fair_row(found: Sequence[Record], name: str) -> dict[str, Record]:
    """The records of a metric that say something of a model, by model; empty where there are none.

    One image over and over may be convincing: precision is not counted without recall.
    """
    row = next(iter(rows(found, name)), {})
    recall = next(iter(rows(found, "recall")), {}) if name == "precision" else {}
    return {model: record for model, record in row.items() if model not in recall or _varied(recall[model])}


def _varied(recall: Record) -> bool:
    return recall.value >= LITTLE_RECALL * (1.0 if recall.calibration is None else recall.calibration)


def plain_number(value: float, error: float | None) -> str:
    """A number as it is printed in a book."""
    text = f"{value:,.0f}" if error is None and 1000 <= abs(value) < 1e9 else number_text(value, error)
    return text.replace("+-", "±").replace("-", "\N{MINUS SIGN}")


def text_of(record: Record) -> str:
    """A number with its error and its unit, where that is a word a person knows."""
    unit = f" {record.protocol.unit}" if record.protocol.unit in ("nats", "dB") else ""
    return plain_number(record.value, record.standard_error) + unit


def ranked(row: Mapping[str, Record]) -> list[Record]:
    """The records of one protocol, the best first."""
    sign = -1.0 if next(iter(row.values())).protocol.better == "higher" else 1.0
    return sorted(row.values(), key=lambda record: sign * record.value)


def _by_metric(wish: str, row: Mapping[str, Record], called: str, others: Sequence[str]) -> Choice:
    best, *rest = ranked(row)
    tied = [record for record in rest if records.compare(best, record).better != "first"]
    behind = [record for record in rest if record not in tied]
    left_out = "too little recall to count for" if called == "precision" else "none for"
    parts = [f"{called} {', '.join(f'{text_of(r)} ({r.model})' for r in (best, *tied))}"]
    if tied:
        parts.append("not told apart by two standard errors")
    if behind:
        parts.append(f"next {text_of(behind[0])} ({behind[0].model})")
    if others:
        parts.append(f"{left_out} {' and '.join(others)}")
    return Choice(wish, (best.model, *(record.model for record in tied)), "; ".join(parts))


def _by_cost(wish: str, costs: Mapping[str, float], text: Callable[[float], str]) -> Choice:
    order = sorted(costs, key=lambda name: costs[name])
    least = costs[order[0]]
    best = tuple(name for name in order if costs[name] <= CLOSE * least)
    rest = order[len(best) :]
    because = ", ".join(f"{text(costs[name])} ({name})" for name in best)
    if rest:
        because += f"; the others take {costs[rest[0]] / least:.1f}"
        because += f" to {costs[rest[-1]] / least:.1f} times as much" if len(rest) > 1 else " times as much"
    return Choice(wish, best, because)


def seconds_text(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def bytes_text(size: float) -> str:
    """A size of memory as a person says it."""
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


def choices(
    found: Sequence[Record], costs: Mapping[str, Cost], encoders: Sequence[str], searching: Mapping[str, float]
) -> list[Choice]:
    """What to choose when.

    Args:
      found: records of all models.
      costs: of each model by name.
      encoders: names of the models with an encoder.
      searching: seconds to find the latents of an image, of each model without an encoder.

    Returns:
      A choice for every wish that the numbers speak of.
    """
    made = []
    for wish, metric, called in WISHES:
        row = fair_row(found, metric)
        if row and len(costs) > 1:
            made.append(_by_metric(wish, row, called, [name for name in costs if name not in row]))
    if encoders and searching:
        slowest = max(searching.values())
        because = (
            f"they have an encoder, one pass of a network; for {' and '.join(searching)} latents are found by a search "
            f"of up to {seconds_text(slowest)} an image"
        )
        made.append(Choice("The latents of your own images", tuple(encoders), because))
    times = {name: cost.training_seconds for name, cost in costs.items()}
    known = {name: seconds for name, seconds in times.items() if seconds is not None}
    if len(known) > 1:
        made.append(_by_cost("A model soon", known, lambda s: f"{seconds_text(s)} of training"))
    sampled = {name: cost.sampling_seconds for name, cost in costs.items()}
    sampling = {name: seconds for name, seconds in sampled.items() if seconds is not None}
    if len(known) > 1 and len(sampling) > 1:
        made.append(_by_cost("Many samples quickly", sampling, lambda s: f"{SAMPLES:,} in {seconds_text(s)}"))
    sizes = {name: cost.step_bytes for name, cost in costs.items()}
    sized = {name: float(size) for name, size in sizes.items() if size is not None}
    if len(sized) > 1:
        made.append(_by_cost("Little memory", sized, lambda size: f"{bytes_text(size)} for a step"))
    return made


def families(found: Sequence[Record], is_gan: Mapping[str, bool]) -> list[str]:
    """GAN or VAE: the best of one family against the best of the other, a sentence a metric; others are left out."""
    said = []
    for _, metric, called in WISHES:
        row = fair_row(found, metric)
        sides = [{n: r for n, r in row.items() if is_gan.get(n) == side} for side in (True, False)]
        if not all(sides):
            continue
        gan, vae = (ranked(side)[0] for side in sides)
        better = records.compare(gan, vae).better
        numbers = f"{gan.model} {text_of(gan)}, {vae.model} {text_of(vae)}"
        verdict = {
            "first": "the GANs are ahead",
            "second": "the VAEs are ahead",
            "undecided": "the two families are not told apart",
        }[better]
        said.append(f"By {called} {verdict} ({numbers}).")
    return said


def cautions(found: Sequence[Record]) -> list[str]:
    """What the numbers warn of, a sentence each."""
    said = []
    for row in rows(found, "nearest-MSE")[:1]:
        for name, record in row.items():
            real, error = record.calibration, record.standard_error
            if real is not None and error is not None and record.value < real - 2.0 * error:
                said.append(
                    f"{name}: its samples are nearer to the training images ({text_of(record)}) than other real images "
                    f"are ({real:.3g}). Copies do that, and so does blur: look at their neighbours."
                )
    for row in rows(found, "recall")[:1]:
        for name, record in row.items():
            if not _varied(record):
                said.append(f"{name}: its samples show little of the variety of the data (recall {text_of(record)}).")
    return said
