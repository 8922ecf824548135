"""Compare GANs with VAEs: train five models of equal decoder size, or take trained ones, and write one page about them.

    jaxgen compare
    jaxgen compare --out comparisons/mnist --dataset mnist
    jaxgen compare --out comparisons/mine --runs runs/gan-001 runs/vae-001

A GAN, a DCGAN, a VAE, a convolutional VAE and a deep latent Gaussian model (DLGM, two stochastic layers). It leaves
OUT/report.html, which opens without a network, on a phone too; the same pictures as PNG files in OUT/pictures; every
number with its protocol in OUT/records.json; what jaxgen evaluate writes in OUT/evaluation; and the runs in OUT/runs.
The same command goes on where it was stopped.
"""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax

import jaxgen
from jaxgen import data, trained
from jaxgen.cli.comparing import choices, curves, page
from jaxgen.cli.comparing.costs import Cost, cost_of
from jaxgen.cli.comparing.models import TITLES, plan
from jaxgen.cli.comparing.page import COLORS, REAL, Model, Report
from jaxgen.cli.comparing.pictures import Picture, baselines, glance, hold_back, show, write
from jaxgen.cli.evaluating import Options as Measuring
from jaxgen.cli.evaluating import evaluate
from jaxgen.cli.exit_status import command
from jaxgen.cli.options import Options as TrainOptions
from jaxgen.cli.options import check_numbers, checkpoint, flag, listed
from jaxgen.cli.parsing import saved_options
from jaxgen.cli.pictures import floats
from jaxgen.cli.runs import train
from jaxgen.evaluation import records
from jaxgen.evaluation.evaluator import chosen
from jaxgen.evaluation.records import Record
from jaxgen.evaluation.reference import num_compared
from jaxgen.evaluation.subject import Two
from jaxgen.families import family_of
from jaxgen.intervals import Count, Interval, Seed
from jaxgen.keys import named_key
from jaxgen.training import machine
from jaxgen.training.files import exclusive, write_text
from jaxgen.training.run import Run, Spec, differences
from jaxgen.training.run_data import dataset_name, load_data

Scale = Annotated[float, Interval(0.0, 1000.0, "(]")]
FEWEST = 20  # images of each side, below which distances have no errors
_MARK = "comparison.json"  # says that a folder is a comparison, and of what


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare GANs with VAEs on one data set."""

    out: Path = Path("comparison")
    """Folder of the report, and of the runs that are trained for it."""
    runs: tuple[Path, ...] = ()
    """Take these runs of jaxgen train, all of one data set, instead of training five."""
    dataset: str = "fashion_mnist_small"
    """What to train on, as for jaxgen train: fashion_mnist_small (embedded), the TFDS name of an image set,
    folder:PATH, npz:PATH or idx:DIR."""
    data_dir: Path | None = None
    """Where TFDS keeps prepared sets; its own default when not given."""
    manual_dir: Path | None = None
    """Folder with the original files of a TFDS set, used instead of the network."""
    image_size: Count | None = None
    """Crop and resize images to this many pixels; keep their size when not given."""
    color: Literal["grey", "rgb"] | None = None
    """Make all images grey or RGB; keep them as they are when not given."""
    scale: Scale = 1.0
    """Train for so many times the usual steps, which take about nine minutes on two cores."""
    checkpoint: str = "newest"
    """newest, best, or the step of a checkpoint, of the runs."""
    measures: tuple[str, ...] = ("standard",)
    """Which measures to make, as for jaxgen evaluate."""
    num: Two | None = None
    """Number of real and of generated images that are compared; half of the test images when not given."""
    seed: Seed = 0
    """Seed of the training and of the evaluation."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is read or written."""
        check_numbers(self)
        if len(self.runs) > COLORS:
            raise ValueError(f"--runs can be at most {COLORS} for one page, got {len(self.runs)}")
        names = [path.resolve().name for path in self.runs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"--runs are called by their folders, and {', '.join(twice)} is there twice: rename one")
        changed = [field.name for field in dataclasses.fields(self) if field.name in _OF_TRAINING]
        given = [name for name in changed if getattr(self, name) != getattr(Options(), name)]
        if self.runs and given:
            flags = ", ".join(map(flag, given))
            raise ValueError(f"{flags}: for training; --runs are of their own data and steps: leave it out")
        self.measuring(()).check()

    def measuring(self, runs: Sequence[Path]) -> Measuring:
        """The options of jaxgen evaluate."""
        return Measuring(
            runs=tuple(map(str, runs)) or (".",),
            out=self.out / "evaluation",
            measures=self.measures,
            checkpoint=self.checkpoint,
            num=self.num,
            seed=self.seed,
        )

    def mark(self) -> dict[str, Any]:
        """What a comparison is of, as plain data."""
        data_of = {
            name: None if (v := getattr(self, name)) is None else str(v) for name in ("dataset", "image_size", "color")
        }
        return {"format": 1, "runs": [str(path.resolve()) for path in self.runs], "seed": self.seed, **data_of}


