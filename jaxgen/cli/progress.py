"""What a command shows of its progress where that takes long."""

import sys
from typing import Any

from tqdm import tqdm

from jaxgen.evaluation.subject import Progress


class Bars:
    """A line of progress, with how long what is being done will still take."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def begin(self, what: str) -> Progress:
        """Show that something is begun; returns what to call with how much of it is done, and of how much."""
        self._end()
        # Where nobody watches, a line every ten seconds of what takes longer.
        often = {"mininterval": 0.2} if sys.stderr.isatty() else {"mininterval": 10.0, "delay": 10.0}
        bar = self._bar = tqdm(desc=what, total=1, leave=False, **often)

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return progress

    def say(self, text: str) -> None:
        """Print a line."""
        self._end()
        tqdm.write(text)
