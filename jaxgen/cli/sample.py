"""Draw samples from a trained run.

jaxgen sample runs/vae-001 --num 64 --out samples.png
jaxgen sample runs/gan-001 --num 10000 --out samples.npz
jaxgen sample runs/gan-001 --num 1000 --label bag --out bags
"""

import dataclasses
import itertools
import math
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from tqdm import tqdm

from jaxgen.cli.exit_status import command
from jaxgen.cli.options import check_numbers, checkpoint
from jaxgen.data.limits import check_disk, check_memory, check_pixels
from jaxgen.evaluation.during_training import COLUMNS, class_rows, class_titles, how_drawn, of_the_classes
from jaxgen.evaluation.figures import Picture, named, save_image, save_picture
from jaxgen.intervals import Count, Seed
from jaxgen.trained import Trained, class_number, load
from jaxgen.training.files import check_place, replacing
from jaxgen.training.monitor import image_grid, not_seen, titled_grid
from jaxgen.training.run import Run

CHUNK = 500
SIDE = 56  # pixels of an enlarged image, at least
SMALLEST_FILE = 4096  # bytes that a file takes of a disk


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw samples from a trained run."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory that jaxgen train wrote."""
    num: Count = 64
    """Number of samples."""
    out: Path = Path("samples.png")
    """A .png file for a grid; a .npz file: `images` [N, H, W, C], floats in [0, 1] (and `labels` [N]), or vectors
    [N, D] in the units of the data; or a folder, for one PNG file a sample."""
    checkpoint: str = "newest"
    """newest, best, or the step of a checkpoint."""
    label: str | None = None
    """The class to draw, of a conditional model, by its name or number; when not given, all of them in turn, one a row
    of 8."""
    seed: Seed = 0
    """Seed of the latents."""


def choose_labels(model: Trained, options: Options) -> np.ndarray | None:
    """Labels for the samples, int [num rounded up to whole chunks]; None for a model without labels."""
    rows = class_rows(model.spec, COLUMNS, options.num)
    if rows is None or model.num_classes is None:
        if options.label is not None:
            raise ValueError(f"--label is for conditional models: {options.run} was trained without --conditional")
        return None
    chosen = rows
    if options.label is not None:
        chosen = np.full(1, class_number(options.label, model.class_names, model.num_classes), np.int32)
    return np.resize(chosen, -(-options.num // CHUNK) * CHUNK)


def draws(model: Trained, options: Options, labels: np.ndarray | None) -> Iterator[np.ndarray]:
    """The samples in the data's units, so many at a time."""
    draw = model.family.sample
    assert draw is not None
    key = jax.random.key(options.seed)
    for i in range(0, options.num, CHUNK):
        label = None if labels is None else labels[i : i + CHUNK]
        drawn = draw(model.spec, model.state, jax.random.fold_in(key, i), CHUNK, label)
        yield np.asarray(model.in_units(drawn))[: options.num - i]


def origin(model: Trained, options: Options) -> str:
    """Of what the samples are, in words."""
    return f"{options.run.resolve().name}, a {model.family.title}, step {int(model.state.step):,}"


def grid(model: Trained, options: Options, images: np.ndarray, labels: np.ndarray | None) -> Picture:
    """All samples [N, H, W, C] in one picture, with the names of their classes where there are some."""
    note = f"{how_drawn(model.spec, model.state, model.image_type == 'bool')} Seed {options.seed}."
    title = f"{len(images)} sample{'s' * (len(images) > 1)} of {origin(model, options)}"
    if labels is None:
        return titled_grid(images, None, title, note)
    labels = labels[: len(images)]
    if options.label is not None:
        return titled_grid(images, None, f"{title}: {named('class', int(labels[0]), model.class_names)}", note)
    rows = class_titles(labels, COLUMNS, model.class_names)
    some = of_the_classes(len(set(labels.tolist())), model.num_classes)
    return titled_grid(images, COLUMNS, title, f"{note} {some}", rows)


def write_pictures(folder: Path, drawn: Iterable[np.ndarray], names: Sequence[str] | None, what: str) -> None:
    """A PNG file a sample, by its number and, where there are some, the name of its class; all of them or none.

    They are images alone, for programs; that they are samples of ``what`` is in the files' words.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists: give --out a new folder, or a file ending in .png or .npz")
    suffixes = None if names is None else [f"_{re.sub('[^A-Za-z0-9_-]+', '-', name)}" for name in names]
    images = tqdm(itertools.chain.from_iterable(drawn), unit=" pictures", disable=not sys.stderr.isatty())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as partial:
        whole = Path(partial) / folder.name
        whole.mkdir()
        for number, image in enumerate(images):
            file = f"{number:06d}{'' if suffixes is None else suffixes[number]}.png"
            words = (
                f"Sample {number} of {what}{'' if names is None else f': {names[number]}'}",
                not_seen(image.shape[-1]),
            )
            save_image(whole / file, image_grid(image[None], padding=0), ". ".join(filter(None, words)))
        whole.replace(folder)  # an empty folder gives way


def check_room(model: Trained, options: Options) -> None:
    """Refuse more samples than the memory, the disk or a picture has room for, before any is drawn."""
    name, pixels = f"--num {options.num}", math.prod(model.image_shape)
    if options.out.suffix == "":
        check_disk(options.num * SMALLEST_FILE, options.out, f"{name}: as many pictures")
    else:
        check_memory(2 * 4 * options.num * pixels, name)  # the pieces, and what they are joined to
    if options.out.suffix == ".png":
        check_pixels(options.num * max(4 * pixels, SIDE**2), 1)  # of the file, in which images are enlarged


def sample(options: Options) -> Path:
    """Draw the samples and write them, whole or not at all; returns the file or folder."""
    if options.out.suffix not in (".png", ".npz", ""):
        raise ValueError(f"--out must be a folder, or end in .png or .npz, got {options.out}")
    check_place(options.out / "one.png" if options.out.suffix == "" else options.out)
    check_numbers(options)
    which = checkpoint(options.checkpoint)
    Run.open(options.run)  # refuses what is no run
    model = load(options.run, which)
    if model.family.sample is None:
        raise ValueError(
            f"{options.run} holds a {model.family.title}, which has no prior to draw from: train a second stage on its "
            "latents, which jaxgen encode writes"
        )
    if options.out.suffix != ".npz" and len(model.image_shape) != 3:
        raise ValueError(f"{options.run} makes vectors, which are no pictures: give --out a file ending in .npz")
    check_room(model, options)
    labels = choose_labels(model, options)
    names = None if labels is None or model.class_names is None else [model.class_names[label] for label in labels]
    drawn = draws(model, options, labels)
    if options.out.suffix == "":
        listed = names if labels is None else names or list(map(str, labels))
        write_pictures(options.out, drawn, listed, origin(model, options))
        return options.out
    images = np.concatenate(list(drawn))
    if options.out.suffix == ".png":
        save_picture(options.out, grid(model, options, images, labels))
        if names is not None:
            print(f"classes, row by row: {', '.join(dict.fromkeys(names[: options.num]))}")
    else:
        kept: dict[str, Any] = {} if labels is None else {"labels": labels[: options.num]}
        if model.class_names is not None and labels is not None:
            kept["class_names"] = np.array(model.class_names)
        with replacing(options.out) as partial:
            np.savez_compressed(partial, images=images, **kept)
    return options.out


main = command(Options, sample, "jaxgen sample")
