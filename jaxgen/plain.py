"""Specs as plain data and back, without executing anything from a file, and checks of plain data that anybody wrote.

A spec becomes plain data through registered names: a registered class by its name and fields, a registered
function by its name. Register your own with `register` before you create or open a run that uses it.
"""

import dataclasses
import difflib
import functools
import json
import math
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import optax
from flax import linen as nn

from jaxgen import augmentation, losses, networks, schedules
from jaxgen.families import Spec, State, families, family_of
from jaxgen.spec import Schedule

Plain = Any  # None, bool, int, float, str, and lists and dictionaries of them
ImageType = Literal["uint8", "bool", "float32"]

_OPTIMIZERS = ("adabelief", "adam", "adamax", "adamw", "amsgrad", "lamb", "lion", "rmsprop", "sgd")
_OF_FLAX = ("parent", "name")  # fields that every Linen module has
_MESSAGE = 300  # letters of an error
_BYTES = 1_000_000  # of a text: one of brackets takes twenty times as much in memory
_LETTERS = 10_000  # of a text's strings, and 200 of its names
_NAME = 200
# A flax module is printed twice by the one around it. The deepest specs of jaxgen's own have four levels.
_SPEC_DEPTH, _SPEC_SIZE = 10, 1000  # a thousand layers take seconds to trace
_DEPTH, _SIZE = 32, 100_000
_INTEGERS = 2**63  # below which NumPy and JAX hold them
_PIXELS = 2**31  # numbers of an image


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

    Raises:
      ValueError: the name is not one of the known optimizers, or it does not take those arguments.
    """

    name: str
    arguments: tuple[tuple[str, float | Schedule], ...]

    def __post_init__(self) -> None:
        if self.name not in _OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.name!r}: use one of {', '.join(_OPTIMIZERS)}")
        try:
            _transformation(self.name, self.arguments)
        except TypeError as error:
            raise ValueError(f"optimizer {self.name} does not take these arguments: {error}") from error

    def init(self, params: Any) -> Any:
        """The optimizer's state for a tree of parameters of any shapes."""
        return _transformation(self.name, self.arguments).init(params)

    def update(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """(updates, new state) from gradients like the parameters; see ``optax.GradientTransformation``."""
        return _transformation(self.name, self.arguments).update(updates, state, params)


def optimizer(name: str, **arguments: float | Schedule) -> Optimizer:
    """Describe an optax optimizer, e.g. ``optimizer("adam", learning_rate=1e-3)``.

    Args:
      name: an optimizer of optax.
      **arguments: its arguments: numbers, or schedules, step [] -> number [], such as `jaxgen.schedules.Cosine`.

    Returns:
      The optimizer, to be used wherever an optax transformation is.

    Raises:
      ValueError: the name is not one of the known optimizers, or it does not take those arguments.
    """
    numbers = {key: value if callable(value) else float(value) for key, value in arguments.items()}
    return Optimizer(name, tuple(sorted(numbers.items())))


_classes: dict[str, type] = {}
_values: dict[str, Any] = {}
_names: dict[int, str] = {}  # of what is registered, by its identity


def register(name: str, thing: Any) -> None:
    """Give a class or a function a name under which configs know it.

    Args:
      name: the name.
      thing: a (frozen) dataclass, such as a Linen module, or a module-level function or constant.

    Raises:
      ValueError: the name is taken by something else.
    """
    registry = _classes if isinstance(thing, type) else _values
    if registry.setdefault(name, thing) is not thing:
        raise ValueError(f"the name {name!r} is already registered for {registry[name]!r}: choose another")
    _names.setdefault(id(thing), name)


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


class _Short(reprlib.Repr):
    """Values in few letters, however large they are."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxstring, self.maxother = 3, 4, 8, 8, 80, 80

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < _INTEGERS else f"an integer of {x.bit_length()} bits"


_short = _Short()


def _cut(text: str, most: int) -> str:
    """A text, without its middle where it is too long."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[len(text) - most + most // 2 + 3 :]}"


def _begun(text: str) -> str:
    """A message, without its end where it is too long."""
    return text if len(text) <= _MESSAGE else f"{text[: _MESSAGE - 3]}..."


def shown(value: Plain) -> str:
    """Plain data of any size in at most 80 letters."""
    return _cut(_short.repr(value), 80)


def one_line(path: Path | str, what: object) -> str:
    """What an error says of a file, on one line of at most 300 letters.

    Args:
      path: the file; a long one loses its middle.
      what: what is wrong, an error or its text.

    Returns:
      Both.
    """
    return _begun(" ".join(f"{_cut(str(path), 120)} {what}".split()))


def check_size(plain: Plain, name: str, depth: int = _DEPTH, size: int = _SIZE) -> None:
    """Refuse data that are no plain data, or so large that using or printing them is not safe.

    Args:
      plain: what should be plain data.
      name: what the errors call it.
      depth: levels of lists and objects that it may have.
      size: values that it may have in all.

    Raises:
      ValueError: it is something else, or too large; the error names the place.
    """
    count = 1
    waiting: list[tuple[Any, Plain, int]] = [((None, name), plain, 0)]  # a place is one within another, and its name
    while waiting:
        place, value, level = waiting.pop()
        wrong = ""
        if isinstance(value, list | dict):
            count += len(value)
            if level == depth:
                wrong = f"is nested too deeply: at most {depth} levels"
            elif count > size:
                wrong = f"has too many values: {name} may have {size:,}"
            elif isinstance(value, dict) and any(not isinstance(key, str) or len(key) > _NAME for key in value):
                wrong = f"has a name of more than {_NAME} letters, or one that is no text"
            else:
                items = value.items() if isinstance(value, dict) else enumerate(value)
                waiting += [
                    ((place, f".{key}" if isinstance(key, str) else f"[{key}]"), v, level + 1) for key, v in items
                ]
        elif isinstance(value, str):
            wrong = f"is a text of {len(value):,} letters: at most {_LETTERS:,}" if len(value) > _LETTERS else ""
        elif value is not None and not isinstance(value, bool | int | float):
            wrong = f"must be plain data, got {type(value).__name__}"
        if wrong:
            parts = []
            while place is not None:
                place, part = place
                parts.append(part)
            raise ValueError(f"{_cut(''.join(reversed(parts)), 100)} {wrong}")


def _once(pairs: list[tuple[str, Plain]]) -> dict[str, Plain]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1) if len(pairs) <= _NAME else "one of many"
        raise ValueError(f"the name {shown(twice)} stands twice")
    return found


