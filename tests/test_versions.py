"""The lowest versions that pyproject.toml allows, in an environment of their own; the suite runs on the locked ones."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What meets most of jax, flax, optax and orbax: the functions, a step of each family, checkpoints, the compiler.
SUITE = [f"tests/test_{name}.py" for name in ("losses", "networks", "gan", "vae", "checkpoints", "compiler")]
LANE = "(losses. and small) or (step and (gan-hinge or vae-elbo))"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=kept, capture_output=True, text=True, check=False
    )


def lowest() -> dict[str, str]:
    """The lower bound of each package that the project names, by its name."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = dict(line.split(">=") for line in listed)
    assert all(re.fullmatch(r"[\d.]+", bound) for bound in bounds.values())
    return bounds


@pytest.mark.slow
def test_the_lowest_versions_of_what_is_required(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("there is no uv here to install the lowest versions with")
    python = tmp_path / "environment" / "bin" / "python"
    made = run(uv, "venv", "--quiet", "--python", sys.executable, python.parents[1])
    assert made.returncode == 0, made.stderr
    what = ("-r", "pyproject.toml", "--group", "dev")
    installed = run(uv, "pip", "install", "--quiet", "--python", python, "--resolution", "lowest-direct", *what)
    if re.search(r"error sending request|Failed to fetch|network was disabled|Network connectivity", installed.stderr):
        pytest.skip("there is no package index here to install the lowest versions from")
    assert installed.returncode == 0, installed.stderr
    listed = run(uv, "pip", "list", "--quiet", "--python", python, "--format", "json")
    versions = {package["name"].lower(): package["version"] for package in json.loads(listed.stdout)}
    for name, bound in lowest().items():
        version = versions[name.lower()]
        assert re.fullmatch(rf"{re.escape(bound)}(\.0)*", version), f"{name} {version} is not the lowest, {bound}"
    for arguments in (SUITE, ["--as-users-run", "tests/test_as_users_run.py", "-k", LANE]):
        done = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
