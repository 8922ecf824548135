"""What every command does with its errors."""

import asyncio
import logging
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import tyro

from jaxgen.cli.compilation_cache import keep_compiled_programs
from jaxgen.cli.options import UsageError, check_numbers, refuse_empty
from jaxgen.cli.platforms import compile_rightly, missing_platform
from jaxgen.cli.standard_streams import outlive_readers
from jaxgen.training.stopping import Stopped
from jaxgen.untrusted import printed

T = TypeVar("T")


def only_of_asyncio(trace: TracebackType | None) -> bool:
    """Whether an exception came about in asyncio, called by native code: that is, in what Orbax left running."""
    home, found = Path(asyncio.__file__).parent, trace is not None
    while trace is not None:
        found = found and Path(trace.tb_frame.f_code.co_filename).parent == home
        trace = trace.tb_next
    return found


def silence_what_orbax_leaves() -> None:
    """Print no traceback of what goes on in threads of Orbax's after it has raised its error, which is printed."""
    # It prints that of every task that an error ends; and more come of its event loops, which are closed by then.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if sys.excepthook is sys.__excepthook__ and sys.unraisablehook is sys.__unraisablehook__:  # not a test's

        def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            if not only_of_asyncio(trace):
                sys.__excepthook__(kind, error, trace)

        def unraisable(told: Any) -> None:
            if not only_of_asyncio(told.exc_traceback):
                sys.__unraisablehook__(told)

        sys.excepthook, sys.unraisablehook = uncaught, unraisable
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def exit_status(
    read: Callable[[], T], act: Callable[[T], object], go_on: str | None = None, words: Sequence[str] = ()
) -> int:
    """Read a command line and act on it: 0; 1 and one line on the standard error for what the person who called it can
    put right, 2 where that is the command line itself; or 128 and the number of the signal that stopped it. The
    ``words`` are that line, where it can be said again with what it lacks."""
    outlive_readers()
    silence_what_orbax_leaves()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it draws without a home, and would say so in two lines
    try:
        compile_rightly()
        options = read()
        keep_compiled_programs()
        act(options)
    except Stopped as stopped:
        print(f"{stopped}: everything is saved, {go_on or stopped.go_on or 'go on with --resume'}", file=sys.stderr)
        return stopped.status
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        lacks = getattr(error, "options", None)
        whole = f"; the whole command is: {shlex.join([*words, *lacks])}" if words and lacks else ""
        whole = whole if whole.isprintable() else ""  # a line break in it would be another line
        print(f"error: {printed(str(error) or type(error).__name__)}{whole}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except MemoryError as error:
        print(f"error: there is not enough memory: {printed(str(error)) or 'ask for less'}", file=sys.stderr)
        return 1
    except (RuntimeError, AssertionError) as error:
        if "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error):  # as XLA says it
            print(f"error: there is not enough memory: {printed(str(error).splitlines()[0])}", file=sys.stderr)
            return 1
        missing = missing_platform()
        if missing is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        return 1
    return 0


def read(parser: Callable[..., T], kinds: Any, arguments: Sequence[str] | None, program: str) -> T:
    """What a parser of tyro's makes of a command line, its numbers within their intervals."""
    given = sys.argv[1:] if arguments is None else arguments
    refuse_empty(given)
    options = parser(kinds, args=given, prog=program)
    check_numbers(options)
    return options


def command(kind: type[T], act: Callable[[T], object], program: str, **more: str) -> Callable[..., int]:
    """The function ``main`` of a command whose options are a dataclass: it prints what acting on them returns."""

    def tell(options: T) -> None:
        found = act(options)
        if found is not None:
            print(found)

    def main(arguments: Sequence[str] | None = None) -> int:
        return exit_status(lambda: read(tyro.cli, kind, arguments, program), tell, **more)

    return main
