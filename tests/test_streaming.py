"""Data that stream: the same examples in the same order, whatever asks for them, and nothing left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import streaming as benchmark
from jaxgen import data, parallel
from jaxgen.cli import train
from jaxgen.data import batch_feeds, folders, limits, streaming
from jaxgen.training import loop, run_data, session
from jaxgen.training.run import Run
from tests import models, tiny_tfds
from tests.test_data import write_idx, write_pictures
from tests.test_input_safety import BAD_DATA
from tests.test_interruptions import assert_the_same_run
from tests.test_sentinel import poison_batch
from tests.test_topology import learnt, start_processes

BATCH = 16
FAMILIES: dict[str, Any] = {
    "vae": models.vae(num_samples=2),
    "gan": models.gan(),
    "batch_norm": models.batch_norm_gan(),
}
TINY = ["vae", "--hidden", "16", "--latent-dim", "3", "--batch-size", "16", "--steps", "40"]
CADENCES = ["--log-every", "10", "--eval-every", "20", "--sample-every", "20", "--checkpoint-every", "20"]


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while left := [thread for thread in threading.enumerate() if "grain" in thread.name]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three steps, which divide no chunk."""
    monkeypatch.setattr(streaming, "BLOCK_EXAMPLES", 3 * BATCH)


def arrays(num: int = 40) -> dict[str, np.ndarray]:
    batch = models.batch(num)
    return {"image": batch["image"], "label": batch["label"].astype(np.int32)}


def make_loop(spec: Any, dataset: Any, **settings: Any) -> tuple[loop.Loop, Any, loop.Totals]:
    key = jax.random.key(0)
    training = loop.Loop(partial(models.step(spec), spec), dataset, key, BATCH, **settings)
    state = jax.jit(training.place)(jax.device_get(models.init(spec, key)))
    return training, state, training.zero_totals(state)


def after(spec: Any, dataset: Any, chunks: list[int], **settings: Any) -> tuple[Any, loop.Totals]:
    training, state, totals = make_loop(spec, dataset, **settings)
    for length in chunks:
        state, totals = training.run(state, totals, length)
    training.close()
    return jax.device_get((state, totals))


