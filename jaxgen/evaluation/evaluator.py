"""Runs are measured: on one protocol, beside what real images reach."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxgen
from jaxgen.data import spread
from jaxgen.evaluation import costs, extractors, measures, records, report
from jaxgen.evaluation.during_training import class_rows
from jaxgen.evaluation.reference import Bar, Drawn, Reference
from jaxgen.evaluation.sample_measures import OF_SOME, SAMPLE_MEASURES, Side, Sides
from jaxgen.evaluation.subject import Number, Settings, Subject
from jaxgen.families import Spec, State
from jaxgen.keys import named_key
from jaxgen.training import machine, manifest
from jaxgen.training.checkpoint import Which
from jaxgen.training.run import Run

GROUPS = {"standard": tuple(name for name in measures.MEASURES if name != "annealed"), "all": measures.MEASURES}


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
    subject = Subject(run.spec, state, jax.random.key(seed), settings)
    return Model(str(directory), run, subject, int(state.step), state_sha256(state))


def state_sha256(state: State) -> str:
    """The hash of all arrays of a state but its step, of any shapes: which weights something was made with."""
    leaves = manifest.describe_leaves({name: part for name, part in state._asdict().items() if name != "step"})
    return records.sha256_of({path: leaf["sha256"] for path, leaf in leaves.items()})


def chosen(
    asked: Sequence[str],
    name: str,
    spec: Spec | None,
    image_shape: tuple[int, ...],
    dataset: str,
    classifies: bool = True,
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
        # Of each model, with the images that neighbours are sought among, and what these are.
        self.samples: dict[str, tuple[np.ndarray, np.ndarray, str]] = {}
        self.latents: dict[str, list[np.ndarray]] = {}
        self.left_out: list[str] = []  # why measures were not made, or of fewer images
        self._drawn: tuple[Model | Drawn, Reference, Side] | None = None

    def measure(
        self, model: Model | Drawn, reference: Reference, names: Sequence[str], asked: Sequence[str] = ()
    ) -> list[records.Record]:
        """The records of a model, or of images, held against a reference: of measures by their names.

        Of those that are not ``asked`` for by name, what cannot be made of so few images is left out, and what would
        take minutes is made of fewer.
        """
        found: list[records.Record] = []
        for name in names:
            try:
                found += self._measure(model, reference, name, name in asked)
            except ValueError as error:
                if name in asked:
                    raise
                self.left_out.append(f"{model.name}: without {name}: {error}")
        subject = model.subject if isinstance(model, Model) and "active_units" in names else None
        if subject is not None and subject.family.standard_prior(subject.spec):
            progress = self._bar(f"{model.name}: KL of latents")
            test = self._tested(subject, reference, "active_units" in asked)
            self.latents[model.name] = measures.latent_kl(subject, test, progress)
        return found

    def _say_less(self, what: str, num: int, of: int, made: str = "of") -> None:
        if num < of:
            self.left_out.append(
                f"{what}: {made} {num:,} of {of:,} images; {made} all where it is asked for by name (--measures)"
            )

    def _tested(self, subject: Subject, reference: Reference, asked: bool) -> dict[str, np.ndarray]:
        """The images that a model is tested on: fewer of a slow one."""
        test, num = reference.test, len(reference.test["image"])
        places = spread(num, num if asked else costs.tested_images(subject, num))
        return test if len(places) == num else {name: array[places] for name, array in test.items()}

    def _of_model(self, model: Model, reference: Reference, name: str, asked: bool) -> list[Number]:
        subject, test, num = model.subject, reference.test, len(reference.test["image"])
        what = f"{model.name}: {name}"
        if name == "log_likelihood" and not asked:
            num = min(num, subject.settings.likelihood_images)
            images = costs.likelihood_images(subject)
            self._say_less(what, images, num)
            subject = dataclasses.replace(
                subject, settings=dataclasses.replace(subject.settings, likelihood_images=images)
            )
        elif name in ("elbo", "reconstructions", "active_units", "codes"):
            test = self._tested(subject, reference, asked)
            self._say_less(what, len(test["image"]), num)
        return measures.MODEL_MEASURES[name](subject, test, self._bar(what))

    def _measure(self, model: Model | Drawn, reference: Reference, name: str, asked: bool) -> list[records.Record]:
        calibrations: dict[str, Number] = {}
        warnings: tuple[str, ...] = ()
        if name in SAMPLE_MEASURES:
            fake = self._fake(model, reference)
            self._bar(f"{model.name}: {name}")(0, 1)
            sides = self._sides(reference, fake, name, asked)
            if name in OF_SOME:
                self._say_less(f"{model.name}: {name}", len(sides.fake.features), len(fake.features))
            self._say_less(f"{model.name}: {name}", len(sides.known), len(reference.known), "among")
            numbers = SAMPLE_MEASURES[name](sides)
            calibrations = {number.metric: number for number in self._calibrate(name, reference, asked)}
            same = len(fake.images) > 1 and bool(np.all(fake.images == fake.images[:1]))
            warnings = ("all generated images are the same",) * same
        elif name == measures.REBUILT:
            assert isinstance(model, Model)
            numbers = self._rebuilt(model, reference, asked)
            real = [self._of_reconstructions(number) for number in self._calibrate("frechet", reference, asked)]
            calibrations = {number.metric: number for number in real}
        else:
            assert isinstance(model, Model)
            numbers = self._of_model(model, reference, name, asked)
        return [self._record(n, calibrations.get(n.metric), model, reference, warnings) for n in numbers]

    def _rebuilt(self, model: Model, reference: Reference, asked: bool) -> list[Number]:
        """The Frechet distance between real images and the model's reconstructions of these, in the samples' place."""
        measures.check_unseen(model.subject.spec, reference.extractor)
        what = f"{model.name}: {measures.REBUILT}"
        images = measures.rebuilt(model.subject, reference.real.images, self._bar(what))
        progress = self._bar(f"{model.name}: features of reconstructions")
        side = Side(images, *extractors.extract(reference.extractor, images, progress=progress))
        sides = self._sides(reference, side, "frechet", asked)
        self._say_less(what, len(sides.fake.features), len(images))
        return [self._of_reconstructions(number) for number in SAMPLE_MEASURES["frechet"](sides)]

    @staticmethod
    def _of_reconstructions(number: Number) -> Number:
        return dataclasses.replace(number, metric=f"r{number.metric}")

    def _fake(self, model: Model | Drawn, reference: Reference) -> Side:
        """The samples of a model, drawn once; or of the images as many as there are real ones."""
        if self._drawn is None or self._drawn[0] is not model or self._drawn[1] is not reference:
            if isinstance(model, Model):
                side = self._draw(model, reference)
            else:
                images = model.images[spread(len(model.images), len(reference.real.features))]
                self._show(model.name, images, reference)
                progress = self._bar(f"{model.name}: features")
                side = Side(images, *extractors.extract(reference.extractor, images, progress=progress))
            self._drawn = model, reference, side
        return self._drawn[2]

    def _show(self, name: str, images: np.ndarray, reference: Reference) -> None:
        """Keep some samples for a picture, where there are images to show beside them."""
        if len(reference.known):
            self.samples[name] = images[: report.SHOWN], reference.known, reference.among

    def _draw(self, model: Model, reference: Reference) -> Side:
        binary = reference.real.images.dtype == np.bool_
        labels = None if class_rows(model.subject.spec) is None else reference.labels
        num = len(reference.real.features)
        images = model.subject.sample(num, labels, binary, self._bar(f"{model.name}: samples"))
        self._show(model.name, images, reference)
        progress = self._bar(f"{model.name}: features of samples")
        return Side(images, *extractors.extract(reference.extractor, images, progress=progress))

    def _sides(self, reference: Reference, fake: Side, name: str, asked: bool) -> Sides:
        key = named_key(jax.random.key(self._seed), "measures")
        known, among, extractor = reference.known, reference.among, reference.extractor
        sides = Sides(reference.real, fake, known, among, extractor, key, self._settings)
        return sides if asked else sides.of_some(name)

    def _calibrate(self, name: str, reference: Reference, asked: bool) -> list[Number]:
        place = (id(reference), name)
        if place not in self._calibrations:
            self._bar(f"real images: {name}")(0, 1)
            self._calibrations[place] = SAMPLE_MEASURES[name](self._sides(reference, reference.other, name, asked))
        return self._calibrations[place]

    def _record(
        self,
        number: Number,
        calibration: Number | None,
        model: Model | Drawn,
        reference: Reference,
        warnings: tuple[str, ...],
    ) -> records.Record:
        split = reference.compared if number.num_generated else reference.tested
        binary = {"pixels": "drawn from the means"} if split.binarization != "none" and number.num_generated else {}
        extractor = number.extractor
        protocol = records.Protocol(
            metric=number.metric,
            version=number.version,
            unit=number.unit,
            better=number.better,
            dataset=split.dataset,
            split=split.split,
            data_sha256=split.sha256,
            binarization=split.binarization,
            num_real=number.num_real,
            num_generated=number.num_generated,
            extractor_sha256=None if extractor is None else extractor.sha256,
            resizing=None if extractor is None else extractor.resizing,
            parameters=tuple(sorted({**number.parameters, **binary}.items())),
        )
        if calibration is not None:
            warnings = (*warnings, *reference.calibration_warnings)
        flags = machine.compiler_flags()
        made_with = {**machine.versions(), "jaxgen": jaxgen.__version__, **({"xla_flags": flags} if flags else {})}
        return records.Record(
            value=number.value,
            standard_error=number.standard_error,
            calibration=None if calibration is None else calibration.value,
            protocol=protocol,
            model=model.name,
            checkpoint=model.checkpoint if isinstance(model, Model) else 0,
            model_sha256=model.sha256,
            seed=self._seed,
            versions=tuple(sorted(made_with.items())),
            warnings=(*number.warnings, *warnings, *reference.warnings),
        )
