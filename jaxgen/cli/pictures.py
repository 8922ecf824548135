"""Pictures with titles, and animations, of what a model makes of images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.batches import to_float
from jaxgen.evaluation.figures import new_figure, save_figure
from jaxgen.training.files import replacing
from jaxgen.training.monitor import image_grid

SIDE = 112  # pixels of a picture for an image's side, about
TITLE = 35  # pixels of a line of titles


def floats(images: Any) -> np.ndarray:
    """Images as they are shown: floats in [0, 1]."""
    return np.clip(np.asarray(to_float(jnp.asarray(images))), 0.0, 1.0)


def scale_of(images: Any) -> int:
    """Pixels of a picture for a pixel of images [..., H, W, C]."""
    return max(1, round(SIDE / max(images.shape[-3:-1])))


def show(path: Path, columns: Mapping[str, Any]) -> None:
    """A picture with a row for each image: titled columns [N, H, W, C], or several under one title [N, S, H, W, C]."""
    parts = {name: np.asarray(to_float(images)) for name, images in columns.items()}
    parts = {name: images[:, None] if images.ndim == 4 else images for name, images in parts.items()}
    rows = np.concatenate(list(parts.values()), axis=1)
    each = rows.shape[1]
    scale = scale_of(rows)
    picture = image_grid(rows.reshape(-1, *rows.shape[2:]), each).repeat(scale, 0).repeat(scale, 1)
    height, width = picture.shape[:2]
    figure = new_figure(width / 100, (height + TITLE) / 100, layout=None)
    figure.figimage(picture, 0, 0, origin="upper")
    place = 0
    for name, images in parts.items():
        middle = (place + images.shape[1] / 2) / each
        figure.text(middle, 1 - 0.5 * TITLE / (height + TITLE), name, ha="center", va="center", fontsize=8)
        place += images.shape[1]
    save_figure(path, figure)


def animate(path: Path, frames: Any) -> None:
    """A GIF of frames [N, T, H, W, C], N images side by side, there and back again and again."""
    from PIL import Image

    scale = scale_of(frames)
    columns = max(1, int(np.ceil(np.sqrt(len(frames)))))
    pictures = [image_grid(frames[:, i], columns).repeat(scale, 0).repeat(scale, 1) for i in range(frames.shape[1])]
    there_and_back = [Image.fromarray(picture) for picture in [*pictures, *pictures[-2:0:-1]]]
    if frames.shape[-1] == 1:
        there_and_back = [picture.convert("L") for picture in there_and_back]  # a palette of all greys
    first, *rest = there_and_back
    with replacing(path) as partial:
        first.save(partial, format="GIF", save_all=True, append_images=rest, duration=80, loop=0)
