"""How much is too much to load, or to make: asked of headers and sizes, before anything is expanded or computed."""

import contextlib
import os
import shutil
import sys
import zipfile
from pathlib import Path

_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of the container, on Linux

MAX_PIXELS = 8192 * 8192
"""The largest picture that is decoded. Fixed here: PIL's own limit belongs to the whole program, which may lift it."""


def memory() -> int:
    """The memory that there is in bytes: that of this machine, or less where its container or ``ulimit -m`` says so."""
    if not hasattr(os, "sysconf"):  # Windows does not say
        return sys.maxsize
    import resource

    allowed, _ = resource.getrlimit(resource.RLIMIT_RSS)
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += [allowed] * (allowed != resource.RLIM_INFINITY)
    with contextlib.suppress(OSError, ValueError):  # there is none, or it is "max"
        limits.append(int(_LIMIT.read_text()))
    return min(limits)


def check_memory(num_bytes: int, name: str) -> None:
    """Refuse arrays that cannot fit into this machine's memory.

    Args:
      num_bytes: size of all arrays together.
      name: what to call the data set in the error.

    Raises:
      ValueError: they are larger than the memory.
    """
    there = memory()
    if num_bytes > there:
        raise ValueError(
            f"{name}: its arrays need {num_bytes / 1e9:,.1f} GB, this machine has {there / 1e9:,.1f} GB of memory: "
            "use fewer or smaller images"
        )


def check_archive(path: Path) -> None:
    """Refuse a zip archive, such as an ``.npz`` file at a ``path``, that expands to more than this machine's memory."""
    with zipfile.ZipFile(path) as archive:
        check_memory(sum(member.file_size for member in archive.infolist()), str(path))


def check_disk(num_bytes: int, path: Path, name: str) -> None:
    """Refuse files that cannot fit onto a disk.

    Args:
      num_bytes: size of all files together, at least.
      path: where they are to be; the nearest folder that exists says which disk that is.
      name: what to call them in the error.

    Raises:
      ValueError: there is less free.
    """
    there = next((folder for folder in path.absolute().parents if folder.is_dir()), Path("/"))
    free = shutil.disk_usage(there).free
    if num_bytes > free:
        raise ValueError(
            f"{name} need at least {num_bytes / 1e9:,.1f} GB, and {there} has {free / 1e9:,.1f} GB free: ask for fewer"
        )


def check_pixels(width: int, height: int) -> None:
    """Refuse a picture that is too large to decode.

    Args:
      width: of the picture in pixels, as its header says.
      height: likewise.

    Raises:
      ValueError: it has more than `MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"pictures may have at most {MAX_PIXELS:,} pixels, its header says {width:,} x {height:,}: shrink it"
        )
