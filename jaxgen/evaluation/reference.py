"""What samples are compared with: images of a run's data or of another set, or what was kept of them."""

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from jaxgen import data
from jaxgen.data import spread
from jaxgen.data.standardization import of_plain
from jaxgen.evaluation import extractors
from jaxgen.evaluation.during_training import choose_extractor
from jaxgen.evaluation.extractors import Extractor
from jaxgen.evaluation.sample_measures import OF_IMAGES, Side
from jaxgen.evaluation.subject import Progress
from jaxgen.training.files import replacing
from jaxgen.training.run import Run
from jaxgen.training.run_data import DataChoice, dataset_name, load_data
from jaxgen.untrusted import check, one_line, parse

MOST = 10_000  # images of each side, where nothing is said
OTHER_DATA = ("the data are not those that the run was trained on",)
Bar = Callable[[str], Progress]  # says what is begun, and gives what its progress is told


class Reference(NamedTuple):
    """What runs of the same data are held against.

    Args:
      dataset: name of the data.
      split: the split of it that they are held against.
      binarization: how it was made binary; ``"none"``.
      sha256: of the split.
      test: the whole split, ``image`` [N, ...] and perhaps ``label`` [N].
      labels: of the real images that samples are compared with, int [M]; None without.
      real: these images, [M, ...].
      other: as many other real images.
      known: training images, none of them among the others, [K, ...].
      extractor: what makes the features.
      warnings: of every number.
      calibration_warnings: of every number that is calibrated.
    """

    dataset: str
    split: str
    binarization: str
    sha256: str
    test: dict[str, np.ndarray]
    labels: np.ndarray | None
    real: Side
    other: Side
    known: np.ndarray
    extractor: Extractor
    warnings: tuple[str, ...]
    calibration_warnings: tuple[str, ...]


def num_compared(asked: int | None, num_test: int, num_train: int, dataset: str) -> int:
    """How many images of each side are compared, of so many test and training images; refuses what cannot be."""
    num = min(max(num_test // 2, min(num_test, 2)), MOST) if asked is None else asked
    if not (1 if asked is None else 2) <= num <= num_test:
        raise ValueError(
            f"{num} images cannot be compared: {dataset} has {num_test} test images, give --num from 2 to that"
        )
    if num_test - num < num and num_train < 2 * num:
        raise ValueError(
            f"--num {num} leaves no {num} other real images to compare with: {dataset} has {num_test} test and "
            f"{num_train} training images"
        )
    return num


def load_reference(
    run: Run, choice: DataChoice, num: int | None, extractor_name: str, bar: Bar, against: str = "test"
) -> Reference:
    """Load the data of a ``run`` by their ``choice``, and extract what its samples are compared with.

    ``num`` images of each side are held ``against`` its ``"test"`` split, its ``"train"`` images, or another data set
    by its name; the features are of an extractor by its ``extractor_name``, and a ``bar`` is told how far they are.
    """
    identity, batch_size = run.config["identity"]["data"], run.config["identity"]["batch_size"]
    loaded = load_data(choice, batch_size, standardized=of_plain(identity.get("standardized")))
    shape = tuple(identity["image_shape"])
    if loaded.test["image"].shape[1:] != shape:
        raise ValueError(
            f"{run.directory} is of images {list(shape)}, {choice.dataset} has {loaded.test['image'].shape[1:]}"
        )
    reference = _reference(
        held={"test": loaded.test, "train": loaded.known()}.get(against) or images_of(against, shape),
        known=loaded.known()["image"],
        num=num,
        dataset=choice.dataset if against in ("test", "train") else against,
        split=choice.test_split if against == "test" else choice.train_split if against == "train" else "all",
        binarization=choice.binarization,
        extractor=choose_extractor(extractor_name, choice.dataset, shape),
        bar=bar,
        known_are_held=against == "train",
    )
    warnings = OTHER_DATA * (loaded.sha256 != identity["sha256"])
    return reference._replace(test=loaded.test, warnings=(*reference.warnings, *warnings))


class Drawn(NamedTuple):
    """Images that somebody has drawn, to be measured without the model.

    Args:
      name: the data set that they are.
      images: of them, [N, ...].
      sha256: of them.
    """

    name: str
    images: np.ndarray
    sha256: str


def images_of(name: str, shape: tuple[int, ...] | None = None) -> dict[str, np.ndarray]:
    """All images of a data set, or its test split where it has splits; of a shape that is asked for."""
    places: Any = {}
    if shape is not None and len(shape) == 3 and name.partition(":")[0] in ("folder", "zip"):
        places = {"image_size": shape[:2], "color": "grey" if shape[2] == 1 else "rgb"}
    try:
        found = data.load(name, "all", **places)
    except ValueError as error:
        if "unknown split" not in str(error):
            raise
        found = data.load(name, "test", **places)
    if shape is not None and found["image"].shape[1:] != shape:
        raise ValueError(
            f"{name} has images {list(found['image'].shape[1:])}, and {list(shape)} are wanted: bring both to one shape"
        )
    return found


def reference_of(drawn: Drawn, name: str, num: int | None, extractor_name: str, bar: Bar) -> Reference:
    """What ``drawn`` images are compared with: ``num`` of a data set by its ``name``, a third of them when None, by
    features of an extractor by its ``extractor_name``; a ``bar`` is told how far they are."""
    shape = drawn.images.shape[1:]
    held = images_of(name, shape)
    num = min(len(held["image"]) // 3, len(drawn.images), MOST) if num is None else num
    extractor = choose_extractor(extractor_name, name, shape)
    return _reference(held, held["image"][:0], num, name, "all", "none", extractor, bar)


def _reference(
    held: Mapping[str, np.ndarray],
    known: np.ndarray,
    num: int | None,
    dataset: str,
    split: str,
    binarization: str,
    extractor: Extractor,
    bar: Bar,
    known_are_held: bool = False,
) -> Reference:
    images = held["image"]
    num = num_compared(num, len(images), len(known), dataset)
    places = spread(len(images), num)
    others = np.delete(images, places, axis=0)
    calibration_warnings: tuple[str, ...] = ()
    if known_are_held or not len(known):
        taken = spread(len(others), num)
        others, known = others[taken], np.delete(others, taken, axis=0)
    elif len(others) >= num:
        others = others[spread(len(others), num)]
    else:
        # Neither the model nor, mostly, the extractor has seen test images; these it has.
        calibration_warnings = ("the real column is of training images: --num is more than half of the test images",)
        taken = spread(len(known), num)
        others, known = known[taken], np.delete(known, taken, axis=0)

    def side(images: np.ndarray, what: str) -> Side:
        found = extractors.extract(extractor, images, progress=bar(f"features of {what}"))
        return Side(images, *found)

    return Reference(
        dataset=dataset_name(dataset),
        split=split,
        binarization=binarization,
        sha256=f"{data.fingerprint(held):064x}",
        test=dict(held),
        labels=held["label"][places] if "label" in held else None,
        real=side(images[places], "real images"),
        other=side(others, "other real images"),
        known=known,
        extractor=extractor,
        warnings=(),
        calibration_warnings=calibration_warnings,
    )


def save_statistics(path: Path, reference: Reference) -> None:
    """Keep what images are compared with as an .npz file: features, and what they are of."""
    meta = {
        "format": 1,
        "extractor": reference.extractor.name,
        "extractor_sha256": reference.extractor.sha256,
        "dataset": reference.dataset,
        "split": reference.split,
        "binarization": reference.binarization,
        "sha256": reference.sha256,
        "image_shape": list(reference.real.images.shape[1:]),
    }
    arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta))}
    for name, side in (("real", reference.real), ("other", reference.other)):
        arrays[f"{name}_features"] = side.features
        if side.probabilities is not None:
            arrays[f"{name}_probabilities"] = side.probabilities
    with replacing(path) as partial:
        np.savez_compressed(partial, **arrays)


