"""Named data sets as arrays, and the order of their examples as a pure function."""

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data.binarization import Binarization, binarize, binarize_set
from jaxgen.data.files import load_idx, load_npz, open_idx, open_npz
from jaxgen.data.folders import Folder
from jaxgen.data.images import Color, check_dataset, resize_images
from jaxgen.data.limits import MAX_PIXELS, check_memory
from jaxgen.data.mixtures import GRID_SCALE, gaussian_points
from jaxgen.data.order import batch_indices, permute
from jaxgen.data.sources import LOOKED_AT, Source, binarized, in_memory, of_rows, on_demand, part_of
from jaxgen.data.splits import Part, labelled_subset, parse_slice, spread
from jaxgen.data.stacked import TEST_STACKS, TRAINING_STACKS, draw_stacks, stack_channels, stacked

__all__ = [
    "GRID_SCALE",
    "LOOKED_AT",
    "Binarization",
    "Color",
    "Source",
    "batch_indices",
    "binarize",
    "binarize_set",
    "binarized",
    "draw_stacks",
    "fingerprint",
    "gaussian_points",
    "in_memory",
    "labelled_subset",
    "load",
    "open_source",
    "permute",
    "spread",
    "stack_channels",
    "stacked",
]

_EMBEDDED = "fashion_mnist_small"
_STACKED = "stacked:"
_GAUSSIANS = "gaussians"


def load(
    name: str = _EMBEDDED,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    manual_dir: str | Path | None = None,
    image_size: int | None = None,
    color: Color | None = None,
    rows: Callable[[int], slice] | None = None,
) -> dict[str, np.ndarray]:
    """Load a data set as arrays that any step takes as a batch.

    Args:
      name: ``"fashion_mnist_small"`` (2,000 + 500 images inside the package); the TFDS name of an image set, such as
        ``"mnist"`` or ``"cifar10"``, prepared on first use; ``"folder:PATH"`` of PNG and JPEG pictures, subfolders
        being labels; ``"npz:PATH"`` with arrays ``image`` and ``label``, or ``train_image`` and so on; ``"idx:DIR"``
        with MNIST's original files. ``"stacked:"`` and one of these, such as ``"stacked:mnist"``: colour images of
        three random ones of that split, always the same 128,000 for ``"train"`` and 26,000 for others, labels 0 to 999.
        ``"gaussians"``: points of 25 Gaussians on a grid (`gaussian_points`).
      split: ``"train"``, ``"test"`` or what else the set has, or a slice of one, such as ``"train[:50000]"`` or
        ``"train[-10%:]"``. Folders and archives without splits hold out every tenth image for ``"test"``.
      data_dir: where TFDS keeps prepared sets; its own default when None.
      manual_dir: folder with the original files of a TFDS set, used instead of the network.
      image_size: height and width in pixels: images are cropped to the central square and resized. None keeps them.
      color: ``"grey"`` or ``"rgb"``; None keeps what there is.
      rows: number of examples N -> the contiguous rows to load of them, for a process that needs only its share.

    Returns:
      ``image`` [N, H, W, C] or [N, D], uint8, bool or float32; and ``label`` int32 [N] where there are labels.

    Raises:
      ValueError: the name or the split is unknown, or the images are empty, damaged, of many sizes, NaN, out of
        range, or more than fits into this machine's memory; each error says what to do.
      FileNotFoundError: a named file or folder is missing.
      ConnectionError: a TFDS set is not prepared and its files cannot be reached.
      ModuleNotFoundError: TFDS is missing, or TensorFlow where preparing or reading this set needs it.
    """
    if name.startswith(_STACKED):
        stacks = open_source(name, split, data_dir=data_dir, manual_dir=manual_dir, image_size=image_size, color=color)
        check_memory(stacks.nbytes, name)
        places = np.arange(stacks.num_examples)
        return stacks.read(places if rows is None else places[rows(len(places))])
    kind, path = _locate(name, image_size)
    if kind != "tfds":
        split, part = parse_slice(split, name)
        rows = _rows_of(part, rows)
    if kind == "gaussians":
        if image_size is not None or color is not None:
            raise ValueError(f"{name}: points have no size and no colour: leave out --image-size and --color")
        points = gaussian_points(split)
        return points if rows is None else {key: array[rows(len(array))] for key, array in points.items()}
    if kind == "folder":
        folder = Folder(path, split, name, image_size, color)
        chosen = np.arange(folder.num_examples)
        return check_dataset(folder.read(chosen if rows is None else chosen[rows(len(chosen))]), name)
    if kind == "tfds":
        from jaxgen.data.tfds_sets import load_tfds

        prepared, manual = (None if d is None else Path(d).expanduser() for d in (data_dir, manual_dir))
        return check_dataset(load_tfds(name, split, prepared, manual, image_size, color, rows), name)
    dataset = load_npz(path, split, name) if kind == "npz" else load_idx(path, split, name)
    if rows is not None:
        chosen_rows = rows(len(dataset["image"]))
        dataset = {key: array[chosen_rows] for key, array in dataset.items()}
    dataset = check_dataset(dataset, name)
    if image_size is not None or color is not None:
        dataset["image"] = resize_images(list(dataset["image"]), image_size, color, name)
    return dataset


