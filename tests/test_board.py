"""The speed board keeps the fastest of each machine, and one call for an accelerator keeps its time and goes on."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import accelerator, records
from jaxgen.cli import parsing
from jaxgen.cli.options import UsageError

VERSIONS = {"python": "3.11.7", "jax": "0.10.2"}


def row(seconds: float | None, reached: bool = True, modes: float = 25.0) -> records.Row:
    return {
        "seconds": seconds,
        "reached": reached,
        "numbers": {} if seconds is None else {"modes": modes},
        "limit": 60.0,
        "command": f"jaxgen train gan --steps {seconds}",
        "commit": "0123456789",
        "date": "2026-01-02",
        "versions": VERSIONS,
        "xla_flags": "",
    }


def empty() -> records.Board:
    return {"format": records.FORMAT, "machines": {}}


def test_the_board_keeps_the_fastest_and_what_it_beat() -> None:
    board = empty()
    assert records.enter(board, "a chip", "gaussians", row(None, False)) == "not reached within 60 s"
    said = records.enter(board, "a chip", "gaussians", row(9.0, False, 24.0))
    assert said == "not reached: modes 24 after 9.0 s; before, not reached within 60 s"
    said = records.enter(board, "a chip", "gaussians", row(30.0))
    assert said == "30.0 s (modes 25), a record; before, not reached: modes 24 after 9.0 s"
    assert board["machines"]["a chip"]["beaten"] == []  # what reached nothing was no record
    said = records.enter(board, "a chip", "gaussians", row(31.0))
    assert said == "31.0 s (modes 25), not faster than the record of 30.0 s (modes 25)"
    records.enter(board, "a chip", "gaussians", row(20.0))
    records.enter(board, "a chip", "gaussians", row(None, False))
    records.enter(board, "a chip", "gaussians", row(5.0, False, 3.0))
    there = board["machines"]["a chip"]
    assert there["records"]["gaussians"] == row(20.0)
    assert there["beaten"] == [{"goal": "gaussians", **row(30.0)}]


def test_machines_are_not_mixed() -> None:
    board = empty()
    records.enter(board, "a fast chip", "gaussians", row(1.0))
    assert records.enter(board, "a slow chip", "gaussians", row(50.0)) == "50.0 s (modes 25), a record"
    text = records.page(board)
    fast, slow = text.split("\n## ")[1:]
    assert fast.startswith("a fast chip\n")
    assert "| 1.0 s (modes 25) | 2026-01-02 | 0123456789 | Python 3.11.7, jax 0.10.2 | `unset` |" in fast
    assert "\n    jaxgen train gan --steps 1.0\n" in fast
    assert "50.0 s" in slow
    assert "50.0 s" not in fast
    assert "Beaten" not in text


def test_the_board_is_read_as_it_was_written(tmp_path: Path) -> None:
    board, numbers = empty(), tmp_path / "results" / "records.json"
    assert records.read(numbers) == board
    for seconds in (30.0, 20.0):
        records.enter(board, "a chip", "gaussians", row(seconds))
    page = records.write(board, numbers)
    assert page == tmp_path / "records.md"
    assert records.read(numbers) == board
    assert "Beaten since:" in page.read_text()
    for text in ("{", '{"format": 99}'):
        numbers.write_text(text)
        assert records.main(["--numbers", str(numbers), "--goals", "gaussians"]) == 2
        assert numbers.read_text() == text


def test_the_board_that_ships_is_made_of_its_numbers() -> None:
    assert (records.NUMBERS.parents[1] / "records.md").read_text() == records.page(records.read(records.NUMBERS))


@pytest.mark.parametrize("goal", records.GOALS.values(), ids=list(records.GOALS))
def test_the_commands_of_the_board_are_commands(goal: records.Goal) -> None:
    train, *words = goal.command("a place")
    assert train == "train"
    options = parsing.parse(words, "jaxgen train")
    assert options.dataset == goal.dataset.replace("DATA", "a place")
    assert options.steps == int(words[words.index("--steps") + 1])
    assert goal.reached(
        {bound.metric: bound.least if np.isfinite(bound.least) else bound.most for bound in goal.bounds}
    )
    assert not goal.reached({bound.metric: np.nan for bound in goal.bounds})


def test_a_command_that_fails_or_takes_too_long_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = tmp_path / "results" / "records.json"
    board = empty()
    records.enter(board, records.machine.chip(), "gaussians", row(20.0))
    records.write(board, numbers)
    before = numbers.read_bytes(), (tmp_path / "records.md").read_bytes()
    goal = records.GOALS["gaussians"]
    monkeypatch.setitem(records.GOALS, "gaussians", records.dataclasses.replace(goal, options="gan --steps none"))
    assert records.main(["--numbers", str(numbers), "--goals", "gaussians,stacked_mnist"]) == 1
    printed, error = capsys.readouterr()
    assert "failed: 25 of 25 Gaussians" in printed
    assert "--steps" in printed
    assert "skipped: all 1,000 modes of stacked MNIST: it needs mnist in the folder --data" in printed
    assert error == "error: gaussians failed: see above\n"
    assert (numbers.read_bytes(), (tmp_path / "records.md").read_bytes()) == before
    monkeypatch.setitem(records.GOALS, "gaussians", goal)
    assert records.main(["--numbers", str(numbers), "--goals", "gaussians", "--limit", "0.5"]) == 0
    assert "not reached within 0.5 s; the record stays 20.0 s (modes 25)" in capsys.readouterr().out
    assert records.read(numbers) == board


def test_the_binary_images_are_found_and_checked(tmp_path: Path) -> None:
    goal = records.GOALS["binarized_mnist"]
    assert records.find(goal, None, tmp_path) is None
    assert records.find(goal, tmp_path, tmp_path) is None
    rng = np.random.default_rng(0)
    split = rng.integers(0, 2, (3, 784), np.uint8)
    (tmp_path / "binarized_mnist").mkdir()
    np.savez(tmp_path / "binarized_mnist" / "binarized_mnist.npz", train=split, valid=split, test=1 - split)
    place = records.find(goal, tmp_path, tmp_path)
    assert place is not None
    found = records.data.load(f"npz:{place}", "test")["image"]
    assert found.dtype == bool
    np.testing.assert_array_equal(found.reshape(3, 784), 1 - split)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"train": split, "test": 255 * split}, "numbers above 1"),
        ({"x": split}, "has the arrays x: expected train and test"),
    ]
    for arrays, message in wrong:
        np.savez(tmp_path / "binarized_mnist.npz", **arrays)
        with pytest.raises(UsageError, match=message):
            records.find(goal, tmp_path, tmp_path)


@pytest.mark.slow
def test_a_short_run_is_measured_and_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goal = records.GOALS["gaussians"]
    short = goal.options.replace("--steps 6000", "--steps 5")
    assert short != goal.options
    monkeypatch.setitem(records.GOALS, "gaussians", records.dataclasses.replace(goal, options=short))
    assert records.main(["--numbers", str(tmp_path / "results" / "records.json"), "--goals", "gaussians"]) == 0
    [there] = records.read(tmp_path / "results" / "records.json")["machines"].values()
    found = there["records"]["gaussians"]
    assert not found["reached"]
    assert 0 <= found["numbers"]["modes"] < 25
    assert found["seconds"] > 1
    assert "--steps 5 " in found["command"]
    assert "not reached: modes" in (tmp_path / "records.md").read_text()


MACHINE = {"chip": "a chip", "platform": "gpu", "versions": VERSIONS}


def call(out: Path, seconds: float = 100.0, **machine: Any) -> tuple[accelerator.Call, list[str]]:
    said: list[str] = []
    return accelerator.Call(out, {**MACHINE, **machine}, time.monotonic() + seconds, said.append), said


def part(name: str, *command: str, least: float = 0.0, most: float = 30.0, **more: Any) -> accelerator.Part:
    return accelerator.Part(name, command, least, most, **more)


FINE = ("timeit", "-n", "1", "-r", "1", "pass")
SLOW = ("timeit", "-n", "1", "import time; time.sleep(60)")


def test_a_part_that_fails_or_does_not_fit_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    first, said = call(tmp_path)
    for each in (
        part("good", *FINE),
        part("bad", "no_such_module"),
        part("silent", *FINE, says="passed"),
        part("slow", *SLOW, most=1.0),
        part("large", *FINE, least=90.0, most=200.0),
    ):
        first.take(each)
        assert each.name in json.loads((tmp_path / "accelerator.json").read_text())["parts"]  # after every part
    status = {name: found["status"] for name, found in first.log["parts"].items()}
    assert status == {"good": "done", "bad": "failed", "silent": "failed", "slow": "failed", "large": "left out"}
    assert first.failed
    assert any("bad: failed" in line and "No module named no_such_module" in line for line in said)
    assert any("slow: failed" in line and line.endswith("not done within 1 s") for line in said)
    assert any(line.startswith("large: left out: ") and line.endswith("it needs 105") for line in said)
    assert (tmp_path / "logs" / "good.txt").read_text().strip()


def test_the_next_call_goes_on(tmp_path: Path) -> None:
    first, _ = call(tmp_path)
    first.take(part("good", *FINE))
    first.take(part("bad", "no_such_module"))
    second, _ = call(tmp_path)
    assert second.is_done("good")
    assert not second.is_done("bad")
    assert len(second.log["calls"]) == 2
    assert not call(tmp_path, chip="another chip")[0].is_done("good")
    assert not accelerator.Call(tmp_path, MACHINE, time.monotonic(), print, quick=True).is_done("good")
    (tmp_path / "accelerator.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match="no numbers of format 1: put it back as it was, or remove it"):
        call(tmp_path)


def test_reproductions_take_turns_and_those_without_data_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def take(self: accelerator.Call, each: accelerator.Part) -> None:
        taken.append(each.name)
        self.end -= 20.0
        self.note(each.name, "failed" if each.name == "broken" else "stopped, goes on", seconds=20.0)

    monkeypatch.setattr(accelerator.Call, "take", take)
    monkeypatch.setitem(accelerator.REPRODUCTIONS, "first", None)
    names = ["first", "broken", "burda_iwae_5", "second"]
    one, said = call(tmp_path, 159.0)
    accelerator.reproduce(one, names, None)
    assert said[0] == "burda_iwae_5: left out: it needs mnist in the folder --data"
    assert taken == ["first", "broken", "second", "first", "second"]
    taken.clear()
    two, _ = call(tmp_path, 79.0)
    accelerator.reproduce(two, names, None)
    assert taken == ["broken"]  # which has had the least time; the next call would take the others
    (tmp_path / "mnist").mkdir()
    assert accelerator.needed("burda_iwae_5", tmp_path) == f"idx:{tmp_path}/mnist"


def test_the_plan_names_every_part_and_a_cpu_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert accelerator.main(["--plan", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for name in ("tests", "float32", "tf32", "bfloat16", "population_8", "population_64", "burda_iwae_5"):
        assert f"\n{name}: " in printed
    least = sum(each.least + accelerator.SAVING for each in accelerator.parts(tmp_path, quick=False))
    assert least + accelerator.LEAST_SLICE < 9 * 60
    monkeypatch.setattr(accelerator, "probe", lambda: {**MACHINE, "platform": "cpu"})
    assert accelerator.main(["--out", str(tmp_path)]) == 1
    assert "there is no accelerator here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    for options, message in ((["--parts", "test"], "unknown --parts test"), (["--minutes", "0"], "more than 0")):
        with pytest.raises(SystemExit):
            accelerator.parse(options)
        assert message in capsys.readouterr().err


def test_published_numbers_that_are_named_are_there() -> None:
    from experiments import configs

    assert set(accelerator.REPRODUCTIONS) <= set(configs.FILES)


@pytest.mark.slow
def test_a_quick_call_runs_every_part_on_a_cpu_and_the_second_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--quick", "--minutes", "5", "--out", str(tmp_path), "--parts", "tests,bfloat16,population_8"]
    assert accelerator.main(options) == 0
    log = accelerator.read(tmp_path / "accelerator.json")
    assert {name: found["status"] for name, found in log["parts"].items()} == dict.fromkeys(
        ("tests", "bfloat16", "population_8"), "done"
    )
    numbers = json.loads((tmp_path / "bfloat16.json").read_text())
    assert numbers["families"]["gan"]["candidates"]["fused"]["about"]["precision"] == "bfloat16"
    assert json.loads((tmp_path / "population_8.json").read_text())["rows"]
    capsys.readouterr()
    assert accelerator.main([*options[:-1], "tests,population_8,reproductions", "--minutes", "1.5"]) == 0
    printed = capsys.readouterr().out
    assert "tests: done in an earlier call" in printed
    assert "small_gaussians_r1: stopped, goes on in" in printed
    assert (tmp_path / "trials" / "small_gaussians_r1").is_dir()
