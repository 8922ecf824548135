"""Whether memory stays flat, and the step never waits, when data stream from the disk.

    uv run benchmarks/streaming.py
    uv run benchmarks/streaming.py --kind folder --num 2000

An MLP VAE (784-500-20, batches of 128, Adam) is trained for as many steps on N and on 10 N images of 28 x 28, each in a
process of its own, read from files as they are needed. Its peak memory is what the system says of the whole process
(VmHWM). The time that it waits for data is counted while nothing is computed, after the first chunk, which compiles.
Images are written to a temporary folder, drawn from the embedded ones.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocol import peak_host_bytes
from jaxgen import data
from jaxgen.cli.platforms import compile_rightly

SIZES = {"npz": 60_000, "idx": 60_000, "folder": 2_000, "memory": 60_000}
GROWTH = 10
STEPS = 1000
CHUNK = 100
LIMIT_MEMORY, LIMIT_WAIT = 1.05, 0.02


def write(kind: str, folder: Path, num: int) -> str:
    """Write so many images of 28 x 28; returns the name of the data set."""
    some = data.load()
    images = np.resize(some["image"], (num, 28, 28, 1))
    labels = np.resize(some["label"], num)
    if kind in ("npz", "memory"):
        save = np.savez if kind == "npz" else np.savez_compressed
        save(folder / "images.npz", train_image=images, train_label=labels)
        return f"npz:{folder / 'images.npz'}"
    if kind == "idx":
        for name, array in (("images-idx3", images[..., 0]), ("labels-idx1", labels.astype(np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (folder / f"train-{name}-ubyte").write_bytes(header + array.tobytes())
        return f"idx:{folder}"
    from PIL import Image

    for i in range(num):
        path = folder / "train" / str(labels[i]) / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i, ..., 0]).save(path)
    return f"folder:{folder}"


def train(dataset: str, steps: int, streams: bool) -> dict[str, Any]:
    """Train for some steps; returns what was measured."""
    from functools import partial

    import jax
    import optax

    import jaxgen
    from jaxgen import networks
    from jaxgen.training import loop

    vae = jaxgen.VAE(
        networks.MLPEncoder(20, hidden=(500,)),
        networks.MLPDecoder((28, 28, 1), hidden=(500,)),
        optax.adam(1e-3),
        latent_dim=20,
    )
    key = jax.random.key(0)
    examples: Any = data.open_source(dataset) if streams else data.load(dataset)
    training = loop.Loop(partial(jaxgen.vae_step, vae), examples, key, 128)
    state: Any = jaxgen.vae_init(vae, key, {"image": np.zeros((1, 28, 28, 1), np.uint8)})
    totals = training.zero_totals(state)
    began, waited = time.perf_counter(), 0.0
    for chunk in range(1 + steps // CHUNK):
        if chunk == 1:
            began, waited = time.perf_counter(), training.input_wait
        state, totals = training.run(state, totals, CHUNK)
        assert bool(totals.finite)
    seconds = time.perf_counter() - began
    training.close()
    return {
        "peak_bytes": peak_host_bytes(),
        "steps_per_second": steps / seconds,
        "wait_share": (training.input_wait - waited) / seconds,
        "loss": loop.means(totals)["loss"],
    }


def in_a_process(dataset: str, steps: int, streams: bool) -> dict[str, Any]:
    """`train` in a fresh process."""
    command = [sys.executable, __file__, "--dataset", dataset, "--steps", str(steps)]
    done = subprocess.run([*command, *([] if streams else ["--resident"])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"training on {dataset} ended with status {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(kind: str = "npz", num: int | None = None, steps: int = STEPS, resident: bool = True) -> dict[str, Any]:
    """Measure streaming on a data set and on one ten times as large.

    Args:
      kind: what the images are in: ``"npz"``, ``"idx"``, ``"folder"``, or ``"memory"`` for a compressed archive, which
        is in the host's memory whatever is done.
      num: number of images of the smaller set; one that is written in seconds when None.
      steps: number of steps that are measured.
      resident: whether to train on the smaller set in memory as well.

    Returns:
      For ``small``, ``large`` and perhaps ``resident``: ``peak_bytes``, ``steps_per_second``, ``wait_share``, ``loss``;
      ``memory_ratio``, large to small; ``wait_share``, the larger of both; ``same``, whether the resident run ends with
      the same loss; ``passed``.
    """
    num = SIZES[kind] if num is None else num
    measured: dict[str, Any] = {"kind": kind, "num": num, "steps": steps}
    for name, factor in (("small", 1), ("large", GROWTH)):
        with tempfile.TemporaryDirectory() as folder:
            dataset = write(kind, Path(folder), factor * num)
            measured[name] = in_a_process(dataset, steps, streams=True)
            if resident and name == "small":
                measured["resident"] = in_a_process(dataset, steps, streams=False)
    measured["memory_ratio"] = measured["large"]["peak_bytes"] / measured["small"]["peak_bytes"]
    measured["wait_share"] = max(measured[name]["wait_share"] for name in ("small", "large"))
    measured["same"] = not resident or measured["small"]["loss"] == measured["resident"]["loss"]
    flat = measured["memory_ratio"] <= LIMIT_MEMORY or kind == "memory"
    measured["passed"] = flat and measured["wait_share"] < LIMIT_WAIT and measured["same"]
    return measured


def show(measured: dict[str, Any]) -> None:
    """Print what was measured."""
    for name, factor in (("small", 1), ("large", GROWTH), ("resident", 1)):
        if name in measured:
            row, how = measured[name], "loaded" if name == "resident" else "streamed"
            print(
                f"{how:>8} {measured['kind']:>6} of {factor * measured['num']:>7} "
                f"images: peak {row['peak_bytes'] / 1e6:6.0f} MB, {row['steps_per_second']:5.0f} steps/s, "
                f"waits {row['wait_share']:.2%} of the time"
            )
    print(
        f"{GROWTH} times the data: {measured['memory_ratio']:.3f} of the memory (at most {LIMIT_MEMORY}); waits at "
        f"most {measured['wait_share']:.2%} (below {LIMIT_WAIT:.0%}); "
        f"{'the same' if measured['same'] else 'ANOTHER'} loss: {'passed' if measured['passed'] else 'MISSED'}"
    )


def main() -> int:
    """The command: returns its exit status."""
    compile_rightly()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=SIZES, default="npz", help="what the images are in")
    parser.add_argument("--num", type=int, help="number of images of the smaller set")
    parser.add_argument("--steps", type=int, default=STEPS, help="number of steps measured")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    parser.add_argument("--dataset", help=argparse.SUPPRESS)  # a child: train on this
    parser.add_argument("--resident", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.dataset is not None:
        print(json.dumps(train(options.dataset, options.steps, not options.resident)))
        return 0
    measured = measure(options.kind, options.num, options.steps)
    show(measured)
    if options.out is not None:
        options.out.write_text(json.dumps(measured, indent=2) + "\n")
    return 0 if measured["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
