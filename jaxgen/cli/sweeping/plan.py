"""What a sweep trains: the options of ``jaxgen sweep``, their grid, and the members that they mean."""

import dataclasses
import difflib
import itertools
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxgen import intervals, recipes
from jaxgen.cli.options import Options, check_numbers, check_seeds, flag
from jaxgen.cli.parsing import parse, value_of
from jaxgen.intervals import Count

if TYPE_CHECKING:
    import jax

    from jaxgen.training.loop import Members
    from jaxgen.training.run import Spec

MOST_MEMBERS = 100_000  # who means more means something else
JOINT = "+"  # between the names of options that have one value
MEMBERS = ("together", "in_turn")  # as `jaxgen.training.loop.Members`
LATENT = "latent_dim"  # swept by masking: the model has the largest
TRIAL = (0.25, 0.5)  # numbers that every option which is a number takes
USAGE = """usage: jaxgen sweep {vae,gan} --over FIELD=VALUE,VALUE,... [--over ...] [--seeds N] [options of jaxgen train]

  --over FIELD=VALUE,...   an option of jaxgen train and the values to try; several make a grid
  --over A+B=VALUE,...     the same value for several options
  --random N               N random settings instead of a grid; of ranges, FIELD=LOW:HIGH or FIELD=LOW:HIGH:log, or of
                           lists of values
  --seeds N                seeds of each setting, from --seed on (default 3)
  --members HOW            in_turn or together; by default what is faster on this platform

"""


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep.

    ``options`` are those with which jaxgen train trains the same run, but for the latent size, which is a mask here.
    """

    setting: dict[str, float]
    options: Options
    spec: "Spec"

    @property
    def latent_size(self) -> int | None:
        """Latent dimensions in use; None for all."""
        size = self.setting.get(LATENT)
        return None if size is None else int(size)

    def __str__(self) -> str:
        return " ".join([*(f"{name}={value:g}" for name, value in self.setting.items()), f"seed={self.options.seed}"])


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds, evenly likely, or evenly likely by their logarithm.

    low + (high - low) u,  or low (high / low)^u,  u ~ U[0, 1)

    Raises:
      ValueError: a bound is not finite, they are not in order, or one of a logarithmic range is not above 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"a range needs two finite bounds, the lower one first, got {self.low:g} and {self.high:g}"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs bounds above 0, got {self.low:g}")

    def at(self, share: float) -> float:
        """The number at a share in [0, 1) of the range."""
        if self.log:
            return self.low * (self.high / self.low) ** share
        return self.low + (self.high - self.low) * share


def draw_settings(over: dict[str, Range | tuple[float, ...]], num: int, seed: int) -> tuple[dict[str, float], ...]:
    """Draw random settings: setting i depends on the seed and on i alone, so that more of them begin with the same.

    Args:
      over: what to draw from, by the name of an option, or of several (``"a+b"``) that have one value.
      num: number of settings.
      seed: of the draws.

    Returns:
      Numbers by option, for each setting.

    Raises:
      ValueError: num is below 1, or there is nothing to draw.

    References:
      Bergstra & Bengio 2012, "Random Search for Hyper-Parameter Optimization".
    """
    if num < 1 or not over:
        raise ValueError(f"--random needs at least 1 setting and an --over, got {num} settings of {len(over)} options")
    if num > MOST_MEMBERS:
        raise ValueError(f"--random {num} are more than {MOST_MEMBERS} settings: give fewer")
    import jax  # slow

    from jaxgen.keys import named_key, step_key

    key = named_key(jax.random.key(seed), "random settings")
    settings = []
    for number in range(num):
        shares = {name: jax.random.uniform(step_key(key, name, jax.numpy.int32(number))) for name in over}
        setting: dict[str, float] = {}
        for name, values in over.items():
            share = float(shares[name])
            value = values.at(share) if isinstance(values, Range) else values[int(share * len(values))]
            setting |= dict.fromkeys(name.split(JOINT), value)
        settings.append(setting)
    return tuple(settings)


@dataclasses.dataclass(frozen=True)
class Search:
    """A random search, as a protocol says it; drawn when it is needed.

    Args:
      over: what to draw from: see `draw_settings`.
      num: number of settings.
      usual: one that is tried before the drawn ones, and counts as one of them; names all options.
      seed: of the draws.
    """

    over: dict[str, Range | tuple[float, ...]]
    num: int
    usual: dict[str, float]
    seed: int = 0

    def settings(self, first: int | None = None) -> tuple[dict[str, float], ...]:
        """The first so many settings; all of them when None."""
        num = self.num if first is None else min(first, self.num)
        usual = {name: value for names, value in self.usual.items() for name in names.split(JOINT)}
        return (usual, *(draw_settings(self.over, num - 1, self.seed) if num > 1 else ()))


@dataclasses.dataclass(frozen=True)
class Plan:
    """A grid of options, or a list of settings, and how many seeds of each setting.

    Args:
      options: what all members have in common.
      over: the grid: values by the name of an option, or of several (``"a+b"``) that have one value.
      seeds: number of seeds of each setting.
      how: how the members are trained.
      listed: settings, numbers by option, the same options in all; instead of a grid.
    """

    options: Options
    over: dict[str, tuple[float, ...]]
    seeds: Count
    how: "Members | None" = None
    listed: tuple[dict[str, float], ...] = ()

    @property
    def family(self) -> str:
        """``"vae"`` or ``"gan"``."""
        return self.options.family

    def check(self) -> None:
        """Refuse what no data set could make right."""
        self.options.check()
        check_numbers(self)
        check_seeds(self.options.seed, self.seeds)
        settings = len(self.listed) or math.prod(map(len, self.over.values()))
        if settings * self.seeds > MOST_MEMBERS:
            raise ValueError(
                f"{settings} settings with --seeds {self.seeds} each are more than {MOST_MEMBERS} runs: give fewer"
            )
        kind: Any = type(self.options)
        takes = intervals.declared(kind)
        for names, values in [*self.over.items(), *((k, (v,)) for each in self.listed for k, v in each.items())]:
            for name in set(names.split(JOINT)) & takes.keys():
                for value in values:
                    number = int(value) if takes[name].whole and value == int(value) else value
                    intervals.check_value(number, takes[name], f"--over {name}")
        if self.listed and (self.over or any(setting.keys() != self.listed[0].keys() for setting in self.listed)):
            raise ValueError(
                "a list of settings stands for a grid, and each names the same options: leave out the grid"
            )
        unset = dataclasses.replace(
            self.options, mesh=None, coordinator=None, skip_bad_steps=0, init_from=None, partial=False
        )
        for field in dataclasses.fields(self.options):
            if getattr(self.options, field.name) != getattr(unset, field.name):
                raise ValueError(
                    f"{flag(field.name)} is not for sweeps, which train from the beginning on one device "
                    "and leave out a member that diverges: use jaxgen train"
                )

    def settings(self) -> list[dict[str, float]]:
        """The list, or the grid: every combination of values, the last field's changing fastest."""
        if self.listed:
            return [dict(setting) for setting in self.listed]
        return [
            {name: value for names, value in zip(self.over, values, strict=True) for name in names.split(JOINT)}
            for values in itertools.product(*self.over.values())
        ]

    def identity(self) -> dict[str, Any]:
        """What makes a sweep this sweep, besides its options, as plain data."""
        listed = {"settings": [dict(setting) for setting in self.listed]} if self.listed else {}
        return {"over": {name: list(values) for name, values in self.over.items()}, "seeds": self.seeds, **listed}

    def members(self, image_shape: tuple[int, ...], num_classes: int | None, unbounded: bool = False) -> list[Member]:
        """Every member: all seeds of the first setting, of the second, and so on."""
        self._check_fields(image_shape, num_classes, unbounded)
        made: list[Member] = []
        for setting in self.settings():
            changes = {name: value for name, value in setting.items() if name != LATENT}
            for seed in range(self.options.seed, self.options.seed + self.seeds):
                options = _with(self.options, {**changes, "seed": seed})
                spec = made[-1].spec if made and made[-1].setting == setting else None
                made.append(Member(setting, options, spec or options.model(image_shape, num_classes, unbounded)))
        return made

    def _check_fields(self, image_shape: tuple[int, ...], num_classes: int | None, unbounded: bool) -> None:
        known = [field.name for field in dataclasses.fields(self.options)]
        dynamic = dynamic_options(self.options, image_shape, num_classes, unbounded)
        listed = f"--over may vary {', '.join(dynamic)} here"
        for name in self.settings()[0]:
            if name == "seed":
                raise ValueError("--over seed: seeds are given by --seeds N and --seed FIRST")
            if name not in known:
                close = difflib.get_close_matches(name, dynamic, n=1)
                meant = f"; did you mean {close[0]}?" if close else ""
                raise ValueError(f"--over {name}: jaxgen train has no such option{meant} {listed}")
            if name not in dynamic:
                raise ValueError(
                    f"--over {name}: static with these options: it makes another program, is scheduled, or plays no "
                    f"part. {listed}; for the rest run jaxgen train once a value"
                )


