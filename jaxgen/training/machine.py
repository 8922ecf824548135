"""What a number was measured on."""

import os
import platform
from pathlib import Path

import jax


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
    num = len(os.sched_getaffinity(0))
    return f"{name}{which}, {num} {'core' if num == 1 else 'cores'}"
