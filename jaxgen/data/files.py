"""Data sets in a user's own files: ``folder:PATH``, ``npz:PATH`` and ``idx:DIR``.

The files may come from anybody: sizes are checked by their headers before anything is expanded, and no object is
unpickled.
"""

import contextlib
import gzip
import io
import math
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from jaxgen.data.images import Color, check_types, picture_color, picture_to_array
from jaxgen.data.limits import check_memory, check_pixels

_PICTURES = {".png", ".jpg", ".jpeg"}
_HELD_OUT = 10
_IDX_PREFIXES = {"train": "train", "test": "t10k"}
_IDX_RANKS = {"images-idx3": 3, "labels-idx1": 1}
_NPY_HEADER = 10_000  # bytes: NumPy's own limit
_PIECE = 2**20  # bytes read at a time


def unknown_split(name: str, split: str, known: list[str]) -> ValueError:
    """The error for a split that a data set does not have; it lists those that there are."""
    return ValueError(f"{name}: unknown split {split!r}: use one of {', '.join(known)}")


def one_line(error: Exception) -> str:
    """The message of an error of another library, which may be of many lines, as a part of one of ours."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def hold_out(num: int, split: str, name: str) -> np.ndarray | slice:
    """Split a data set that has no splits: every tenth example is for testing.

    Args:
      num: number of examples N.
      split: ``"train"``, ``"test"`` or ``"all"``.
      name: what to call the data set in errors.

    Returns:
      An index of arrays [N, ...]: the examples of the split.

    Raises:
      ValueError: the split is unknown, or there are fewer than ten examples to split.
    """
    if split not in ("train", "test", "all"):
        raise unknown_split(name, split, ["train", "test", "all"])
    if split == "all":
        return slice(None)
    if num < _HELD_OUT:
        raise ValueError(
            f"{name}: at least {_HELD_OUT} images are needed to hold some out for testing, got {num}: add images, "
            "or put them into folders train/ and test/"
        )
    return (np.arange(num) % _HELD_OUT == _HELD_OUT - 1) == (split == "test")


@contextlib.contextmanager
def _open_archive(path: Path, name: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except MemoryError:
        raise
    except Exception as error:  # of zipfile, zlib or NumPy's parser: whatever they stumble over, the file is at fault
        raise ValueError(
            f"{name}: not a readable .npz archive of plain arrays ({one_line(error)}): {path}: save it with "
            "numpy.savez, images as uint8, bool or floats, labels as integers"
        ) from error


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """A stand-in for an array of the archive: of its shape and type, but without its memory."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is packed as NumPy never does")
    with archive.open(member) as file:
        start = io.BytesIO(file.read(_NPY_HEADER))
    version = npy.read_magic(start)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0  # 3.0 only differs in names
    shape, _, dtype = read(start)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which are never unpickled")
    if min(shape, default=0) < 0 or start.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"the header of {member.filename} says {dtype} {list(shape)}, its data are of another size")
    return np.broadcast_to(np.zeros((), dtype), shape)


