"""RESULTS.md: what the papers say and what was reached, made of the records and of nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.reproduction.protocol import RECORDS, Config, Published, Record, Row, reached
from jaxgen.training.files import replacing

PATH = RECORDS.with_name("RESULTS.md")
HEAD = """# Published numbers, and what jaxgen reaches

Made by `uv run experiments/reproduce.py --results` from experiments/records: do not edit. Each row is of a variant in a
file of experiments/configs, one file a paper, which says how it is trained and measured; its command, run as often as
it is stopped, gets the row again. A number in brackets was reached before the end of the protocol: its curve is below
the table, and the same command goes on. Time is of training alone, all members of a population together, at the median
speed of the log.
"""
Found = Sequence[tuple[Config, Record | None]]


def published(configs: Mapping[str, Config]) -> list[tuple[Config, Record | None]]:
    """Each reproduction with its record in experiments/records, None where it has none."""
    found = []
    for name, config in configs.items():
        path = RECORDS / f"{name}.json"
        found.append((config, Record.read(path) if path.is_file() else None))
    return found


def rows(record: Record) -> list[Row]:
    """The rows of a record by epoch."""
    return sorted(record.rows, key=lambda row: row.epoch)


def duration(seconds: float) -> str:
    """Seconds in words."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def row_of(record: Record, config: Config, number: Published) -> Row:
    """The row that a published number is held against: of its epoch, or the last one before it."""
    wanted = config.reproduction.last if number.epoch is None else number.epoch
    there = [row for row in rows(record) if row.epoch <= wanted]
    return there[-1] if there else rows(record)[0]


def curve_metric(config: Config, record: Record) -> str:
    """The metric that every row has: the published one, or what is measured on the way to it."""
    metric = config.reproduction.published[0].metric
    names = [name for name in record.rows[0].values if all(name in row.values for row in record.rows)]
    return metric if metric in names or not names else names[0]


def is_whole(config: Config, number: Published, row: Row) -> bool:
    """Whether a row is of the end of what the number is of, and of all members of the population."""
    wanted = config.reproduction.last if number.epoch is None else number.epoch
    return row.epoch == wanted and members(row) == config.reproduction.members


def members(row: Row) -> int:
    """Members of the population that a row is of, diverged ones too."""
    return len(next(iter(row.values.values()), [])) + row.diverged


def after(config: Config, wanted: float, row: Row) -> str:
    """After how much of the training a row is, and of how much of the population."""
    what = config.reproduction
    text = f"{row.epoch:g} of {wanted:g} epochs"
    if what.members == 1:
        return text
    kind = "seeds" if what.search is None else "settings"
    diverged = f", {row.diverged} diverged" if row.diverged else ""
    return f"{text}, {members(row)} of {what.members} {kind}{diverged}"


def verdict(config: Config, number: Published, row: Row) -> str:
    """Whether the number was reached."""
    counts = number.reached_by(config.reproduction.of(row, number.metric)) if number.metric in row.values else None
    if counts:
        return "yes"
    if not is_whole(config, number, row):
        return "on the way"
    return "" if counts is None else "**no**"


def line(config: Config, row: Row) -> str:
    """A row in a line."""
    names = dict.fromkeys([*(number.metric for number in config.reproduction.published), next(iter(row.values))])
    values = ", ".join(f"{name} {reached(config.reproduction, row, name)}" for name in names if name in row.values)
    where = f"epoch {row.epoch:g} of {config.reproduction.last:g}"
    return f"{config.name}, {where}: {values} ({duration(row.seconds)} of training)"


def docstring_line(config: Config, record: Record) -> str:
    """What a config's docstring says of what was reached: its last row."""
    row = rows(record)[-1]
    metric = config.reproduction.published[0].metric
    metric = metric if metric in row.values else curve_metric(config, record)
    value = reached(config.reproduction, row, metric)
    where = after(config, config.reproduction.last, row)
    return f"{metric} {value} after {where}, in {duration(row.seconds)} of training on {row.hardware}"


def listed(found: Found) -> str:
    """Every reproduction in a line."""
    lines = []
    for config, record in found:
        what = config.reproduction
        aim = ", ".join(f"{number.metric} {number.value:g}" for number in what.published)
        lines.append(
            f"{config.name}: {what.title}: published {aim}; "
            + ("no record" if record is None else line(config, rows(record)[-1]))
        )
    return "\n".join(lines)


def render(found: Found) -> str:
    """The text of RESULTS.md."""
    groups: dict[str, list[tuple[Config, Record]]] = {}
    for config, record in found:
        if record is not None:
            groups.setdefault(config.reproduction.group, []).append((config, record))
    return HEAD + "".join(_group(name, members) for name, members in groups.items())


def write(found: Found) -> Path:
    """Write RESULTS.md."""
    with replacing(PATH) as partial:
        partial.write_text(render(found))
    return PATH


def _group(name: str, members: Sequence[tuple[Config, Record]]) -> str:
    papers = list(dict.fromkeys(f"{config.reproduction.paper}: {config.reproduction.where}" for config, _ in members))
    protocols = list(dict.fromkeys(config.reproduction.protocol for config, _ in members))
    parts = [f"\n## {name}\n", *(f"\n{paper}." for paper in papers), "\n", *(f"\n{text}\n" for text in protocols), "\n"]
    parts.append("| | metric | published | reached | reached? | after | time |\n|---|---|---|---|---|---|---|\n")
    for config, record in members:
        for number in config.reproduction.published:
            parts.append(_table_row(config, record, number))
    parts += _curves(members)
    parts.append("\n" + "".join(f"    {record.command}\n" for _, record in members))
    hardware = dict.fromkeys(row.hardware for _, record in members for row in record.rows)
    parts.append(f"\nTrained and measured on: {'; '.join(hardware)}.\n")
    return "".join(parts)


def _table_row(config: Config, record: Record, number: Published) -> str:
    row = row_of(record, config, number)
    metric = number.metric if number.metric in row.values else curve_metric(config, record)
    value = reached(config.reproduction, row, metric)
    value = value if metric == number.metric else f"{metric} {value}"
    whole = is_whole(config, number, row)
    wanted = config.reproduction.last if number.epoch is None else number.epoch
    error = "" if number.standard_error is None else f" +- {number.standard_error:g}"
    within = "" if number.within is None else f" (within {number.within:g})"
    source = "" if number.source is None else f", {number.source}"
    return (
        f"| {config.reproduction.title} | {number.metric} | {number.value:g}{error}{within}{source} "
        f"| {value if whole else f'({value})'} | {verdict(config, number, row)} "
        f"| {after(config, wanted, row)} | {duration(row.seconds)} |\n"
    )


def _curves(members: Sequence[tuple[Config, Record]]) -> list[str]:
    """What each member was measured by on its way, by epoch: a table a metric, where there is more than one epoch."""
    metrics: dict[str, list[tuple[Config, Record]]] = {}
    for config, record in members:
        metrics.setdefault(curve_metric(config, record), []).append((config, record))
    parts = []
    for metric, of_metric in metrics.items():
        epochs = sorted({row.epoch for _, record in of_metric for row in record.rows})
        if len(epochs) < 2:
            continue
        head = "".join(f" {epoch:g} |" for epoch in epochs)
        parts.append(f"\n| {metric} after epoch |{head}\n|{'---|' * (len(epochs) + 1)}\n")
        for config, record in of_metric:
            there = {row.epoch: reached(config.reproduction, row, metric) for row in record.rows}
            cells = "".join(f" {there.get(epoch, '')} |" for epoch in epochs)
            parts.append(f"| {config.reproduction.title} |{cells}\n")
    return parts
