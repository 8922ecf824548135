"""Write the latents of a data set, as a trained run's encoder makes them, for a second stage to learn from.

    jaxgen encode runs/tokenizer-001 --split train --out train.npz
    jaxgen encode runs/tokenizer-001 --dataset folder:pictures --split all --out pictures.npz

The file holds `latents` float32, [N, h, w, c] of a tokenizer and [N, D] of a VAE, its posterior means; `codes` int32
[N, h, w] of a tokenizer that has them; `labels` int32 [N] where the data have some, and `class_names`. What the decoder
takes is latents * latent_std + latent_mean, and what `jaxgen.load(RUN).decode` takes the latents themselves. Of what
they are is in `run`, `step`, `weights_sha256`, `identity` (of the run, as JSON), `dataset` and `split`. Nothing in it
is compressed, so that it can be read by rows.
"""

import contextlib
import dataclasses
import functools
import json
import math
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import jax
import numpy as np
import tyro

from jaxgen import data
from jaxgen.cli.exit_status import command
from jaxgen.cli.options import check_data, checkpoint
from jaxgen.cli.parsing import saved_options
from jaxgen.cli.progress import Bars
from jaxgen.data.limits import check_disk
from jaxgen.evaluation.evaluator import state_sha256
from jaxgen.evaluation.subject import BATCH, Progress
from jaxgen.families import Spec, family_of
from jaxgen.trained import Trained, load
from jaxgen.training.files import check_place, replacing
from jaxgen.training.run import Run
from jaxgen.training.run_data import DataChoice, dataset_name

VALUES = 500 * 32 * 32 * 3  # of the images that are encoded at a time


@dataclasses.dataclass(frozen=True)
class Options:
    """Write the latents of a data set, as a trained run's encoder makes them."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory that jaxgen train wrote."""
    dataset: str | None = None
    """Whose images: as --dataset of jaxgen train; the run's own when not given."""
    split: str = "test"
    """Which of them: train, test or what else there is, or a slice such as train[:50000]."""
    out: Path = Path("latents.npz")
    """The .npz file."""
    checkpoint: str = "newest"
    """newest, best, or the step of a checkpoint."""


def check_model(model: Trained, options: Options) -> None:
    """Refuse a model without an encoder, and one whose latents are not normalised yet."""
    if model.family.encode is None:
        raise ValueError(f"{options.run} holds a {model.family.title}, which has no encoder: encode with a tokenizer")
    if model.family.settle is None:
        return
    mean, deviation = statistics(model)
    if not mean.any() and (deviation == 1.0).all():
        raise ValueError(
            f"{options.run} was not evaluated before its step {int(model.state.step)} was saved, so that what "
            "normalises its latents is not measured yet: train on to an evaluation (--resume, --eval-every), or name a "
            "later --checkpoint"
        )


def statistics(model: Trained) -> tuple[np.ndarray, np.ndarray]:
    """(mean, deviation) by which latents were normalised: [c] of a tokenizer; 0 and 1, [D], of a VAE."""
    size = model.latent_shape[-1]
    held = model.state.hyperparams
    usual = {"latent_mean": np.zeros(size, np.float32), "latent_std": np.ones(size, np.float32)}
    mean, deviation = (np.asarray(held.get(name, value)) for name, value in usual.items())
    return mean, deviation


def open_images(run: Run, model: Trained, options: Options) -> data.Source:
    """The images, as the run would see them; refuses those of another shape."""
    choice: DataChoice = saved_options(run).data_choice()
    name = choice.dataset if options.dataset is None else options.dataset
    check_data(name, run.directory)
    places: dict[str, Any] = {
        each: getattr(choice, each) for each in ("data_dir", "manual_dir", "image_size", "color", "fit")
    }
    source = data.open_source(name, options.split, **places)
    if source.image_shape != model.image_shape:
        raise ValueError(
            f"{options.run} takes images {list(model.image_shape)}, {name} has {list(source.image_shape)}: bring them "
            "to that size and colour"
        )
    if model.num_classes is not None and not source.labels:
        raise ValueError(f"{options.run} is conditional, and {name} has no labels: give images with labels")
    return source if choice.binarization == "none" else data.binarized(source)


@functools.partial(jax.jit, static_argnums=0)
def _encoded(spec: Spec, state: Any, batch: dict[str, Any]) -> tuple[jax.Array, jax.Array | None]:
    family = family_of(spec)
    return family.encode(spec, state, batch), family.codes(spec, state, batch) if getattr(
        spec, "num_codes", 0
    ) else None


