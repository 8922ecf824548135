"""The README keeps its promises: its program runs, and its commands are there for a machine to find."""

import re
from pathlib import Path
from typing import Any

import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_readmes_program_runs() -> None:
    programs = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(programs) == 1
    names: dict[str, Any] = {}
    exec(programs[0], names)
    assert names["images"].shape == (4, 16, 28, 28, 1)
    assert np.asarray(names["states"].step).tolist() == [20] * 4
    losses = np.asarray(names["metrics"]["discriminator_loss"])
    assert losses.shape == (4, 20)
    assert np.isfinite(losses).all()
    assert len(np.unique(losses[:, -1])) == 4


def test_the_two_commands_stand_there() -> None:
    commands = [line.strip() for line in README.splitlines() if line.startswith("    pip install uv && uv run")]
    assert commands == ["pip install uv && uv run experiments/train.py vae", "pip install uv && uv run pytest"]


def test_the_pictures_are_there() -> None:
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / picture).is_file()
