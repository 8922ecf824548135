"""The command ``jaxgen``: which verb, and nothing slow before that is known."""

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jaxgen
from jaxgen.cli.standard_streams import open_closed_descriptors, outlive_readers

VERBS = {
    "train": "train a model on images: jaxgen train vae, jaxgen train gan",
    "sample": "draw samples from a trained run",
    "encode": "write the latents of images, for a second stage",
    "evaluate": "measure trained runs, in one table",
    "explore": "pictures of a trained model: complete, interpolate, invert, manifold, scatter, training, ...",
    "export": "write a model as weights, or as programs that run without jaxgen",
    "sweep": "train for several values of an option and several seeds at once",
    "plot": "draw metrics of runs, or scores of sweeps",
    "replay": "do the step again that went wrong in a run",
    "compare": "GAN or VAE? five models, or your runs, on one page",
}
TRAINING = ("train", "sweep")  # which hold a run directory, and know named configurations


def usage() -> str:
    """What there is, a verb a line."""
    lines = ["usage: jaxgen VERB [arguments]    (jaxgen VERB --help lists them; jaxgen --version)", ""]
    lines += [f"  {verb:10}{what}" for verb, what in VERBS.items()]
    return "\n".join(
        [*lines, "", "jaxgen train vae trains on images that are part of the package, and leaves pictures."]
    )


def main(arguments: Sequence[str] | None = None, configurations: Mapping[str, str] | None = None) -> int:
    """The command: returns its exit status.

    Args:
      arguments: the command line after the program's name; that of this process when None.
      configurations: the modules of named configurations, by their names; the recipes of the package when None.

    Returns:
      0; 1 of what went wrong, 2 of a command line that cannot be meant, 128 and the signal's number of a stop.
    """
    open_closed_descriptors()
    outlive_readers()
    verb, *rest = sys.argv[1:] if arguments is None else arguments or [""]
    if verb in ("", "-h", "--help"):
        print(usage())
        return 0 if verb else 2
    if verb == "--version":
        print(f"jaxgen {jaxgen.__version__}")
        return 0
    if verb not in VERBS:
        meant = difflib.get_close_matches(verb, VERBS, n=1)
        print(
            f"error: there is no jaxgen {verb}{f', did you mean {meant[0]}?' if meant else ''} use one of "
            f"{', '.join(VERBS)}",
            file=sys.stderr,
        )
        return 2
    if verb in TRAINING:
        refuse_if_held(rest)
    module = importlib.import_module(f"jaxgen.cli.{verb}")
    return module.main(rest, configurations) if verb in TRAINING and configurations else module.main(rest)


def refuse_if_held(arguments: Sequence[str]) -> None:
    """End with the status 1 when another process holds the ``--workdir``, before anything slow is imported, which takes
    seconds where a training has all the cores; the lock itself is taken later, and whatever else is wrong is found
    then."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    place = words.index("--workdir") + 1 if "--workdir" in words else len(words)
    if place < len(words) and (holder := _holder(Path(words[place]) / ".lock")):
        message = f"{words[place]} is in use by {holder}: wait for it, stop it, or use another --workdir"
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1)


def _holder(lock: Path) -> str:
    """Who holds a lock; nobody where that cannot be told."""
    import fcntl

    holder = ""
    try:
        if lock.is_file():  # a fifo would have us wait
            with lock.open(errors="replace") as file:
                holder = " ".join(file.read(200).split())
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder
    except (OSError, ValueError):  # ValueError: what cannot be a path
        pass
    return ""


if __name__ == "__main__":
    sys.exit(main())
