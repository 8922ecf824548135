"""Data sets in a user's own arrays: ``npz:PATH`` (``.npz`` or ``.npy``) and ``idx:DIR``.

The files may come from anybody: sizes are checked by their headers before anything is expanded, and no object is
unpickled.
"""

import contextlib
import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from jaxgen.data.images import check_types, spoken
from jaxgen.data.limits import check_memory
from jaxgen.data.splits import SPLITS, Places, canonical, hold_out, one_line, standing_for, unknown_split

_IDX_PREFIXES = {"train": "train", "test": "t10k"}
_IDX_RANKS = {"images-idx3": 3, "labels-idx1": 1}
_IMAGES = ("image", "images", "x", "data", "arr_0")
_LABELS = ("label", "labels", "y", "target", "targets")
_NPY_HEADER = 10_000  # bytes: NumPy's own limit
_ZIP_HEADER = 30  # bytes of a member's own header, before its name
_PIECE = 2**20  # bytes read at a time


class Rows(NamedTuple):
    """An array [N, ...] that lies in a file as it is: its rows are read when they are asked for.

    Args:
      path: the file.
      offset: where the array begins in it, in bytes.
      shape: of the array.
      dtype: of the array.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, places: np.ndarray) -> np.ndarray:
        """Some rows; from several threads at once, if need be.

        Not by mapping the file into memory, where every row would bring its neighbours along.

        Args:
          places: which rows, int [n].

        Returns:
          The rows, [n, ...].

        Raises:
          ValueError: the file has become shorter.
        """
        rows = np.empty((len(places), *self.shape[1:]), self.dtype)
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        parts = rows.reshape(-1).view(np.uint8).data
        # Rows that follow each other are read at once.
        starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
        stops = np.append(starts[1:], len(places))
        with self.path.open("rb", buffering=0) as file:
            for start, stop, place in zip(starts.tolist(), stops.tolist(), places[starts].tolist(), strict=True):
                file.seek(self.offset + place * size)
                if file.readinto(parts[start * size : stop * size]) != (stop - start) * size:
                    raise ValueError(f"{self.path} has become shorter than it was: leave it alone while it is read")
        return rows


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


def _parse_header(start: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether columns come first, type) of a ``.npy`` file."""
    version = npy.read_magic(start)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0  # 3.0 only differs in names
    return read(start)


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """A stand-in for an array of the archive: of its shape and type, but without its memory."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is packed as NumPy never does")
    with archive.open(member) as file:
        start = io.BytesIO(file.read(_NPY_HEADER))
    shape, _, dtype = _parse_header(start)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which are never unpickled")
    if min(shape, default=0) < 0 or start.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"the header of {member.filename} says {dtype} {list(shape)}, its data are of another size")
    return np.broadcast_to(np.zeros((), dtype), shape)


class Archive(NamedTuple):
    """What a NumPy file has of a split: stand-ins of its arrays and their members, and which examples are the split's.

    Args:
      headers: ``image`` [N, ...] and perhaps ``label`` [N, ...], without their memory.
      members: the names of these in the file; of a ``.npy`` file, the empty name.
      num_examples: number of examples of the split.
      places: their numbers in the split, int [n] -> the rows they are in, int [n]; None where these are the same.
      class_names: of the labels; None where nobody says.
      notes: what was made of it, and left out.
    """

    headers: dict[str, np.ndarray]
    members: dict[str, str]
    num_examples: int
    places: Places | None
    class_names: tuple[str, ...] | None
    notes: str


def _find(known: Mapping[str, str], prefix: str, names: Sequence[str]) -> str | None:
    """The array of one of these names, with the split before or behind it: ``train_images``, ``x_train``."""
    either = [f"{first}_{last}" if last else first for n in names for first, last in ((prefix, n), (n, prefix))]
    return next((known[each.strip("_")] for each in either if each.strip("_") in known), None)


def _strings(path: Path, member: str, header: np.ndarray, name: str) -> tuple[str, ...]:
    check_memory(header.nbytes, name)
    with _open_archive(path, name) as archive, archive.open(f"{member}.npy") as file:
        return tuple(np.load(file, allow_pickle=False).reshape(-1).tolist())


def look_into_npz(path: Path, split: str, name: str) -> Archive:
    """Find the arrays of a split in an ``.npz`` archive, or in one ``.npy`` file, by their names.

    Args:
      path: file with ``image`` [N, ...] and optionally ``label`` [N] (split by `hold_out`), or with these by split,
        such as ``train_image``. ``images``, ``x``, ``data`` and ``arr_0`` are images too, ``labels``, ``y`` and
        ``target`` labels, and ``class_names`` their names; labels may be words.
      split: which split.
      name: what to call the data set in errors.

    Returns:
      What there is.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no such file: {path}")
    if path.suffix == ".npy":
        header = _npy_header(path, name)
        check_types({"image": header}, name)
        num, places = hold_out(len(header), split, name)
        return Archive({"image": header}, {"image": ""}, num, places, None, "")
    with _open_archive(path, name) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        headers = {member.filename.removesuffix(".npy"): _read_header(archive, member) for member in members}
    known = {key.lower(): key for key in headers}
    found: dict[str, dict[str, str]] = {}
    for kind, aliases in {"": ("",), **SPLITS}.items():
        for alias in aliases:
            image, label = _find(known, alias, _IMAGES), _find(known, alias, _LABELS)
            if image is not None and kind not in found:
                found[kind] = {"image": image} | ({} if label is None else {"label": label})
    if not found:
        raise ValueError(
            f"{name}: expected an array 'image' (or 'train_image' and 'test_image'), got {sorted(headers)}"
        )
    kind = "" if "" in found else standing_for(split, found, name)
    wanted = {key: headers[member] for key, member in found[kind].items()}
    check_types(wanted, name)
    names = _find(known, "", ("class_names", "label_names"))
    class_names = None
    if names is not None and headers[names].dtype.kind == "U":
        class_names = _strings(path, names, headers[names], name)
    elif "label" in wanted and wanted["label"].dtype.kind == "U":
        label = found.get("train", found[kind]).get("label", found[kind]["label"])
        class_names = tuple(sorted(set(_strings(path, label, headers[label], name))))
    used = [found[""]] if "" in found else found.values()
    taken = {*(member for arrays in used for member in arrays.values()), names}
    others = [key for key in headers if key not in taken]
    notes = [f"left out: {'arrays' if len(others) > 1 else 'array'} {', '.join(map(repr, others[:10]))}"] * bool(others)
    if kind == "validation" and canonical(split) == "test":
        notes.insert(0, f"{found[kind]['image']} stands for the test split, which is not there")
    if wanted["image"].dtype.newbyteorder("=") == np.uint16:
        notes.insert(0, "values of 16 bits made 8 (divided by 257)")
    num = len(wanted["image"])
    num, places = hold_out(num, split, name) if "" in found or set(found) == {"train"} else (num, None)
    members_of = {key: f"{member}.npy" for key, member in found[kind].items()}
    return Archive(wanted, members_of, num, places, class_names, "; ".join(notes))


