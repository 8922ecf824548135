"""The machine: its chip, its versions, and what a chip could do at most."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import jax


class Peak(NamedTuple):
    """What a chip could do at most, by its maker.

    Args:
      flops: operations a second of dense matrix products, by precision.
      source: where it is written.
    """

    flops: dict[str, float]
    source: str


_HOPPER = Peak(
    {"bfloat16": 989.4e12, "TF32": 494.7e12, "float32": 66.9e12},
    "NVIDIA H100 Tensor Core GPU Architecture, table of the SXM5 board, without sparsity; the H200's are the same",
)
_AMPERE = Peak(
    {"bfloat16": 312e12, "TF32": 156e12, "float32": 19.5e12},
    "NVIDIA A100 Tensor Core GPU Architecture, without sparsity",
)
_CLOUD = "Google Cloud TPU documentation, system architecture"
PEAKS = {
    "NVIDIA H100 80GB HBM3": _HOPPER,
    "NVIDIA H200": _HOPPER,
    "NVIDIA A100-SXM4-40GB": _AMPERE,
    "NVIDIA A100-SXM4-80GB": _AMPERE,
    "TPU v4": Peak({"bfloat16": 275e12}, _CLOUD),
    "TPU v5 lite": Peak({"bfloat16": 197e12}, _CLOUD),
    "TPU v5": Peak({"bfloat16": 459e12}, _CLOUD),
    "TPU v6 lite": Peak({"bfloat16": 918e12}, _CLOUD),
}


def peak_flops(kind: str, precision: str) -> float | None:
    """Operations a second that a chip could do at most; None for an unknown one."""
    return PEAKS[kind].flops.get(precision) if kind in PEAKS else None


def chip() -> str:
    """Name of the processor or accelerator, and the number of cores in use."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    name = facts.get("model name", platform.processor() or "unknown processor")
    # Virtual machines leave out what it is; family, model and stepping say it.
    numbers = [facts[key] for key in ("cpu family", "model", "stepping") if key in facts]
    which = f" (family {numbers[0]}, model {numbers[1]}, stepping {numbers[2]})" if len(numbers) == 3 else ""
    return f"{name}{which}, {len(os.sched_getaffinity(0))} cores"


def about() -> dict[str, Any]:
    """The machine as plain data."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "flax", "optax")
    return {
        "chip": chip(),
        "platform": device.platform,
        "device_kind": device.device_kind,
        "num_devices": jax.device_count(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }


if __name__ == "__main__":
    print(json.dumps(about()))
