"""Checkpoints come back bit for bit or not at all, whatever happened to their files."""

import itertools
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.training import machine, manifest
from jaxgen.training.checkpoint import Checkpoints, DamagedCheckpointError
from tests import models

SPECS: dict[str, Any] = {
    "vae": models.vae(),
    "gan": models.gan(),
    "batch_norm_gan": models.batch_norm_gan(),
    "tokenizer": models.vq_tokenizer(),
}
pytestmark = [
    pytest.mark.usefixtures("orbax_fails"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
asynchronously = pytest.mark.parametrize("asynchronous", [False, True])


def state_of(family: str, seed: int = 0) -> Any:
    return models.init(SPECS[family], jax.random.key(seed))


@pytest.mark.parametrize("family", SPECS)
@asynchronously
def test_checkpoints_restore_bit_for_bit(family: str, asynchronous: bool, tmp_path: Path) -> None:
    state = state_of(family)
    counts = {"row": jnp.array([0.1, -0.0], jnp.bfloat16)}
    with Checkpoints(tmp_path / "checkpoints", asynchronous=asynchronous) as checkpoints:
        checkpoints.save(3, {"state": state, "counts": counts}, notes={"config": {"seed": 0}})
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.best_step() is None
        wanted = jax.eval_shape(lambda: {"state": state, "counts": counts})
        got = checkpoints.restore(3, wanted)
        alone = checkpoints.restore(3, {"state": wanted["state"]}).items["state"]
    chex.assert_trees_all_equal(got.items, {"state": state, "counts": counts})
    chex.assert_trees_all_equal(alone, state)
    assert type(got.items["state"]) is type(state)
    assert got.manifest["config"] == {"seed": 0}
    assert got.manifest["versions"]["jax"] == jax.__version__
    topology = {"platform": "cpu", "device_kind": "cpu", "devices": 8, "processes": 1}
    assert got.manifest["topology"] == {**topology, "xla_flags": machine.compiler_flags()}
    assert "-reduce" in machine.compiler_flags()
    assert "device_count" not in machine.compiler_flags()
    assert got.manifest["leaves"]["state/step"]["array"] == "int32[]"


def test_what_was_free_comes_back_free_and_what_was_bound_where_it_lay(tmp_path: Path) -> None:
    """JAX compiles a program for arrays that are bound to a device and one for those that are not."""
    free, second = {"x": jnp.arange(3.0)}, jax.devices()[1]
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"state": free})
        checkpoints.wait()
        double = jax.jit(lambda x: 2 * x)
        double(free["x"])
        again = checkpoints.restore(1, {"state": free}).items["state"]["x"]
        described = checkpoints.restore(1, {"state": jax.eval_shape(lambda: free)}).items["state"]["x"]
        bound = checkpoints.restore(1, {"state": jax.device_put(free, second)}).items["state"]["x"]
    assert (again.committed, described.committed, bound.committed) == (False, False, True)
    assert bound.devices() == {second}
    double(again), double(described)
    assert double._cache_size() == 1  # type: ignore[attr-defined]


@asynchronously
def test_the_newest_the_best_and_every_fourth_are_kept(asynchronous: bool, tmp_path: Path) -> None:
    items = {"state": state_of("vae")}
    scores = {1: None, 2: -3.0, 3: -5.0, 4: float("nan"), 5: None, 6: None, 7: -4.0}
    with Checkpoints(tmp_path, keep=2, keep_every=4, asynchronous=asynchronous) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, items, score)
        checkpoints.wait()
        assert checkpoints.steps() == [2, 4, 6, 7]
        assert (checkpoints.find("best"), checkpoints.find("newest"), checkpoints.find(6)) == (2, 7, 6)
        assert checkpoints.best_score() == -3.0
        with pytest.raises(FileNotFoundError, match=r"no 5 checkpoint in .*: there are \[2, 4, 6, 7\]"):
            checkpoints.find(5)
        with pytest.raises(FileExistsError, match=r"checkpoint 3 was not saved in .*, which holds \[4, 6, 7\]"):
            checkpoints.save(3, items)
        checkpoints.save(7, items, -1.0)  # the same step again, now with another score
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step() == 7
        for step in checkpoints.steps():
            checkpoints.restore(step, items)
    assert {path.name for path in tmp_path.iterdir()} == {"4", "6", "7"}
    with pytest.raises(RuntimeError, match="in a with statement"):
        Checkpoints(tmp_path).save(9, items)
    with pytest.raises(RuntimeError, match="in a with statement"):
        checkpoints.restore(7, items)
    with pytest.raises(ValueError, match="at least 1, got 0 and None"):
        Checkpoints(tmp_path, keep=0)
    with pytest.raises(ValueError, match="at least 1, got 2 and 0"):
        Checkpoints(tmp_path, keep_every=0)


