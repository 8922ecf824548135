"""Specs as plain data and back, without executing anything from a file.

A spec becomes plain data through registered names: a registered class by its name and fields, a registered
function by its name. Register your own with `register` before you create or open a run that uses it.
"""

import dataclasses
import difflib
import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import optax
from flax import linen as nn

from jaxgen import augmentation, losses, networks, schedules
from jaxgen.families import Spec, State, families, family_of
from jaxgen.intervals import Declared, Finite, NotNegative, Positive, Rate, check_value, declared_in
from jaxgen.spec import Schedule
from jaxgen.untrusted import (
    LONGEST_NAME,
    Plain,
    begun,
    check,
    check_size,
    cut,
    registered,
    shown,
)

_OPTIMIZERS = ("adabelief", "adam", "adamax", "adamw", "amsgrad", "lamb", "lion", "rmsprop", "sgd")
_OF_FLAX = ("parent", "name")  # fields that every Linen module has
# A flax module is printed twice by the one around it. The deepest specs of jaxgen's own have four levels.
_SPEC_DEPTH, _SPEC_SIZE = 10, 1000  # a thousand layers take seconds to trace


# Of optimizers' arguments, by their names; others are finite.
_ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(("learning_rate", "weight_decay", "eps_root", "initial_scale"), NotNegative | Schedule),
    **dict.fromkeys(("b1", "b2", "decay", "momentum"), Rate | Schedule),
    "eps": Positive | Schedule,
}


def argument(name: str) -> Declared:
    """What an optimizer takes for its argument of a name: the interval of a number, whatever optimizer it is."""
    found = declared_in(_ARGUMENTS.get(name, Finite | Schedule))
    assert found is not None
    return found


@functools.cache
def _transformation(name: str, arguments: tuple[tuple[str, float | Schedule], ...]) -> optax.GradientTransformation:
    return optax.inject_hyperparams(getattr(optax, name))(**dict(arguments))


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optax optimizer as plain data: equal ones are equal, so a rebuilt spec is not compiled again.

    Its numbers are held by ``optax.inject_hyperparams`` in the optimizer state, where a population may vary them.

    Args:
      name: an optimizer of optax, e.g. ``"adam"``.
      arguments: its arguments, numbers or schedules (step [] -> number []), as sorted pairs, e.g. ``(("b1", 0.5),
        ("learning_rate", 2e-4))``; see `optimizer`.
    """

    name: str
    arguments: tuple[tuple[str, float | Schedule], ...]

    def __post_init__(self) -> None:
        if self.name not in _OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.name!r}: use one of {', '.join(_OPTIMIZERS)}")
        for name, value in self.arguments:
            check_value(value, argument(name), f"optimizer.{name}")
        try:
            _transformation(self.name, self.arguments)
        except TypeError as error:
            raise ValueError(f"optimizer {self.name} does not take these arguments: {error}") from error

    def init(self, params: Any) -> Any:
        """The optimizer's state for a tree of parameters."""
        return _transformation(self.name, self.arguments).init(params)

    def update(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """(updates, new state) from gradients like the parameters; see ``optax.GradientTransformation``."""
        return _transformation(self.name, self.arguments).update(updates, state, params)


def optimizer(name: str, **arguments: float | Schedule) -> Optimizer:
    """Describe an optax optimizer by its name, e.g. ``optimizer("adam", learning_rate=1e-3)``.

    The arguments are numbers, or schedules, step [] -> number [], such as `jaxgen.schedules.Cosine`. The result is used
    wherever an optax transformation is.
    """
    numbers = {key: value if callable(value) else float(value) for key, value in arguments.items()}
    return Optimizer(name, tuple(sorted(numbers.items())))


_classes: dict[str, type] = {}
_values: dict[str, Any] = {}


def register(name: str, thing: Any) -> None:
    """Give a class or a function a name under which configs know it.

    The thing is a (frozen) dataclass, such as a Linen module, or a module-level function or constant.
    """
    registry = _classes if isinstance(thing, type) else _values
    if registry.setdefault(name, thing) is not thing:
        raise ValueError(f"the name {name!r} is already registered for {registry[name]!r}: choose another")
    registered.setdefault(id(thing), name)


_FUNCTIONS = (
    nn.elu,
    nn.gelu,
    nn.glu,
    networks.leaky_relu,
    nn.relu,
    jax.nn.sigmoid,
    nn.silu,
    nn.softplus,
    nn.tanh,
)
_LOSSES = (
    "absolute_error",
    "elbo",
    "dreg",
    "hinge",
    "iwae",
    "least_squares",
    "minimax",
    "non_saturating",
    "relativistic",
    "relativistic_average",
    "sampled_elbo",
    "squared_error",
    "stl",
    "wasserstein",
)


def _classes_of(module: Any) -> list[type]:
    """The dataclasses that a module offers: specs may hold any of them."""
    return [
        thing
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and isinstance(thing, type)
        and dataclasses.is_dataclass(thing)
        and thing.__module__.startswith(module.__name__)
    ]


for _class in (c for m in (augmentation, losses, networks, schedules) for c in _classes_of(m)):
    register(_class.__name__, _class)
for _function in _FUNCTIONS:
    register(_function.__name__, _function)
for _name in _LOSSES:
    register(_name, getattr(losses, _name))


def _specs() -> tuple[type, ...]:
    """The specs of all families, which are known by the names of their classes."""
    specs = tuple(family.spec for family in families())
    for spec in specs:
        register(spec.__name__, spec)
    return specs


def to_plain(value: Any) -> Plain:
    """Describe a spec, or a part of one, as plain data.

    The value is a registered dataclass, function or constant, a tuple, a number, a string or None; it becomes
    ``{"type": name, field: ...}`` for a dataclass, ``{"named": name}`` for a function and
    ``{"optimizer": name, argument: ...}`` for an optimizer.

    What `from_plain` would refuse is refused here: too deep or too large, or a field that is not
    of the type that it has.
    """
    _specs()
    plain = _describe(value)
    from_plain(plain)  # what is saved can be read
    return plain


def _describe(value: Any) -> Plain:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_describe(item) for item in value]
    if id(value) in registered and not isinstance(value, type):
        return {"named": registered[id(value)]}
    if isinstance(value, Optimizer):
        return {"optimizer": value.name, **{key: _describe(number) for key, number in value.arguments}}
    if dataclasses.is_dataclass(value) and id(type(value)) in registered:
        kind: Any = type(value)
        later = {field.name: field.default for field in dataclasses.fields(kind) if "later" in field.metadata}
        fields = {name: getattr(value, name) for name in _fields(kind)}
        told = {name: each for name, each in fields.items() if name not in later or each != later[name]}
        return {"type": registered[id(kind)], **{name: _describe(each) for name, each in told.items()}}
    raise TypeError(
        f"{value!r} has no name for the config: give it one with jaxgen.training.run.register (specs need the "
        "optimizers of jaxgen.training.run.optimizer)"
    )


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    """The fields of a registered class, and their type hints; of one whose hints cannot be read, Any."""
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError, AttributeError):
        hints = {}
    hidden = _OF_FLAX if issubclass(kind, nn.Module) else ()
    fields: Any = dataclasses.fields(kind)
    return {field.name: hints.get(field.name, Any) for field in fields if field.init and field.name not in hidden}


