"""Compiled programs kept between commands: what was compiled once starts at once the next time."""

import errno
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from jaxgen.training.files import naming
from jaxgen.training.machine import num_cores

MOST_BYTES = 2_000_000_000
ROOM = 50_000_000  # bytes: programs of a few runs


def machine() -> str:
    """What a compiled program depends on that JAX does not put into its name: the processor, and how much of it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {flags} {num_cores()}".encode()).hexdigest()[:16]


def trim(directory: Path, most_bytes: int) -> None:
    """Delete the files that were written first, until the rest is small enough."""
    files = sorted(((path.stat(), path) for path in directory.iterdir() if path.is_file()), key=lambda f: f[0].st_mtime)
    size = sum(stat.st_size for stat, _ in files)
    for stat, path in files:
        if size <= most_bytes:
            return
        path.unlink(missing_ok=True)
        size -= stat.st_size


def check_room(directory: Path) -> None:
    """Raise an OSError where nothing can be written: JAX would say so once for each program, in several lines."""
    with naming(directory):
        if shutil.disk_usage(directory).free < ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryFile(dir=directory) as trial:
            trial.write(bytes(ROOM // 100))


def keep_compiled_programs() -> None:
    """Have JAX keep what it compiles in ``$XDG_CACHE_HOME/jaxgen`` (``~/.cache/jaxgen``).

    JAX's own settings have the last word: JAX_COMPILATION_CACHE_DIR, or JAX_ENABLE_COMPILATION_CACHE=false.
    """
    if os.environ.keys() & {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"}:
        return
    home = os.environ.get("XDG_CACHE_HOME", "")
    try:
        directory = (Path(home) if home else Path("~/.cache").expanduser()) / "jaxgen" / machine()
        directory.mkdir(parents=True, exist_ok=True)
        trim(directory, MOST_BYTES)
        check_room(directory)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        print(f"compiled programs are not kept: {error}", file=sys.stderr)
        return
    import jax  # slow

    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
