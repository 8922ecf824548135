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
import json
import math
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
import tyro

from jaxgen import data
from jaxgen.cli.exit_status import command
from jaxgen.cli.latent_data import check_settled, encoded, statistics
from jaxgen.cli.options import check_data, checkpoint
from jaxgen.cli.parsing import saved_options
from jaxgen.cli.progress import Bars
from jaxgen.data.limits import check_disk
from jaxgen.evaluation.evaluator import state_sha256
from jaxgen.evaluation.subject import Progress
from jaxgen.trained import Trained, load
from jaxgen.training.files import check_place, replacing
from jaxgen.training.run import Run
from jaxgen.training.run_data import DataChoice, dataset_name


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
    if model.family.settle is not None:
        check_settled(model, options.run)


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
            for found in encoded(model, source, range(num), progress):
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