def _with(options: Options, changes: dict[str, Any]) -> Options:
    return dataclasses.replace(options, **changes)


def dynamic_options(
    options: Options, image_shape: tuple[int, ...], num_classes: int | None, unbounded: bool = False
) -> list[str]:
    """Options that are nothing but numbers in a state: they may differ between members of one program."""
    from jaxgen.training import population  # slow to import

    found = [LATENT]
    for name, kind in typing.get_type_hints(type(options)).items():
        if kind not in (float, float | None):
            continue
        usual = next(field.default for field in dataclasses.fields(options) if field.name == name)
        values = TRIAL if usual is None else (*TRIAL, usual)
        try:
            specs = [_with(options, {name: value}).model(image_shape, num_classes, unbounded) for value in values]
        except (ValueError, TypeError):
            continue
        if specs[0] != specs[1] and not any(population.static_differences(specs[0], spec) for spec in specs[1:]):
            found.append(name)
    return sorted(found)


def _range(name: str, text: str) -> Range:
    """``1e-5:1e-2:log`` -> the range."""
    low, _, rest = text.partition(":")
    high, _, kind = rest.partition(":")
    if kind.strip() not in ("", "log"):
        raise ValueError(f"--over {name}: a range is LOW:HIGH or LOW:HIGH:log, got {text!r}")
    if LATENT in name.split(JOINT):
        raise ValueError(
            f"--over {LATENT}: expected whole numbers of at least 1 with commas between them, got {text!r}"
        )
    try:
        return Range(float(low), float(high), bool(kind.strip()))
    except ValueError as error:
        raise ValueError(f"--over {name}: {error}: a range is LOW:HIGH or LOW:HIGH:log, got {text!r}") from None


