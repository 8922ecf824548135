"""What a command shows of its progress where that takes long."""

import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from jaxgen.evaluation.subject import Progress

OFTEN, SELDOM = 0.5, 30.0  # seconds between two looks at a bar, and between two lines where nobody watches
TRUSTED = 3.0  # seconds that have to be measured before they say as much of the rest as what was expected


def spoken(seconds: float) -> str:
    """About how long something takes, in words."""
    if seconds < 10:
        return "a few seconds"
    return f"{5 * round(seconds / 5)} s" if seconds < 90 else f"{round(seconds / 60)} min"


class Bars:
    """A line of progress: what is being done, and where there is a plan, how much is done and how long the rest takes.

    Where nobody watches, a line at the beginning and one every half minute.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._watched = sys.stderr.isatty()
        self._expected: dict[str, float] = {}
        self._done, self._what, self._share = 0.0, "", 0.0
        self._began = self._shown = time.monotonic()
        self._over, self._drawing = threading.Event(), threading.Lock()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._watcher is not None:
            self._watcher.join()
        self._end()

    def _end(self) -> None:
        with self._drawing:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def plan(self, expected: Mapping[str, float], of_what: str = "") -> None:
        """How long all is expected to take, in seconds by what `begin` is told: said at first, and then kept to."""
        first = self._watcher is None
        self._expected = dict(expected)
        if first:
            self._began = self._shown = time.monotonic()
            print(f"{of_what}: about {spoken(sum(expected.values()))}", file=sys.stderr, flush=True)
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()

    def _left(self) -> tuple[float, float]:
        """(share of the whole that is done, seconds that the rest takes): at the speed so far, as it becomes known."""
        now = self._done + self._share * self._expected.get(self._what, 0.0)
        rest = sum(self._expected.values()) - self._share * self._expected.get(self._what, 0.0)
        spent = time.monotonic() - self._began
        return now / max(now + rest, 1e-9), rest * (spent + TRUSTED) / (now + TRUSTED)

    def _line(self) -> str:
        share, left = self._left()
        return f"{share:.0%} done, about {spoken(left)} left: {self._what}"

    def _watch(self) -> None:
        while not self._over.wait(OFTEN):
            if self._watched:
                with self._drawing:
                    if self._bar is not None:
                        self._bar.set_description_str(self._line())
            elif time.monotonic() - self._shown >= SELDOM:
                self._shown = time.monotonic()
                print(self._line(), file=sys.stderr, flush=True)

    def begin(self, what: str) -> Progress:
        """Show that something is begun; returns what to call with how much of it is done, and of how much."""
        self._end()
        self._done += self._expected.pop(self._what, 0.0)
        self._what, self._share = what, 0.0
        if self._watcher is not None:
            often: dict[str, Any] = {"disable": not self._watched, "bar_format": "{desc}"}
        else:
            # Where nobody watches, a line every ten seconds of what takes longer.
            often = {"mininterval": 0.2} if self._watched else {"mininterval": 10.0, "delay": 10.0}
        bar = self._bar = tqdm(desc=what, total=1, leave=False, **often)

        def progress(done: int, total: int) -> None:
            self._share = done / max(total, 1) if self._what == what else self._share
            bar.total = total
            bar.update(done - bar.n)

        return progress

    def say(self, text: str) -> None:
        """Print a line."""
        self._end()
        tqdm.write(text)