def _npy_header(path: Path, name: str) -> np.ndarray:
    """A stand-in for the array of a ``.npy`` file."""
    try:
        with path.open("rb") as file:
            start = io.BytesIO(file.read(_NPY_HEADER))
        shape, _, dtype = _parse_header(start)
        if dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError("it holds Python objects, which are never unpickled")
        if start.tell() + math.prod(shape) * dtype.itemsize != path.stat().st_size:
            raise ValueError(f"its header says {dtype} {list(shape)}, its data are of another size")
    except Exception as error:  # of NumPy's parser: whatever it stumbles over, the file is at fault
        raise ValueError(
            f"{name}: not a readable .npy file ({one_line(error)}): {path}: save it with numpy.save"
        ) from error
    return np.broadcast_to(np.zeros((), dtype), shape)


def load_npz(path: Path, found: Archive, name: str) -> dict[str, np.ndarray]:
    """Read the arrays of a split that `look_into_npz` has found; words become the numbers of their classes.

    Args:
      path: the file.
      found: what is in it.
      name: what to call the data set in errors.

    Returns:
      ``image`` [N, ...] and optionally ``label``.
    """
    check_memory(sum(header.nbytes for header in found.headers.values()), name)
    dataset = {}
    if path.suffix == ".npy":
        dataset["image"] = np.load(path, allow_pickle=False)
    else:
        with _open_archive(path, name) as archive:
            for key, member in found.members.items():
                with archive.open(member) as file:
                    dataset[key] = np.load(file, allow_pickle=False)
    if found.places is not None:
        chosen = found.places(np.arange(found.num_examples))
        dataset = {key: array[chosen] for key, array in dataset.items()}
    if "label" in dataset and dataset["label"].dtype.kind == "U":
        numbers = {label: number for number, label in enumerate(found.class_names or ())}
        strangers = sorted(set(dataset["label"].tolist()) - set(numbers))
        if strangers:
            raise ValueError(
                f"{name}: {spoken(len(strangers), 'class')} that train has not, such as {strangers[0]!r}: train has "
                f"{', '.join(list(numbers)[:10])}"
            )
        dataset["label"] = np.array([numbers[label] for label in dataset["label"].tolist()], np.int32)
    return dataset


