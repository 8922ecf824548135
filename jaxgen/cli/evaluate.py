"""Measure trained runs: all that applies to each, on one protocol, beside what real images reach.

    jaxgen evaluate runs/vae-001
    jaxgen evaluate runs/vae-001 runs/gan-001 --out evaluations/both
    jaxgen evaluate runs/gan-001 --measures frechet precision_recall --num 10000

It leaves records.json (every number with its protocol), table.txt, and the pictures measures.png, samples.png and, for
VAEs, latents.png.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro
from tqdm import tqdm

import jaxgen
from jaxgen import data
from jaxgen.cli.exit_status import exit_status
from jaxgen.cli.options import check_data, check_seed
from jaxgen.cli.parsing import saved_options
from jaxgen.data import Source, spread
from jaxgen.evaluation import extractors, measures, records, report
from jaxgen.evaluation.during_training import choose_extractor, class_rows
from jaxgen.evaluation.extractors import Extractor
from jaxgen.evaluation.measures import Number, Settings, Side, Sides, Subject
from jaxgen.keys import named_key
from jaxgen.training import manifest
from jaxgen.training.run import Run
from jaxgen.training.run_data import dataset_name, load_data

MOST = 10_000  # images of each side, where nothing is said
GROUPS = {"standard": tuple(name for name in measures.MEASURES if name != "annealed"), "all": measures.MEASURES}
OTHER_DATA = ("the data are not those that the run was trained on",)


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure trained runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The run directories that jaxgen train wrote."""
    out: Path | None = None
    """Folder of the results; the folder evaluation of the first run when not given."""
    measures: tuple[str, ...] = ("standard",)
    """Which measures to make, by name; standard are all that apply but annealed, which takes minutes an image where
    the decoder is convolutional and the machine a CPU; all are all that apply."""
    checkpoint: str = "newest"
    """newest, best, or the step of a checkpoint."""
    num: int | None = None
    """Number of real and of generated images that are compared; half of the test images when not given, at most 10,000,
    so that the other half shows what real images reach."""
    extractor: str = "auto"
    """What makes the features: lenet_mnist, lenet_fashion_mnist, pixels, inception:PATH; auto goes by the data."""
    dataset: str | None = None
    """Where the data are, if they are no longer where the run had them."""
    seed: int = 0
    """Seed of the evaluation: of samples, subsets and projections."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Settings)

    def check(self) -> None:
        """Refuse what makes no sense, before anything is read or written."""
        check_seed(self.seed)
        if not self.runs:
            raise ValueError("name at least one run directory")
        if self.num is not None and self.num < 2:
            raise ValueError(f"--num must be at least 2, got {self.num}")
        if self.checkpoint not in ("newest", "best") and not self.checkpoint.isdecimal():
            raise ValueError(f"--checkpoint must be newest, best or a step, got {self.checkpoint!r}")
        unknown = [name for name in self.measures if name not in (*measures.MEASURES, *GROUPS)]
        if unknown or not self.measures:
            raise ValueError(
                f"--measures are {', '.join(GROUPS)}, or some of {', '.join(measures.MEASURES)}; got {self.measures}"
            )


class Reference(NamedTuple):
    """What runs of the same data are held against."""

    dataset: str
    split: str
    binarization: str
    sha256: str
    test: dict[str, np.ndarray]  # the whole split
    labels: np.ndarray | None  # of the real images that samples are compared with
    real: Side
    other: Side  # as many other real images
    known: np.ndarray  # training images, none of them among the others
    extractor: Extractor
    warnings: tuple[str, ...]  # of every number
    calibration_warnings: tuple[str, ...]  # of every number that is calibrated


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


def load_reference(run: Run, options: Options, bar: Any) -> Reference:
    """Load the data of a run, and extract what its samples will be compared with."""
    saved = saved_options(run)
    saved = saved if options.dataset is None else dataclasses.replace(saved, dataset=options.dataset)
    check_data(saved.dataset, run.directory)
    loaded = load_data(saved.data_choice(), saved.batch_size)
    identity = run.config["identity"]["data"]
    shape = tuple(identity["image_shape"])
    if loaded.test["image"].shape[1:] != shape:
        raise ValueError(
            f"{run.directory} is of images {list(shape)}, {saved.dataset} has {loaded.test['image'].shape[1:]}"
        )
    train = loaded.train.look() if isinstance(loaded.train, Source) else loaded.train
    held, known = loaded.test["image"], train["image"]
    num = num_compared(options.num, len(held), len(known), saved.dataset)
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
    extractor = choose_extractor(options.extractor, saved.dataset, shape)

    def side(images: np.ndarray, what: str) -> Side:
        found = extractors.extract(extractor, images, progress=bar(f"features of {what}"))
        return Side(images, *found)

    return Reference(
        dataset=dataset_name(saved.dataset),
        split=saved.test_split,
        binarization=getattr(saved, "binarization", "none"),
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
    """A run's model, and what stamps its numbers."""

    name: str
    run: Run
    subject: Subject
    checkpoint: int
    sha256: str