def load_npz(path: Path, split: str, name: str) -> dict[str, np.ndarray]:
    """Read a NumPy archive.

    Members that are not ``.npy`` files are ignored, and of the arrays only those of the split are expanded.

    Args:
      path: file with ``image`` [N, ...] and optionally ``label`` [N] (split by `hold_out`), or with ``train_image``,
        ``train_label``, ``test_image``, ... by split.
      split: which split.
      name: what to call the data set in errors.

    Returns:
      ``image`` and optionally ``label``.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no archive, holds pickled objects, or lacks the arrays or the split; or the arrays are of
        shapes or types that no data set has, or larger than this machine's memory.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no such file: {path}")
    with _open_archive(path, name) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        headers = {member.filename.removesuffix(".npy"): _read_header(archive, member) for member in members}
    prefix = ""
    if "image" not in headers:
        known = sorted(key.removesuffix("_image") for key in headers if key.endswith("_image"))
        if not known:
            raise ValueError(
                f"{name}: expected an array 'image' (or 'train_image' and 'test_image'), got {sorted(headers)}"
            )
        if split not in known:
            raise unknown_split(name, split, known)
        prefix = f"{split}_"
    wanted = {key: headers[prefix + key] for key in ("image", "label") if prefix + key in headers}
    check_types(wanted, name)
    chosen = slice(None) if prefix else hold_out(len(wanted["image"]), split, name)
    check_memory(sum(header.nbytes for header in wanted.values()), name)
    dataset = {}
    with _open_archive(path, name) as archive:
        for key in wanted:
            with archive.open(f"{prefix}{key}.npy") as file:
                dataset[key] = np.load(file, allow_pickle=False)
    return {key: array[chosen] for key, array in dataset.items()}


def _read_idx(path: Path, rank: int, name: str) -> np.ndarray:
    """Read as much as the header promises, and one byte to see that there is no more."""
    data = bytearray()
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * rank)
            shape = [int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
            size = math.prod(shape)
            if header[:4] != bytes([0, 0, 8, rank]) or len(header) < 4 + 4 * rank:
                raise _bad_idx(path, name, f"expected the header of {rank} dimensions of bytes, got {header.hex(' ')}")
            check_memory(size, name)
            while len(data) <= size and (piece := file.read(min(_PIECE, size + 1 - len(data)))):
                data += piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _bad_idx(path, name, one_line(error)) from error
    if len(data) != size:
        got = f"only {len(data)} bytes" if len(data) < size else "more bytes"
        raise _bad_idx(path, name, f"its header promises {shape}, and {got} follow")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _bad_idx(path: Path, name: str, problem: str) -> ValueError:
    return ValueError(f"{name}: not a complete idx file of bytes ({problem}): {path}: fetch it again")


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
      ValueError: the split is unknown, or a file is damaged or larger than this machine's memory.
    """
    if split not in _IDX_PREFIXES:
        raise unknown_split(name, split, list(_IDX_PREFIXES))
    arrays = []
    for kind, rank in _IDX_RANKS.items():
        stem = f"{_IDX_PREFIXES[split]}-{kind}-ubyte"
        found = [path for path in (directory / stem, directory / f"{stem}.gz") if path.is_file()]
        if not found:
            raise FileNotFoundError(f"{name}: expected {stem} or {stem}.gz in {directory}, found neither")
        arrays.append(_read_idx(found[0], rank, name))
    return {"image": arrays[0][..., None], "label": arrays[1]}


def _read_picture(path: Path, image_size: int | None, color: Color | None, name: str) -> tuple[np.ndarray, Color]:
    """The pixels of a PNG or JPEG file, and the colour it had."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_pixels decides
        try:
            picture = Image.open(path, formats=("PNG", "JPEG"))  # reads the header only
        except UnidentifiedImageError as error:
            raise _bad_picture(path, name, "not a PNG or JPEG picture") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _bad_picture(path, name, one_line(error)) from error
        with picture:
            check_pixels(picture.width, picture.height, f"{name}: {path}")
            found = picture_color(picture, f"{name}: {path}")
            try:
                return picture_to_array(picture, image_size, color or found), found
            except (OSError, SyntaxError, ValueError) as error:
                raise _bad_picture(path, name, one_line(error)) from error


def _bad_picture(path: Path, name: str, problem: str) -> ValueError:
    return ValueError(f"{name}: cannot read {path}: {problem}: replace or remove it")


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
      ValueError: it holds no pictures, a damaged or too large one, sizes or modes that differ, or more than fits
        into this machine's memory.
    """
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
        places = places[hold_out(len(paths), split, name)]
    if rows is not None:
        places = places[rows(len(places))]
    paths, folders = [paths[i] for i in places], [folders[i] for i in places]
    images: list[np.ndarray] = []
    first_color: Color | None = None
    for path in paths:
        array, this_color = _read_picture(path, image_size, color, name)
        first_color = first_color or this_color
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
        if not images:
            check_memory(len(paths) * array.nbytes, name)
        images.append(array)
    dataset = {"image": np.stack(images)}
    if classes != [""]:
        dataset["label"] = np.array([classes.index(folder) for folder in folders], np.int32)
    return dataset
