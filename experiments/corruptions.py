"""See whether distances between real and generated images rise with what is wrong: five corruptions of real images.

    uv run experiments/corruptions.py --dataset mnist --extractor lenet_mnist --out corruptions.png
    uv run experiments/corruptions.py --dataset folder:held_out --extractor lenet_color --split all --out color.png

A training split is cut into two halves. One stands for the real images, the other for a generator's: as it is (level 0,
real against real), and blurred, noisy, occluded, without some of its classes, or made of few images again and again;
in colour also swirled, mixed with each other, and of other hues. Every distance is between equally many images. The
numbers go to a JSON file beside the picture.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import data, metrics
from jaxgen.batches import to_float
from jaxgen.cli.exit_status import command
from jaxgen.evaluation import extractors
from jaxgen.evaluation.figures import new_figure, save_figure
from jaxgen.intervals import INT32_MAX, Count, Interval, Seed
from jaxgen.keys import example_keys, named_key
from jaxgen.training.files import check_place, write_text
from jaxgen.training.run_data import dataset_name

Images = Annotated[int, Interval(20, INT32_MAX)]
DISTANCES = ("frechet_distance", "kernel_distance")  # rise with every corruption
SHARES = ("precision", "recall", "density", "coverage")  # fall with some, and say which kind it is
LEVELS: dict[str, tuple[float, ...]] = {  # the first is none at all
    "blur": (0.0, 0.5, 1.0, 1.5, 2.0),  # standard deviation in pixels
    "noise": (0.0, 0.05, 0.1, 0.2, 0.3),  # standard deviation, the range of pixels being 1
    "occlusion": (0.0, 0.15, 0.3, 0.45, 0.6),  # side of a grey square, in units of the image's
    "missing classes": (0.0, 0.2, 0.4, 0.6, 0.8),  # share of the classes
    "copies": (1.0, 3.0, 10.0, 30.0, 100.0),  # of each image
}
UNITS = {
    "blur": "standard deviation in pixels",
    "noise": "standard deviation, pixels from 0 to 1",
    "occlusion": "side of a grey square in sides of the image",
    "missing classes": "share of them",
    "copies": "number of each image",
    "swirl": "radians in the middle",
    "mixtures": "share of another image",
    "hue": "turn of the colour wheel",
}
# Of colour images also:
COLOR_LEVELS: dict[str, tuple[float, ...]] = {
    "swirl": (0.0, 0.5, 1.0, 2.0, 4.0),
    "mixtures": (0.0, 0.05, 0.1, 0.2, 0.4),
    "hue": (0.0, 0.025, 0.05, 0.1, 0.2),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """See whether distances between real and generated images rise with what is wrong: five corruptions."""

    dataset: str = "fashion_mnist_small"
    """As for jaxgen train. Without labels no class can be missing, and that curve is left out."""
    data_dir: Path | None = None
    """Where TFDS keeps prepared sets; its own default when not given."""
    image_size: Count | None = None
    """Crop and resize images to this many pixels; keep their size when not given."""
    color: Literal["grey", "rgb"] | None = None
    """Make all images grey or RGB; keep them as they are when not given."""
    split: str = "train"
    """The split that is cut into two halves."""
    extractor: str = "pixels"
    """What the distances are computed on: pixels, lenet_mnist, lenet_fashion_mnist, lenet_color or inception:PATH."""
    num_images: Images = 5000
    """Images on either side of a distance; as many as a fifth of the classes have where those are fewer."""
    seed: Seed = 0
    """Seed of the halves and of all noise."""
    out: Path = Path("corruptions.png")
    """The .png file; the numbers go to the .json beside it."""


def blur(images: jax.Array, sigma: float) -> jax.Array:
    """Blur images with a Gaussian window, whose weights at the border add up to 1 again.

    Args:
      images: uint8, bool or floats in [0, 1], [N, H, W, C].
      sigma: standard deviation in pixels; 0 leaves the images as they are.

    Returns:
      Floats in [0, 1], [N, H, W, C].
    """
    images = to_float(images)
    if sigma == 0:
        return images

    def window(size: int) -> jax.Array:
        places = jnp.arange(size)
        weights = jnp.exp(-0.5 * ((places[:, None] - places[None]) / sigma) ** 2)
        return weights / jnp.sum(weights, axis=1, keepdims=True)

    down, across = (window(size) for size in images.shape[1:3])
    return jnp.clip(jnp.einsum("nhwc,ih,jw->nijc", images, down, across, precision="highest"), 0.0, 1.0)


def add_noise(images: jax.Array, key: jax.Array, scale: float) -> jax.Array:
    """Add Gaussian noise to every pixel and clip to [0, 1].

    Args:
      images: uint8, bool or floats in [0, 1], [N, ...].
      key: typed key, []; the noise of an image depends on it and on the image's number.
      scale: standard deviation; the same noise grows with it.

    Returns:
      Floats in [0, 1], [N, ...].
    """
    images = to_float(images)
    noise = jax.vmap(lambda k: jax.random.normal(k, images.shape[1:]))(example_keys(key, images.shape[0]))
    return jnp.clip(images + scale * noise, 0.0, 1.0)


def occlude(images: jax.Array, key: jax.Array, share: float) -> jax.Array:
    """Lay a grey square over each image, at a random place.

    Args:
      images: uint8, bool or floats in [0, 1], [N, H, W, C].
      key: typed key, []; the place on an image depends on it and on the image's number.
      share: side of the square in units of the image's, in [0, 1]; a larger one covers a smaller one.

    Returns:
      Floats in [0, 1], [N, H, W, C].
    """
    images = to_float(images)
    centers = jax.vmap(lambda k: jax.random.uniform(k, (2,)))(example_keys(key, images.shape[0]))

    def covered(size: int, center: jax.Array) -> jax.Array:
        # The place moves so far that the square stays inside.
        start = jnp.floor(center * (1 - share) * size)[:, None]
        places = jnp.arange(size)[None]
        return (places >= start) & (places < start + round(share * size))

    rows, columns = covered(images.shape[1], centers[:, 0]), covered(images.shape[2], centers[:, 1])
    return jnp.where(rows[:, :, None, None] & columns[:, None, :, None], 0.5, images)


def swirl(images: jax.Array, angle: float) -> jax.Array:
    """Turn images about their middle, the less the further outside.

    Args:
      images: uint8, bool or floats in [0, 1], [N, H, W, C].
      angle: radians in the middle; a quarter of the image's side away e^(-1/2) of it.

    Returns:
      Floats in [0, 1], [N, H, W, C].
    """
    images = to_float(images)
    height, width = images.shape[1:3]
    down, across = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij"
    )
    turn = angle * jnp.exp(-0.5 * (down**2 + across**2) / (min(height, width) / 4) ** 2)
    rows = jnp.cos(turn) * down - jnp.sin(turn) * across + (height - 1) / 2
    columns = jnp.sin(turn) * down + jnp.cos(turn) * across + (width - 1) / 2

    def one(plane: jax.Array) -> jax.Array:
        return jax.scipy.ndimage.map_coordinates(plane, [rows, columns], order=1, mode="nearest")

    return jnp.moveaxis(jax.vmap(jax.vmap(one))(jnp.moveaxis(images, 3, 1)), 1, 3)


def mix(images: jax.Array, share: float) -> jax.Array:
    """Lay over each image [N, ...] a share of the next one, the last meeting the first: floats in [0, 1], [N, ...]."""
    images = to_float(images)
    return (1.0 - share) * images + share * jnp.roll(images, 1, axis=0)


def turn_hue(images: jax.Array, turn: float) -> jax.Array:
    """Turn the colours of images about the axis of the greys, and clip.

    Args:
      images: uint8, bool or floats in [0, 1], [N, H, W, 3].
      turn: share of the whole circle.

    Returns:
      Floats in [0, 1], [N, H, W, 3].
    """
    cos, sin = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn) / np.sqrt(3)
    matrix = cos * np.eye(3) + (1 - cos) / 3 + sin * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    return jnp.clip(jnp.einsum("nhwc,dc->nhwd", to_float(images), matrix, precision="highest"), 0.0, 1.0)


def fewer_classes(images: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The images of the first classes.

    Args:
      images: [N, ...].
      labels: from 0, int [N].
      num_classes: how many classes to keep, those whose labels are below.

    Returns:
      Those images, in their order, [M, ...].
    """
    return images[labels < num_classes]


