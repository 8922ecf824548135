"""What is chosen first decides which options there are, and none is ever ignored."""

import dataclasses
import typing
from pathlib import Path
from typing import Any, Literal

import pytest

import jaxgen
from jaxgen import platform
from jaxgen.cli import train
from jaxgen.cli.options import TOPICS, UsageError, documentation, flag
from jaxgen.cli.parsing import FAMILIES, describe, parse
from jaxgen.training.run_data import DataChoice
from jaxgen.training.session import Cadence

ARCHITECTURES = [(family, name) for family, kind in FAMILIES.items() for name in kind.architectures]
# What makes neither the model nor the data: who reads it, which the test below holds against the sources.
OF_THE_RUN = {"basics", "training", "checkpoints", "devices"}


def others(hint: Any, value: Any) -> Any:
    """Other values of an option than the usual one."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return [part for part in parts if part != value]
    if bool in parts:
        return [True, False]
    if type(None) in parts:
        return others(next(part for part in parts if part is not type(None)), value)
    if typing.get_origin(hint) is tuple:
        return [(-6.0, 2.0)] if parts == (float, float) else [(0.25,) if parts[0] is float else (7,)]
    return {
        bool: [not value],
        int: [n for n in (2, 3) if n != value],
        float: [0.25, 0.125],
        str: ["other"],
        Path: [Path("somewhere")],
    }[hint]


def typed(name: str, value: Any) -> list[str]:
    """An option on a command line."""
    if isinstance(value, bool):
        return [flag(name) if value else f"--no-{flag(name)[2:]}"]
    return [flag(name), *map(str, value if isinstance(value, tuple) else (value,))]


def shown(options: Any) -> Any:
    """The model that options describe."""
    return options.spec((28, 28, 1), 10)


@pytest.mark.parametrize(("family", "architecture"), ARCHITECTURES)
def test_no_option_is_ever_ignored(family: str, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option alone: the model differs, or the option is refused, or it is one that the run or the data read."""
    monkeypatch.setattr(platform, "computed_dtype", lambda wanted: "bfloat16")  # as on an accelerator
    begin = [family, "--architecture", architecture]
    usual: Any = parse(begin)
    hints, plain = typing.get_type_hints(type(usual)), shown(usual)
    silent: list[str] = []
    refused: list[str] = []
    changed: list[str] = []
    for field in dataclasses.fields(usual):
        if field.metadata["topic"] in OF_THE_RUN | {"data"} or field.name == "architecture":
            continue
        for value in others(hints[field.name], getattr(usual, field.name)):
            try:
                options = dataclasses.replace(usual, **{field.name: value})
                options.check_given({field.name})  # as the command line does with what it names
                differs = shown(options) != plain
            except ValueError:
                refused.append(field.name)
                continue
            (changed if differs else silent).append(field.name)
    # What stands for nothing given may be given, too: "batch when not given".
    assert {name for name in silent if name not in changed or getattr(usual, name) is not None} == set()
    assert len(set(changed)) > 10, changed
    assert set(refused) >= {"num_pseudo_inputs", "scale"} if family == "vae" else {"penalty_weight", "momentum"}


@pytest.mark.parametrize(("family", "architecture"), ARCHITECTURES)
def test_a_command_line_that_names_every_option_is_understood(family: str, architecture: str) -> None:
    begin = [family, "--architecture", architecture]
    usual: Any = parse(begin)
    hints = typing.get_type_hints(type(usual))
    chosen = {
        field.name: others(hints[field.name], getattr(usual, field.name))[-1]
        for field in dataclasses.fields(usual)
        if field.name not in ("architecture", "config", "unbounded", "resume") and field.metadata["where"] is None
    }
    chosen |= {"batch_size": 18}  # a multiple of what the discriminator takes
    words = [word for name, value in chosen.items() for word in typed(name, value)]
    assert parse([*begin, *words]) == dataclasses.replace(usual, **chosen)


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ("gan --penalty r1", "--penalty-weight 2"),
        ("gan --penalty r1", "--penalty-every 2"),
        ("gan --optimizer sgd", "--momentum 0.7"),
        ("gan --optimizer sgd", "--learning-rate-divisor 1.1"),
        ("gan --optimizer sgd --final-momentum 0.9", "--momentum-steps 5"),
        ("gan --final-b2 0.9", "--burn-in 5"),
        ("gan --burn-in 5 --final-b2 0.9", "--final-learning-rate-factor 0.5"),
        ("gan --burn-in 5 --penalty r1 --final-b2 0.9", "--final-penalty-weight 0.5"),
        ("gan --ema-decay 0.9", "--ema-warmup"),
        ("vae --likelihood gaussian", "--scale 0.3"),
        ("vae --likelihood discretized_logistic_mixture", "--num-components 2"),
        ("vae --prior vamp", "--num-pseudo-inputs 9"),
        ("vae --upper-latent-dims 5", "--upper-hidden 7"),
        ("vae --architecture conv --upper-latent-dims 5", "--activation relu"),
        ("vae --learning-rate-boundaries 5 --later-learning-rates 0.1", "--later-learning-rates 0.2"),
    ],
)
def test_beside_what_they_are_for_options_count(beside: str, words: str) -> None:
    try:
        without = shown(parse(beside.split()))
    except ValueError:
        without = None  # one of the two alone has no meaning
    assert shown(parse([*beside.split(), *words.split()])) != without


