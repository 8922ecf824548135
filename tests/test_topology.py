"""A run is the same run on any number of devices and processes, and its checkpoints move between them."""

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from jaxgen import data, parallel
from jaxgen.cli import parsing as options
from jaxgen.cli import train
from jaxgen.data import batch_feeds
from jaxgen.training import loop, processes
from jaxgen.training.checkpoint import Checkpoints
from jaxgen.training.run import Run, init_state
from tests import models

FAMILIES = {"vae": models.vae(), "gan": models.gan(), "conv_gan": models.conv_gan()}
MESHES: dict[str, dict[str, int]] = {
    "1": {"data": 1},
    "2": {"data": 2},
    "4": {"data": 4},
    "8": {"data": 8},
    "2x4": {"data": 2, "model": 4},
}


def make_loop(spec: Any, axes: dict[str, int] | None) -> tuple[loop.Loop, Any, loop.Totals]:
    """A loop over 42 images, which no mesh divides, and a fresh state in its place."""
    dataset = {name: models.batch(42)[name] for name in ("image", "label")}
    key = jax.random.key(0)
    mesh = None if axes is None else parallel.make_mesh(axes)
    training = loop.Loop(partial(models.step(spec), spec), dataset, key, 16, mesh=mesh)
    state = jax.jit(training.place)(jax.device_get(models.init(spec, key)))
    return training, state, training.zero_totals(state)


def learnt(state: Any) -> dict[str, Any]:
    state = jax.device_get(state)
    return {n: getattr(state, n) for n in state._fields if n != "hyperparams" and "optimizer" not in n}


@pytest.mark.parametrize(
    "family", [f if f == "conv_gan" else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]
)
@pytest.mark.parametrize("name", ["2x4", *(pytest.param(name, marks=pytest.mark.slow) for name in "1248")])
def test_any_mesh_trains_the_same_model(family: str, name: str) -> None:
    training, state, totals = make_loop(FAMILIES[family], None)
    expected, expected_totals = training.run(state, totals, 20)
    training, state, totals = make_loop(FAMILIES[family], MESHES[name])
    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    got, got_totals = training.run(state, totals, 20)
    chex.assert_trees_all_close(learnt(got), learnt(expected), atol=2e-5, rtol=0)
    chex.assert_trees_all_close(loop.means(got_totals), loop.means(expected_totals), rtol=1e-4, atol=1e-5)
    same = jax.tree.map(lambda leaf, place: place.is_equivalent_to(leaf.sharding, leaf.ndim), got, places)
    assert all(jax.tree.leaves(same)), "the state left its place on the mesh"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("8", None, marks=pytest.mark.slow),
        pytest.param(None, "8", marks=pytest.mark.slow),
        pytest.param("8", "2", marks=pytest.mark.slow),
        ("2x4", "2"),
    ],
)
def test_checkpoints_move_between_meshes_bit_for_bit(before: str | None, after: str | None, tmp_path: Path) -> None:
    spec = FAMILIES["conv_gan"]
    training, state, totals = make_loop(spec, MESHES.get(str(before)))
    state, totals = training.run(state, totals, 3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, {"state": state, "totals": totals})
    training, fresh, zero = make_loop(spec, MESHES.get(str(after)))
    with Checkpoints(tmp_path) as checkpoints:
        items = checkpoints.restore(3, {"state": fresh, "totals": zero}).items
    restored, restored_totals = items["state"], items["totals"]
    chex.assert_trees_all_equal(jax.device_get((restored, restored_totals)), jax.device_get((state, totals)))
    assert jax.tree.map(lambda leaf: leaf.sharding, restored) == jax.tree.map(lambda leaf: leaf.sharding, fresh)
    training.run(restored, restored_totals, 2)


@pytest.mark.parametrize("family", options.FAMILIES)
def test_each_device_holds_its_part_of_the_state(family: str) -> None:
    spec: Any = options.FAMILIES[family]().spec((28, 28, 1))
    mesh = parallel.make_mesh({"data": 2, "model": 4})
    state = init_state(spec, jax.random.key(0), {"image": np.zeros((1, 28, 28, 1), np.uint8)})
    state = jax.device_put(state, parallel.state_shardings(state, mesh))
    trees = [tree for name, tree in state._asdict().items() if "params" in name or "optimizer" in name]
    leaves = jax.tree.leaves(trees)
    whole = sum(leaf.nbytes for leaf in leaves)
    for device in mesh.devices.flat:
        held = sum(s.data.nbytes for leaf in leaves for s in leaf.addressable_shards if s.device == device)
        assert held <= 1.05 * whole / 4


