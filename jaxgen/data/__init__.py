"""Named data sets as arrays, and the order of their examples as a pure function."""

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data.binarization import Binarization, binarize, binarize_set
from jaxgen.data.files import load_folder, load_idx, load_npz
from jaxgen.data.images import Color, check_dataset, resize_images
from jaxgen.data.limits import MAX_PIXELS
from jaxgen.data.order import batch_indices, permute

__all__ = [
    "Binarization",
    "Color",
    "batch_indices",
    "binarize",
    "binarize_set",
    "fingerprint",
    "load",
    "permute",
]

_EMBEDDED = "fashion_mnist_small"


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
        with MNIST's original files.
      split: ``"train"``, ``"test"`` or what else the set has. Folders and archives without splits hold out every
        tenth image for ``"test"``.
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
    largest = math.isqrt(MAX_PIXELS)
    if image_size is not None and not 1 <= image_size <= largest:
        raise ValueError(f"image size must be at least 1 pixel and at most {largest}, got {image_size}")
    kind, _, location = name.partition(":")
    try:
        path = Path(location).expanduser()
    except RuntimeError as error:  # a ~user that there is not
        raise FileNotFoundError(f"{name}: no such file or folder ({error}): give its full path") from error
    if kind in ("folder", "npz", "idx") and not location:
        raise ValueError(f"{name}: give a path after the colon, e.g. {kind}:path/to/data")
    if kind == "folder":
        return check_dataset(load_folder(path, split, name, image_size, color, rows), name)
    if kind == "npz":
        dataset = load_npz(path, split, name)
    elif kind == "idx":
        dataset = load_idx(path, split, name)
    elif name == _EMBEDDED:
        dataset = load_npz(Path(__file__).parent / f"{_EMBEDDED}.npz", split, name)
    else:
        from jaxgen.data.tfds_sets import load_tfds

        prepared, manual = (None if d is None else Path(d).expanduser() for d in (data_dir, manual_dir))
        return check_dataset(load_tfds(name, split, prepared, manual, image_size, color, rows), name)
    if rows is not None:
        chosen = rows(len(dataset["image"]))
        dataset = {key: array[chosen] for key, array in dataset.items()}
    dataset = check_dataset(dataset, name)
    if image_size is not None or color is not None:
        dataset["image"] = resize_images(list(dataset["image"]), image_size, color, name)
    return dataset


def fingerprint(dataset: Mapping[str, Any], first: int = 0) -> int:
    """Tell data sets apart: the sum, modulo 2^256, of the SHA-256 of every example with its place, name and type.

    A sum, so that the parts that several processes hold add up to the whole's.

    Args:
      dataset: arrays [n, ...] by name.
      first: place of the first example in the whole data set.

    Returns:
      A number in [0, 2^256).
    """
    names = sorted(dataset)
    arrays = [np.ascontiguousarray(dataset[name]) for name in names]
    head = hashlib.sha256(repr([(n, a.dtype.str, a.shape[1:]) for n, a in zip(names, arrays, strict=True)]).encode())
    total = 0
    for place, example in enumerate(zip(*arrays, strict=True), first):
        digest = head.copy()
        digest.update(place.to_bytes(8, "big"))
        for part in example:
            digest.update(part.tobytes())
        total += int.from_bytes(digest.digest(), "big")
    return total % 2**256
