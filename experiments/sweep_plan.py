"""What a sweep trains: the options of ``sweep.py``, their grid, and the members that they mean."""

import dataclasses
import difflib
import itertools
import math
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.options import FAMILIES, GANOptions, VAEOptions, parse, value_of
from jaxgen.training import population
from jaxgen.training.loop import Members
from jaxgen.training.run import Run, Spec

LATENT = "latent_dim"  # swept by masking: the model has the largest
TRIAL = (0.25, 0.5)  # numbers that every option which is a number takes
USAGE = """usage: sweep.py {vae,gan} --over FIELD=VALUE,VALUE,... [--over ...] [--seeds N] [options of train.py]

  --over FIELD=VALUE,...   an option of train.py and the values to try; several make a grid
  --seeds N                seeds of each setting, from --seed on (default 3)
  --members HOW            in_turn or together; by default what is faster on this platform

"""


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep.

    ``options`` are those with which train.py trains the same run, but for the latent size, which is a mask here.
    """

    setting: dict[str, float]
    options: VAEOptions | GANOptions
    spec: Spec

    @property
    def latent_size(self) -> int | None:
        """Latent dimensions in use; None for all."""
        size = self.setting.get(LATENT)
        return None if size is None else int(size)

    def __str__(self) -> str:
        return " ".join([*(f"{name}={value:g}" for name, value in self.setting.items()), f"seed={self.options.seed}"])


@dataclasses.dataclass(frozen=True)
class Plan:
    """A grid of options, and how many seeds of each setting."""

    options: VAEOptions | GANOptions
    over: dict[str, tuple[float, ...]]
    seeds: int
    how: Members | None = None

    @property
    def family(self) -> str:
        """``"vae"`` or ``"gan"``."""
        return next(name for name, kind in FAMILIES.items() if isinstance(self.options, kind))

    def check(self) -> None:
        """Refuse what no data set could make right."""
        self.options.check()
        if self.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {self.seeds}")
        unset = dataclasses.replace(self.options, mesh=None, coordinator=None, skip_bad_steps=0, init_from=None)
        for field in dataclasses.fields(self.options):
            if getattr(self.options, field.name) != getattr(unset, field.name):
                raise ValueError(
                    f"--{field.name.replace('_', '-')} is not for sweeps, which train from the beginning on one device "
                    "and leave out a member that diverges: use train.py"
                )

    def settings(self) -> list[dict[str, float]]:
        """The grid: every combination of values, the last field's changing fastest."""
        return [dict(zip(self.over, values, strict=True)) for values in itertools.product(*self.over.values())]

    def members(self, image_shape: tuple[int, ...], num_classes: int | None) -> list[Member]:
        """Every member: all seeds of the first setting, of the second, and so on."""
        self._check_fields(image_shape, num_classes)
        made: list[Member] = []
        for setting in self.settings():
            changes = {name: value for name, value in setting.items() if name != LATENT}
            for seed in range(self.options.seed, self.options.seed + self.seeds):
                options = _with(self.options, {**changes, "seed": seed})
                spec = made[-1].spec if made and made[-1].setting == setting else None
                made.append(Member(setting, options, spec or options.spec(image_shape, num_classes)))
        return made

    def _check_fields(self, image_shape: tuple[int, ...], num_classes: int | None) -> None:
        known = [field.name for field in dataclasses.fields(self.options)]
        dynamic = dynamic_options(self.options, image_shape, num_classes)
        listed = f"--over may vary {', '.join(dynamic)} here"
        for name in self.over:
            if name == "seed":
                raise ValueError("--over seed: seeds are given by --seeds N and --seed FIRST")
            if name not in known:
                close = difflib.get_close_matches(name, dynamic, n=1)
                meant = f"; did you mean {close[0]}?" if close else ""
                raise ValueError(f"--over {name}: train.py has no such option{meant} {listed}")
            if name not in dynamic:
                raise ValueError(
                    f"--over {name}: static with these options: it makes another program, is scheduled, or plays no "
                    f"part. {listed}; for the rest run train.py once a value"
                )


def _with(options: VAEOptions | GANOptions, changes: dict[str, Any]) -> VAEOptions | GANOptions:
    return dataclasses.replace(options, **changes)


def dynamic_options(
    options: VAEOptions | GANOptions, image_shape: tuple[int, ...], num_classes: int | None
) -> list[str]:
    """Options that are nothing but numbers in a state: they may differ between members of one program."""
    found = [LATENT]
    for name, kind in typing.get_type_hints(type(options)).items():
        if kind not in (float, float | None):
            continue
        try:
            specs = [_with(options, {name: value}).spec(image_shape, num_classes) for value in TRIAL]
        except (ValueError, TypeError):
            continue
        if specs[0] != specs[1] and not population.static_differences(*specs):
            found.append(name)
    return sorted(found)


def _axis(text: str) -> tuple[str, tuple[float, ...]]:
    """``latent_dim=2,4`` -> its name and numbers."""
    name, _, listed = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    values = []
    for part in listed.split(",") if listed.strip() else []:
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"--over {name}: expected finite numbers with commas between them, got {part.strip()!r}")
        if name == LATENT and not (value.is_integer() and value >= 1):
            raise ValueError(f"--over {name}: expected whole numbers of at least 1, got {part.strip()!r}")
        values.append(value)
    if not name or not values:
        raise ValueError(f"--over must be like learning_rate=1e-3,3e-4, got {text!r}")
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"--over {name}: {twice[0]:g} is there twice; for repetitions use --seeds")
    return name, tuple(values)


def _axes(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    over: dict[str, tuple[float, ...]] = {}
    for name, values in map(_axis, texts):
        if name in over:
            raise ValueError(f"--over {name} is there twice: put all its values into one list")
        over[name] = values
    return over


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--seeds must be a whole number, got {text!r}") from None


def _take(arguments: Sequence[str], flags: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(what follows each of these flags, the rest of the command line)."""
    taken: dict[str, list[str]] = {flag: [] for flag in flags}
    rest = []
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in taken:
            rest.append(word)
        elif equals:
            taken[flag].append(value)
        else:
            taken[flag].append(next(words, ""))
    return taken, rest


def parse_plan(arguments: Sequence[str]) -> Plan:
    """The plan of the command line; what is not given comes from the sweep to resume, or from the defaults."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
    taken, rest = _take(arguments, ("--over", "--seeds", "--members"))
    options = parse(rest, "sweep.py")
    saved: dict[str, Any] | None = None
    if options.resume and options.workdir is not None and Run.exists(options.workdir):
        saved = Run.open(Path(options.workdir)).config["identity"].get("sweep")
    over = _axes(taken["--over"])
    if not over and saved is not None:
        over = {name: tuple(values) for name, values in saved["over"].items()}
    seeds = _whole(taken["--seeds"][-1]) if taken["--seeds"] else 3 if saved is None else saved["seeds"]
    how: Any = taken["--members"][-1] if taken["--members"] else None
    if how not in (None, *typing.get_args(Members)):
        raise ValueError(f"--members must be {' or '.join(typing.get_args(Members))}, got {how!r}")
    asked = [value_of(rest, flag) for flag in ("--latent-dim", "--latent_dim")]
    if LATENT in over and saved is None and asked == [None, None]:
        options = dataclasses.replace(options, latent_dim=int(max(over[LATENT])))
    return Plan(options, over, seeds, how)


def keys(members: Sequence[Member]) -> jax.Array:
    """The typed key of each member's run, [M]."""
    return jax.numpy.stack([jax.random.key(member.options.seed) for member in members])
