"""Named data sets as arrays, and the order of their examples as a pure function."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.data.binarization import Binarization, binarize, binarize_set
from jaxgen.data.files import load_idx, load_npz, look_into_npz, open_idx, open_npz
from jaxgen.data.folders import Folder
from jaxgen.data.images import Color, Fit, Size, check_dataset, height_and_width, resize_images
from jaxgen.data.limits import check_memory
from jaxgen.data.mixtures import GRID_SCALE, gaussian_points
from jaxgen.data.order import batch_indices, permute
from jaxgen.data.sources import LOOKED_AT, Source, binarized, in_memory, of_rows, on_demand, part_of, standardized
from jaxgen.data.splits import labelled_subset, parse_slice, spread
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
    "standardized",
]

_EMBEDDED = "fashion_mnist_small"
_STACKED = "stacked:"
_GAUSSIANS = "gaussians"
_SAVE = 'numpy.savez("data.npz", image=images, label=labels)'
_TO_CONVERT = {
    ".h5": f"with h5py.File(path) as file: {_SAVE}",
    ".hdf5": f"with h5py.File(path) as file: {_SAVE}",
    ".mat": f"arrays = scipy.io.loadmat(path); {_SAVE}",
    ".parquet": "unpack the pictures into folders, one a class, and pass folder:PATH",
    ".tar": "unpack it (tar -xf), and pass folder:PATH",
    ".tfrecord": "prepare it as a TFDS set, or unpack the pictures and pass folder:PATH",
}


def load(
    name: str = _EMBEDDED,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    manual_dir: str | Path | None = None,
    image_size: Size | str | None = None,
    color: Color | None = None,
    fit: Fit = "crop",
    rows: Callable[[int], slice] | None = None,
) -> dict[str, np.ndarray]:
    """Load a data set as arrays that any step takes as a batch.

    Args:
      name: ``"fashion_mnist_small"`` (2,000 + 500 images inside the package); the TFDS name of an image set, such as
        ``"mnist"`` or ``"cifar10"``, prepared on first use; ``"folder:PATH"`` of pictures, or a zip archive of them,
        subfolders being classes; ``"npz:PATH"`` with arrays ``image`` and ``label``, or ``train_image`` and so on;
        ``"idx:DIR"`` with MNIST's original files. ``"stacked:"`` and one of these, such as ``"stacked:mnist"``: colour
        images of three random ones of that split, always the same 128,000 for ``"train"`` and 26,000 for others, labels
        0 to 999.
        ``"gaussians"``: points of 25 Gaussians on a grid (`gaussian_points`).
      split: ``"train"``, ``"test"`` or what else the set has, or a slice of one, such as ``"train[:50000]"`` or
        ``"train[-10%:]"``. Folders and archives without splits hold out every tenth image for ``"test"``.
      data_dir: where TFDS keeps prepared sets; its own default when None.
      manual_dir: folder with the original files of a TFDS set, used instead of the network.
      image_size: pixels of the sides, or (height, width), or ``"96x128"``: images are resized. None keeps them.
      color: ``"grey"`` or ``"rgb"``; None keeps what there is.
      fit: whether images of another shape are cropped to the largest part in their middle, or padded with white.
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
    places = Places(data_dir, manual_dir, height_and_width(image_size), color, fit)
    if not name.startswith(_STACKED) and _locate(name)[0] == "tfds":
        from jaxgen.data.tfds_sets import load_tfds

        prepared, manual = places.of_tfds()
        loaded = load_tfds(name, split, prepared, manual, places.size, color, fit, rows)
        return check_dataset(loaded, name)
    source = _open(name, split, places, whole=True)
    chosen = slice(0, source.num_examples) if rows is None else rows(source.num_examples)
    if source.arrays is not None:
        return {key: array[chosen] for key, array in source.arrays.items()}
    check_memory(len(range(source.num_examples)[chosen]) * source.example_bytes, name)
    return check_dataset(source.read(np.arange(source.num_examples)[chosen]), name)


class Places(NamedTuple):
    """Where a data set lies, and what is made of its images."""

    data_dir: str | Path | None
    manual_dir: str | Path | None
    size: tuple[int, int] | None
    color: Color | None
    fit: Fit

    def of_tfds(self) -> tuple[Path | None, Path | None]:
        """The two folders, as TFDS wants them."""
        prepared, manual = (None if d is None else Path(d).expanduser() for d in (self.data_dir, self.manual_dir))
        return prepared, manual


