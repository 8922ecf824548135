"""How much is too much to load: asked of headers, so that the answer comes before anything is expanded."""

import os
import sys

MAX_PIXELS = 8192 * 8192
"""The largest picture that is decoded. Fixed here: PIL's own limit belongs to the whole program, which may lift it."""


def memory() -> int:
    """The memory of this machine in bytes."""
    if not hasattr(os, "sysconf"):  # Windows does not say
        return sys.maxsize
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
