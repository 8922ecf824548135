"""Measure what generated images add to a small labelled set: the gain in test accuracy, with error bars.

    uv run experiments/augment.py --dataset fashion_mnist --out augmentation

A class-conditional GAN and VAE learn from a few labelled images of each class, a classifier that has learnt from the
same images keeps the generated ones of whose class it is sure, and another classifier learns from both. It is compared
with classifiers that learn from the labelled images alone, as they are (none) and shifted and mirrored by chance
(ordinary). All classifiers take equally many steps; those of one seed share their labelled images and initialisation,
so that gains are paired. What is done already is not done again: the same command goes on after a kill, and more
--labels, --seeds, --families, --thresholds, --shares and --alone add to what there is.

The script chooses nothing by the test labels. To choose settings, measure with --measure-on training and other seeds
(--first-seed).

Reached on Fashion-MNIST with the defaults: gains over ordinary augmentation of 0.01, -0.96 and -1.59 points by the GAN
and of 0.55, -0.85 and -1.35 by the VAE, at 10, 50 and 200 labels a class (docs/augmentation.md); 48 minutes of
processor time.
"""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
import tyro
from tqdm import tqdm

from experiments import options as train_options
from experiments import train_classifier
from experiments.command import exit_status
from experiments.inputs import dataset_name
from jaxgen import data, metrics
from jaxgen.batches import to_float
from jaxgen.families import family_of
from jaxgen.keys import named_key
from jaxgen.networks import LeNet
from jaxgen.training import manifest
from jaxgen.training.feeds import batch_at
from jaxgen.training.files import exclusive, replacing
from jaxgen.training.loop import all_finite
from jaxgen.training.monitor import image_grid, write_png
from jaxgen.training.run import Spec, differences, init_state, to_plain

Dataset = dict[str, np.ndarray]
Family = Literal["gan", "vae"]
Record = dict[str, Any]  # of one classifier: see `train_and_measure`

