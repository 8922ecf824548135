"""Commands made at random from the fields of all options, held against what every command promises of bad input.

    uv run python -m tests.fuzz --count 300
    uv run python -m tests.fuzz --seed 7 --only 41      # one of them again, with what it printed

The verbs of jaxgen, and the scripts of experiments/, are given numbers inside and outside of their intervals, wrong
words, odd and missing paths, and options that do not go together. Whatever is given: no traceback; no silence of half a
minute; no more than 4 GB; and where it is refused, one line (or the usage) and nothing left behind. Each command is the
function that the program calls, in a process of its own, forked when everything slow has been imported; --processes
starts the program itself.
"""

import argparse
import atexit
import contextlib
import dataclasses
import gc
import importlib
import os
import pkgutil
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
import typing
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

SECONDS = 30.0  # of silence, in processor time
ENOUGH = 4.0  # after which a command that says what it does is asked to stop
MOST_BYTES = 4e9
# Machine code that is soon made: what is asked here is not how fast it is.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
TINY = "--batch-size 4 --steps 2"
MLP = f"{TINY} --generator-hidden 8 --discriminator-hidden 8"
# How the runs are made that commands are about.
RUNS = {
    "vae": f"train vae {TINY} --hidden 8 --latent-dim 3 --workdir vae",
    "gan": f"train gan {MLP} --latent-dim 3 --conditional --workdir gan",
    "tokenizer": f"train tokenizer {TINY} --width 2 --bottleneck fsq --discriminator none --workdir tokenizer",
    "sweep": f"sweep vae {TINY} --hidden 8 --latent-dim 3 --over beta=1,2 --seeds 1 --workdir sweep",
}
# What commands begin with, such that they are soon done; and words in the place of their positional arguments.
SMALL: dict[str, str] = {
    "train vae mlp": f"{TINY} --hidden 8 --latent-dim 3 --workdir new",
    "train vae conv": f"{TINY} --width 2 --latent-dim 3 --workdir new",
    "train gan mlp": f"{MLP} --latent-dim 3 --workdir new",
    "train gan maxout": f"{TINY} --generator-hidden 8 --maxout-hidden 4 --latent-dim 3 --workdir new",
    **{
        f"train gan {name}": f"{TINY} --width 2 --latent-dim 3 --workdir new" for name in ("dcgan", "infogan", "resnet")
    },
    "train gan grid": f"{TINY} --width 2 --latent-dim 3 --latents tokenizer --codes nearest --workdir new",
    "train tokenizer": f"{TINY} --width 2 --discriminator-width 2 --adversarial-start 1 --workdir new",
    "sweep": f"{TINY} --hidden 8 --latent-dim 3 --over beta=1,2 --seeds 1 --workdir new",
    "sample": "--num 4 --out new.png",
    "encode": "--out new.npz",
    "evaluate": "--num 20 --measures frechet --extractor pixels --out new",
    "explore": "--out new",
    "export": "--platforms cpu --out new",
    "plot": "--metric test_elbo --out new.png",
    "compare": "--runs vae gan --measures frechet --num 20 --out new",
    "replay": "",
    "experiments.gaussians": "--steps 2 --seeds 2 --batch-size 4 --num-samples 20 --methods plain --out new.png",
    "experiments.corruptions": "--num-images 20 --out new.png",
    "experiments.reproduce": "--minutes 0.001 --workdir new",
    "experiments.augment": "--labels 4 --seeds 2 --generated 2 --steps 2 --gan-steps 2 --vae-steps 2 --batch-size 4 "
    "--generator-batch-size 4 --out new",
    "experiments.train_classifier": "--epochs 1 --out new.safetensors",
    "experiments.convert_inception": "",
    "experiments.pytorch.convert_vgg": "",
}
SMALL_OF_EXPLORE = {
    "complete": "--num 2 --temperatures 2 --num-samples 1",
    "interpolate": "--num 2 --frames 2 --steps 2",
    "invert": "--num 2 --steps 2 --num-restarts 1",
    **dict.fromkeys(("neighbours", "truncate", "manifold", "scatter"), "--num 9"),
    "attribute": "--num 2 --with-label 1 --without-label 3 --num-examples 4 --steps 2",
}
POSITIONAL: dict[str, tuple[str, ...]] = {
    "run": ("vae", "gan", "tokenizer"),
    "runs": ("vae", "gan", "tokenizer", "vae gan", "sweep", "npz:images.npz"),
    "model": ("vae", "gan", "tokenizer"),
    "source": ("vae", "gan", "tokenizer", "text"),
    "target": ("new.safetensors",),
    "name": ("flax_vae", "burda_vae_1"),
}
RIGHT: dict[str, tuple[str, ...]] = {  # texts that are what an option is for
    "dataset": ("fashion_mnist_small", "npz:images.npz", "gaussians", "stacked:fashion_mnist_small", "npz:vectors.npz"),
    "images": ("fashion_mnist_small", "npz:images.npz"),
    "extractor": ("none", "pixels", "lenet_mnist", "auto"),
    "reference": ("test", "train", "npz:images.npz"),
    "checkpoint": ("newest", "best", "2"),
    "train_split": ("train", "train[:50%]", "train[:100]"),
    "test_split": ("test", "test[:50]"),
    "split": ("train", "test"),
    "measures": ("frechet", "precision_recall", "standard"),
    "metric": ("test_elbo", "loss"),
    "platforms": ("cpu",),
    "image_size": ("16", "16x12"),
    "label": ("1", "bag"),
    "labels": ("one",),
    "mesh": ("data=1",),
    "config": ("binarized_vae", "dcgan", "tokenizer_fsq"),
    "init_from": ("vae", "gan", "tokenizer"),
    "methods": ("plain", "R1"),
    "workdir": ("new", "new/deep"),
    "out": ("new", "new.png", "new.npz", "new/deep/one.png"),
    "notes": ("a b",),
}
LONG = "x" * 4000
ODD = (
    "nowhere",
    "text",
    "folder",
    "text/below",
    "two\nlines",
    f"{LONG}",
    "~nobody/x",
    "/proc/new",
    "é\u2028ü",
    "-",
    ".",
)
ODD_PREFIXED = (
    "npz:text",
    "npz:nowhere",
    "npz:two\nlines",
    "folder:folder",
    "folder:text",
    "idx:nowhere",
    "inception:text",
)
WHOLE = ("-1", "0", "1000000000", "2147483647", "2147483648", "1" + "0" * 400, "many", "3.5")
REAL = ("nan", "inf", "-inf", "-1", "0", "1", "1e9", "1e30", "1e-30", "1e300", "many")


