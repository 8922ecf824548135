"""Runs are measured by a command: its options, and what it leaves in a folder."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from jaxgen.cli.options import check_data, check_numbers, checkpoint
from jaxgen.cli.parsing import saved_options
from jaxgen.cli.progress import Bars
from jaxgen.evaluation import costs, measures, records, report
from jaxgen.evaluation.during_training import choose_extractor
from jaxgen.evaluation.evaluator import GROUPS, Evaluator, Model, chosen, load_model
from jaxgen.evaluation.reference import (
    MOST,
    Drawn,
    Reference,
    is_statistics,
    load_drawn,
    load_reference,
    reference_of,
    save_statistics,
    without_images,
)
from jaxgen.evaluation.sample_measures import SAMPLE_MEASURES
from jaxgen.evaluation.subject import Settings, Two
from jaxgen.intervals import Seed
from jaxgen.training.run import Run
from jaxgen.training.run_data import DataChoice

FEATURES, READING = 64, 3e-4  # of an extractor that is not open yet; seconds of a picture
KINDS = ("folder", "zip", "npz", "npy", "idx", "fashion_mnist_small")


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure trained runs."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """The run directories that jaxgen train wrote; or images that somebody has drawn, as folder:PATH or npz:PATH."""
    reference: str = "test"
    """What samples are held against: the test split of the run's data, its train images, another data set such as
    folder:PATH, or a file that --save-statistics wrote."""
    save_statistics: Path | None = None
    """Keep the features of what they are held against in this .npz file, to be a --reference."""
    out: Path | None = None
    """Folder of the results; the folder evaluation of the first run when not given."""
    measures: tuple[str, ...] = ("standard",)
    """Which measures to make, by name; standard are all that apply but annealed, which takes minutes an image where
    the decoder is convolutional and the machine a CPU; all are all that apply. What would take minutes is made of fewer
    images, and says so, unless it is named."""
    checkpoint: str = "newest"
    """newest, best, or the step of a checkpoint."""
    num: Two | None = None
    """Number of real and of generated images that are compared; half of the test images when not given, at most 5,000,
    so that the other half shows what real images reach."""
    extractor: str = "auto"
    """What makes the features: lenet_mnist, lenet_fashion_mnist, lenet_color, pixels, inception:PATH; auto goes by
    the data."""
    dataset: str | None = None
    """Where the data are, if they are no longer where the run had them."""
    seed: Seed = 0
    """Seed of the evaluation: of samples, subsets and projections."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Settings)

    def check(self) -> None:
        """Refuse what makes no sense, before anything is read or written."""
        if not self.runs:
            raise ValueError("name at least one run directory")
        check_numbers(self)
        checkpoint(self.checkpoint)
        of_runs = {"--dataset": self.dataset is not None, "--checkpoint": self.checkpoint != "newest"}
        unused = [name for name, given in of_runs.items() if given and all(map(is_drawn, self.runs))]
        if unused:
            raise ValueError(f"{unused[0]} is for runs, and these are images: leave it out")
        if self.save_statistics is not None and self.save_statistics.suffix != ".npz":
            raise ValueError(f"--save-statistics must end in .npz, got {self.save_statistics}")
        unknown = [name for name in self.measures if name not in (*measures.MEASURES, *GROUPS)]
        if unknown or not self.measures:
            raise ValueError(
                f"--measures are {', '.join(GROUPS)}, or some of {', '.join(measures.MEASURES)}; got {self.measures}"
            )


def data_of(run: Run, options: Options) -> DataChoice:
    """The data of a run, from where they are now."""
    choice: DataChoice = saved_options(run).data_choice()
    choice = choice if options.dataset is None else dataclasses.replace(choice, dataset=options.dataset)
    check_data(choice.dataset, run.directory)
    return choice


def is_drawn(name: str) -> bool:
    """Whether what is to be measured are images, and no run."""
    return not Path(name).is_dir() and name.partition(":")[0] in KINDS


class Task(NamedTuple):
    """What is to be measured: a model with its data, or images."""

    what: Model | Drawn
    choice: DataChoice | None
    shape: tuple[int, ...]

    def measures(self, asked: Sequence[str], classifies: bool = True) -> tuple[list[str], list[str]]:
        """(measures to make, why others are not made)."""
        if isinstance(self.what, Model) and self.choice is not None:
            spec = self.what.subject.spec
            return chosen(asked, self.what.name, spec, self.shape, self.choice.dataset, classifies)
        return chosen(asked, self.what.name, None, self.shape, self.what.name, classifies)


def tasks_of(options: Options, bars: Bars) -> list[Task]:
    """Open the runs and read the images; what cannot be made of them is refused here. Says how long it all takes."""
    tasks: list[Task] = []
    for name in options.runs:
        bars.begin(f"opening {name}")
        if is_drawn(name):
            if options.reference in ("test", "train"):
                raise ValueError(f"{name} are images: say with --reference what they are held against, as folder:PATH")
            drawn = load_drawn(name)
            tasks.append(Task(drawn, None, drawn.images.shape[1:]))
        else:
            model = load_model(Path(name), checkpoint(options.checkpoint), options.seed, options.settings)
            shape = tuple(model.run.config["identity"]["data"]["image_shape"])
            tasks.append(Task(model, data_of(model.run, options), shape))
        tasks[-1].measures(options.measures)
        if len(tasks) == 1:  # the others as long as the first, until their data are read
            first, seconds = tasks[0].what.name, expected(tasks[0], options, None)
            plan = {what.replace(first, other): each for other in options.runs for what, each in seconds.items()}
            bars.plan(plan, f"measuring {', '.join(options.runs)}")
    return tasks