SHOWN = 8  # images of each kind in a row of a picture
MOST_HELD_OUT = 10_000  # images that --measure-on training measures on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measure what generated images add to a small labelled set: the gain in test accuracy, with error bars."""

    dataset: str = "fashion_mnist_small"
    """A set with labels: fashion_mnist_small (embedded, 500 test images), the TFDS name of an image set, folder:PATH,
    npz:PATH or idx:DIR."""
    name: str | None = None
    """What to call the set in tables; what --dataset says before a colon when not given."""
    data_dir: Path | None = None
    """Where TFDS keeps prepared sets; its own default when not given."""
    manual_dir: Path | None = None
    """Folder with the original files of a TFDS set, used instead of the network."""
    train_split: str = "train"
    """The split that the labelled images are drawn from."""
    test_split: str = "test"
    """The split whose accuracy is reported."""
    measure_on: Literal["test", "training"] = "test"
    """Measure on the test split, or, to choose settings, on images of the training split that are not among the
    labelled ones."""
    labels: tuple[int, ...] = (10, 50, 200)
    """Numbers of labelled images of each class."""
    seeds: int = 5
    """Number of seeds; each draws its own labelled images, fewer labels being some of more."""
    first_seed: int = 0
    """The first of them."""
    families: tuple[Family, ...] = ("gan", "vae")
    """Which generators to train."""
    thresholds: tuple[float, ...] = (0.9,)
    """Least probabilities, by the classifier with ordinary augmentation, of the class that an image was made for; 0
    keeps all."""
    shares: tuple[float, ...] = (0.5,)
    """Shares of generated images in what a classifier learns from, inside (0, 1)."""
    alone: bool = False
    """Also measure generated images without ordinary augmentation."""
    generated: int = 400
    """Least number of generated images of each class that are kept."""
    most_draws: int = 10
    """How many times as many are drawn at most; labelled images take the places of those that are missing then."""
    steps: int = 1500
    """Number of steps of a classifier."""
    batch_size: int = 32
    """Number of images in a classifier's batch."""
    learning_rate: float = 2e-3
    """Adam's learning rate for classifiers at the start; it decays to zero along a cosine."""
    shift: int = 1
    """Ordinary augmentation: greatest random shift, in pixels; 0 for none."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Ordinary augmentation: mirror every second image, by chance; auto does so where --dataset says fashion."""
    gan_steps: int = 4000
    """Number of steps of a GAN."""
    gan_config: str | None = None
    """A named configuration of experiments/configs for the GAN, made conditional; fully connected networks when not
    given."""
    gan_augmentation: Literal["none", "diffaugment", "adaptive"] | None = None
    """Augment what a GAN's discriminator sees; as the configuration says when not given."""
    gan_learning_rate: float | None = None
    """Adam's learning rate for both of a GAN's networks; as the configuration says when not given."""
    vae_steps: int = 3000
    """Number of steps of a VAE."""
    vae_config: str | None = None
    """A named configuration for the VAE, made conditional; fully connected networks when not given."""
    generator_batch_size: int = 64
    """Number of images in a generator's batch."""
    out: Path = Path("augmentation")
    """The folder to write results.json, table.txt, gain.png and samples_FAMILY_LABELS.png to."""

    def check(self) -> None:
        """Refuse numbers that make no sense, before anything is read or written."""
        counts = ("generated", "most_draws", "steps", "batch_size", "gan_steps", "vae_steps", "generator_batch_size")
        for name, least in (*((name, 1) for name in counts), ("shift", 0), ("first_seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}")
        if self.seeds < 2:
            raise ValueError(f"--seeds must be at least 2, as error bars need them, got {self.seeds}")
        if self.learning_rate <= 0 or (self.gan_learning_rate or 1.0) <= 0:
            raise ValueError("--learning-rate and --gan-learning-rate must be positive")
        for name in ("labels", "families", "thresholds", "shares"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"--{name} must be one or more different values, got {values}")
        if min(self.labels) < 1:
            raise ValueError(f"--labels must be at least 1, got {self.labels}")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError(f"--thresholds are probabilities in [0, 1], got {self.thresholds}")
        if not all(0 < share < 1 for share in self.shares):
            raise ValueError(f"--shares must be inside (0, 1), got {self.shares}")

    @property
    def title(self) -> str:
        """What the set is called."""
        return self.name or dataset_name(self.dataset)

    @property
    def mirrors(self) -> bool:
        """Whether ordinary augmentation mirrors images."""
        return self.flip == "yes" or (self.flip == "auto" and "fashion" in self.dataset)

    def spec(self, family: Family, image_shape: tuple[int, ...], num_classes: int) -> Spec:
        """The generator of a family."""
        config = self.gan_config if family == "gan" else self.vae_config
        base: Any = train_options.load_config(config, family) if config else train_options.FAMILIES[family]()
        changes: dict[str, Any] = {"conditional": True}
        if family == "gan" and self.gan_augmentation is not None:
            changes["augmentation"] = self.gan_augmentation
        if family == "gan" and self.gan_learning_rate is not None:
            changes |= {
                "generator_learning_rate": self.gan_learning_rate,
                "discriminator_learning_rate": self.gan_learning_rate,
            }
        return dataclasses.replace(base, **changes).spec(image_shape, num_classes)


@dataclasses.dataclass(frozen=True)
class Method:
    """What a classifier learns from besides the labelled images."""

    ordinary: bool  # whether images are shifted and mirrored by chance
    family: Family | None = None  # of the generator; None for no generated images
    threshold: float | None = None
    share: float | None = None

    @property
    def name(self) -> str:
        """How tables call it."""
        if self.family is None:
            return "ordinary" if self.ordinary else "none"
        generated = f"{self.family.upper()} ({self.share:.0%}, p >= {self.threshold:g})"
        return f"ordinary + {generated}" if self.ordinary else generated

    @property
    def bases(self) -> tuple["Method", ...]:
        """What its gain is measured against: no augmentation, and the ordinary one that it adds to."""
        none, ordinary = Method(False), Method(True)
        if self.family is None:
            return (none,) if self.ordinary else ()
        return (none, ordinary) if self.ordinary else (none,)


def methods(options: Options) -> list[Method]:
    """All that are compared."""
    found = [Method(False), Method(True)]
    for family in options.families:
        for threshold in options.thresholds:
            for share in options.shares:
                found += [Method(ordinary, family, threshold, share) for ordinary in (True, False)[: 1 + options.alone]]
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def train_generator(spec: Spec, batch_size: int, dataset: Any, key: jax.Array, num_steps: jax.Array) -> Any:
    """The state of a generator after some steps on a data set."""
    take = family_of(spec).step

    def step(_: jax.Array, state: Any) -> Any:
        batch = batch_at(dataset, key, state.step, dataset["image"].shape[0], batch_size)
        return take(spec, state, batch, key)[0]

    state = init_state(spec, named_key(key, "init"), {name: array[:1] for name, array in dataset.items()})
    return jax.lax.fori_loop(0, num_steps, step, state)


class Cell:
    """What the classifiers of one seed and one number of labels share, made when it is first needed.

    Everything in it comes from the labelled images alone.
    """

    def __init__(self, options: Options, training: Dataset, num_classes: int, labels: int, seed: int) -> None:
        self.options, self.labels, self.num_classes = options, labels, num_classes
        self.key = jax.random.key(seed)
        self.chosen = data.labelled_subset(training["label"], labels, named_key(self.key, "labelled images"))
        self.dataset = {name: array[self.chosen] for name, array in training.items()}
        self.network = LeNet(num_classes)
        self.optimizer = classifier_optimizer(options.learning_rate, options.steps)
        self._filtered: dict[tuple[Family, float], tuple[int, data.Filtered]] = {}
        self._generators: dict[Family, tuple[Spec, Any]] = {}

    def fit(self, dataset: Dataset, ordinary: bool) -> Any:
        """The parameters of a classifier that has learnt from a data set."""
        options, key = self.options, named_key(self.key, "classifier")
        state = train_classifier.start(self.network, self.optimizer, key, dataset["image"][:1])
        shift, flip = (options.shift, options.mirrors) if ordinary else (0, False)
        program = functools.partial(train_classifier.train, self.network, self.optimizer, options.batch_size)
        params, _, total = program(shift, flip, state, jax.device_put(dataset), key, 0, options.steps)
        if not np.isfinite(total):
            raise FloatingPointError(f"a classifier diverged: lower --learning-rate, it is {options.learning_rate}")
        return params

    @functools.cached_property
    def judge(self) -> Any:
        """The parameters of the classifier that filters: that of ordinary augmentation."""
        return self.fit(self.dataset, ordinary=True)

    def generator(self, family: Family) -> tuple[Spec, Any]:
        """The spec and the state of a generator that has learnt from the labelled images."""
        if family not in self._generators:
            options, key = self.options, named_key(self.key, f"{family} generator")
            spec = options.spec(family, self.dataset["image"].shape[1:], self.num_classes)
            steps = options.gan_steps if family == "gan" else options.vae_steps
            state = train_generator(spec, options.generator_batch_size, self.dataset, key, steps)
            if not all_finite(state):
                raise FloatingPointError(
                    f"the {family.upper()} diverged on {self.labels} labels a class: change its learning rate or "
                    "configuration"
                )
            self._generators[family] = spec, state
        return self._generators[family]

    def filtered(self, family: Family, threshold: float, per_class: int) -> data.Filtered:
        """At least so many generated images of each class that passed, where the draws gave them."""
        there, found = self._filtered.get((family, threshold), (0, None))
        if found is None or there < per_class:
            spec, state = self.generator(family)
            draw = family_of(spec).sample
            found = data.draw_confident(
                functools.partial(draw, spec, state),
                functools.partial(train_classifier.probabilities, self.network, self.judge),
                named_key(self.key, f"{family} samples"),
                per_class,
                self.num_classes,
                threshold,
                self.options.most_draws,
            )
            self._filtered[family, threshold] = per_class, found
        return found

    def params(self, method: Method) -> tuple[Any, Record]:
        """The parameters of a method's classifier, and what is to be told of its generated images."""
        if method.family is None:
            return self.judge if method.ordinary else self.fit(self.dataset, ordinary=False), {}
        assert method.threshold is not None
        assert method.share is not None
        repeats, wanted = data.generated_per_class(self.labels, method.share, self.options.generated)
        found = self.filtered(method.family, method.threshold, wanted)
        enlarged = data.enlarge(self.dataset, found, repeats, wanted)
        kept = np.minimum(found.passed, wanted)
        told = {
            "generated_per_class": wanted,
            "share_kept": float(found.passed.sum() / found.drawn.sum()),
            "share_kept_of_class": (found.passed / found.drawn).tolist(),
            "missing_of_class": (wanted - kept).tolist(),
        }
        return self.fit(enlarged, method.ordinary), told

    def picture(self, family: Family, threshold: float, num: int = SHOWN) -> np.ndarray:
        """A row a class: labelled images, generated ones that passed, and some that did not."""
        _, found = self._filtered[family, threshold]
        groups = (
            (np.asarray(to_float(self.dataset["image"])), self.dataset["label"]),
            (found.image, found.label),
            (found.rejected_image, found.rejected_label),
        )
        shape = self.dataset["image"].shape[1:]
        white = np.ones((shape[0], shape[1] // 4, shape[2]), np.float32)
        rows = []
        for number in range(self.num_classes):
            parts = []
            for images, labels in groups:
                some = images[labels == number][:num]
                filled = np.concatenate([some, np.ones((num - len(some), *shape), np.float32)])
                parts += [np.concatenate(list(filled), axis=1), white]
            rows.append(np.concatenate(parts[:-1], axis=1))
        return image_grid(np.stack(rows), columns=1)


@functools.cache
def classifier_optimizer(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """The same object for the same numbers, so that programs are found again."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))


def train_and_measure(cell: Cell, seed: int, method: Method, measured_on: Dataset) -> Record:
    """Train a method's classifier: where it stands, its accuracy, the seconds it took, and counts of what it saw."""
    began = time.monotonic()
    params, told = cell.params(method)
    accuracy = train_classifier.accuracy(cell.network, params, measured_on)
    place = {"labels": cell.labels, "seed": seed, "method": dataclasses.asdict(method)}
    return {**place, "accuracy": accuracy, **told, "time_seconds": time.monotonic() - began}


def held_out(options: Options, training: Dataset, test: Dataset, cell: Cell) -> Dataset:
    """The images that accuracy is measured on."""
    if options.measure_on == "test":
        return test
    others = np.setdiff1d(np.arange(len(training["label"])), cell.chosen)
    if not others.size:
        raise ValueError(
            f"--measure-on training: all {len(training['label'])} training images are among the labelled ones: use "
            "fewer --labels or a larger set"
        )
    places = others[data.spread(len(others), MOST_HELD_OUT)]
    return {name: array[places] for name, array in training.items()}


def fingerprint(dataset: Dataset) -> str:
    """What tells a split from others, by some of its examples."""
    places = data.spread(len(dataset["label"]), data.LOOKED_AT)
    return f"{data.fingerprint({name: array[places] for name, array in dataset.items()}, places):064x}"


def identity(options: Options, training: Dataset, test: Dataset, num_classes: int) -> dict[str, Any]:
    """What all numbers of a folder have in common, as plain data."""
    shape = training["image"].shape[1:]
    names = ("measure_on", "generated", "most_draws", "steps", "batch_size", "learning_rate", "shift", "gan_steps",
             "vae_steps", "generator_batch_size")  # fmt: skip
    return {
        "dataset": options.title,
        "sha256": fingerprint(training),
        "test_sha256": fingerprint(test),
        **{name: getattr(options, name) for name in names},
        "flip": options.mirrors,
        "gan": to_plain(options.spec("gan", shape, num_classes)),
        "vae": to_plain(options.spec("vae", shape, num_classes)),
        "versions": manifest.versions(),
    }


def read(path: Path, wanted: dict[str, Any]) -> list[Record]:
    """The records that there are already; those of other settings are an error."""
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    # Through JSON, where tuples are lists.
    changed = differences(found["settings"], json.loads(json.dumps(wanted)))
    if changed:
        raise ValueError(f"{path} holds results of other settings ({manifest.summary(changed)}): use another --out")
    return found["runs"]


def find(runs: Sequence[Record], labels: int, seed: int, method: Method) -> Record | None:
    """The record of one classifier."""
    wanted = (labels, seed, dataclasses.asdict(method))
    return next((run for run in runs if (run["labels"], run["seed"], run["method"]) == wanted), None)


def accuracies(options: Options, runs: Sequence[Record], labels: int, method: Method) -> np.ndarray:
    """Accuracy of each seed, [seeds]."""
    found = [find(runs, labels, seed, method) for seed in seeds(options)]
    return np.array([run["accuracy"] for run in found if run is not None])


def seeds(options: Options) -> range:
    """The seeds."""
    return range(options.first_seed, options.first_seed + options.seeds)


def summarize(options: Options, runs: Sequence[Record]) -> list[Record]:
    """Means over the seeds and their standard errors, of every method and number of labels.

    Args:
      options: say which, all of whose runs are there.
      runs: records of `train_and_measure`.

    Returns:
      ``labels``, ``method`` (its name), ``accuracy`` (value and standard error), ``gains`` (the same by the name of
      what they are over, of the differences of each seed), and ``share_kept`` (None without generated images).
    """
    rows = []
    for method in methods(options):
        for labels in options.labels:
            accuracy = accuracies(options, runs, labels, method)
            gains = {base.name: accuracy - accuracies(options, runs, labels, base) for base in method.bases}
            kept = [found["share_kept"] for seed in seeds(options)
                    if (found := find(runs, labels, seed, method)) is not None and "share_kept" in found]  # fmt: skip
            rows.append(
                {
                    "labels": labels,
                    "method": method.name,
                    "accuracy": metrics.from_repetitions(accuracy.tolist())._asdict(),
                    "gains": {name: metrics.from_repetitions(gain.tolist())._asdict() for name, gain in gains.items()},
                    "share_kept": float(np.mean(kept)) if kept else None,
                }
            )
    return rows


def table(options: Options, summary: Sequence[Record]) -> str:
    """Accuracy, paired gains and the share of generated images that was kept, as Markdown."""
    names = list(dict.fromkeys(row["method"] for row in summary))

    def points(estimate: Record, sign: str = "") -> str:
        value = round(100 * estimate["value"], 2) + 0.0  # no -0.00
        return f"{value:{sign}.2f} +- {100 * estimate['standard_error']:.2f}"

    def lines(title: str, cells: dict[str, list[str]]) -> str:
        head = f"| {title} | " + " | ".join(f"{labels} labels a class" for labels in options.labels) + " |"
        rows = [f"| {name} | " + " | ".join(row) + " |" for name, row in cells.items()]
        return "\n".join([head, "|---|" + "---|" * len(options.labels), *rows])

    accuracy: dict[str, list[str]] = {}
    gain: dict[str, list[str]] = {}
    kept: dict[str, list[str]] = {}
    for name in names:
        rows = [row for row in summary if row["method"] == name]
        accuracy[name] = [points(row["accuracy"]) for row in rows]
        for base in rows[0]["gains"]:
            gain[f"{name}, over {base}"] = [points(row["gains"][base], "+") for row in rows]
        if rows[0]["share_kept"] is not None:
            kept[name] = [f"{row['share_kept']:.0%}" for row in rows]
    where = "test" if options.measure_on == "test" else "other training images'"
    parts = (
        f"Mean +- standard error over {options.seeds} seeds, {options.title}.",
        lines(f"{where} accuracy, %", accuracy),
        lines("paired gain, points", gain),
        lines("share of generated images kept", kept),
    )
    return "\n\n".join(parts) + "\n"


def draw(options: Options, summary: Sequence[Record], path: Path) -> None:
    """Two panels against the number of labels: accuracy, and paired gains."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # draws without a screen
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    names = list(dict.fromkeys(row["method"] for row in summary))
    left, right = figure.subplots(1, 2)
    curves = {name: [row for row in summary if row["method"] == name] for name in names}
    for number, (name, rows) in enumerate(curves.items()):
        # Moved apart a little, so that error bars can be told from each other.
        x = [row["labels"] * 1.03 ** (number - len(names) / 2) for row in rows]
        _error_bars(left, x, [row["accuracy"] for row in rows], f"C{number}", name)
        # Over the ordinary augmentation where it is in both: over none that would hide what is generated.
        for base in list(rows[0]["gains"])[-1:]:
            _error_bars(right, x, [row["gains"][base] for row in rows], f"C{number}", f"{name}, over {base}")
    left.set_ylabel("accuracy, %")
    right.set_ylabel("paired gain in accuracy, points")
    right.axhline(0.0, color="black", linewidth=0.8)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(options.labels, [str(labels) for labels in options.labels])
        axes.minorticks_off()
        axes.set_xlabel("labelled images a class")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(f"{options.title}, {options.seeds} seeds, mean and standard error")
    with replacing(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def _error_bars(axes: Any, x: Sequence[float], estimates: Sequence[Record], color: str, label: str) -> None:
    value, error = ([100 * estimate[kind] for estimate in estimates] for kind in ("value", "standard_error"))
    axes.errorbar(x, value, error, fmt="o-", capsize=3, markersize=4, color=color, label=label)


def load(options: Options) -> tuple[Dataset, Dataset, int]:
    """(training split, test split, number of classes)."""
    training, test = (train_classifier.load(options, split) for split in (options.train_split, options.test_split))
    if training["image"].ndim != 4:
        raise ValueError(f"{options.dataset}: images [N, H, W, C] are needed, got {list(training['image'].shape)}")
    num_classes = int(training["label"].max()) + 1
    if test["label"].max() >= num_classes:
        raise ValueError(f"{options.dataset}: the test split has classes that the training split lacks")
    fewest = num_classes * min(options.labels)
    for name in ("batch_size", "generator_batch_size"):
        if getattr(options, name) > fewest:
            raise ValueError(
                f"--{name.replace('_', '-')} {getattr(options, name)} is larger than the smallest labelled set, "
                f"{min(options.labels)} of {num_classes} classes: use at most {fewest}"
            )
    counts = np.bincount(training["label"], minlength=num_classes)
    if counts.min() < max(options.labels):
        raise ValueError(
            f"{options.dataset}: class {int(counts.argmin())} has {counts.min()} training images, --labels asks for "
            f"{max(options.labels)}"
        )
    return training, test, num_classes


def run(options: Options) -> Path:
    """Train what is missing, measure, and write the tables and the pictures; returns the folder."""
    options.check()
    training, test, num_classes = load(options)
    settings = identity(options, training, test, num_classes)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.json"
    with exclusive(options.out):
        runs = read(path, settings)
        wanted = [(labels, seed, method) for labels in options.labels for seed in seeds(options)
                  for method in methods(options)]  # fmt: skip
        missing = [each for each in wanted if find(runs, *each) is None]
        interval = 0.2 if sys.stderr.isatty() else 10.0
        bar = tqdm(missing, total=len(wanted), initial=len(wanted) - len(missing), unit="run", mininterval=interval)
        cell: Cell | None = None
        place = None
        for labels, seed, method in bar:
            bar.set_postfix_str(f"{labels} labels, seed {seed}, {method.name}", refresh=False)
            if cell is None or place != (labels, seed):
                cell, place = Cell(options, training, num_classes, labels, seed), (labels, seed)
                measured_on = held_out(options, training, test, cell)
            runs.append(train_and_measure(cell, seed, method, measured_on))
            write(path, {"settings": settings, "runs": runs})
            shown = seed == options.first_seed and method.threshold == max(options.thresholds)
            if shown and method.family is not None and method.threshold is not None:
                picture = cell.picture(method.family, method.threshold)
                write_png(options.out / f"samples_{method.family}_{labels}.png", picture)
        summary = summarize(options, runs)
        write(path, {"settings": settings, "runs": runs, "summary": summary})
        text = table(options, summary)
        with replacing(options.out / "table.txt") as partial:
            partial.write_text(text)
        draw(options, summary, options.out / "gain.png")
    print(text)
    missed = [run for run in runs if sum(run.get("missing_of_class", ()))]
    if missed:
        most = max(max(run["missing_of_class"]) / run["generated_per_class"] for run in missed)
        print(f"{len(missed)} of {len(runs)} classifiers had classes short of generated images, by up to {most:.0%}")
    return options.out


def write(path: Path, results: dict[str, Any]) -> None:
    """Write the results, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(results, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns its exit status."""
    return exit_status(lambda: print(run(tyro.cli(Options, args=arguments, prog="augment.py"))))


if __name__ == "__main__":
    sys.exit(main())
