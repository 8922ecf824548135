"""The seam between the steps and the networks: anything with Flax Linen's ``init`` and ``apply``."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.keys import AxisName, named_key

Collections = dict[str, Any]


def initialize(network: Any, key: jax.Array, *args: Any, **kwargs: Any) -> tuple[Any, Collections]:
    """Initialise a network from inputs of its call, e.g. latents [B, D] and ``label`` [B].

    ``args`` and ``kwargs`` are what it is called with. Returned are its parameters, and its mutable collections such as
    BatchNorm's ``batch_stats``, empty when it has none.
    """
    rngs = {name: named_key(key, name) for name in ("params", "dropout")}
    variables = dict(network.init(rngs, *args, **kwargs, train=False))
    return variables.pop("params", {}), variables


def apply(
    network: Any,
    params: Any,
    collections: Collections,
    *args: Any,
    train: bool,
    key: jax.Array,
    **kwargs: Any,
) -> tuple[Any, Collections]:
    """Apply a network, threading its mutable collections: (output, collections after the call).

    It is called with ``args`` and ``kwargs``. ``train`` says whether batch statistics and dropout are live; the
    collections change only then. ``params`` are its parameters, and the key, [], is that of its ``dropout`` stream.
    """
    variables = {"params": params, **collections}
    rngs = {"dropout": key}
    if not train:
        return network.apply(variables, *args, **kwargs, train=False, rngs=rngs), collections
    output, updated = network.apply(variables, *args, **kwargs, train=True, rngs=rngs, mutable=list(collections))
    return output, {**collections, **updated}


def bind_axis(network: Any, collections: Collections, axis_name: AxisName) -> Any:
    """Tell a network over which mapped axis the global batch is split, where it has a field ``axis_name``.

    Without that field, a network whose collections hold batch statistics would normalise each device's part of the
    batch by itself: ValueError.
    """
    if axis_name is None:
        return network
    if hasattr(network, "clone") and hasattr(network, "axis_name"):
        return network.clone(axis_name=axis_name)
    if "batch_stats" in collections:
        raise ValueError(
            f"{type(network).__name__} keeps batch statistics but has no field 'axis_name', so its "
            f"normalisation would not see the global batch over axis {axis_name!r}: add the field "
            "`axis_name: str | tuple | None = None` and pass it to its BatchNorm layers"
        )
    return network


def num_classes(*networks: Any) -> int | None:
    """Number of classes that conditional networks know, those with a field ``num_classes``; None without such a one.

    It is the smallest of them, labels being 0 to that less 1.
    """
    known = [n for n in (getattr(network, "num_classes", None) for network in networks) if n is not None]
    return min(known, default=None)


def check_label_range(label: Any, *networks: Any) -> None:
    """Refuse concrete labels, int [B], that conditional networks have no class for; under ``jit`` all pass."""
    classes = num_classes(*networks)
    if label is None or classes is None or isinstance(label, jax.core.Tracer):
        return
    # Read on the host: a computation on the device would wait for the steps queued there. Of an array that spans
    # processes, each looks at its own part.
    shards = jax.device_get([shard.data for shard in jnp.asarray(label).addressable_shards])
    parts = [part for part in shards if part.size]
    if not parts:
        return
    low, high = min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, got values from {low} to {high}: the networks were made for "
            f"num_classes={classes}"
        )
