"""Numbers that know how far they may be off."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Estimate(NamedTuple):
    """A number, ``value``, and its ``standard_error``: the standard deviation if everything random were drawn again."""

    value: float
    standard_error: float


def from_repetitions(values: Sequence[float]) -> Estimate:
    """The mean of independent repetitions, R >= 2 values, with its standard error.

    mean = (1/R) sum_r v_r,  error^2 = (1 / (R (R - 1))) sum_r (v_r - mean)^2
    """
    num = len(values)
    if num < 2:
        raise ValueError(f"a standard error needs at least two repetitions, got {num}")
    mean = math.fsum(values) / num
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Estimate(mean, math.sqrt(squares / (num * (num - 1))))
