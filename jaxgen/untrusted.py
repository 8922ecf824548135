"""Checks of plain data that anybody may have written: one line says what was given and what was expected."""

import json
import math
import re
import reprlib
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

Plain = Any  # None, bool, int, float, str, and lists and dictionaries of them
ImageType = Literal["uint8", "bool", "float32"]

_MESSAGE = 300  # letters of an error
_LINE, _WORD = 1000, 200  # letters of a printed line, and of a word in it
_BYTES = 1_000_000  # of a text: one of brackets takes twenty times as much in memory
_LETTERS = 10_000  # of a text's strings, and 200 of its names
LONGEST_NAME = 200  # letters of a name
_DEPTH, _SIZE = 32, 100_000
_INTEGERS = 2**63  # below which NumPy and JAX hold them
_PIXELS = 2**31  # numbers of an image

registered: dict[int, str] = {}  # of the classes and functions that specs may hold, by their identity: `jaxgen.plain`


class _Short(reprlib.Repr):
    """Values in few letters, however large they are."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxstring, self.maxother = 3, 4, 8, 8, 80, 80

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < _INTEGERS else f"an integer of {x.bit_length()} bits"


_short = _Short()


def cut(text: str, most: int) -> str:
    """A text, without its middle where it is too long."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[len(text) - most + most // 2 + 3 :]}"


def begun(text: str) -> str:
    """A message, without its end where it is too long."""
    return text if len(text) <= _MESSAGE else f"{text[: _MESSAGE - 3]}..."


def shown(value: Plain) -> str:
    """Plain data of any size in at most 80 letters."""
    return cut(_short.repr(value), 80)


def printed(text: str) -> str:
    """A message as one line for a terminal: breaks of lines are escaped, long words and texts lose their middle."""
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return cut(re.sub(rf"\S{{{_WORD + 1},}}", lambda word: cut(word[0], _WORD), escaped), _LINE)


def one_line(path: Path | str, what: object) -> str:
    """What an error says of the file at a path: ``what`` is wrong, on one line of at most 300 letters.

    A long path loses its middle.
    """
    return begun(" ".join(f"{cut(str(path), 120)} {what}".split()))


def check_size(plain: Plain, name: str, depth: int = _DEPTH, size: int = _SIZE) -> None:
    """Refuse data that are no plain data, or so large that using or printing them is not safe.

    Args:
      plain: what should be plain data.
      name: what the errors call it.
      depth, size: levels of lists and objects, and values in all, that it may have.
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
            elif isinstance(value, dict) and any(not isinstance(key, str) or len(key) > LONGEST_NAME for key in value):
                wrong = f"has a name of more than {LONGEST_NAME} letters, or one that is no text"
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
            raise ValueError(f"{cut(''.join(reversed(parts)), 100)} {wrong}")


def _once(pairs: list[tuple[str, Plain]]) -> dict[str, Plain]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1) if len(pairs) <= LONGEST_NAME else "one of many"
        raise ValueError(f"the name {shown(twice)} stands twice")
    return found


def parse(text: bytes | str, name: str, most: int = _BYTES) -> Plain:
    """Read JSON text that anybody may have written: plain data of a size that can be worked with.

    Errors call it ``name``; ``most`` is the number of bytes or letters that it may have. No object may name anything
    twice.
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
    """Whether a value is what a type hint says; NaN and integers beyond 64 bits are no numbers here.

    A list passes for a tuple, an integer for a float, and what has ``init`` and ``update`` for an optax transformation;
    classes that are neither plain nor registered are not looked at.
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
    if _is_optimizer(hint):
        return hasattr(value, "init") and hasattr(value, "update")
    if hint in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INTEGERS
        return whole or (hint is float and isinstance(value, float) and not math.isnan(value))
    if hint in (None, types.NoneType, bool, str, dict, list, Path) or id(hint) in registered:
        return isinstance(value, types.NoneType if hint is None else hint)
    return True


def _is_optimizer(hint: Any) -> bool:
    """Whether a hint is that of an optax transformation, which is not imported for it."""
    return getattr(hint, "__name__", "") == "GradientTransformation"


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
    return "an optimizer" if _is_optimizer(hint) else getattr(hint, "__name__", str(hint)).replace("Path", "path")


def check(value: Any, hint: Any, name: str, plain: Plain = ...) -> None:
    """Refuse a value that is not what a type hint says, in one line.

    Args:
      value: a value of a spec, or plain data.
      hint: the hint, see `fits`; of a ``TypedDict``, each field that there is, and that those required are.
      name: what the errors call it.
      plain: what the value was made of, which the errors show; the value itself when not given.
    """
    if typing.is_typeddict(hint) and isinstance(value, dict):
        for key, inner in typing.get_type_hints(hint).items():
            if key in value:
                check(value[key], inner, f"{name}.{key}" if name else key)
            elif key in hint.__required_keys__:
                raise ValueError(f"{name}.{key} is missing" if name else f"{key} is missing")
    elif typing.is_typeddict(hint) or not fits(value, hint):
        got = shown(value if plain is ... else plain)
        raise ValueError(f"{cut(name, 100)} must be {cut(_words(hint), 100)}, got {got}")


def check_images(image_shape: Plain, image_type: Plain, name: str = "") -> None:
    """Refuse what is no shape and type of images that a model may have learnt; the errors' names begin with ``name``.

    ``image_shape`` is (H, W, C), or (D,) of vectors, as a list, and ``image_type`` the name of a type.
    """
    check(image_type, ImageType, f"{name}image_type")
    check(image_shape, list[int], f"{name}image_shape")
    if not 1 <= len(image_shape) <= 4 or min(image_shape) < 1 or math.prod(image_shape) > _PIXELS:
        raise ValueError(f"{name}image_shape must be 1 to 4 sizes of at least 1, of an image, got {shown(image_shape)}")


def differences(saved: Plain, requested: Plain, path: str = "") -> list[str]:
    """Where two configs, saved and requested, differ: a line each, with the field, the old and the new value.

    ``path`` is the name of the whole.
    """
    if isinstance(saved, dict) and isinstance(requested, dict):
        return [
            line
            for key in [*saved, *(key for key in requested if key not in saved)]
            for line in differences(saved.get(key), requested.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if saved == requested else [f"{cut(path, 100)} was {_short.repr(saved)}, now {_short.repr(requested)}"]
