"""Use a trained model: complete, interpolate, invert, find neighbours, change attributes, truncate.

    jaxgen explore complete runs/vae-001 --out completions
    jaxgen explore complete dcgan-fashion-mnist --hide left --num-samples 6 --out completions
    jaxgen explore interpolate runs/gan-001 --between images --out walks
    jaxgen explore invert runs/gan-001 --out inversions
    jaxgen explore neighbours runs/gan-001 --out neighbours
    jaxgen explore attribute runs/vae-001 --without-label 3 --with-label 1 --out attribute
    jaxgen explore truncate dcgan-fashion-mnist --out truncated

The model is a run directory, a .safetensors file or the name of a pretrained model. Each command leaves pictures (PNG,
and a GIF of interpolations), arrays.npz and numbers.json in its folder.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxgen
from jaxgen import data, latents, losses, metrics
from jaxgen.batches import to_float
from jaxgen.cli.exit_status import exit_status
from jaxgen.cli.options import check_data, check_least, check_seed, checkpoint
from jaxgen.cli.parsing import saved_options
from jaxgen.cli.pictures import animate, floats, show
from jaxgen.evaluation.during_training import COLUMNS
from jaxgen.evaluation.records import mean_and_error
from jaxgen.evaluation.sample_measures import nearest
from jaxgen.keys import named_key
from jaxgen.trained import Trained, class_number
from jaxgen.training.files import replacing, write_text
from jaxgen.training.run import Run
from jaxgen.training.run_data import load_data

Images = dict[str, np.ndarray]
Hide = Literal["bottom", "top", "left", "right", "centre", "pixels"]
GOOD = 30.0  # dB
CLOSE = 0.01  # quantile of the test images' distances under which a sample counts as a copy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every command."""

    model: Annotated[str, tyro.conf.Positional]
    """A run directory, a .safetensors file, or the name of a pretrained model."""
    out: Path
    """Folder of the results."""
    num: int = 8
    """Number of images, or rows of them."""
    images: str | None = None
    """Where the images come from: as --dataset of jaxgen train (fashion_mnist_small, a TFDS name, folder:PATH,
    npz:PATH, idx:DIR); the data of the run when not given, or fashion_mnist_small where there is no run."""
    checkpoint: str = "newest"
    """Of a run: newest, best, or the step of a checkpoint."""
    label: str | None = None
    """Class of the samples of a conditional model; all in turn when not given."""
    seed: int = 0
    """Seed of all that is drawn."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is loaded."""
        check_seed(self.seed)
        names = ("num", "num_samples", "temperatures", "num_restarts", "steps", "frames")
        check_least(self, dict.fromkeys(names, 1))
        checkpoint(self.checkpoint)

    @property
    def key(self) -> jax.Array:
        """The key of all that is drawn."""
        return jax.random.key(self.seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Complete(Options):
    """Complete held-out images of which a part is hidden, in several ways, beside simple guesses."""

    out: Path = Path("completions")
    """Folder of the results."""
    hide: Hide = "bottom"
    """What is hidden: a half, the centre, or single pixels at random."""
    share: float = 0.5
    """Share of the image that is hidden; of the centre, of each side."""
    num_samples: int = 4
    """Completions of each image."""
    temperatures: int = 300
    """Steps of the drawn completions from the prior to the posterior: more are better draws, and take longer."""
    noise: float | None = None
    """Standard deviation of Gaussian noise around the model's images, in units of their range; when not given, 0.3 for
    a GAN, and a VAE's own likelihood."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is loaded."""
        super().check()
        if not 0 < self.share < 1:
            raise ValueError(f"--share must lie between 0 and 1, got {self.share}")
        if self.noise is not None and not self.noise > 0:
            raise ValueError(f"--noise must be above 0, got {self.noise}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolate(Options):
    """Walk between latents: rows of images, and an animation."""

    out: Path = Path("walks")
    """Folder of the results."""
    between: Literal["samples", "images"] = "samples"
    """Between drawn latents, or those of held-out images."""
    steps: int = 10
    """Images of a row, the ends among them."""
    frames: int = 24
    """Images of the animation from one end to the other."""
    linear: bool = False
    """Along straight lines instead of arcs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invert(Options):
    """Project the model's own samples and held-out images into the latent space, from many starts and from one."""

    out: Path = Path("inversions")
    """Folder of the results."""
    num: int = 64
    """Number of samples, and of held-out images."""
    num_restarts: int = 8
    """Starts of each image."""
    steps: int = 300
    """Steps of each start."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbours(Options):
    """The nearest training images of samples: does the model know them by heart?"""

    out: Path = Path("neighbours")
    """Folder of the results."""
    num: int = 500
    """Number of samples, and of held-out images to compare with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attribute(Options):
    """Move images along the direction from one class to another."""

    out: Path = Path("attribute")
    """Folder of the results."""
    with_label: int
    """Class of the images that have the attribute."""
    without_label: int
    """Class of the images that do not have it, which are moved."""
    num_examples: int = 200
    """Training images of each class whose mean latents make the direction."""
    steps: int = 7
    """Images of a row, from the image to beyond the attribute."""
    strength: float = 1.5
    """How far the last image is moved; 1 is from one mean to the other."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truncate(Options):
    """Samples from ever nearer to the middle of the prior: likelier and less varied."""

    out: Path = Path("truncated")
    """Folder of the results."""
    thresholds: tuple[float, ...] = (2.0, 1.0, 0.5, 0.25)
    """Largest absolute value of a latent, a column each; the first column is not truncated."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is loaded."""
        super().check()
        if not all(threshold > 0 for threshold in self.thresholds):
            raise ValueError(f"--thresholds must be above 0, got {self.thresholds}")


def load_model(options: Options) -> Trained:
    """The model that is asked for."""
    model = jaxgen.load(options.model, checkpoint(options.checkpoint))
    if len(model.image_shape) != 3:
        raise ValueError(f"{options.model} makes vectors {list(model.image_shape)}: pictures need images")
    if options.label is not None and model.num_classes is None:
        raise ValueError(f"--label is for conditional models: {options.model} has learnt no classes")
    return model


def load_images(model: Trained, options: Options) -> tuple[Images, Images]:
    """(training images, held-out images) of the model's shape and type, with labels where there are some."""
    if options.images is None and Path(options.model).is_dir():
        saved = saved_options(Run.open(Path(options.model)))
        check_data(saved.dataset, Path(options.model), "--images")
        loaded = load_data(saved.data_choice(), saved.batch_size)
        return loaded.known(), loaded.test
    name = "fashion_mnist_small" if options.images is None else options.images
    *size, channels = model.image_shape
    color: Any = "grey" if channels == 1 else "rgb"
    sets = [data.load(name, split, image_size=(size[0], size[1]), color=color) for split in ("train", "test")]
    for images in sets:
        if images["image"].shape[1:] != model.image_shape:
            raise ValueError(
                f"{options.model} has learnt images {list(model.image_shape)}, {name} has "
                f"{list(images['image'].shape[1:])}: give images that are as large"
            )
        if model.image_type == "bool" and images["image"].dtype != np.bool_:
            images["image"] = data.binarize_set(images["image"])
    return sets[0], sets[1]


def labels_of(model: Trained, images: Images) -> np.ndarray | None:
    """The labels that the model needs to know of images."""
    if model.num_classes is None:
        return None
    if "label" not in images:
        raise ValueError(f"{model.name} is conditional, and the images have no labels: put them into folders by class")
    return images["label"]


def drawn_labels(model: Trained, options: Options, num: int) -> np.ndarray | None:
    """Labels of samples: the one that is asked for, or all in turn."""
    if model.num_classes is None:
        return None
    if options.label is None:
        return np.arange(num, dtype=np.int32) % model.num_classes
    return np.full(num, class_number(options.label, model.class_names, model.num_classes))


def spread(images: Images, num: int) -> Images:
    """So many examples, spread over all."""
    places = data.spread(len(images["image"]), num)
    return {name: array[places] for name, array in images.items()}


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """(what a function of arrays gives, the seconds that it took, compilation included)."""
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return result, time.perf_counter() - start


def save(options: Options, arrays: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
    """Write the arrays and the numbers, each file whole or not at all."""
    options.out.mkdir(parents=True, exist_ok=True)
    with replacing(options.out / "arrays.npz") as partial:
        written: Any = {name: np.asarray(array) for name, array in arrays.items()}
        np.savez_compressed(partial, **written)
    write_text(options.out / "numbers.json", json.dumps(numbers, indent=2) + "\n")


def make_mask(hide: Hide, share: float, image_shape: tuple[int, ...], key: jax.Array) -> np.ndarray:
    """True where a pixel is visible, [H, W]."""
    height, width = image_shape[:2]
    mask = np.ones((height, width), bool)
    rows, columns = max(1, round(share * height)), max(1, round(share * width))
    if hide == "pixels":
        return np.asarray(jax.random.uniform(key, (height, width)) >= share)
    if hide == "centre":
        top, left = (height - rows) // 2, (width - columns) // 2
        mask[top : top + rows, left : left + columns] = False
    else:
        place = {"bottom": np.s_[height - rows :], "top": np.s_[:rows]}.get(hide)
        if place is not None:
            mask[place] = False
        else:
            mask[:, np.s_[:columns] if hide == "left" else np.s_[width - columns :]] = False
    return mask


def complete(options: Complete) -> dict[str, Any]:
    """Complete images, and score all guesses of the hidden pixels."""
    model = load_model(options)
    train, test = load_images(model, options)
    held = spread(test, options.num)
    label = labels_of(model, held)
    mask = make_mask(options.hide, options.share, model.image_shape, named_key(options.key, "mask"))
    likelihood = None if options.noise is None else losses.gaussian(scale=options.noise)
    images = np.asarray(to_float(held["image"]))
    seen = np.where(mask[..., None], images, 0.0)
    known = np.asarray(to_float(train["image"]))
    _, places = nearest(seen, np.where(mask[..., None], known, 0.0))
    given = held["image"]
    mode_key, draws_key = (named_key(options.key, name) for name in ("mode", "draws"))
    run = functools.partial(model.complete, given, mask, label=label, likelihood=likelihood)
    mode, mode_time = timed(lambda: run(key=mode_key, num_samples=None))
    drawn, drawn_time = timed(
        lambda: run(key=draws_key, num_samples=options.num_samples, num_temperatures=options.temperatures)
    )
    guesses = {
        "mean training image": np.broadcast_to(known.mean(axis=0), images.shape),
        "nearest training image": known[places],
        "likeliest completion": np.asarray(mode.images[:, 0]),
        "one drawn completion": np.asarray(drawn.images[:, 0]),
        f"mean of {options.num_samples} completions": np.asarray(drawn.images.mean(axis=1)),
    }
    completed = (mode.images[:, 0], *drawn.images.swapaxes(0, 1))
    kept = [np.array_equal(np.asarray(each)[:, mask], images[:, mask]) for each in completed]
    errors = {name: np.square(guess - images)[:, ~mask].mean(axis=(1, 2)) for name, guess in guesses.items()}
    baseline = errors["nearest training image"]
    numbers: dict[str, Any] = {
        "images": len(images),
        "hidden": f"{options.hide}, {np.mean(~mask):.0%} of the pixels",
        "visible_pixels_kept": all(kept),
        "hidden_squared_error": {name: mean_and_error(error) for name, error in errors.items()},
        "less_than_nearest": {name: mean_and_error(baseline - error) for name, error in errors.items()},
        "spread_of_completions": float(drawn.images.std(axis=1)[:, ~mask].mean()),
        "acceptance": float(drawn.acceptance.mean()),
        "time_likeliest_s": mode_time,
        "time_drawn_s": drawn_time,
    }
    shown = np.s_[: min(16, len(images))]
    hidden = np.where(mask[..., None], images, 0.5)
    columns = {
        "image": images[shown],
        "given": hidden[shown],
        "nearest": np.where(mask[..., None], images, guesses["nearest training image"])[shown],
        "likeliest": mode.images[shown],
        "drawn": drawn.images[shown],
    }
    save(options, {"images": images, "mask": mask, "likeliest": mode.images[:, 0], "drawn": drawn.images}, numbers)
    show(options.out / "completions.png", columns)
    return numbers


def _ends(model: Trained, options: Interpolate) -> tuple[jax.Array, np.ndarray | None]:
    """Latents [2 num, D] of the ends, and a label for each pair."""
    if options.between == "samples":
        z = jax.random.normal(named_key(options.key, "ends"), (2 * options.num, model.latent_dim))
        return z, drawn_labels(model, options, options.num)
    _, test = load_images(model, options)
    held = spread(test, 2 * options.num)
    label = labels_of(model, held)
    if model.family.encode is not None:
        z = model.encode(held["image"], label)
    else:
        z = model.invert(held["image"], named_key(options.key, "inversion"), label).latents
    return z, None if label is None else label[:: len(label) // options.num][: options.num]


def interpolate(options: Interpolate) -> dict[str, Any]:
    """Rows of images between latents, and an animation of all rows side by side."""
    model = load_model(options)
    z, label = _ends(model, options)
    start, end = z[: len(z) // 2], z[len(z) // 2 :]
    rows, frames = (
        floats(model.interpolate(start, end, max(2, num), label, linear=options.linear))
        for num in (options.steps, options.frames)
    )
    arcs = latents.spherical_interpolation(start, end, jnp.linspace(0.0, 1.0, 3))
    numbers = {
        "rows": len(rows),
        "path": "line" if options.linear else "arc",
        "length_of_the_ends": mean_and_error(np.linalg.norm(np.asarray(z), axis=1)),
        "length_in_the_middle_of_arcs": mean_and_error(np.linalg.norm(np.asarray(arcs[:, 1]), axis=-1)),
    }
    save(options, {"rows": rows, "start": start, "end": end}, numbers)
    show(options.out / "interpolations.png", {"from one end to the other": rows})
    animate(options.out / "interpolations.gif", frames)
    return numbers


def invert(options: Invert) -> dict[str, Any]:
    """Project samples and held-out images from many starts and from one."""
    model = load_model(options)
    _, test = load_images(model, options)
    held = spread(test, options.num)
    label = drawn_labels(model, options, options.num)
    samples = floats(model.sample(named_key(options.key, "samples"), options.num, label))
    cases: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "own samples": (samples, label),
        "held-out images": (np.asarray(to_float(held["image"])), labels_of(model, held)),
    }
    numbers: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for name, (images, labels) in cases.items():
        for starts in dict.fromkeys((options.num_restarts, 1)):
            run = functools.partial(
                model.invert,
                images,
                named_key(options.key, "starts"),
                labels,
                likelihood=latents.INVERSION_NOISE,  # of both families: squared errors, against the prior
                num_restarts=starts,
                num_steps=options.steps,
            )
            run()  # compiles
            found, seconds = timed(run)
            decoded = floats(found.images)
            quality = np.asarray(metrics.peak_signal_to_noise_ratio(jnp.asarray(decoded), jnp.asarray(images)))
            numbers[f"{name}, {starts} start{'s' * (starts > 1)}"] = {
                "median_psnr_db": float(np.median(quality)),
                f"share_above_{GOOD:.0f}_db": float(np.mean(quality > GOOD)),
                "images": len(images),
                "time_s": seconds,
            }
            if starts == options.num_restarts:
                arrays[f"{name} images"], arrays[f"{name} inverted"] = images, decoded
                arrays[f"{name} latents"] = found.latents
    save(options, {name.replace(" ", "_").replace("-", "_"): array for name, array in arrays.items()}, numbers)
    shown = np.s_[: min(16, options.num)]
    columns = {
        "sample": arrays["own samples images"][shown],
        "inverted": arrays["own samples inverted"][shown],
        "held out": arrays["held-out images images"][shown],
        "inverted ": arrays["held-out images inverted"][shown],
    }
    fewest = min(map(len, columns.values()))
    show(options.out / "inversions.png", {name: images[:fewest] for name, images in columns.items()})
    return numbers


def neighbours(options: Neighbours) -> dict[str, Any]:
    """Hold samples against the training images, and held-out images against them likewise."""
    model = load_model(options)
    train, test = load_images(model, options)
    held = spread(test, options.num)["image"]
    label = drawn_labels(model, options, options.num)
    samples = floats(model.sample(named_key(options.key, "samples"), options.num, label))
    distances, places = nearest(samples, train["image"])
    usual, _ = nearest(held, train["image"])
    bound = float(np.quantile(usual, CLOSE))
    numbers = {
        "samples": len(samples),
        "held_out_images": len(held),
        "training_images": len(train["image"]),
        "median_distance_of_samples": float(np.median(distances)),
        "median_distance_of_held_out_images": float(np.median(usual)),
        "distance_of_a_copy": bound,
        "share_of_copies": float(np.mean(distances < bound)),
        "share_expected_of_new_images": CLOSE,
        "distinct_neighbours": len(np.unique(places)),
    }
    found = np.asarray(to_float(train["image"][places]))
    save(options, {"samples": samples, "neighbours": found, "distances": distances}, numbers)
    order = np.argsort(distances)
    closest, some = order[:COLUMNS], order[np.linspace(0, len(order) - 1, COLUMNS).astype(int)]
    columns = {
        "closest": samples[closest],
        "neighbour": found[closest],
        "closest to farthest": samples[some],
        "neighbour ": found[some],
    }
    show(options.out / "neighbours.png", columns)
    return numbers


def attribute(options: Attribute) -> dict[str, Any]:
    """Make the direction of training images, and move held-out images along it."""
    model = load_model(options)
    train, test = load_images(model, options)
    if model.num_classes is not None:
        raise ValueError(f"{options.model} is conditional: its latents do not hold the class; give it another --label")
    if "label" not in train or "label" not in test:
        raise ValueError("an attribute is learnt from labels, and the images have none: put them into folders by class")
    means = []
    for number, name in ((options.with_label, "with"), (options.without_label, "without")):
        chosen = train["image"][train["label"] == number][: options.num_examples]
        if not len(chosen):
            known = sorted(np.unique(train["label"]).tolist())
            raise ValueError(f"--{name}-label {number}: no training image has it, they have {known[0]} to {known[-1]}")
        means.append(_latents_of(model, chosen, named_key(options.key, name)))
    direction = latents.attribute_direction(*means)
    held = test["image"][test["label"] == options.without_label][: options.num]
    if not len(held):
        raise ValueError(f"--without-label {options.without_label}: no held-out image has it")
    z = _latents_of(model, held, named_key(options.key, "held out"))
    strengths = jnp.linspace(0.0, options.strength, max(2, options.steps))
    moved = z[:, None] + strengths[None, :, None] * direction[None, None]
    images = floats(model.decode(moved.reshape(-1, model.latent_dim)))
    images = images.reshape(len(held), -1, *model.image_shape)
    numbers = {
        "examples": [len(each) for each in means],
        "length_of_the_direction": float(jnp.linalg.norm(direction)),
        "strengths": strengths.tolist(),
    }
    save(options, {"direction": direction, "latents": z, "images": images}, numbers)
    show(options.out / "attribute.png", {"image": held, "moved along the direction": images})
    return numbers


def _latents_of(model: Trained, images: np.ndarray, key: jax.Array) -> jax.Array:
    return model.invert(images, key).latents if model.family.encode is None else model.encode(images)


def truncate(options: Truncate) -> dict[str, Any]:
    """Samples of the whole prior, and of ever smaller middles of it: a row is one draw, squeezed."""
    model = load_model(options)
    label = drawn_labels(model, options, options.num)
    key = named_key(options.key, "latents")
    images = {}
    for threshold in (np.inf, *options.thresholds):
        z = latents.truncated_normal(key, options.num, model.latent_dim, threshold)
        title = f"|z| <= {threshold:g}" if np.isfinite(threshold) else "the whole prior"
        images[title] = floats(model.decode(z, label))
    numbers = {title: {"spread": float(each.std(axis=0).mean())} for title, each in images.items()}
    save(options, {f"samples_{i}": each for i, each in enumerate(images.values())}, numbers)
    show(options.out / "truncated.png", images)
    return numbers


COMMANDS: dict[str, tuple[type[Options], Callable[[Any], dict[str, Any]]]] = {
    "complete": (Complete, complete),
    "interpolate": (Interpolate, interpolate),
    "invert": (Invert, invert),
    "neighbours": (Neighbours, neighbours),
    "attribute": (Attribute, attribute),
    "truncate": (Truncate, truncate),
}


def lines(numbers: Mapping[str, Any], indent: str = "") -> list[str]:
    """Numbers as lines of text, a pair being a mean and its standard error."""
    found = []
    for name, value in numbers.items():
        title = f"{indent}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            found += [title, *lines(value, indent + "  ")]
        elif isinstance(value, tuple):
            found.append(f"{title}: {value[0]:.4g}" + ("" if value[1] is None else f" +- {value[1]:.2g}"))
        else:
            found.append(f"{title}: {value:.4g}" if isinstance(value, float) else f"{title}: {value}")
    return found


def explore(options: Options) -> dict[str, Any]:
    """Run the command of the options, print its numbers; returns them."""
    options.check()
    numbers = next(run for kind, run in COMMANDS.values() if kind is type(options))(options)
    print("\n".join([*lines(numbers), f"pictures: {options.out}"]))
    return numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns its exit status."""
    kinds: Any = {name: kind for name, (kind, _) in COMMANDS.items()}
    return exit_status(
        lambda: tyro.extras.subcommand_cli_from_dict(kinds, args=arguments, prog="jaxgen explore"), explore
    )