def duplicate(images: np.ndarray, key: jax.Array, distinct: int) -> np.ndarray:
    """As many images, of which only some are different: the first of a random order, again and again.

    Args:
      images: [N, ...].
      key: typed key of the order, []; fewer distinct images are some of more.
      distinct: how many different ones, from 1 to N.

    Returns:
      Images, [N, ...].
    """
    order = np.asarray(jax.random.permutation(key, len(images)))[:distinct]
    return images[np.resize(order, len(images))]


def corrupt(images: np.ndarray, labels: np.ndarray | None, num: int, name: str, level: float, key: jax.Array) -> Any:
    """Images that a bad generator could have made, at a level of a corruption; the same randomness at all levels.

    Args:
      images: the half that they are made from, [M, H, W, C].
      labels: of these, int [M], or None.
      num: number of images wanted, N.
      name: one of `LEVELS` or `COLOR_LEVELS`.
      level: how much, in its own units.
      key: the run's typed key, [].

    Returns:
      uint8, bool or floats in [0, 1], [N, H, W, C].

    Raises:
      ValueError: the classes that are left have too few images.
    """
    key = named_key(key, name)
    if name == "missing classes":
        assert labels is not None
        classes = int(labels.max()) + 1
        chosen = fewer_classes(images, labels, max(1, round(classes * (1 - level))))
        if len(chosen) < num:
            raise ValueError(f"{len(chosen)} images are left without {level:.0%} of the classes: take {num} or fewer")
        return chosen[:num]
    images = images[:num]
    if name == "copies":
        return duplicate(images, key, max(1, round(num / level)))
    functions: dict[str, Callable[[], jax.Array]] = {
        "blur": lambda: blur(jnp.asarray(images), level),
        "noise": lambda: add_noise(jnp.asarray(images), key, level),
        "occlusion": lambda: occlude(jnp.asarray(images), key, level),
        "swirl": lambda: swirl(jnp.asarray(images), level),
        "mixtures": lambda: mix(jnp.asarray(images), level),
        "hue": lambda: turn_hue(jnp.asarray(images), level),
    }
    return np.asarray(functions[name]())


