"""Runs are measured: on one protocol, beside what real images reach."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxgen
from jaxgen import data
from jaxgen.data import spread
from jaxgen.data.standardization import of_plain
from jaxgen.evaluation import extractors, measures, records, report
from jaxgen.evaluation.during_training import choose_extractor, class_rows
from jaxgen.evaluation.extractors import Extractor
from jaxgen.evaluation.sample_measures import SAMPLE_MEASURES, Side, Sides
from jaxgen.evaluation.subject import Number, Progress, Settings, Subject
from jaxgen.families import Spec
from jaxgen.keys import named_key
from jaxgen.training import machine, manifest
from jaxgen.training.checkpoint import Which
from jaxgen.training.run import Run
from jaxgen.training.run_data import DataChoice, dataset_name, load_data

MOST = 10_000  # images of each side, where nothing is said
GROUPS = {"standard": tuple(name for name in measures.MEASURES if name != "annealed"), "all": measures.MEASURES}
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
    num = min(num_test // 2, MOST) if asked is None else asked
    if not 2 <= num <= num_test:
        raise ValueError(
            f"{num} images cannot be compared: {dataset} has {num_test} test images, give --num from 2 to that"
        )
    if num_test - num < num and num_train < 2 * num:
        raise ValueError(
            f"--num {num} leaves no {num} other real images to compare with: {dataset} has {num_test} test and "
            f"{num_train} training images"
        )
    return num


def load_reference(run: Run, choice: DataChoice, num: int | None, extractor_name: str, bar: Bar) -> Reference:
    """Load the data of a run, and extract what its samples will be compared with: so many of each side."""
    identity, batch_size = run.config["identity"]["data"], run.config["identity"]["batch_size"]
    loaded = load_data(choice, batch_size, standardized=of_plain(identity.get("standardized")))
    shape = tuple(identity["image_shape"])
    if loaded.test["image"].shape[1:] != shape:
        raise ValueError(
            f"{run.directory} is of images {list(shape)}, {choice.dataset} has {loaded.test['image'].shape[1:]}"
        )
    held, known = loaded.test["image"], loaded.known()["image"]
    num = num_compared(num, len(held), len(known), choice.dataset)
    places = spread(len(held), num)
    others = np.delete(held, places, axis=0)
    calibration_warnings: tuple[str, ...] = ()
    if len(others) >= num:
        others = others[spread(len(others), num)]
    else:
        # Neither the model nor, mostly, the extractor has seen test images; these it has.
        calibration_warnings = ("the real column is of training images: --num is more than half of the test images",)
        taken = spread(len(known), num)
        others, known = known[taken], np.delete(known, taken, axis=0)
    extractor = choose_extractor(extractor_name, choice.dataset, shape)

    def side(images: np.ndarray, what: str) -> Side:
        found = extractors.extract(extractor, images, progress=bar(f"features of {what}"))
        return Side(images, *found)

    return Reference(
        dataset=dataset_name(choice.dataset),
        split=choice.test_split,
        binarization=choice.binarization,
        sha256=f"{data.fingerprint(loaded.test):064x}",
        test=loaded.test,
        labels=loaded.test["label"][places] if "label" in loaded.test else None,
        real=side(held[places], "test images"),
        other=side(others, "other real images"),
        known=known,
        extractor=extractor,
        warnings=OTHER_DATA * (loaded.sha256 != identity["sha256"]),
        calibration_warnings=calibration_warnings,
    )


class Model(NamedTuple):
    """A run's model, and what stamps its numbers.

    Args:
      name: what it is called: the run's folder.
      run: the run.
      subject: what is measured.
      checkpoint: the step that it is of.
      sha256: of its parameters.
    """

    name: str
    run: Run
    subject: Subject
    checkpoint: int
    sha256: str


def load_model(directory: Path, checkpoint: Which, seed: int, settings: Settings) -> Model:
    """Open a run and restore its state, to be measured with a seed."""
    run = Run.open(directory)
    state: Any = run.restore(checkpoint)
    leaves = manifest.describe_leaves({name: part for name, part in state._asdict().items() if name != "step"})
    digest = records.sha256_of({path: leaf["sha256"] for path, leaf in leaves.items()})
    subject = Subject(run.spec, state, jax.random.key(seed), settings)
    return Model(str(directory), run, subject, int(state.step), digest)


def chosen(
    asked: Sequence[str], name: str, spec: Spec, image_shape: tuple[int, ...], dataset: str, classifies: bool = True
) -> tuple[list[str], list[str]]:
    """(measures to make of a model of this name, why others are not made); asked for by name, that is an error."""
    names, left_out = [], []
    wanted = {measure for each in asked for measure in GROUPS.get(each, (each,))}
    for measure in measures.MEASURES:
        if measure not in wanted:
            continue
        reason = measures.why_not(measure, spec, image_shape, dataset, classifies)
        if reason is None:
            names.append(measure)
        elif measure in asked:
            raise ValueError(f"{measure} cannot be made of {name}: {reason}: leave it out of --measures")
        else:
            left_out.append(f"{measure}: {reason}")
    return names, left_out


class Evaluator:
    """Makes the measures of models, and of real images once for each reference."""

    def __init__(self, seed: int, settings: Settings, bar: Bar) -> None:
        self._seed, self._settings, self._bar = seed, settings, bar
        self._calibrations: dict[tuple[int, str], list[Number]] = {}
        self.samples: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of each model, and the training images
        self.latents: dict[str, list[np.ndarray]] = {}

    def measure(self, model: Model, reference: Reference, names: Sequence[str]) -> list[records.Record]:
        """The records of a model."""
        found = []
        fake = None
        for name in names:
            if name in SAMPLE_MEASURES:
                fake = self._draw(model, reference) if fake is None else fake
                self._bar(f"{model.name}: {name}")(0, 1)
                numbers = SAMPLE_MEASURES[name](self._sides(reference, fake))
                calibrations = {number.metric: number for number in self._calibrate(name, reference)}
                warnings = ("all generated images are the same",) * bool(np.all(fake.images == fake.images[:1]))
            else:
                progress = self._bar(f"{model.name}: {name}")
                numbers = measures.MODEL_MEASURES[name](model.subject, reference.test, progress)
                calibrations, warnings = {}, ()
            found += [self._record(n, calibrations.get(n.metric), model, reference, warnings) for n in numbers]
        if "active_units" in names and model.subject.family.standard_prior(model.subject.spec):
            progress = self._bar(f"{model.name}: KL of latents")
            self.latents[model.name] = measures.latent_kl(model.subject, reference.test, progress)
        return found

    def _draw(self, model: Model, reference: Reference) -> Side:
        binary = reference.real.images.dtype == np.bool_
        labels = None if class_rows(model.subject.spec) is None else reference.labels
        num = len(reference.real.images)
        images = model.subject.sample(num, labels, binary, self._bar(f"{model.name}: samples"))
        self.samples[model.name] = images[: report.SHOWN], reference.known
        progress = self._bar(f"{model.name}: features of samples")
        return Side(images, *extractors.extract(reference.extractor, images, progress=progress))

    def _sides(self, reference: Reference, fake: Side) -> Sides:
        key = named_key(jax.random.key(self._seed), "measures")
        return Sides(reference.real, fake, reference.known, reference.extractor, key, self._settings)

    def _calibrate(self, name: str, reference: Reference) -> list[Number]:
        place = (id(reference), name)
        if place not in self._calibrations:
            self._bar(f"real images: {name}")(0, 1)
            self._calibrations[place] = SAMPLE_MEASURES[name](self._sides(reference, reference.other))
        return self._calibrations[place]

    def _record(
        self,
        number: Number,
        calibration: Number | None,
        model: Model,
        reference: Reference,
        warnings: tuple[str, ...],
    ) -> records.Record:
        binary = {"pixels": "drawn from the means"} if reference.binarization != "none" and number.num_generated else {}
        extractor = number.extractor
        protocol = records.Protocol(
            metric=number.metric,
            version=number.version,
            unit=number.unit,
            better=number.better,
            dataset=reference.dataset,
            split=reference.split,
            data_sha256=reference.sha256,
            binarization=reference.binarization,
            num_real=number.num_real,
            num_generated=number.num_generated,
            extractor_sha256=None if extractor is None else extractor.sha256,
            resizing=None if extractor is None else extractor.resizing,
            parameters=tuple(sorted({**number.parameters, **binary}.items())),
        )
        if calibration is not None:
            warnings = (*warnings, *reference.calibration_warnings)
        return records.Record(
            value=number.value,
            standard_error=number.standard_error,
            calibration=None if calibration is None else calibration.value,
            protocol=protocol,
            model=model.name,
            checkpoint=model.checkpoint,
            model_sha256=model.sha256,
            seed=self._seed,
            versions=tuple(sorted({**machine.versions(), "jaxgen": jaxgen.__version__}.items())),
            warnings=(*number.warnings, *warnings, *reference.warnings),
        )
