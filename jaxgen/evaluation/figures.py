"""Matplotlib's figures as PNG files, drawn without a screen."""

from pathlib import Path
from typing import Any

from jaxgen.training.files import replacing


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Any:
    """A figure of so many inches, of 100 pixels each."""
    from matplotlib.figure import Figure

    figure: Any = Figure  # its types know the names of layouts alone
    return figure(figsize=(width, height), dpi=100, layout=layout)


def save_figure(path: Path, figure: Any) -> None:
    """Write a figure to a PNG file, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))
