"""Candidates of one process that are timed in turns."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def seconds_of(function: Callable[..., Any], *arguments: Any) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def in_turn(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate in each round, after one run of each that is not counted."""
    for run in runs.values():
        jax.block_until_ready(run())
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in runs if number % 2 else reversed(runs):
            taken[name].append(seconds_of(runs[name]))
    return taken


def ratio(these: list[float], those: list[float]) -> dict[str, float]:
    """Median, least and greatest of the ratios within each round."""
    ratios = [a / b for a, b in zip(these, those, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)}
