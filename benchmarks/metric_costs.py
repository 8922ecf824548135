"""What measuring costs: each metric against the least that its arithmetic needs, in the same run.

    uv run benchmarks/metric_costs.py
    uv run benchmarks/metric_costs.py --only likelihood --rounds 9 --json numbers.json

`likelihood`: importance sampling of log p(x), 5,000 samples for each image, of the one-layer VAE of Burda et al. Its
floor is the matrix products of the encoder and the decoder alone, of the sizes of a chunk and as many times, which do
not wait for each other. The two take turns, in one order and in the other; ratios are taken within a round.

`frechet`, `kernel`: the two distances of 50,000 x 2,048 features. The memory is the process's own highest: one at a
time with --only.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxgen
from benchmarks import families, floor, ours
from benchmarks.protocol import peak_host_bytes
from benchmarks.turns import in_turn, ratio, seconds_of
from jaxgen import metrics
from jaxgen.cli.platforms import compile_rightly
from jaxgen.training.machine import chip

TEST_IMAGES = 10_000  # of MNIST: what the time is extrapolated to
NUM_SAMPLES = 5_000


def likelihood_products(num_images: int, num_samples: int, chunk_size: int) -> Callable[[], Any]:
    """The matrix products of importance sampling: the encoder's once, the decoder's for every chunk of samples."""

    def layers(rows: int) -> tuple[list[floor.Layer], ...]:
        return floor.networks(dataclasses.replace(families.BURDA, batch_size=rows))

    def operands(layers: list[floor.Layer], key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        keys = jax.random.split(key, len(layers))
        return [
            (jax.random.normal(k, (layer.rows, layer.inputs)), jax.random.normal(k, (layer.inputs, layer.outputs)))
            for k, layer in zip(keys, layers, strict=True)
        ]

    encoder = operands(layers(num_images)[0], jax.random.key(0))
    decoder = operands(layers(num_images * chunk_size)[1], jax.random.key(1))

    def multiply(pairs: list[tuple[jax.Array, jax.Array]]) -> list[jax.Array]:
        return [x @ kernel for x, kernel in pairs]

    @jax.jit
    def products(encoder: Any, decoder: Any, num_chunks: jax.Array) -> Any:
        def body(number: jax.Array, _: Any) -> Any:
            fresh, _ = lax.optimization_barrier((decoder, number))  # to the compiler, new in each iteration
            return multiply(fresh)

        empty = [jnp.zeros(result.shape, result.dtype) for result in jax.eval_shape(multiply, decoder)]
        return multiply(encoder), lax.fori_loop(0, num_chunks, body, empty)

    num_chunks = jnp.asarray(-(-num_samples // chunk_size), jnp.int32)
    return lambda: products(encoder, decoder, num_chunks)


def likelihood(rounds: int, num_images: int = 200, num_samples: int = NUM_SAMPLES, chunk_size: int = 100) -> Any:
    """Time the importance-sampled log-likelihood of some images against its matrix products.

    Args:
      rounds: turns of each.
      num_images: images of a call, B.
      num_samples: samples of each image.
      chunk_size: samples of each image held at a time, as of `jaxgen.vae_importance_sampling`.

    Returns:
      Plain data: ``seconds`` of both (medians), ``of_floor``: the floor's time over the estimator's (median, least,
      greatest), ``minutes_of_the_test_set``: extrapolated to 10,000 images and 5,000 samples.
    """
    family = families.BURDA
    vae, key = ours.build(family), jax.random.key(0)
    state = ours.fresh_state(vae, family, key)
    images = np.random.default_rng(0).random((num_images, *family.image_shape)) < 0.2
    runs = {
        "floor": likelihood_products(num_images, num_samples, chunk_size),
        "jaxgen": lambda: jaxgen.vae_importance_sampling(vae, state, {"image": images}, key, num_samples, chunk_size),
    }
    taken = in_turn(runs, rounds)
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    share = TEST_IMAGES * NUM_SAMPLES / (num_images * num_samples)
    return {
        "what": f"log p(x), {num_images} images x {num_samples} samples, {family.title}",
        "chunk_size": chunk_size,
        "seconds": seconds,
        "of_floor": ratio(taken["floor"], taken["jaxgen"]),
        "minutes_of_the_test_set": seconds["jaxgen"] * share / 60,
        "aim": "at least 0.5 of the floor",
    }


def likelihood_line(found: dict[str, Any]) -> str:
    """The number as text."""
    share, seconds = found["of_floor"], found["seconds"]
    return (
        f"{found['what']}: {seconds['jaxgen']:.1f} s, its products {seconds['floor']:.1f} s, of the floor "
        f"{share['median']:.2f} ({share['least']:.2f} .. {share['greatest']:.2f}; {found['aim']}); 10,000 images would "
        f"take {found['minutes_of_the_test_set']:.0f} min"
    )


NUM_POINTS, NUM_FEATURES = 50_000, 2_048  # of the FID, as it is reported


def two_sets() -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features of the size of Inception's, as a ReLU leaves them."""
    generator = np.random.default_rng(0)
    shape = (NUM_POINTS, NUM_FEATURES)
    real, fake = (generator.standard_normal(shape, dtype=np.float32) for _ in range(2))
    fake *= 1.1
    for features in (real, fake):
        np.maximum(features, 0.0, out=features)
    return real, fake