def parse(text: bytes | str, name: str, most: int = _BYTES) -> Plain:
    """Read JSON that anybody may have written.

    Args:
      text: JSON.
      name: what the errors call it.
      most: bytes or letters that it may have.

    Returns:
      Plain data of a size that can be worked with.

    Raises:
      ValueError: it is no JSON, names something twice, or is too large.
    """
    if len(text) > most:
        raise ValueError(f"{name} is too large: at most {most:,} bytes")
    try:
        plain = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply: at most {_DEPTH} levels") from None
    check_size(plain, name)
    return plain


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what a type hint says.

    Args:
      value: a value of a spec, or plain data.
      hint: the hint. A list passes for a tuple, an integer for a float, and what has ``init`` and ``update`` for an
        optax transformation; classes that are neither plain nor registered are not looked at.

    Returns:
      Whether it is; NaN and integers beyond 64 bits are no numbers here.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(known) and value == known for known in arguments)
    if origin in (tuple, list, Sequence):
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and arguments[-1:] != (...,):
            return len(value) == len(arguments) and all(map(fits, value, arguments))
        return all(fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, arguments[1]) for item in value.values())
    if origin is Callable or hint is Callable:
        return callable(value)
    if hint is optax.GradientTransformation:
        return hasattr(value, "init") and hasattr(value, "update")
    if hint in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INTEGERS
        return whole or (hint is float and isinstance(value, float) and not math.isnan(value))
    if hint in (None, types.NoneType, bool, str, dict, list, Path) or id(hint) in _names:
        return isinstance(value, types.NoneType if hint is None else hint)
    return True


