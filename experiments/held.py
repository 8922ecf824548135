"""A glance at a run's lock before anything slow is imported, which takes seconds where a training has all the cores."""

import sys
from collections.abc import Sequence
from pathlib import Path


def refuse_if_held(arguments: Sequence[str]) -> None:
    """End with the status 1 when another process holds the ``--workdir``; the lock itself is taken later, and whatever
    else is wrong is found then."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    place = words.index("--workdir") + 1 if "--workdir" in words else len(words)
    if place < len(words) and (holder := _holder(Path(words[place]) / ".lock")):
        message = f"{words[place]} is in use by {holder}: wait for it, stop it, or use another --workdir"
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1)


def _holder(lock: Path) -> str:
    """Who holds a lock; nobody where that cannot be told."""
    import fcntl

    holder = ""
    try:
        if lock.is_file():  # a fifo would have us wait
            with lock.open(errors="replace") as file:
                holder = " ".join(file.read(200).split())
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder
    except (OSError, ValueError):  # ValueError: what cannot be a path
        pass
    return ""
