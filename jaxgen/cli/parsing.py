"""From a command line to options: what is chosen first (family, architecture) decides which others there are."""

import dataclasses
import difflib
import functools
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict, get_args, get_origin, get_type_hints

import tyro

from jaxgen import recipes
from jaxgen.cli.gan_options import GANOptions
from jaxgen.cli.latent_options import OF_DATA
from jaxgen.cli.options import (
    TOPICS,
    Options,
    UsageError,
    documentation,
    flag,
    is_there,
    listed,
    nothing_to_resume,
    refuse_empty,
    split_path,
)
from jaxgen.cli.tokenizer_options import TokenizerOptions
from jaxgen.cli.vae_options import VAEOptions
from jaxgen.untrusted import check, one_line, shown

if TYPE_CHECKING:
    from jaxgen.training.run import Run

FAMILIES: dict[str, type[Options]] = {"vae": VAEOptions, "gan": GANOptions, "tokenizer": TokenizerOptions}
# What a second stage begins from where nothing else is said.
SECOND_STAGES = {"gan": "latent_gan", "vae": "latent_vae"}
WIDTH = 120  # of a line of help
COLUMN = 34  # of what is said of an option


def parse(
    arguments: Sequence[str],
    program: str = "jaxgen train",
    known: Mapping[str, str] = recipes.FILES,
) -> Any:
    """Options of the command line: over those of the run to resume, or of the named configuration, or the defaults.

    Args:
      arguments: a family, then options; options alone where they say which run to resume.
      program: what the command is called.
      known: the modules of the named configurations, by their names.

    Returns:
      Options of the family and architecture; no arrays of any shape are involved.

    Raises:
      UsageError: an option is of another family or architecture, would have no effect, or is none.
      ValueError: a number is outside of its interval.
    """
    refuse_empty(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: {program} {{{','.join(FAMILIES)}}} [options]; {program} vae --help lists the options")
        raise SystemExit(0 if arguments else 2)
    if arguments[0].startswith("-"):
        arguments = [_family_of_run(arguments, program), *arguments]
    family, rest = arguments[0], list(arguments[1:])
    if family not in FAMILIES:
        meant = difflib.get_close_matches(family, FAMILIES, n=1)
        raise UsageError(
            f"unknown family {family!r}: usage: {program} {{{','.join(FAMILIES)}}} [options]; {program} vae --help "
            f"lists the options{f'; did you mean {meant[0]}?' if meant else ''}"
        )
    default = _default(rest, family, known)
    kind: Any = _architecture(rest, family, type(default))
    default = _carried(default, kind)
    if {"-h", "--help"} & set(rest):
        print(describe(default, f"{program} {family}"), end="")
        raise SystemExit(0)
    given = _given(rest, kind)
    flat = (tyro.conf.OmitArgPrefixes,)
    view = tyro.cli(_view(kind), args=rest, default=_viewed(default), prog=f"{program} {family}", config=flat)
    options = kind(**{name: value for topic in vars(view).values() for name, value in vars(topic).items()})
    options.check_given(given)
    options.check()
    return options


def load_config(name: str, family: str, known: Mapping[str, str] = recipes.FILES) -> Any:
    """The options of a named configuration.

    Args:
      name: the configuration's.
      family: one of `FAMILIES`, such as ``"vae"``.
      known: the modules of the named configurations, by their names.

    Returns:
      Its options.

    Raises:
      UsageError: there is none of that name for the family; the error lists the nearest ones.
    """
    if name not in known:
        raise UsageError(f"unknown configuration {name!r} for {family}: the nearest are {recipes.nearest(name, known)}")
    options, _ = recipes.load(name, known)
    if options.family != family:
        raise UsageError(f"unknown configuration {name!r} for {family}: it is one of {options.family}")
    return dataclasses.replace(options, config=name)


def _default(rest: list[str], family: str, known: Mapping[str, str]) -> Options:
    """What the command line is laid over."""
    named, workdir = value_of(rest, "--config"), value_of(rest, "--workdir")
    latents = value_of(rest, "--latents")
    if named is None and latents is not None and not _goes_on(rest) and value_of(rest, "--architecture") is None:
        named = SECOND_STAGES.get(family)
    if named is not None:
        return _with_data_of(latents, load_config(named, family, known))
    if _goes_on(rest) and workdir is not None and (Path(workdir) / "config.json").is_file():
        from jaxgen.training.run import Run  # slow to import

        default = saved_options(run := Run.open(Path(workdir)))
        if default.family != family:
            raise ValueError(f"{run.directory} holds a {default.family}: train it as {default.family}, not as {family}")
        return default
    return _with_data_of(latents, FAMILIES[family]())


def _with_data_of(latents: str | None, options: Any) -> Any:
    """The options with the data that a tokenizer's run was trained on, where its latents are to be learnt."""
    if latents is None or options.family not in SECOND_STAGES:
        return options
    from jaxgen.training.run import Run  # slow to import

    if not Run.exists(Path(latents)):
        return options
    theirs = saved_options(Run.open(Path(latents)))
    return dataclasses.replace(options, **{name: getattr(theirs, name) for name in OF_DATA})


def _goes_on(arguments: Sequence[str]) -> bool:
    return bool({"--resume", "--requeue"} & set(arguments))


def _family_of_run(arguments: Sequence[str], program: str) -> str:
    """The family of the run to resume, where none is given."""
    workdir = value_of(arguments, "--workdir")
    if not _goes_on(arguments) or workdir is None:
        raise UsageError(
            f"no family was given before {shown(arguments[0])}: usage: {program} {{{','.join(FAMILIES)}}} [options]; "
            f"{program} vae --help lists the options"
        )
    from jaxgen.training.run import Run  # slow to import

    if not Run.exists(Path(workdir)):
        if "--requeue" in arguments:
            begin = ", or ".join(f"{program} {family}" for family in FAMILIES)
            raise UsageError(f"{workdir} holds no run yet, so say what to begin: {begin}")
        raise nothing_to_resume(Path(workdir))
    return saved_options(Run.open(Path(workdir))).family


def _architecture(rest: list[str], family: str, default: type[Options]) -> type[Options]:
    """The options of the architecture that is asked for."""
    kinds, chosen = FAMILIES[family].architectures, value_of(rest, "--architecture")
    if chosen is None or not kinds:
        return default
    if chosen not in kinds:
        meant = difflib.get_close_matches(chosen, kinds, n=1)
        raise UsageError(
            f"unknown architecture {chosen!r}{f', did you mean {meant[0]}?' if meant else ''} use one of "
            f"{', '.join(kinds)}"
        )
    return kinds[chosen]


def _carried(options: Options, kind: type[Options]) -> Options:
    """The same options for another architecture; what it has not got and is not as usual is refused."""
    if type(options) is kind:
        return options
    shared = {field.name for field in dataclasses.fields(kind)} - {"architecture"}
    own = kind()
    values = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name in shared:
            values[field.name] = value
        elif field.name != "architecture" and value != field.default:
            raise UsageError(
                f"{flag(field.name)} is {value!r} in what this begins from, and --architecture "
                f"{getattr(own, 'architecture', '')} has no such option: begin from something else"
            )
    return dataclasses.replace(own, **values)


def _names(kind: type[Options]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def _given(rest: Sequence[str], kind: type[Options]) -> set[str]:
    """The options that a command line names; a UsageError where one is not there."""
    given = set()
    for word in rest:
        if not word.startswith("--"):
            continue
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        known = _names(kind)
        if name not in known and name.removeprefix("no_") in known:
            name = name.removeprefix("no_")
        if name not in known:
            raise UsageError(_stranger(name, kind))
        given.add(name)
    return given


def _stranger(name: str, kind: type[Options]) -> str:
    """Where an option that this architecture has not got is at home."""
    own = getattr(kind(), "architecture", kind.family)
    homes = [other for other, k in kind.architectures.items() if name in _names(k)]
    if homes:
        return (
            f"{flag(name)} is an option of {listed(homes)}, not of {own}: use --architecture {homes[0]}, or "
            "leave it out"
        )
    families = [
        f for f, k in FAMILIES.items() if any(name in _names(one) for one in (k.architectures or {"": k}).values())
    ]
    if families:
        return f"{flag(name)} is an option of {listed(families)}, not of {kind.family}: leave it out"
    meant = difflib.get_close_matches(name, _names(kind), n=1)
    return f"there is no option {flag(name)}: {f'did you mean {flag(meant[0])}?' if meant else '--help lists them'}"


@functools.cache
def _view(kind: Any) -> Any:
    """The same fields, in a dataclass a topic, as tyro is to see them."""
    hints, said = get_type_hints(kind), documentation(kind)
    topics = []
    for topic in TOPICS:
        fields: list[Any] = [
            (field.name, Annotated[hints[field.name], tyro.conf.arg(help=said[field.name])])
            for field in dataclasses.fields(kind)
            if field.metadata["topic"] == topic
        ]
        if fields:
            topics.append((topic, dataclasses.make_dataclass(topic, fields, frozen=True)))
    return dataclasses.make_dataclass(kind.__name__, topics, frozen=True)


def _viewed(options: Any) -> Any:
    kind: Any = type(options)
    view = _view(kind)
    topics: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(view)}
    return view(
        **{
            topic: part(**{field.name: getattr(options, field.name) for field in dataclasses.fields(part)})
            for topic, part in topics.items()
        }
    )


def _shown(hint: Any) -> str:
    """What an option takes, in a word."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, parts)) + "}"
    if get_origin(hint) in (typing.Union, types.UnionType):
        return _shown(next(part for part in parts if part is not types.NoneType))
    if get_origin(hint) is tuple:
        return f"{_shown(parts[0])} ..."
    return "" if hint is bool else getattr(hint, "__name__", "").upper()


def _usual(value: Any) -> str:
    if value is None or value is False or value == ():
        return ""
    return f" ({' '.join(map(str, value)) if isinstance(value, tuple) else value})"


def describe(options: Any, program: str) -> str:
    """What there is to choose, by topic, an option a line; what is in parentheses is so when nothing is given.

    Args:
      options: those of an architecture, as they are when nothing is given.
      program: how the command begins.

    Returns:
      Text of several lines; no arrays of any shape are involved.
    """
    kind: Any = type(options)
    hints, said = get_type_hints(kind), documentation(kind)
    lines = [f"usage: {program} [options]", (kind.__doc__ or "").strip()]
    if len(kind.architectures) > 1:
        others = ", ".join(name for name in kind.architectures if name != getattr(options, "architecture", ""))
        lines.append(f"These are the options of {options.architecture}; for others: --architecture {others} --help")
    for topic in TOPICS:
        lines.append(f"{topic}:")
        for field in (field for field in dataclasses.fields(kind) if field.metadata["topic"] == topic):
            word = f"  {flag(field.name)} {_shown(hints[field.name])}".rstrip()
            needs = f" With {field.metadata['needs']}." if field.metadata["needs"] else ""
            text = f"{said[field.name]}{needs}{_usual(getattr(options, field.name))}"
            if len(word) >= COLUMN:
                word, text = "", f"{word.strip()}: {text}"
            begins = word.ljust(COLUMN) if word else "  "
            indents: Any = {"initial_indent": begins, "subsequent_indent": " " * COLUMN}
            lines += textwrap.wrap(text, WIDTH, break_on_hyphens=False, **indents)
    return "\n".join(lines) + "\n"


def value_of(arguments: Sequence[str], name: str) -> str | None:
    """What follows a flag on the command line, as ``--flag VALUE`` or ``--flag=VALUE``; None where it is missing."""
    for i, argument in enumerate(arguments):
        if argument == name:
            return arguments[i + 1] if i + 1 < len(arguments) else None
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


class _Saved(TypedDict):
    paths: NotRequired[dict[str, str]]
    family: str
    options: dict[str, Any]


def _where_it_is(typed: Any, anywhere: str | None) -> Any:
    """What was typed where only that leads anywhere from here, or what holds in every directory."""
    if anywhere is None or not isinstance(typed, str):
        return typed
    there, here = (is_there(split_path(each)[1] or each) for each in (anywhere, typed))
    return typed if here and not there else anywhere


def saved_options(run: "Run") -> Any:
    """The options that a run was trained with; a ValueError of one line names what does not fit."""
    saved = run.config["settings"]
    try:
        check(saved, _Saved, "settings")
        if saved["family"] not in FAMILIES:
            raise ValueError(f"settings.family must be one of {', '.join(FAMILIES)}, got {shown(saved['family'])}")
        family: Any = FAMILIES[saved["family"]]
        architecture = saved["options"].get("architecture")
        kind: Any = type(family() if architecture is None else family(architecture=architecture))
        values: dict[str, Any] = {}
        for field in dataclasses.fields(kind):
            if field.name in saved["options"]:  # older runs lack options of today, and have those of all architectures
                hint, value = get_type_hints(kind)[field.name], saved["options"][field.name]
                value = _where_it_is(value, saved.get("paths", {}).get(field.name))
                is_path = Path in get_args(hint) and isinstance(value, str)
                values[field.name] = Path(value) if is_path else tuple(value) if isinstance(value, list) else value
                check(values[field.name], hint, f"settings.options.{field.name}", value)
        return kind(**values)
    except ValueError as error:
        raise ValueError(one_line(run.directory / "config.json", f"holds no options: {error}")) from error
