"""The seam between the steps and the networks: anything with Flax Linen's ``init`` and ``apply``.

A network's call is given ``label`` and ``train`` where it takes them.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen import batches
from jaxgen.keys import AxisName, named_key

Collections = dict[str, Any]
# What others call ``train``: left at its default, it would never be told.
_OTHER_NAMES = ("training", "is_training", "deterministic", "use_running_average")


def _signature(network: Any) -> inspect.Signature | None:
    """How a network, or a function, is called; None where that is not to be seen."""
    if isinstance(network, nn.Sequential):  # which gives its first layer all that it is given
        return _signature(network.layers[0])
    if _nnx_class(network) is not None:
        signature = inspect.signature(_nnx_class(network).__call__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])
    return inspect.signature(network) if callable(network) else None


def _nnx_class(network: Any) -> Any:
    """The class of a network of `jaxgen.networks.from_nnx`, or None."""
    return None if isinstance(network, nn.Module) else getattr(network, "module_class", None)


def taken(called: Any, offered: dict[str, Any]) -> dict[str, Any]:
    """Of keywords offered, arrays of any shapes, those that a network's or a function's call takes, if that is seen."""
    signature = _signature(called)
    if signature is None or any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return offered
    return {name: value for name, value in offered.items() if name in signature.parameters}


def _keywords(network: Any, train: bool, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keywords of a network's call, without ``label`` and ``train`` where it takes none."""
    optional = {"train": train, **{name: value for name, value in kwargs.items() if name == "label"}}
    return {**{name: value for name, value in kwargs.items() if name != "label"}, **taken(network, optional)}


def check_instance(name: str, value: Any) -> None:
    """Raise TypeError where ``value``, which the error calls ``name``, is a class, or an NNX module."""
    kind = value if isinstance(value, type) else type(value)
    if any(base.__module__ == "flax.nnx.module" for base in kind.__mro__):
        raise TypeError(
            f"{name} must be a network whose parameters the state holds, got the NNX module {kind.__name__}: give "
            f"jaxgen.networks.from_nnx({kind.__name__}, ...) with its arguments"
        )
    if isinstance(value, type):
        raise TypeError(f"{name} is the class {value.__name__}: call it, with its options")


def check_call(name: str, network: Any, *, inputs: int = 1) -> None:
    """Refuse a network that wants other arguments than the steps give.

    Args:
      name: what the error calls it.
      network: the network; its call may leave out ``label`` and ``train``.
      inputs: number of its positional inputs, arrays of any shapes.
    """
    signature = _signature(network)
    if signature is None:
        return
    given = taken(network, {"label": None, "train": False})
    others = [other for other in _OTHER_NAMES if other in signature.parameters and "train" not in given]
    try:
        signature.bind(*[None] * inputs, **given)
    except TypeError:
        others = [*others, "others"]
    if others:
        names = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        got = signature.replace(parameters=names, return_annotation=signature.empty)
        expected = "(x, label=None, *, train)" if inputs else "(*, train)"
        remedy = "take fields in place of other arguments" if others == ["others"] else f"take train for {others[0]}"
        raise TypeError(
            f"{name} must be called as {expected}, without those it needs not, got {_name(network)}{got}: {remedy}"
        )


def _name(network: Any) -> str:
    return (_nnx_class(network) or type(network)).__name__


def check_conditional(kind: str, networks: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse a network without ``label`` beside one with ``num_classes``: it would leave labels aside unsaid.

    Args:
      kind: what the error calls their spec.
      networks: those that are given labels [B], by name.
    """
    classes = num_classes(*(network for each in networks.values() for network in each))
    for name, network in ((name, network) for name, each in networks.items() for network in each):
        if classes is not None and not taken(network, {"label": None}):
            raise TypeError(
                f"{kind}.{name} must take a label, as networks of this {kind} have num_classes={classes}, got "
                f"{_name(network)}, which takes none: add label=None to its __call__, be it to ignore it"
            )


def initialize(network: Any, key: jax.Array, *args: Any, **kwargs: Any) -> tuple[Any, Collections]:
    """Initialise a network from inputs of its call, e.g. latents [B, D] and ``label`` [B].

    ``args`` and ``kwargs`` are what it is called with. Returned are its parameters, and its mutable collections such as
    BatchNorm's ``batch_stats``, empty when it has none.
    """
    rngs = {name: named_key(key, name) for name in ("params", "dropout")}
    given = _keywords(network, False, kwargs)
    variables = dict(network.init(rngs, *args, **given))
    if "batch_stats" in variables and "train" not in given:
        raise ValueError(
            f"{_name(network)} keeps batch statistics but its call takes no train, to know when to use them: "
            "add `*, train: bool` to it and use_running_average=not train"
        )
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
    given = _keywords(network, train, kwargs)
    if not train:
        return network.apply(variables, *args, **given, rngs=rngs), collections
    output, updated = network.apply(variables, *args, **given, rngs=rngs, mutable=list(collections))
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
    parts = [part for part in batches.concrete_parts(jnp.asarray(label)) if part.size]
    if not parts:
        return
    low, high = min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, got values from {low} to {high}: the networks were made for "
            f"num_classes={classes}"
        )