@pytest.mark.parametrize("num_examples", [1, 7, 42, 64])
@pytest.mark.parametrize(("processes", "blocks"), [(1, 1), (2, 4), (4, 8), (3, 3)])
def test_shares_cover_the_data_in_equal_blocks(num_examples: int, processes: int, blocks: int) -> None:
    shares = [batch_feeds.Share(process, processes, blocks) for process in range(processes)]
    rows = [i for share in shares for i in range(num_examples)[share.rows(num_examples)]]
    assert rows == list(range(num_examples))
    assert len({share.padded(num_examples) for share in shares}) == 1
    assert all(share.padded(num_examples) * processes % blocks == 0 for share in shares)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_processes(arguments: list[str], num: int = 2, devices: int = 2) -> list[subprocess.Popen[str]]:
    port = free_port()
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    together = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(num)]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "jaxgen", "train", *arguments, *together, "--process-id", str(process)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(num)
    ]


CADENCES = ["--log-every", "5", "--eval-every", "10", "--checkpoint-every", "10"]
SMALL = ["vae", "--hidden", "32", *CADENCES]
SMALL_GAN = ["gan", "--generator-hidden", "32", "--discriminator-hidden", "32", *CADENCES]


@pytest.mark.parametrize(
    "small",
    [pytest.param(SMALL, id="vae", marks=pytest.mark.slow), pytest.param(SMALL_GAN, id="gan", marks=pytest.mark.slow)],
)
def test_two_processes_of_two_devices_are_the_same_run(small: list[str], tmp_path: Path) -> None:
    """20 steps alone; and 10 in two processes, which then go on with 10 more."""
    assert train.main([*small, "--steps", "20", "--workdir", str(tmp_path / "alone")]) == 0
    for arguments in (["--steps", "10"], ["--steps", "20", "--resume"]):
        running = start_processes([*small, *arguments, "--workdir", str(tmp_path / "together")])
        printed = [process.communicate(timeout=180)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0], printed
        assert "picture:" in printed[0]
        assert "picture:" not in printed[1]
    alone, together = (Run.open(tmp_path / name) for name in ("alone", "together"))
    assert alone.config["identity"] == together.config["identity"]
    assert together.steps()[-1] == 20
    trees = [learnt(run.restore(20)) for run in (alone, together)]
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in trees]
    assert np.linalg.norm(flat[0] - flat[1]) < 1e-4 * np.linalg.norm(flat[0])
    rows = [len((run.directory / "metrics.jsonl").read_text().splitlines()) for run in (alone, together)]
    assert rows[0] == rows[1] == 6


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_dead_process_takes_the_others_with_it_and_the_run_resumes(killed: int, tmp_path: Path) -> None:
    arguments = [*SMALL, "--workdir", str(tmp_path / "run")]
    running = start_processes([*arguments, "--steps", "1000000"])
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "20").exists():
        assert time.monotonic() < deadline
        assert [process.poll() for process in running] == [None, None]
        time.sleep(0.2)
    running[killed].send_signal(signal.SIGKILL)
    running[killed].communicate()
    survivor = running[1 - killed]
    survivor.communicate(timeout=120)
    assert survivor.returncode != 0
    step = Run.open(tmp_path / "run").steps()[-1]
    running = start_processes([*arguments, "--steps", str(step + 10), "--resume"])
    printed = [process.communicate(timeout=180)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], printed
    assert Run.open(tmp_path / "run").steps()[-1] == step + 10


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_and_a_damaged_checkpoint_is_passed_over_by_all(tmp_path: Path) -> None:
    arguments = [*SMALL, "--workdir", str(tmp_path / "run")]
    running = start_processes([*arguments, "--steps", "1000000", "--checkpoint-every", "20"])
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "20").exists():
        assert time.monotonic() < deadline
        assert [process.poll() for process in running] == [None, None]
        time.sleep(0.2)
    running[1].send_signal(signal.SIGTERM)
    printed = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [128 + signal.SIGTERM] * 2, printed
    steps = Run.open(tmp_path / "run").steps()
    assert len(steps) >= 2
    damaged = tmp_path / "run" / "checkpoints" / str(steps[-1]) / "manifest" / "metadata"
    damaged.write_text(damaged.read_text().replace('"step": ', '"step": 1'))
    running = start_processes([*arguments, "--steps", str(steps[-1] + 10), "--resume"])
    printed = [process.communicate(timeout=180)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], printed
    assert f"checkpoint {steps[-1]} in " in printed[0]
    assert "does not have the checksum it was written with" in printed[0]
    assert f"resuming from step {steps[-2]}" in printed[0]
    assert Run.open(tmp_path / "run").steps()[-1] == steps[-1] + 10


