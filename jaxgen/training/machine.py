"""What a run was trained on, and a number measured: processor, devices, and versions."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Versions of what determines a run's bits: Python and the packages under it."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def topology() -> dict[str, Any]:
    """The devices and processes of this program."""
    import jax  # slow

    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "xla_flags": compiler_flags(),
    }


def compiler_flags() -> str:
    """What XLA_FLAGS says of how programs are compiled; how many devices it makes of the host is counted elsewhere."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(flag for flag in flags if not flag.startswith("--xla_force_host_platform_device_count"))


def described() -> str:
    """The devices in a few words, and the flags that programs are compiled with."""
    import jax  # slow

    device, flags = jax.devices()[0], compiler_flags()
    return f"{device.platform} ({device.device_kind}){f', XLA_FLAGS {flags}' if flags else ''}"


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chip() -> str:
    """Name of the processor or accelerator, and the number of cores in use."""
    import jax  # slow

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
    num = num_cores()
    return f"{name}{which}, {num} {'core' if num == 1 else 'cores'}"
