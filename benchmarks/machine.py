"""The machine: its chip and its versions."""

import importlib.metadata
import json
import platform
from typing import Any

import jax

from jaxgen.training.machine import chip


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
