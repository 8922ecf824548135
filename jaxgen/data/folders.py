"""Folders of PNG and JPEG pictures: ``folder:PATH``. They are listed at once, and read when they are asked for."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data.images import Color, picture_color, picture_to_array
from jaxgen.data.limits import check_memory, check_pixels
from jaxgen.data.splits import hold_out, one_line, unknown_split

_PICTURES = (".png", ".jpg", ".jpeg")
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


class Folder:
    """The pictures of a split of a folder, in the order of their sorted paths; subfolders are labels.

    Args:
      directory: the folder; one with ``train`` and ``test`` inside brings its own splits.
      split: ``"train"``, ``"test"`` or ``"all"``.
      name: what to call the data set in errors.
      image_size: height and width in pixels; pictures are centre-cropped and resized. None if all are of one size.
      color: ``"grey"`` or ``"rgb"``; None if all are of one kind.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it holds no pictures, has no such split, or its first picture cannot be read.
    """

    def __init__(self, directory: Path, split: str, name: str, image_size: int | None, color: Color | None) -> None:
        if not directory.is_dir():
            raise FileNotFoundError(f"{name}: no such folder: {directory}")
        own_splits = [each for each in ("test", "train") if (directory / each).is_dir()]
        if own_splits:
            if split not in own_splits:
                raise unknown_split(name, split, own_splits)
            directory = directory / split
        paths = sorted(_pictures(str(directory), ""), key=lambda path: path.replace(os.sep, "\0"))
        if not paths:
            raise ValueError(f"{name}: no PNG or JPEG pictures in {directory}: put some there")
        folders = [sys.intern(head) if tail else "" for head, _, tail in (path.partition(os.sep) for path in paths)]
        classes = sorted(set(folders))
        if "" in classes and len(classes) > 1:
            raise ValueError(
                f"{name}: pictures both in {directory} and in its subfolders (such as {classes[1]}): subfolders are "
                "labels, so put all of them into subfolders or none"
            )
        num, places = (len(paths), None) if own_splits else hold_out(len(paths), split, name)
        chosen = range(num) if places is None else places(np.arange(num)).tolist()
        # As bytes of one array: a tenth of the memory of as many strings.
        self._paths = np.array([os.fsencode(paths[i]) for i in chosen])
        numbers = {folder: number for number, folder in enumerate(classes)}
        self._labels = None if classes == [""] else np.array([numbers[folders[i]] for i in chosen], np.int32)
        self._directory, self._name, self._image_size, self._color = directory, name, image_size, color
        self.num_examples = num
        self.num_classes = None if self._labels is None else int(self._labels.max()) + 1
        first, self._first_color = self._read(self._path(0))
        self._shape = first.shape

    def _path(self, place: int) -> Path:
        return self._directory / os.fsdecode(self._paths[place])

    def _read(self, path: Path) -> tuple[np.ndarray, Color]:
        """The pixels of a PNG or JPEG file, and the colour it had."""
        where = f"{self._name}: {path}"
        with path.open("rb") as file:
            start = file.read(len(_PNG))
            if not start.startswith((_PNG, _JPEG)):
                raise self._bad_picture(path, "not a PNG or JPEG picture")
            file.seek(0)
            try:
                picture = _open_picture(file, start == _PNG)
            except MemoryError:
                raise
            except Exception as error:  # whatever PIL's parser stumbles over, the file is at fault
                raise self._bad_picture(path, one_line(error)) from error
            check_pixels(picture.width, picture.height, where)
            found = picture_color(picture, where)
            try:
                return picture_to_array(picture, self._image_size, self._color or found), found
            except (OSError, SyntaxError, ValueError) as error:
                raise self._bad_picture(path, one_line(error)) from error

    def _bad_picture(self, path: Path, problem: str) -> ValueError:
        return ValueError(f"{self._name}: cannot read {path}: {problem}: replace or remove it")

    def read(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """Read some pictures; from several threads at once, if need be.

        Args:
          places: which pictures, int [n].

        Returns:
          ``image`` uint8 [n, H, W, C]; ``label`` int32 [n], the index of the subfolder in sorted order, where there
          are subfolders.

        Raises:
          ValueError: one of them is damaged or too large, or has another size or colour than the first one.
        """
        images = np.empty((len(places), *self._shape), np.uint8)
        check_memory(images.nbytes, self._name)
        for image, place in zip(images, places.tolist(), strict=True):
            path = self._path(place)
            array, color = self._read(path)
            if self._color is None and color != self._first_color:
                raise ValueError(
                    f"{self._name}: {self._path(0)} is {self._first_color}, {path} is {color}: say which to make of "
                    "all (--color grey or --color rgb)"
                )
            if array.shape != self._shape:
                raise ValueError(
                    f"{self._name}: {self._path(0)} is {list(self._shape[:2])} pixels, {path} is "
                    f"{list(array.shape[:2])}: give one size for all (--image-size 64)"
                )
            image[...] = array
        return {"image": images} if self._labels is None else {"image": images, "label": self._labels[places]}


def _pictures(directory: str, prefix: str) -> Iterator[str]:
    """Paths of all pictures in a folder and below it, from it on. Links to folders are not followed."""
    with os.scandir(directory) as entries:
        for entry in entries:
            path = os.path.join(prefix, entry.name)  # noqa: PTH118 - a Path for each takes too long
            if entry.is_dir(follow_symlinks=False):
                yield from _pictures(entry.path, path)
            elif path.lower().endswith(_PICTURES) and entry.is_file():
                yield path


def _open_picture(file: Any, is_png: bool) -> Any:
    """A PIL image of which only the header is read.

    By the class of its format: `PIL.Image.open` warns of large pictures by a limit of its own, and warnings cannot be
    silenced in one thread alone. `check_pixels` decides.
    """
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    return PngImageFile(file) if is_png else JpegImageFile(file)
