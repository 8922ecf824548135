"""Averages of weights that a run left on its way, for those of other lengths to be made of after it.

They are in ``RUN/averages``, a file of weights for each step, and are the same in a run that was stopped and went on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

from jaxgen.averaging import power_exponent
from jaxgen.training import manifest
from jaxgen.untrusted import check, one_line
from jaxgen.weights import read_arrays, write_arrays

FOLDER = "averages"


class _Record(TypedDict):
    step: int
    average_lengths: list[float]


class Snapshots(NamedTuple):
    """Averages that were taken on the way.

    Args:
      steps: at which each of N was taken.
      lengths: relative length of each.
      trees: float32 arrays of any shapes, by their paths in an average.
    """

    steps: tuple[int, ...]
    lengths: tuple[float, ...]
    trees: tuple[dict[str, np.ndarray], ...]


def write(directory: Path, step: int, lengths: tuple[float, ...], averages: tuple[Any, ...]) -> None:
    """Write a run's averages of a step, of relative lengths, trees of arrays of any shapes, into its directory."""
    arrays = {
        f"{number}/{path}": manifest.on_host(leaf)
        for number, average in enumerate(averages)
        for path, leaf in manifest.paths(average).items()
    }
    path = directory / FOLDER / f"{step:08d}.safetensors"
    write_arrays(path, arrays, {"step": step, "average_lengths": list(lengths)})


def read(directory: Path, last: int) -> Snapshots:
    """What a run left up to its step ``last``; arrays are of the shapes of its weights."""
    # Of a write that was cut off something may be left, under another name.
    named = [path for path in sorted((directory / FOLDER).glob("*.safetensors")) if path.stem.isdecimal()]
    paths = [path for path in named if int(path.stem) <= last]
    if not paths:
        raise FileNotFoundError(
            f"{directory} has left no averages up to step {last}: train with --average-lengths 0.05 0.1"
        )
    steps: list[int] = []
    lengths: list[float] = []
    trees: list[dict[str, np.ndarray]] = []
    for path in paths:
        found = read_arrays(path)
        try:
            check(found.record, _Record, "")
        except ValueError as error:
            raise ValueError(one_line(path, f"holds no averages of a run: {error}")) from error
        for number, length in enumerate(found.record["average_lengths"]):
            start = f"{number}/"
            steps.append(int(found.record["step"]))
            lengths.append(float(length))
            trees.append(
                {name.removeprefix(start): leaf for name, leaf in found.arrays.items() if name.startswith(start)}
            )
    return Snapshots(tuple(steps), tuple(lengths), tuple(trees))


def with_own(snapshots: Snapshots, step: int, lengths: tuple[float, ...], averages: tuple[Any, ...]) -> Snapshots:
    """The snapshots and the averages of a state, trees of arrays of any shapes, at a step that left none."""
    if step in snapshots.steps:
        return snapshots
    trees = tuple({path: manifest.on_host(leaf) for path, leaf in manifest.paths(each).items()} for each in averages)
    steps = (step,) * len(lengths)
    return Snapshots(snapshots.steps + steps, snapshots.lengths + lengths, snapshots.trees + trees)


def _products(times: np.ndarray, exponents: np.ndarray, time: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Inner products of weights over steps, those of times and exponents [N] with those of others [M]: [N, M]."""
    t, g, u, h = times[:, None], exponents[:, None], time[None], exponent[None]
    # (g + 1)(h + 1) / (g + h + 1) min^(g + h + 1) / (t^(g + 1) u^(h + 1)), by ratios that are at most 1.
    first = np.minimum(t, u)
    return (g + 1) * (h + 1) / (g + h + 1) * (first / t) ** g * (first / u) ** h / np.maximum(t, u)


def mixture(times: Sequence[int], exponents: Sequence[float], time: int, exponent: float) -> tuple[np.ndarray, float]:
    """By what averages are weighted to come nearest to another one, float64 [N], as their weights over steps do.

    Returned with it is how far from that one's those weights over steps then are, as a share of their size.

    Args:
      times: at which step each of N averages was taken.
      exponents: of each, see `power_exponent`.
      time, exponent: of the one that is wanted.
    """
    t, g = np.asarray(times, np.float64), np.asarray(exponents, np.float64)
    if len(t) != len(g) or not len(t):
        raise ValueError(f"expected as many times as exponents, at least one, got {len(t)} and {len(g)}")
    other = np.array([float(time)]), np.array([float(exponent)])
    wanted, size = _products(t, g, *other)[:, 0], _products(*other, *other)[0, 0]
    # In units of each one's own size, which makes the equations far better conditioned.
    scale = np.sqrt(np.diag(_products(t, g, t, g)))
    gram = _products(t, g, t, g) / scale[:, None] / scale[None]
    weights = np.linalg.lstsq(gram, wanted / scale, rcond=1e-13)[0]
    apart = size - 2.0 * weights @ (wanted / scale) + weights @ gram @ weights
    return weights / scale, float(np.sqrt(max(0.0, apart / size)))


def combined(trees: Sequence[Any], weights: Sequence[float]) -> Any:
    """The sum of trees of arrays [...], each times its weight; summed in float64, in the types of the first."""

    def leaf(*leaves: Any) -> np.ndarray:
        total = sum(weight * np.asarray(each, np.float64) for weight, each in zip(weights, leaves, strict=True))
        return np.asarray(total, np.asarray(leaves[0]).dtype)

    return jax.tree.map(leaf, *trees)


def average(snapshots: Snapshots, step: int, length: float, like: Any) -> tuple[Any, float]:
    """The average of some relative length at a step, a tree like another of float32 arrays of any shapes.

    Returned with it is how far the weights over steps that it is made with are from its own, see `mixture`.
    """
    exponents = [power_exponent(each) for each in snapshots.lengths]
    weights, apart = mixture(snapshots.steps, exponents, step, power_exponent(length))
    found = combined(snapshots.trees, list(weights))
    wanted = manifest.paths(like)
    if found.keys() != wanted.keys():
        raise ValueError(f"the averages of the run are not of its weights: {sorted(found.keys() ^ wanted.keys())[:3]}")
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted]), apart
