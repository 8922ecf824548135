"""What a run shows of itself: metrics in a file and in TensorBoard, and grids of pictures."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from jaxgen.evaluation.figures import Picture, enlarged, enlargement, save_picture, titled
from jaxgen.training.events import EventFile
from jaxgen.training.files import naming, replacing


def seen(images: np.ndarray) -> np.ndarray:
    """The channels that a picture shows of images [..., C]: of one or two the first, of more the first three."""
    return images[..., : 3 if images.shape[-1] >= 3 else 1]


def not_seen(channels: int) -> str:
    """What a picture does not show of images of so many channels, in words; nothing of grey and of colour."""
    if channels in (1, 3):
        return ""
    return f"Of {channels} channels the first {'is seen, as grey' if channels == 2 else 'three are seen, as colour'}."


def image_grid(images: np.ndarray, columns: int | None = None, padding: int = 2) -> np.ndarray:
    """Lay images out on a grid, row by row, on white: one picture, uint8 [height, width, 3].

    Args:
      images: floats in [0, 1], uint8 or bool, [N, H, W, C]: see `seen`.
      columns: images in a row; about as many as rows when None.
      padding: white pixels around each image.
    """
    images = np.asarray(images)
    if images.ndim != 4 or min(images.shape) < 1:
        raise ValueError(f"a grid shows images [N, H, W, C], got shape {list(images.shape)}")
    images = seen(images)
    if images.dtype != np.uint8:
        images = np.round(np.clip(images.astype(np.float32), 0.0, 1.0) * 255.0).astype(np.uint8)
    num, height, width, _ = images.shape
    columns = min(num, math.ceil(math.sqrt(num)) if columns is None else columns)
    if columns < 1:
        raise ValueError(f"a grid needs at least 1 column, got {columns}")
    rows = -(-num // columns)
    height, width = height + padding, width + padding
    grid = np.full((rows * height + padding, columns * width + padding, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * height + padding, (i % columns) * width + padding
        grid[top : top + image.shape[0], left : left + image.shape[1]] = image  # grey is broadcast to RGB
    return grid


def interleaved(*parts: Any, columns: int) -> np.ndarray:
    """Rows of a grid: one of the images [N, H, W, C] of the first of the parts, below it one of the second, and so on.

    Each is of so many ``columns``, the last ones filled up with white.
    """
    rows = [np.asarray(part[i : i + columns]) for i in range(0, len(parts[0]), columns) for part in parts]
    white = 255 if rows[0].dtype == np.uint8 else 1
    return np.concatenate(
        [np.pad(row, ((0, columns - len(row)), *((0, 0),) * (row.ndim - 1)), constant_values=white) for row in rows]
    )


def titled_grid(
    images: Any,
    columns: int | None,
    title: str,
    note: str = "",
    rows: Sequence[str] = (),
    heads: Sequence[tuple[str, int]] = (),
    side: int = 56,
) -> Picture:
    """A grid of images [N, H, W, C] with titles around it, small images made larger by a whole number.

    Args:
      images: as `image_grid` takes them.
      columns: images in a row; about as many as rows when None.
      title: what it shows.
      note: what else is to be known; that channels are not seen is added.
      rows: names of the rows.
      heads: names of the columns, each with how many it is above.
      side: about how many pixels wide and high an image becomes, where that makes it larger.
    """
    images = np.asarray(images)
    scale = enlargement(images.shape[1:], side) if images.ndim == 4 else 1
    grid = enlarged(image_grid(images, columns, max(1, 4 // scale)), scale)
    return titled(grid, title, f"{note} {not_seen(images.shape[-1])}", rows, heads)


class Monitor:
    """Writes a run's metrics to ``metrics.jsonl`` and TensorBoard, and its pictures to ``samples/``, in a directory.

    A context manager. What was logged past ``step`` is cut off, and kept in ``metrics.cut.jsonl``: it belongs to steps
    that a resumed run does again.
    """

    def __init__(self, directory: Path, step: int) -> None:
        self._samples = directory / "samples"
        self._path = directory / "metrics.jsonl"
        _cut(self._path, step)
        with naming(self._path):
            self._rows = self._path.open("a")
        self._events = EventFile(directory / "tensorboard", step)

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._events, self._rows:
            pass

    def write(self, step: int, metrics: Mapping[str, float | str], group: Literal["train", "test"] = "train") -> None:
        """Add a row of metrics to the log after a step: numbers or words by name; when this returns, it is on the disk.

        Names of wall-clock fields begin with ``time_``. TensorBoard has numbers as ``train/elbo`` and, of the group
        ``test``, ``test/elbo`` for ``test_elbo``; an older run that has them without a group goes on so.
        """
        finite = {n: v if isinstance(v, str) or math.isfinite(v) else str(v) for n, v in metrics.items()}
        with naming(self._path):
            self._rows.write(json.dumps({"step": step, **finite}) + "\n")
            self._rows.flush()
            os.fsync(self._rows.fileno())
        for name, value in metrics.items():
            if not isinstance(value, str):
                self._events.scalar(_tag(name, group) if self._events.grouped else name, value, step)

    def show(
        self,
        step: int,
        name: str,
        images: np.ndarray,
        columns: int | None = None,
        *,
        title: str = "",
        note: str = "",
        rows: Sequence[str] = (),
    ) -> Path:
        """Write a grid of images after a step, as `image_grid` takes them, [N, H, W, C]; returns the PNG file.

        Its name begins with ``name``: letters, digits, ``_`` and ``-``. ``columns`` are images in a row. Around them
        stand a ``title``, which is the name and the step where none is given, a ``note`` in small letters, and the
        names of the ``rows``.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"a picture's name must be of letters, digits, _ and -, got {name!r}")
        path = self._samples / f"{name}_{step:08d}.png"
        save_picture(path, titled_grid(images, columns, title or f"{name}, step {step:,}", note, rows))
        self._events.picture(name, image_grid(images, columns), step)
        return path


