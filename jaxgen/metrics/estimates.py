"""Numbers that know how far they may be off."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Estimate(NamedTuple):
    """A number and its standard error.

    Args:
      value: the estimate.
      standard_error: the standard deviation that it would have if everything random were drawn again.
    """

    value: float
    standard_error: float


def from_repetitions(values: Sequence[float]) -> Estimate:
    """The mean of independent repetitions with its standard error.

    mean = (1/R) sum_r v_r,  error^2 = (1 / (R (R - 1))) sum_r (v_r - mean)^2

    Args:
      values: one number a repetition, R >= 2 of them.

    Returns:
      (mean, standard error of the mean).

    Raises:
      ValueError: there are fewer than two.
    """
    num = len(values)
    if num < 2:
        raise ValueError(f"a standard error needs at least two repetitions, got {num}")
    mean = math.fsum(values) / num
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Estimate(mean, math.sqrt(squares / (num * (num - 1))))
