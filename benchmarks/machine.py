"""The machine: its chip and its versions."""

import json
from typing import Any

from jaxgen.training import machine


def about() -> dict[str, Any]:
    """The machine as plain data."""
    found = machine.topology()
    return {
        "chip": machine.chip(),
        "platform": found["platform"],
        "device_kind": found["device_kind"],
        "num_devices": found["devices"],
        "xla_flags": found["xla_flags"],
        "versions": machine.versions(),
    }


if __name__ == "__main__":
    print(json.dumps(about()))