def compare(real: np.ndarray, fake: np.ndarray, key: jax.Array) -> dict[str, float]:
    """Everything that is measured between two sets of features.

    Args:
      real: [N, D].
      fake: [N, D].
      key: typed key of the kernel distance's subsets, [].

    Returns:
      Numbers by name: `DISTANCES`, `SHARES` and the standard error of the kernel distance.
    """
    kernel = metrics.kernel_distance(real, fake, key, subset_size=min(1000, len(real) // 2))
    shares = metrics.precision_recall(real, fake)
    return {
        "frechet_distance": float(metrics.frechet_distance(metrics.moments(real), metrics.moments(fake))),
        "kernel_distance": float(kernel.value),
        "kernel_distance_standard_error": float(kernel.standard_error),
        **{name: float(getattr(shares, name)) for name in SHARES},
    }


def measure(
    images: np.ndarray,
    labels: np.ndarray | None,
    num: int,
    extractor: extractors.Extractor,
    key: jax.Array,
    say: Callable[[str], object] = print,
) -> dict[str, list[dict[str, float]]]:
    """All corruptions at all levels.

    Args:
      images: a data set, [M, H, W, C]; its order does not matter.
      labels: of these, int [M], or None.
      num: most images on either side.
      extractor: what makes features of images.
      key: the run's typed key, [].
      say: called with a line after every corruption.

    Returns:
      For each corruption what there is at each level: ``level``, ``num_images`` and what `compare` gives.
    """
    order = np.asarray(jax.random.permutation(named_key(key, "halves"), len(images)))
    first, second = np.array_split(order, 2)
    if labels is not None:
        classes = int(labels.max()) + 1
        kept = max(1, round(classes * (1 - max(LEVELS["missing classes"]))))
        num = min(num, int(np.sum(labels[second] < kept)))
    num = min(num, len(first), len(second))

    def features(chosen: Any) -> np.ndarray:
        return extractors.extract(extractor, chosen).features

    real, subsets_key = features(images[first[:num]]), named_key(key, "subsets")
    untouched = compare(real, features(images[second[:num]]), subsets_key)
    curves: dict[str, list[dict[str, float]]] = {}
    for name, levels in {**LEVELS, **(COLOR_LEVELS if images.shape[3] == 3 else {})}.items():
        if name == "missing classes" and labels is None:
            continue
        curves[name] = [{"level": levels[0], "num_images": num, **untouched}]
        for level in levels[1:]:
            fake = corrupt(images[second], None if labels is None else labels[second], num, name, level, key)
            result = compare(real, features(fake), subsets_key)
            curves[name].append({"level": level, "num_images": num, **result})
        rising = ", ".join(f"{row['frechet_distance']:.4g}" for row in curves[name])
        say(f"{name:>15}: Frechet distance {rising}")
    return curves


WORDS = {  # of each metric: its name, what real images have, and its unit
    "frechet_distance": ("Fréchet distance", "lower is better", "features squared"),
    "kernel_distance": ("kernel distance", "lower is better", "kernel"),
    "precision": ("precision", "share of the images among real ones", "share"),
    "recall": ("recall", "share of real ones among the images", "share"),
    "density": ("density", "real images around each; 1 is usual", "neighbourhoods"),
    "coverage": ("coverage", "share of real ones with one beside them", "share"),
}


def draw(curves: dict[str, list[dict[str, float]]], title: str, path: Path) -> None:
    """A panel for each metric, with a curve for each corruption."""
    figure = new_figure(11.0, 7.4)
    figure.suptitle(f"Real images against images that are damaged more and more: {title}")
    for axes, metric in zip(figure.subplots(2, 3).flat, (*DISTANCES, *SHARES), strict=True):
        name, meaning, unit = WORDS[metric]
        for corruption, rows in curves.items():
            levels = ", ".join(f"{row['level']:g}" for row in rows)
            label = f"{corruption} ({UNITS[corruption]}): {levels}"
            axes.plot([row[metric] for row in rows], marker="o", markersize=3, label=label)
        axes.set_title(f"{name}\n({meaning})", fontsize="medium")
        axes.set_xlabel("level of the damage: 0 is none")
        axes.set_xticks(range(max(map(len, curves.values()))))
        axes.grid(alpha=0.3)
        if metric == "frechet_distance":
            axes.set_yscale("log")
            unit = f"{unit}, logarithmic"
        if metric == "kernel_distance":
            # Unbiased, so below 0 as often as above between real images: a logarithm only beyond its standard error.
            error = max(rows[0]["kernel_distance_standard_error"] for rows in curves.values())
            axes.set_yscale("symlog", linthresh=2 * error)
            axes.set_ylim(bottom=-4 * error)
            unit = f"{unit}, logarithmic but near 0"
        axes.set_ylabel(unit, fontsize="small")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", fontsize="small", ncols=2)
    legend.set_title("what is done to the images, and how much at levels 0, 1, 2, ...", prop={"size": "small"})
    save_figure(path, figure)


def run(options: Options) -> Path:
    """Measure, write the numbers and the picture; returns the picture's file."""
    if options.out.suffix != ".png":
        raise ValueError(f"--out must end in .png, got {options.out}")
    check_place(options.out)
    extractor = extractors.find(options.extractor)
    dataset = data.load(
        options.dataset,
        options.split,
        data_dir=options.data_dir,
        image_size=options.image_size,
        color=options.color,
    )
    if dataset["image"].ndim != 4:
        raise ValueError(f"{options.dataset}: images [N, H, W, C] are needed, got {list(dataset['image'].shape)}")
    print(f"{len(dataset['image'])} images of {dataset_name(options.dataset)}, {extractor.name}", flush=True)
    key = jax.random.key(options.seed)
    curves = measure(dataset["image"], dataset.get("label"), options.num_images, extractor, key)
    record = {
        "dataset": dataset_name(options.dataset),
        "split": options.split,
        "sha256": f"{data.fingerprint({name: array[: data.LOOKED_AT] for name, array in dataset.items()}):064x}",
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "seed": options.seed,
        "curves": curves,
    }
    write_text(options.out.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
    num = int(next(iter(curves.values()))[0]["num_images"])
    draw(curves, f"{dataset_name(options.dataset)}, {extractor.name}, {num:,} images on either side", options.out)
    return options.out


main = command(Options, run, "corruptions.py")


if __name__ == "__main__":
    sys.exit(main())
