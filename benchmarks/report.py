"""Numbers of a run as plain data: statistics, tables, and the comparison with an earlier run."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxgen.cli.options import UsageError

SLOWER = 1.10  # by how much a candidate may be slower than in an earlier run


def stored(path: Path, empty: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a file; ``empty``, which has their format, where there is none.

    Raises:
      UsageError: they are of another format.
    """
    if not path.is_file():
        return empty
    remedy = "put it back as it was, or remove it"
    try:
        numbers = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}: {remedy}") from error
    if not isinstance(numbers, dict) or numbers.get("format") != empty["format"]:
        raise UsageError(f"{path} has no numbers of format {empty['format']}: {remedy}")
    return numbers


class Spread(NamedTuple):
    """Lower quartile, median and upper quartile."""

    low: float
    median: float
    high: float


def spread(values: list[float]) -> Spread:
    """Of one value or more."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def ratio(above: Mapping[str, Any], below: Mapping[str, Any]) -> Spread:
    """Spread of the ratios, taken within each round, of two candidates' times."""
    return spread([a / b for a, b in zip(above["seconds"], below["seconds"], strict=False)])


def fastest(candidates: Mapping[str, Any], prefix: str) -> str | None:
    """The candidate of the lowest median among those whose name begins so; None when there is none."""
    names = [name for name in candidates if name.startswith(prefix)]
    return min(names, key=lambda name: statistics.median(candidates[name]["seconds"]), default=None)


def _number(value: float | None, scale: float = 1.0, form: str = ".0f") -> str:
    return "-" if value is None else format(value / scale, form)


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}"


def family_table(family: Mapping[str, Any]) -> list[str]:
    """Lines of a family's table; ``of floor`` and ``of peak`` are 1 for a candidate that is as fast as possible."""
    candidates = family["candidates"]
    floor = candidates.get("floor")
    lines = [family["title"]]
    if floor is not None:
        about, last = floor["about"], floor["extra"]
        lines.append(
            f"  a step: {about['operations'] / 1e6:,.0f} million operations in products, {about['parameters']:,} "
            f"parameters; in the last round {1e-9 * about['operations'] / last['products_seconds_a_step']:,.0f} "
            f"GFLOP/s and {1e-9 * last['bytes_a_second']:.1f} GB/s"
        )
        for name, found in candidates.items():
            if found["about"].get("parameters", about["parameters"]) != about["parameters"]:
                lines.append(f"  NOT the same model: {name} has {found['about']['parameters']:,} parameters")
    header = ("ms a step", "quartiles", "images/s", "compile s", "host MB", "device MB", "of floor", "of peak")
    widths = (10, 18, 10, 10, 9, 10, 9, 8)
    lines.append(f"  {'':28}" + "".join(f"{h:>{w}}" for h, w in zip(header, widths, strict=True)) + "  precision")
    for name, found in candidates.items():
        times = spread(found["seconds"])
        share = None if floor is None else ratio(floor, found).median
        cells = (
            _milliseconds(times.median),
            f"{_milliseconds(times.low)} .. {_milliseconds(times.high)}",
            f"{found['images_a_second']:,.0f}",
            _number(found["compile_seconds"], form=".1f"),
            _number(found["host_bytes"], 1e6),
            _number(found["device_bytes"], 1e6),
            "-" if share is None else f"{share:.2f}",
            _number(found["peak_share"], form=".4f"),
        )
        row = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(f"  {name:28}{row}  {found['about'].get('precision', '-')}")
    return lines


def curve_table(curve: Mapping[str, Any]) -> list[str]:
    """Lines of a growth curve's table."""
    lines = [
        curve["title"],
        f"  {'':28}{'ms a step':>10}{'quartiles':>18}{'images/s':>10}{'host MB':>9}{'device MB':>10}",
    ]
    for point in curve["points"]:
        times = spread(point["seconds"])
        quartiles = f"{_milliseconds(times.low)} .. {_milliseconds(times.high)}"
        lines.append(
            f"  {point['series'] + ' ' + str(point['x']):28}{_milliseconds(times.median):>10}{quartiles:>18}"
            f"{point['images_a_second']:>10,.0f}{_number(point['host_bytes'], 1e6):>9}"
            f"{_number(point['device_bytes'], 1e6):>10}"
        )
    return lines


def compare(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Lines on each candidate that two runs have in common: the ratio of its medians, and whether it is slower.

    Slower is: by more than a tenth, and outside the spread, its lower quartile above the other's upper one.
    """
    lines = []
    if now["chip"] != before["chip"]:
        lines.append(f"the baseline is of another machine: {before['chip']}")
    for name, family in now["families"].items():
        others = before["families"].get(name, {}).get("candidates", {})
        for candidate, found in family["candidates"].items():
            if candidate in others:
                new, old = spread(found["seconds"]), spread(others[candidate]["seconds"])
                change = new.median / old.median
                verdict = "  SLOWER" if change > SLOWER and new.low > old.high else ""
                lines.append(f"  {name:10}{candidate:28}{change:8.3f} of the baseline's time{verdict}")
    return lines
