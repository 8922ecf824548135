"""The worker's side of the measurement: one JSON object a line. Only the standard library, so that every peer reads it.

A worker says what it is, and then answers each line of its input: a number of steps with the seconds they took, and
``memory`` with the most memory it has used. What its libraries print meanwhile goes to the standard error.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import families

Answer = dict[str, Any]


def arguments() -> argparse.ArgumentParser:
    """The options that every worker takes: its family, sizes to replace, and which of its candidates it is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", choices=list(families.FAMILIES), required=True)
    parser.add_argument("--changes", default="{}", help="JSON object of the family's fields to replace")
    parser.add_argument("--variant", required=True, help="which candidate")
    return parser


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_host_bytes() -> int | None:
    """The most memory that this process has had at once; None where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(found[0].split()[1]) if found else None


def serve(
    about: Answer, take: Callable[[int], float | Answer], device_bytes: Callable[[], int | None] = lambda: None
) -> None:
    """Answer until the input ends.

    Args:
      about: what this worker is: ``versions``, ``precision`` and whatever else is worth a note.
      take: takes so many steps and waits for their results; returns the seconds they took, or an object with
        ``seconds`` and, where it took another number of steps, ``steps``.
      device_bytes: the most memory used on the device; None where nothing counts it.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(json.dumps(about), file=answers)
    for line in sys.stdin:
        if line.strip() == "memory":
            answer: Answer = {"host_bytes": peak_host_bytes(), "device_bytes": device_bytes()}
        else:
            taken = take(int(line))
            answer = taken if isinstance(taken, dict) else {"seconds": taken}
        print(json.dumps(answer), file=answers)
