"""The benchmarks measure, skip and judge as they say, with workers that only pretend and one that trains."""

import contextlib
import copy
import dataclasses
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from benchmarks import candidates, families, floor, growth, metric_costs, ours, report, run, targets, turns, workers

FAKE = """
import sys, time
from benchmarks import protocol

options = protocol.arguments().parse_args()
print("libraries chatter on the standard output")
if options.variant == "broken":
    raise ValueError("no such device")

def take(steps):
    if options.variant == "dies" and steps > 1:
        sys.exit("out of memory")
    if options.variant == "hangs":
        time.sleep(60)
    if options.variant == "epochs":
        return {"seconds": 0.01 * 40, "steps": 40, "batches": 3}
    return 0.001 * steps

protocol.serve({"versions": {}, "precision": "float32"}, take, lambda: 7)
"""


@dataclasses.dataclass(frozen=True)
class Fake(workers.Candidate):
    """A worker that takes no steps but says so."""

    @property
    def command(self) -> list[str]:
        return [self.python, "-c", FAKE, "--family", self.family, "--variant", self.variant]


def fake(variant: str) -> Fake:
    return Fake(variant, "none", "vae", variant)


def measure(named: list[Any], tmp_path: Path, **changes: Any) -> tuple[dict[str, workers.Result], list[str]]:
    said: list[str] = []
    settings: dict[str, Any] = {"rounds": 3, "turn_seconds": 0.01, "deadline": time.monotonic() + 60, **changes}
    return workers.measure(named, say=said.append, scratch=tmp_path, **settings), said


def test_workers_take_turns_and_bad_ones_are_left_out_with_one_line(tmp_path: Path) -> None:
    missing = dataclasses.replace(fake("missing"), python=str(tmp_path / "nothing"))
    found, said = measure([fake("plain"), fake("broken"), fake("dies"), missing, fake("epochs")], tmp_path)
    assert list(found) == ["plain", "epochs"]
    assert found["plain"].seconds == pytest.approx([0.001] * 3)
    assert found["plain"].steps == 10
    assert found["plain"].compile_seconds == 0.0
    assert found["plain"].device_bytes == 7
    assert found["plain"].host_bytes is not None
    assert found["epochs"].seconds == pytest.approx([0.01] * 3)  # of the steps it took, not of those asked for
    assert found["epochs"].extra == {"batches": 3}
    assert len(said) == 3
    assert any("broken" in line and "no such device" in line for line in said)
    assert any("dies" in line and "out of memory" in line for line in said)
    assert any("missing" in line and "No such file" in line for line in said)


def test_time_that_runs_out_is_said(tmp_path: Path) -> None:
    found, said = measure([fake("plain")], tmp_path, rounds=100, turn_seconds=1.0, deadline=time.monotonic() + 1.5)
    assert 2 <= len(found["plain"].seconds) < 100
    assert said == [f"left out {100 - len(found['plain'].seconds)} of 100 rounds: no time left of the budget"]
    found, said = measure([fake("plain")], tmp_path, deadline=time.monotonic())
    assert not found
    assert said == ["skipped: plain: no time left of the budget to compile it"]
    found, said = measure([fake("hangs")], tmp_path, timeout=2.0)
    assert not found
    assert said == ["skipped: hangs: no answer within 2 s"]


def test_a_missing_peer_is_skipped_with_one_line() -> None:
    said: list[str] = []
    assert (
        candidates.interpreters({"torch_python": "/nowhere/python", "pythae_python": sys.executable}, said.append) == {}
    )
    assert len(said) == 3
    assert said[0] == "skipped: PyTorch: /nowhere/python does not run: No such file or directory"
    assert said[1].startswith("skipped: pythae: ")
    assert said[2].endswith("name an interpreter that has it with --artifex-python")


def test_every_platform_has_its_candidates_and_names_are_unique() -> None:
    everywhere = {peer.package: "python" for peer in candidates.PEERS}
    for platform in ("cpu", "gpu", "tpu"):
        for family in families.FAMILIES.values():
            alone = [each.name for each in candidates.of_family(family, platform, {})]
            together = [each.name for each in candidates.of_family(family, platform, everywhere)]
            assert {"fused", "floor", "jitted"} <= set(alone) < set(together)
            assert len(set(together)) == len(together)
            other = dataclasses.replace(family, dtype="bfloat16")
            narrow = candidates.of_family(other, platform, everywhere)
            assert {"fused", "floor", "jitted"} < {each.name for each in narrow}
            assert any("amp" in each.variant for each in narrow if each.module == "torch_peer")
            for each in narrow:  # they compute in it, or are not there
                assert each.changes == (() if family.dtype == "bfloat16" else (("dtype", "bfloat16"),))
                assert family.convolutional or each.module in ("ours", "floor", "torch_peer")
        for curve in growth.CURVES.values():
            points = curve(platform, 1).points
            assert len({point.candidate.name for point in points}) == len(points)
            for point in points:
                families.read(point.candidate.family, json.dumps(dict(point.candidate.changes)))


