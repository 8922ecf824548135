"""What every command does with its errors."""

import logging
import sys
from collections.abc import Callable

from experiments.compiled import keep_compiled_programs
from experiments.streams import outlive_readers
from jaxgen.training.stopping import Stopped


def exit_status(command: Callable[[], object], go_on: str = "go on with --resume") -> int:
    """Run a command: 0; 1 and one line on the standard error for what the person who called it can put right; or 128
    and the number of the signal that stopped it."""
    outlive_readers()
    # Orbax prints the traceback of every task that an error ends; the error itself is raised, and printed below.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    keep_compiled_programs()
    try:
        command()
    except Stopped as stopped:
        print(f"{stopped}: everything is saved, {go_on}", file=sys.stderr)
        return stopped.status
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