def open_source(
    name: str = _EMBEDDED,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    manual_dir: str | Path | None = None,
    image_size: int | None = None,
    color: Color | None = None,
) -> Source:
    """Open a data set, to read its examples by their places when they are needed.

    The examples are those of `load`, in the same order. Only what cannot be read by place is loaded: compressed
    archives, gzipped idx files and TFDS sets prepared as tfrecord.

    Args:
      name: see `load`.
      split: see `load`.
      data_dir: see `load`.
      manual_dir: see `load`.
      image_size: see `load`.
      color: see `load`.

    Returns:
      The source; reading an image [H, W, C] or [D] raises what `load` raises of it.

    Raises:
      ValueError: as `load`, of what can be seen without reading all examples: a name or a split, headers, labels, the
        first image.
      FileNotFoundError: a named file or folder is missing.
      ConnectionError: a TFDS set is not prepared and its files cannot be reached.
      ModuleNotFoundError: TFDS is missing, or TensorFlow where preparing or reading this set needs it.
    """
    if name.startswith(_STACKED):
        grey = name.removeprefix(_STACKED)
        if not grey:
            raise ValueError(f"{name}: name the data set to stack after the colon, e.g. {_STACKED}mnist")
        source = open_source(grey, split, data_dir=data_dir, manual_dir=manual_dir, image_size=image_size, color=color)
        return stacked(source, TRAINING_STACKS if split.startswith("train") else TEST_STACKS)
    kind, path = _locate(name, image_size)
    if kind != "tfds" and "[" in split:
        whole, part = parse_slice(split, name)
        assert part is not None
        places: Any = {"data_dir": data_dir, "manual_dir": manual_dir, "image_size": image_size, "color": color}
        source = open_source(name, whole, **places)
        return part_of(source, part(source.num_examples))
    if kind == "folder":
        folder = Folder(path, split, name, image_size, color)
        return on_demand(folder.read, folder.num_examples, folder.num_classes, name)
    if kind == "tfds":
        from jaxgen.data.tfds_sets import open_tfds

        prepared, manual = (None if d is None else Path(d).expanduser() for d in (data_dir, manual_dir))
        records = open_tfds(name, split, prepared, manual, image_size, color)
        if records is not None:
            return on_demand(records.read, records.num_examples, records.num_classes, name)
    elif kind != "gaussians":
        opened = open_npz(path, split, name) if kind == "npz" else open_idx(path, split, name)
        if opened is not None:
            return of_rows(*opened, image_size, color, name)
    dataset = load(name, split, data_dir=data_dir, manual_dir=manual_dir, image_size=image_size, color=color)
    return in_memory(dataset, name)


def _rows_of(part: Part | None, rows: Part | None) -> Part | None:
    """The rows to read of a split: those wanted of a part of it."""
    if part is None or rows is None:
        return part or rows

    def chosen(num: int) -> slice:
        inside = range(num)[part(num)]
        start, stop, _ = rows(len(inside)).indices(len(inside))
        return slice(inside.start + start, inside.start + stop)

    return chosen


def _locate(name: str, image_size: int | None) -> tuple[str, Path]:
    """What kind of data set a name means, and where it lies if it is not one of TFDS."""
    largest = math.isqrt(MAX_PIXELS)
    if image_size is not None and not 1 <= image_size <= largest:
        raise ValueError(f"image size must be at least 1 pixel and at most {largest}, got {image_size}")
    if name == _EMBEDDED:
        return "npz", Path(__file__).parent / f"{_EMBEDDED}.npz"
    if name == _GAUSSIANS:
        return "gaussians", Path()
    kind, _, location = name.partition(":")
    if kind not in ("folder", "npz", "idx"):
        return "tfds", Path()
    if not location:
        raise ValueError(f"{name}: give a path after the colon, e.g. {kind}:path/to/data")
    try:
        return kind, Path(location).expanduser()
    except RuntimeError as error:  # a ~user that there is not
        raise FileNotFoundError(f"{name}: no such file or folder ({error}): give its full path") from error


def fingerprint(dataset: Mapping[str, Any], first: int | np.ndarray = 0) -> int:
    """Tell data sets apart: the sum, modulo 2^256, of the SHA-256 of every example with its place, name and type.

    A sum, so that the parts that several processes hold add up to the whole's.

    Args:
      dataset: arrays [n, ...] by name.
      first: place of the first example in the whole data set, or the places of all, int [n].

    Returns:
      A number in [0, 2^256).
    """
    names = sorted(dataset)
    arrays = [np.ascontiguousarray(dataset[name]) for name in names]
    head = hashlib.sha256(repr([(n, a.dtype.str, a.shape[1:]) for n, a in zip(names, arrays, strict=True)]).encode())
    total = 0
    places = range(first, first + len(arrays[0])) if isinstance(first, int) else first.tolist()
    for place, example in zip(places, zip(*arrays, strict=True), strict=True):
        digest = head.copy()
        digest.update(place.to_bytes(8, "big"))
        for part in example:
            digest.update(part.tobytes())
        total += int.from_bytes(digest.digest(), "big")
    return total % 2**256
