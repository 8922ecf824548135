"""What a picture's file says of itself, and the images alone in it."""

from pathlib import Path

import numpy as np
from PIL import Image


def words(path: Path) -> str:
    """All words of a PNG or GIF file; an error where its title is missing."""
    with Image.open(path) as picture:
        found = picture.info
    if "comment" in found:
        assert found["comment"]
        return found["comment"].decode("utf-8")
    assert found["Title"], f"{path} does not say what it shows"
    return f"{found['Title']}\n{found.get('Description', '')}"


def grids(path: Path) -> list[np.ndarray]:
    """The images alone of a titled picture, uint8 [height, width, 3] of each part."""
    with Image.open(path) as picture:
        pixels, places = np.asarray(picture), picture.info["Images"]
    numbers = [tuple(map(int, place.split())) for place in places.split("; ")]
    return [pixels[top : top + height, left : left + width] for left, top, width, height in numbers]