def test_scripts_train_on_a_mesh(tmp_path: Path) -> None:
    arguments = [*SMALL, "--steps", "10", "--mesh", "data=2,model=4", "--workdir", str(tmp_path / "run")]
    assert train.main(arguments) == 0
    assert (tmp_path / "run" / "samples" / "samples_00000010.png").is_file()


BAD_TOPOLOGIES: dict[str, tuple[list[str], str]] = {
    "no mesh": (["--mesh", "eight"], "--mesh must be like data=8 or data=4,model=2, got 'eight'"),
    "another axis": (["--mesh", "data=2,tensor=4"], "--mesh must be like"),
    "nothing to split the batch over": (["--mesh", "model=4"], "--mesh must be like"),
    "an empty axis": (["--mesh", "data=0"], "at least one axis of at least 1 device"),
    "more than there are": (["--mesh", "data=16"], "needs 16 devices, there are 8"),
    "a batch it does not divide": (["--mesh", "data=8", "--batch-size", "12"], "12 images cannot be split over the 8"),
    "half a coordinator": (["--coordinator", "127.0.0.1:1234"], "--num-processes and --process-id go together"),
}


@pytest.mark.parametrize("name", BAD_TOPOLOGIES)
def test_bad_topologies_get_one_clear_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD_TOPOLOGIES[name]
    assert train.main(["vae", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "environment", [{"SLURM_NTASKS": "4"}, {"TPU_WORKER_HOSTNAMES": "worker-0,worker-1"}], ids=["SLURM", "TPU pod"]
)
def test_clusters_are_found_in_the_environment(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **_: calls.append(args))
    processes.connect()
    assert calls == []
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.connect()
    processes.connect("host:1", 2, 1)
    assert calls == [(), ("host:1", 2, 1)]


def test_a_process_reads_only_its_rows(tmp_path: Path) -> None:
    for i in range(10):
        path = tmp_path / "train" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), 20 * i + 10, np.uint8)).save(path)
    whole_file = (tmp_path / "train" / "9.png").read_bytes()
    (tmp_path / "train" / "9.png").write_bytes(whole_file[:-30])  # this one belongs to another process
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "0.png").write_bytes(whole_file)
    rows = batch_feeds.Share(0, 2, 2).rows
    mine = data.load(f"folder:{tmp_path}", rows=rows)["image"]
    assert mine[:, 0, 0, 0].tolist() == [10, 30, 50, 70, 90]
    with pytest.raises(ValueError, match=r"cannot read .*9\.png"):
        data.load(f"folder:{tmp_path}", rows=batch_feeds.Share(1, 2, 2).rows)
    whole = data.load()
    parts = [data.load(rows=batch_feeds.Share(i, 3, 3).rows) for i in range(3)]
    np.testing.assert_array_equal(np.concatenate([part["image"] for part in parts]), whole["image"])
    firsts = np.cumsum([0, *(len(part["image"]) for part in parts)])
    prints = [data.fingerprint(part, int(first)) for part, first in zip(parts, firsts, strict=False)]
    assert sum(prints) % 2**256 == data.fingerprint(whole)
    drawn = [data.binarize_set(part["image"], int(first)) for part, first in zip(parts, firsts, strict=False)]
    np.testing.assert_array_equal(np.concatenate(drawn), data.binarize_set(whole["image"]))


def test_numbers_are_added_over_processes() -> None:
    assert processes.total(2**200 + 5) == 2**200 + 5
    assert processes.agree(0.1) == 0.1