def expected(task: Task, options: Options, reference: Reference | None) -> dict[str, float]:
    """Seconds that a task is expected to take, by what the progress is told; of its data by a guess until these are
    read."""
    what, slow, asked = task.what, costs.slowness(), options.measures
    values, seconds = math.prod(task.shape), {}
    if reference is None:
        extractor = choose_extractor(
            options.extractor, what.name if task.choice is None else task.choice.dataset, task.shape
        )
        pixels = extractor.name == "pixels"
        features = values if pixels else FEATURES
        known = what.run.config["identity"]["data"]["num_examples"] if isinstance(what, Model) else len(what.images)
        tests = known // 8
        num = min(max(tests // 2, 2), MOST) if options.num is None else options.num
        seconds = {f"{what.name}: data": (known + tests) * READING, "features of real images": 0.5 * slow}
        names, _ = task.measures(asked)
    else:
        pixels, features = reference.extractor.name == "pixels", reference.real.features.shape[1]
        num, known = len(reference.real.features), len(reference.known)
        tests = len(reference.test["image"]) if reference.test else 0
        names, _ = task.measures(asked, reference.real.probabilities is not None)
    for name in names:
        if name in SAMPLE_MEASURES:
            each = costs.of_samples(name, num, values, features, known, pixels, name in asked) * slow
            seconds |= {
                f"{what.name}: {name}": each + costs.COMPILING,
                f"real images: {name}": each + costs.COMPILING / 2,
            }
    if isinstance(what, Model):
        decoding = costs.of_decoding(what.subject)
        if any(name in SAMPLE_MEASURES for name in names):
            seconds[f"{what.name}: samples"] = (num * decoding / costs.SINGLE + 2 * costs.COMPILING) * slow
        for name in names:
            if name not in SAMPLE_MEASURES:
                each = costs.of_model(name, what.subject, decoding, tests, name in asked) * slow
                if name == measures.REBUILT:
                    each += costs.of_samples("frechet", num, values, features, known, pixels, name in asked) * slow
                seconds[f"{what.name}: {name}"] = each + 2 * costs.COMPILING
        if "active_units" in names:
            seconds[f"{what.name}: KL of latents"] = seconds[f"{what.name}: active_units"]
    return seconds


def reference_for(task: Task, options: Options, bars: Bars, most: int) -> Reference:
    """What a task is held against; of drawn images at ``most`` so many."""
    against = options.reference
    if is_statistics(against):
        if options.num is not None:
            raise ValueError("--num is that of the statistics which --reference names: leave it out")
    elif against not in ("test", "train") and against.partition(":")[0] not in KINDS:
        raise ValueError(
            f"--reference must be test, train, a data set such as folder:PATH, or a file of statistics, got {against!r}"
        )
    if isinstance(task.what, Model) and task.choice is not None:
        return load_reference(task.what.run, task.choice, options.num, options.extractor, bars.begin, against)
    assert isinstance(task.what, Drawn)
    return reference_of(task.what, against, options.num, options.extractor, bars.begin, most)


def evaluate(options: Options) -> Path:
    """Measure every run; returns the folder of the results."""
    options.check()
    first = Path("evaluation") if is_drawn(options.runs[0]) else Path(options.runs[0]) / "evaluation"
    out = first if options.out is None else options.out
    with Bars() as bars:
        tasks = tasks_of(options, bars)
        most = min((len(task.what.images) for task in tasks if isinstance(task.what, Drawn)), default=0)
        references: dict[str, Reference] = {}
        plan = []
        for task in tasks:
            kept = None if task.choice is None else [task.choice.test_split, task.choice.train_split]
            identity = task.what.run.config["identity"]["data"] if isinstance(task.what, Model) else list(task.shape)
            same = records.sha256_of([identity, kept])
            if same not in references:
                bars.begin(f"{task.what.name}: data")
                references[same] = reference_for(task, options, bars, most)
            names, left_out = task.measures(options.measures, references[same].real.probabilities is not None)
            names, without = without_images(names, references[same])
            plan.append((task.what, references[same], names))
            for line in (*left_out, *without):
                bars.say(f"{task.what.name}: without {line}")
        if options.save_statistics is not None:
            if len(references) > 1:
                raise ValueError("--save-statistics keeps one reference, and these are of several data sets")
            save_statistics(options.save_statistics, next(iter(references.values())))
        seconds: dict[str, float] = {}
        for task, (_, reference, _) in zip(tasks, plan, strict=True):
            seconds |= expected(task, options, reference)
        bars.plan(seconds)
        evaluator, found = Evaluator(options.seed, options.settings, bars.begin), []
        for what, reference, names in plan:
            found += evaluator.measure(what, reference, names, options.measures)
            # What is there is kept, should a later run take too long.
            records.write(out / "records.json", found)
        for line in evaluator.left_out:
            bars.say(line)
        if not found:
            raise ValueError(f"nothing could be measured: {'; '.join(evaluator.left_out) or 'name --measures'}")
        report.write(out, found, evaluator.samples, evaluator.latents)
        bars.say((out / "table.txt").read_text())
        for what in (task.what for task in tasks):
            names = what.run.config["settings"].get("class_names", []) if isinstance(what, Model) else []
            if names:
                bars.say(f"classes of {what.name}: {', '.join(map(str, names))}")
    return out