def encoded(model: Trained, source: data.Source, progress: Progress) -> Iterator[dict[str, np.ndarray]]:
    """Latents [n, ...], and codes and labels where there are some, of so many images at a time."""
    num, shape = source.num_examples, model.latent_shape
    size = min(num, BATCH, max(1, VALUES // math.prod(source.image_shape)))
    state = model.family.to_encode(model.spec, model.state)
    for start in range(0, num, size):
        # One program does all pieces: the last is filled up with its last image.
        examples = source.read(np.minimum(np.arange(start, start + size), num - 1))
        count = min(size, num - start)
        images = examples["image"]
        if model.standardization is not None:
            images = model.standardization(images.astype(np.float32))
        batch = {"image": images}
        if model.num_classes is not None:
            check_labels(model, examples["label"], source.name)
            batch["label"] = examples["label"]
        latents, codes = jax.device_get(_encoded(model.spec, state, batch))
        found = {"latents": np.asarray(latents, np.float32).reshape(size, *shape)}
        finite = np.isfinite(found["latents"]).reshape(size, -1).all(axis=1)
        if not finite.all():
            raise ValueError(f"the latents of image {start + int(np.argmin(finite))} of {source.name} are not finite")
        if codes is not None:
            found["codes"] = np.asarray(codes, np.int32)
        if source.labels:
            found["labels"] = np.asarray(examples["label"], np.int32)
        yield {name: array[:count] for name, array in found.items()}
        progress(start + count, num)


def check_labels(model: Trained, labels: np.ndarray, name: str) -> None:
    """Refuse classes that a conditional model does not know."""
    if labels.max() >= (model.num_classes or 0):
        raise ValueError(f"{model.name} knows {model.num_classes} classes, {name} has the label {labels.max()}")


@contextlib.contextmanager
def member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: Any) -> Iterator[IO[bytes]]:
    """An array of an .npz file, whose rows are to be written one after the other."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    # Without a date: the same latents make the same file.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield file


def write(path: Path, model: Trained, source: data.Source, notes: dict[str, Any], progress: Progress) -> None:
    """Write a file piece by piece: only a piece is ever in memory, and codes and labels wait on the disk."""
    num, shape = source.num_examples, model.latent_shape
    waiting = {"codes": shape[:2]} if model.num_codes else {}
    waiting |= {"labels": ()} if source.labels else {}
    with contextlib.ExitStack() as held, zipfile.ZipFile(path, "w") as archive:
        files = {name: held.enter_context(tempfile.TemporaryFile(dir=path.parent)) for name in waiting}
        with member(archive, "latents", (num, *shape), np.float32) as out:
            for found in encoded(model, source, progress):
                out.write(found.pop("latents").tobytes())
                for name, array in found.items():
                    files[name].write(array.tobytes())
        for name, file in files.items():
            file.seek(0)
            with member(archive, name, (num, *waiting[name]), np.int32) as out:
                shutil.copyfileobj(file, out)
        for name, value in notes.items():
            array = np.asarray(value)
            with member(archive, name, array.shape, array.dtype) as out:
                out.write(array.tobytes())


def encode(options: Options) -> Path:
    """Encode the images and write the file, whole or not at all; returns it."""
    if options.out.suffix != ".npz":
        raise ValueError(f"--out must end in .npz, got {options.out}")
    check_place(options.out)
    which = checkpoint(options.checkpoint)
    run = Run.open(options.run)  # refuses what is no run
    model = load(options.run, which)
    check_model(model, options)
    source = open_images(run, model, options)
    num, size = source.num_examples, math.prod(model.latent_shape)
    codes = math.prod(model.latent_shape[:2]) if model.num_codes else 0
    check_disk(4 * num * (size + 2 * codes + 2 * source.labels), options.out, f"the latents of {num:,} images")
    mean, deviation = statistics(model)
    notes: dict[str, Any] = {
        "latent_mean": mean,
        "latent_std": deviation,
        "run": model.name,
        "step": np.int64(model.state.step),
        "weights_sha256": state_sha256(model.state),
        "identity": json.dumps(run.config["identity"], sort_keys=True),
        "dataset": dataset_name(source.name),
        "split": options.split,
    }
    if source.class_names is not None and source.labels:
        notes["class_names"] = np.array(source.class_names)
    with Bars() as bars, replacing(options.out) as partial:
        write(partial, model, source, notes, bars.begin(f"{options.run}: latents of {num:,} images"))
    books = f", codes from 0 to {model.num_codes - 1}" if model.num_codes else ""
    print(f"latents {[num, *model.latent_shape]}{books}")
    return options.out


main = command(Options, encode, "jaxgen encode")
