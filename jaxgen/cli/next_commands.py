"""What to type next, as lines that can be pasted: how a stopped run goes on, and what one that ended is good for."""

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxgen.cli.options import Options, flag
from jaxgen.cli.parsing import saved_options
from jaxgen.families import family_of
from jaxgen.training.run import Run
from jaxgen.training.stopping import Stopped

# Not to be repeated: how this session began.
_BEGINNING = ("config", "workdir", "resume", "requeue", "init_from", "partial", "architecture")


@contextlib.contextmanager
def saying_how_to_go_on(options: Options, run: Run, verb: str = "train", more: str = "") -> Iterator[None]:
    """Have a stop inside say which command goes on."""
    try:
        yield
    except Stopped as stopped:
        stopped.go_on = f"go on with: {resume_command(options, run, verb)}{more}"
        raise


def resume_command(options: Options, run: Run, verb: str = "train") -> str:
    """The command that goes on with a run under the same options, of which its config holds most."""
    saved = saved_options(run)
    kept, paths = options.saved(), options.settings().get("paths", {})
    words = []
    for field in dataclasses.fields(options):
        value, was = getattr(options, field.name), getattr(saved, field.name)
        same = value == was or paths.get(field.name, kept[field.name]) == was
        if field.name not in _BEGINNING and not (same if field.metadata["saved"] else value == field.default):
            words += _typed(field.name, value)
    return shlex.join(["jaxgen", verb, options.family, "--workdir", str(run.directory), "--resume", *words])


def _typed(name: str, value: Any) -> list[str]:
    """An option on a command line."""
    if isinstance(value, bool):
        return [flag(name) if value else f"--no-{flag(name)[2:]}"]
    return [flag(name), *map(str, value if isinstance(value, tuple) else (value,))]


def next_commands(directory: Path) -> list[str]:
    """What to do with a run or a sweep that has ended, a command each."""
    run = Run.open(directory)
    if "sweep" in run.config["identity"]:
        found = json.loads((directory / "results.json").read_text())
        whole = [f"{each['member']:03d}" for each in found["members"] if not each["diverged"]]
        scores = list(found["settings"][0]["scores"])[:1]
        curves = [["plot", str(directory), "--metric", *scores]]
        return [*_of_a_run(directory / "members" / whole[0]), *map(_line, curves if scores else [])]
    return [*_of_a_run(directory), _line(["plot", str(directory)])]


def _of_a_run(directory: Path) -> list[str]:
    """To draw from a run, or encode with it, to measure it, and to show it on a page."""
    run = Run.open(directory)
    pictures = len(run.config["identity"]["data"]["image_shape"]) == 3
    draws = ["sample", str(directory), *([] if pictures else ["--out", "samples.npz"])]
    encodes = ["encode", str(directory), "--split", "train", "--out", "latents.npz"]
    return [
        _line(draws if family_of(run.spec).sample is not None else encodes),
        _line(["evaluate", str(directory)]),
        *([_line(["compare", "--runs", str(directory), "--out", str(directory / "page")])] if pictures else []),
    ]


def _line(words: list[str]) -> str:
    return shlex.join(["jaxgen", *words])
