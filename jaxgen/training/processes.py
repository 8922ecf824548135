"""Where a run computes: its processes and its mesh."""

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from jaxgen.parallel import make_mesh

HEARTBEAT = 40  # seconds of silence after which a process is given up, and the others end


def connect(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Join the other processes of the run, where there are some; before JAX is used for anything else."""
    if coordinator is not None:
        jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT)
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1 or "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)  # JAX finds the rest in the environment


def build_mesh(text: str | None) -> jax.sharding.Mesh | None:
    """The mesh of ``data=4,model=2``; all devices along ``data`` for several processes, no mesh for one device."""
    if text is None:
        return make_mesh({"data": jax.device_count()}) if jax.process_count() > 1 else None
    try:
        axes = {name: int(size) for name, size in (part.split("=") for part in text.split(","))}
    except ValueError:
        axes = {}
    if "data" not in axes or set(axes) - {"data", "model"}:
        raise ValueError(f"--mesh must be like data=8 or data=4,model=2, got {text!r}")
    if jax.process_count() > 1 and np.prod(list(axes.values())) != jax.device_count():
        raise ValueError(
            f"--mesh {text} must use all {jax.device_count()} devices of the {jax.process_count()} processes"
        )
    return make_mesh(axes)


def is_primary() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Let no process go on before all have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(value: float) -> float:
    """Process 0's value, everywhere."""
    return float(multihost_utils.broadcast_one_to_all(np.float64(value))) if jax.process_count() > 1 else value


def agree_on_text(text: str) -> str:
    """Process 0's text, everywhere."""
    if jax.process_count() == 1:
        return text
    padded = np.frombuffer(text.encode().ljust(4096, b"\0")[:4096], np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes().rstrip(b"\0").decode()


def agree_on_chunk(limit: int, signum: int | None) -> tuple[int, int | None]:
    """(process 0's limit, a signal that any process received or None), everywhere."""
    if jax.process_count() == 1:
        return limit, signum
    everybodys = np.asarray(multihost_utils.process_allgather(np.array([limit, signum or 0], np.int64)))
    return int(everybodys[0, 0]), int(everybodys[:, 1].max()) or None


def total(number: int) -> int:
    """The sum of all processes' numbers, modulo 2^256."""
    if jax.process_count() == 1:
        return number
    digits = np.frombuffer(number.to_bytes(32, "big"), np.uint8)
    everybodys = np.asarray(multihost_utils.process_allgather(digits))
    return sum(int.from_bytes(row.tobytes(), "big") for row in everybodys) % 2**256


def largest(number: int) -> int:
    """The largest of all processes' numbers."""
    return int(np.max(multihost_utils.process_allgather(np.int64(number)))) if jax.process_count() > 1 else number


def local_copy(state: Any, mesh: jax.sharding.Mesh | None) -> Any:
    """The whole state on this process's first device, to be evaluated and shown without the other processes."""
    if mesh is None:
        return state
    whole = jax.jit(lambda state: state, out_shardings=NamedSharding(mesh, PartitionSpec()))(state)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)