def load_statistics(path: Path, extractor: Extractor) -> Reference:
    """What `save_statistics` kept, to compare images with: no images, so that what needs them is left out."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = parse(str(arrays["meta"]), "meta")
        check(meta, _Statistics, "meta")
        features = {name: np.asarray(arrays[f"{name}_features"], np.float32) for name in ("real", "other")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(one_line(path, f"holds no statistics ({error}): write it with --save-statistics")) from error
    if meta["extractor_sha256"] != extractor.sha256:
        raise ValueError(
            f"{path} has features of {meta['extractor']}, wanted {extractor.name}: pass --extractor, or write it again"
        )
    real, other = (Side(np.empty((len(f), 0)), f, arrays.get(f"{name}_probabilities")) for name, f in features.items())
    return Reference(
        dataset=meta["dataset"],
        split=meta["split"],
        binarization=meta["binarization"],
        sha256=meta["sha256"],
        test={},
        labels=None,
        real=real,
        other=other,
        known=np.empty((0, 0)),
        extractor=extractor,
        warnings=(),
        calibration_warnings=(),
    )


class _Statistics(TypedDict):
    format: int
    extractor: str
    extractor_sha256: str
    dataset: str
    split: str
    binarization: str
    sha256: str
    image_shape: list[int]


def load_drawn(name: str) -> Drawn:
    """The images of a data set, to be measured as samples."""
    found = images_of(name)
    return Drawn(name, found["image"], f"{data.fingerprint({'image': found['image']}):064x}")


def without_images(names: Sequence[str], reference: Reference) -> tuple[list[str], list[str]]:
    """(measures that a reference allows, why others are not made): statistics hold features, and no images."""
    if reference.real.images.shape[1:] != (0,):
        return list(names), []
    kept = [name for name in names if name not in OF_IMAGES]
    return kept, [f"{name}: statistics hold no images" for name in names if name not in kept]