def results(**seconds: list[float]) -> dict[str, Any]:
    """The numbers of a run with one family, by candidate."""
    about = {"operations": 10**6, "parameters": 100, "precision": "float32"}
    extra = {"products_seconds_a_step": 1e-3, "bytes_a_second": 1e9}
    common = {"images_a_second": 1.0, "compile_seconds": 1.0, "host_bytes": 10**6, "device_bytes": None}
    found = {
        name.replace("_", " "): {"seconds": values, "about": about, "extra": extra, "peak_share": None, **common}
        for name, values in seconds.items()
    }
    family = {"title": "a family", "total_steps": None, "candidates": found}
    return {"chip": "a chip", "platform": "cpu", "families": {"vae": family}, "growth": {}}


def test_targets_are_judged_by_ratios_within_rounds() -> None:
    numbers = results(
        fused=[1.0, 2.0, 4.0], jitted=[0.9, 1.8, 3.6], torch_eager=[9.0, 9.0, 9.0], torch_compile=[3.0, 6.0, 12.0]
    )
    lines = {line.split(": ")[1]: line for line in (target.line() for target in targets.judge(numbers))}
    best = lines["vae against PyTorch's best (torch compile)"]
    assert best.endswith("at least 2, reached 3 (3 .. 3), held")
    assert lines["vae fused against jitted"].endswith("at least 1, reached 0.9 (0.9 .. 0.9), MISSED")
    assert lines["vae, share of the floor"].endswith("at least 0.8, not measured")
    numbers["first_picture_seconds"] = [14.0, 16.0, 12.0]
    numbers["growth"]["members"] = {
        "points": [
            {"series": series, "x": x, "seconds": [seconds] * 3}
            for series, x, seconds in (("a single run", 1, 1.0), ("in turn", 4, 4.4), ("in turn", 16, 15.0))
        ]
    }
    held = {target.what: target.held for target in targets.judge(numbers)}
    assert held["first picture of train.py vae"] is True
    assert held["a population against its members one after another"] is False


def test_a_peer_of_another_size_is_not_taken_for_the_same_model() -> None:
    family = results(fused=[1.0], floor=[1.0], torch_eager=[1.0], torch_compile=[1.0])["families"]["vae"]
    for name, parameters in (("torch eager", 100), ("torch compile", 101)):
        found = family["candidates"][name]
        found["about"] = {**found["about"], "parameters": parameters}
    lines = report.family_table(family)
    assert [line.strip() for line in lines if "NOT" in line] == ["NOT the same model: torch compile has 101 parameters"]


TORCH_PYTHON = os.environ.get("JAXGEN_TORCH_PYTHON") or (sys.executable if importlib.util.find_spec("torch") else None)


@pytest.mark.slow
@pytest.mark.skipif(
    TORCH_PYTHON is None, reason="no PyTorch here: name an interpreter that has it, JAXGEN_TORCH_PYTHON"
)
@pytest.mark.parametrize("variant", ["eager", "eager+amp+channels_last"])
@pytest.mark.parametrize("family", ["vae", "gan", "dcgan", "resnet"])
def test_the_twin_in_pytorch_has_as_many_parameters_and_trains(family: str, variant: str, tmp_path: Path) -> None:
    changes = {"width": 8, "batch_size": 4, "num_examples": 8}
    candidate = workers.Candidate("torch", "torch_peer", family, variant, str(TORCH_PYTHON), tuple(changes.items()))
    worker = workers.Worker(candidate.command, tmp_path)
    try:
        assert worker.read()["parameters"] == floor.num_parameters(families.read(family, json.dumps(changes)))
        assert worker.ask("3")["seconds"] > 0
    finally:
        worker.close()


