"""Files of a run: written whole or not at all, by one process at a time."""

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

_LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)  # said by file systems that have none


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """A context that names the path in errors of what is written there: the system's often say only "disk full"."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        # OSError makes what the number means: a BlockingIOError stays one.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def check_place(path: Path) -> None:
    """Refuse, before any work is done for it, a path where no file can be written; its folder need not be there yet."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {there} is no folder")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{path} cannot be written: {there} may not be changed")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: what is there stays until the new one is complete and on the disk.

    A context that gives the path to write to, of the suffix of ``path``, whose folder is made.
    """
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
        except OSError as error:
            if error.filename != str(partial):
                raise
            raise OSError(error.errno, error.strerror, str(path)) from error  # which was asked for
        finally:
            with contextlib.suppress(OSError):  # of it is told what went wrong first
                partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file of text in UTF-8, whole or not at all; its folder is made."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold a directory for this process alone; the system takes the lock back when the process ends, however it ends.

    A context. ``.lock`` in the folder, which exists, says who holds it: BlockingIOError names that process. On POSIX
    systems; where the file system has no locks, a line on the standard error says so.
    """
    import fcntl

    path = directory / _LOCK
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no file: remove it, or use another folder")
    # Never removed: a process that waits at a removed file would not see the one that is made next.
    with path.open("a+b", buffering=0) as file:
        try:
            with naming(path):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = " ".join(file.read(200).decode(errors="replace").split()) or "a process that has just begun"
            raise BlockingIOError(
                f"{directory} is in use by {holder}: wait for it, stop it, or use another folder"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            why = f"its file system has no locks ({error.strerror})"
            print(f"warning: {directory} is not locked, as {why}: use it with one command at a time", file=sys.stderr)
        with naming(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {json.dumps(socket.gethostname())}\n".encode())
        try:
            yield
        finally:
            file.truncate(0)
