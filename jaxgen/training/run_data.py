"""What a run learns from: held in memory, or streamed where it does not fit."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxgen import data
from jaxgen.data import batch_feeds, limits
from jaxgen.data.images import Color, MixedPicturesError, check_dataset
from jaxgen.data.standardization import MOST_FEATURES, Standardization, measured
from jaxgen.evaluation.during_training import Dataset
from jaxgen.training import manifest, processes

MOST_CLASSES = 100_000  # a conditional network has parameters for each
DEVICE_SHARE = 0.5  # of a device's memory, for data: the rest is for states, gradients and activations
HOST_SHARE = 0.4  # of the host's memory, for data: while they are loaded they may be there twice


Streaming = Literal["auto", "always", "never"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataChoice:
    """Which data a run learns from, and how they are read.

    Args:
      dataset: see `jaxgen.data.load`, as are the next five.
      data_dir: where TFDS keeps prepared sets.
      manual_dir: folder with the original files of a TFDS set.
      image_size: sides in pixels, or ``"HEIGHTxWIDTH"``.
      color: ``"grey"`` or ``"rgb"``.
      fit: whether images of another shape are cropped or padded.
      train_split: the split to train on, or a slice of one.
      test_split: the split to evaluate on.
      streaming: whether the training split is read as it is needed; where it does not fit, for ``"auto"``.
      binarization: whether images are made binary once, or anew at every step.
      standardize: whether vectors of floats outside [0, 1] are brought to mean 0 and deviation 1.
      conditional: whether the number of classes must be known.
    """

    dataset: str
    data_dir: Path | None = None
    manual_dir: Path | None = None
    image_size: int | str | None = None
    color: data.Color | None = None
    fit: Literal["crop", "pad"] = "crop"
    train_split: str = "train"
    test_split: str = "test"
    streaming: Streaming = "auto"
    binarization: data.Binarization = "none"
    standardize: Literal["auto", "never"] = "auto"
    conditional: bool = False


class Data(NamedTuple):
    """What a run learns from."""

    train: Dataset | data.Source  # this process's rows of the training split, or where its batches stream from
    test: Dataset  # the whole test split
    example: Dataset  # an example of the training split, of zeros
    num_examples: int  # of the training split, over all processes
    num_classes: int | None  # a number that no label of both splits reaches; None without labels
    sha256: str  # of `jaxgen.data.LOOKED_AT` examples of the training split
    streams: str | None  # why it streams; None where it does not
    test_identity: dict[str, Any]  # what the run is evaluated on, as plain data
    class_names: tuple[str, ...] | None  # of the labels from 0 on; None where nobody knows
    standardization: Standardization | None  # of vectors that were far from [0, 1]
    unbounded: bool  # whether they are vectors that are not in [0, 1]
    notes: tuple[str, ...]  # what was read, made of it, and left out

    def known(self) -> Dataset:
        """Examples that models learn from: all, or some of those that stream."""
        return self.train.look() if isinstance(self.train, data.Source) else self.train


def dataset_name(dataset: str) -> str:
    """The name of a data set without the path of its files, which is no part of what it is."""
    kind, _, rest = dataset.partition(":")
    return f"stacked:{dataset_name(rest)}" if kind == "stacked" else kind


def dataset_title(dataset: str) -> str:
    """What pictures call a data set: its name, or that of its file or folder."""
    kind, _, rest = dataset.partition(":")
    if kind == "stacked":
        return f"stacked {dataset_title(rest)}"
    return Path(rest).absolute().name or kind if rest else kind


def why_stream(streaming: Streaming, source: data.Source, blocks: int) -> str | None:
    """Why the training split is to be streamed to a mesh of so many blocks of data; None when it is to be loaded."""
    if streaming != "auto":
        return "--streaming always" if streaming == "always" else None
    size, rule = source.nbytes, "--streaming never loads them all the same"
    there = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if there is not None and size / blocks > DEVICE_SHARE * there:
        return (
            f"its {size / 1e9:,.1f} GB are more than {DEVICE_SHARE:.0%} of the memory of {blocks} "
            f"device{'s' * (blocks > 1)} of {there / 1e9:,.1f} GB; {rule}"
        )
    there = limits.memory()
    if source.arrays is None and size / jax.process_count() > HOST_SHARE * there:
        return f"its {size / 1e9:,.1f} GB are more than {HOST_SHARE:.0%} of the {there / 1e9:,.1f} GB here; {rule}"
    return None


def load_data(
    choice: DataChoice,
    batch_size: int,
    mesh: jax.sharding.Mesh | None = None,
    standardized: Standardization | None = None,
) -> Data:
    """Load the test split and this process's share of the training split, or open the latter to be streamed.

    Either way the examples are the same, binarised where that is asked for, and standardised where they are vectors far
    from [0, 1]: as ``standardized`` says, of a run that was, or else by what there is.
    """
    places = ("data_dir", "manual_dir", "image_size", "color", "fit")
    settings: dict[str, Any] = {name: getattr(choice, name) for name in places}
    load: Any = partial(data.load, choice.dataset, **settings)
    open_source: Any = partial(data.open_source, choice.dataset, **settings)
    blocks = 1 if mesh is None else mesh.shape["data"]
    share = batch_feeds.Share(jax.process_index(), jax.process_count(), blocks)
    source, test_source = _opened(open_source, choice)
    streams = why_stream(choice.streaming, source, blocks)
    if processes.largest(int(streams is not None)) and streams is None:
        streams = "it does not fit another process"
    limits.check_memory(test_source.nbytes, f"{choice.dataset}: the test split, which is always loaded")
    test = _loaded(test_source, load, choice.test_split)
    if batch_size > source.num_examples:
        raise ValueError(
            f"--batch-size {batch_size} is larger than {choice.dataset} with its {source.num_examples} "
            f"training images: use at most {source.num_examples}"
        )
    mine = None if streams is not None else _loaded(source, load, choice.train_split, share.rows)
    unbounded = _is_unbounded(source, mine, test)
    static = choice.binarization == "static"
    if choice.binarization != "none":
        if unbounded:
            raise ValueError(
                f"--binarization {choice.binarization} is for values in [0, 1], which the vectors of {choice.dataset} "
                "are not: leave it out"
            )
        test["image"] = data.binarize_set(test["image"])
    train: Dataset | data.Source
    if mine is not None:
        train, sha256 = _finished(mine, source, share, static)
        largest = int(train["label"].max(initial=0)) if "label" in train else 0
    else:
        train, sha256 = _open(source if unbounded else _bounded(source), share, static)
        largest = 0
        if source.labels and source.num_classes is None and choice.conditional:
            raise ValueError(
                f"{choice.dataset}: how many classes its labels number is known only after reading all of them: pass "
                "--streaming never, or leave out --conditional"
            )
    standardization = _standardization(source, choice, standardized) if unbounded else None
    if standardization is not None:
        test["image"] = standardization(test["image"])
        if isinstance(train, data.Source):
            train = data.standardized(train, standardization.__call__)
        else:
            train["image"] = standardization(train["image"])
    num_classes = _num_classes(choice.dataset, source, test, processes.largest(largest)) if source.labels else None
    kind = np.dtype(np.bool_) if static else source.image_type
    example = {"image": np.zeros((1, *source.image_shape), kind)}
    if source.labels:
        example["label"] = np.zeros(1, np.int32)
    digest = hashlib.sha256(json.dumps(manifest.describe_leaves(test), sort_keys=True).encode()).hexdigest()
    measured_on = {"split": choice.test_split, "num_examples": len(test["image"]), "sha256": digest}
    notes = [f"{what}: {each.notes}" for what, each in (("train", source), ("test", test_source)) if each.notes]
    if standardization is not None:
        notes.append("the features are brought to mean 0 and deviation 1, and samples back to their units")
    return Data(
        train=train,
        test=test,
        example=example,
        num_examples=source.num_examples,
        num_classes=num_classes,
        sha256=sha256,
        streams=streams,
        test_identity=measured_on,
        class_names=source.class_names,
        standardization=standardization,
        unbounded=unbounded,
        notes=tuple(notes),
    )


def _opened(open_source: Callable[[str], data.Source], choice: DataChoice) -> list[data.Source]:
    """The training and the test split; one error says all that hinders either, and both together."""
    sources: dict[str, data.Source] = {}
    faults = []
    for split in (choice.train_split, choice.test_split):
        try:
            sources[split] = open_source(split)
        except MixedPicturesError as fault:
            faults.append(fault)
    sizes: dict[tuple[int, int], str] = {}
    colors: dict[Color, str] = {}
    for each in faults:
        sizes, colors = {**each.sizes, **sizes}, {**each.colors, **colors}
    shapes = {f"the split {split}": source.image_shape for split, source in sources.items()}
    differ = len(set(shapes.values())) > 1
    if faults or (differ and all(len(shape) == 3 and shape[2] in (1, 3) for shape in shapes.values())):
        for name, (*size, channels) in shapes.items():
            if choice.image_size is None:
                sizes.setdefault((size[0], size[1]), name)
            if choice.color is None:
                colors.setdefault("grey" if channels == 1 else "rgb", name)
        raise MixedPicturesError(choice.dataset, [line for each in faults for line in each.broken], sizes, colors)
    if differ:
        one, other = map(list, shapes.values())
        raise ValueError(
            f"{choice.dataset}: training examples are {one}, test examples {other}: give those of one shape"
        )
    return [sources[split] for split in (choice.train_split, choice.test_split)]


def _outside(vectors: np.ndarray) -> bool:
    """Whether a number is not in [0, 1]."""
    return bool(vectors.size) and not (vectors.min() >= 0 and vectors.max() <= 1)


def _is_unbounded(source: data.Source, mine: Dataset | None, test: Dataset) -> bool:
    """Whether the data are vectors that are not in [0, 1]: all of them, or where they stream, those looked at."""
    if len(source.image_shape) != 1 or source.image_type != np.float32:
        return False
    seen = source.look() if mine is None else mine
    return bool(processes.largest(int(_outside(seen["image"]) or _outside(test["image"]))))


def _bounded(source: data.Source) -> data.Source:
    """The same source, which refuses vectors that are not in [0, 1]: those looked at were."""
    if len(source.image_shape) != 1 or source.image_type != np.float32:
        return source

    def read(places: np.ndarray) -> Dataset:
        examples = source.read(places)
        if _outside(examples["image"]):
            raise ValueError(
                f"{source.name}: vectors are not all in [0, 1], as those looked at first are: pass --streaming never"
            )
        return examples

    return dataclasses.replace(source, read=read)


def _standardization(source: data.Source, choice: DataChoice, saved: Standardization | None) -> Standardization | None:
    """What brings vectors that are not in [0, 1] to mean 0 and deviation 1; None where they stay as they are."""
    (features,) = source.image_shape
    if saved is not None:
        if len(saved.mean) != features:
            raise ValueError(f"{choice.dataset} has vectors of {features} features, the run's had {len(saved.mean)}")
        return saved
    if choice.standardize == "never" or choice.dataset == "gaussians":
        return None
    if features > MOST_FEATURES:
        raise ValueError(
            f"{choice.dataset}: {features:,} features are too many to keep the mean and scale of each, at most "
            f"{MOST_FEATURES:,}: bring them to [0, 1], or pass --standardize never"
        )
    return measured(source.look()["image"])


def _loaded(source: data.Source, load: Callable[..., Dataset], split: str, rows: Any = None) -> Dataset:
    """The examples of a split, or some rows of them; pictures, whose headers were looked at, by what has done so."""
    num = source.num_examples
    chosen = slice(0, num) if rows is None else rows(num)
    if source.arrays is not None:
        return {name: array[chosen] for name, array in source.arrays.items()}
    if source.name.partition(":")[0] in ("folder", "zip"):
        return check_dataset(source.read(np.arange(num)[chosen]), source.name)
    return load(split, rows=rows)


def _finished(train: Dataset, source: data.Source, share: batch_feeds.Share, static: bool) -> tuple[Dataset, str]:
    """This process's rows of the training split as they are trained on, and the fingerprint of the whole's sample."""
    rows = share.rows(source.num_examples)
    if static:
        train["image"] = data.binarize_set(train["image"], rows.start)
    places, _ = _own_sample(source, share)
    return train, _fingerprint({name: array[places - rows.start] for name, array in train.items()}, places)


def _open(source: data.Source, share: batch_feeds.Share, static: bool) -> tuple[data.Source, str]:
    """The source of a training split that streams, and the fingerprint of the whole split's sample."""
    places, own = _own_sample(source, share)
    sample = {name: array[own] for name, array in source.look().items()}
    if static:
        source, sample["image"] = data.binarized(source), data.binarize_set(sample["image"], places)
    return source, _fingerprint(sample, places)


def _own_sample(source: data.Source, share: batch_feeds.Share) -> tuple[np.ndarray, np.ndarray]:
    """The examples that stand for the whole split, as far as they are this process's: places, and which they are."""
    places, rows = data.spread(source.num_examples, data.LOOKED_AT), share.rows(source.num_examples)
    own = (places >= rows.start) & (places < rows.stop)
    return places[own], own


def _fingerprint(sample: Dataset, places: np.ndarray) -> str:
    return f"{processes.total(data.fingerprint(sample, places)):064x}"


def _num_classes(name: str, source: data.Source, test: Dataset, largest: int) -> int:
    known = [largest + 1 if source.num_classes is None else source.num_classes]
    num_classes = max([*known, *(int(test[key].max()) + 1 for key in ("label",) if key in test)])
    if num_classes > MOST_CLASSES:
        raise ValueError(
            f"{name}: labels must number classes from 0, at most {MOST_CLASSES} of them, got a label of "
            f"{num_classes - 1}: renumber them, or leave them out"
        )
    return num_classes
