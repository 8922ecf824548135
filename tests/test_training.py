"""The loop, checkpoints, the monitor and run directories."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import jaxgen
from jaxgen import losses, networks
from jaxgen.data import batch_feeds
from jaxgen.evaluation.figures import save_image
from jaxgen.training import loop, monitor, run
from tests import models

SPECS: dict[str, Any] = {
    "vae": models.vae(num_samples=2),
    "gan": models.gan(),
    "batch_norm_gan": models.batch_norm_gan(),
}


def make_loop(spec: Any, key: jax.Array, transform: Any = None, **options: Any) -> tuple[loop.Loop, Any, loop.Totals]:
    dataset = {name: models.batch(40)[name] for name in ("image", "label")}
    dataset["label"] = dataset["label"].astype(np.int32)
    training = loop.Loop(partial(models.step(spec), spec), dataset, key, 16, transform, **options)
    init = partial(models.init, spec)
    state = init(key) if key.ndim == 0 else jax.vmap(init)(key)
    return training, state, training.zero_totals(state)


@pytest.mark.parametrize(
    "family", [f if f == "batch_norm_gan" else pytest.param(f, marks=pytest.mark.slow) for f in SPECS]
)
def test_chunks_of_any_length_give_the_same_bits(family: str, key: jax.Array) -> None:
    results = []
    for chunks in ([21], [1] * 21, [7, 7, 7], [0, 20, 1]):
        training, state, totals = make_loop(SPECS[family], key)
        for length in chunks:
            state, totals = training.run(state, totals, length)
        results.append((state, totals))
    for other in results[1:]:
        chex.assert_trees_all_equal(results[0], other)
    assert int(results[0][1].steps) == 21


@pytest.mark.parametrize("family", ["vae", pytest.param("batch_norm_gan", marks=pytest.mark.slow)])
@pytest.mark.parametrize("members", ["in_turn", "together"])
def test_the_members_of_a_population_equal_separate_runs(family: str, members: Any) -> None:
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    singles = []
    for key in keys:
        training, state, totals = make_loop(SPECS[family], key)
        singles.append(training.run(state, totals, 5))
    training, state, totals = make_loop(SPECS[family], keys, members=members)
    states, totals = training.run(state, totals, 5)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *singles)
    if members == "in_turn":
        chex.assert_trees_all_equal((states, totals), expected)
    else:
        chex.assert_trees_all_close((states, totals), expected, atol=1e-5)


def test_the_loop_trains_on_the_batches_of_the_order(key: jax.Array) -> None:
    vae = SPECS["vae"]
    training, state, totals = make_loop(vae, key)
    dataset = {name: jnp.asarray(models.batch(40)[name]) for name in ("image", "label")}
    expected = models.init(vae, key)
    sums: dict[str, jax.Array] = {}
    for t in range(5):
        batch = batch_feeds.batch_at(dataset, key, jnp.int32(t), 40, 16)
        expected, metrics = jaxgen.vae_step(vae, expected, batch, key)
        sums = {name: sums.get(name, jnp.float32(0)) + value for name, value in metrics.items()}
    state, totals = training.run(state, totals, 5)
    chex.assert_trees_all_close(state, expected, atol=1e-5)
    for name, mean in loop.means(totals).items():
        np.testing.assert_allclose(mean, sums[name] / 5, rtol=1e-5)


def test_a_transform_sees_every_batch(key: jax.Array) -> None:
    def white(batch: dict[str, jax.Array], key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
        return {**batch, "image": jnp.full(batch["image"].shape, 255, jnp.uint8)}

    training, state, totals = make_loop(SPECS["vae"], key, white)
    state, _ = training.run(state, totals, 3)
    expected = models.init(SPECS["vae"], key)
    for _ in range(3):
        batch = {"image": np.full((16, *models.IMAGE_SHAPE), 255, np.uint8)}
        expected, _ = jaxgen.vae_step(SPECS["vae"], expected, batch, key)
    chex.assert_trees_all_close(state.params, expected.params, atol=1e-5)


def test_stops() -> None:
    assert loop.next_stop(0, 100, (30, 50)) == 30
    assert loop.next_stop(30, 100, (30, 50)) == 50
    assert loop.next_stop(90, 100, (30, 50)) == 100
    assert loop.means(loop.Totals({"loss": jnp.float32(0)}, jnp.int32(0), jnp.int32(0), jnp.bool_(True))) == {}


def test_monitor_rows_and_pictures(tmp_path: Path) -> None:
    with monitor.Monitor(tmp_path, 0) as shown:
        for step in (10, 20, 30):
            shown.write(step, {"loss": 1.0 / step, "time_steps_per_second": 5.0})
        path = shown.show(30, "samples", np.zeros((5, 4, 4, 1), np.float32))
    assert path == tmp_path / "samples" / "samples_00000030.png"
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 40, "lo')  # killed while writing
    with monitor.Monitor(tmp_path, 20) as shown:
        shown.write(30, {"loss": float("nan")})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30]
    assert rows[2] == {"step": 30, "loss": "nan"}
    assert any("tfevents" in path.name for path in (tmp_path / "tensorboard").iterdir())
    (tmp_path / "metrics.jsonl").write_text("something else\n")
    with pytest.raises(ValueError, match="not a log of metrics"):
        monitor.Monitor(tmp_path, 0)


def test_image_grid(tmp_path: Path) -> None:
    images = np.linspace(0, 1, 5, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 3, 1), np.float32)
    grid = monitor.image_grid(images, columns=3, padding=1)
    assert grid.shape == (2 * 3 + 1, 3 * 4 + 1, 3)
    assert grid[1, 1].tolist() == [0, 0, 0]
    assert grid[1, 9].tolist() == [128, 128, 128]
    assert grid[4, 5].tolist() == [255, 255, 255]
    assert (grid[4:6, 9:12] == 255).all()  # the empty place
    save_image(tmp_path / "sub" / "grid.png", grid, "levels of grey")
    with Image.open(tmp_path / "sub" / "grid.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), grid)
        assert picture.info == {"Title": "levels of grey"}
    with pytest.raises(ValueError, match=r"\[N, H, W, C\]"):
        monitor.image_grid(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="at least 1 column"):
        monitor.image_grid(images, columns=0)


def plain_specs() -> dict[str, Any]:
    adam = run.optimizer("adam", learning_rate=1e-3, b1=0.5)
    return {
        "vae": jaxgen.VAE(
            networks.MLPEncoder(4, hidden=(8,), activation=networks.leaky_relu),
            networks.MLPDecoder((5, 5, 1), hidden=(8, 9), output_activation=jax.nn.sigmoid),
            adam,
            4,
            likelihood=losses.gaussian(scale=0.25),
            beta=0.5,
        ),
        "gan": jaxgen.GAN(
            networks.MLPGenerator((5, 5, 1)),
            networks.MLPDiscriminator(dropout_rate=0.5),
            adam,
            run.optimizer("sgd", learning_rate=0.1),
            latent_dim=7,
            loss=losses.minimax,
            ema_decay=0.99,
        ),
    }


@pytest.mark.parametrize("family", plain_specs())
def test_specs_survive_the_config(family: str) -> None:
    spec = plain_specs()[family]
    plain = json.loads(json.dumps(run.to_plain(spec)))
    rebuilt = run.from_plain(plain)
    assert rebuilt == spec
    assert hash(rebuilt) == hash(spec)


def test_a_rebuilt_spec_is_not_compiled_again(key: jax.Array) -> None:
    batch = {"image": np.zeros((4, 5, 5, 1), np.uint8)}
    first, second = plain_specs()["vae"], plain_specs()["vae"]
    state = jaxgen.vae_init(first, key, batch)
    jaxgen.vae_step(first, state, batch, key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxgen.vae.training, "vae_update", None)  # tracing again would call it
        jaxgen.vae_step(second, state, batch, key)


def test_optimizers_are_plain_and_their_numbers_dynamic() -> None:
    adam = run.optimizer("adam", learning_rate=1e-3)
    state = adam.init({"w": jnp.zeros(2)})
    assert float(state.hyperparams["learning_rate"]) == np.float32(1e-3)
    updates, _ = adam.update({"w": jnp.ones(2)}, state)
    np.testing.assert_allclose(updates["w"], -1e-3, rtol=1e-4)
    with pytest.raises(ValueError, match="unknown optimizer 'adamm': use one of"):
        run.optimizer("adamm", learning_rate=1e-3)
    with pytest.raises(ValueError, match="does not take"):
        run.optimizer("adam", rate=1e-3)


def test_unregistered_parts_are_refused() -> None:
    with pytest.raises(TypeError, match="register"):
        run.to_plain(models.vae())  # a bare optax transformation has no name
    with pytest.raises(TypeError, match="register"):
        run.to_plain(lambda x: x)
    with pytest.raises(ValueError, match=r"unknown type 'os\.system'"):
        run.from_plain({"type": "os.system", "command": "true"})
    with pytest.raises(ValueError, match="unknown name 'eval'"):
        run.from_plain({"named": "eval"})
    with pytest.raises(ValueError, match="fields do not fit MLPEncoder"):
        run.from_plain({"type": "MLPEncoder", "width": 3})
    with pytest.raises(ValueError, match="already registered"):
        run.register("elbo", models.vae)
    run.register("LocalEncoder", LocalEncoder)
    encoder = LocalEncoder(3, hidden=(4,))
    assert run.from_plain(run.to_plain(encoder)) == encoder


class LocalEncoder(networks.MLPEncoder):
    """A user's own network, registered by name."""


def test_run_directories(tmp_path: Path) -> None:
    data = {"image_shape": [5, 5, 1], "image_type": "uint8", "labels": False}
    identity = {"model": {"latent_dim": 3}, "data": data, "seed": 0}
    made = run.Run.create(tmp_path / "a" / "run", identity, {"steps": 5})
    assert run.Run.open(tmp_path / "a" / "run").config == made.config
    made.check_identity(identity)
    with pytest.raises(ValueError, match=r"model\.latent_dim was 3, now 4; seed was 0, now 1"):
        made.check_identity({"model": {"latent_dim": 4}, "data": data, "seed": 1})
    with pytest.raises(FileExistsError, match="already holds a run: pass --resume"):
        run.Run.create(tmp_path / "a" / "run", identity, {})
    with pytest.raises(FileNotFoundError, match="holds no run"):
        run.Run.open(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not the config of a run"):
        run.Run.open(tmp_path)
    (tmp_path / "config.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="format 99"):
        run.Run.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        made.restore()
    assert optax.__version__ == made.config["versions"]["optax"]