_OF_TRAINING = ("dataset", "data_dir", "manual_dir", "image_size", "color", "scale")


class Entry(NamedTuple):
    """A run of the comparison."""

    title: str  # what it is called on the page
    directory: Path
    options: TrainOptions | None  # to train it with; None where it is taken as it is


def check_out(options: Options) -> None:
    """Refuse a folder that holds anything but this comparison."""
    out, mark = options.out, options.out / _MARK
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out {out} is a file: give a folder")
    if mark.is_file():
        try:
            saved = json.loads(mark.read_text())
        except ValueError as error:
            raise ValueError(f"{mark} is damaged ({error}): give another --out") from error
        changed = differences(saved, options.mark())
        if changed:
            raise ValueError(f"{out} holds another comparison: {'; '.join(changed)}: give another --out")
    elif out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"--out {out} holds something else: give a new folder, or that of a comparison")


def taken(options: Options) -> list[Entry]:
    """The runs that are named, all of the same images, and each with a checkpoint."""
    runs, which = [Run.open(directory) for directory in options.runs], checkpoint(options.checkpoint)
    for run in runs:
        if "sweep" in run.config["identity"]:
            raise ValueError(f"{run.directory} holds a sweep: take one of its members, such as members/000")
        identity = run.config["identity"]["data"]
        if len(identity["image_shape"]) != 3:
            raise ValueError(f"{run.directory} is of vectors {identity['image_shape']}: a comparison shows images")
        changed = differences(runs[0].config["identity"]["data"], identity)
        if changed:
            raise ValueError(
                f"{runs[0].directory} and {run.directory} are of different data ({'; '.join(changed)}): only runs of "
                "the same images can be compared"
            )
    for run in runs:
        steps = run.steps()
        if not steps:
            raise FileNotFoundError(f"{run.directory} has no checkpoint yet: train it first")
        identity = run.config["identity"]["data"]
        chosen(options.measures, run.directory.name, run.spec, tuple(identity["image_shape"]), identity["name"])
        if isinstance(which, int) and which not in steps:
            raise FileNotFoundError(f"{run.directory} has no checkpoint of step {which}: it has {steps}")
        if which == "best":
            run.restore(which)  # an error where there is none
    if options.num is not None:
        first = saved_options(runs[0])
        loaded = load_data(first.data_choice(), first.batch_size)
        num_compared(options.num, len(loaded.test["image"]), len(loaded.known()["image"]), first.dataset)
    return [Entry(path.resolve().name, path, None) for path in options.runs]


def planned(options: Options) -> list[Entry]:
    """The five models to be trained; loads the data once, so that what is wrong is said before any training."""
    names = ("dataset", "data_dir", "manual_dir", "image_size", "color", "seed")
    common = {name: getattr(options, name) for name in names}
    places: dict[str, Any] = {name: common[name] for name in names[1:-1]}
    shape = data.open_source(options.dataset, **places).image_shape
    if len(shape) != 3:
        raise ValueError(f"{options.dataset} has examples of shape {list(shape)}: a comparison shows images")
    models = plan(shape, options.scale, **common)
    for name, own in models.items():
        chosen(options.measures, TITLES[name], own.spec(shape), shape, options.dataset)
    first = next(iter(models.values()))
    loaded = load_data(first.data_choice(), first.batch_size)
    num = num_compared(options.num, len(loaded.test["image"]), len(loaded.known()["image"]), options.dataset)
    if num < FEWEST:
        raise ValueError(
            f"{num} images are too few to tell models apart by: give --num {FEWEST} or more, and a set of at least "
            f"{2 * FEWEST} test images"
        )
    folders = {name: options.out / "runs" / name for name in models}
    return [
        Entry(TITLES[name], folders[name], dataclasses.replace(own, workdir=folders[name], requeue=True))
        for name, own in models.items()
    ]


