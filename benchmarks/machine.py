"""The machine and what runs on it: its chip, versions, and the commit."""

import json
import subprocess
from pathlib import Path
from typing import Any

from jaxgen.training import machine

SOURCES = ("jaxgen", "experiments", "benchmarks/*.py")


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


def commit() -> str:
    """Of the sources that are here, and whether they were changed since; ``unknown`` without git."""
    said = []
    for words in (("rev-parse", "--short=10", "HEAD"), ("status", "--porcelain", "--", *SOURCES)):
        command = ["git", "-C", str(Path(__file__).parent.parent), *words]
        try:
            said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        except (OSError, subprocess.CalledProcessError):
            return "unknown"
    return f"{said[0]}, changed" if said[1] else said[0]


if __name__ == "__main__":
    print(json.dumps(about()))
