"""Charts as SVG inside a page: they take the page's colours and its letters, on a bright or a dark screen."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 360.0, 220.0  # of a chart; its letters are as large as the page's on a phone
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 12.0, 34.0
ABOVE = 8.0  # more of it where the name of the vertical axis stands
ROW, NAMES = 24.0, 118.0  # of a dot chart: height of a row, and width of the names
LETTERS = 18  # of a name that fit there


class Line(NamedTuple):
    """A curve."""

    name: str
    color: int  # number of the model
    xs: Sequence[float]
    ys: Sequence[float]
    dashed: bool = False


class Chart(NamedTuple):
    """Curves in one frame."""

    title: str
    caption: str
    x: str
    y: str
    lines: tuple[Line, ...]
    logarithmic: bool = False


class Dot(NamedTuple):
    """A number of a model, with two standard errors."""

    name: str
    color: int
    value: float
    error: float | None


class Dots(NamedTuple):
    """A number of several models, and where real images are."""

    title: str
    caption: str
    dots: tuple[Dot, ...]
    real: float | None


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two others."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two numbers; powers of ten alone where these are too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    return found if len(found) <= 7 else [value for value in found if math.log10(value) == round(math.log10(value))]


def _label(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:g}"


class _Axis(NamedTuple):
    low: float
    high: float
    start: float  # of the picture, where low is
    end: float
    logarithmic: bool

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        return logarithmic_ticks(self.low, self.high) if self.logarithmic else ticks(self.low, self.high)


def _axis(values: Sequence[float], start: float, end: float, logarithmic: bool = False) -> _Axis:
    low, high = min(values), max(values)
    if logarithmic:
        return _Axis(low / 1.1, high * 1.1, start, end, True)
    room = 0.05 * (high - low) or max(1.0, abs(high)) * 0.05
    return _Axis(low - room, high + room, start, end, False)


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )


def line_chart(chart: Chart) -> str:
    """Draw curves as an SVG element; numbers that are not finite are left out."""
    lines = []
    for line in chart.lines:
        points = [
            (x, y)
            for x, y in zip(line.xs, line.ys, strict=True)
            if math.isfinite(y) and (y > 0 or not chart.logarithmic)
        ]
        if points:
            lines.append((line, points))
    if not lines:
        raise ValueError(f"the chart {chart.title!r} has no number to draw")
    x = _axis([0.0, *(x for _, points in lines for x, _ in points)], LEFT, WIDTH - RIGHT)._replace(low=0.0)
    y = _axis([y for _, points in lines for _, y in points], HEIGHT - BOTTOM, TOP + ABOVE, chart.logarithmic)
    parts = []
    for value in y.ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(_text(LEFT - 6, y(value) + 4, _label(value), "end"))
    parts += [_text(x(value), HEIGHT - BOTTOM + 16, _label(value)) for value in x.ticks]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, chart.x, kind="axis"))
    parts.append(_text(2, 11, f"{chart.y}{' (logarithmic)' * chart.logarithmic}", "start", "axis"))
    for line, points in lines:
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        kind = "curve dashed" if line.dashed else "curve"
        parts.append(
            f'<polyline class="{kind} m{line.color}" points="{path}"><title>{escape(line.name)}</title></polyline>'
        )
        if not line.dashed:
            a, b = points[-1]
            parts.append(f'<circle class="m{line.color}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3"/>')
    ends = "; ".join(f"{line.name} ends at {points[-1][1]:.4g}" for line, points in lines)
    return _svg(HEIGHT, f"{chart.title}, {chart.y} against {chart.x}: {ends}", parts)


def dot_chart(chart: Dots) -> str:
    """Draw one number of each model as an SVG element: a dot a row, two standard errors to either side."""
    known = [dot for dot in chart.dots if math.isfinite(dot.value)]
    reach = [v for dot in known for v in (dot.value - 2 * (dot.error or 0.0), dot.value + 2 * (dot.error or 0.0))]
    x = _axis([*reach, *([] if chart.real is None else [chart.real])], NAMES, WIDTH - RIGHT)
    bottom = TOP + ROW * len(chart.dots)
    parts = []
    for value in x.ticks:
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{bottom:g}"/>')
        parts.append(_text(x(value), bottom + 16, _label(value)))
    if chart.real is not None:
        place = x(chart.real)
        parts.append(f'<line class="real" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{bottom:g}"/>')
    for number, dot in enumerate(chart.dots):
        middle = TOP + ROW * (number + 0.5)
        name = dot.name if len(dot.name) <= LETTERS else f"{dot.name[: LETTERS - 1]}…"
        parts.append(_text(NAMES - 10, middle + 4, name, "end", "name"))
        if not math.isfinite(dot.value):
            continue
        if dot.error:
            ends = x(dot.value - 2 * dot.error), x(dot.value + 2 * dot.error)
            parts.append(
                f'<line class="error m{dot.color}" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" '
                f'y1="{middle:g}" y2="{middle:g}"/>'
            )
        parts.append(f'<circle class="m{dot.color}" cx="{x(dot.value):.1f}" cy="{middle:g}" r="5"/>')
    values = "; ".join(f"{dot.name} {dot.value:.4g}" for dot in known)
    real = "" if chart.real is None else f"; real images {chart.real:.4g}"
    return _svg(bottom + 24, f"{chart.title}: {values}{real}", parts)
