"""Features as the distances take them: checked, in double precision, in pieces that are spread over the devices.

A Frechet or kernel distance is a small difference of large numbers: in float32 it is lost. Arrays come from the host
and results go back there, so that no float64 array reaches a program that is not set to it.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

CHUNK = 4096  # rows at a time


def check_features(name: str, features: Any, fewest: int) -> Any:
    """Features on the host, [N, D] with N >= fewest, all finite; anything else is refused."""
    features = jax.device_get(features)
    shape = list(getattr(features, "shape", ()))
    if len(shape) != 2 or shape[1] < 1:
        raise ValueError(f"{name} must be features [N, D], got shape {shape}: flatten them, or extract features")
    if shape[0] < fewest:
        raise ValueError(f"{name}: {shape[0]} points are too few, at least {fewest} are needed: take more images")
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got {features.dtype}: convert them, such as uint8 to [0, 1]")
    for start in range(0, shape[0], CHUNK):
        bad = ~jnp.all(jnp.isfinite(features[start : start + CHUNK]), axis=1)
        if bool(jnp.any(bad)):
            row = start + int(jnp.argmax(bad))
            raise ValueError(f"{name} must be finite, but those of image {row} are not: look at that image")
    return features


def check_pair(real: Any, fake: Any, fewest: int) -> tuple[Any, Any]:
    """Features of both sides on the host, [N, D] and [M, D]; refused where they are not of one extractor."""
    real, fake = check_features("real", real, fewest), check_features("fake", fake, fewest)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"real and fake features are of different sizes, {list(real.shape)} and {list(fake.shape)}: use one "
            "extractor for both"
        )
    return real, fake


def in_double(*functions: Callable[..., Any]) -> Callable[..., Any]:
    """Functions one after another, compiled for float64 whatever the program around is set to; results on the host."""
    compiled = [jax.jit(function) for function in functions]

    @functools.wraps(functions[0])
    def call(*arrays: Any) -> Any:
        with jax.enable_x64(True):
            for function in compiled:
                arrays = function(*arrays)
            return jax.device_get(arrays)

    return call


def on_devices(array: Any, axis: str | None = None) -> jax.Array:
    """An array in float64 on all of this process's devices: whole, or its rows spread over them."""
    mesh = jax.sharding.Mesh(jax.local_devices(), ("rows",))
    with jax.enable_x64(True):
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(axis))
        return jax.device_put(jnp.asarray(array, jnp.float64), sharding)


class Rows(NamedTuple):
    """Some of the rows of an array, spread over the devices, and others of zeros that fill up.

    Args:
      values: float64 [C, D].
      places: which rows of the array they are, float64 [C]; those that fill up have places of their own after its end.
      weights: 1 for a row of the array, 0 for one that fills up, float64 [C].
    """

    values: jax.Array
    places: jax.Array
    weights: jax.Array


def chunks(array: Any, size: int = CHUNK) -> Iterator[Rows]:
    """All rows [N, D] of an array on the host, a piece at a time, all of one size."""
    num, devices = len(array), jax.local_device_count()
    size = -(-min(size, num) // devices) * devices
    for start in range(0, num, size):
        yield _rows(array[start : start + size], start, num, size)


@jax.enable_x64(True)
def _rows(part: Any, start: int, num: int, size: int) -> Rows:
    values = jnp.pad(jnp.asarray(part, jnp.float64), ((0, size - len(part)), (0, 0)))
    places = jnp.arange(start, start + size)
    return Rows(*(on_devices(rows, "rows") for rows in (values, places, places < num)))


def map_rows(function: Callable[..., Any], array: Any, *others: Any, size: int = CHUNK) -> Any:
    """function(rows, *others) -> tree of [C, ...], of all rows of an array, a piece at a time, on the host."""
    pieces = [in_double(function)(rows, *others) for rows in chunks(array, size)]
    with jax.enable_x64(True):
        return jax.device_get(jax.tree.map(lambda *parts: jnp.concatenate(parts)[: len(array)], *pieces))
