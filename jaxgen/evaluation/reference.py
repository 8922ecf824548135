"""What samples are compared with: images of a run's data or of another set, or what was kept of them."""

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from jaxgen import data
from jaxgen.data import spread
from jaxgen.data.limits import check_archive
from jaxgen.data.standardization import of_plain
from jaxgen.evaluation import extractors
from jaxgen.evaluation.during_training import choose_extractor
from jaxgen.evaluation.extractors import Extractor
from jaxgen.evaluation.measures import REBUILT
from jaxgen.evaluation.sample_measures import OF_IMAGES, Side
from jaxgen.evaluation.subject import Progress
from jaxgen.training.files import replacing
from jaxgen.training.run import Run
from jaxgen.training.run_data import DataChoice, dataset_name, load_data
from jaxgen.untrusted import ImageType, check, one_line, parse

_FORMAT = 1  # of kept statistics
MOST = 5_000  # images of each side, where nothing is said
OTHER_DATA = ("the data are not those that the run was trained on",)
Bar = Callable[[str], Progress]  # says what is begun, and gives what its progress is told


class Split(NamedTuple):
    """Which images a number is of.

    Args:
      dataset: name of the data.
      split: the split of it.
      binarization: how it was made binary; ``"none"``.
      sha256: of the split.
    """

    dataset: str
    split: str
    binarization: str
    sha256: str


