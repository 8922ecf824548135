"""Commands at random find no fault: some of them today, all of them as slow tests. And the script finds faults."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fuzz

PARTS = 25


def run(part: int) -> None:
    environment = {**os.environ, "XLA_FLAGS": fuzz.FLAGS}
    words = ["--count", "300", "--part", f"{part}/{PARTS}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{300 // PARTS} commands of seed 0" in done.stdout


def test_some_commands_at_random() -> None:
    run(int(os.environ["JAXGEN_TEST_DAY"]) % PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_commands_at_random(part: int) -> None:
    run(part)


def test_the_commands_of_a_seed_are_what_they_were() -> None:
    found = fuzz.kinds()
    commands = [fuzz.command(found, 3, number) for number in range(200)]
    assert commands == [fuzz.command(found, 3, number) for number in range(200)]
    assert len(set(commands)) > 190
    begun = {command.words[:2] if command.program == "jaxgen" else command.program for command in commands}
    assert {("train", "vae"), ("train", "gan"), ("train", "tokenizer"), ("explore", "complete")} <= begun
    assert "experiments.augment" in begun


FAULTY: dict[str, tuple[str, str]] = {
    "a traceback": ("raise KeyError('width')", "traceback"),
    "two lines": ("print('error: one\\ntwo', file=sys.stderr); sys.exit(1)", "2 lines"),
    "nothing said": ("sys.exit(1)", "0 lines"),
    "something left behind": (
        "open('left', 'w').close(); print('error: no', file=sys.stderr); sys.exit(1)",
        "left behind or changed: left",
    ),
    "silence": ("while True: pass", "s of processor time"),
    "memory": ("held = b'x' * 1_000_000_000; time.sleep(30)", " GB"),
    "a crash": ("import os; os.kill(os.getpid(), 11)", "died of signal 11"),
}


def test_the_script_finds_faults(tmp_path: Path) -> None:
    """In a process that holds little: a fork of this one would hold as much as it."""
    for number, (program, _) in enumerate(FAULTY.values()):
        (tmp_path / f"faulty{number}.py").write_text(
            f"import sys, time\ndef main(words):\n    {program}\nif __name__ == '__main__':\n    main([])\n"
        )
        (tmp_path / f"folder{number}").mkdir()
    program = f"""
import json
from pathlib import Path
from tests import fuzz
fuzz.SECONDS, fuzz.MOST_BYTES = 2.0, 3e8
for number in range({len(FAULTY)}):
    ended = fuzz.outcome(fuzz.Command(f"faulty{{number}}", ()), Path({str(tmp_path)!r}) / f"folder{{number}}", True)
    print(json.dumps([ended.what, "; ".join(ended.faults)]))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = dict(zip(FAULTY, map(json.loads, done.stdout.splitlines()), strict=True))
    for name, (what, faults) in found.items():
        assert what == "fault", name
        assert FAULTY[name][1] in faults, name