def summary(spec: Spec) -> str:
    """What kind of model a spec is, in a sentence or two."""
    family = family_of(spec)
    nets = family.networks(spec)[family.decoder]
    kind = type(nets[0]).__name__
    layers = {
        "MLP": "fully connected layers",
        "Conv": "convolutions",
        "DCGAN": "convolutions",
        "ResNet": "residual blocks",
        "Autoencoder": "residual blocks",
    }
    built = next((text for beginning, text in layers.items() if kind.startswith(beginning)), kind)
    depth = f", with {len(nets)} stochastic layers one above the other" if len(nets) > 1 else ""
    return f"{family.summary} Built of {built}{depth}."


def facts(run: Run, cost: Cost) -> tuple[tuple[str, str], ...]:
    """What a reader wants to know of a model."""
    spec = run.spec
    shape, codes = getattr(spec, "latent_shape", None), getattr(spec, "num_codes", 0)
    dims = " + ".join(map(str, family_of(spec).latent_dims(spec)))
    grid = "" if shape is None else f" ({' x '.join(map(str, shape))})"
    images = run.config["identity"]["data"]["num_examples"]
    seen = cost.steps * cost.batch_size
    found = [
        ("latents", f"{dims}{grid}"),
        *([("codes", f"{codes:,}")] if codes else []),
        ("decoder", f"{cost.decoder_parameters:,} parameters"),
        ("in all", f"{cost.parameters:,} parameters"),
        ("training", f"{cost.steps:,} steps of {cost.batch_size} images, each seen {seen / images:,.0f} times"),
    ]
    said = saved_options(run).__dict__
    if "reconstruction" in said:
        found.append(("reconstruction", said["reconstruction"].replace("_", " ")))
    elif family_of(spec).likelihood(spec) is not None:
        found.append(("likelihood", said["likelihood"].replace("_", " ")))
    if getattr(spec, "discriminator", None) is not None:
        loss = getattr(spec.loss, "__name__", None) or said["loss"]
        augmented = "" if spec.augmentation is None else ", with " + type(spec.augmentation).__name__
        found.append(("loss", f"{loss.replace('_', '-')}{augmented}"))
    return tuple(found)


def look_at(
    entries: Sequence[Entry], options: Options, found: Sequence[Record]
) -> tuple[list[Picture], list[Record], dict[str, float], str]:
    """(pictures, further records, seconds of search an image where there is no encoder, a note on completions)."""
    saved = saved_options(Run.open(entries[0].directory))
    loaded = load_data(saved.data_choice(), saved.batch_size)
    held = hold_back(loaded.test, loaded.known()["image"])
    key = named_key(jax.random.key(options.seed), "comparison")
    pictures = [glance(REAL, floats(held.images))]
    further: list[Record] = []
    searching: dict[str, float] = {}
    which = checkpoint(options.checkpoint)
    for entry in entries:
        print(f"pictures of {entry.title}", flush=True)
        template = next(record for record in found if record.model == entry.title)
        shown = show(entry.title, trained.load(entry.directory, which), held, key, template)
        pictures += shown.pictures
        further += shown.records
        if shown.search_seconds is not None:
            searching[entry.title] = shown.search_seconds
    guesses = baselines(held)
    told = ", ".join(f"{name} has {value:.4f}" for name, value in guesses.items())
    return pictures, further, searching, f"To beat, by the squared error of the hidden half: {told}."


