"""What a population costs: its members in one program, in turn and together, against one run after another.

    uv run benchmarks/population.py
    uv run benchmarks/population.py --members 64 --models vae,gan     # on a GPU: against the roofline of their sum

The loop of train.py on the embedded images. A turn is one chunk of every member; the candidates take turns, in one
order and in the other, and ratios are taken within a round. The roofline of M members is the time that their matrix
products would take at the speed of one large product, and what Adam moves (28 bytes a parameter) at the speed of one
pass over a large array, both measured in the same run.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import families, ours
from benchmarks.families import Family
from benchmarks.floor import BYTES_A_PARAMETER, num_operations
from benchmarks.turns import ratio, seconds_of
from jaxgen import data
from jaxgen.cli.platforms import compile_rightly
from jaxgen.training import loop
from jaxgen.training.machine import chip

LARGE = {"cpu": 2048}  # side of the product and of the arrays that give the machine's speed; 4096 elsewhere
LEAST_STEPS = 20  # a turn is one chunk, at whose ends every state is written: those of sweep.py are not shorter
MODELS: dict[str, Family] = {
    "vae": families.VAE,
    "gan": families.GAN,
    "dcgan": dataclasses.replace(families.DCGAN, title="DCGAN of width 16, batch 32", width=16, batch_size=32),
}


def candidates(model: str, num_members: int) -> tuple[dict[str, Callable[[int], None]], int]:
    """(what to time, each given a number of steps; the number of a member's parameters)."""
    family = MODELS[model]
    spec, batch_size = ours.build(family), family.batch_size
    step = ours.step_of(spec)
    dataset = data.load()
    keys = jax.vmap(jax.random.key)(jnp.arange(num_members))
    states = jax.jit(jax.vmap(lambda key: ours.fresh_state(spec, family, key)))(keys)
    first = jax.tree.map(lambda leaf: leaf[0], states)
    parameters = [getattr(first, name) for name in first._fields if name.endswith("params") and name != "hyperparams"]

    def population(how: Any) -> Callable[[int], None]:
        training = loop.Loop(step, dataset, keys, batch_size, members=how)
        held = [(states, training.zero_totals(states))]

        def run(num_steps: int) -> None:
            held[0] = jax.block_until_ready(training.run(*held[0], num_steps))

        return run

    def separate() -> Callable[[int], None]:
        training = loop.Loop(step, dataset, keys[0], batch_size)
        held = [
            (jax.tree.map(lambda leaf, m=m: leaf[m], states), training.zero_totals(first)) for m in range(num_members)
        ]

        def run(num_steps: int) -> None:
            for m in range(num_members):
                held[m] = jax.block_until_ready(training.run(*held[m], num_steps))

        return run

    made = {"separate": separate(), "in_turn": population("in_turn"), "together": population("together")}
    return made, sum(leaf.size for leaf in jax.tree.leaves(parameters))


def yardsticks() -> dict[str, Callable[[], float]]:
    """Operations a second of one large float32 product, and bytes a second of one pass over a large array."""
    side = LARGE.get(jax.default_backend(), 4096)
    matrix, many = jnp.ones((side, side)), jnp.ones((8, side, side))
    product, scale = jax.jit(jnp.dot), jax.jit(lambda array: 0.5 * array)
    jax.block_until_ready((product(matrix, matrix), scale(many)))
    return {
        "operations": lambda: 2 * side**3 / seconds_of(product, matrix, matrix),
        "bytes": lambda: 2 * many.nbytes / seconds_of(scale, many),
    }


def measure(
    models: Sequence[str] = tuple(MODELS),
    members: Sequence[int] = (4, 32),
    rounds: int = 7,
    turn_seconds: float = 0.5,
) -> dict[str, Any]:
    """Time populations.

    Args:
      models: names of `MODELS`.
      members: numbers of members.
      rounds: turns of each candidate.
      turn_seconds: about how long a turn is.

    Returns:
      Plain data: ``chip``, ``default`` (what `loop.default_members` chooses), ``speeds``, and ``rows``, one for each
      model and number of members: milliseconds for a step of every member, ``ratio`` of each way's time to that of
      separate runs (median of those within a round, with the least and the greatest), and ``roofline_ms``.
    """
    measures, rows = yardsticks(), []
    speeds = {name: measured() for name, measured in measures.items()}
    for model, num_members in itertools.product(models, members):
        runs, num_parameters = candidates(model, num_members)
        for run in runs.values():
            run(1)  # compiles
        num_steps = max(LEAST_STEPS, round(turn_seconds / max(seconds_of(runs["separate"], 1), 1e-6)))
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(rounds):
            for name in runs if number % 2 else reversed(runs):
                taken[name].append(seconds_of(runs[name], num_steps) / num_steps)
            speeds = {name: max(speeds[name], measured()) for name, measured in measures.items()}
        rows.append(
            {
                "model": model,
                "what": MODELS[model].title,
                "members": num_members,
                "parameters": num_parameters,
                "ms": {name: 1e3 * statistics.median(values) for name, values in taken.items()},
                "ratio": {name: ratio(taken[name], taken["separate"]) for name in ("in_turn", "together")},
            }
        )
    for row in rows:
        row["roofline_ms"] = roofline(row, speeds)
    return {"chip": chip(), "default": loop.default_members(), "speeds": speeds, "rows": rows}


def roofline(row: dict[str, Any], speeds: dict[str, float]) -> float | None:
    """Milliseconds that the members' products and their optimizers' traffic would take; None where not counted."""
    family = MODELS[row["model"]]
    if family.kind == "dcgan":
        return None
    count = num_operations(family)
    traffic = BYTES_A_PARAMETER * row["parameters"] / speeds["bytes"]
    return 1e3 * row["members"] * (count / speeds["operations"] + traffic)


def table(found: dict[str, Any]) -> str:
    """The numbers as text."""
    speed = found["speeds"]
    lines = [
        f"{found['chip']}: {speed['operations'] / 1e9:,.0f} GFLOP/s, {speed['bytes'] / 1e9:,.0f} GB/s; "
        f"the default is {found['default']}",
        "| model, batch | members | separate, ms | in turn / separate | together / separate | roofline / best |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        cells = [f"{r['median']:.2f} ({r['least']:.2f} .. {r['greatest']:.2f})" for r in row["ratio"].values()]
        best = min(row["ms"]["in_turn"], row["ms"]["together"])
        share = f"{row['roofline_ms'] / best:.2f}" if row["roofline_ms"] else ""
        lines.append(
            f"| {row['what']} | {row['members']} | {row['ms']['separate']:.2f} | {cells[0]} | {cells[1]} | {share} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table, and write the numbers where asked."""
    compile_rightly()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help="names with commas between them")
    parser.add_argument("--members", default="4,32", help="numbers with commas between them")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each candidate")
    parser.add_argument("--turn-seconds", type=float, default=0.5, help="length of a turn")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    unknown = [name for name in options.models.split(",") if name not in MODELS]
    if unknown or options.rounds < 1:
        raise SystemExit(f"--models are of {', '.join(MODELS)} and --rounds is at least 1")
    numbers = [int(number) for number in options.members.split(",")]
    found = measure(options.models.split(","), numbers, options.rounds, options.turn_seconds)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
