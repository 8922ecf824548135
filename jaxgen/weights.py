"""Trained models as single files: a spec, what was learnt, and how it was made, in one .safetensors file.

Nothing in such a file is ever run: it holds arrays by their paths (``generator/project/kernel``) and plain data.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.families import family_of
from jaxgen.plain import Spec, State, spec_from_plain, state_shapes, to_plain
from jaxgen.spec import check_state
from jaxgen.training import manifest
from jaxgen.training.files import replacing
from jaxgen.untrusted import ImageType, Plain, check, check_images, one_line, parse, shown

_FORMAT = 1
FloatType = Literal["float32", "float16"]
_FLOATS = ("float32", "float16")
_HEADER = 4_000_000  # bytes: names and shapes of tens of thousands of arrays
# Few numbers, of which a decay of 0.9999 would be 1 in half precision.
_EXACT = ("hyperparams/", "step", "tokenizer/hyperparams/", "tokenizer/step")


class _Described(TypedDict):
    """What a record of ours holds; ``num_classes`` is for those who read it elsewhere."""

    spec: dict
    image_shape: list[int]
    image_type: ImageType
    floats: FloatType
    record: dict
    arrays_sha256: str


class Arrays(NamedTuple):
    """What a .safetensors file holds.

    Args:
      arrays: NumPy arrays by name.
      record: plain data that jaxgen stored with them; empty in the files of others.
      sha256: of the file.
    """

    arrays: dict[str, np.ndarray]
    record: dict[str, Any]
    sha256: str


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "files of weights need safetensors, which is not installed: pip install safetensors"
        ) from error
    return safetensors


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Write NumPy arrays by name, and a record, plain data, to a .safetensors file at a path, whole or not at all."""
    if path.suffix != ".safetensors":
        raise ValueError(f"a file of weights must end in .safetensors, got {path}")
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # The record as one text: several would be written in any order.
    contents = _safetensors().numpy.save(contiguous, metadata={"jaxgen": json.dumps(record, sort_keys=True)})
    with replacing(path) as partial:
        partial.write_bytes(contents)


def read_arrays(path: Path) -> Arrays:
    """Read the .safetensors file at a path: its arrays, the record that was stored with them, and its hash."""
    safetensors = _safetensors()
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(one_line(path, "is no file"))
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _HEADER:
            what = f"header of {length:,} bytes, of which {_HEADER:,} are read"
            raise ValueError(one_line(path, f"is no whole .safetensors file ({what}): write it again"))
        file.seek(0)
        contents = file.read()
    try:
        arrays = safetensors.numpy.load(contents)
        header = json.loads(contents[8 : 8 + length])
        record = parse((header.get("__metadata__") or {}).get("jaxgen", "{}"), "record")
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise ValueError(one_line(path, f"is no whole .safetensors file ({error}): write it again")) from error
    return Arrays(arrays, record if isinstance(record, dict) else {}, hashlib.sha256(contents).hexdigest())


class Weights(NamedTuple):
    """A model as a file holds it.

    Args:
      spec: the GAN or VAE.
      state: its state, ready to be used, or trained on with a fresh optimizer.
      image_shape: shape of one image, (H, W, C), or (D,) of a vector.
      image_type: of the images that it has learnt: ``"uint8"``, ``"bool"`` or ``"float32"``.
      record: plain data on how it was made.
    """

    spec: Spec
    state: State
    image_shape: tuple[int, ...]
    image_type: str
    record: dict[str, Any]


def num_classes(spec: Spec) -> int | None:
    """Number of classes of a spec's networks; None of a model without labels."""
    return family_of(spec).num_classes(spec)


def _shapes(spec: Spec, image_shape: tuple[int, ...], image_type: str) -> dict[str, Any]:
    """Shapes and types of what is stored of a spec's state, in its tree."""
    state = state_shapes(spec, image_shape, image_type, labels=num_classes(spec) is not None)
    return jax.eval_shape(family_of(spec).kept, state)


def _stored_type(path: str, leaf: Any, dtype: str) -> str:
    """The type in which an array is stored."""
    exact = path.startswith(_EXACT) or not jnp.issubdtype(leaf.dtype, jnp.floating)
    return str(leaf.dtype) if exact else dtype


def _wanted(tree: Any, dtype: str) -> dict[str, str]:
    return {path: f"{_stored_type(path, leaf, dtype)}{list(leaf.shape)}" for path, leaf in manifest.paths(tree).items()}


