"""A glance at a run's lock before anything slow is imported, which takes seconds where a training has all the cores."""

import sys
from collections.abc import Sequence
from pathlib import Path


def refuse_if_held(arguments: Sequence[str]) -> None:
    """End with the status 1 when another process holds the ``--workdir``; the lock itself is taken later."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    place = words.index("--workdir") + 1 if "--workdir" in words else len(words)
    lock = Path(words[place]) / ".lock" if place < len(words) else None
    if lock is None or not lock.is_file() or not (holder := lock.read_text().strip()):
        return
    import fcntl

    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{lock.parent} is in use by {holder}: wait for it, stop it, or use another --workdir"
            print(f"error: {message}", file=sys.stderr)
            raise SystemExit(1) from None
