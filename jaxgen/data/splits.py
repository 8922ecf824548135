"""Parts of data sets: splits, slices of them, a few examples of each class; and how errors are put."""

import re
from collections.abc import Callable, Collection

import jax
import numpy as np

_HELD_OUT = 10
_SLICE = re.compile(r"([^\[\]]+)\[(-?\d+%?)?:(-?\d+%?)?\]", re.ASCII)
Part = Callable[[int], slice]

Places = Callable[[np.ndarray], np.ndarray]


def unknown_split(name: str, split: str, known: list[str]) -> ValueError:
    """The error for a split that a data set does not have; it lists those that there are."""
    return ValueError(f"{name}: unknown split {split!r}: use one of {', '.join(known)}")


SPLITS = {"train": ("train", "training"), "test": ("test", "testing"),
           "validation": ("val", "valid", "validation", "dev")}  # fmt: skip


def canonical(name: str) -> str | None:
    """The split that a name means, in any case: ``"train"``, ``"test"`` or ``"validation"``; None for none of them."""
    return next((split for split, names in SPLITS.items() if name.lower() in names), None)


def standing_for(split: str, known: Collection[str], name: str) -> str:
    """Which of the splits that there are is meant by another one.

    ``"validation"`` stands for a test split that is not there, and ``"train"``, where it is alone, for all of them.
    """
    wanted = canonical(split) or split
    if wanted in known:
        return wanted
    if wanted == "test" and "validation" in known:
        return "validation"
    if wanted in ("test", "all") and set(known) == {"train"}:
        return "train"
    raise unknown_split(name, split, sorted(known))


def parse_slice(split: str, name: str) -> tuple[str, Part | None]:
    """Read a split that may be a slice of one, as TFDS writes it: ``train[:50000]``, ``train[-10%:]``.

    Args:
      split: a split, or one with a slice; bounds are examples or per cent, from the end where they are negative.
      name: what to call the data set in errors.

    Returns:
      The split; and a function from its number of examples to the rows of the slice, None for all of them. The function
      raises ValueError where a bound is beyond the examples, or nothing is between the two.

    Raises:
      ValueError: it is no slice.
    """
    if "[" not in split:
        return split, None
    found = _SLICE.fullmatch(split)
    if found is None:
        raise ValueError(f"{name}: cannot take the split {split!r}: use slices such as 'train[:5000]' or 'train[50%:]'")
    first, last = found[2] or "0", found[3]

    def part(num: int) -> slice:
        start, stop = _place(first, num), num if last is None else _place(last, num)
        if not (0 <= start <= num and 0 <= stop <= num):
            raise ValueError(f"{name}: the split {split!r} goes beyond its {num} images: use a smaller slice")
        if start >= stop:
            raise ValueError(f"{name}: the split {split!r} has no images: use a larger slice")
        return slice(start, stop)

    return found[1], part


def _place(bound: str, num: int) -> int:
    """Where a bound lies, examples or per cent to the nearest example, from the end where it is negative."""
    place = round(int(bound[:-1]) * num / 100) if bound.endswith("%") else int(bound)
    return place + num if bound.startswith("-") else place


def one_line(error: Exception) -> str:
    """The message of an error of another library, which may be of many lines, as a part of one of ours."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def hold_out(num: int, split: str, name: str) -> tuple[int, Places | None]:
    """Split a data set that has no splits: every tenth example is for testing.

    Args:
      num: number of examples N.
      split: ``"train"``, ``"test"`` or ``"all"``.
      name: what to call the data set in errors.

    Returns:
      The number of examples of the split, and a function from their numbers in the split, int [n], to their places in
      the whole, int [n]; None where these are the same.

    Raises:
      ValueError: the split is unknown, or there are fewer than ten examples to split.
    """
    split = canonical(split) or split
    if split not in ("train", "test", "all"):
        raise unknown_split(name, split, ["train", "test", "all"])
    if split == "all":
        return num, None
    if num < _HELD_OUT:
        raise ValueError(
            f"{name}: at least {_HELD_OUT} images are needed to hold some out for testing, got {num}: add images, "
            "or put them into folders train/ and test/"
        )
    held_out = num // _HELD_OUT
    if split == "test":
        return held_out, lambda numbers: numbers * _HELD_OUT + _HELD_OUT - 1
    return num - held_out, lambda numbers: numbers + numbers // (_HELD_OUT - 1)


def spread(num: int, most: int) -> np.ndarray:
    """Some examples spread evenly over a whole data set, all where there are no more.

    Args:
      num: number of examples N.
      most: number of them wanted.

    Returns:
      Their places, ascending, int64 [M], M the smaller of N and that.
    """
    some = min(num, most)
    return np.arange(some, dtype=np.int64) * num // some


def labelled_subset(labels: np.ndarray, per_class: int, key: jax.Array) -> np.ndarray:
    """Choose equally many examples of every class; with the same key, fewer are some of more.

    Args:
      labels: from 0, int [N].
      per_class: number of examples of each class, L.
      key: typed key of the choice, [].

    Returns:
      Their places, ascending, int [K L].

    Raises:
      ValueError: per_class is below 1, or a class has fewer examples; the error names it.
    """
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}")
    order = np.asarray(jax.random.permutation(key, len(labels)))
    chosen = []
    for number in range(int(labels.max()) + 1):
        places = order[labels[order] == number]
        if len(places) < per_class:
            raise ValueError(f"class {number} has {len(places)} examples, {per_class} are wanted: take fewer a class")
        chosen.append(places[:per_class])
    return np.sort(np.concatenate(chosen))
