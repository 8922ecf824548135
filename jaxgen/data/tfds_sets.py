"""Image sets of TensorFlow Datasets by their TFDS name, read without TensorFlow where they are prepared.

TFDS itself reads and prepares. New sets are prepared as array_record, which needs TensorFlow once and never
again; sets that somebody prepared as tfrecord need it for reading as well.
"""

import difflib
import importlib.util
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from jaxgen.data.files import one_line, unknown_split
from jaxgen.data.images import Color, resize_images

WELL_KNOWN = (
    "binarized_mnist",
    "caltech101",
    "celeb_a",
    "cifar10",
    "cifar100",
    "emnist",
    "fashion_mnist",
    "kmnist",
    "lsun",
    "mnist",
    "omniglot",
    "stl10",
    "svhn_cropped",
)
_INSTALL_TENSORFLOW = "install jaxgen's 'tensorflow' extra (uv run --extra tensorflow ..., or pip install tensorflow)"
_CHUNK = 4096
# A set, its configuration and version. TFDS makes paths of them, and reads more into a name: arguments of the set's
# class, and namespaces whose code it fetches from elsewhere.
_NAME = re.compile(r"[a-z]\w*(/\w[\w.+-]*)?(:\d+\.\d+\.\d+)?", re.ASCII | re.IGNORECASE)
Rows = Callable[[int], slice]


def _hide_accelerators_from_tensorflow() -> None:
    """TensorFlow takes a GPU's whole memory when it first sees one: let it see none."""
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)


def _tensorflow_installed() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


def _builder(name: str, data_dir: Path | None) -> Any:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not the name of a data set, such as fashion_mnist or emnist/letters: for files of your own "
            "use folder:PATH, npz:PATH or idx:DIR"
        )
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{name}: reading it needs tensorflow-datasets, which is not installed ({error}): pip install "
            "tensorflow-datasets importlib-resources, or use fashion_mnist_small, folder:PATH, npz:PATH or idx:DIR"
        ) from error
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared():  # a new set is written in the format that needs no TensorFlow to be read
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name, ["fashion_mnist_small", *known], n=3)
        raise ValueError(
            f"unknown data set {name!r}{', did you mean ' + ' or '.join(close) + '?' if close else ''}: use "
            "fashion_mnist_small, folder:PATH, npz:PATH, idx:DIR, or an image set of TFDS such as "
            f"{', '.join(WELL_KNOWN)}"
        ) from error
    except (AssertionError, ValueError) as error:  # so says TFDS for a version or a configuration
        raise ValueError(
            f"{name}: no such version or configuration: use one that TFDS has ({one_line(error)})"
        ) from error
    features = builder.info.features
    if not (
        isinstance(features, tfds.features.FeaturesDict)
        and isinstance(dict(features.items()).get("image"), tfds.features.Image)
    ):
        raise ValueError(f"{name}: not a set of images: its features are {list(features or [])}")
    return builder


def _check_slice(builder: Any, split: str, name: str) -> None:
    try:
        num = builder.info.splits[split].num_examples
    except ValueError as error:
        raise ValueError(
            f"{name}: cannot take the split {split!r} ({one_line(error)}): use slices such as 'train[:5000]' or "
            "'train[50%:]'"
        ) from error
    if num == 0:
        raise ValueError(f"{name}: the split {split!r} has no images: use a larger slice")


def _check_reachable(name: str, urls: list[str], data_dir: Path, manual_dir: Path | None) -> None:
    """Fail now rather than after minutes of retries where a set's files can neither be found nor fetched."""
    import requests

    wanted = [url for url in urls if manual_dir is None or not (manual_dir / Path(urlparse(url).path).name).exists()]
    if not wanted:
        return
    try:
        requests.head(wanted[0], timeout=3)
    except requests.RequestException as error:
        host, files = (
            urlparse(wanted[0]).netloc,
            ", ".join(sorted(Path(urlparse(u).path).name for u in wanted)),
        )
        raise ConnectionError(
            f"{name}: not prepared in {data_dir}, and {host} cannot be reached ({type(error).__name__}): pass the "
            f"--data-dir where it is prepared, or put {files} into a folder and pass it as --manual-dir"
        ) from error


