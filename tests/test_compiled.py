"""Compiled programs kept between commands."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxgen.cli import compilation_cache

TINY = ["vae", "--steps", "2", "--hidden", "8", "--latent-dim", "2", "--batch-size", "4"]


def run(workdir: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return subprocess.run(
        [sys.executable, "-m", "jaxgen", "train", *TINY, "--workdir", str(workdir)],
        env={**environment, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.slow
def test_a_second_command_finds_what_the_first_one_compiled(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(tmp_path / "first", cache)
    (folder,) = (cache / "jaxgen").iterdir()
    assert folder.name == compilation_cache.machine()
    entries = {path: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-atime")}
    assert entries
    # What a kill left half-written is compiled again, and said to be.
    torn, contents = max(entries.items(), key=lambda entry: len(entry[1]))
    torn.write_bytes(contents[:-100])
    done = run(tmp_path / "second", cache)
    assert "Error reading persistent compilation cache entry" in done.stderr
    assert set(folder.iterdir()) >= set(entries)
    log = [(tmp_path / name / "samples" / "samples_00000002.png").read_bytes() for name in ("first", "second")]
    assert log[0] == log[1]


def test_jax_may_be_told_otherwise_and_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, object] = {}
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compilation_cache.keep_compiled_programs()  # the tests' own folder is set
    assert not told
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    compilation_cache.keep_compiled_programs()
    assert told["jax_compilation_cache_dir"] == str(tmp_path / "jaxgen" / compilation_cache.machine())
    told.clear()
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    compilation_cache.keep_compiled_programs()
    assert not told
    monkeypatch.delenv("JAX_ENABLE_COMPILATION_CACHE")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compilation_cache.keep_compiled_programs()
    assert not told
    assert "compiled programs are not kept: " in (printed := capsys.readouterr().err)
    assert str(tmp_path / "file") in printed


def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    for age, name in enumerate(["c", "a", "b"]):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (age, age))
    compilation_cache.trim(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    compilation_cache.trim(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
