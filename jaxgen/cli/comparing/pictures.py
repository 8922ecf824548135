"""The pictures of a comparison: what each model samples, rebuilds, completes and passes through on the way."""

import dataclasses
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import losses
from jaxgen.batches import to_float
from jaxgen.cli.pictures import floats
from jaxgen.data import spread
from jaxgen.evaluation import records, sample_measures
from jaxgen.evaluation.during_training import class_rows, class_titles, of_the_classes
from jaxgen.evaluation.figures import enlarged, enlargement, save_picture, titled
from jaxgen.evaluation.records import Parameter, Record
from jaxgen.keys import named_key
from jaxgen.trained import Trained
from jaxgen.training.monitor import image_grid, interleaved

SAMPLES = 64
PER_ROW = 8
NEIGHBOURS = 16  # samples whose nearest training images are shown
REBUILT = 16  # images held back that are rebuilt and completed; the first of them are shown
COMPLETED = 6
WAYS = 4  # completions of each
PAIRS = 5  # ways between two images
STEPS = 8  # images on each, its ends among them
# Standard deviations around the decoder's means, under which latents are sought: of a whole image, and of half of one,
# where a narrow one leaves a single guess.
NOISE, GUESSING_NOISE = 0.1, 0.3
# A shorter annealing than the default: the pictures hardly change, and a convolutional decoder takes minutes less.
ANNEALING = {"chains_per_sample": 2, "num_temperatures": 100, "num_leapfrog": 5}
HIDDEN = (128, 128, 128, 56)  # colour of pixels that the model does not see, on any background

KINDS = ("samples", "neighbours", "reconstructions", "completions", "interpolations")
GLANCE = 12  # images in the line of each model that opens the page


class Picture(NamedTuple):
    """A grid of images, with nothing between them, so that it fits a bright page and a dark one."""

    kind: str  # one of `KINDS`, or "glance"
    model: str
    pixels: np.ndarray  # uint8 [height, width, 4]
    heads: tuple[str, ...]  # over the columns; none where all are alike
    caption: str
    alt: str
    side: int  # pixels of an image's larger side
    rows: tuple[str, ...] = ()  # beside the rows; none where all are alike


class Held(NamedTuple):
    """What models are shown: images that none of them was trained on, and those that all were."""

    images: np.ndarray  # [REBUILT, H, W, C]
    labels: np.ndarray | None
    known: np.ndarray  # training images, [M, H, W, C]


class Shown(NamedTuple):
    """The pictures of a model, and the numbers that fell out of making them."""

    pictures: tuple[Picture, ...]
    records: tuple[Record, ...]
    search_seconds: float | None  # for the latents of an image, of a model without an encoder


def grid(images: Any, columns: int, hidden: np.ndarray | None = None) -> np.ndarray:
    """Images side by side, row by row: uint8 [height, width, 4], transparent between them; True pixels are hidden."""
    images = np.asarray(to_float(jnp.asarray(images)))
    colors = image_grid(images, columns)
    alpha = 255 - image_grid(np.zeros_like(images[..., :1]), columns)[..., :1]
    picture = np.concatenate([colors, alpha], axis=-1)
    if hidden is not None:
        covered = image_grid(np.where(hidden, 0, 255).astype(np.uint8)[..., None], columns)[..., 0] == 0
        picture[covered] = HIDDEN
    return picture


