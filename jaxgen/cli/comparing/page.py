"""A comparison as one HTML file: pictures inside, no scripts, nothing loaded from anywhere, bright or dark, any
width."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from jaxgen.cli.comparing.charts import Chart, Dot, Dots, dot_chart, line_chart
from jaxgen.cli.comparing.choices import Choice, bytes_text, plain_number, rows, seconds_text
from jaxgen.cli.comparing.costs import SAMPLES, Cost
from jaxgen.cli.comparing.pictures import KINDS, Picture
from jaxgen.evaluation.explanations import explain
from jaxgen.evaluation.figures import png
from jaxgen.evaluation.records import Protocol, Record
from jaxgen.evaluation.report import best_of, rows_of

COLORS = 8  # models that a page tells apart
REAL = "real images"  # what is beside the models
AT_A_GLANCE = ("FD", "precision", "recall", "completion-MSE", "rebuilt-MSE", "log-likelihood")

STYLE = Path(__file__).with_suffix(".css")


class Model(NamedTuple):
    """A model as the page presents it."""

    name: str
    summary: str
    facts: tuple[tuple[str, str], ...]


class Report(NamedTuple):
    """All that a page shows; every text is plain and is escaped here."""

    title: str
    lead: str
    models: tuple[Model, ...]
    families: tuple[str, ...]
    choices: tuple[Choice, ...]
    cautions: tuple[str, ...]
    pictures: tuple[Picture, ...]
    completion_note: str
    curves: tuple[Chart, ...]
    records: tuple[Record, ...]
    costs: Mapping[str, Cost]
    notes: tuple[str, ...]  # on how it was made


# Of each kind of picture: the title says what is seen.
SECTIONS = {
    "samples": (
        "What each model draws",
        "Drawn at random, not chosen. Look for variety as much as for beauty: a model may draw a few things well.",
    ),
    "neighbours": (
        "Is it drawing, or remembering?",
        "Samples, and under each the most similar training image. Where the two are the same, it copies.",
    ),
    "reconstructions": (
        "Test images, and what is left of them",
        "Images that no model was trained on, each above its reconstruction: what latents can hold of an image.",
    ),
    "completions": (
        "The lower half guessed from the upper",
        "Only the upper half of a test image is shown. Each guess is another draw from what the model believes about "
        "the rest, found by annealed Markov chains through its latents; where the guesses differ, it is not sure.",
    ),
    "interpolations": (
        "From one image to another",
        "Between two test images, outermost, along an arc through the latents. Where every step is an image as well, "
        "the latents are in order.",
    ),
}


def _chip(name: str, colors: Mapping[str, int]) -> str:
    return f'<span class="model" style="--color: var(--m{colors[name]})">{escape(name)}</span>'


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(picture.pixels, picture.alt)).decode()}"


def _picture(picture: Picture, colors: Mapping[str, int]) -> str:
    heads = ""
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    if picture.heads:
        cells = "".join(f"<span>{escape(head)}</span>" for head in picture.heads)
        columns = f"grid-template-columns: repeat({len(picture.heads)}, minmax(0, 1fr))"
        heads = f'<div class="heads" aria-hidden="true" style="{columns}">{cells}</div>'
    return f'<figure class="card"><h3>{_chip(picture.model, colors)}</h3>{heads}{_image(picture)}{caption}</figure>'


def _glance(report: Report, colors: Mapping[str, int]) -> str:
    """A line of images a model, and one of real images above them."""
    lines = []
    for picture in report.pictures:
        if picture.kind == "glance":
            name = _chip(picture.model, colors) if picture.model in colors else escape(picture.model)
            lines.append(f'<div class="line"><span class="small">{name}</span>{_image(picture)}</div>')
    return f'<div class="glance">{"".join(lines)}</div>' if lines else ""


def _image(picture: Picture) -> str:
    height, width = picture.pixels.shape[:2]
    return (
        f'<img class="picture" width="{width}" height="{height}" alt="{escape(picture.alt, quote=True)}" '
        f'src="{_data_uri(picture)}">'
    )


def _section(anchor: str, title: str, lead: str, *parts: str) -> str:
    paragraph = f"<p>{escape(lead)}</p>" if lead else ""
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{paragraph}{"".join(parts)}</section>'


def _table(name: str, explained: str, heads: str, lines: Sequence[str]) -> str:
    """A table that scrolls in its box where the screen is narrower, under a line on how to read it."""
    anchor = f"{name.lower().replace(' ', '-')}-explained"
    return (
        f'<p class="small soft" id="{anchor}">{escape(explained)}</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f'<table aria-describedby="{anchor}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cards(cards: Sequence[str]) -> str:
    return f'<div class="cards">{"".join(cards)}</div>'


def _choices(report: Report, colors: Mapping[str, int]) -> str:
    said = "".join(f"<li>{escape(text)}</li>" for text in report.families)
    families = f'<h3>GAN or VAE?</h3><ul class="plain">{said}</ul>' if said else ""
    cards = [
        f'<div class="card"><h3 class="wish">{escape(choice.wish)}</h3>'
        f'<p class="chosen">{", ".join(_chip(name, colors) for name in choice.models)}</p>'
        f'<p class="because">{escape(choice.because)}.</p></div>'
        for choice in report.choices
    ]
    cautions = "".join(f"<li>{escape(text)}</li>" for text in report.cautions)
    if not (report.families or report.choices):  # of one model there is nothing to choose
        return _section("care", "With care", "", f'<ul class="plain">{cautions}</ul>') if cautions else ""
    warned = f'<h3 style="margin-top: 1.4rem">With care</h3><ul class="plain">{cautions}</ul>' if cautions else ""
    lead = (
        "Each answer follows from the numbers further down by a rule: the best one, and all that are within two "
        "standard errors of it (costs: within a tenth). It holds for this data set, this budget and one training run "
        "each: the errors are those of measuring, not of training again."
    )
    return _section("choose", "What to choose when", lead, families, _cards(cards), warned)


def _models(report: Report, colors: Mapping[str, int]) -> str:
    cards = []
    for model in report.models:
        facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in model.facts)
        cards.append(
            f'<div class="card"><h3>{_chip(model.name, colors)}</h3><p class="small">{escape(model.summary)}</p>'
            f'<dl class="facts-list">{facts}</dl></div>'
        )
    sizes = [cost.decoder_parameters for cost in report.costs.values()]
    lead = (
        f"What turns latents into images, the decoder, has {min(sizes):,} to {max(sizes):,} parameters in all of them."
        if len(set(sizes)) > 1
        else f"What turns latents into images, the decoder, has {sizes[0]:,} parameters."
    )
    return _section("models", "The models", lead, _cards(cards))


def _pictures(report: Report, colors: Mapping[str, int]) -> list[str]:
    sections = []
    for kind in KINDS:
        shown = [_picture(picture, colors) for picture in report.pictures if picture.kind == kind]
        if shown:
            title, lead = SECTIONS[kind]
            note = (
                f"<p>{escape(report.completion_note)}</p>" if kind == "completions" and report.completion_note else ""
            )
            sections.append(_section(kind, title, lead, note, _cards(shown)))
    return sections


def _curves(report: Report) -> str:
    cards = []
    for chart in report.curves:
        named = {line.name: line.color for line in chart.lines if not line.dashed}
        legend = "".join(
            f'<li><span class="model" style="--color: var(--m{color})">{escape(name)}</span></li>'
            for name, color in named.items()
        )
        cards.append(
            f'<figure class="card"><h3>{escape(chart.title)}</h3><ul class="legend">{legend}</ul>{line_chart(chart)}'
            f"<figcaption>{escape(chart.caption)}</figcaption></figure>"
        )
    lead = "Measured again and again while they learnt; time is that of the machine, compilation included."
    return _section("curves", "How they learnt", lead, _cards(cards)) if cards else ""


def _dots(report: Report, colors: Mapping[str, int]) -> str:
    cards = []
    for metric in AT_A_GLANCE:
        for row in rows(report.records, metric)[:1]:
            protocol = next(iter(row.values())).protocol
            words = explain(protocol.metric)
            better = {"lower": "Lower is better. ", "higher": "Higher is better. ", "neither": ""}[protocol.better]
            real = next((r.calibration for r in row.values() if r.calibration is not None), None)
            bars = " Bars: two standard errors." * any(record.standard_error for record in row.values())
            dashes = "" if real is None else " Dashes: real images in the model's place."
            dots = tuple(Dot(name, colors[name], r.value, r.standard_error) for name, r in row.items())
            chart = Dots(words.title, f"{better}{words.sentence} In {protocol.unit}.{bars}{dashes}", dots, real)
            cards.append(
                f'<figure class="card"><h3>{escape(chart.title)}</h3>{dot_chart(chart)}'
                f"<figcaption>{escape(chart.caption)}</figcaption></figure>"
            )
    return _cards(cards)


def _protocol(protocol: Protocol, row: Mapping[str, Record]) -> str:
    entries = {
        "metric": f"{protocol.metric}, version {protocol.version}, in {protocol.unit}",
        "better": protocol.better,
        "data": f"{protocol.dataset}, split {protocol.split}, binarization {protocol.binarization}",
        "images": f"{protocol.num_real} real, {protocol.num_generated} generated",
        "data hash": protocol.data_sha256[:16],
        "extractor": None if protocol.extractor_sha256 is None else protocol.extractor_sha256[:16],
        "resizing": protocol.resizing,
        **{name.replace("_", " "): str(value) for name, value in protocol.parameters},
        "seed": ", ".join(sorted({str(record.seed) for record in row.values()})),
    }
    warnings = [f"{name}: {warning}" for name, record in row.items() for warning in record.warnings]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries.items() if value)
    noted = "".join(f"<dt>beware</dt><dd>{escape(text)}</dd>" for text in warnings)
    said = f'<p class="inside">{escape(explain(protocol.metric).sentence)}</p>'
    return f"<details><summary>protocol</summary>{said}<dl>{items}{noted}</dl></details>"


def _metrics(report: Report, colors: Mapping[str, int]) -> str:
    lines = []
    for protocol, row in rows_of(report.records):
        words, best, cells = explain(protocol.metric), best_of(row), []
        for model in report.models:
            record = row.get(model.name)
            if record is None:
                cells.append('<td class="none">&ndash;</td>')
                continue
            kind = ' class="best"' if best == model.name else ""
            star = '<span class="soft" title="see protocol">*</span>' if record.warnings else ""
            value, _, error = plain_number(record.value, record.standard_error).partition(" ± ")
            within = f'<span class="within">± {error}</span>' if error else ""
            cells.append(f"<td{kind}>{value}{star}{within}</td>")
        calibrations = {record.calibration for record in row.values() if record.calibration is not None}
        real = plain_number(calibrations.pop(), None) if len(calibrations) == 1 else "&ndash;"
        arrow = {"lower": "&nbsp;↓", "higher": "&nbsp;↑", "neither": ""}[protocol.better]
        spoken = {"lower": "lower is better", "higher": "higher is better", "neither": "neither end is better"}
        layer = f" {protocol.metric.rpartition('-')[2]}" if protocol.metric.startswith("active-units-") else ""
        lines.append(
            f'<tr><th scope="row">{escape(words.title + layer)}<span title="{spoken[protocol.better]}">{arrow}</span>'
            f'<span class="sentence">{escape(words.sentence)}</span>{_protocol(protocol, row)}</th>'
            f'{"".join(cells)}<td class="soft">{real}</td></tr>'
        )
    heads = "".join(f'<th scope="col">{_chip(model.name, colors)}</th>' for model in report.models)
    caption = (
        "↓ lower is better, ↑ higher is better; ± one standard error; real: real images in the model's place; best: "
        "better than every other by more than two standard errors; *: the protocol has a warning."
    )
    table = _table("All metrics", caption, f'<th scope="col">Metric</th>{heads}<th scope="col">real</th>', lines)
    lead = "What is said above in numbers. Each was made in the same way for all models; its protocol says how."
    return _section("metrics", "All the numbers", lead, _dots(report, colors), table)


def _costs(report: Report, colors: Mapping[str, int]) -> str:
    heads = ("decoder", "all parameters", "steps", "training", "memory of a step", f"{SAMPLES:,} samples")
    lines = []
    for model in report.models:
        cost = report.costs[model.name]
        cells = (
            f"{cost.decoder_parameters:,}",
            f"{cost.parameters:,}",
            f"{cost.steps:,} of {cost.batch_size}",
            "not known" if cost.training_seconds is None else seconds_text(cost.training_seconds),
            "not known" if cost.step_bytes is None else bytes_text(cost.step_bytes),
            "no prior" if cost.sampling_seconds is None else seconds_text(cost.sampling_seconds),
        )
        numbers = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{_chip(model.name, colors)}</th>{numbers}</tr>')
    caption = (
        "Steps of so many images each. Training: wall-clock time of all steps, with compilation and evaluations. "
        "Memory: what the compiler plans for one step: parameters, optimizer, batch, activations. "
        "Samples: median of five draws, once compiled."
    )
    columns = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    table = _table("Costs", caption, f'<th scope="col">Model</th>{columns}', lines)
    return _section("costs", "What they cost", "", table)


def page(report: Report) -> str:
    """The whole page.

    Args:
      report: what it shows, at most `COLORS` models.

    Returns:
      HTML that needs no other file.

    Raises:
      ValueError: there are no models, or more than `COLORS`.
    """
    if not 1 <= len(report.models) <= COLORS:
        raise ValueError(f"a page shows 1 to {COLORS} models, got {len(report.models)}")
    colors = {model.name: number for number, model in enumerate(report.models)}
    classes = "".join(f".m{number} {{ --color: var(--m{number}); }}\n" for number in range(COLORS))
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    sections = [
        _choices(report, colors),
        _models(report, colors),
        *_pictures(report, colors),
        _curves(report),
        _metrics(report, colors),
        _costs(report, colors),
    ]
    links = [
        *([("choose", "What to choose")] if report.families or report.choices else []),
        *([("care", "With care")] if report.cautions and not (report.families or report.choices) else []),
        ("models", "Models"),
        *((kind, kind.capitalize()) for kind in KINDS if any(p.kind == kind for p in report.pictures)),
        *([("curves", "Training")] if report.curves else []),
        ("metrics", "Numbers"),
        ("costs", "Costs"),
    ]
    contents = "".join(f'<li><a href="#{anchor}">{escape(text)}</a></li>' for anchor, text in links)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(report.title)}</title>\n<style>{STYLE.read_text(encoding='utf-8')}{classes}</style>\n</head>\n<body>\n"
        f'<header><h1>{escape(report.title)}</h1><p class="facts">{escape(report.lead)}</p>\n{_glance(report, colors)}'
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav></header>\n<main>\n'
        + "\n".join(sections)
        + f'\n</main>\n<footer><h2>How this was made</h2><ul class="plain">{notes}</ul></footer>\n</body>\n</html>\n'
    )