def test_a_state_may_be_used_on_while_it_is_written(tmp_path: Path) -> None:
    """What is saved is the state of that step, though the next steps take its buffers."""
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    state = {"w": jnp.zeros((500, 1000)), "b": jnp.zeros((10,))}
    with Checkpoints(tmp_path, keep=9, asynchronous=True) as checkpoints:
        for number in range(3):
            checkpoints.save(number, {"state": state})
            for _ in range(10):
                state = step(state)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        for number in range(3):
            got = checkpoints.restore(number, {"state": jax.eval_shape(lambda: state)}).items["state"]
            assert set(np.unique(got["w"])) == {10.0 * number}


def test_another_model_is_refused_by_parameter(tmp_path: Path) -> None:
    state = state_of("vae")
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"state": state})
        checkpoints.save(2, {"state": state})
        half = state._replace(hyperparams={**state.hyperparams, "beta": jnp.zeros((), jnp.bfloat16)})
        with pytest.raises(ValueError, match=r"state/hyperparams/beta: saved float32\[\], wanted bfloat16\[\]"):
            checkpoints.restore(1, {"state": half})
        wider = state._replace(params=jax.tree.map(lambda x: jnp.zeros((*x.shape[:-1], x.shape[-1] + 1)), state.params))
        with pytest.raises(
            ValueError, match=r"another model: state/params/.*/bias: saved float32\[16\], wanted float32\[17\]"
        ):
            checkpoints.restore_newest({"state": wider})
        with pytest.raises(ValueError, match=r"another model: .*generator_params/.*/kernel: saved nothing, .* more"):
            checkpoints.restore_newest({"state": state_of("gan")})
        assert checkpoints.steps() == [1, 2], "another model is no damage"