class Command(NamedTuple):
    """A command line, by the program that it is given to."""

    program: str  # "jaxgen", or a module of experiments/
    words: tuple[str, ...]

    def __str__(self) -> str:
        started = "jaxgen" if self.program == "jaxgen" else f"experiments/{self.program.rpartition('.')[2]}.py"
        return " ".join(
            [started, *(shlex.quote(word if len(word) < 200 else f"{word[:20]}...") for word in self.words)]
        )


class Kind(NamedTuple):
    """What is fuzzed: a program, how its command lines begin, its options, and what makes them small."""

    program: str
    begins: tuple[str, ...]
    options: Any
    small: str


def kinds() -> list[Kind]:
    """All there is."""
    import jaxgen
    from jaxgen.cli import explore
    from jaxgen.cli.main import VERBS
    from jaxgen.cli.parsing import FAMILIES

    for found_there in pkgutil.walk_packages(jaxgen.__path__, "jaxgen."):  # what commands import when they need it
        if not found_there.name.endswith("__main__"):
            importlib.import_module(found_there.name)
    found = []
    for family, kind in FAMILIES.items():
        if not kind.architectures:
            found.append(Kind("jaxgen", ("train", family), kind, SMALL[f"train {family}"]))
        for name, own in kind.architectures.items():
            found.append(
                Kind("jaxgen", ("train", family, "--architecture", name), own, SMALL[f"train {family} {name}"])
            )
    found.append(Kind("jaxgen", ("sweep", "vae"), FAMILIES["vae"].architectures["mlp"], SMALL["sweep"]))
    for name, (chosen, _) in explore.COMMANDS.items():
        small = f"{SMALL['explore']} {SMALL_OF_EXPLORE.get(name, '')}"
        found.append(Kind("jaxgen", ("explore", name), chosen, small))
    for verb in VERBS:
        if verb not in ("train", "sweep", "explore"):
            module = importlib.import_module(f"jaxgen.cli.{verb}")
            found.append(Kind("jaxgen", (verb,), module.Options, SMALL[verb]))
    for program in (name for name in SMALL if name.startswith("experiments.")):
        found.append(Kind(program, (), importlib.import_module(program).Options, SMALL[program]))
    return found


