"""The README and the worked examples keep their promises: their programs run, the commands and pictures are there."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxgen
from jaxgen.cli import export

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
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