def from_plain(plain: Plain, name: str = "spec") -> Any:
    """Rebuild what `to_plain` described; nothing about plain data is taken for granted.

    ValueError is one line, which calls it ``name`` and names the field.
    """
    _specs()
    check_size(plain, name, _SPEC_DEPTH, _SPEC_SIZE)
    return _build(plain, name, _specs())


def spec_from_plain(plain: Plain, name: str = "spec") -> Spec:
    """Rebuild a GAN or a VAE by `from_plain`, of plain data that errors call ``name``."""
    spec = from_plain(plain, name)
    if not isinstance(spec, _specs()):
        raise ValueError(f"{name} must be a {' or a '.join(f.title for f in families())}, got {shown(plain)}")
    return spec


def _build(plain: Plain, path: str, whole: tuple[Any, ...] = ()) -> Any:
    """Rebuild plain data of a size that is known, from the innermost on, each field checked before it is used.

    Which specs it may be, and not only parts of one, is said by ``whole``.
    """
    if isinstance(plain, list):
        return tuple(_build(item, f"{path}[{i}]") for i, item in enumerate(plain))
    if not isinstance(plain, dict):
        return plain
    if set(plain) == {"named"}:
        return _known(_values, plain["named"], "name", path)
    if "type" not in plain and "optimizer" in plain:
        arguments = {key: _build(value, f"{path}.{key}") for key, value in plain.items() if key != "optimizer"}
        for key, value in arguments.items():
            check(value, float | Schedule, f"{path}.{key}", plain[key])
        check(plain["optimizer"], Literal[_OPTIMIZERS], f"{path}.optimizer")
        return _made(lambda: optimizer(plain["optimizer"], **arguments), f"optimizer {plain['optimizer']}", path)
    kind = _known(_classes, plain.get("type"), "type", path)
    if kind in _specs() and kind not in whole:
        raise ValueError(f"{path} must be a part of a model, got a whole {kind.__name__}")
    hints = _fields(kind)
    fields = {}
    for key, value in plain.items():
        if key == "type":
            continue
        if key not in hints:
            raise ValueError(f"fields do not fit {plain['type']}: it has no {cut(f'{path}.{key}', 100)}")
        fields[key] = _build(value, f"{path}.{key}", (hints[key],))
        check(fields[key], hints[key], f"{path}.{key}", value)
    return _made(lambda: kind(**fields), plain["type"], path)


def _known(registry: dict[str, Any], name: Plain, what: str, path: str) -> Any:
    """What is registered under a name."""
    if isinstance(name, str) and name in registry:
        return registry[name]
    close = difflib.get_close_matches(name[:LONGEST_NAME], registry, n=1) if isinstance(name, str) else []
    hint = f"did you mean {close[0]}" if close else "register it with jaxgen.training.run.register"
    raise ValueError(f"unknown {what} {shown(name)} at {cut(path, 100)}: {hint}")


def _made(make: Callable[[], Any], name: str, path: str) -> Any:
    """What a class makes of its fields; whatever it says against them, in one line."""
    try:
        return make()
    except Exception as error:  # of anybody's class
        raise ValueError(begun(f"{cut(path, 100)}: fields do not fit {name}: {_first_line(error)}")) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def init_state(spec: Spec, key: jax.Array, batch: Mapping[str, Any]) -> State:
    """Initialise the state of a spec of either family, at step 0, from an example batch, ``image`` [B, ...]."""
    return family_of(spec).init(spec, key, batch)


def state_shapes(spec: Spec, image_shape: Sequence[int], image_type: str, *, labels: bool) -> State:
    """Shapes and types (`jax.ShapeDtypeStruct`) of a spec's state, from those of an image, with labels or without."""
    batch = {"image": jax.ShapeDtypeStruct((1, *image_shape), image_type)}
    if labels:
        batch["label"] = jax.ShapeDtypeStruct((1,), "int32")
    try:
        return jax.eval_shape(lambda batch: init_state(spec, jax.random.key(0), batch), batch)
    except Exception as error:  # a network may raise anything as it is traced
        images = f"{image_type}{list(image_shape)}"
        raise ValueError(f"the {type(spec).__name__} does not take images {images}: {_first_line(error)}") from error