def load_model(directory: Path, options: Options) -> Model:
    """Open a run and restore its state."""
    run = Run.open(directory)
    which: Any = options.checkpoint
    state: Any = run.restore(int(which) if which.isdecimal() else which)
    leaves = manifest.describe_leaves({name: part for name, part in state._asdict().items() if name != "step"})
    digest = records.sha256_of({path: leaf["sha256"] for path, leaf in leaves.items()})
    subject = Subject(run.spec, state, jax.random.key(options.seed), options.settings)
    return Model(str(directory), run, subject, int(state.step), digest)


def chosen(options: Options, model: Model, classifies: bool = True) -> tuple[list[str], list[str]]:
    """(measures to make of a model, why others are not made, a line each); asked for by name, that is an error."""
    names, left_out = [], []
    shape = tuple(model.run.config["identity"]["data"]["image_shape"])
    dataset = options.dataset or saved_options(model.run).dataset
    asked = {name for name in options.measures if name not in GROUPS}
    wanted = asked.union(*(GROUPS[group] for group in options.measures if group in GROUPS))
    for name in measures.MEASURES:
        if name not in wanted:
            continue
        reason = measures.why_not(name, model.subject.spec, shape, dataset, classifies)
        if reason is None:
            names.append(name)
        elif name in asked:
            raise ValueError(f"{name} cannot be made of {model.name}: {reason}: leave it out of --measures")
        else:
            left_out.append(f"{name}: {reason}")
    return names, left_out


class Evaluator:
    """Makes the measures of models, and of real images once for each reference."""

    def __init__(self, options: Options, bar: Callable[[str], measures.Progress]) -> None:
        self._options, self._bar = options, bar
        self._calibrations: dict[tuple[int, str], list[Number]] = {}
        self.samples: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # of each model, and the training images
        self.latents: dict[str, list[np.ndarray]] = {}

    def measure(self, model: Model, reference: Reference, names: Sequence[str]) -> list[records.Record]:
        """The records of a model."""
        found = []
        fake = None
        for name in names:
            if name in measures.SAMPLE_MEASURES:
                fake = self._draw(model, reference) if fake is None else fake
                self._bar(f"{model.name}: {name}")(0, 1)
                numbers = measures.SAMPLE_MEASURES[name](self._sides(reference, fake))
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
        key = named_key(jax.random.key(self._options.seed), "measures")
        return Sides(reference.real, fake, reference.known, reference.extractor, key, self._options.settings)

    def _calibrate(self, name: str, reference: Reference) -> list[Number]:
        place = (id(reference), name)
        if place not in self._calibrations:
            self._bar(f"real images: {name}")(0, 1)
            self._calibrations[place] = measures.SAMPLE_MEASURES[name](self._sides(reference, reference.other))
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
            seed=self._options.seed,
            versions=tuple(sorted({**manifest.versions(), "jaxgen": jaxgen.__version__}.items())),
            warnings=(*number.warnings, *warnings, *reference.warnings),
        )


def evaluate(options: Options) -> Path:
    """Measure every run; returns the folder of the results."""
    options.check()
    out = options.runs[0] / "evaluation" if options.out is None else options.out
    models = [load_model(directory, options) for directory in options.runs]
    for model in models:
        chosen(options, model)  # refuses what cannot be before data are read
    with Bars() as bars:
        references: dict[str, Reference] = {}
        plan = []
        for model in models:
            same = records.sha256_of([model.run.config["identity"]["data"], saved_options(model.run).test_split])
            if same not in references:
                references[same] = load_reference(model.run, options, bars.begin)
            names, left_out = chosen(options, model, references[same].real.probabilities is not None)
            plan.append((model, references[same], names))
            for line in left_out:
                bars.say(f"{model.name}: without {line}")
        evaluator, found = Evaluator(options, bars.begin), []
        for model, reference, names in plan:
            found += evaluator.measure(model, reference, names)
            # What is there is kept, should a later run take too long.
            records.write(out / "records.json", found)
        report.write(out, found, evaluator.samples, evaluator.latents)
        bars.say((out / "table.txt").read_text())
    return out


class Bars:
    """A line of progress, with how long what is being done will still take."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def begin(self, what: str) -> measures.Progress:
        """Show that something is begun; returns what to call with how much of it is done, and of how much."""
        self._end()
        # Where nobody watches, a line every ten seconds of what takes longer.
        often = {"mininterval": 0.2} if sys.stderr.isatty() else {"mininterval": 10.0, "delay": 10.0}
        bar = self._bar = tqdm(desc=what, total=1, leave=False, **often)

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return progress

    def say(self, text: str) -> None:
        """Print a line."""
        self._end()
        tqdm.write(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns its exit status."""
    return exit_status(
        lambda: tyro.cli(Options, args=arguments, prog="jaxgen evaluate"), lambda options: print(evaluate(options))
    )
