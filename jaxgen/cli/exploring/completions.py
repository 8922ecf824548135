"""Completions of held-out images of which a part is hidden."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxgen import losses
from jaxgen.batches import to_float
from jaxgen.cli.exploring.common import (
    Options,
    Steps,
    class_names_of,
    labels_of,
    load_images,
    load_model,
    row_names,
    spread,
    timed,
    write_results,
)
from jaxgen.cli.pictures import show
from jaxgen.evaluation.records import mean_and_error
from jaxgen.evaluation.sample_measures import nearest
from jaxgen.intervals import Count, Inside, Positive
from jaxgen.keys import named_key

HIDDEN = {
    "centre": "the centre",
    "pixels": "single pixels",
    **{f: f"the {f}" for f in ("bottom", "top", "left", "right")},
}
Hide = Literal["bottom", "top", "left", "right", "centre", "pixels"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Complete(Options):
    """Complete held-out images of which a part is hidden, in several ways, beside simple guesses."""

    out: Path = Path("completions")
    """Folder of the results."""
    hide: Hide = "bottom"
    """What is hidden: a half, the centre, or single pixels at random."""
    share: Inside = 0.5
    """Share of the image that is hidden; of the centre, of each side."""
    num_samples: Count = 4
    """Completions of each image."""
    temperatures: Steps = 300
    """Steps of the drawn completions from the prior to the posterior: more are better draws, and take longer."""
    noise: Positive | None = None
    """Standard deviation of Gaussian noise around the model's images, in units of their range; when not given, 0.3 for
    a GAN, and a VAE's own likelihood."""

    @property
    def draws(self) -> bool:
        return True

    @property
    def made(self) -> int:
        return self.num * (self.num_samples + 1)


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
    by_nearest = np.where(mask[..., None], images, guesses["nearest training image"])
    columns = [
        ("image", images[shown]),
        ("what is given", hidden[shown]),
        ("completed by the nearest training image", by_nearest[shown]),
        ("likeliest completion", mode.images[shown]),
        ("drawn completions", drawn.images[shown]),
    ]
    write_results(
        options.out, {"images": images, "mask": mask, "likeliest": mode.images[:, 0], "drawn": drawn.images}, numbers
    )
    title = (
        f"{model.name}: held-out images completed, {HIDDEN[options.hide]} hidden ({np.mean(~mask):.0%} of the pixels)"
    )
    names = class_names_of(model, options) if "label" in held else None
    show(options.out / "completions.png", columns, title, rows=row_names(held.get("label"), names)[shown])
    return numbers