def fields_of(kind: Any) -> dict[str, Any]:
    """The hints of the fields of options by name, those of nested ones among them."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        bare = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        if dataclasses.is_dataclass(bare):
            found |= fields_of(bare)
        elif name not in ("family", "architectures"):
            found[name] = hint
    return found


def is_positional(hint: Any) -> bool:
    import tyro

    marker = typing.get_args(tyro.conf.Positional[int])[1]
    return marker in getattr(hint, "__metadata__", ())


def parts_of(hint: Any) -> set[Any]:
    """The simple types and literals in a hint."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return {hint}
    if origin is typing.Annotated:
        return parts_of(typing.get_args(hint)[0])
    return (
        set().union(*(map(parts_of, typing.get_args(hint))))
        if origin is not None or isinstance(hint, types.UnionType)
        else {hint}
    )


def value(draw: random.Random, name: str, hint: Any, right: bool) -> list[str]:
    """Words for an option: such as it takes, or others."""
    from jaxgen import intervals

    parts = parts_of(hint)
    several = tuple in {typing.get_origin(hint), *map(typing.get_origin, typing.get_args(hint))}
    what = intervals.declared_in(hint)
    choices = [str(choice) for part in parts if typing.get_origin(part) is Literal for choice in typing.get_args(part)]
    if name in RIGHT and right:
        return draw.choice(RIGHT[name]).split() if several else [draw.choice(RIGHT[name])]
    if choices:
        return [draw.choice(choices)] if right else [draw.choice(["other", "", choices[0].upper(), "1"])]
    if what is not None:
        low = max(what.interval.low, 0)
        near = [low + step for step in ((0, 1, 2, 3) if what.whole else (0.0, 0.25, 0.5))]
        count = (2 if name == "logvar_bounds" else draw.choice((1, 2))) if several else 1
        numbers = [str(draw.choice([each for each in near if each in what.interval])) for _ in range(count)]
        return numbers if right else [draw.choice(WHOLE if what.whole else REAL), *numbers[1:]]
    if right:
        return ["new"]
    return [draw.choice([*ODD, *ODD_PREFIXED, ""])]


def command(kinds: Sequence[Kind], seed: int, number: int) -> Command:
    """The command of a number, which depends on the seed and on it alone."""
    draw = random.Random(f"{seed} {number}")
    kind = draw.choice(kinds)
    fields = fields_of(kind.options)
    given: dict[str, list[str]] = {}
    name = ""
    for word in kind.small.split():
        name = word if word.startswith("--") else name
        given.setdefault(name, []).extend([] if word.startswith("--") else [word])
    positional: list[str] = []
    for place, hint in fields.items():
        if is_positional(hint):
            right = draw.random() < 0.85
            positional += (
                draw.choice(POSITIONAL[place]).split() if right else [draw.choice([*ODD, *ODD_PREFIXED, "sweep", ""])]
            )
    options = [name for name, hint in fields.items() if not is_positional(hint) and name != "architecture"]
    wrong = draw.random() < 0.8
    chosen = draw.sample(options, min(len(options), draw.choice((1, 1, 2, 3))))
    for order, name in enumerate(chosen):
        hint, word = fields[name], f"--{name.replace('_', '-')}"
        if parts_of(hint) - {types.NoneType} == {bool}:
            given.pop(word, None)
            given[draw.choice((word, f"--no-{word[2:]}"))] = [] if draw.random() < 0.9 else ["maybe"]
        else:
            given[word] = value(draw, name, hint, right=not (wrong and order == 0))
    if draw.random() < 0.05:
        given[draw.choice(("--nothing", "--laern-rate", "--steps"))] = draw.choice(([], ["1"]))
    if kind.begins[:1] == ("sweep",) and draw.random() < 0.5:
        given["--over"] = [
            draw.choice(("beta=1,x", "b1=5", "latent_dim=0", "hidden=3", "beta", "beta=nan", "beta=1:2", ""))
        ]
        given["--seeds"] = [draw.choice(("1", "0", "-1", "1000000000", "many"))]
    words = [word for name, values in given.items() for word in (name, *values)]
    begins = (
        [word for word in kind.begins if word not in ("--architecture",)] if "--config" in given else list(kind.begins)
    )
    if "--config" in given:
        begins = begins[:2]
    first = draw.random() < 0.8  # positional ones
    return Command(kind.program, tuple([*begins, *positional, *words] if first else [*begins, *words, *positional]))


