"""Every number that may be given declares its interval: of options, of specs, of their parts."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import optax
import pytest

import jaxgen
from experiments import corruptions, gaussians, reproduce, train_classifier
from experiments.augmentation import cell
from jaxgen import intervals, losses, networks, plain
from jaxgen.cli import compare, evaluating, explore, plot, sample, train
from jaxgen.cli.main import main
from jaxgen.cli.options import check_numbers, flag
from jaxgen.cli.parsing import FAMILIES
from jaxgen.cli.sweeping.plan import Plan
from jaxgen.evaluation.subject import Settings
from jaxgen.intervals import Interval
from tests import models

OF_TRAINING: list[Any] = [
    kind for family in FAMILIES.values() for kind in (family.architectures or {"": family}).values()
]
COMMANDS: list[Any] = [sample.Options, evaluating.Options, plot.Options, compare.Options, Plan]
COMMANDS += [kind for kind, _ in explore.COMMANDS.values()]
SCRIPTS: list[Any] = [module.Options for module in (corruptions, gaussians, reproduce, train_classifier, cell)]
OPTIONS = [*OF_TRAINING, *COMMANDS, *SCRIPTS]
plain.to_plain(1)  # registers the specs
SPECS: list[Any] = [kind for kind in plain._classes.values() if kind.__module__.startswith("jaxgen.")]
SPECS += [Settings]
# What a spec's other fields are where it has no defaults for them.
MADE: dict[str, Any] = {
    "GAN": models.gan,
    "VAE": models.vae,
    "Tokenizer": models.tokenizer,
    "LatentGAN": models.latent_gan,
    "LatentVAE": models.latent_vae,
    "Conv": lambda: networks.Conv(3, (3, 3)),
    "ConvTranspose": lambda: networks.ConvTranspose(3, (3, 3)),
    "Maxout": lambda: networks.Maxout(3, 2),
    "Dropout": lambda: networks.Dropout(0.5),
    "Projection": lambda: networks.Projection(3),
    "KLBottleneck": lambda: networks.KLBottleneck(3),
    "VQBottleneck": lambda: networks.VQBottleneck(5, 3, decay=0.9),
    "LFQBottleneck": lambda: networks.LFQBottleneck(3),
    "AutoencoderEncoder": lambda: networks.AutoencoderEncoder(3),
    "AutoencoderDecoder": lambda: networks.AutoencoderDecoder(3),
    "ConvEncoder": lambda: networks.ConvEncoder(3),
    "MLPEncoder": lambda: networks.MLPEncoder(3),
    "MLPGaussian": lambda: networks.MLPGaussian(3),
    "Piecewise": lambda: jaxgen.schedules.Piecewise((3,), (1.0, 2.0)),
    "EMAWarmup": lambda: jaxgen.schedules.EMAWarmup(0.9),
    "DiscretizedLogisticMixture": lambda: losses.discretized_logistic_mixture(3),
    **dict.fromkeys(("Linear", "Cosine", "Exponential")),
}
# Of which a spec also asks how they go together.
RELATED = {"logvar_bounds", "logvar_range", "log_scale_range", "bounds", "image_shape", "boundaries", "values"}
RELATED |= {"augmentation_target", "latent_shape"}
NUMBERS = (math.nan, math.inf, -math.inf, -1, 0, 10**9, 10**30, 10**400, 0.5)


def bare(hint: Any) -> Iterator[Any]:
    """The types of numbers in a hint that no interval is declared of."""
    if typing.get_origin(hint) is Annotated:
        if not any(isinstance(each, Interval) for each in hint.__metadata__):
            yield from bare(typing.get_args(hint)[0])
    elif hint in (int, float) or (isinstance(hint, str) and re.search(r"\b(int|float)\b", hint)):
        yield hint
    elif typing.get_origin(hint) is not typing.Literal:
        for argument in typing.get_args(hint):
            yield from bare(argument)


@pytest.mark.parametrize("kind", [*OPTIONS, *SPECS], ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_number_declares_its_interval(kind: Any) -> None:
    undeclared = [field.name for field in dataclasses.fields(kind) if [*bare(field.type)]]
    # A grid's numbers are those of the options that it names.
    elsewhere = {"Plan": {"over", "listed"}}.get(kind.__name__, set())
    assert set(undeclared) - elsewhere == set()


def test_the_test_of_declarations_can_fail() -> None:
    @dataclasses.dataclass
    class Careless:
        width: int = 3
        rates: tuple[float, ...] | None = ()

    with pytest.raises(AssertionError, match="rates"):
        test_every_number_declares_its_interval(Careless)


def numbers_for(what: intervals.Declared) -> list[Any]:
    """Numbers inside and outside of an interval, its ends among them."""
    ends = (what.interval.low, what.interval.high)
    past = (ends[0] - 1, ends[1] * 2 + 1)
    return [*NUMBERS, *ends, *past]


def fits(what: intervals.Declared, number: Any) -> bool:
    """Whether a number should be taken, said in another way than by the library."""
    if isinstance(number, float) and (not math.isfinite(number) or what.whole):
        return False
    low, high, ends = what.interval.low, what.interval.high, what.interval.ends
    return (low < number or (number == low and ends[0] == "[")) and (
        number < high or (number == high and ends[1] == "]")
    )


def placed(kind: Any, name: str, number: Any) -> Any:
    """A number as the value of a field: alone, or in a tuple where that is what the field takes."""
    hint = next(field.type for field in dataclasses.fields(kind) if field.name == name)
    arms = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    takes_one = any(typing.get_origin(arm) is Annotated for arm in arms)
    if name == "initialization":
        return ("normal", number)
    return number if takes_one else (number,)


def made(kind: Any, name: str, value: Any) -> Any:
    """A spec with a value of a field."""
    base = MADE.get(kind.__name__)
    if base is not None:
        return dataclasses.replace(base(), **{name: value})
    own: dict[str, Any] = (
        {"image_shape": (4, 4, 1)} if "image_shape" in {f.name for f in dataclasses.fields(kind)} else {}
    )
    if kind.__name__ in ("Linear", "Cosine", "Exponential"):
        own = {"initial": 1.0, "final": 2.0, "num_steps": 3}
    return kind(**{**own, name: value})


CASES = [(kind, name) for kind in SPECS for name in intervals.declared(kind)]


@pytest.mark.parametrize(("kind", "name"), CASES, ids=lambda each: getattr(each, "__name__", each))
def test_a_spec_takes_what_is_inside_and_nothing_else(kind: Any, name: str) -> None:
    what = intervals.declared(kind)[name]
    for number in numbers_for(what):
        value = placed(kind, name, number)
        if fits(what, number):
            intervals.check_value(value, what, name)
            if name not in RELATED:
                made(kind, name, value)
        else:
            with pytest.raises((ValueError, TypeError), match=rf"{name}\b.* must be ") as error:
                made(kind, name, value)
            assert "\n" not in str(error.value)
            assert len(str(error.value)) < 200


@pytest.mark.parametrize("kind", OPTIONS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_options_take_what_is_inside_and_nothing_else(kind: Any) -> None:
    found = intervals.declared(kind)
    usual = object.__new__(kind)
    for field in dataclasses.fields(kind):
        value = field.default if field.default is not dataclasses.MISSING else 1
        object.__setattr__(usual, field.name, value)
    for name, what in found.items():
        before = getattr(usual, name)
        for number in numbers_for(what):
            object.__setattr__(usual, name, placed(kind, name, number))
            if fits(what, number):
                check_numbers(usual)
            else:
                with pytest.raises((ValueError, TypeError), match=f"^{flag(name)} must be [^\n]*$"):
                    check_numbers(usual)
        object.__setattr__(usual, name, before)


@pytest.mark.slow
def test_the_command_says_so_in_a_line_before_any_work(capsys: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    homes = {(kind.family, name): kind for kind in OF_TRAINING for name in intervals.declared(kind)}
    for (family, name), kind in homes.items():
        if kind.__dataclass_fields__[name].metadata["where"] is not None:
            continue  # needs another option beside it
        outside = "-1" if not fits(intervals.declared(kind)[name], -1) else "1e39"
        architecture = ["--architecture", kind().architecture] if kind.architectures else []
        words = [family, *architecture, flag(name), outside]
        words += [outside] * (name == "logvar_bounds")
        assert train.main(words) == 1, words
        error = capsys.readouterr().err
        assert error.startswith(f"error: {flag(name)} must be ")
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["learning_rate", "b1", "b2", "eps", "momentum", "nesterov"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0, 2.0])
def test_arguments_of_optimizers_are_checked(name: str, number: float) -> None:
    fine = number in plain.argument(name).interval
    assert fine == (number in {"learning_rate": (2.0,), "eps": (2.0,), "nesterov": (2.0, -1.0)}.get(name, ()))
    kind = "sgd" if name in ("momentum", "nesterov") else "adam"
    arguments = {"learning_rate": 1e-3, name: number}
    if fine:
        plain.optimizer(kind, **arguments)
    else:
        with pytest.raises(ValueError, match=rf"optimizer\.{name} must be "):
            plain.optimizer(kind, **arguments)


def test_schedules_arrays_and_what_is_not_given_pass() -> None:
    class Traced:
        shape = ()

    beta = intervals.declared(jaxgen.VAE)["free_bits"]
    for value in (None, optax.constant_schedule(-1.0), Traced()):
        intervals.check_value(value, beta, "free_bits")
    for value in ("1", True, {}):
        with pytest.raises(TypeError, match="must be a number at least 0, or a schedule, got"):
            intervals.check_value(value, beta, "free_bits")


@pytest.mark.parametrize(
    "words",
    [["train", "vae", "--workdir", ""], ["train", "gan", "--workdir="], ["sample", ""], ["evaluate", "x", "--out", " "],
     ["explore", "complete", "x", "--out", ""], ["plot", "x", "--out="], ["sweep", "vae", "--dataset", ""],
     ["export", "x", "--out", ""], ["compare", "--data-dir", ""], ["replay", ""]],
    ids=" ".join,
)  # fmt: skip
def test_empty_words_are_no_paths(words: list[str], tmp_path: Any, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert " is empty: is a variable not set? " in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