def _store(path: str, leaf: Any, dtype: str) -> np.ndarray:
    """An array as it is stored; one that is not finite, or not after rounding, is refused."""
    array = manifest.on_host(leaf)
    with np.errstate(over="ignore"):
        stored = array.astype(_stored_type(path, leaf, dtype), order="C")
    if np.issubdtype(stored.dtype, np.floating) and not np.isfinite(stored).all():
        largest = np.abs(array).max()
        raise ValueError(
            f"{path} has values up to {largest}, which {stored.dtype} does not hold"
            f"{': store float32' if np.isfinite(largest) else ': such a model is of no use'}"
        )
    return stored


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """The hash of arrays and their names, by which a changed byte shows."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {manifest.describe(array)} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_weights(
    path: str | Path,
    spec: Spec,
    state: State,
    *,
    image_shape: tuple[int, ...],
    image_type: str,
    dtype: FloatType = "float32",
    record: Mapping[str, Plain] | None = None,
) -> None:
    """Write a trained model as one file that `load_weights` and `jaxgen.load` read anywhere, whole or not at all.

    Stored are the spec, the networks' parameters and collections, the hyper-parameters and the step. Of a GAN with a
    moving average the generator that is stored is the average, which is what samples; the raw one is not kept. The
    optimizers' states are not kept: training that goes on from such a file begins with fresh ones. To resume a run
    exactly, keep its directory.

    Args:
      path: the file, ending in .safetensors; its folder is made.
      spec: the GAN or VAE, of registered parts (see `jaxgen.training.run.register`).
      state: its state, all finite.
      image_shape: shape of one image, (H, W, C), or (D,) of a vector.
      image_type: of the images that it has learnt: ``"uint8"``, ``"bool"`` or ``"float32"``.
      dtype: type that floats are stored in. ``"float16"`` halves the file and rounds to 11 bits; the hyper-parameters
        stay exact.
      record: plain data on how it was made, such as its command and its numbers.
    """
    if dtype not in _FLOATS:
        raise ValueError(f"floats are stored as {' or '.join(_FLOATS)}, got {dtype!r}")
    check_state(state, family_of(spec).state)
    described = {
        "format": _FORMAT,
        "spec": to_plain(spec),
        "image_shape": list(image_shape),
        "image_type": image_type,
        "num_classes": num_classes(spec),  # for those who read it elsewhere: the spec says it too
        "floats": dtype,
        "record": json.loads(json.dumps(dict(record or {}))),
    }
    kept = family_of(spec).kept(state)
    wrong = manifest.array_differences(manifest.arrays(kept), manifest.arrays(_shapes(spec, image_shape, image_type)))
    if wrong:
        raise ValueError(
            f"the state is not one of this spec and of images {list(image_shape)}: {manifest.summary(wrong)}"
        )
    arrays = {name: _store(name, leaf, dtype) for name, leaf in manifest.paths(kept).items()}
    write_arrays(Path(path), arrays, {**described, "arrays_sha256": _digest(arrays)})


def load_weights(path: str | Path) -> Weights:
    """Read a model that `save_weights` wrote to a path; no code of the file is run.

    Floats are in the types of the spec's networks, optimizers as at the start of training. ValueError names the arrays
    that are missing, too much or of another shape or type.
    """
    path = Path(path)
    arrays, described, _ = read_arrays(path)
    if "spec" not in described:
        other = "holds no model of jaxgen's: expected a file that jaxgen.weights.save_weights wrote"
        raise ValueError(one_line(path, other))
    if described.get("format") != _FORMAT:
        other = f"{shown(described.get('format'))}, this jaxgen reads {_FORMAT}: use the jaxgen that wrote it"
        raise ValueError(one_line(path, f"is of format {other}"))
    try:
        check(described, _Described, "")
        check_images(described["image_shape"], described["image_type"])
        spec = spec_from_plain(described["spec"])
        image_shape, image_type = tuple(described["image_shape"]), described["image_type"]
        tree = _shapes(spec, image_shape, image_type)
    except ValueError as error:
        raise ValueError(one_line(path, f"describes no model that this jaxgen can make: {error}")) from error
    wrong = manifest.array_differences(manifest.arrays(arrays), _wanted(tree, described["floats"]))
    if wrong:
        other = f"does not hold the arrays of its {type(spec).__name__}: {manifest.summary(wrong)}"
        raise ValueError(one_line(path, other))
    if _digest(arrays) != described["arrays_sha256"]:
        raise ValueError(
            one_line(path, "is damaged: its arrays do not have the hash they were written with; copy it again")
        )
    leaves = [jnp.asarray(arrays[name], leaf.dtype) for name, leaf in manifest.paths(tree).items()]
    kept = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    return Weights(spec, family_of(spec).restored(spec, kept), image_shape, image_type, described["record"])
