"""Latents that are moved, and what becomes of their images: from one to another, along an attribute, to the middle."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import latents
from jaxgen.cli.exploring.common import (
    Options,
    class_names_of,
    drawn_labels,
    labels_of,
    load_images,
    load_model,
    row_names,
    spread,
    write_results,
)
from jaxgen.cli.pictures import animate, floats, show
from jaxgen.evaluation.figures import named
from jaxgen.evaluation.records import mean_and_error
from jaxgen.intervals import Count, CountOrNone, Finite, Positive
from jaxgen.keys import named_key
from jaxgen.trained import Trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolate(Options):
    """Walk between latents: rows of images, and an animation."""

    out: Path = Path("walks")
    """Folder of the results."""
    between: Literal["samples", "images"] = "samples"
    """Between drawn latents, or those of held-out images."""
    steps: Count = 10
    """Images of a row, the ends among them."""
    frames: Count = 24
    """Images of the animation from one end to the other."""
    linear: bool = False
    """Along straight lines instead of arcs."""

    @property
    def draws(self) -> bool:
        return self.between == "samples"

    @property
    def made(self) -> int:
        return self.num * max(self.steps, self.frames)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attribute(Options):
    """Move images along the direction from one class to another."""

    out: Path = Path("attribute")
    """Folder of the results."""
    with_label: CountOrNone
    """Class of the images that have the attribute."""
    without_label: CountOrNone
    """Class of the images that do not have it, which are moved."""
    num_examples: Count = 200
    """Training images of each class whose mean latents make the direction."""
    steps: Count = 7
    """Images of a row, from the image to beyond the attribute."""
    strength: Finite = 1.5
    """How far the last image is moved; 1 is from one mean to the other."""

    @property
    def made(self) -> int:
        return self.num * self.steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truncate(Options):
    """Samples from ever nearer to the middle of the prior: likelier and less varied."""

    out: Path = Path("truncated")
    """Folder of the results."""
    thresholds: tuple[Positive, ...] = (2.0, 1.0, 0.5, 0.25)
    """Largest absolute value of a latent, a column each; the first column is not truncated."""

    @property
    def draws(self) -> bool:
        return True

    @property
    def made(self) -> int:
        return self.num * (len(self.thresholds) + 1)


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
    write_results(options.out, {"rows": rows, "start": start, "end": end}, numbers)
    ends = "latents drawn from the prior" if options.between == "samples" else "the latents of held-out images"
    title = f"{model.name}: walks between {ends}, along {numbers['path']}s"
    shares = np.linspace(0.0, 1.0, rows.shape[1])
    columns = [(f"{share:.2f}", rows[:, place]) for place, share in enumerate(shares)]
    names = row_names(label, model.class_names)
    show(options.out / "interpolations.png", columns, title, "Over the columns: the share of the way.", names)
    animate(options.out / "interpolations.gif", frames, title, "There and back.")
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
    write_results(options.out, {"direction": direction, "latents": z, "images": images}, numbers)
    names = class_names_of(model, options)
    without, wanted = (named("class", number, names) for number in (options.without_label, options.with_label))
    moved_by = [(f"{strength:.2f}", images[:, place]) for place, strength in enumerate(strengths)]
    columns = [(f"{without}, held out", held), *moved_by]
    title = f"{model.name}: from {without} to {wanted}"
    note = "Over the columns: how far their latents are moved; at 0 not, at 1 from one class's mean to the other's."
    show(options.out / "attribute.png", columns, title, note, [without] * len(held))
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
    write_results(options.out, {f"samples_{i}": each for i, each in enumerate(images.values())}, numbers)
    note = "A row is one draw, squeezed until no latent z is larger than what stands over the column."
    title = f"{model.name}: samples of ever smaller middles of the prior"
    show(options.out / "truncated.png", list(images.items()), title, note, row_names(label, model.class_names))
    return numbers
