"""What is sought for images: the latents that make them, and the training images that are nearest to them."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen import latents, metrics
from jaxgen.batches import to_float
from jaxgen.cli.exploring.common import (
    Options,
    Steps,
    drawn_labels,
    labels_of,
    load_images,
    load_model,
    spread,
    timed,
    write_results,
)
from jaxgen.cli.pictures import floats, show
from jaxgen.evaluation.during_training import COLUMNS
from jaxgen.evaluation.sample_measures import nearest
from jaxgen.intervals import Count
from jaxgen.keys import named_key

GOOD = 30.0  # dB
CLOSE = 0.01  # quantile of the test images' distances under which a sample counts as a copy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invert(Options):
    """Project the model's own samples and held-out images into the latent space, from many starts and from one."""

    out: Path = Path("inversions")
    """Folder of the results."""
    num: Count = 64
    """Number of samples, and of held-out images."""
    num_restarts: Count = 8
    """Starts of each image."""
    steps: Steps = 300
    """Steps of each start."""

    @property
    def draws(self) -> bool:
        return True

    @property
    def made(self) -> int:
        return self.num * self.num_restarts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbours(Options):
    """The nearest training images of samples: does the model know them by heart?"""

    out: Path = Path("neighbours")
    """Folder of the results."""
    num: Count = 500
    """Number of samples, and of held-out images to compare with."""

    @property
    def draws(self) -> bool:
        return True


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
    write_results(
        options.out, {name.replace(" ", "_").replace("-", "_"): array for name, array in arrays.items()}, numbers
    )
    shown = np.s_[: min(16, options.num)]
    columns = [
        ("own sample", arrays["own samples images"][shown]),
        ("made of the latents found", arrays["own samples inverted"][shown]),
        ("held-out image", arrays["held-out images images"][shown]),
        ("made of the latents found", arrays["held-out images inverted"][shown]),
    ]
    title = f"{model.name}: images, and what it makes of the latents found for them"
    fewest = min(len(images) for _, images in columns)
    show(options.out / "inversions.png", [(name, images[:fewest]) for name, images in columns], title)
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
    write_results(options.out, {"samples": samples, "neighbours": found, "distances": distances}, numbers)
    order = np.argsort(distances)
    rows = min(COLUMNS, len(order))
    closest, some = order[:rows], order[np.linspace(0, len(order) - 1, rows).astype(int)]
    columns = [
        ("closest samples", samples[closest]),
        ("nearest training images", found[closest]),
        ("samples, from the closest to the farthest", samples[some]),
        ("nearest training images", found[some]),
    ]
    title = f"{model.name}: samples beside the training images that are nearest to them"
    note = f"Of {len(samples)} samples; nearest by the distance of their pixels."
    show(options.out / "neighbours.png", columns, title, note)
    return numbers
