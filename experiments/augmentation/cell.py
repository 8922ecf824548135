"""What is measured: the options, the methods, and what the classifiers of one seed and number of labels share."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import optax

from experiments import configs
from experiments.augmentation import classifier
from experiments.augmentation.generated_images import Filtered, draw_confident, enlarge, generated_per_class
from jaxgen import data
from jaxgen.batches import to_float
from jaxgen.cli.options import check_seeds
from jaxgen.cli.parsing import FAMILIES
from jaxgen.data.batch_feeds import batch_at
from jaxgen.evaluation.figures import Picture, enlarged, enlargement, named, titled
from jaxgen.families import family_of
from jaxgen.intervals import Count, CountOrNone, Inside, Interval, Positive, Seed, Share
from jaxgen.keys import named_key
from jaxgen.networks import LeNet
from jaxgen.plain import Spec, init_state
from jaxgen.training.loop import all_finite
from jaxgen.training.monitor import image_grid, not_seen
from jaxgen.training.run_data import dataset_name

Dataset = dict[str, np.ndarray]
Seeds = Annotated[int, Interval(2, 10_000)]  # error bars need two
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
    labels: tuple[Count, ...] = (10, 50, 200)
    """Numbers of labelled images of each class."""
    seeds: Seeds = 5
    """Number of seeds; each draws its own labelled images, fewer labels being some of more."""
    first_seed: Seed = 0
    """The first of them."""
    families: tuple[Family, ...] = ("gan", "vae")
    """Which generators to train."""
    thresholds: tuple[Share, ...] = (0.9,)
    """Least probabilities, by the classifier with ordinary augmentation, of the class that an image was made for; 0
    keeps all."""
    shares: tuple[Inside, ...] = (0.5,)
    """Shares of generated images in what a classifier learns from, inside (0, 1)."""
    alone: bool = False
    """Also measure generated images without ordinary augmentation."""
    generated: Count = 400
    """Least number of generated images of each class that are kept."""
    most_draws: Count = 10
    """How many times as many are drawn at most; labelled images take the places of those that are missing then."""
    steps: Count = 1500
    """Number of steps of a classifier."""
    batch_size: Count = 32
    """Number of images in a classifier's batch."""
    learning_rate: Positive = 2e-3
    """Adam's learning rate for classifiers at the start; it decays to zero along a cosine."""
    shift: CountOrNone = 1
    """Ordinary augmentation: greatest random shift, in pixels; 0 for none."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Ordinary augmentation: mirror every second image, by chance; auto does so where --dataset says fashion."""
    gan_steps: Count = 4000
    """Number of steps of a GAN."""
    gan_config: str | None = None
    """A named configuration for the GAN (a recipe, or one of experiments/configs), made conditional; fully connected
    networks when not given."""
    gan_augmentation: Literal["none", "diffaugment", "adaptive"] | None = None
    """Augment what a GAN's discriminator sees; as the configuration says when not given."""
    gan_learning_rate: Positive | None = None
    """Adam's learning rate for both of a GAN's networks; as the configuration says when not given."""
    vae_steps: Count = 3000
    """Number of steps of a VAE."""
    vae_config: str | None = None
    """A named configuration for the VAE, made conditional; fully connected networks when not given."""
    generator_batch_size: Count = 64
    """Number of images in a generator's batch."""
    out: Path = Path("augmentation")
    """The folder to write results.json, table.txt, gain.png and samples_FAMILY_LABELS.png to."""

    def check(self) -> None:
        """Refuse numbers that make no sense, before anything is read or written."""
        check_seeds(self.first_seed, self.seeds, "--first-seed")
        for name in ("labels", "families", "thresholds", "shares"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"--{name} must be one or more different values, got {values}")

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
        base: Any = configs.load_config(config, family) if config else FAMILIES[family]()
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
        self._filtered: dict[tuple[Family, float], tuple[int, Filtered]] = {}
        self._generators: dict[Family, tuple[Spec, Any]] = {}

    def fit(self, dataset: Dataset, ordinary: bool) -> Any:
        """The parameters of a classifier that has learnt from a data set."""
        options, key = self.options, named_key(self.key, "classifier")
        state = classifier.start(self.network, self.optimizer, key, dataset["image"][:1])
        shift, flip = (options.shift, options.mirrors) if ordinary else (0, False)
        program = functools.partial(classifier.train, self.network, self.optimizer, options.batch_size)
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

    def filtered(self, family: Family, threshold: float, per_class: int) -> Filtered:
        """At least so many generated images of each class that passed, where the draws gave them."""
        there, found = self._filtered.get((family, threshold), (0, None))
        if found is None or there < per_class:
            spec, state = self.generator(family)
            draw = family_of(spec).sample
            found = draw_confident(
                functools.partial(draw, spec, state),
                functools.partial(classifier.probabilities, self.network, self.judge),
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
        repeats, wanted = generated_per_class(self.labels, method.share, self.options.generated)
        found = self.filtered(method.family, method.threshold, wanted)
        enlarged = enlarge(self.dataset, found, repeats, wanted)
        kept = np.minimum(found.passed, wanted)
        told = {
            "generated_per_class": wanted,
            "share_kept": float(found.passed.sum() / found.drawn.sum()),
            "share_kept_of_class": (found.passed / found.drawn).tolist(),
            "missing_of_class": (wanted - kept).tolist(),
        }
        return self.fit(enlarged, method.ordinary), told

    def picture(self, family: Family, threshold: float, class_names: Any = None, num: int = SHOWN) -> Picture:
        """A row a class: labelled images, generated ones that passed, and some that did not."""
        _, found = self._filtered[family, threshold]
        groups = {
            "labelled images": (np.asarray(to_float(self.dataset["image"])), self.dataset["label"]),
            "generated and kept": (found.image, found.label),
            "generated and rejected": (found.rejected_image, found.rejected_label),
        }
        shape = self.dataset["image"].shape[1:]
        scale = enlargement(shape)
        gap = max(1, shape[1] // 4) * scale
        parts = []
        for number in range(self.num_classes):
            for images, labels in groups.values():
                some = images[labels == number][:num]
                parts.append(np.concatenate([some, np.ones((num - len(some), *shape), np.float32)]))
        grids = [enlarged(image_grid(np.concatenate(parts[i :: len(groups)]), num), scale) for i in range(len(groups))]
        white = np.full((grids[0].shape[0], gap, 3), 255, np.uint8)
        parted = [each for grid in grids for each in (grid, white)][:-1]
        title = f"{self.options.title}, {self.labels} labels a class: what the {family.upper()} makes for each class"
        note = (
            f"Kept are images of which a classifier gives their class a probability of {threshold:g} or more. "
            f"White: there are no more. {not_seen(shape[-1])}"
        )
        heads = [(name, 1) for name in groups]
        rows = [named("class", number, class_names) for number in range(self.num_classes)]
        return titled(np.concatenate(parted, axis=1), title, note, rows, heads)


@functools.cache
def classifier_optimizer(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """The same object for the same numbers, so that programs are found again."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))


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


def train_and_measure(cell: Cell, seed: int, method: Method, measured_on: Dataset) -> Record:
    """Train a method's classifier: where it stands, its accuracy, the seconds it took, and counts of what it saw."""
    began = time.monotonic()
    params, told = cell.params(method)
    accuracy = classifier.accuracy(cell.network, params, measured_on)
    place = {"labels": cell.labels, "seed": seed, "method": dataclasses.asdict(method)}
    return {**place, "accuracy": accuracy, **told, "time_seconds": time.monotonic() - began}
