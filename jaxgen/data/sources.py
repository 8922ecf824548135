"""Data sets that are read by index when they are needed: nothing but what is asked for is held in memory."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxgen.data.binarization import binarize_set
from jaxgen.data.files import Rows
from jaxgen.data.images import Color, Fit, check_dataset, check_types, different_shapes, resize_images
from jaxgen.data.splits import Places, spread

Read = Callable[[np.ndarray], dict[str, np.ndarray]]
LOOKED_AT = 1000  # examples that stand for a whole data set


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A split of a data set, whose examples are read by their places.

    Args:
      name: what to call it in errors.
      num_examples: number of examples, N.
      image_shape: shape of an image, [H, W, C] or [D].
      image_type: type of the images: uint8, bool or float32.
      labels: whether it has labels.
      num_classes: a number that no label reaches; None without labels, or where nobody knows.
      read: places int [n] -> ``image`` [n, ...] and, where there are labels, ``label`` int32 [n]. Called by several
        threads at once. It raises ValueError, naming the fault, for examples that are damaged, of another shape, NaN
        or out of range.
      arrays: ``image`` [N, ...] and perhaps ``label`` [N], where all of it is in memory anyway; None where not.
      class_names: of the labels from 0 on; None where nobody knows.
      notes: what was read, made of it, and left out, in a line.
    """

    name: str
    num_examples: int
    image_shape: tuple[int, ...]
    image_type: np.dtype[Any]
    labels: bool
    num_classes: int | None
    read: Read
    arrays: Mapping[str, np.ndarray] | None = None
    class_names: tuple[str, ...] | None = None
    notes: str = ""

    @property
    def example_bytes(self) -> int:
        """Size of an example in bytes: an image, and a label where there are labels."""
        return math.prod(self.image_shape) * self.image_type.itemsize + 4 * self.labels

    @property
    def nbytes(self) -> int:
        """What all examples together would take in memory, in bytes."""
        return self.num_examples * self.example_bytes

    def look(self) -> dict[str, np.ndarray]:
        """Read examples of all over the data set, `LOOKED_AT` of them, to find what is wrong with all.

        Returns:
          ``image`` [n, ...] and, where there are labels, ``label`` [n], of the places `jaxgen.data.spread`.

        Raises:
          ValueError: an example is damaged, or none of 8-bit images has a value above 1.
        """
        return check_dataset(self.read(spread(self.num_examples, LOOKED_AT)), self.name)


def in_memory(dataset: Mapping[str, np.ndarray], name: str = "the data set") -> Source:
    """A source of arrays.

    Args:
      dataset: ``image`` [N, ...] and optionally ``label`` [N], as `jaxgen.data.load` gives them.
      name: what to call it in errors.

    Returns:
      The source.
    """
    image, label = dataset["image"], dataset.get("label")

    def read(places: np.ndarray) -> dict[str, np.ndarray]:
        return {key: array[places] for key, array in dataset.items()}

    num_classes = None if label is None else int(label.max()) + 1
    return Source(name, len(image), image.shape[1:], image.dtype, label is not None, num_classes, read, arrays=dataset)


def on_demand(fetch: Read, num_examples: int, num_classes: int | None, name: str) -> Source:
    """A source that checks whatever it reads, by the first example.

    Args:
      fetch: places int [n] -> ``image`` [n, ...] and perhaps ``label`` [n], as they lie there.
      num_examples: number of examples, N.
      num_classes: a number that no label reaches; None without labels, or where nobody knows.
      name: what to call it in errors.

    Returns:
      The source.

    Raises:
      ValueError: the first example is damaged, or no example.
    """
    example = check_dataset(fetch(np.zeros(1, np.int64)), name, whole=False)
    shape, kind = example["image"].shape[1:], example["image"].dtype

    def read(places: np.ndarray) -> dict[str, np.ndarray]:
        if len(places) == 0:
            return {key: array[:0] for key, array in example.items()}
        examples = check_dataset(fetch(places), name, whole=False)
        if examples["image"].shape[1:] != shape:
            raise different_shapes(name, shape, examples["image"].shape[1:])
        return examples

    return Source(name, num_examples, shape, kind, "label" in example, num_classes, read)


