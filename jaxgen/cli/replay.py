"""Do the step that went wrong in a run again, and show the operation that made the first NaN.

jaxgen replay runs/gan-001
"""

import dataclasses
import traceback
from pathlib import Path
from typing import Annotated

import tyro

from jaxgen.cli.exit_status import command
from jaxgen.training import sentinel
from jaxgen.training.run import Run

OF_JAX = ("jax", "flax", "optax")  # packages whose frames say less than those of the model

MOST = 12  # findings shown


@dataclasses.dataclass(frozen=True)
class Options:
    """Do the step that went wrong in a run again."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory, with bad_step/ in it."""


def where(error: BaseException) -> str:
    """The innermost line of the model in a traceback, as FILE:LINE, function and code."""
    frames = traceback.extract_tb(error.__traceback__)
    packages = [f"/{name}/" for name in (*OF_JAX, "jaxlib")]
    own = [frame for frame in frames if not any(name in frame.filename for name in packages)] or frames
    frame = own[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"


def replay(options: Options) -> None:
    """Show what was kept and do the step again; an error when it does not go wrong this time."""
    run = Run.open(options.run)
    bad = sentinel.load(run.directory, run.shapes())
    print(bad)
    for finding in bad.findings[:MOST]:
        print(f"  {finding}")
    if len(bad.findings) > MOST:
        print(f"  and {len(bad.findings) - MOST} more")
    found = sentinel.replay(run.spec, bad)
    if found is None:
        raise ValueError(
            f"step {bad.number} was finite this time: it depends on more than its state, batch and key, such as the "
            "machine, or operations that are not deterministic"
        )
    kind, error = found
    print(f"again: {kind}: {str(error).splitlines()[0]}")
    print(f"at {where(error)}")


main = command(Options, replay, "jaxgen replay")
