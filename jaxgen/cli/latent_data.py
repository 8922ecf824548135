"""Images to the latents of a trained encoder: what `jaxgen encode` writes, and a second stage learns."""

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen import data
from jaxgen.data.batch_feeds import Share
from jaxgen.data.limits import check_memory
from jaxgen.evaluation.evaluator import state_sha256
from jaxgen.evaluation.subject import BATCH, Progress
from jaxgen.families import Spec, family_of
from jaxgen.tokenizer import Tokenizer, TokenizerState, tokenizer_frozen
from jaxgen.trained import Trained, load
from jaxgen.training.run_data import Data

VALUES = 500 * 32 * 32 * 3  # of the images that are encoded at a time


class FirstStage(NamedTuple):
    """A trained tokenizer whose latents another model learns.

    Args:
      model: as it was loaded.
      spec, state: without what only trained it, see `tokenizer_frozen`.
      sha256: of the state.
    """

    model: Trained
    spec: Tokenizer
    state: TokenizerState
    sha256: str


def first_stage(source: str) -> FirstStage:
    """The tokenizer of a run, of a file or of the package; refuses what is none, or has no statistics yet."""
    path = Path(source)
    files = sorted((path / "checkpoints").glob("*")) if path.is_dir() else [path] if path.is_file() else []
    return _first_stage(source, tuple((str(each), each.stat().st_mtime_ns) for each in files))


@functools.lru_cache(maxsize=1)
def _first_stage(source: str, _files: tuple[tuple[str, int], ...]) -> FirstStage:
    """The same, read once as long as its files are the same: a sweep asks for every member."""
    model = load(source)
    if model.family.settle is None:
        raise ValueError(f"{source} holds a {model.family.title}: give the run of a tokenizer (jaxgen train tokenizer)")
    check_settled(model, source)
    spec, state = tokenizer_frozen(model.spec, model.state)
    return FirstStage(model, spec, state, state_sha256(state))


def check_settled(model: Trained, source: Any) -> None:
    """Refuse a tokenizer whose latents are not normalised yet."""
    mean, deviation = statistics(model)
    if not mean.any() and (deviation == 1.0).all():
        raise ValueError(
            f"{source} was not evaluated before its step {int(model.state.step)} was saved, so that what normalises "
            "its latents is not measured yet: train on to an evaluation (--resume, --eval-every), or use a later "
            "checkpoint"
        )


def statistics(model: Trained) -> tuple[np.ndarray, np.ndarray]:
    """(mean, deviation) by which latents were normalised: [c] of a tokenizer; 0 and 1, [D], of a VAE."""
    size = model.latent_shape[-1]
    held = model.state.hyperparams
    usual = {"latent_mean": np.zeros(size, np.float32), "latent_std": np.ones(size, np.float32)}
    mean, deviation = (np.asarray(held.get(name, value)) for name, value in usual.items())
    return mean, deviation


@functools.partial(jax.jit, static_argnums=0)
def _encoded(spec: Spec, state: Any, batch: dict[str, Any]) -> tuple[jax.Array, jax.Array | None]:
    family = family_of(spec)
    return family.encode(spec, state, batch), family.codes(spec, state, batch) if getattr(
        spec, "num_codes", 0
    ) else None


def encoded(model: Trained, source: data.Source, rows: range, progress: Progress) -> Iterator[dict[str, np.ndarray]]:
    """Latents [n, ...], and codes and labels where there are some, of so many images of those rows at a time."""
    num, shape = len(rows), model.latent_shape
    size = min(num, BATCH, max(1, VALUES // math.prod(source.image_shape)))
    state = model.family.to_encode(model.spec, model.state)
    for start in range(0, num, size):
        # One program does all pieces: the last is filled up with its last image.
        examples = source.read(rows.start + np.minimum(np.arange(start, start + size), num - 1))
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
            place = rows.start + start + int(np.argmin(finite))
            raise ValueError(f"the latents of image {place} of {source.name} are not finite")
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


def as_latents(loaded: Data, first: FirstStage, name: str, blocks: int, progress: Progress) -> Data:
    """The same data with the latents of this process's training images in their place; what streams is held then."""
    images = loaded.example["image"]
    if images.shape[1:] != first.model.image_shape:
        raise ValueError(
            f"the tokenizer of --latents takes images {list(first.model.image_shape)}, {name} has "
            f"{list(images.shape[1:])}: bring them to that size and colour, or train a tokenizer of these"
        )
    if isinstance(loaded.train, data.Source):
        source = loaded.train
        mine = Share(jax.process_index(), jax.process_count(), blocks).rows(source.num_examples)
        rows = range(mine.start, mine.stop)
    else:
        train = loaded.train
        kind, labels = train["image"].dtype, "label" in train

        def read(places: np.ndarray) -> dict[str, np.ndarray]:
            return {each: array[places] for each, array in train.items()}

        rows = range(len(train["image"]))
        source = data.Source(name, len(rows), images.shape[1:], kind, labels, loaded.num_classes, read)
    shape = (len(rows), *first.spec.latent_shape)
    check_memory(4 * math.prod(shape), f"the latents of {len(rows):,} images, which are held in memory")
    latents = {"image": np.empty(shape, np.float32)}
    if source.labels:
        latents["label"] = np.empty(len(rows), np.int32)
    done = 0
    for piece in encoded(first.model, source, rows, progress):
        latents["image"][done : (end := done + len(piece["latents"]))] = piece["latents"]
        if source.labels:
            latents["label"][done:end] = piece["labels"]
        done = end
    note = (
        f"learnt are the latents {list(first.spec.latent_shape)} of {first.model.name}, which decodes what is made; "
        "they are encoded once and held in memory"
    )
    return loaded._replace(train=latents, streams=None, notes=(*loaded.notes, note))
