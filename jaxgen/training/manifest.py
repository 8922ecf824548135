"""The manifest of a checkpoint: what it holds, to the bit, and how it was made."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxgen.training import machine

FORMAT = 1


def paths(tree: Any) -> dict[str, Any]:
    """The leaves of a tree of arrays by their paths, such as ``state/params/encoder/kernel``."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def describe(leaf: Any) -> str:
    """Type and shape of an array, such as ``float32[64, 10]``."""
    return f"{leaf.dtype}{list(leaf.shape)}"


def arrays(tree: Any) -> dict[str, str]:
    """What each leaf of a tree of arrays is, by its path."""
    return {path: describe(leaf) for path, leaf in paths(tree).items()}


def _is_parameter(path: str) -> bool:
    return any(part.endswith("params") and part != "hyperparams" for part in path.split("/"))


def array_differences(saved: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Where trees of arrays, saved and wanted, differ in structure, shape or type: a line each, with the leaf's path.

    Both are described as `arrays` does.
    """
    # Parameters first: the rest follows from them.
    ordered = sorted(saved.keys() | wanted.keys(), key=lambda path: (not _is_parameter(path), path))
    return [
        f"{path}: saved {saved.get(path, 'nothing')}, wanted {wanted.get(path, 'nothing')}"
        for path in ordered
        if saved.get(path) != wanted.get(path)
    ]


def summary(lines: list[str], most: int = 6) -> str:
    """The first few of a list of lines, ``most`` of them, on one line, and how many more there are."""
    more = len(lines) - most
    return "; ".join([*lines[:most], *([f"and {more} more"] if more > 0 else [])])


def on_host(leaf: Any) -> np.ndarray:
    """The whole of an array, of any shape, also of one that is spread over processes, all of which then call this."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf, order="C")


def describe_leaves(items: Any, *, finite: bool = False) -> dict[str, dict[str, str]]:
    """Describe every leaf to the bit: by its path, ``array`` (type and shape) and ``sha256`` (of its bytes).

    ``items`` are trees of arrays by name, with which every process of the run calls this. No leaf may be empty, nor,
    where ``finite`` is asked for, hold a NaN or an infinity.
    """
    described = {}
    for path, leaf in paths(items).items():
        array = on_host(leaf)
        if array.size == 0:
            raise ValueError(f"{path} is empty, {describe(array)}: a checkpoint holds arrays of at least one number")
        if finite and jax.numpy.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            raise ValueError(f"{path} is not finite: such a state is not saved")
        digest = hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()
        described[path] = {"array": describe(array), "sha256": digest}
    return described


def _checksum(manifest: dict[str, Any]) -> str:
    contents = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def build(step: int, items: Any, notes: Mapping[str, Any]) -> dict[str, Any]:
    """Make the manifest of a checkpoint after a step: plain data, with a checksum of its own.

    ``items`` are trees of arrays by name, all finite and none empty, and ``notes`` plain data to keep with them.
    """
    manifest = {
        "format": FORMAT,
        "step": step,
        "leaves": describe_leaves(items, finite=True),
        "versions": machine.versions(),
        "topology": machine.topology(),
        **notes,
    }
    return {**manifest, "sha256": _checksum(manifest)}


def check(manifest: Any, step: int) -> None:
    """Refuse a manifest that is damaged, of another step, or of another version of the format."""
    if not isinstance(manifest, dict) or manifest.get("sha256") != _checksum(manifest):
        raise ValueError("its manifest does not have the checksum it was written with")
    if manifest["format"] != FORMAT:
        raise ValueError(f"its manifest is of format {manifest['format']}, this jaxgen reads {FORMAT}")
    if manifest["step"] != step:
        raise ValueError(f"its manifest is of step {manifest['step']}: the folder was renamed")
