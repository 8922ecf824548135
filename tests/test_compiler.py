"""What XLA's CPU compiler does to the programs it is known for, compiled as users do, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import jaxlib.version
import pytest

from jaxgen import platform
from jaxgen.cli import platforms
from jaxgen.cli.options import UsageError

ROOT = Path(__file__).parents[1]
VERSION = jaxlib.version.__version__
# What is wrong without a setting, by version of jaxlib, as in docs/reliability.md; nothing is with `platform.RIGHT`.
WRONG = {
    "0.10.0": list[str](),
    "0.10.2": ["product with a constant", "rows times a constant"],
    "0.12.0.1": ["product with a constant"],
}
CRASHES = {"0.10.0": list[str](), "0.10.2": ["sum at seven axes", "sum at eight axes"], "0.12.0.1": list[str]()}
EXPRESSIONS = {
    "wrong": "platform.wrong_programs()",
    **{name: f"platform.error_of(platform.CRASHING[{name!r}]()) <= platform.TOLERANCE" for name in platform.CRASHING},
}


def as_users_run(expression: str, flags: str) -> subprocess.CompletedProcess[str]:
    program = f"import json; from jaxgen import platform; print(json.dumps({expression}))"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("flags", ["", platform.RIGHT])
def test_the_programs_known_to_be_wrong(flags: str) -> None:
    """One that an upgrade has mended, or broken, is to be written into the table above and docs/reliability.md."""
    done = as_users_run(EXPRESSIONS["wrong"], flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if flags:
        assert found == []
    else:
        assert VERSION in WRONG, f"jaxlib {VERSION} compiles wrongly: {found or 'none of those known'}"
        assert found == WRONG[VERSION]


@pytest.mark.slow
@pytest.mark.parametrize("name", platform.CRASHING)
@pytest.mark.parametrize("flags", ["", platform.RIGHT])
def test_the_programs_known_to_crash(name: str, flags: str) -> None:
    done = as_users_run(EXPRESSIONS[name], flags)
    if name in CRASHES[VERSION] and not flags:
        assert done.returncode == -signal.SIGSEGV
    else:
        assert (done.returncode, done.stdout.strip()) == (0, "true"), done.stderr


def test_a_process_that_compiles_wrongly_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert platform.check() == []  # the tests are compiled rightly

    def planted() -> platform.Canary:
        good = platform.CANARIES["product with a constant"]()
        return good._replace(program=lambda a: good.program(a).at[63, 7].multiply(1.001))

    monkeypatch.setitem(platform.CANARIES, "planted", planted)
    with pytest.warns(RuntimeWarning, match=r"wrongly here \(planted\): set XLA_FLAGS=--xla_cpu_.*=-reduce before JAX"):
        assert platform.check() == ["planted"]


def test_commands_set_what_compiles_rightly_unless_somebody_has_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert platforms.RIGHT == platform.RIGHT
    name = platform.RIGHT.partition("=")[0]
    for before, after in (
        ("", platform.RIGHT),
        ("--xla_force_host_platform_device_count=2", f"--xla_force_host_platform_device_count=2 {platform.RIGHT}"),
        (f"{name}=all", f"{name}=all"),
        ("a_file_of_flags", "a_file_of_flags"),
    ):
        monkeypatch.setenv("XLA_FLAGS", before)
        platforms.compile_rightly()
        assert os.environ["XLA_FLAGS"] == after
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr(platforms, "knows", lambda flag: False)
    platforms.compile_rightly()
    assert "XLA_FLAGS" not in os.environ  # another jaxlib would end the process


@pytest.mark.slow
def test_nothing_starts_jax_before_it_is_set() -> None:
    """Scripts and benchmarks import JAX first: what computed at import would be compiled without the setting."""
    program = """
import importlib, pathlib
for folder in ("experiments", "benchmarks"):
    for path in sorted(pathlib.Path(folder).glob("*.py")):
        if path.stem not in ("__init__", "torch_peer", "pythae_peer", "artifex_peer"):
            importlib.import_module(f"{folder}.{path.stem}")
import jaxgen.cli.explore, jaxgen.cli.export, jaxgen.cli.compare, jaxgen.cli.replay, jaxgen.cli.runs
from jaxgen import platform
from jaxgen.cli.platforms import compile_rightly
compile_rightly()
print(platform.wrong_programs())
"""
    environment = {**os.environ, "XLA_FLAGS": ""}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_a_flag_that_this_jaxlib_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA would end the process at its first computation."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false --xla_cpu_enable_fast=true")
    with pytest.raises(UsageError, match="XLA_FLAGS has --xla_cpu_enable_fast, which this jaxlib does not know: leave"):
        platforms.compile_rightly()