def _words(hint: Any) -> str:
    """A type hint in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, arguments)))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (tuple, list, Sequence):
        return f"[{', '.join('...' if argument is ... else _words(argument) for argument in arguments)}]"
    if origin is Callable or hint is Callable:
        return "a function"
    if hint in (None, types.NoneType):
        return "null"
    if typing.is_typeddict(hint) or hint is dict or origin is dict:
        return "an object"
    return {Path: "path", optax.GradientTransformation: "an optimizer"}.get(hint, getattr(hint, "__name__", str(hint)))


def check(value: Any, hint: Any, name: str, plain: Plain = ...) -> None:
    """Refuse a value that is not what a type hint says, in one line.

    Args:
      value: a value of a spec, or plain data.
      hint: the hint, see `fits`; of a ``TypedDict``, each field that there is, and that those required are.
      name: what the errors call it.
      plain: what the value was made of, which the errors show; the value itself when not given.

    Raises:
      ValueError: it is something else.
    """
    if typing.is_typeddict(hint) and isinstance(value, dict):
        for key, inner in typing.get_type_hints(hint).items():
            if key in value:
                check(value[key], inner, f"{name}.{key}" if name else key)
            elif key in hint.__required_keys__:
                raise ValueError(f"{name}.{key} is missing" if name else f"{key} is missing")
    elif typing.is_typeddict(hint) or not fits(value, hint):
        got = shown(value if plain is ... else plain)
        raise ValueError(f"{_cut(name, 100)} must be {_cut(_words(hint), 100)}, got {got}")


def check_images(image_shape: Plain, image_type: Plain, name: str = "") -> None:
    """Refuse what is no shape and type of images that a model may have learnt.

    Args:
      image_shape: (H, W, C), or (D,) of vectors, as a list.
      image_type: a name of a type.
      name: what the errors begin their names with.

    Raises:
      ValueError: it is none.
    """
    check(image_type, ImageType, f"{name}image_type")
    check(image_shape, list[int], f"{name}image_shape")
    if not 1 <= len(image_shape) <= 4 or min(image_shape) < 1 or math.prod(image_shape) > _PIXELS:
        raise ValueError(f"{name}image_shape must be 1 to 4 sizes of at least 1, of an image, got {shown(image_shape)}")


def to_plain(value: Any) -> Plain:
    """Describe a spec, or a part of one, as plain data.

    Args:
      value: a registered dataclass, function or constant, a tuple, a number, a string or None.

    Returns:
      Plain data: ``{"type": name, field: ...}`` for a dataclass, ``{"named": name}`` for a function,
      ``{"optimizer": name, argument: ...}`` for an optimizer.

    Raises:
      TypeError: it, or a part of it, is not registered.
      ValueError: `from_plain` would refuse it: too deep or too large, or a field is not of the type that it has.
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
    if id(value) in _names and not isinstance(value, type):
        return {"named": _names[id(value)]}
    if isinstance(value, Optimizer):
        return {"optimizer": value.name, **{key: _describe(number) for key, number in value.arguments}}
    if dataclasses.is_dataclass(value) and id(type(value)) in _names:
        kind: Any = type(value)
        return {"type": _names[id(kind)], **{name: _describe(getattr(value, name)) for name in _fields(kind)}}
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
    """Rebuild what `to_plain` described.

    Args:
      plain: plain data; nothing about it is taken for granted.
      name: what the errors call it.

    Returns:
      An equal value.

    Raises:
      ValueError: it names something that is not registered, or fields that do not fit; one line, which names the field.
    """
    _specs()
    check_size(plain, name, _SPEC_DEPTH, _SPEC_SIZE)
    return _build(plain, name, top=True)


