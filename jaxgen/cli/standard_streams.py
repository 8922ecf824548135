"""Printing to somebody who may be gone: a reader that has ended, a terminal that was closed."""

import contextlib
import errno
import io
import os
import sys
from typing import Any

# A full disk is none of them: what a command prints into a file is not to be lost in silence.
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)


class _Outliving(io.FileIO):
    """A descriptor that leads nowhere once nobody reads what is written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(data)


def open_closed_descriptors() -> None:
    """Give the standard descriptors that are closed (``2>&-``) a place that leads nowhere.

    The first file that is opened would get the number of one, and the messages of native code would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets this number, the lowest that is free


def outlive_readers() -> None:
    """Have prints to the standard output and error, line by line, never end this process for want of a reader."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue  # somebody else's, such as a test's, or ours
        if stream is not None:
            with contextlib.suppress(OSError):  # what an import has said, to nobody
                stream.flush()
        raw = _Outliving(number, "w", closefd=False)
        encoding, errors = getattr(stream, "encoding", "utf-8"), getattr(stream, "errors", "backslashreplace")
        if errors == "strict":  # a path may have letters that the terminal has not
            errors = "backslashreplace"
        setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=True))