def pictures(path: Path, num: int = 30) -> str:
    write_pictures(path / "train" / "boots", num=num // 2)
    write_pictures(path / "train" / "coats", num=num - num // 2)
    write_pictures(path / "test" / "boots", num=2)
    return f"folder:{path}"


def garments(path: Path) -> str:
    tiny_tfds.prepare(path)
    return "tiny_garments"


def idx(path: Path, suffix: str = "") -> str:
    for prefix, num in (("train", 30), ("t10k", 3)):
        images = np.random.default_rng(num).integers(0, 256, (num, 4, 5), dtype=np.uint8)
        write_idx(path / f"{prefix}-images-idx3-ubyte{suffix}", images)
        write_idx(path / f"{prefix}-labels-idx1-ubyte", np.arange(num, dtype=np.uint8) % 7)
    return f"idx:{path}"


def npz(path: Path, save: Callable[..., None] = np.savez, **changes: Any) -> str:
    image = np.random.default_rng(0).integers(0, 256, (37, 4, 5, 1), dtype=np.uint8)
    save(path / "images.npz", **{"image": image, "label": np.arange(37) % 5, **changes})
    return f"npz:{path / 'images.npz'}"


def floats(path: Path) -> str:
    return npz(path, image=np.random.default_rng(0).random((37, 4, 5)), label=np.arange(37, dtype=">i8") % 3)


def by_columns(path: Path) -> str:
    return npz(path, image=np.asfortranarray(np.random.default_rng(0).random((37, 20))))


# name: (how to make it, whether all of it is in memory whatever is done)
DATASETS: dict[str, tuple[Callable[[Path], str], bool]] = {
    "a folder": (pictures, False),
    "TFDS": (garments, False),
    "idx": (idx, False),
    "idx, gzipped": (lambda path: idx(path, ".gz"), True),
    "npz": (npz, False),
    "npz, compressed": (lambda path: npz(path, np.savez_compressed), True),
    "npz of floats": (floats, False),
    "npz, columns first": (by_columns, True),
    "npz of bits": (lambda path: npz(path, image=np.random.default_rng(0).random((37, 20)) > 0.5), False),
    "the embedded one": (lambda path: "fashion_mnist_small", True),
}


@pytest.mark.parametrize("name", DATASETS)
def test_a_source_reads_what_is_loaded(name: str, tmp_path: Path) -> None:
    make, in_memory = DATASETS[name]
    dataset = make(tmp_path)
    for split in ("train", "test"):
        resizes = dataset.startswith(("folder", "idx", "tiny"))
        changes: list[dict[str, Any]] = [{}, {"image_size": 6, "color": "rgb"}] if resizes else [{}]
        for change in changes:
            settings: dict[str, Any] = {"data_dir": tmp_path, **change}
            expected = data.load(dataset, split, **settings)
            source = data.open_source(dataset, split, **settings)
            num = len(expected["image"])
            assert (source.num_examples, source.arrays is not None) == (num, in_memory)
            assert (source.image_shape, source.image_type) == (expected["image"].shape[1:], expected["image"].dtype)
            assert source.labels == ("label" in expected)
            assert not source.labels or (source.num_classes or 0) > expected["label"].max()
            assert source.nbytes == sum(array.nbytes for array in expected.values())
            for places in (np.arange(num), np.random.default_rng(0).permutation(num)[:5], np.arange(0)):
                got = source.read(places)
                assert {key: array.dtype for key, array in got.items()} == {k: a.dtype for k, a in expected.items()}
                chex.assert_trees_all_equal(got, {key: array[places] for key, array in expected.items()})
            drawn = data.binarized(source).read(np.array([num - 1, 0]))["image"]
            np.testing.assert_array_equal(drawn, data.binarize_set(expected["image"])[[num - 1, 0]])


# Not seen without reading all: an archive's checksum.
BAD_BY_PLACE = {name: message for name, (_, message) in BAD_DATA.items() if name != "archive damaged"} | {
    # What is larger than the memory may stream, if it is there.
    "array larger than the memory": "image.npy is not where the directory of the archive says",
    "idx: larger than the memory": "and only 0 bytes follow",
}


@pytest.mark.parametrize("name", BAD_BY_PLACE)
def test_bad_data_say_the_same_when_they_are_read_by_place(name: str, tmp_path: Path) -> None:
    made = BAD_DATA[name][0](tmp_path)
    dataset, split, image_size = (made, "train", None) if isinstance(made, str) else (*made, None)[:3]
    with pytest.raises((ValueError, FileNotFoundError), match=BAD_BY_PLACE[name]) as caught:
        data.open_source(dataset, split, image_size=image_size).look()
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("family", ["vae", pytest.param("gan", marks=pytest.mark.slow), "batch_norm"])
def test_streamed_and_loaded_runs_are_the_same(family: str) -> None:
    spec, dataset = FAMILIES[family], arrays()
    expected = after(spec, dataset, [58])
    for chunks in ([50, 1, 7], [7] * 7 + [1, 1, 0, 7]):
        chex.assert_trees_all_equal(after(spec, data.in_memory(dataset), chunks), expected)


@pytest.mark.usefixtures("small_blocks")
def test_the_order_of_requests_does_not_matter() -> None:
    training, _, _ = make_loop(FAMILIES["vae"], data.in_memory(arrays()))
    loaded, _, _ = make_loop(FAMILIES["vae"], arrays())
    for step in (0, 1, 5, 4, 100, 3, 2, 0, 101, 10**9):
        chex.assert_trees_all_equal(training.batch(step), loaded.batch(step))
    training.close()
    chex.assert_trees_all_equal(training.batch(7), loaded.batch(7))  # opened again
    training.close()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["a folder", "TFDS", "idx", "npz of floats"])
def test_every_kind_streams_in_the_same_order(name: str, tmp_path: Path) -> None:
    """Read by several threads at once."""
    dataset, key = DATASETS[name][0](tmp_path), jax.random.key(0)
    loaded = data.load(dataset, data_dir=tmp_path)
    feed = streaming.Streamed(data.open_source(dataset, data_dir=tmp_path), key, BATCH, None)
    step = jnp.int32(4)
    for arrays, now in feed.blocks(step, 30):
        for t in range(int(step), int(step) + now):
            expected = batch_feeds.batch_at(jax.device_put(loaded), key, jnp.int32(t), len(loaded["image"]), BATCH)
            chex.assert_trees_all_equal(feed.batch(arrays, key, jnp.int32(t)), expected)
        step += now
    feed.close()
    assert int(step) == 34


@pytest.mark.usefixtures("small_blocks")
def test_memory_is_that_of_the_blocks_in_flight() -> None:
    """However slowly they are used: no more is read than may wait."""
    source = data.in_memory(arrays())
    numbers: list[int] = []

    def read(places: np.ndarray) -> dict[str, np.ndarray]:
        numbers.append(len(places))
        return source.read(places)

    counted = data.Source("x", 40, source.image_shape, source.image_type, True, 10, read)
    training, state, totals = make_loop(FAMILIES["vae"], counted)
    assert numbers == []
    state, totals = training.run(state, totals, 1)
    time.sleep(0.3)
    assert set(numbers) == {3 * BATCH}
    assert 2 <= len(numbers) <= 2 + streaming.MOST_THREADS
    training.run(state, totals, 5)
    training.close()
    assert training.input_wait > 0


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("axes", [pytest.param({"data": 4}, marks=pytest.mark.slow), {"data": 2, "model": 4}])
def test_a_mesh_gets_the_same_batches(axes: dict[str, int]) -> None:
    mesh = parallel.make_mesh(axes)
    streamed = after(FAMILIES["vae"], data.in_memory(arrays()), [5, 2], mesh=mesh)
    chex.assert_trees_all_equal(streamed, after(FAMILIES["vae"], arrays(), [7], mesh=mesh))


@pytest.mark.usefixtures("small_blocks")
def test_the_bad_step_is_found_in_a_stream() -> None:
    expected = after(FAMILIES["vae"], arrays(), [7], transform=poison_batch)
    training, start, zero = make_loop(FAMILIES["vae"], data.in_memory(arrays()), transform=poison_batch)
    assert not bool(training.run(start, zero, 20)[1].finite)
    chex.assert_trees_all_equal(jax.device_get(training.before_the_bad_step(start, zero, 20)), expected)
    training.close()


def test_damage_stops_the_step_that_meets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The rest of the folder is fine, and was looked at; the run is saved and goes on when the picture is replaced."""
    monkeypatch.setattr(streaming, "BLOCK_EXAMPLES", 16)
    monkeypatch.setattr("jaxgen.data.sources.LOOKED_AT", 3)
    monkeypatch.setattr(run_data.data, "LOOKED_AT", 3)
    monkeypatch.setattr(session, "CHUNK_SECONDS", 1e-9)
    dataset, workdir = pictures(tmp_path / "data", num=40), tmp_path / "run"
    damaged = tmp_path / "data" / "train" / "boots" / "05.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-30])
    command = [*TINY, *CADENCES, "--dataset", dataset, "--streaming", "always", "--workdir", str(workdir)]
    assert train.main(command) == 1
    assert "error: folder:" in (error := capsys.readouterr().err)
    assert f"cannot read {damaged}: " in error
    steps = Run.open(workdir).steps()
    assert not steps or steps[-1] < 3
    damaged.write_bytes(whole)
    assert train.main([*command, "--resume"]) == 0
    assert Run.open(workdir).steps()[-1] == 40


@pytest.mark.slow
@pytest.mark.parametrize("binarization", ["static", "dynamic"])
def test_a_run_changes_between_streaming_and_not(binarization: str, tmp_path: Path, capsys: Any) -> None:
    dataset, whole, parts = npz(tmp_path), tmp_path / "whole", tmp_path / "parts"
    command = [*TINY, *CADENCES, "--dataset", dataset, "--binarization", binarization, "--conditional"]
    assert train.main([*command, "--workdir", str(whole)]) == 0
    assert "streaming" not in capsys.readouterr().out
    for steps, how in ((20, "always"), (40, "never")):
        more = ["--steps", str(steps), "--streaming", how, "--workdir", str(parts), "--resume"]
        assert train.main([*command, *more]) == 0
        assert ("streaming the training images from where they are: --streaming always" in capsys.readouterr().out) == (
            how == "always"
        )
    assert Run.open(parts).config["identity"] == Run.open(whole).config["identity"]
    assert_the_same_run(parts, whole, 40)
    assert "time_input_wait_share" in (parts / "metrics.jsonl").read_text()
    image = np.load(tmp_path / "images.npz")["image"]
    image[3, 2, 2] ^= 255
    npz(tmp_path, image=image)
    for how in ("always", "never"):
        assert train.main([*command, "--streaming", how, "--workdir", str(parts), "--resume"]) == 1
        assert "data.sha256 was" in capsys.readouterr().err


def test_what_does_not_fit_streams_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = data.open_source(npz(tmp_path))
    packed = data.open_source(npz(tmp_path, np.savez_compressed))
    chosen = partial(run_data.why_stream, "auto")
    assert chosen(source, 1) is None
    monkeypatch.setattr(limits, "memory", lambda: int(source.nbytes / run_data.HOST_SHARE) - 1)
    assert "more than 40% of the" in str(chosen(source, 1))
    assert "--streaming never" in str(chosen(source, 1))
    assert chosen(packed, 1) is None  # it is there already
    assert run_data.why_stream("never", source, 1) is None

    class Device:
        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": int(source.nbytes / run_data.DEVICE_SHARE) - 1}

    monkeypatch.setattr(run_data.jax, "local_devices", lambda: [Device()])
    assert "more than 50% of the memory of 1 device of" in str(chosen(packed, 1))
    assert chosen(packed, 2) is None


def test_populations_and_batches_that_do_not_fit_are_refused() -> None:
    source = data.in_memory(arrays())
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    for key, size, message in (
        (keys, 16, "a population of 3 members needs its data set on the device"),
        (jax.random.key(0), 41, "batch size 41 is larger than the data set of 40 images"),
        (jax.random.key(0), 0, "batch size must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            loop.Loop(partial(models.step(models.vae()), models.vae()), source, key, size)


def test_without_grain_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grain", None)
    training, state, totals = make_loop(FAMILIES["vae"], data.in_memory(arrays()))
    with pytest.raises(ModuleNotFoundError, match=r"streaming needs grain.*pip install grain"):
        training.run(state, totals, 1)


def test_files_that_change_while_they_are_read(tmp_path: Path) -> None:
    source = data.open_source(npz(tmp_path))
    path = tmp_path / "images.npz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"images\.npz has become shorter than it was"):
        source.read(np.array([30]))
    npz(tmp_path, image=np.full((37, 4), np.nan, np.float32) * (np.arange(37) == 20)[:, None])
    with pytest.raises(ValueError, match="NaN or infinite"):
        data.open_source(f"npz:{path}", "all").read(np.array([20]))


def test_shapes_and_colours_are_those_of_the_first_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen at once in the headers that are looked at, and when it is read of others."""
    write_pictures(tmp_path / "a", size=8)
    write_pictures(tmp_path / "b", size=9)
    with pytest.raises(ValueError, match=r"00\.png is \[8, 8\] pixels, .*00\.png is \[9, 9\]: give one size"):
        data.open_source(f"folder:{tmp_path}", "all")
    monkeypatch.setattr(folders, "SCANNED", 1)
    source = data.open_source(f"folder:{tmp_path}", "all")
    assert source.read(np.arange(10))["image"].shape == (10, 8, 8, 1)
    with pytest.raises(ValueError, match=r"00\.png is \[8, 8\] pixels, .*00\.png is \[9, 9\]: give one size"):
        source.read(np.array([10]))


@pytest.mark.slow
def test_a_signal_ends_a_slow_stream(tmp_path: Path) -> None:
    """In a process of its own, whose pictures take their time: it ends in the middle, saved, and leaves no thread."""
    program = f"""
import sys, time
import numpy as np
from jaxgen.cli import train
from jaxgen.data.folders import Folder
from jaxgen.data import streaming
streaming.BLOCK_EXAMPLES = 16
read = Folder.read
def slowly(self, places):
    time.sleep(0.05)
    return read(self, places)
Folder.read = slowly
sys.exit(train.main({[*TINY, *CADENCES, "--dataset", pictures(tmp_path / "data"), "--streaming", "always"]!r} +
    ["--steps", "100000", "--workdir", {str(tmp_path / "run")!r}]))
"""
    running = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "checkpoints" / "20").exists():
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, error = running.communicate(timeout=30)
    assert running.returncode == 128 + signal.SIGTERM, error
    assert time.monotonic() - began < 10
    assert Run.open(tmp_path / "run").steps()[-1] >= 20


@pytest.mark.slow
def test_processes_read_their_parts_of_the_same_run(tmp_path: Path) -> None:
    """Two of two devices each stream what one process has loaded."""
    command = [*TINY, *CADENCES, "--dataset", pictures(tmp_path / "data", num=40)]
    assert train.main([*command, "--workdir", str(tmp_path / "alone")]) == 0
    running = start_processes([*command, "--streaming", "always", "--workdir", str(tmp_path / "together")])
    printed = [process.communicate(timeout=180)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], printed
    alone, together = (Run.open(tmp_path / name) for name in ("alone", "together"))
    assert alone.config["identity"] == together.config["identity"]
    chex.assert_trees_all_close(learnt(alone.restore(40)), learnt(together.restore(40)), atol=2e-4)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux says how much memory was used")  # noqa: PTH110
@pytest.mark.parametrize("kind", ["npz", "idx", "folder"])
def test_memory_is_flat_in_the_size_of_the_data(kind: str) -> None:
    measured = benchmark.measure(kind, 1000 if kind == "folder" else 20_000, steps=100)
    assert measured["memory_ratio"] <= benchmark.LIMIT_MEMORY
    assert measured["same"]