def _axis(text: str) -> tuple[str, Range | tuple[float, ...]]:
    """``latent_dim=2,4`` -> its name and numbers; ``b1=0:0.9`` -> its name and range."""
    name, _, listed = text.partition("=")
    name = JOINT.join(part.strip().removeprefix("--").replace("-", "_") for part in name.split(JOINT))
    if name and ":" in listed:
        return name, _range(name, listed)
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


def _axes(texts: Sequence[str]) -> dict[str, Range | tuple[float, ...]]:
    over: dict[str, Range | tuple[float, ...]] = {}
    for names, values in map(_axis, texts):
        for name in names.split(JOINT):
            if name in [known for others in over for known in others.split(JOINT)]:
                raise ValueError(f"--over {name} is there twice: put all its values into one list")
        over[names] = values
    return over


def _grid(axes: dict[str, Range | tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """The axes as a grid."""
    grid: dict[str, tuple[float, ...]] = {}
    for name, values in axes.items():
        if isinstance(values, Range):
            raise ValueError(f"--over {name}: a range is for random settings: give their number with --random")
        grid[name] = values
    return grid


def _whole(word: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{word} must be a whole number, got {text!r}") from None


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


def parse_plan(arguments: Sequence[str], known: Mapping[str, str] = recipes.FILES) -> Plan:
    """The plan of the command line; what is not given comes from the sweep to resume, or from the defaults."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
    taken, rest = _take(arguments, ("--over", "--seeds", "--members", "--random"))
    options = parse(rest, "jaxgen sweep", known)
    saved: dict[str, Any] | None = None
    if options.goes_on and options.workdir is not None and (options.workdir / "config.json").is_file():
        from jaxgen.training.run import Run  # slow to import

        saved = Run.open(Path(options.workdir)).config["identity"].get("sweep")
    axes = _axes(taken["--over"])
    over: dict[str, tuple[float, ...]] = {}
    listed: tuple[dict[str, float], ...] = ()
    if taken["--random"]:
        listed = draw_settings(axes, _whole("--random", taken["--random"][-1]), options.seed)
    elif axes:
        over = _grid(axes)
    elif saved is not None:
        over = {name: tuple(values) for name, values in saved["over"].items()}
        listed = tuple(saved.get("settings", ()))
    seeds = 3 if saved is None else saved["seeds"]
    if taken["--seeds"]:
        seeds = _whole("--seeds", taken["--seeds"][-1])
    how: Any = taken["--members"][-1] if taken["--members"] else None
    if how not in (None, *MEMBERS):
        raise ValueError(f"--members must be {' or '.join(MEMBERS)}, got {how!r}")
    asked = [value_of(rest, flag) for flag in ("--latent-dim", "--latent_dim")]
    plan = Plan(options, over, seeds, how, listed)
    plan.check()
    sizes = [setting[LATENT] for setting in plan.settings() if LATENT in setting]
    if sizes and saved is None and asked == [None, None]:
        plan = dataclasses.replace(plan, options=dataclasses.replace(options, latent_dim=int(max(sizes))))
    return plan


def keys(members: Sequence[Member]) -> "jax.Array":
    """The typed key of each member's run, [M]."""
    import jax  # slow

    return jax.numpy.stack([jax.random.key(member.options.seed) for member in members])