def spec_from_plain(plain: Plain, name: str = "spec") -> Spec:
    """Rebuild a GAN or a VAE.

    Args:
      plain: plain data; nothing about it is taken for granted.
      name: what the errors call it.

    Returns:
      The spec.

    Raises:
      ValueError: it is something else, see `from_plain`.
    """
    spec = from_plain(plain, name)
    if not isinstance(spec, _specs()):
        raise ValueError(f"{name} must be a {' or a '.join(f.title for f in families())}, got {shown(plain)}")
    return spec


def _build(plain: Plain, path: str, *, top: bool = False) -> Any:
    """Rebuild plain data of a size that is known, from the innermost on, each field checked before it is used."""
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
    if kind in _specs() and not top:
        raise ValueError(f"{path} must be a part of a model, got a whole {kind.__name__}")
    hints = _fields(kind)
    fields = {}
    for key, value in plain.items():
        if key == "type":
            continue
        if key not in hints:
            raise ValueError(f"fields do not fit {plain['type']}: it has no {_cut(f'{path}.{key}', 100)}")
        fields[key] = _build(value, f"{path}.{key}")
        check(fields[key], hints[key], f"{path}.{key}", value)
    return _made(lambda: kind(**fields), plain["type"], path)


def _known(registry: dict[str, Any], name: Plain, what: str, path: str) -> Any:
    """What is registered under a name."""
    if isinstance(name, str) and name in registry:
        return registry[name]
    close = difflib.get_close_matches(name[:_NAME], registry, n=1) if isinstance(name, str) else []
    hint = f"did you mean {close[0]}" if close else "register it with jaxgen.training.run.register"
    raise ValueError(f"unknown {what} {shown(name)} at {_cut(path, 100)}: {hint}")


def _made(make: Callable[[], Any], name: str, path: str) -> Any:
    """What a class makes of its fields; whatever it says against them, in one line."""
    try:
        return make()
    except Exception as error:  # of anybody's class
        raise ValueError(_begun(f"{_cut(path, 100)}: fields do not fit {name}: {_first_line(error)}")) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def differences(saved: Plain, requested: Plain, path: str = "") -> list[str]:
    """Where two configs differ, in words.

    Args:
      saved: plain data of the saved config.
      requested: plain data of the requested one.
      path: the name of the whole.

    Returns:
      One line per difference, naming the field, the old and the new value.
    """
    if isinstance(saved, dict) and isinstance(requested, dict):
        return [
            line
            for key in [*saved, *(key for key in requested if key not in saved)]
            for line in differences(saved.get(key), requested.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if saved == requested else [f"{_cut(path, 100)} was {_short.repr(saved)}, now {_short.repr(requested)}"]


def init_state(spec: Spec, key: jax.Array, batch: Mapping[str, Any]) -> State:
    """Initialise the state of a spec of either family.

    Args:
      spec: a GAN or a VAE.
      key: typed key, [].
      batch: an example batch, ``image`` [B, ...].

    Returns:
      Its state at step 0.
    """
    return family_of(spec).init(spec, key, batch)


def state_shapes(spec: Spec, image_shape: Sequence[int], image_type: str, *, labels: bool) -> State:
    """Shapes and types of a spec's state.

    Args:
      spec: a GAN or a VAE.
      image_shape: of one image.
      image_type: of the images.
      labels: whether they have labels.

    Returns:
      A state of `jax.ShapeDtypeStruct` of any shapes.

    Raises:
      ValueError: the networks do not work with such images.
    """
    batch = {"image": jax.ShapeDtypeStruct((1, *image_shape), image_type)}
    if labels:
        batch["label"] = jax.ShapeDtypeStruct((1,), "int32")
    try:
        return jax.eval_shape(lambda batch: init_state(spec, jax.random.key(0), batch), batch)
    except Exception as error:  # a network may raise anything as it is traced
        images = f"{image_type}{list(image_shape)}"
        raise ValueError(f"the {type(spec).__name__} does not take images {images}: {_first_line(error)}") from error
