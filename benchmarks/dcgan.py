"""Step time of a DCGAN: jitted, inside a scan, and against PyTorch.

    uv run benchmarks/dcgan.py --torch-python PATH

28 x 28 x 1 images, width 64, 64 latents, batches of 64, non-saturating loss, Adam 2e-4 with b1 0.5; a step is one
update of each network. The candidates take turns, round after round, so that a busy machine slows all of them; ratios
are taken within a round. PATH is an interpreter that has PyTorch; without it the peer is left out.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import optax

import jaxgen
from jaxgen import networks

IMAGE_SHAPE = (28, 28, 1)
WIDTH = LATENT_DIM = BATCH_SIZE = 64
# PyTorch's threads spin for a while after their work, and would take the next candidate's cores.
PAUSE = 0.3


def chip() -> str:
    """Name of the processor or accelerator, and the number of cores in use."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores"


def spec() -> jaxgen.GAN:
    """The model and its optimizers."""
    return jaxgen.GAN(
        networks.DCGANGenerator(IMAGE_SHAPE, width=WIDTH),
        networks.DCGANDiscriminator(width=WIDTH),
        optax.adam(2e-4, b1=0.5),
        optax.adam(2e-4, b1=0.5),
        latent_dim=LATENT_DIM,
    )


def candidates(steps: int) -> dict[str, Callable[[], float]]:
    """What to time: each takes ``steps`` steps and returns the seconds they took."""
    gan, key = spec(), jax.random.key(0)
    images = np.random.default_rng(0).integers(0, 256, (steps, BATCH_SIZE, *IMAGE_SHAPE), dtype=np.uint8)
    batches = [{"image": jax.device_put(part)} for part in images]
    stacked = {"image": jax.device_put(images)}
    state = jaxgen.gan_init(gan, key, batches[0])
    step = partial(jaxgen.gan_step, gan)
    jitted = jax.jit(step, donate_argnums=0)
    scanned = jax.jit(
        lambda state, batches, key: jax.lax.scan(lambda s, b: step(s, b, key), state, batches), donate_argnums=0
    )
    states = {name: jax.tree.map(lambda leaf: leaf.copy(), state) for name in ("jit", "scan")}

    def run_jit() -> float:
        start = time.perf_counter()
        for batch in batches:
            states["jit"], _ = jitted(states["jit"], batch, key)
        jax.block_until_ready(states["jit"])
        return time.perf_counter() - start

    def run_scan() -> float:
        start = time.perf_counter()
        states["scan"], _ = scanned(states["scan"], stacked, key)
        jax.block_until_ready(states["scan"])
        return time.perf_counter() - start

    return {"jit": run_jit, "scan": run_scan}


def torch_peer(python: str, steps: int, channels_last: bool) -> tuple[dict[str, Any], Callable[[], float]]:
    """Start the peer; its description, and a function that has it take ``steps`` steps and returns their seconds."""
    command = [
        python,
        str(Path(__file__).with_name("torch_dcgan.py")),
        *("--batch-size", str(BATCH_SIZE), "--width", str(WIDTH), "--latent-dim", str(LATENT_DIM)),
        *("--threads", str(len(os.sched_getaffinity(0)))),
        *(["--channels-last"] if channels_last else []),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(line: str) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        if line:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit(f"the peer ended with status {process.wait()}: {' '.join(command)}")
        return json.loads(answer)

    return ask(""), lambda: float(ask(str(steps))["seconds"])


def main() -> None:
    """Time, print a table, and write the numbers where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torch-python", help="interpreter that has PyTorch")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each candidate")
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()

    timed = candidates(options.steps)
    versions = {"jaxgen": jaxgen.__version__, "jax": jax.__version__, "flax": flax.__version__}
    if options.torch_python is None:
        print("PyTorch left out: name an interpreter that has it with --torch-python")
    else:
        for name, channels_last in (("torch", False), ("torch channels-last", True)):
            about, timed[name] = torch_peer(options.torch_python, options.steps, channels_last)
            versions["torch"] = about["torch"]
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(options.rounds + 1):
        for name, run in timed.items():
            taken = run() / options.steps
            time.sleep(PAUSE)
            if number > 0:  # the first turn compiles
                seconds[name].append(taken)

    def ratio(name: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))

    print(f"{chip()}; Python {platform.python_version()}, {', '.join(f'{n} {v}' for n, v in versions.items())}")
    print(f"{'':22}{'ms a step':>10}{'quartiles':>18}{'fastest':>9}{'/ jit':>8}{'/ torch':>9}")
    for name, values in seconds.items():
        low, middle, high = (1e3 * q for q in statistics.quantiles(values, n=4))
        to_torch = f"{ratio(name, 'torch'):9.2f}" if "torch" in seconds else ""
        times = f"{middle:10.1f}{low:9.1f} ..{high:6.1f}{1e3 * min(values):9.1f}"
        print(f"{name:22}{times}{ratio(name, 'jit'):8.2f}{to_torch}")
    if options.json:
        numbers = {
            "chip": chip(),
            "versions": {"python": platform.python_version(), **versions},
            "steps": options.steps,
            "seconds_a_step": seconds,
            "ratios_to_jit": {name: ratio(name, "jit") for name in seconds},
            "ratios_to_torch": {name: ratio(name, "torch") for name in seconds} if "torch" in seconds else None,
        }
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