def write(folder: Path, picture: Picture) -> Path:
    """Write a picture as a PNG file, on white, as large as one looks at it, with its words around it."""
    alpha = picture.pixels[..., 3:] / 255.0
    white = np.round(picture.pixels[..., :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
    name = re.sub(r"[\W_]+", "-", picture.model.lower())  # letters of any script
    path = folder / f"{picture.kind}_{name}.png"
    large = enlarged(white, enlargement((picture.side, picture.side), 84))
    heads = [(head, 1) for head in picture.heads]
    save_picture(path, titled(large, picture.alt, picture.caption, picture.rows, heads))
    return path


def hold_back(test: Mapping[str, np.ndarray], known: np.ndarray) -> Held:
    """Choose what the models are shown, spread over the test images."""
    places = spread(len(test["image"]), REBUILT)
    return Held(test["image"][places], test["label"][places] if "label" in test else None, known)


def lower_half(image_shape: tuple[int, ...]) -> np.ndarray:
    """Which pixels are visible when the lower half is hidden: bool [H, W]."""
    mask = np.zeros(image_shape[:2], np.bool_)
    mask[: image_shape[0] // 2] = True
    return mask


def _record(template: Record, metric: str, errors: np.ndarray, parameters: Mapping[str, Parameter]) -> Record:
    """The mean of an error an image, made on the same data as another record of the model."""
    protocol = dataclasses.replace(
        template.protocol,
        metric=metric,
        version=1,
        unit="range squared",
        better="lower",
        num_real=len(errors),
        num_generated=0,
        extractor_sha256=None,
        resizing=None,
        parameters=tuple(sorted(parameters.items())),
    )
    value, error = records.mean_and_error(errors)
    warnings = tuple(warning for warning in template.warnings if "trained on" in warning)
    return dataclasses.replace(
        template,
        value=value,
        standard_error=error,
        calibration=None,
        protocol=protocol,
        warnings=warnings,
    )


def baselines(held: Held) -> dict[str, float]:
    """Squared errors of the hidden half that need no model: of the mean training image, and of the training image whose
    other half is the nearest."""
    truth, known = floats(held.images), floats(held.known)
    mask = lower_half(truth.shape[1:])
    nearest = known[sample_measures.nearest(truth[:, mask], known[:, mask])[1]]
    guesses = {"the mean training image": known.mean(axis=0)[None], "the nearest by the half seen": nearest}
    return {name: float(np.square(guess - truth)[:, ~mask].mean()) for name, guess in guesses.items()}


def show(name: str, model: Trained, held: Held, key: jax.Array, template: Record) -> Shown:
    """Make the pictures of a model.

    Args:
      name: what it is called.
      model: the model.
      held: what it is shown.
      key: typed key, [].
      template: any record of the model on the same data, for the records of these.

    Returns:
      Its pictures, records of rebuilt and completed images, and the time of a search for latents. What needs a prior is
      not there of a model without one.
    """
    labels = held.labels if model.num_classes is not None else None
    pictures = []
    if model.family.sample is not None:
        pictures = [*_samples(name, model, named_key(key, "samples")), _neighbours(name, model, held, key)]
    rebuilt, latents, seconds = _rebuild(model, held, labels, named_key(key, "rebuild"))
    truth = floats(held.images)
    how = "by its encoder and decoder" if seconds is None else "by a search for the latents, as it has no encoder"
    error = np.square(rebuilt - truth).reshape(len(truth), -1).mean(axis=1)
    pictures.append(
        Picture(
            "reconstructions",
            name,
            grid(interleaved(truth, rebuilt, columns=PER_ROW), PER_ROW),
            (),
            f"Rebuilt {how}. Mean squared error {error.mean():.4f}.",
            f"Test images, each above the same image rebuilt by {name}",
            _side(truth),
            ("image", "rebuilt") * -(-len(truth) // PER_ROW),
        )
    )
    found = [_record(template, "rebuilt-MSE", error, {"shown": "test images"})]
    if model.family.sample is not None:
        picture, record = _completions(name, model, held, labels, named_key(key, "complete"), template)
        pictures, found = [*pictures, picture], [*found, record]
    pictures.append(_interpolations(name, model, held, labels, latents))
    return Shown(tuple(pictures), tuple(found), seconds)


def _side(images: np.ndarray) -> int:
    return max(images.shape[1:3])


def glance(name: str, images: np.ndarray, what: str = "") -> Picture:
    """A line of images, spread over those there are; ``what`` they are of the model of that name, as "samples"."""
    line = images[spread(len(images), GLANCE)]
    alt = f"{len(line)} {what} of {name}" if what else f"{len(line)} {name}"
    return Picture("glance", name, grid(line, len(line)), (), "", alt, _side(line))


def _samples(name: str, model: Trained, key: jax.Array) -> list[Picture]:
    classes = class_rows(model.spec)
    num = SAMPLES if classes is None else len(classes)
    images = floats(model.sample(key, num, classes))
    rows = tuple(class_titles(classes, PER_ROW, model.class_names))
    some = of_the_classes(len(rows), model.num_classes)
    caption = f"One class a row: {', '.join(rows)}. {some}".strip() if rows else ""
    alt = f"{num} samples of {name}, {PER_ROW} a row"
    picture = Picture("samples", name, grid(images, PER_ROW), (), caption, alt, _side(images), rows)
    return [glance(name, images, "samples"), picture]


def _neighbours(name: str, model: Trained, held: Held, key: jax.Array) -> Picture:
    classes = class_rows(model.spec, 1, NEIGHBOURS)
    labels = None if classes is None else np.resize(classes, NEIGHBOURS)
    images = floats(model.sample(named_key(key, "neighbours"), NEIGHBOURS, labels))
    nearest, error = _nearest(images, held)
    _, real_error = _nearest(floats(held.images), held)
    return Picture(
        "neighbours",
        name,
        grid(interleaved(images, nearest, columns=PER_ROW), PER_ROW),
        (),
        f"Squared error between the two {error:.4f}; of real test images and their nearest {real_error:.4f}.",
        f"Samples of {name}, each above the training image nearest to it",
        _side(images),
        ("sample", "nearest") * -(-len(images) // PER_ROW),
    )


def _nearest(images: np.ndarray, held: Held) -> tuple[np.ndarray, float]:
    """(the training images nearest to some images, the mean squared error between the two)."""
    nearest = floats(held.known[sample_measures.nearest(images, held.known)[1]])
    return nearest, float(np.square(nearest - images).mean())


def _rebuild(
    model: Trained, held: Held, labels: np.ndarray | None, key: jax.Array
) -> tuple[np.ndarray, jax.Array, float | None]:
    """(images rebuilt, their latents, seconds of search an image where there is no encoder)."""
    if model.family.encode is not None:
        rebuilt = model.reconstruct(held.images, key, labels)
        return floats(rebuilt), model.encode(held.images, labels), None
    began = time.perf_counter()
    found = model.invert(held.images, key, labels, likelihood=losses.gaussian(scale=NOISE))
    jax.block_until_ready(found.images)
    return floats(found.images), found.latents, (time.perf_counter() - began) / len(held.images)


def _completions(
    name: str, model: Trained, held: Held, labels: np.ndarray | None, key: jax.Array, template: Record
) -> tuple[Picture, Record]:
    mask = lower_half(model.image_shape)
    noise = losses.gaussian(scale=GUESSING_NOISE)
    made = model.complete(held.images, mask, key, labels, num_samples=WAYS, likelihood=noise, **ANNEALING).images
    ways, truth = floats(made), floats(held.images)
    error = np.square(ways.mean(axis=1) - truth)[:, ~mask].reshape(len(truth), -1).mean(axis=1)
    shown = np.concatenate([truth[:COMPLETED, None], truth[:COMPLETED, None], ways[:COMPLETED]], axis=1)
    hidden = np.zeros(shown.shape[:-1], np.bool_)
    hidden[:, 1, ~mask] = True
    columns = shown.shape[1]
    picture = Picture(
        "completions",
        name,
        grid(shown.reshape(-1, *truth.shape[1:]), columns, hidden.reshape(-1, *mask.shape)),
        ("original", "seen", *("guess",) * WAYS),
        f"Mean squared error of the hidden half {error.mean():.4f}.",
        f"{len(ways[:COMPLETED])} rows: a test image, its upper half, and {WAYS} ways in which {name} completes it",
        _side(truth),
    )
    parameters: dict[str, Parameter] = {
        "hidden": "the lower half",
        "completions": WAYS,
        "noise": GUESSING_NOISE,
        **ANNEALING,
    }
    return picture, _record(template, "completion-MSE", error, parameters)


def _interpolations(name: str, model: Trained, held: Held, labels: np.ndarray | None, latents: jax.Array) -> Picture:
    truth, pairs = floats(held.images), min(PAIRS, len(held.images) // 2)
    label = None if labels is None else labels[:pairs]
    between = floats(model.interpolate(latents[:pairs], latents[pairs : 2 * pairs], STEPS, label))
    ends = truth[:pairs, None], truth[pairs : 2 * pairs, None]
    rows = np.concatenate([ends[0], between, ends[1]], axis=1)
    return Picture(
        "interpolations",
        name,
        grid(rows.reshape(-1, *truth.shape[1:]), STEPS + 2),
        ("from", *("",) * STEPS, "to"),
        "",
        f"{pairs} rows of images of {name} that pass from one test image into another",
        _side(truth),
    )
