"""Data sets in a user's own files: ``folder:PATH``, ``npz:PATH`` and ``idx:DIR``."""

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxgen.data.images import Color, picture_color, picture_to_array

_PICTURES = {".png", ".jpg", ".jpeg"}
_HELD_OUT = 10
_IDX_PREFIXES = {"train": "train", "test": "t10k"}


def unknown_split(name: str, split: str, known: list[str]) -> ValueError:
    """The error for a split that a data set does not have; it lists those that there are."""
    return ValueError(f"{name}: unknown split {split!r}: use one of {', '.join(known)}")


def hold_out(dataset: dict[str, np.ndarray], split: str, name: str) -> dict[str, np.ndarray]:
    """Split a data set that has no splits: every tenth example is for testing.

    Args:
      dataset: arrays [N, ...] by name.
      split: ``"train"``, ``"test"`` or ``"all"``.
      name: what to call the data set in errors.

    Returns:
      The arrays of the split.

    Raises:
      ValueError: the split is unknown, or there are fewer than ten examples to split.
    """
    if split not in ("train", "test", "all"):
        raise unknown_split(name, split, ["train", "test", "all"])
    num = len(dataset["image"])
    if split == "all":
        return dataset
    if num < _HELD_OUT:
        raise ValueError(
            f"{name}: at least {_HELD_OUT} images are needed to hold some out for testing, got {num}: add images, "
            "or put them into folders train/ and test/"
        )
    chosen = (np.arange(num) % _HELD_OUT == _HELD_OUT - 1) == (split == "test")
    return {key: array[chosen] for key, array in dataset.items()}


def load_npz(path: Path, split: str, name: str) -> dict[str, np.ndarray]:
    """Read a NumPy archive.

    Args:
      path: file with ``image`` [N, ...] and optionally ``label`` [N] (split by `hold_out`), or with ``train_image``,
        ``train_label``, ``test_image``, ... by split.
      split: which split.
      name: what to call the data set in errors.

    Returns:
      ``image`` and optionally ``label``.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no archive, holds pickled objects, or lacks the arrays or the split.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:
        raise ValueError(f"{name}: not a readable .npz archive of plain arrays ({error}): {path}") from error
    if "image" in arrays:
        return hold_out({key: arrays[key] for key in ("image", "label") if key in arrays}, split, name)
    known = sorted(key.removesuffix("_image") for key in arrays if key.endswith("_image"))
    if not known:
        raise ValueError(f"{name}: expected an array 'image' (or 'train_image' and 'test_image'), got {sorted(arrays)}")
    if split not in known:
        raise unknown_split(name, split, known)
    return {key: arrays[f"{split}_{key}"] for key in ("image", "label") if f"{split}_{key}" in arrays}


def _read_idx(path: Path, name: str) -> np.ndarray:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rank = data[3] if len(data) > 3 else 0
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    size = int(np.prod(shape, dtype=np.int64))
    if data[:3] != b"\0\0\x08" or rank < 1 or len(data) != 4 + 4 * rank + size:
        raise ValueError(f"{name}: not a complete idx file of bytes: {path}: fetch it again")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load_idx(directory: Path, split: str, name: str) -> dict[str, np.ndarray]:
    """Read the four files that MNIST and its relatives are distributed as, gzipped or not.

    Args:
      directory: folder with ``train-images-idx3-ubyte`` and its three companions.
      split: ``"train"`` or ``"test"``.
      name: what to call the data set in errors.

    Returns:
      ``image`` uint8 [N, H, W, 1] and ``label`` [N].

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: the split is unknown or a file is damaged.
    """
    if split not in _IDX_PREFIXES:
        raise unknown_split(name, split, list(_IDX_PREFIXES))
    arrays = []
    for kind in ("images-idx3", "labels-idx1"):
        stem = f"{_IDX_PREFIXES[split]}-{kind}-ubyte"
        found = [path for path in (directory / stem, directory / f"{stem}.gz") if path.is_file()]
        if not found:
            raise FileNotFoundError(f"{name}: expected {stem} or {stem}.gz in {directory}, found neither")
        arrays.append(_read_idx(found[0], name))
    return {"image": arrays[0][..., None], "label": arrays[1]}


def load_folder(
    directory: Path,
    split: str,
    name: str,
    image_size: int | None,
    color: Color | None,
    rows: Callable[[int], slice] | None = None,
) -> dict[str, np.ndarray]:
    """Read a folder of PNG and JPEG pictures; its subfolders, where there are any, are the labels.

    Args:
      directory: the folder; one with ``train`` and ``test`` inside brings its own splits.
      split: ``"train"``, ``"test"`` or ``"all"``.
      name: what to call the data set in errors.
      image_size: height and width in pixels; pictures are centre-cropped and resized. None if all are of one size.
      color: ``"grey"`` or ``"rgb"``; None if all are of one kind.
      rows: number of examples -> the contiguous rows to read; all when None.

    Returns:
      ``image`` uint8 [N, H, W, C], in the order of the sorted paths; ``label`` [N], the index of the subfolder in
      sorted order.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it holds no pictures, a damaged one, or sizes or modes that differ.
    """
    from PIL import Image, UnidentifiedImageError

    if not directory.is_dir():
        raise FileNotFoundError(f"{name}: no such folder: {directory}")
    own_splits = [child.name for child in sorted(directory.iterdir()) if child.name in ("train", "test")]
    if own_splits:
        if split not in own_splits:
            raise unknown_split(name, split, own_splits)
        directory = directory / split
    paths = sorted(p for p in directory.rglob("*") if p.suffix.lower() in _PICTURES and p.is_file())
    if not paths:
        raise ValueError(f"{name}: no PNG or JPEG pictures in {directory}: put some there")
    folders = [path.relative_to(directory).parts[0] if path.parent != directory else "" for path in paths]
    classes = sorted(set(folders))
    if "" in classes and len(classes) > 1:
        raise ValueError(
            f"{name}: pictures both in {directory} and in its subfolders (such as {classes[1]}): subfolders are "
            "labels, so put all of them into subfolders or none"
        )
    places = np.arange(len(paths))
    if not own_splits:
        places = hold_out({"image": places}, split, name)["image"]
    if rows is not None:
        places = places[rows(len(places))]
    paths, folders = [paths[i] for i in places], [folders[i] for i in places]
    images: list[np.ndarray] = []
    first_color: Color | None = None
    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path, formats=("PNG", "JPEG")) as picture:
                    this_color = picture_color(picture, f"{name}: {path}")
                    first_color = first_color or this_color
                    array = picture_to_array(picture, image_size, color or this_color)
        except (OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            what = "not a PNG or JPEG picture" if isinstance(error, UnidentifiedImageError) else str(error)
            raise ValueError(f"{name}: cannot read {path}: {what}: replace or remove it") from error
        if color is None and this_color != first_color:
            raise ValueError(
                f"{name}: {paths[0]} is {first_color}, {path} is {this_color}: say which to make of all "
                "(--color grey or --color rgb)"
            )
        if images and array.shape != images[0].shape:
            raise ValueError(
                f"{name}: {paths[0]} is {list(images[0].shape[:2])} pixels, {path} is {list(array.shape[:2])}: "
                "give one size for all (--image-size 64)"
            )
        images.append(array)
    dataset = {"image": np.stack(images)}
    if classes != [""]:
        dataset["label"] = np.array([classes.index(folder) for folder in folders], np.int32)
    return dataset