def of_rows(
    rows: Mapping[str, Rows], num_examples: int, places_of: Places | None, size: tuple[int, int] | None,
    color: Color | None, name: str, fit: Fit = "crop",
) -> Source:  # fmt: skip
    """A source of arrays that lie in files.

    Args:
      rows: ``image`` [N, ...] and optionally ``label`` [N].
      num_examples: number of examples of the split.
      places_of: their numbers in the split, int [n] -> the rows they are in, int [n]; None where these are the same.
      size: (height, width) wanted in pixels, or None to keep them.
      color: ``"grey"`` or ``"rgb"``, or None to keep what there is.
      name: what to call it in errors.

    Returns:
      The source.

    Raises:
      ValueError: the arrays are of shapes or types that no data set has, or a label is out of range.
    """
    stand_ins = {key: np.broadcast_to(np.zeros((), each.dtype), each.shape) for key, each in rows.items()}
    check_types(stand_ins, name)

    def fetch(places: np.ndarray) -> dict[str, np.ndarray]:
        where = places if places_of is None else places_of(places)
        examples = {key: each.read(where) for key, each in rows.items()}
        if size is not None or color is not None:
            examples["image"] = resize_images(
                list(check_dataset(examples, name, whole=False)["image"]), size, color, name, fit
            )
        return examples

    source = on_demand(fetch, num_examples, None, name)
    return dataclasses.replace(source, num_classes=_num_classes(rows["label"], name) if source.labels else None)


def _num_classes(labels: Rows, name: str, at_once: int = 2**20) -> int:
    """One more than the largest label, of all that the files have: a piece at a time."""
    largest = 0
    for start in range(0, labels.shape[0], at_once):
        piece = labels.read(np.arange(start, min(start + at_once, labels.shape[0])))
        stand_in = np.ones((len(piece), 1), np.bool_)
        largest = max(largest, int(check_dataset({"image": stand_in, "label": piece}, name)["label"].max()))
    return largest + 1


def part_of(source: Source, rows: slice) -> Source:
    """A source of some examples of another one that follow each other.

    Args:
      source: of N examples.
      rows: which of them, from a place in [0, N) to one at most N.

    Returns:
      The source; its number of classes is the whole one's.
    """
    if source.arrays is not None:
        arrays = {key: array[rows] for key, array in source.arrays.items()}
        return dataclasses.replace(
            in_memory(arrays, source.name),
            num_classes=source.num_classes,
            class_names=source.class_names,
            notes=source.notes,
        )
    num_examples = rows.stop - rows.start
    return dataclasses.replace(
        source, num_examples=num_examples, read=lambda places: source.read(np.asarray(places) + rows.start)
    )


def binarized(source: Source) -> Source:
    """A source of the same images, each binarised with one draw: that of `jaxgen.data.binarize_set`.

    Args:
      source: of images in uint8, bool or floats in [0, 1], [N, ...].

    Returns:
      A source of binary images, bool [N, ...].
    """
    if source.arrays is not None:
        made = in_memory({**source.arrays, "image": binarize_set(source.arrays["image"])}, source.name)
        return dataclasses.replace(made, class_names=source.class_names, notes=source.notes)

    def read(places: np.ndarray) -> dict[str, np.ndarray]:
        examples = source.read(places)
        return {**examples, "image": binarize_set(examples["image"], places)}

    return dataclasses.replace(source, image_type=np.dtype(np.bool_), read=read)


def standardized(source: Source, standardization: Callable[[np.ndarray], np.ndarray]) -> Source:
    """A source of the same vectors, each standardised, float32 [N, D]."""

    def read(places: np.ndarray) -> dict[str, np.ndarray]:
        examples = source.read(places)
        return {**examples, "image": standardization(examples["image"])}

    arrays = None if source.arrays is None else {**source.arrays, "image": standardization(source.arrays["image"])}
    return dataclasses.replace(source, read=read, arrays=arrays)
