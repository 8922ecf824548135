"""Which numbers make sense in a field: an interval beside its type, said once, and one check of all fields.

A field says ``rate: Rate``, that is ``Annotated[float, Interval(0.0, 1.0, "[)")]``; ``rate: Rate | None`` and
``sizes: tuple[Count, ...]`` mean that of each number. Specs are checked as they are built, options as they are read.
"""

import dataclasses
import functools
import numbers
import reprlib
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

FLOAT32_MAX = 3.4028234e38
INT32_MAX = 2**31 - 1  # steps, labels and places in arrays are int32
LARGEST_SEED = 2**32 - 1  # a key is made of 32 bits: a larger one would silently be another seed
_BEYOND = (FLOAT32_MAX, INT32_MAX)  # ends that no field asks for, but its type

_short = reprlib.Repr()
_short.maxlong = _short.maxother = _short.maxstring = 40


@dataclasses.dataclass(frozen=True)
class Interval:
    """Numbers between two ends, never NaN nor infinite.

    Args:
      low, high: the ends.
      ends: which of them belong to it, such as ``"[)"`` for the lower one alone.
    """

    low: float
    high: float
    ends: Literal["[]", "[)", "(]", "()"] = "[]"

    def __contains__(self, number: Any) -> bool:
        low = self.low <= number if self.ends[0] == "[" else self.low < number
        return bool(low and (number <= self.high if self.ends[1] == "]" else number < self.high))

    def expected(self, number: Any = 0) -> str:
        """What a number outside of it should have been, in words."""
        if self.high not in _BEYOND:
            if isinstance(self.high, int):
                return f"from {self.low} to {self.high}"
            return f"in {self.ends[0]}{self.low:g}, {self.high:g}{self.ends[1]}"
        if not -FLOAT32_MAX <= number <= FLOAT32_MAX:
            return "finite, in float32 too" if self.high == FLOAT32_MAX else f"at most {self.high}"
        if number > self.high:
            return f"at most {self.high}"
        return "" if self.low == -FLOAT32_MAX else f"{'at least' if self.ends[0] == '[' else 'above'} {self.low:g}"


Count = Annotated[int, Interval(1, INT32_MAX)]
CountOrNone = Annotated[int, Interval(0, INT32_MAX)]  # of what there may be none
Integer = Annotated[int, Interval(-INT32_MAX, INT32_MAX)]
Seed = Annotated[int, Interval(0, LARGEST_SEED)]
Finite = Annotated[float, Interval(-FLOAT32_MAX, FLOAT32_MAX)]
NotNegative = Annotated[float, Interval(0.0, FLOAT32_MAX)]
Positive = Annotated[float, Interval(0.0, FLOAT32_MAX, "(]")]
Share = Annotated[float, Interval(0.0, 1.0)]
Rate = Annotated[float, Interval(0.0, 1.0, "[)")]  # of a decay, of dropout
Inside = Annotated[float, Interval(0.0, 1.0, "()")]
# Standard deviation of an average's steps, a share of the training: at 12^-0.5 all steps count alike.
RelativeLength = Annotated[float, Interval(0.0, 12**-0.5, "()")]


class Declared(NamedTuple):
    """What a field takes: its interval, whether its numbers are whole, and what it takes besides numbers."""

    interval: Interval
    whole: bool
    others: frozenset[Any]


def _parts(hint: Any) -> Iterator[Any]:
    """The simple types in a hint, an annotated number as a whole."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        yield from map(type, typing.get_args(hint))
    elif origin is Callable or origin is typing.get_origin(typing.Callable):
        yield Callable
    elif origin is not None and origin is not Annotated:
        for argument in typing.get_args(hint):
            yield from _parts(argument)
    elif hint is not ...:
        yield hint


def declared_in(hint: Any) -> Declared | None:
    """What a type hint with an interval in it says; None where there is none."""
    parts = list(_parts(hint))
    for part in parts:
        interval = next((each for each in getattr(part, "__metadata__", ()) if isinstance(each, Interval)), None)
        if interval is not None:
            whole = typing.get_args(part)[0] is int
            return Declared(interval, whole, frozenset(p for p in parts if typing.get_origin(p) is not Annotated))
    return None


@functools.cache
def declared(kind: Any) -> dict[str, Declared]:
    """What the fields of a dataclass that hold numbers take, by name."""
    # Hints that are text are left out: they may name what is imported for types alone, and no interval is among them.
    fields = {field.name: field.type for field in dataclasses.fields(kind) if field.init}
    found = {name: declared_in(hint) for name, hint in fields.items() if not isinstance(hint, str)}
    return {name: each for name, each in found.items() if each is not None}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def check_value(value: Any, what: Declared, name: str) -> None:
    """Refuse what a field does not take: a number outside of its interval, or no number.

    Args:
      value: the field's; of a tuple each number is checked. Arrays pass, whatever is in them: they may be traced.
      what: what it takes.
      name: what the errors call it.

    Raises:
      ValueError: a number is outside.
      TypeError: it is no number, and nothing else that the field takes.
    """
    for leaf in _leaves(value):
        number = isinstance(leaf, numbers.Integral if what.whole else numbers.Real) and not isinstance(leaf, bool)
        if number and leaf not in what.interval:
            sizes = "sizes of " if isinstance(value, tuple) and what.whole else ""
            expected = what.interval.expected(leaf) or "finite"
            raise ValueError(f"{name} must be {sizes}{expected}, got {_short.repr(value)}")
        if not (number or hasattr(leaf, "shape") or _is_other(leaf, what.others)):
            expected = f"a {'whole ' * what.whole}number {what.interval.expected()}".rstrip()
            schedule = ", or a schedule" if Callable in what.others else ""
            raise TypeError(f"{name} must be {expected}{schedule}, got {_short.repr(leaf)}")


def _is_other(value: Any, others: frozenset[Any]) -> bool:
    if Any in others or (Callable in others and callable(value)):
        return True
    return isinstance(value, tuple(kind for kind in others if isinstance(kind, type)) or types.NotImplementedType)


def check_order(bounds: tuple[float, float] | None, name: str) -> None:
    """Refuse a pair of bounds, called ``name`` in the error, of which the lower one does not come first."""
    if bounds is not None and not (len(bounds) == 2 and bounds[0] < bounds[1]):
        raise ValueError(f"{name} must be (low, high) with low < high, got {bounds!r}")


def check(thing: Any, called: Callable[[str], str] | None = None) -> None:
    """Refuse a dataclass one of whose fields holds a number outside of its interval, or no number at all.

    Args:
      thing: the dataclass's instance.
      called: what errors call the field of a name; its class and the name when None.
    """
    kind: Any = type(thing)
    for name, what in declared(kind).items():
        check_value(getattr(thing, name), what, f"{kind.__name__}.{name}" if called is None else called(name))
