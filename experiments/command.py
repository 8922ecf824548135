"""What every command does with its errors."""

import sys
from collections.abc import Callable


def exit_status(command: Callable[[], object]) -> int:
    """Run a command: 0, or 1 and one line on the standard error for what the person who called it can put right."""
    try:
        command()
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