def _tag(name: str, group: str) -> str:
    """What TensorBoard calls a number: its group, a stroke, and its name without the group."""
    group = "time" if name.startswith("time_") else group
    return f"{group}/{name.removeprefix(f'{group}_')}"


def read_rows(path: Path, step: float = math.inf) -> list[dict[str, Any]]:
    """Rows of the log up to a step; a last line cut short by a kill is left out.

    ``path`` is that of a ``metrics.jsonl``; where there is none, there are no rows.
    """
    return [row for _, row in _lines(path) if row is not None and row["step"] <= step]


def _lines(path: Path) -> list[tuple[bytes, dict[str, Any] | None]]:
    """Lines of a log, byte for byte, each with its row; blank ones have none, nor a last one cut short by a kill."""
    if not path.exists():
        return []
    lines: list[tuple[bytes, dict[str, Any] | None]] = []
    with naming(path), path.open("rb") as log:
        for number, line in enumerate(log, 1):
            row = None
            try:
                if line.strip():
                    row = json.loads(line)
                    if type(row["step"]) not in (int, float):
                        raise ValueError(f"its step is {row['step']!r}")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                if line.endswith(b"\n"):
                    wrong = f"{path}: not a log of metrics (line {number}: {error})"
                    raise ValueError(f"{wrong}: move it away to start another") from error
                row = None
            lines.append((line, row))
    return lines


def _cut(path: Path, step: float) -> None:
    """Leave in a log its rows up to a step, the last one ended; what is cut off goes into a file beside it, first."""
    lines = _lines(path)
    kept: list[bytes] = []
    cut: list[bytes] = []
    for line, row in lines:
        stays = row["step"] <= step if row is not None else not line.strip()
        (kept if stays else cut).append(line if line.endswith(b"\n") else line + b"\n")
    whole, rest = b"".join(line for line, _ in lines), b"".join(kept)
    if cut:
        beside = path.with_name("metrics.cut.jsonl")
        with naming(beside), beside.open("ab") as file:
            file.write(b"".join(cut))
            file.flush()
            os.fsync(file.fileno())
    if not whole.startswith(rest):  # a later row stands before one that stays, or the last one is not ended
        with replacing(path) as partial:
            partial.write_bytes(rest)
    elif rest != whole:
        with naming(path):
            os.truncate(path, len(rest))
