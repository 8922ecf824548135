"""Planes of latents: what the model makes of each place, and where images lie."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.cli.exploring.common import (
    Options,
    class_names_of,
    labels_of,
    load_images,
    load_model,
    spread,
    write_results,
)
from jaxgen.cli.pictures import floats
from jaxgen.evaluation.figures import enlargement, named, new_figure, save_figure, save_picture, shortened
from jaxgen.evaluation.subject import Two
from jaxgen.intervals import Count, CountOrNone
from jaxgen.keys import named_key
from jaxgen.trained import Trained, class_number
from jaxgen.training.monitor import titled_grid

WIDEST = 8192  # pixels of a picture
COMPARED = 500  # images by which the two most active latents are found
DRAWN = 10_000  # latents of a learnt prior, whose quantiles are taken
LISTED = 100  # classes of a legend, at most
IN_A_COLUMN = 25
LETTERS = 32  # of a name in it
_MARKERS = "osv^DPX<>*"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plane(Options):
    dims: tuple[CountOrNone, CountOrNone] | None = None
    """Numbers of two latents, from 0 on."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is loaded."""
        super().check()
        if self.dims is not None and self.dims[0] == self.dims[1]:
            raise ValueError(f"--dims must be two different latents, from 0 on, got {self.dims[0]} {self.dims[1]}")

    def check_model(self, model: Trained) -> None:
        """Refuse a model that has no such plane."""
        if model.latent_dim < 2:
            raise ValueError(f"{self.model} has 1 latent, and a plane needs two: use jaxgen explore interpolate")
        if self.dims is not None and max(self.dims) >= model.latent_dim:
            raise ValueError(f"--dims: {self.model} has the latents 0 to {model.latent_dim - 1}, got {max(self.dims)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifold(_Plane):
    """The plane of two latents as a grid of the images that are made there, at quantiles of the prior."""

    out: Path = Path("manifold")
    """Folder of the results."""
    num: Two = 20
    """Images along each side."""
    label: str | None = None
    """Class of the images of a conditional model; the first one when not given."""
    dims: tuple[CountOrNone, CountOrNone] | None = None
    """Numbers of two latents, from 0 on, across and upwards; the others are 0. When not given, both where there are
    two, and of a VAE with more the two that say most of held-out images, by their KL."""

    @property
    def draws(self) -> bool:
        return True

    @property
    def made(self) -> int:
        return self.num**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scatter(_Plane):
    """Where held-out images lie among the latents, each a point in the colour of its class."""

    done: ClassVar[str] = "to be encoded, at most"
    out: Path = Path("scatter")
    """Folder of the results."""
    num: Count = 2000
    """Number of images."""
    label: str | None = None
    """Class of the images that are drawn; all when not given."""
    dims: tuple[CountOrNone, CountOrNone] | None = None
    """Numbers of two latents, from 0 on. When not given, both where there are two, or the two principal components."""


def most_active(model: Trained, options: Manifold) -> tuple[int, int]:
    """The two latents with the greatest KL of held-out images."""
    family = model.family
    if family.latent_kl is None or not family.standard_prior(model.spec):
        why = "has a learnt prior" if family.latent_kl is not None else f"is a {family.title}"
        raise ValueError(
            f"{options.model} has {model.latent_dim} latents, and as it {why} nothing says which two matter most: "
            "choose them, as with --dims 0 1"
        )
    held = spread(load_images(model, options)[1], COMPARED)
    labels_of(model, held)  # for its check
    key = named_key(options.key, "latent KL")
    nats = jnp.concatenate([jnp.mean(kl, axis=0) for kl in family.latent_kl(model.spec, model.state, held, key)])
    first, second = np.argsort(-np.asarray(nats), kind="stable")[:2].tolist()
    return first, second


def prior_values(model: Trained, num: int, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """(as many quantiles of each latent's prior [num, D], their middle [D]), as `Trained.decode` takes them."""
    shares = (jnp.arange(num) + 0.5) / num
    if model.family.standard_prior(model.spec):
        values = np.asarray(jax.scipy.stats.norm.ppf(shares))
        return np.repeat(values[:, None], model.latent_dim, axis=1), np.zeros(model.latent_dim, np.float32)
    numbers = jnp.arange(DRAWN)
    noise = model.family.noise(model.spec, key, numbers)
    drawn = np.asarray(model.family.prior(model.spec, model.state, noise, key, numbers))
    return np.quantile(drawn, np.asarray(shares), axis=0), drawn.mean(axis=0)


def manifold(options: Manifold) -> dict[str, Any]:
    """A grid of images at quantiles of two latents, as figure 4 of Kingma & Welling 2014 has them."""
    model = load_model(options)
    options.check_model(model)
    num, two = options.num, model.latent_dim == 2
    pixels = max(model.image_shape[:2]) * enlargement(model.image_shape)
    if num * pixels > WIDEST:
        raise ValueError(
            f"--num {num}: images {pixels} pixels wide make a picture of {num * pixels}, and {WIDEST} are the most: "
            f"use at most {WIDEST // pixels}"
        )
    if options.images is not None and (two or options.dims is not None):
        raise ValueError("--images would have no effect: they say which of many latents matter most; leave it out")
    names, classes = model.class_names, model.num_classes
    label = None if classes is None else class_number(options.label or "0", names, classes)
    dims = options.dims or ((0, 1) if two else most_active(model, options))
    values, middle = prior_values(model, num, named_key(options.key, "prior"))
    across, up = values[:, dims[0]], values[::-1, dims[1]]
    z = np.broadcast_to(middle, (num, num, model.latent_dim)).copy()
    z[..., dims[0]], z[..., dims[1]] = across[None, :], up[:, None]
    images = floats(model.decode(z.reshape(num * num, -1), label)).reshape(num, num, *model.image_shape)
    chosen = "" if two or options.dims is not None else ", the two that say most of held-out images, by their KL"
    others = "" if two else f" The other latents are {'0' if not middle.any() else 'at their means'}."
    prior = "the standard normal prior" if model.family.standard_prior(model.spec) else "the learnt prior"
    title = f"{model.name}: images over latents {dims[0]} and {dims[1]}{chosen}"
    of = "" if label is None else f" Class: {named('class', label, names)}."
    note = f"Latent {dims[0]} across, latent {dims[1]} upwards, at quantiles of {prior}.{others}{of}"
    columns = [(f"{value:.2f}", 1) for value in across]
    picture = titled_grid(
        images.reshape(-1, *model.image_shape), num, title, note, [f"{value:.2f}" for value in up], columns
    )
    numbers = {"latents": model.latent_dim, "dims": list(dims), "images": num * num}
    write_results(options.out, {"images": images, "latents": z}, numbers)
    save_picture(options.out / "manifold.png", picture)
    return numbers


def principal_components(latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(latents [N, D] along their two directions of greatest variance [N, 2], the share of it of each [2])."""
    centred = latents - latents.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    total = np.square(lengths).sum()
    return centred @ directions[:2].T, np.square(lengths[:2]) / (total if total > 0 else 1.0)


def scatter(options: Scatter) -> dict[str, Any]:
    """Draw the latents of held-out images, posterior means of a VAE, coloured by class."""
    model = load_model_of_scatter(options)
    options.check_model(model)
    _, test = load_images(model, options)
    names = class_names_of(model, options)
    if options.label is not None:
        if "label" not in test:
            raise ValueError("--label: the images have no labels, so none can be chosen: leave it out")
        chosen = class_number(options.label, names, int(test["label"].max()) + 1)
        test = {name: array[test["label"] == chosen] for name, array in test.items()}
        if not len(test["image"]):
            raise ValueError(f"--label {options.label}: no held-out image has it")
    held = spread(test, options.num)
    z = np.asarray(model.encode(held["image"], labels_of(model, held)))
    numbers: dict[str, Any] = {"images": len(z), "latents": model.latent_dim}
    if options.dims is None and model.latent_dim > 2 and len(z) > 2:
        points, shares = principal_components(z)
        numbers["explained_share"] = shares.tolist()
        axes_names = [f"principal component {i + 1}: {share:.0%} of the variance" for i, share in enumerate(shares)]
        how = f"The two principal components of {model.latent_dim} latents: {shares.sum():.0%} of their variance"
    else:
        dims = options.dims or (0, 1)
        points, numbers["dims"] = z[:, list(dims)], list(dims)
        axes_names = [f"latent {dim}" for dim in dims]
        how = f"Latents {dims[0]} and {dims[1]} of {model.latent_dim}"
    write_results(
        options.out, {"latents": z, "points": points, **{n: held[n] for n in ("label",) if n in held}}, numbers
    )
    means = "" if model.family.posteriors is None else " (posterior means)"
    title = f"{model.name}: where {len(z):,} held-out images lie{means}"
    draw_points(options.out / "scatter.png", points, held.get("label"), names, title, how, axes_names)
    return numbers


def load_model_of_scatter(options: Scatter) -> Trained:
    """The model, which needs an encoder; ``--label`` chooses images here, so that any model may have it."""
    model = load_model(dataclasses.replace(options, label=None))
    if model.family.encode is None:
        raise ValueError(
            f"{options.model} is a {model.family.title}, which has no encoder that says where images lie: use jaxgen "
            "explore invert, which searches for their latents"
        )
    return model


def draw_points(
    path: Path,
    points: np.ndarray,
    label: np.ndarray | None,
    names: Any,
    title: str,
    how: str,
    axes_names: list[str],
) -> None:
    """Draw points [N, 2], each class [N] in a colour and with a mark of its own, to a PNG file."""
    classes = [] if label is None else np.unique(label).tolist()
    listed = [shortened(named("class", each, names), LETTERS) for each in classes] if len(classes) <= LISTED else []
    columns = -(-len(listed) // IN_A_COLUMN)
    figure = new_figure(6.5 + columns * (0.5 + 0.07 * max(map(len, listed), default=0)), 6.5)
    axes = figure.add_subplot()
    if label is None:
        axes.scatter(*points.T, s=8)
    elif len(classes) > LISTED:
        drawn = axes.scatter(*points.T, s=8, c=label, cmap="turbo")
        figure.colorbar(drawn, label=f"number of the class, of {len(classes)} classes")
    else:
        for place, (number, name) in enumerate(zip(classes, listed, strict=True)):
            mark = _MARKERS[place // 10]
            axes.scatter(*points[label == number].T, s=10, color=f"C{place % 10}", marker=mark, label=name)
        beside: Any = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
        axes.legend(ncols=columns, fontsize="small", title="class", markerscale=2, **beside)
    figure.suptitle(title, fontsize="medium")
    axes.set_title(how if label is not None else f"{how}; the images have no labels", fontsize="small")
    axes.set_xlabel(axes_names[0])
    axes.set_ylabel(axes_names[1])
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.3)
    save_figure(path, figure)