def open_source(
    name: str = _EMBEDDED,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    manual_dir: str | Path | None = None,
    image_size: Size | str | None = None,
    color: Color | None = None,
    fit: Fit = "crop",
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
      fit: see `load`.

    Returns:
      The source; reading an image [H, W, C] or [D] raises what `load` raises of it.

    Raises:
      ValueError: as `load`, of what can be seen without reading all examples: a name or a split, headers, labels, the
        first image.
      FileNotFoundError: a named file or folder is missing.
      ConnectionError: a TFDS set is not prepared and its files cannot be reached.
      ModuleNotFoundError: TFDS is missing, or TensorFlow where preparing or reading this set needs it.
    """
    return _open(name, split, Places(data_dir, manual_dir, height_and_width(image_size), color, fit))


def _open(name: str, split: str, where: Places, whole: bool = False) -> Source:
    """A source; of arrays that are read as a whole, checksums included, where that is wanted."""
    if name.startswith(_STACKED):
        grey = name.removeprefix(_STACKED)
        if not grey:
            raise ValueError(f"{name}: name the data set to stack after the colon, e.g. {_STACKED}mnist")
        return stacked(_open(grey, split, where), TRAINING_STACKS if split.startswith("train") else TEST_STACKS)
    kind, path = _locate(name)
    if kind != "tfds" and "[" in split:
        all_of_it, part = parse_slice(split, name)
        assert part is not None
        source = _open(name, all_of_it, where, whole)
        return part_of(source, part(source.num_examples))
    size, color, fit = where.size, where.color, where.fit
    if kind == "folder":
        folder = Folder(path, split, name, size, color, fit)
        source = on_demand(folder.read, folder.num_examples, folder.num_classes, name)
        return dataclasses.replace(source, class_names=folder.class_names, notes=folder.notes)
    if kind == "gaussians":
        if size is not None or color is not None:
            raise ValueError(f"{name}: points have no size and no colour: leave out --image-size and --color")
        return in_memory(gaussian_points(split), name)
    if kind == "tfds":
        from jaxgen.data.tfds_sets import class_names, load_tfds, open_tfds

        prepared, manual = where.of_tfds()
        records = open_tfds(name, split, prepared, manual, size, color, fit)
        if records is not None:
            source = on_demand(records.read, records.num_examples, records.num_classes, name)
        else:
            source = in_memory(check_dataset(load_tfds(name, split, prepared, manual, size, color, fit), name), name)
        return dataclasses.replace(source, class_names=class_names(name, prepared))
    if kind == "idx":
        opened = None if whole else open_idx(path, split, name)
        if opened is not None:
            return of_rows(*opened, size, color, name, fit)
        return _in_memory(load_idx(path, split, name), where, name)
    found = look_into_npz(path, split, name)
    rows = None if whole else open_npz(path, found, name)
    if rows is not None:
        source = of_rows(rows, found.num_examples, found.places, size, color, name, fit)
    else:
        source = _in_memory(load_npz(path, found, name), where, name)
    if found.class_names is not None and source.num_classes is not None:
        if source.num_classes > len(found.class_names):
            raise ValueError(
                f"{name}: labels go up to {source.num_classes - 1}, and there are {len(found.class_names)} class names"
            )
        source = dataclasses.replace(source, num_classes=len(found.class_names), class_names=found.class_names)
    return dataclasses.replace(source, notes=found.notes)


def _in_memory(dataset: dict[str, np.ndarray], where: Places, name: str) -> Source:
    """A source of arrays that were loaded, checked and brought to one shape."""
    dataset = check_dataset(dataset, name)
    if where.size is not None or where.color is not None:
        dataset["image"] = resize_images(list(dataset["image"]), where.size, where.color, name, where.fit)
    return in_memory(dataset, name)


def _locate(name: str) -> tuple[str, Path]:
    """What kind of data set a name means, and where it lies if it is not one of TFDS."""
    if name == _EMBEDDED:
        return "npz", Path(__file__).parent / f"{_EMBEDDED}.npz"
    if name == _GAUSSIANS:
        return "gaussians", Path()
    kind, _, location = name.partition(":")
    kind = {"zip": "folder", "npy": "npz"}.get(kind, kind)
    if kind not in ("folder", "npz", "idx"):
        return "tfds", Path()
    if Path(location).suffix.lower() in _TO_CONVERT:
        raise ValueError(f"{name}: files of this kind are not read: {_TO_CONVERT[Path(location).suffix.lower()]}")
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
