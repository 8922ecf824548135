"""What the safety of a run costs: the sentinel in the loop, and checkpoints written while it goes on.

    uv run benchmarks/safety.py

An MLP VAE (784-500-20, batches of 128) and a DCGAN (28 x 28, width 64, batches of 64), both with Adam, on the embedded
images. The candidates take turns, and ratios are taken within a round. Of the median ratio the bounds of the one-sided
95% confidence intervals are printed, which order statistics give without any assumption. A measurement passes where the
lower bound is at most 1.02. Leaving out bad steps (``skip``) is an option that looks at the whole state at every step.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from math import comb
from pathlib import Path
from typing import Any

import jax

import jaxgen
from benchmarks import families, ours
from benchmarks.turns import in_turn
from jaxgen import data
from jaxgen.cli.platforms import compile_rightly
from jaxgen.families import family_of
from jaxgen.training import loop
from jaxgen.training.checkpoint import Checkpoints
from jaxgen.training.machine import chip

LIMIT = 1.02
MINUTE = 60.0


def bounds(ratios: list[float]) -> tuple[float, float]:
    """One-sided 95% bounds of the median: the order statistics that fewer than one sample in twenty crosses."""
    num = len(ratios)
    tail, outside = 1 / 2**num, 0
    while tail + comb(num, outside + 1) / 2**num <= 0.05:
        outside += 1
        tail += comb(num, outside) / 2**num
    ordered = sorted(ratios)
    return ordered[outside], ordered[-outside - 1]


def report(what: str, ratios: list[float], judged: bool = True) -> dict[str, Any]:
    """Print a line on a ratio; returns its numbers."""
    low, high = bounds(ratios)
    median = statistics.median(ratios)
    verdict = ("passes" if low <= LIMIT else "FAILS") if judged else "optional"
    print(f"{what:58}{median:8.4f}{low:9.4f} ..{high:8.4f}  {verdict}", flush=True)
    return {"what": what, "median": median, "lower": low, "upper": high, "rounds": len(ratios)}


def make_loop(model: Any, sentinel: Any) -> tuple[loop.Loop, Any, loop.Totals]:
    """The loop of train.py over the embedded images, a fresh state and totals."""
    family = family_of(model)
    dataset, key = data.load(), jax.random.key(0)
    batch_size = 128 if family.name == "vae" else 64
    training = loop.Loop(partial(family.step, model), dataset, key, batch_size, sentinel=sentinel)
    state = jax.jit(lambda: family.init(model, key, {"image": dataset["image"][:2]}))()
    return training, state, training.zero_totals(state)


def measure_sentinel(name: str, model: Any, chunk: int, rounds: int) -> list[dict[str, Any]]:
    """Time chunks of a loop without a sentinel, which gives its state's memory away, and with one."""
    runs: dict[str, Callable[[], Any]] = {}
    for sentinel in ("off", "watch", "skip"):
        training, *carry = make_loop(model, sentinel)
        advance = jax.jit(
            lambda state, totals, steps, training=training: training.run(state, totals, steps),
            donate_argnums=(0, 1) if sentinel == "off" else (),
        )
        cost: Any = advance.lower(*carry, chunk).compile().cost_analysis()
        print(
            f"{name}, {sentinel}: the compiler counts {cost['flops']:.6g} operations and "
            f"{cost['bytes accessed']:.6g} bytes (the loop's body once)"
        )

        def run(advance: Any = advance, carry: list[Any] = carry) -> Any:
            carry[:] = advance(*carry, chunk)
            return carry

        runs[sentinel] = run
    seconds = in_turn(runs, rounds)
    per_step = 1e3 * statistics.median(seconds["off"]) / chunk
    print(f"{name}, off: {per_step:.3f} ms a step")
    return [
        report(
            f"{name}, sentinel {sentinel} / off, chunks of {chunk}",
            [a / b for a, b in zip(seconds[sentinel], seconds["off"], strict=True)],
            judged=sentinel == "watch",
        )
        for sentinel in ("watch", "skip")
    ]


def measure_checkpoints(name: str, model: Any, chunk: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Time so many seconds of training with one checkpoint and with none; what it costs once a minute."""
    training, *carry = make_loop(model, "watch")

    def advance(num_chunks: int) -> None:
        for _ in range(num_chunks):
            carry[:] = training.run(carry[0], carry[1], chunk)
            jax.block_until_ready(carry)

    advance(1)
    start = time.perf_counter()
    advance(3)
    num_chunks = max(1, round(3 * seconds / (time.perf_counter() - start)))
    ratios, blocked, bare = [], [], []
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder), asynchronous=True) as checkpoints:
        for number in range(rounds + 1):
            taken = {}
            for saves in (False, True) if number % 2 else (True, False):
                start = time.perf_counter()
                if saves:
                    checkpoints.save(number, {"state": carry[0], "totals": carry[1]})
                    blocked.append(time.perf_counter() - start)
                advance(num_chunks)
                if saves:
                    checkpoints.wait()
                taken[saves] = time.perf_counter() - start
            if number > 0:
                bare.append(taken[False])
                ratios.append(1.0 + (taken[True] - taken[False]) / MINUTE)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(carry)) / 1e6
    print(
        f"{name}: {size:.1f} MB a checkpoint, the loop waits {1e3 * statistics.median(blocked):.0f} ms for it "
        f"(rounds of {statistics.median(bare):.1f} s)"
    )
    return report(f"{name}, an asynchronous checkpoint once a minute", ratios)


def main() -> None:
    """Measure, print a table, and write the numbers where asked."""
    compile_rightly()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=24, help="turns of each candidate, at least 20 for a verdict")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn around a checkpoint")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    if options.rounds < 6:
        raise SystemExit(f"--rounds must be at least 6 for a bound of the median, got {options.rounds}")
    print(f"{chip()}; Python {platform.python_version()}, jax {jax.__version__}")
    print(f"{'':58}{'median':>8}{'95% bounds':>20}")
    models: dict[str, tuple[Any, int]] = {
        "MLP VAE": (ours.build(families.VAE), 100),
        "DCGAN": (ours.build(families.DCGAN), 10),
    }
    numbers = []
    for name, (model, chunk) in models.items():
        numbers += measure_sentinel(name, model, chunk, options.rounds)
        numbers.append(measure_checkpoints(name, model, chunk, options.seconds, options.rounds))
    if options.json:
        versions = {"python": platform.python_version(), "jax": jax.__version__, "jaxgen": jaxgen.__version__}
        options.json.write_text(json.dumps({"chip": chip(), "versions": versions, "ratios": numbers}, indent=2) + "\n")


if __name__ == "__main__":
    main()
