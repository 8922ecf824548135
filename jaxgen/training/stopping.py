"""Being asked to stop: by machines before they are taken away, by schedulers, by closed terminals, by people."""

import contextlib
import os
import signal
import threading
import time
from types import TracebackType

# Those that there are on this system.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
# Seconds in which signals are one: a scheduler tells every process, and a launcher (uv) passes on what it is told.
TOGETHER = 0.5


class Stopped(Exception):  # noqa: N818 - it is no error
    """A run was asked to stop by the signal ``signum``, and did."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.status = 128 + signum


class StopRequest:
    """Notices `SIGNALS`; the first one asks to stop, one `TOGETHER` later or more ends the process at once.

    A context manager for the main thread; in another one, where Python delivers no signals, it notices nothing. The
    signals are seen by a thread of its own, since a handler in Python waits until compiled code has ended. A SIGHUP
    that is ignored (``nohup``) stays ignored. ``signum`` is the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signum: int | None = None

    def __enter__(self) -> "StopRequest":
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            reading, self._writing = os.pipe()
            os.set_blocking(self._writing, False)
            threading.Thread(target=self._watch, args=(reading,), daemon=True).start()
            heard = [s for s in SIGNALS if s.name != "SIGHUP" or signal.getsignal(s) is not signal.SIG_IGN]
            self._previous = {s: signal.signal(s, lambda *_: None) for s in heard}
            self._previous_fd = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous:
            signal.set_wakeup_fd(self._previous_fd)
            for signum, handler in self._previous.items():
                signal.signal(signum, handler)
            os.close(self._writing)

    def _watch(self, reading: int) -> None:
        asked = 0.0
        while byte := os.read(reading, 1):
            signum = byte[0]
            if signum not in SIGNALS:
                continue
            if self.signum is not None and time.monotonic() - asked < TOGETHER:
                continue
            if self.signum is not None:
                _say(b"\nasked again: ending at once, without saving\n")
                os._exit(128 + signum)
            asked = time.monotonic()
            self.signum = signum
            _say(b"\nasked to stop: saving; ask again to end at once\n")
        os.close(reading)

    def check(self) -> None:
        """Raise `Stopped` when a signal came."""
        if self.signum is not None:
            raise Stopped(self.signum)


def _say(text: bytes) -> None:
    with contextlib.suppress(OSError):  # the standard error may be closed, its reader or its terminal gone
        os.write(2, text)