class Reference(NamedTuple):
    """What runs of the same data are held against.

    Args:
      compared: what samples are compared with.
      tested: what models are tested on.
      test: that, ``image`` [N, ...] and perhaps ``label`` [N].
      labels: for which a conditional model draws its samples, int [M]; None without.
      real: the images that samples are compared with, [M, ...].
      other: as many other real images.
      known: images that nearest neighbours are sought among, none of them among the others, [K, ...].
      among: what these are, in words.
      extractor: what makes the features.
      warnings: of every number.
      calibration_warnings: of every number that is calibrated.
    """

    compared: Split
    tested: Split
    test: dict[str, np.ndarray]
    labels: np.ndarray | None
    real: Side
    other: Side
    known: np.ndarray
    among: str
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

    ``num`` images of each side are held ``against`` its ``"test"`` split, its ``"train"`` images, another data set by
    its name, or kept statistics by their file; the features are of an extractor by its ``extractor_name``, and a
    ``bar`` is told how far they are.
    """
    identity, batch_size = run.config["identity"]["data"], run.config["identity"]["batch_size"]
    standardized = of_plain(identity.get("standardized"))
    loaded = load_data(choice, batch_size, standardized=standardized)
    shape = tuple(identity["image_shape"])
    if loaded.test["image"].shape[1:] != shape:
        raise ValueError(
            f"{run.directory} is of images {list(shape)}, {choice.dataset} has {loaded.test['image'].shape[1:]}"
        )
    extractor = choose_extractor(extractor_name, choice.dataset, shape)
    own, warnings = dataset_name(choice.dataset), OTHER_DATA * (loaded.sha256 != identity["sha256"])
    tested = Split(own, choice.test_split, choice.binarization, f"{data.fingerprint(loaded.test):064x}")
    known = loaded.known()
    if against == "test":
        found = _reference(loaded.test, known["image"], num, tested, extractor, bar)
    elif against == "train":
        split = Split(own, choice.train_split, choice.binarization, f"{data.fingerprint(known):064x}")
        found = _reference(known, None, num, split, extractor, bar)
    else:
        if is_statistics(against):
            found = load_statistics(Path(against), extractor_name, shape)
        else:
            held = images_of(against, shape)
            split = Split(dataset_name(against), "all", "none", f"{data.fingerprint(held):064x}")
            if standardized is not None:
                held = {**held, "image": standardized(held["image"])}
            found = _reference(held, known["image"], num, split, extractor, bar)
        # The classes of other data are not the model's: it draws of each as many as its own test images have.
        labels = loaded.test.get("label")
        several = len(found.real.features)
        found = found._replace(
            labels=None if labels is None else np.resize(labels[spread(len(labels), several)], several)
        )
    return found._replace(
        tested=tested, test=loaded.test, among="training images", warnings=(*found.warnings, *warnings)
    )


def is_statistics(name: str) -> bool:
    """Whether a reference is a file that `save_statistics` may have written."""
    return Path(name).suffix == ".npz" and Path(name).is_file()


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


def reference_of(drawn: Drawn, name: str, num: int | None, extractor_name: str, bar: Bar, most: int) -> Reference:
    """What ``drawn`` images are compared with: ``num`` of a data set by its ``name``, a third of them when None, but at
    ``most`` so many; or statistics by their file. Features are of an extractor by its ``extractor_name``, and a ``bar``
    is told how far they are."""
    shape = drawn.images.shape[1:]
    if is_statistics(name):
        return load_statistics(Path(name), extractor_name, shape)
    extractor = choose_extractor(extractor_name, name, shape)
    held = images_of(name, shape)
    num = min(len(held["image"]) // 3, most, MOST) if num is None else num
    split = Split(dataset_name(name), "all", "none", f"{data.fingerprint(held):064x}")
    return _reference(held, None, num, split, extractor, bar)


def _reference(
    held: Mapping[str, np.ndarray],
    known: np.ndarray | None,
    num: int | None,
    split: Split,
    extractor: Extractor,
    bar: Bar,
) -> Reference:
    """Some images of those held against, as many others, and what is known: a part of the rest where that is None."""
    images = held["image"]
    num = num_compared(num, len(images), 0 if known is None else len(known), split.dataset)
    places = spread(len(images), num)
    others = np.delete(images, places, axis=0)
    calibration_warnings: tuple[str, ...] = ()
    if known is None:
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
        compared=split,
        tested=split,
        test=dict(held),
        labels=held["label"][places] if "label" in held else None,
        real=side(images[places], "real images"),
        other=side(others, "other real images"),
        known=known,
        among="other images of the reference",
        extractor=extractor,
        warnings=(),
        calibration_warnings=calibration_warnings,
    )


def save_statistics(path: Path, reference: Reference) -> None:
    """Keep what images are compared with as an .npz file: features, and what they are of."""
    if not len(reference.known):
        raise ValueError("--save-statistics keeps what is extracted from images, and --reference names kept statistics")
    meta = {
        "format": _FORMAT,
        "extractor": reference.extractor.name,
        "extractor_sha256": reference.extractor.sha256,
        **reference.compared._asdict(),
        "image_shape": list(reference.real.images.shape[1:]),
        "image_type": str(reference.real.images.dtype),
    }
    arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta))}
    for name, side in (("real", reference.real), ("other", reference.other)):
        arrays[f"{name}_features"] = side.features
        if side.probabilities is not None:
            arrays[f"{name}_probabilities"] = side.probabilities
    with replacing(path) as partial:
        np.savez_compressed(partial, **arrays)


def load_statistics(path: Path, extractor_name: str, shape: tuple[int, ...]) -> Reference:
    """What `save_statistics` kept at a ``path`` of images of a ``shape``: features, and no images.

    They are of the extractor by its ``extractor_name``; ``"auto"`` is one that ships and that they are of.
    """
    try:
        check_archive(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = parse(str(arrays["meta"]), "meta")
        check(meta, _Statistics, "meta")
        features = {name: np.asarray(arrays[f"{name}_features"], np.float32) for name in ("real", "other")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(one_line(path, f"holds no statistics ({error}): write it with --save-statistics")) from error
    extractor = choose_extractor(extractor_name, meta["dataset"], shape)
    if extractor_name == "auto":
        shipped = map(extractors.find, extractors.SHIPPED)
        extractor = next((each for each in shipped if each.sha256 == meta["extractor_sha256"]), extractor)
    wanted = {"format": _FORMAT, "extractor_sha256": extractor.sha256, "image_shape": list(shape)}
    differing = [f"its {name} is {meta[name]}, wanted {value}" for name, value in wanted.items() if meta[name] != value]
    if differing:
        raise ValueError(
            f"{path} has features of {meta['extractor']}, wanted {extractor.name} ({'; '.join(differing)}): pass "
            "--extractor, or write it again"
        )
    real, other = (
        Side(np.empty((len(each), 0), meta["image_type"]), each, arrays.get(f"{name}_probabilities"))
        for name, each in features.items()
    )
    split = Split(*(meta[name] for name in Split._fields))
    nothing = np.empty((0, 0))
    return Reference(split, split, {}, None, real, other, nothing, "nothing", extractor, (), ())


class _Statistics(TypedDict):
    format: int
    extractor: str
    extractor_sha256: str
    dataset: str
    split: str
    binarization: str
    sha256: str
    image_shape: list[int]
    image_type: ImageType


def load_drawn(name: str) -> Drawn:
    """The images of a data set, to be measured as samples."""
    found = images_of(name)
    return Drawn(name, found["image"], f"{data.fingerprint({'image': found['image']}):064x}")


def without_images(names: Sequence[str], reference: Reference) -> tuple[list[str], list[str]]:
    """(measures that a reference allows, why others are not made): statistics hold features, and no images."""
    if reference.real.images.shape[1:] != (0,):
        return list(names), []
    kept = [name for name in names if name not in (*OF_IMAGES, REBUILT)]
    return kept, [f"{name}: statistics hold no images" for name in names if name not in kept]