def open_npz(path: Path, found: Archive, name: str) -> dict[str, Rows] | None:
    """Find the arrays of a split in their file, to read their rows one by one.

    Checksums are of whole arrays and are not looked at.

    Args:
      path: the file.
      found: what `look_into_npz` has found in it.
      name: what to call the data set in errors.

    Returns:
      ``image`` [N, ...] and optionally ``label`` [N] as rows; None when they are compressed, not in the order of rows,
      or words.
    """
    if any(header.dtype.kind == "U" for header in found.headers.values()):
        return None
    if path.suffix == ".npy":
        with path.open("rb") as file:
            content = io.BytesIO(file.read(_NPY_HEADER))
        shape, by_columns, dtype = _parse_header(content)
        return None if by_columns and len(shape) > 1 else {"image": Rows(path, content.tell(), shape, dtype)}
    rows = {}
    with _open_archive(path, name) as archive, path.open("rb") as file:
        for key, member in found.members.items():
            info, header = archive.getinfo(member), found.headers[key]
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                return None
            file.seek(info.header_offset)
            own = file.read(_ZIP_HEADER)
            start = info.header_offset + len(own) + int.from_bytes(own[26:28], "little")
            start += int.from_bytes(own[28:30], "little")
            file.seek(start)
            content = io.BytesIO(file.read(_NPY_HEADER))
            shape, by_columns, dtype = _parse_header(content)
            offset = start + content.tell()
            if (shape, dtype) != (header.shape, header.dtype) or offset + header.nbytes > path.stat().st_size:
                raise ValueError(f"{member} is not where the directory of the archive says")
            if by_columns and len(shape) > 1:
                return None
            rows[key] = Rows(path, offset, shape, dtype)
    return rows


def _idx_shape(file: Any, path: Path, rank: int, name: str) -> list[int]:
    header = file.read(4 + 4 * rank)
    if header[:4] != bytes([0, 0, 8, rank]) or len(header) < 4 + 4 * rank:
        raise _bad_idx(path, name, f"expected the header of {rank} dimensions of bytes, got {header.hex(' ')}")
    return [int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]


def _read_idx(path: Path, rank: int, name: str) -> np.ndarray:
    """Read as much as the header promises, and one byte to see that there is no more."""
    data = bytearray()
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            shape = _idx_shape(file, path, rank, name)
            size = math.prod(shape)
            check_memory(size, name)
            while len(data) <= size and (piece := file.read(min(_PIECE, size + 1 - len(data)))):
                data += piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _bad_idx(path, name, one_line(error)) from error
    if len(data) != size:
        raise _idx_of_another_size(path, name, shape, len(data))
    return np.frombuffer(data, np.uint8).reshape(shape)


def _idx_of_another_size(path: Path, name: str, shape: list[int], size: int) -> ValueError:
    got = f"only {size} bytes" if size < math.prod(shape) else "more bytes"
    return _bad_idx(path, name, f"its header promises {shape}, and {got} follow")


def _bad_idx(path: Path, name: str, problem: str) -> ValueError:
    return ValueError(f"{name}: not a complete idx file of bytes ({problem}): {path}: fetch it again")


def _find_idx(directory: Path, split: str, name: str) -> dict[str, tuple[Path, int]]:
    """Path and rank of the files of images and labels."""
    if split not in _IDX_PREFIXES:
        raise unknown_split(name, split, list(_IDX_PREFIXES))
    files = []
    for kind, rank in _IDX_RANKS.items():
        stem = f"{_IDX_PREFIXES[split]}-{kind}-ubyte"
        found = [path for path in (directory / stem, directory / f"{stem}.gz") if path.is_file()]
        if not found:
            raise FileNotFoundError(f"{name}: expected {stem} or {stem}.gz in {directory}, found neither")
        files.append((found[0], rank))
    return dict(zip(("image", "label"), files, strict=True))


def load_idx(directory: Path, split: str, name: str) -> dict[str, np.ndarray]:
    """Read the four files that MNIST and its relatives are distributed as, gzipped or not.

    Args:
      directory: folder with ``train-images-idx3-ubyte`` and its three companions.
      split: ``"train"`` or ``"test"``.
      name: what to call the data set in errors.

    Returns:
      ``image`` uint8 [N, H, W] and ``label`` [N].

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: the split is unknown, or a file is damaged or larger than this machine's memory.
    """
    return {key: _read_idx(path, rank, name) for key, (path, rank) in _find_idx(directory, split, name).items()}


def open_idx(directory: Path, split: str, name: str) -> tuple[dict[str, Rows], int, None] | None:
    """Find the arrays of MNIST's files, to read their rows one by one.

    Args:
      directory: folder; see `load_idx`.
      split: ``"train"`` or ``"test"``.
      name: what to call the data set in errors.

    Returns:
      ``image`` uint8 [N, H, W] and ``label`` [N] as rows, and N; None when a file is gzipped.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: the split is unknown, or a file is not as long as it says.
    """
    rows = {}
    for key, (path, rank) in _find_idx(directory, split, name).items():
        if path.suffix == ".gz":
            return None
        with path.open("rb") as file:
            shape = _idx_shape(file, path, rank, name)
            offset = file.tell()
        if path.stat().st_size - offset != math.prod(shape):
            raise _idx_of_another_size(path, name, shape, path.stat().st_size - offset)
        rows[key] = Rows(path, offset, tuple(shape), np.dtype(np.uint8))
    return rows, rows["image"].shape[0], None
