"""Input that may come from anybody: what bad data say, bombs that are not expanded, and no code run from a file."""

import ast
import gzip
import io
import pickle
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import data, untrusted
from jaxgen.cli import sample
from jaxgen.cli.main import main
from jaxgen.data import files, limits
from jaxgen.evaluation.figures import save_image
from jaxgen.training.files import check_place
from tests import tiny_tfds
from tests.test_data import write_idx, write_pictures

ROOT = Path(jaxgen.__file__).parent.parent


def save_npz(path: Path, **arrays: Any) -> str:
    np.savez(path / "bad.npz", **arrays)
    return f"npz:{path / 'bad.npz'}"


def empty_folder(path: Path) -> str:
    (path / "empty").mkdir()
    return f"folder:{path / 'empty'}"


def truncated_picture(path: Path) -> str:
    write_pictures(path, size=64)
    whole = (path / "01.png").read_bytes()
    (path / "01.png").write_bytes(whole[: len(whole) // 2])
    return f"folder:{path}"


def not_a_picture(path: Path) -> str:
    write_pictures(path)
    (path / "00.png").write_text("not a picture")
    return f"folder:{path}"


def mixed_sizes(path: Path) -> str:
    write_pictures(path / "a", size=8)
    write_pictures(path / "b", size=9)
    return f"folder:{path}"


def mixed_modes(path: Path) -> str:
    write_pictures(path / "a")
    write_pictures(path / "b", mode="RGB")
    return f"folder:{path}"


def floats(path: Path) -> str:
    write_pictures(path)
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(path / "deep.tif")
    return f"folder:{path}"


def pictures_beside_folders(path: Path) -> str:
    write_pictures(path, num=3)
    write_pictures(path / "a", num=3)
    return f"folder:{path}"


def npy(shape: str, content: bytes = b"") -> bytes:
    """A .npy file of floats whose header says whatever is given."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + content


def pack(path: Path, members: dict[str, bytes], size: int | None = None, compression: int = zipfile.ZIP_STORED) -> str:
    """An archive of these members; its directory says that each is of ``size`` bytes when that is given."""
    with zipfile.ZipFile(path / "bad.npz", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
            if size is not None:
                archive.getinfo(name).file_size = size
    return f"npz:{path / 'bad.npz'}"


def patch(path: Path, change: Callable[[bytes], bytes], dataset: str) -> str:
    path.write_bytes(change(path.read_bytes()))
    return dataset


def damaged_archive(path: Path) -> str:
    dataset = save_npz(path, image=GREY)
    return patch(path / "bad.npz", lambda whole: whole.replace(GREY.tobytes(), GREY.tobytes()[:-1] + b"x"), dataset)


def locked_archive(path: Path) -> str:
    """The directory's flags say that the member is encrypted."""
    dataset = save_npz(path, image=GREY)

    def lock(whole: bytes) -> bytes:
        flags = whole.index(b"PK\1\2") + 8
        return whole[:flags] + b"\1" + whole[flags + 1 :]

    return patch(path / "bad.npz", lock, dataset)


def idx(path: Path, content: bytes, *, packed: bool = False) -> str:
    """MNIST's files with other images."""
    write_idx(path / "train-labels-idx1-ubyte", np.arange(10, dtype=np.uint8))
    (path / f"train-images-idx3-ubyte{'.gz' if packed else ''}").write_bytes(content)
    return f"idx:{path}"


def idx_header(*shape: int, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header claims any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def picture(path: Path, file: str, content: bytes) -> tuple[str, str]:
    (path / file).write_bytes(content)
    return f"folder:{path}", "all"


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 32), 100, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


GREY = np.full((10, 4, 4, 1), 0.5, np.float32)
# name: (how to make it under a folder: the data set, or that, a split and an image size; what the error says).
BAD_DATA: dict[str, tuple[Any, str]] = {
    "unknown set": (lambda p: "minst", r"unknown data set 'minst', did you mean mnist.*fashion_mnist_small"),
    "no images in TFDS": (lambda p: "glue", "unknown data set 'glue'|not a set of images"),
    "unknown split": (
        lambda p: ("fashion_mnist_small", "valid"),
        "unknown split 'valid': use one of test, train",
    ),
    "no path": (lambda p: "folder:", "give a path after the colon"),
    "missing folder": (lambda p: f"folder:{p / 'nowhere'}", "no such folder"),
    "missing user": (lambda p: "npz:~nobody-of-that-name/a.npz", "no such file or folder .*give its full path"),
    "missing file": (lambda p: f"npz:{p / 'nowhere.npz'}", "no such file"),
    "empty folder": (empty_folder, r"no pictures \(\.png, .* in .*empty: put some there"),
    "truncated picture": (truncated_picture, r"cannot read .*01\.png"),
    "not a picture": (
        not_a_picture,
        r"cannot read .*00\.png: not a PNG, JPEG, WebP, TIFF, BMP or GIF picture: replace or remove it",
    ),
    "mixed sizes": (mixed_sizes, r"00\.png is \[8, 8\] pixels, .*00\.png is \[9, 9\]: give one size"),
    "mixed modes": (mixed_modes, r"is grey, .* is rgb: .*--color"),
    "pictures of floats": (floats, "pictures must be grey or RGB, got mode F: convert"),
    "pictures beside folders": (pictures_beside_folders, "subfolders are labels"),
    "no room to hold out": (lambda p: save_npz(p, image=GREY[:5]), "at least 10 images are needed"),
    "no archive": (lambda p: (p / "bad.npz").write_text("text") and f"npz:{p / 'bad.npz'}", "not a readable"),
    "no image array": (lambda p: save_npz(p, pictures=GREY), r"expected an array 'image'.*\['pictures'\]"),
    "no images": (lambda p: (save_npz(p, image=GREY[:0]), "all"), "no images"),
    "NaN": (lambda p: save_npz(p, image=np.full_like(GREY, np.nan)), "NaN or infinite"),
    "above 1": (lambda p: save_npz(p, image=GREY * 300), r"in \[0, 1\], got values from 150 to 150"),
    "binary as uint8": (lambda p: save_npz(p, image=GREY.astype(np.uint8)), "store binary images as bool"),
    "int32 images": (
        lambda p: save_npz(p, image=(GREY * 600).astype(np.int32)),
        "uint8, bool or float, got int32 with values from 300 to 300",
    ),
    "wrong rank": (lambda p: save_npz(p, image=np.zeros((10, 2, 2, 2, 2), np.float32)), r"\[N, H, W, C\]"),
    "too few labels": (
        lambda p: (save_npz(p, image=GREY, label=np.arange(9)), "all"),
        "one integer per image",
    ),
    "negative label": (lambda p: save_npz(p, image=GREY, label=np.arange(10) - 1), "at least 0"),
    "no size": (lambda p: ("fashion_mnist_small", "train", 0), "at least 1 pixel"),
    "huge size": (lambda p: ("fashion_mnist_small", "train", 10**6), "at most 8192, got 1000000"),
    # Archives.
    "archive cut short": (
        lambda p: patch(p / "bad.npz", lambda w: w[:-40], save_npz(p, image=GREY)),
        "not a readable .npz archive .*save it with numpy.savez",
    ),
    "archive damaged": (damaged_archive, "not a readable .npz archive .*CRC"),
    "archive locked": (locked_archive, "not a readable .npz archive .*encrypted"),
    "archive packed otherwise": (
        lambda p: pack(p, {"image.npy": npy("(10, 4)", bytes(160))}, compression=zipfile.ZIP_BZIP2),
        "image.npy is packed as NumPy never does",
    ),
    "archive without arrays": (lambda p: pack(p, {"README.txt": b"hello"}), r"expected an array 'image'.*got \[\]"),
    "array not an array": (lambda p: pack(p, {"image.npy": b"text"}), "not a readable .npz archive of plain arrays"),
    "header of another size": (
        lambda p: pack(p, {"image.npy": npy("(10, 4)", bytes(150))}),
        r"header of image\.npy says float32 \[10, 4\], its data are of another size",
    ),
    "header with negative sizes": (
        lambda p: pack(p, {"image.npy": npy("(-10, -4)", bytes(160))}),
        r"header of image\.npy says float32 \[-10, -4\]",
    ),
    "header of brackets": (lambda p: pack(p, {"image.npy": npy("(" * 9000)}), "not a readable .npz archive"),
    "header of gigabytes": (
        lambda p: pack(p, {"image.npy": b"\x93NUMPY\2\0\xff\xff\xff\xff"}, size=2**32 + 11),
        "not a readable .npz archive",
    ),
    "array larger than the memory": (
        lambda p: pack(p, {"image.npy": (head := npy("(10, 1000000, 25000000)"))}, size=len(head) + 10**15),
        r"need 1,000,000\.0 GB, this machine has [\d,.]+ GB of memory: use fewer or smaller images",
    ),
    "one number": (lambda p: save_npz(p, image=np.float32(1)), r"must be \[N, H, W, C\] or \[N, D\], got shape \[\]"),
    "complex images": (lambda p: save_npz(p, image=GREY.astype(complex)), "uint8, bool or float, got complex128"),
    "too large for float32": (lambda p: save_npz(p, image=np.full((10, 4), 1e300)), "infinite values as float32"),
    "dates as labels": (
        lambda p: save_npz(p, image=GREY, label=np.array(["2020-01-01"] * 10, np.datetime64)),
        r"one integer per image, \[10\], got datetime64",
    ),
    "too few labels to split": (
        lambda p: save_npz(p, image=GREY, label=np.arange(9)),
        r"one integer per image, \[10\], got int64 \[9\]",
    ),
    "huge label": (lambda p: save_npz(p, image=GREY, label=np.arange(10) + 2**32), "fit into int32, got 4294967296"),
    # MNIST's files.
    "idx: gzip cut short": (
        lambda p: idx(p, gzip.compress(idx_header(10, 2, 2) + bytes(40))[:-12], packed=True),
        r"not a complete idx file of bytes \(.*\.gz: fetch it again",
    ),
    "idx: gzip damaged": (
        lambda p: idx(p, gzip.compress(idx_header(10, 2, 2) + bytes(40))[:12] + b"\xff" * 20, packed=True),
        "not a complete idx file of bytes",
    ),
    "idx: not gzip": (lambda p: idx(p, b"<html>not found</html>", packed=True), "Not a gzipped file.*fetch it again"),
    "idx: a web page": (lambda p: idx(p, b"<html>not found</html>"), "expected the header of 3 dimensions of bytes"),
    "idx: empty": (lambda p: idx(p, b""), "expected the header of 3 dimensions of bytes"),
    "idx: floats": (lambda p: idx(p, idx_header(10, 2, 2, kind=13)), "expected the header.* got 00 00 0d 03"),
    "idx: labels as images": (lambda p: idx(p, idx_header(10) + bytes(10)), "expected the header of 3 dimensions"),
    "idx: less than it says": (
        lambda p: idx(p, idx_header(10, 2, 2)),
        r"promises \[10, 2, 2\], and only 0 bytes follow",
    ),
    "idx: more than it says": (lambda p: idx(p, idx_header(1, 2, 2) + bytes(9)), "and more bytes follow"),
    "idx: larger than the memory": (lambda p: idx(p, idx_header(2**31, 2**20, 2)), "GB, this machine has"),
    "idx: more labels than images": (
        lambda p: idx(p, idx_header(2, 1, 1) + b"ab"),
        r"one integer per image, \[2\], got uint8 \[10\]",
    ),
    # Pictures.
    "an ICO called .png": (lambda p: picture(p, "a.png", encoded("ICO")), r"a\.png: not a PNG, .* picture: replace"),
    "an SVG called .png": (lambda p: picture(p, "a.png", b"<svg width='9'/>"), r"a\.png: not a PNG, .* picture"),
    "an empty picture": (lambda p: picture(p, "a.png", b""), r"a\.png: not a PNG, JPEG"),
    "a sound called .webp": (lambda p: picture(p, "a.webp", b"RIFF\0\0\0\0WAVEfmt "), r"a\.webp: not a PNG, JPEG"),
    "a TIFF cut short": (lambda p: picture(p, "a.tif", encoded("TIFF")[:-40]), r"cannot read .*a\.tif: "),
    "a WebP cut short": (lambda p: picture(p, "a.webp", encoded("WEBP")[:-40]), r"cannot read .*a\.webp: "),
    "a WebP of promises": (
        lambda p: picture(p, "a.webp", b"RIFF\xff\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0" + b"\xff" * 6 + bytes(200)),
        r"a\.webp: pictures may have at most 67,108,864 pixels, its header says 16,777,216 x 16,777,216",
    ),
    "no zip archive": (
        lambda p: (p / "a.zip").write_text("text") and f"folder:{p / 'a.zip'}",
        "not a readable zip archive",
    ),
    "HDF5": (lambda p: "npz:data.h5", "files of this kind are not read: with h5py.File"),
    "a tar": (lambda p: "folder:data.tar", r"unpack it \(tar -xf\), and pass folder:PATH"),
    "a JPEG cut short": (
        lambda p: picture(p, "a.jpeg", encoded("JPEG")[:-40]),
        r"cannot read .*a\.jpeg: .*[Tt]runcated",
    ),
    "a picture's header cut short": (
        lambda p: picture(p, "a.png", png(4, 4)[:8] + chunk(b"IHDR", b"short")),
        r"cannot read .*a\.png: Truncated IHDR chunk: replace or remove it",
    ),
    "a picture of 67 million pixels": (
        lambda p: picture(p, "a.png", png(8192, 8193)),
        r"a\.png: pictures may have at most 67,108,864 pixels, its header says 8,192 x 8,193: shrink",
    ),
    "a picture of 10^18 pixels": (lambda p: picture(p, "a.png", png(10**9, 10**9)), r"a\.png.* pixels"),
    # Names.
    "a path as a name": (lambda p: "../mnist", r"'\.\./mnist' is not the name of a data set.*folder:PATH"),
    "an absolute path as a name": (lambda p: str(p), "is not the name of a data set"),
    "a path as a configuration": (lambda p: "emnist/../mnist", "is not the name of a data set"),
    "a backslash in a name": (lambda p: "data\\mnist", "is not the name of a data set"),
    "code from elsewhere": (lambda p: "huggingface:mnist", "is not the name of a data set"),
    "arguments in a name": (lambda p: "mnist/data_dir=somewhere", "is not the name of a data set"),
    "two lines as a name": (lambda p: "mnist\n", "is not the name of a data set"),
    "no name": (lambda p: "", "'' is not the name of a data set"),
    "unknown version": (lambda p: "mnist:9.9.9", "no such version or configuration.*3.0.1"),
    "unknown configuration": (lambda p: "emnist/nope", "no such version or configuration.*nope not found"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_get_one_clear_line(name: str, tmp_path: Path) -> None:
    make, message = BAD_DATA[name]
    made = make(tmp_path)
    dataset, split, image_size = (made, "train", None) if isinstance(made, str) else (*made, None)[:3]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        data.load(dataset, split, image_size=image_size)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\x", "~/x", "C:x", "a/b/c", ".x", "a\0"])
def test_no_name_becomes_a_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TFDS makes paths of names: it does not even get to see these."""
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match="is not the name of a data set"):
        data.load(name)


def test_slices_that_tfds_cannot_take(tmp_path: Path) -> None:
    tiny_tfds.prepare(tmp_path)
    for split in ("train[:x]", "train[", "train[20:99]", "train[3:3]"):
        with pytest.raises(ValueError, match=r"tiny_garments: .*split 'train\[.*: use .*slice") as caught:
            data.load("tiny_garments", split, data_dir=tmp_path)
        assert "\n" not in str(caught.value)


def test_only_the_split_asked_for_is_expanded(tmp_path: Path) -> None:
    """Damage in another split, strings, and members that are no arrays do not matter."""
    test = np.tile(GREY, (100, 1, 1, 1))
    dataset = save_npz(tmp_path, train_image=GREY, test_image=test, names=np.array(["boot"]))
    with zipfile.ZipFile(tmp_path / "bad.npz", "a") as archive:
        archive.writestr("README.txt", "hello")
    patch(tmp_path / "bad.npz", lambda whole: whole.replace(test.tobytes(), test.tobytes()[:-1] + b"x"), dataset)
    np.testing.assert_array_equal(data.load(dataset)["image"], GREY)
    with pytest.raises(ValueError, match="CRC"):
        data.load(dataset, "test")


def test_an_archive_must_fit_into_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = save_npz(tmp_path, train_image=GREY, train_label=np.arange(10), test_image=np.tile(GREY, (2, 1, 1, 1)))
    monkeypatch.setattr(limits, "memory", lambda: GREY.nbytes + 80)
    assert len(data.load(dataset)["image"]) == 10  # just fits, whatever the other split needs
    with pytest.raises(ValueError, match="use fewer or smaller images"):
        data.load(dataset, "test")


def test_pictures_must_fit_into_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known after the first of them: the second, which is damaged, is not reached."""
    write_pictures(tmp_path, num=3, size=4, mode="RGB")
    whole = (tmp_path / "01.png").read_bytes()
    (tmp_path / "01.png").write_bytes(whole[:-30])
    monkeypatch.setattr(limits, "memory", lambda: 3 * 4 * 4 * 3 - 1)
    with pytest.raises(ValueError, match="use fewer or smaller images"):
        data.load(f"folder:{tmp_path}", "all")
    with pytest.raises(ValueError, match=r"cannot read .*01\.png: .*[Tt]runcated"):
        data.load(f"folder:{tmp_path}", "all", image_size=2)


def test_enlarged_images_must_fit_into_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory", lambda: 10**7)
    with pytest.raises(ValueError, match=r"need 0\.5 GB, this machine has 0\.0 GB"):
        data.load(image_size=500)


def test_the_memory_of_this_machine() -> None:
    assert 2**28 < limits.memory() < 2**50


@pytest.mark.parametrize("pil_limit", [None, 10, 10**12])
def test_the_limit_of_pixels_is_not_pils(
    pil_limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may have lifted PIL's, or lowered it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pil_limit)
    write_pictures(tmp_path, num=1, size=4)
    assert data.load(f"folder:{tmp_path}", "all")["image"].shape == (1, 4, 4, 1)
    with pytest.raises(ValueError, match=r"a\.png: .*pixels"):
        data.load(*picture(tmp_path, "a.png", png(30_000, 30_000)))


def zip_bomb(path: Path) -> str:
    """Its header claims to be as long as the expanded member."""
    content = b"\x93NUMPY\2\0" + (2 * 10**7).to_bytes(4, "little") + bytes(2 * 10**7)
    return pack(path, {"image.npy": content}, compression=zipfile.ZIP_DEFLATED)


def gzip_bomb(path: Path) -> str:
    return idx(path, gzip.compress(idx_header(10, 1, 1) + bytes(2 * 10**7), 1), packed=True)


def idx_of_promises(path: Path) -> str:
    """A header that claims 100 MB, and nothing behind it."""
    return idx(path, gzip.compress(idx_header(100, 1000, 1000)), packed=True)


@pytest.mark.parametrize("make", [zip_bomb, gzip_bomb, idx_of_promises])
def test_bombs_are_not_expanded(make: Callable[[Path], str], tmp_path: Path) -> None:
    dataset = make(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not a"):
            data.load(dataset)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("file", "make"),
    [
        ("bad.npz", lambda p: save_npz(p, image=GREY)),
        ("train-images-idx3-ubyte.gz", lambda p: idx(p, gzip.compress(idx_header(10, 2, 2) + bytes(40)), packed=True)),
        ("a.png", lambda p: picture(p, "a.png", encoded("PNG"))),
        ("a.jpg", lambda p: picture(p, "a.jpg", encoded("JPEG"))),
    ],
)
def test_damage_anywhere_is_harmless_or_one_clear_line(file: str, make: Callable[[Path], Any], tmp_path: Path) -> None:
    """Single bytes changed at random places, headers and checksums included."""
    made = make(tmp_path)
    dataset, split = (made, "train" if file.endswith(".gz") else "all") if isinstance(made, str) else made
    whole = (tmp_path / file).read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        (tmp_path / file).write_bytes(damaged)
        try:
            data.load(dataset, split)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all(str(tmp_path) in message and "\n" not in message for message in messages)


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def canary_array(path: Path) -> np.ndarray:
    return np.array([Canary(path / "sings")] * 10, dtype=object)


def canary_npy(path: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, canary_array(path), allow_pickle=True)
    return buffer.getvalue()


def raw(path: Path, content: bytes) -> str:
    (path / "bad.npz").write_bytes(content)
    return f"npz:{path / 'bad.npz'}"


CANARIES: dict[str, Callable[[Path], str]] = {
    "savez": lambda p: save_npz(p, image=canary_array(p)),
    "as labels": lambda p: save_npz(p, image=GREY, label=canary_array(p)),
    "beside good arrays": lambda p: save_npz(p, image=GREY, other=canary_array(p)),
    "in another split": lambda p: save_npz(p, train_image=GREY, test_image=canary_array(p)),
    "a bare .npy in a zip": lambda p: pack(p, {"image.npy": canary_npy(p)}),
    "a bare .npy called .npz": lambda p: raw(p, canary_npy(p)),
    "a bare pickle called .npz": lambda p: raw(p, pickle.dumps(Canary(p / "sings"))),
    "a bare pickle in a zip": lambda p: pack(p, {"image.npy": pickle.dumps(Canary(p / "sings"))}),
    "in a field": lambda p: save_npz(p, image=np.array([(1, Canary(p / "sings"))], dtype=[("a", int), ("b", object)])),
}


@pytest.mark.parametrize("name", CANARIES)
def test_nothing_is_unpickled(name: str, tmp_path: Path) -> None:
    dataset = CANARIES[name](tmp_path)
    with pytest.raises(ValueError, match=r"not a readable \.npz archive of plain arrays"):
        data.load(dataset)
    assert not (tmp_path / "sings").exists()


def test_the_canary_sings(tmp_path: Path) -> None:
    """Where pickles are allowed: the test above could fail."""
    np.load(io.BytesIO(canary_npy(tmp_path)), allow_pickle=True)
    assert (tmp_path / "sings").exists()


PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
LOADERS = {"yaml": {"load", "load_all", "unsafe_load", "full_load"}, "torch": {"load"}}


def runs_code(source: str) -> list[str]:
    """What in a program could run code that a file brings: one line each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node).partition("\n")[0]
        match node:
            case ast.Import(names=names):
                bad = any(alias.name.partition(".")[0] in PICKLERS for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                package = module.partition(".")[0]
                hidden = LOADERS.get(module, set()) | (RUNNERS if module == "builtins" else set())
                bad = package in PICKLERS or any(alias.name in hidden for alias in names)
            case ast.Name(id=name):
                bad = name in RUNNERS
            case ast.Call(func=function, args=arguments, keywords=keywords):
                called = ast.unparse(function)
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in keywords}
                bad = (
                    given.get("allow_pickle", "False") != "False"
                    or (called in ("np.load", "numpy.load") and len(arguments) > 2)  # the third is allow_pickle
                    or (called == "torch.load" and given.get("weights_only") != "True")
                    or any(called == f"yaml.{name}" for name in LOADERS["yaml"])
                    or (called.endswith("import_module") and any(ast.unparse(a)[1:-1] in PICKLERS for a in arguments))
                    or called.endswith("read_pickle")
                    or called in {f"builtins.{name}" for name in RUNNERS}
                )
            case _:
                bad = False
        if bad:
            found.append(f"line {getattr(node, 'lineno', 0)}: {text}")
    return found


SOURCES = sorted(path for folder in ("jaxgen", "experiments", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_program_runs_code_from_files(path: Path) -> None:
    assert runs_code(path.read_text()) == []


def test_the_programs_are_found() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == {"jaxgen", "experiments", "benchmarks"}
    assert Path(files.__file__) in SOURCES


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import os, joblib.memory",
        "from dill import loads",
        "def f():\n    import marshal",
        "importlib.import_module('shelve')",
        "__import__('pickle')",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "np.load(path, None, True)",
        "eval(text)",
        "run = exec",
        "builtins.exec(text)",
        "from builtins import eval as calculate",
        "compile(text, '', 'exec')",
        "yaml.load(text)",
        "from yaml import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "from torch import load",
        "pandas.read_pickle(path)",
    ],
)
def test_the_test_of_programs_can_fail(line: str) -> None:
    assert runs_code(f"x = 1\n{line}\n") != []


def test_the_test_of_programs_lets_good_ones_pass() -> None:
    good = """
import json, re, importlib
import torch
pattern = re.compile("a")
step = jax.jit(f).lower(x).compile()
model.eval()
np.load(path, allow_pickle=False)
torch.load(path, weights_only=True)
yaml.safe_load(text)
importlib.import_module("experiments.configs")
"""
    assert runs_code(good) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "train vae --latent-dim 1000000000",
            r"^error: the run needs at least [\d.,]+ GB \(2 states of .* model$",
        ),
        ("train vae --architecture conv --width 10000000", "smaller model"),
        ("train gan --architecture dcgan --width 1000000", "smaller model"),
        ("train vae --prior vamp --num-pseudo-inputs 1000000000", "smaller model"),
        ("train vae --num-samples 1000000000", r"MB of images\), and cpu has [\d.,]+ GB: use a smaller model"),
        (
            "sweep vae --over beta=1,2 --seeds 1000000000",
            "2 settings with --seeds 1000000000 each are more than 1",
        ),
        ("sweep vae --over beta=1:2 --random 1000000000", "--random 1000000000 are more than 100000 settings"),
    ],
)
def test_models_must_fit_into_the_memory(
    words: str, said: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 1
    captured = capsys.readouterr()
    assert re.search(said, captured.err.rstrip("\n"))
    assert captured.err.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_samples_must_find_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = SimpleNamespace(image_shape=(28, 28, 1))
    for out, num, said in (
        ("a.npz", 10**9, r"--num 1000000000: its arrays need 6,272\.0 GB"),
        ("a.png", 10**5, "pictures may have at most"),
        ("folder", 2**31 - 1, "as many pictures need at least 8,796.1 GB, and"),
    ):
        with pytest.raises(ValueError, match=said):
            sample.check_room(model, sample.Options(Path("run"), num, tmp_path / out))
        sample.check_room(model, sample.Options(Path("run"), 64, tmp_path / out))
    monkeypatch.setattr(limits, "memory", lambda: 1000)
    np.savez_compressed(tmp_path / "bomb.npz", zeros=np.zeros(10**6, np.uint8))
    with pytest.raises(ValueError, match=r"bomb\.npz: its arrays need 0\.0 GB"):
        limits.check_archive(tmp_path / "bomb.npz")


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux has it")
def test_the_memory_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = limits.memory()
    (tmp_path / "max").write_text("123456\n")
    monkeypatch.setattr(limits, "_LIMIT", tmp_path / "max")
    assert limits.memory() == 123456
    for text in ("max\n", ""):
        (tmp_path / "max").write_text(text)
        assert limits.memory() >= whole
    program = "import resource as r; r.setrlimit(r.RLIMIT_RSS, (10**7, -1)); from jaxgen.data.limits import memory"
    asked = [sys.executable, "-c", f"{program}; print(memory())"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "10000000\n"


def test_a_message_is_one_line() -> None:
    assert untrusted.printed("a\nb\r\u2028\x1b[31m é") == r"a\nb\r\u2028\x1b[31m é"
    assert untrusted.printed("\udcff") == r"\udcff"
    long = untrusted.printed(f"there is nothing at /{'x' * 4000}/end.png: give a folder")
    assert long.startswith("there is nothing at /xxx")
    assert long.endswith("xxx/end.png: give a folder")
    assert len(long) < 300
    assert len(untrusted.printed("word " * 4000)) <= 1000


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text").touch()
    for path in (tmp_path / "folder.png", tmp_path / "text" / "a.png", tmp_path / f"{'x' * 300}.png"):
        with pytest.raises(OSError, match=r"\.png|text") as error:
            save_image(path, np.zeros((2, 2, 3), np.uint8), "nothing")
        assert "partial" not in str(error.value)
        with pytest.raises(OSError, match=r"\.png|Not a directory|too long"):
            check_place(path)
    check_place(tmp_path / "new" / "deep" / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "text"]
