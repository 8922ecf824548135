"""The README and the pages keep their promises: programs run; commands, pictures, paths and public names are there."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

import jaxgen
from jaxgen import augmentation, data, latents, losses, metrics, networks, schedules
from jaxgen.cli import export

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)
PREAMBLE, *EXAMPLES = (ROOT / "docs" / "examples.md").read_text().split("\n## ")[1:]


LOADS, EXPORTED, COMPOSES = PROGRAM.findall(README)


def test_the_readmes_model_loads() -> None:
    names: dict[str, Any] = {}
    exec(LOADS, names)
    assert names["images"].shape == (16, 28, 28, 1)


def test_the_readmes_export_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command above it, but for the platforms."""
    command = next(line for line in README.splitlines() if "jaxgen export" in line)
    arguments = command.split("#")[0].split()[4:]
    monkeypatch.chdir(tmp_path)
    assert export.main([*arguments, "--platforms", "cpu"]) == 0
    names: dict[str, Any] = {}
    exec(EXPORTED, names)
    sampled = jaxgen.load(arguments[0]).sample(jax.random.key(0), 16)
    np.testing.assert_allclose(names["images"], sampled, atol=1e-6)


def test_the_readmes_program_runs() -> None:
    names: dict[str, Any] = {}
    exec(COMPOSES, names)
    assert names["images"].shape == (4, 16, 28, 28, 1)
    assert np.asarray(names["states"].step).tolist() == [20] * 4
    losses = np.asarray(names["metrics"]["discriminator_loss"])
    assert losses.shape == (4, 20)
    assert np.isfinite(losses).all()
    assert len(np.unique(losses[:, -1])) == 4


def test_the_two_commands_stand_there() -> None:
    commands = [line.strip() for line in README.splitlines() if line.startswith("    pip install uv && uv run")]
    assert commands == ["pip install uv && uv run jaxgen train vae", "pip install uv && uv run pytest"]


def test_the_pictures_are_there() -> None:
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).is_file()


LONG = ("Gradients accumulated", "A VAE and a GAN", "Differentiating through training")


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, id=example.splitlines()[0], marks=pytest.mark.slow if example.startswith(LONG) else ())
        for example in EXAMPLES
    ],
)
def test_worked_examples_run(example: str) -> None:
    [preamble], [program] = PROGRAM.findall(PREAMBLE), PROGRAM.findall(example)
    with jax.numpy_rank_promotion("allow"):  # a reader's programs run with JAX's own defaults
        names: dict[str, Any] = {}
        exec(preamble, names)
        exec(program, names)


WITH_PROGRAMS = ("losses.md", "metrics.md", "networks.md", "data.md")


@pytest.mark.parametrize("page", WITH_PROGRAMS)
def test_the_program_of_a_page_runs(page: str) -> None:
    [program] = PROGRAM.findall(PAGES[page])
    with jax.numpy_rank_promotion("allow"):
        exec(program, {})


def test_the_links_lead_somewhere() -> None:
    for name, text in {"../README.md": README, **PAGES}.items():
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (ROOT / "docs" / name).parent.joinpath(target).exists(), f"{name} links to {target}"


# A program, an indented command, or words between backticks.
CODE = re.compile(r"```[\s\S]*?```|^ {4}.*$|`[^`\n]+`", re.MULTILINE)


def words_of_code(text: str) -> set[str]:
    """Every word of a page that stands as code: in prose, "moments" or "load" is English."""
    return set(re.findall(r"\w+", " ".join(CODE.findall(text))))


def public_names() -> Iterator[tuple[str, str]]:
    """(module, name) of all that a page is to say something of."""
    listed: list[ModuleType] = [jaxgen, losses, metrics, networks, data]
    for module in listed:
        yield from ((module.__name__, name) for name in module.__all__ if not name.startswith("_"))
    for module in (augmentation, latents, schedules):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        yield from ((module.__name__, name) for name in own if not name.startswith("_"))


def unmentioned(names: list[tuple[str, str]]) -> list[str]:
    """Those that stand in no page, nor in the README."""
    there = set().union(*map(words_of_code, (README, *PAGES.values())))
    return [f"{module}.{name}" for module, name in names if name not in there]


def test_every_public_name_stands_on_a_page() -> None:
    """Protects: what can be used can be found, with when to take it."""
    names = list(public_names())
    assert len(names) > 200
    assert unmentioned(names) == []


def test_the_test_of_public_names_can_fail() -> None:
    assert unmentioned([("jaxgen.losses", "hinge"), ("jaxgen.losses", "mirror_descent")]) == [
        "jaxgen.losses.mirror_descent"
    ]
    text = "the hinge of `a_door`\n\n    and(this)\n\nnot\n\n```\nthat\n```\nnor"
    assert words_of_code(text) == {"a_door", "and", "this", "that"}


ARCHITECTURE = PAGES["architecture.md"]


def paths_drawn() -> Iterator[Path]:
    """Every room and module of the drawing in architecture.md; a name without an ending may be either."""
    [drawing] = re.findall(r"```\n(.*?)```", ARCHITECTURE, re.DOTALL)
    folder = ROOT
    for line in drawing.splitlines():
        names = re.split(r" {2,}", line.strip())[0].split()
        if not line.startswith(" "):
            folder = ROOT / names[0]
        for name in names:
            before, _, choices = name.partition("{")
            inside, _, after = choices.partition("}")
            for choice in inside.split(","):
                yield (folder if line.startswith(" ") else ROOT) / f"{before}{choice}{after}"


def exists(path: Path) -> bool:
    return path.exists() or path.with_name(f"{path.name}.py").is_file()


def resolves(dotted: str) -> bool:
    """Whether a name such as ``training.loop`` or ``cli.gan_options.PENALTIES`` is one of the package."""
    thing: Any = jaxgen
    for name in dotted.removeprefix("jaxgen.").split("."):
        if not hasattr(thing, name):
            try:
                importlib.import_module(f"{getattr(thing, '__name__', '')}.{name}")
            except ImportError:
                return False
        thing = getattr(thing, name)
    return True


def test_what_the_architecture_names_is_there() -> None:
    drawn = list(paths_drawn())
    assert len(drawn) > 50
    assert [path for path in drawn if not exists(path)] == []
    rooms = {path.relative_to(ROOT / "jaxgen").parts[0] for path in drawn if (ROOT / "jaxgen") in path.parents}
    house = {
        path.stem for path in (ROOT / "jaxgen").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert house - rooms == {"__init__", "__main__"}
    prose = re.sub(r"```.*?```", "", ARCHITECTURE, flags=re.DOTALL)
    spans = re.findall(r"`([^`]+)`", prose)
    paths = [span for span in spans if re.fullmatch(r"[\w/.]+", span) and ("/" in span or span.endswith(".py"))]
    assert len(paths) > 10
    assert [path for path in paths if not exists(ROOT / path) and not exists(ROOT / "jaxgen" / path)] == []
    dotted = [span for span in spans if re.fullmatch(r"\w+(\.\w+)+", span) and span not in paths]
    own = [name for name in dotted if name not in ("state.step", "config.json")]
    assert len(own) > 10
    assert [name for name in own if not resolves(name)] == []


def test_the_test_of_paths_can_fail() -> None:
    assert not exists(ROOT / "experiments" / "session")
    assert exists(ROOT / "jaxgen" / "training" / "session")
    assert not resolves("training.feeds")
    assert resolves("data.batch_feeds")