def notes(entries: Sequence[Entry], options: Options, spent: Mapping[str, float]) -> tuple[str, ...]:
    """How the page was made, a line each."""
    versions = machine.versions()
    took = ", ".join(f"{what} {choices.seconds_text(seconds)}" for what, seconds in spent.items())
    made = f"jaxgen {jaxgen.__version__}, {', '.join(f'{name} {version}' for name, version in versions.items())}"
    kept = "The runs: " + ", ".join(
        f"{entry.title} ({entry.directory.name}, checkpoint {options.checkpoint})" for entry in entries
    )
    return (
        f"On {jax.default_backend()} ({machine.chip()}): {took}.",
        f"{kept}. Seed {options.seed}.",
        f"{made}.",
        "One training run a model: with another seed models that are close may change places.",
    )


def build(options: Options, entries: Sequence[Entry], spent: dict[str, float]) -> Path:
    """Measure what is trained, and write the page; returns its file."""
    began = time.perf_counter()
    folder = evaluate(options.measuring([entry.directory for entry in entries]))
    titles = {str(entry.directory): entry.title for entry in entries}
    found = [dataclasses.replace(r, model=titles[r.model]) for r in records.read(folder / "records.json")]
    costs, models, titles_of, encoders = {}, [], {}, []
    for entry in entries:
        run = Run.open(entry.directory)
        costs[entry.title] = cost = cost_of(run, run.restore(checkpoint(options.checkpoint)))
        models.append(Model(entry.title, summary(run.spec), facts(run, cost)))
        family = family_of(run.spec)
        titles_of[entry.title] = family.title
        encoders += [entry.title] * (family.encode is not None)
    spent["measuring"] = time.perf_counter() - began
    began = time.perf_counter()
    pictures, further, searching, completion_note = look_at(entries, options, found)
    found += further
    spent["pictures"] = time.perf_counter() - began
    identity = Run.open(entries[0].directory).config["identity"]["data"]
    name, (height, width, channels) = dataset_name(identity["name"]), identity["image_shape"]
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    is_gan = {name: title == "GAN" for name, title in titles_of.items() if title in ("GAN", "VAE")}
    report = Report(
        title=f"{_number(len(entries))} generative model{'s' * (len(entries) > 1)} of {name}",
        lead=(
            f"{_counted(list(titles_of.values()))}, trained on the same {identity['num_examples']:,} {kind} images of "
            f"{height} by {width} pixels and judged on images that none of them has seen."
        ),
        models=tuple(models),
        families=tuple(choices.families(found, is_gan)),
        choices=tuple(choices.choices(found, costs, encoders, searching)),
        cautions=tuple(choices.cautions(found)),
        pictures=tuple(pictures),
        completion_note=completion_note,
        curves=tuple(curves.curves({entry.title: entry.directory for entry in entries})),
        records=tuple(found),
        costs=costs,
        notes=notes(entries, options, spent),
    )
    records.write(options.out / "records.json", found)
    for picture in pictures:
        write(options.out / "pictures", picture)
    path = options.out / "report.html"
    write_text(path, page.page(report))
    return path


def _counted(titles: Sequence[str]) -> str:
    """How many models there are of each kind: "One GAN and no VAEs"."""
    others = [title for title in dict.fromkeys(titles) if title not in ("GAN", "VAE")]
    kinds = ["GAN", "VAE"] if not others else [*(kind for kind in ("GAN", "VAE") if kind in titles), *others]
    counts = [titles.count(kind) for kind in kinds]
    words = [f"{_number(n).lower()} {kind}{'s' * (n != 1)}" for kind, n in zip(kinds, counts, strict=True)]
    text = listed(words)
    return text[0].upper() + text[1:]


def _number(count: int) -> str:
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight")
    return words[count]


def compare(options: Options) -> Path:
    """Train or take the models, measure them and write the page; returns its file."""
    options.check()
    check_out(options)
    entries = taken(options) if options.runs else planned(options)
    options.out.mkdir(parents=True, exist_ok=True)
    with exclusive(options.out):
        write_text(options.out / _MARK, json.dumps(options.mark(), indent=2) + "\n")
        began = time.perf_counter()
        for entry in entries:
            if entry.options is not None:
                train(entry.options)
        spent = {} if options.runs else {"training": time.perf_counter() - began}
        path = build(options, entries, spent)
    print(", ".join(f"{what} {seconds:.0f} s" for what, seconds in spent.items()))
    return path


main = command(Options, compare, "jaxgen compare", go_on="the same command goes on")
