"""What the workers that use JAX share."""

import importlib.metadata
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import protocol
from benchmarks.families import Family


def product_precision() -> str:
    """What a float32 matrix product is computed in here, found by what it rounds away."""

    def kept(exponent: int) -> bool:
        x = jnp.full((512, 512), 1.0 + 2.0**-exponent, jnp.float32)
        return bool(jnp.max(x @ jnp.eye(512)) > 1.0 + 2.0 ** -(exponent + 1))

    return "float32" if kept(20) else "TF32" if kept(10) else "bfloat16"


def about(family: Family) -> dict[str, Any]:
    """Versions and precision."""
    return {
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax")},
        "precision": family.dtype if family.dtype != "float32" else product_precision(),
        "device": jax.devices()[0].device_kind,
    }


def device_bytes() -> int | None:
    """The most memory used on the device; None where nothing counts it."""
    stats = jax.devices()[0].memory_stats()
    return None if stats is None else stats.get("peak_bytes_in_use")


def images(family: Family) -> np.ndarray:
    """A data set of random images, uint8 [N, H, W, C]."""
    shape = (family.num_examples, *family.image_shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def timed(run: Callable[[int], Any]) -> Callable[[int], float]:
    """The seconds that some steps take until their result is there."""

    def take(steps: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(steps))
        return time.perf_counter() - start

    return take


def serve(family: Family, run: Callable[[int], Any], **more: Any) -> None:
    """Answer with the seconds that ``run`` takes for so many steps."""
    protocol.serve({**about(family), **more}, timed(run), device_bytes)