def test_what_the_run_reads_is_read() -> None:
    """An option that is no part of the model stands in the sources of what trains, by its name."""
    folder = Path(jaxgen.__file__).parent
    sources = "".join((folder / "cli" / f"{name}.py").read_text() for name in ("runs", "parsing"))
    passed = {field.name for field in dataclasses.fields(DataChoice)} | set(Cadence._fields)
    kinds = [kind for family in FAMILIES.values() for kind in family.architectures.values()]
    names = {field.name for kind in kinds for field in dataclasses.fields(kind) if field.metadata["topic"] != "model"}
    of_the_model = {
        field.name for k in kinds for field in dataclasses.fields(k) if field.metadata["topic"] == "optimisation"
    }
    unread = [
        n
        for n in names - of_the_model - passed
        if f"options.{n}" not in sources and f'"{n}"' not in sources and flag(n) not in sources
    ]
    assert unread == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "gan --architecture resnet --dropout-rate 0.5",
            "--dropout-rate is an option of mlp, maxout and dcgan, not of",
        ),
        ("gan --minibatch-stddev", "is an option of dcgan, not of mlp: use --architecture dcgan, or leave it out"),
        ("vae --architecture conv --hidden 5", "--hidden is an option of mlp, not of conv"),
        ("gan --beta 2", "--beta is an option of vae, not of gan: leave it out"),
        ("vae --packing 2", "--packing is an option of gan, not of vae"),
        ("vae --no-conditonal", "there is no option --no-conditonal: did you mean --conditional"),
        ("gan --architecture dcgn", "unknown architecture 'dcgn', did you mean dcgan"),
        ("vea", "lists the options; did you mean vae?"),
        ("gan --momentum 0.9", "--momentum would have no effect: it is for --optimizer sgd"),
        ("vae --data-dir here", "--data-dir would have no effect: it is for sets of TFDS"),
        ("gan --config dcgan --minibatch-stddev --architecture mlp", "--width is 32 in what this begins from"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    command: str, said: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(command.split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("family", "architecture"), ARCHITECTURES)
def test_help_is_a_page_of_what_applies(family: str, architecture: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as exit_:
        train.main([family, "--architecture", architecture, "--help"])
    assert exit_.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 90
    assert max(map(len, lines)) <= 120
    options: Any = parse([family, "--architecture", architecture])
    listed = {line.split()[0].rstrip(":") for line in lines if line.startswith("  --")}
    assert listed == {flag(field.name) for field in dataclasses.fields(options)}
    topics = [line.rstrip(":") for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert topics == [topic for topic in TOPICS if topic in topics]
    assert topics[0] == "basics"


def test_every_option_says_what_it_is() -> None:
    kinds: list[Any] = [kind for family in FAMILIES.values() for kind in family.architectures.values()]
    for kind in kinds:
        for field in dataclasses.fields(kind):
            assert documentation(kind)[field.name].endswith("."), (kind, field.name)
            assert (field.metadata["needs"] is None) == (field.metadata["where"] is None)


def test_a_family_makes_options_of_its_architecture() -> None:
    for family, architecture in ARCHITECTURES:
        kind: Any = FAMILIES[family]
        made = kind(architecture=architecture)
        assert type(made) is kind.architectures[architecture]
        assert made.architecture == architecture
        assert dataclasses.replace(made, seed=3).seed == 3
    gan: Any = FAMILIES["gan"]
    vae: Any = FAMILIES["vae"]
    with pytest.raises(ValueError, match="unknown architecture 'x' for gan: use one of mlp, maxout, dcgan"):
        gan(architecture="x")
    with pytest.raises(ValueError, match="has options of its own, DCGANOptions, not MLPGANOptions"):
        dataclasses.replace(gan(), architecture="dcgan")
    with pytest.raises(TypeError, match="width"):
        gan(width=8)
    assert "These are the options of conv; for others: --architecture mlp" in describe(
        vae(architecture="conv"),
        "train",
    )
    with pytest.raises(UsageError, match="unknown family"):
        parse(["flow"])
