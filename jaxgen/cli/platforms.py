"""What JAX is told by its environment: where to compute, and how to compile."""

import importlib.util
import logging
import mmap
import os
from pathlib import Path

from jaxgen.cli.options import UsageError

# As in `jaxgen.platform`, which imports JAX.
RIGHT = "--xla_cpu_experimental_ynn_fusion_type=-reduce"


def knows(flag: str) -> bool:
    """Whether the jaxlib that is here knows a flag of XLA, ``--name``: it ends a process that is given another one."""
    found = importlib.util.find_spec("jaxlib")
    places = [] if found is None else found.submodule_search_locations or []
    for library in filter(Path.is_file, (Path(place) / "libjax_common.so" for place in places)):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(flag.removeprefix("--").encode() + b"\0") >= 0
    return False


def compile_rightly() -> None:
    """Set `RIGHT` in XLA_FLAGS, before JAX starts, where nobody has said otherwise and this jaxlib knows it."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    if flags and not flags[0].startswith("--"):  # a file of flags
        return
    names = [flag.partition("=")[0] for flag in flags]
    unknown = [name for name in names if not knows(name)]
    if unknown:
        raise UsageError(f"XLA_FLAGS has {unknown[0]}, which this jaxlib does not know: leave it out")
    name = RIGHT.partition("=")[0]
    if name not in names and knows(name):
        os.environ["XLA_FLAGS"] = " ".join([*flags, RIGHT])


def missing_platform() -> str | None:
    """What is wrong with JAX_PLATFORMS, in one line; None where it names what is here, or nothing."""
    named = os.environ.get("JAX_PLATFORMS", "")
    if not named:
        return None
    import jax  # slow

    logging.disable(logging.CRITICAL)  # it is said below
    try:
        jax.devices()
    except Exception:  # of whatever kind: a bare assertion, too
        jax.config.update("jax_platforms", None)
        here = ", ".join(sorted({"cpu", jax.devices()[0].platform}))
    else:
        return None
    finally:
        logging.disable(logging.NOTSET)
    return f"JAX_PLATFORMS is {named!r}, and not all of that is here: there is {here}; name that, or leave it unset"
