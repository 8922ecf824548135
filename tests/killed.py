"""A command in a process that is killed at a file operation: ``python -m tests.killed NUMBER FOLDER TRACE COMMAND``.

Every operation that changes what lies under FOLDER is a line of TRACE; the process kills itself before the one of this
number (from 0), so that it and all that follow are not done. COMMAND is a verb of ``jaxgen``, then arguments.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from jaxgen.cli.main import main

CHANGES = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")


def trace(number: int, folder: str, file: str) -> None:
    """Count and note the operations from here on."""
    noted = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    count = 0

    def watch(event: str, arguments: Sequence[Any]) -> None:
        nonlocal count
        if event not in CHANGES or not str(arguments[0]).startswith(folder):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        paths = [str(path).removeprefix(folder) for path in arguments[: 2 if event == "os.rename" else 1]]
        os.write(noted, f"{event} {' '.join(paths)}\n".encode())

    sys.addaudithook(watch)


if __name__ == "__main__":
    trace(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    sys.exit(main(sys.argv[4:]))