def seconds_in_all(call: Callable[[tuple[np.ndarray, np.ndarray]], Any], rounds: int, what: str) -> dict[str, Any]:
    """Seconds of a call, compilation included, as a person waits for it; and the memory of the process."""
    sets = two_sets()
    before = peak_host_bytes()
    taken = []
    for _ in range(rounds):
        taken.append(seconds_of(call, sets))
    return {
        "what": what,
        "seconds": statistics.median(taken),
        "first_seconds": taken[0],
        "peak_host_bytes": peak_host_bytes(),
        "peak_host_bytes_before": before,
        "aim": "under 60 s and 2 GB",
    }


def frechet(rounds: int) -> Any:
    """Time the Frechet distance of 50,000 x 2,048 features, moments included."""

    def call(sets: tuple[np.ndarray, np.ndarray]) -> float:
        return metrics.frechet_distance(*(metrics.moments(points) for points in sets))

    return seconds_in_all(call, rounds, f"Frechet distance, {NUM_POINTS} x {NUM_FEATURES}")


def kernel(rounds: int) -> Any:
    """Time the kernel distance of 50,000 x 2,048 features over 100 subsets of 1,000."""

    def call(sets: tuple[np.ndarray, np.ndarray]) -> Any:
        return metrics.kernel_distance(*sets, jax.random.key(0))

    return seconds_in_all(call, rounds, f"kernel distance, {NUM_POINTS} x {NUM_FEATURES}, 100 subsets of 1000")


def time_line(found: dict[str, Any]) -> str:
    """The number as text."""
    return (
        f"{found['what']}: {found['seconds']:.1f} s, the first time {found['first_seconds']:.1f} s; the process "
        f"{found['peak_host_bytes'] / 1e9:.2f} GB, {found['peak_host_bytes_before'] / 1e9:.2f} before, both sets "
        f"included ({found['aim']})"
    )


# Each timing by its name: a function of the number of rounds that returns plain data, and what prints that.
TIMINGS: dict[str, tuple[Callable[[int], Any], Callable[[Any], str]]] = {
    "likelihood": (likelihood, likelihood_line),
    "frechet": (frechet, time_line),
    "kernel": (kernel, time_line),
}


def main() -> None:
    """Measure, print a line for each metric, and write the numbers where asked."""
    compile_rightly()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(TIMINGS), help="names with commas between them")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each candidate")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    names = options.only.split(",")
    if not set(names) <= set(TIMINGS) or options.rounds < 1:
        raise SystemExit(f"--only takes of {', '.join(TIMINGS)} and --rounds is at least 1")
    found: dict[str, Any] = {"chip": chip(), "jax": jax.__version__}
    print(f"{found['chip']}, jax {jax.__version__}", flush=True)
    for name in names:
        measure, line = TIMINGS[name]
        start = time.perf_counter()
        found[name] = measure(options.rounds)
        print(f"{line(found[name])} [{time.perf_counter() - start:.0f} s to measure]", flush=True)
    found["peak_host_bytes"] = peak_host_bytes()
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
