"""Pictures with titles, and animations, of what a model makes of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.batches import to_float
from jaxgen.evaluation.figures import save_animation, save_picture
from jaxgen.training.monitor import titled_grid

SIDE = 112  # pixels of a picture for an image's side, about


def floats(images: Any) -> np.ndarray:
    """Images as they are shown: floats in [0, 1]."""
    return np.clip(np.asarray(to_float(jnp.asarray(images))), 0.0, 1.0)


def show(path: Path, columns: Sequence[tuple[str, Any]], title: str, note: str = "", rows: Sequence[str] = ()) -> None:
    """A picture with a row for each image: titled columns [N, H, W, C], or several under one title [N, S, H, W, C];
    ``rows`` are names of the rows, if they have any."""
    parts = [np.asarray(to_float(images)) for _, images in columns]
    parts = [images[:, None] if images.ndim == 4 else images for images in parts]
    images = np.concatenate(parts, axis=1)
    heads = [(name, part.shape[1]) for (name, _), part in zip(columns, parts, strict=True)]
    flat = images.reshape(-1, *images.shape[2:])
    save_picture(path, titled_grid(flat, images.shape[1], title, note, rows, heads, SIDE))


def animate(path: Path, frames: Any, title: str, note: str = "") -> None:
    """A GIF of frames [N, T, H, W, C], N images side by side, there and back again and again."""
    columns = max(1, int(np.ceil(np.sqrt(len(frames)))))
    grids = [titled_grid(frames[:, i], columns, title, note, side=SIDE) for i in range(frames.shape[1])]
    save_animation(path, [*grids, *grids[-2:0:-1]])