def test_an_accelerators_targets_extrapolate_a_published_run() -> None:
    numbers = results(fused=[1e-4, 1e-4, 1e-4])
    numbers["platform"] = "gpu"
    numbers["families"]["burda"] = {**numbers["families"].pop("vae"), "total_steps": families.BURDA.total_steps}
    minutes = next(target for target in targets.judge(numbers) if "3280 epochs" in target.what)
    assert families.BURDA.total_steps == 9_840_000
    assert minutes.line().endswith("at most 30 min, reached 16.4 min (16.4 .. 16.4), held")


def test_a_slower_candidate_is_flagged_only_outside_the_spread() -> None:
    before = results(fused=[1.0, 1.01, 1.02], jitted=[1.0, 1.0, 3.0], floor=[1.0, 1.0, 1.0])
    now = results(fused=[1.2, 1.21, 1.22], jitted=[1.2, 1.2, 1.2], floor=[1.05, 1.05, 1.05], torch_eager=[9.0] * 3)
    lines = report.compare(now, before)
    assert [("SLOWER" in line) for line in lines] == [True, False, False]
    assert "1.198" in lines[0]
    other = copy.deepcopy(before)
    other["chip"] = "another chip"
    assert report.compare(now, other)[0].startswith("the baseline is of another machine: another chip")


@pytest.mark.parametrize("name", list(families.FAMILIES))
def test_the_floor_counts_the_parameters_of_our_networks(name: str) -> None:
    family = families.read(name, json.dumps({"width": 4, "batch_size": 2}))
    key = jax.random.key(0)
    state = jax.eval_shape(lambda: ours.fresh_state(ours.build(family), family, key))
    networks = [getattr(state, field) for field in state._fields if field.endswith("params") and field != "hyperparams"]
    assert sum(leaf.size for leaf in jax.tree.leaves(networks)) == floor.num_parameters(family)


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
def test_the_floors_convolutions_are_its_products(name: str) -> None:
    """Both forms of a layer make as many numbers, of operands of which the kernels are the same."""
    family = families.read(name, json.dumps({"width": 4, "batch_size": 2}))
    for each in floor.passes(family):
        for layer, product in each:
            if layer.image is not None:
                sizes = []
                for left, right, function in (
                    floor._as_convolution(layer, product),
                    floor._as_product(layer, product),
                ):
                    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (left, right)]
                    result = jax.eval_shape(function, *shapes)
                    patches = product == "input" if not layer.transposed else product == "forward"
                    sizes.append(None if patches else result.size)
                assert sizes[0] == sizes[1]


@pytest.mark.slow
def test_a_real_run_measures_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--quick", "--families", "vae", "--candidates", "fused,floor", "--json", str(tmp_path / "numbers.json")]
    with contextlib.chdir(tmp_path):
        run.main([*options, "--torch-python", os.devnull])
    printed = capsys.readouterr().out
    assert "MLP VAE 784-500-20, batch 128" in printed
    assert "skipped: PyTorch: " in printed
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    found = numbers["families"]["vae"]["candidates"]
    assert set(found) == {"fused", "floor"}
    assert all(len(each["seconds"]) == 3 and min(each["seconds"]) > 0 for each in found.values())
    assert found["fused"]["about"]["precision"] == "float32"
    assert found["floor"]["about"]["operations"] == floor.num_operations(families.VAE)
    assert "target: vae, share of the floor: at least 0.8, reached" in printed


def test_the_likelihood_is_timed_against_its_products() -> None:
    """Twice the samples take twice the products: the compiler leaves none of them out."""
    found = metric_costs.likelihood(1, num_images=2, num_samples=20, chunk_size=10)
    assert set(found["seconds"]) == {"floor", "jaxgen"}
    assert found["of_floor"]["median"] > 0
    assert found["minutes_of_the_test_set"] == pytest.approx(found["seconds"]["jaxgen"] * 10_000 / 2 * 250 / 60)
    assert "of the floor" in metric_costs.likelihood_line(found)
    few, many = (metric_costs.likelihood_products(20, number, 10) for number in (20, 2000))
    for run_products in (few, many):
        jax.block_until_ready(run_products())
    assert min(turns.seconds_of(many) for _ in range(3)) > 20 * min(turns.seconds_of(few) for _ in range(3))


def test_mistaken_options_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["--families", "gna"], "unknown gna"),
        (["--rounds", "0"], "--rounds must be at least 1"),
    ):
        with pytest.raises(SystemExit):
            run.parse(options)
        assert message in capsys.readouterr().err