def test_what_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    state: Any = state_of("batch_norm_gan")
    statistics = jax.tree.map(lambda x: x.at[0].set(jnp.nan), state.generator_collections)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=r"state/generator_collections/batch_stats/.* is not finite"):
            checkpoints.save(1, {"state": state._replace(generator_collections=statistics)})
        with pytest.raises(ValueError, match=r"nothing is empty, float32\[0, 3\]"):
            checkpoints.save(1, {"nothing": jnp.zeros((0, 3))})
        assert checkpoints.steps() == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints 10 and 20."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, asynchronous=True) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, {"state": state_of("batch_norm_gan", step)}, float(step))
    return folder


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(saved, tmp_path / "copy")
    yield tmp_path / "copy"
    shutil.rmtree(tmp_path / "copy")


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def flip(path: Path, generator: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    data[generator.integers(len(data))] ^= 1 << generator.integers(8)
    path.write_bytes(data)


def check_that_the_newest_good_one_is_restored(folder: Path, what: str) -> int:
    """Either 20 is intact or it is named as damaged and 10 comes back; then the run can go on."""
    with Checkpoints(folder) as checkpoints:
        restored = checkpoints.restore_newest({"state": state_of("batch_norm_gan")})
        chex.assert_trees_all_equal(restored.items["state"], state_of("batch_norm_gan", restored.step))
        assert restored.step in (10, 20), what
        if restored.step == 10:
            assert restored.damaged[20].startswith(f"checkpoint 20 in {folder} is damaged: "), what
            assert (folder / "damaged" / "20-0").is_dir(), what
        checkpoints.save(20, {"state": state_of("batch_norm_gan", 20)})
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.restore_newest({"state": state_of("batch_norm_gan")}).step == 20, what
    return restored.step


WAYS: dict[str, Callable[[Path], Any]] = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": lambda path: flip(path, np.random.default_rng(0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_file_may_be_damaged(way: str, saved: Path, tmp_path: Path) -> None:
    found = []
    for file in files(saved / "20"):
        copy = tmp_path / "copy"
        shutil.copytree(saved, copy)
        WAYS[way](copy / "20" / file)
        found.append(check_that_the_newest_good_one_is_restored(copy, f"{file} {way}"))
        shutil.rmtree(copy)
    assert 10 in found, "some damage matters"


@pytest.mark.parametrize(("num", "seed"), [(15, 0), pytest.param(200, 1, marks=pytest.mark.slow)], ids=["some", "200"])
def test_bits_may_flip_anywhere(num: int, seed: int, saved: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    found = []
    every = files(saved / "20")
    for i in range(num):
        # Half of the flips where most of the bytes are, half in any file.
        sizes = np.array([(saved / "20" / file).stat().st_size for file in every], float)
        file = every[generator.choice(len(every), p=sizes / sizes.sum() if i % 2 else None)]
        copy = tmp_path / "copy"
        shutil.copytree(saved, copy)
        flip(copy / "20" / file, generator)
        found.append(check_that_the_newest_good_one_is_restored(copy, f"{file}, flip {i}"))
        shutil.rmtree(copy)
    assert 10 in found


def test_when_none_is_good_each_is_named_with_its_reason(damaged: Path) -> None:
    (damaged / "20" / "manifest" / "metadata").unlink()
    flip(damaged / "10" / "manifest" / "metadata", np.random.default_rng(0))
    with Checkpoints(damaged) as checkpoints:
        assert checkpoints.best_step() is None
        with pytest.raises(
            DamagedCheckpointError,
            match=r"no checkpoint in .* can be used: checkpoint 20 .* is damaged: .*; checkpoint 10 .* is damaged: ",
        ):
            checkpoints.restore_newest({"state": state_of("batch_norm_gan")})
        assert checkpoints.steps() == [10, 20], "nothing is moved when there is nothing to go on with"
        with pytest.raises(DamagedCheckpointError, match=r"checkpoint 10 in .* is damaged"):
            checkpoints.restore(10, {"state": state_of("batch_norm_gan")})


def test_a_renamed_checkpoint_is_not_taken_for_another_step(damaged: Path) -> None:
    (damaged / "20").rename(damaged / "30")
    with Checkpoints(damaged) as checkpoints:
        restored = checkpoints.restore_newest({"state": state_of("batch_norm_gan")})
    assert restored.step == 10
    assert "its manifest is of step 20: the folder was renamed" in restored.damaged[30]


def test_what_a_kill_leaves_behind_is_cleaned(damaged: Path) -> None:
    for leftover in ("30.orbax-checkpoint-tmp", "deleted/5"):
        shutil.copytree(damaged / "10", damaged / leftover)
    with Checkpoints(damaged, read_only=True) as checkpoints:
        assert checkpoints.steps() == [10, 20]
    assert (damaged / "deleted").exists(), "a reader changes nothing"
    with Checkpoints(damaged) as checkpoints:
        assert checkpoints.steps() == [10, 20]
        checkpoints.save(30, {"state": state_of("batch_norm_gan")})
    assert {path.name for path in damaged.iterdir()} == {"20", "30"}


def test_a_failed_checkpoint_leaves_nothing_though_some_of_it_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orbax tells of the first error while other threads of its own go on."""
    run, delays = threading.Thread.run, itertools.count(0, 0.03)

    def late(self: threading.Thread) -> None:
        if type(self).__module__.startswith("orbax."):
            time.sleep(next(delays))
        run(self)

    monkeypatch.setattr(threading.Thread, "run", late)
    items = {name: {"values": jnp.arange(50_000.0)} for name in ("state", "totals")}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path, asynchronous=True) as checkpoints:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
            checkpoints.save(1, items)
            with pytest.raises(OSError, match=r"checkpoint 1 could not be written.*File too large"):
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        time.sleep(1)
        assert list(tmp_path.iterdir()) == []


def test_manifests() -> None:
    tree = {"a": {"w": jnp.zeros((2, 3))}, "b": jnp.ones((), jnp.int32)}
    made = manifest.build(7, tree, {"note": 1})
    manifest.check(made, 7)
    with pytest.raises(ValueError, match="checksum"):
        manifest.check({**made, "note": 2}, 7)
    with pytest.raises(ValueError, match="checksum"):
        manifest.check([], 7)
    assert made["leaves"]["a/w"]["array"] == "float32[2, 3]"
    # SHA-256 of 24 zero bytes, and of a little-endian 1.
    assert made["leaves"]["a/w"]["sha256"].startswith("9d908ecfb6b256de")
    assert made["leaves"]["b"]["sha256"].startswith("67abdd721024f0ff")
    assert manifest.summary(["x"] * 9, most=2) == "x; x; and 7 more"