def run_here(command: Command) -> int:
    """What the program does: its exit status."""
    if command.program == "jaxgen":
        from jaxgen.cli.main import main

        return main(list(command.words))
    return importlib.import_module(command.program).main(list(command.words))


def child(command: Command, folder: Path, processes: bool) -> None:
    """In a forked process: run a command in a folder, as the interpreter runs a program, and end."""
    status = 1
    try:
        os.chdir(folder)
        os.setpgid(0, 0)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(
                os.open(folder.with_name(f"{folder.name}.{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor
            )
        # Which the system does not enforce, and commands go by.
        resource.setrlimit(resource.RLIMIT_RSS, (int(MOST_BYTES * 0.75), resource.RLIM_INFINITY))
        sys.argv = [command.program, *command.words]
        if processes:
            module = "jaxgen" if command.program == "jaxgen" else command.program
            os.execv(sys.executable, [sys.executable, "-m", module, *command.words])
        threading.excepthook = lambda told: sys.excepthook(told.exc_type, told.exc_value, told.exc_traceback)  # type: ignore[arg-type]
        status = run_here(command)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # as the interpreter does
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def usage_of(pid: int) -> tuple[float, float]:
    """(seconds of processor time, bytes of memory) of a process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"), int(stat[21]) * os.sysconf("SC_PAGE_SIZE")


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """What is in a folder: sizes and times of change."""
    found = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        found[str(path.relative_to(folder))] = (-1, 0) if path.is_dir() else (stat.st_size, stat.st_mtime_ns)
    return found


class Outcome(NamedTuple):
    """What became of a command, and what is wrong with that."""

    what: str
    faults: list[str]
    said: str
    seconds: float


def outcome(command: Command, folder: Path, processes: bool = False) -> Outcome:
    """Run a command in a folder, watch it, and judge it."""
    out, err = (folder.with_name(f"{folder.name}.{name}") for name in ("stdout", "stderr"))
    for path in (out, err):
        path.write_text("")
    before, began = tree(folder), time.monotonic()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        child(command, folder, processes)
    with contextlib.suppress(OSError):  # as the child does: whoever is first
        os.setpgid(pid, pid)
    faults: list[str] = []
    asked, most, status = False, 0.0, 0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        seconds, size = usage_of(pid)
        most = max(most, size)
        said = out.stat().st_size + err.stat().st_size > 0
        silent = seconds > SECONDS or time.monotonic() - began > 6 * SECONDS
        if most > MOST_BYTES or silent:
            faults.append(f"{most / 1e9:.1f} GB" if most > MOST_BYTES else f"{seconds:.0f} s of processor time")
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        if seconds > ENOUGH and said and not asked:
            asked = True
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.02)
    took = time.monotonic() - began
    printed, error = (path.read_text(errors="replace") for path in (out, err))
    if faults:
        return Outcome("fault", faults, printed + error, took)
    code = os.waitstatus_to_exitcode(status)
    if "Traceback (most recent call last)" in printed + error:
        faults.append("traceback")
    if code < 0 and not (asked and code == -signal.SIGTERM):
        faults.append(f"died of signal {-code}")
    if asked or (code == 128 + signal.SIGTERM and error.startswith("stopped by ")):  # --minutes
        return Outcome("fault" if faults else "stopped", faults, printed + error, took)
    if code == 0:
        return Outcome("fault" if faults else "accepted", faults, printed + error, took)
    usage = code == 2 and error.startswith(("╭", "usage"))
    if not usage and (len(error.splitlines()) != 1 or not error.startswith("error: ")):
        faults.append(f"{len(error.splitlines())} lines")
    if not usage and len(error) > 1000:
        faults.append(f"a line of {len(error)} characters")
    after = tree(folder)
    left = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if left:
        faults.append(f"left behind or changed: {', '.join(left[:5])}")
    return Outcome("fault" if faults else "usage" if usage else "refused with one line", faults, printed + error, took)


def prepare(folder: Path) -> None:
    """Make what commands are about: runs, images, and what is none of these."""
    import numpy as np

    folder.mkdir(parents=True)
    for name, words in RUNS.items():
        made = outcome(Command("jaxgen", tuple(words.split())), folder)
        if made.what not in ("accepted", "stopped"):
            raise RuntimeError(f"the run {name} could not be made: {made.said}")
    draw = np.random.default_rng(0)
    np.savez(folder / "images.npz", images=draw.integers(0, 256, (60, 28, 28, 1), np.uint8), labels=np.arange(60) % 10)
    np.savez(folder / "vectors.npz", images=draw.normal(size=(60, 5)).astype("float32"))
    (folder / "text").write_text("nothing that anybody could use\n")
    (folder / "folder").mkdir()


def fuzz(
    numbers: Sequence[int],
    seed: int,
    scratch: Path,
    processes: bool = False,
    tell: Callable[[int, Command, Outcome], object] = lambda *_: None,
) -> Counter[str]:
    """Run the commands of these numbers; how many ended how, those with faults having been told of.

    Args:
      numbers: which commands.
      seed: of all commands.
      scratch: a folder for what they write.
      processes: whether to start the program for each, instead of a fork.
      tell: called with the number, the command and its outcome.
    """
    found, counts = kinds(), Counter[str]()
    fixtures = scratch / "fixtures"
    prepare(fixtures)
    for number in numbers:
        folder = scratch / f"{number:04d}"
        shutil.copytree(fixtures, folder, symlinks=True)
        made = command(found, seed, number)
        ended = outcome(made, folder, processes)
        counts[ended.what] += 1
        tell(number, made, ended)
        shutil.rmtree(folder, ignore_errors=True)
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, and print what came of it; 1 where there are faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Commands at random.")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="0/1", help="I/N: the I-th of N parts of them")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the commands to run, with what they print")
    parser.add_argument("--processes", action="store_true", help="start the program for each command")
    options = parser.parse_args(arguments)
    part, parts = map(int, options.part.split("/"))
    numbers = options.only or range(part, options.count, parts)
    began = time.monotonic()

    def tell(number: int, made: Command, ended: Outcome) -> None:
        if options.only or ended.faults:
            print(f"{number}: {made}\n    {ended.what}, {ended.seconds:.1f} s: {'; '.join(ended.faults)}")
            print("    " + "\n    ".join(ended.said[-3000:].splitlines()[-30:]), flush=True)

    scratch = Path(tempfile.mkdtemp(prefix="jaxgen-fuzz-"))  # not one that children would clear away as they end
    try:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(scratch / "compiled"))
        os.environ["HOME"] = str(scratch)
        os.environ.setdefault("XLA_FLAGS", FLAGS)
        counts = fuzz(numbers, options.seed, scratch, options.processes, tell)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{sum(counts.values())} commands of seed {options.seed} in {time.monotonic() - began:.0f} s: "
          + ", ".join(f"{count} {what}" for what, count in counts.most_common()))  # fmt: skip
    return int(counts["fault"] > 0)


if __name__ == "__main__":
    sys.exit(main())
