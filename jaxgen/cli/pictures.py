"""Pictures with titles, and animations, of what a model makes of images."""

from collections.abc import Mapping
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


def show(path: Path, columns: Mapping[str, Any], title: str = "", note: str = "") -> None:
    """A picture with a row for each image: titled columns [N, H, W, C], or several under one title [N, S, H, W, C].

    Without a title of its own, it is called by its columns.
    """
    parts = {name: np.asarray(to_float(images)) for name, images in columns.items()}
    parts = {name: images[:, None] if images.ndim == 4 else images for name, images in parts.items()}
    rows = np.concatenate(list(parts.values()), axis=1)
    heads = [(name.strip(), images.shape[1]) for name, images in parts.items()]
    title = title or f"From left to right: {', '.join(name for name, _ in heads)}"
    save_picture(
        path, titled_grid(rows.reshape(-1, *rows.shape[2:]), rows.shape[1], title, note, heads=heads, side=SIDE)
    )


def animate(path: Path, frames: Any, title: str = "From one end to the other, and back", note: str = "") -> None:
    """A GIF of frames [N, T, H, W, C], N images side by side, there and back again and again."""
    columns = max(1, int(np.ceil(np.sqrt(len(frames)))))
    grids = [titled_grid(frames[:, i], columns, title, note, side=SIDE) for i in range(frames.shape[1])]
    save_animation(path, [*grids, *grids[-2:0:-1]])