def _prepare(builder: Any, name: str, manual_dir: Path | None) -> None:
    import tensorflow_datasets as tfds

    if not _tensorflow_installed():
        raise ModuleNotFoundError(
            f"{name}: not prepared in {builder.data_dir}, and preparing it needs TensorFlow once: "
            f"{_INSTALL_TENSORFLOW}, or pass the --data-dir where it is prepared"
        )
    _check_reachable(name, list(builder.url_infos), Path(builder.data_dir), manual_dir)
    _hide_accelerators_from_tensorflow()
    # TFDS keeps what it extracts from manual_dir by file name alone, for all sets together: MNIST's files would
    # silently become Fashion-MNIST's, whose names are the same. So it extracts into a folder of its own each time.
    with tempfile.TemporaryDirectory(prefix="jaxgen-extracted-") as extracted:
        config = tfds.download.DownloadConfig(extract_dir=extracted, manual_dir=manual_dir, try_download_gcs=False)
        builder.download_and_prepare(download_config=config)


def _read_array_record(builder: Any, split: str, rows: Rows | None) -> dict[str, list[Any]]:
    source = builder.as_data_source(split)
    columns: dict[str, list[Any]] = {"image": [], "label": []}
    wanted = range(len(source)) if rows is None else range(len(source))[rows(len(source))]
    for start in range(0, len(wanted), _CHUNK):
        for example in source.__getitems__(wanted[start : start + _CHUNK]):
            for name, column in columns.items():
                if name in example:
                    column.append(example[name])
    return columns


def _read_with_tensorflow(builder: Any, split: str, name: str) -> dict[str, list[Any]]:
    import tensorflow_datasets as tfds

    if not _tensorflow_installed():
        raise ModuleNotFoundError(
            f"{name}: prepared in {builder.data_dir} as {builder.info.file_format.value}, which needs TensorFlow to be "
            f"read: {_INSTALL_TENSORFLOW}, or pass another --data-dir to prepare it there as array_record"
        )
    _hide_accelerators_from_tensorflow()
    columns: dict[str, list[Any]] = {"image": [], "label": []}
    for example in tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)):
        for key, column in columns.items():
            if key in example:
                column.append(example[key])
    return columns


def load_tfds(
    name: str,
    split: str,
    data_dir: Path | None,
    manual_dir: Path | None,
    image_size: int | None,
    color: Color | None,
    rows: Rows | None = None,
) -> dict[str, np.ndarray]:
    """Read an image set of TFDS, preparing it first where that is needed.

    Args:
      name: TFDS name, e.g. ``"mnist"`` or ``"emnist/letters"``.
      split: a split of the set, or a slice of one, e.g. ``"train[:5000]"``.
      data_dir: where prepared sets lie; TFDS's default when None.
      manual_dir: folder with the set's original files, used instead of the network.
      image_size: height and width wanted in pixels, or None to keep them.
      color: ``"grey"`` or ``"rgb"``, or None to keep what there is.
      rows: number of examples -> the contiguous rows to read; all when None.

    Returns:
      ``image`` [N, H, W, C], uint8, or bool for a binarised set; ``label`` [N] where the set has one.

    Raises:
      ValueError: the set, or the split, is unknown, is not of images, or has images of many sizes.
      ConnectionError: it is not prepared, and its files cannot be reached.
      ModuleNotFoundError: TFDS is missing, or TensorFlow where this set needs it.
    """
    builder = _builder(name, data_dir)
    known = sorted(builder.info.splits)
    if known and split.partition("[")[0] not in known:
        raise unknown_split(name, split, known)
    if not builder.is_prepared():
        _prepare(builder, name, manual_dir)
        known = sorted(builder.info.splits)
        if split.partition("[")[0] not in known:
            raise unknown_split(name, split, known)
    _check_slice(builder, split, name)
    if builder.info.file_format.value in ("array_record", "parquet"):
        columns = _read_array_record(builder, split, rows)
    else:
        columns = _read_with_tensorflow(builder, split, name)
        if rows is not None:
            chosen = rows(len(columns["image"]))
            columns = {key: column[chosen] for key, column in columns.items()}
    images = columns["image"]
    if images and images[0].dtype == np.uint8 and "binarized" in name:
        dataset = {"image": np.stack(images).astype(bool)}
    else:
        dataset = {"image": resize_images(images, image_size, color, name)}
    if columns["label"] and np.ndim(columns["label"][0]) == 0:
        dataset["label"] = np.asarray(columns["label"])
    return dataset
