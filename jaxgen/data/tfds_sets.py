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

from jaxgen.data.images import Color, Fit, different_shapes, resize_images
from jaxgen.data.limits import check_memory
from jaxgen.data.splits import one_line, unknown_split

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


class Records:
    """A prepared split of which examples can be read one by one, without TensorFlow.

    Args:
      builder: the set's builder of TFDS.
      split: a split of it, or a slice of one.
      name: what to call the data set in errors.
      size: (height, width) wanted in pixels, or None to keep them.
      color: ``"grey"`` or ``"rgb"``, or None to keep what there is.
      fit: see `jaxgen.data.images.picture_to_array`.
    """

    def __init__(
        self, builder: Any, split: str, name: str, size: tuple[int, int] | None, color: Color | None, fit: Fit
    ) -> None:
        import tensorflow_datasets as tfds

        self._source = builder.as_data_source(split)
        self._name, self._size, self._color, self._fit = name, size, color, fit
        self.num_examples = len(self._source)
        label = dict(builder.info.features.items()).get("label")
        self.num_classes = label.num_classes if isinstance(label, tfds.features.ClassLabel) else None

    def read(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """Read some examples; from several threads at once, if need be.

        Args:
          places: which of them, int [n].

        Returns:
          ``image`` [n, H, W, C], uint8, or bool for a binarised set; ``label`` [n] where the set has one.

        Raises:
          ValueError: the images are of many sizes.
        """
        examples = self._source.__getitems__(places.tolist())
        columns = {key: [example[key] for example in examples] for key in ("image", "label") if key in examples[0]}
        return _to_arrays(columns, self._size, self._color, self._name, self._fit)


def _to_arrays(
    columns: dict[str, list[Any]], size: tuple[int, int] | None, color: Color | None, name: str, fit: Fit
) -> dict[str, np.ndarray]:
    images = columns["image"]
    if images and images[0].dtype == np.uint8 and "binarized" in name:
        dataset = {"image": np.stack(images).astype(bool)}
    else:
        dataset = {"image": resize_images(images, size, color, name, fit)}
    if columns.get("label") and np.ndim(columns["label"][0]) == 0:
        dataset["label"] = np.asarray(columns["label"])
    return dataset


def _read_all(records: Records, rows: Rows | None, name: str) -> dict[str, np.ndarray]:
    num = records.num_examples
    wanted = np.arange(num) if rows is None else np.arange(num)[rows(num)]
    dataset: dict[str, np.ndarray] = {}
    for start in range(0, len(wanted), _CHUNK):
        part = records.read(wanted[start : start + _CHUNK])
        if not dataset:
            check_memory(sum(array[0].nbytes for array in part.values()) * len(wanted), name)
            dataset = {key: np.empty((len(wanted), *a.shape[1:]), a.dtype) for key, a in part.items()}
        for key, array in part.items():
            if array.shape[1:] != dataset[key].shape[1:]:
                raise different_shapes(name, dataset[key].shape[1:], array.shape[1:])
            dataset[key][start : start + _CHUNK] = array
    return dataset


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


def _prepared_builder(name: str, split: str, data_dir: Path | None, manual_dir: Path | None) -> Any:
    """The builder of a set that has this split, prepared if it was not."""
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
    return builder


def open_tfds(
    name: str,
    split: str,
    data_dir: Path | None,
    manual_dir: Path | None,
    size: tuple[int, int] | None,
    color: Color | None,
    fit: Fit = "crop",
) -> Records | None:
    """Find an image set of TFDS, to read its examples one by one; prepare it first where that is needed.

    Args:
      name: TFDS name, e.g. ``"mnist"`` or ``"emnist/letters"``.
      split: a split of the set, or a slice of one, e.g. ``"train[:5000]"``.
      data_dir: where prepared sets lie; TFDS's default when None.
      manual_dir: folder with the set's original files, used instead of the network.
      size: (height, width) wanted in pixels, or None to keep them.
      color: ``"grey"`` or ``"rgb"``, or None to keep what there is.
      fit: see `jaxgen.data.images.picture_to_array`.

    Returns:
      The examples; None where the format they were prepared in cannot be read in any order.

    Raises:
      ValueError: the set, or the split, is unknown, or is not of images.
      ConnectionError: it is not prepared, and its files cannot be reached.
      ModuleNotFoundError: TFDS is missing, or TensorFlow where this set needs it.
    """
    builder = _prepared_builder(name, split, data_dir, manual_dir)
    if builder.info.file_format.value not in ("array_record", "parquet"):
        return None
    return Records(builder, split, name, size, color, fit)


def class_names(name: str, data_dir: Path | None) -> tuple[str, ...] | None:
    """The names of the classes of a set, in the order of their numbers; None where it has none."""
    import tensorflow_datasets as tfds

    label = dict(_builder(name, data_dir).info.features.items()).get("label")
    return tuple(label.names) if isinstance(label, tfds.features.ClassLabel) and label.names else None


def load_tfds(
    name: str,
    split: str,
    data_dir: Path | None,
    manual_dir: Path | None,
    size: tuple[int, int] | None,
    color: Color | None,
    fit: Fit = "crop",
    rows: Rows | None = None,
) -> dict[str, np.ndarray]:
    """Read an image set of TFDS, preparing it first where that is needed.

    Args:
      name: see `open_tfds`.
      split: see `open_tfds`.
      data_dir: see `open_tfds`.
      manual_dir: see `open_tfds`.
      size: see `open_tfds`.
      color: see `open_tfds`.
      fit: see `open_tfds`.
      rows: number of examples -> the contiguous rows to read; all when None.

    Returns:
      ``image`` [N, H, W, C], uint8, or bool for a binarised set; ``label`` [N] where the set has one.

    Raises:
      ValueError: the set, or the split, is unknown, is not of images, or has images of many sizes, or more than fit
        into this machine's memory.
      ConnectionError: it is not prepared, and its files cannot be reached.
      ModuleNotFoundError: TFDS is missing, or TensorFlow where this set needs it.
    """
    records = open_tfds(name, split, data_dir, manual_dir, size, color, fit)
    if records is not None:
        return _read_all(records, rows, name)
    columns = _read_with_tensorflow(_prepared_builder(name, split, data_dir, manual_dir), split, name)
    if rows is not None:
        chosen = rows(len(columns["image"]))
        columns = {key: column[chosen] for key, column in columns.items()}
    return _to_arrays(columns, size, color, name, fit)
