"""Numbers that go wrong stop the run, and what went wrong first is named, kept and done again."""

import dataclasses
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import data
from jaxgen.cli import replay, runs, train
from jaxgen.training import loop, sentinel
from jaxgen.training.run import Run
from tests import models

BAD = 7  # steps done before the one that goes wrong


@jax.custom_jvp
def _nan_gradient(x: jax.Array, poisoned: jax.Array) -> jax.Array:
    """The identity, whose gradient is NaN when poisoned."""
    return x


@_nan_gradient.defjvp
def _(primals: Any, tangents: Any) -> Any:
    x, poisoned = primals
    return x, jnp.where(poisoned, jnp.nan, 1.0) * tangents[0]


class Poisoned(nn.Module):
    """A network whose gradient, or a statistic that it keeps, is NaN at one of its passes in training."""

    network: Any
    what: str
    at: int
    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, label: Any = None, *, train: bool) -> Any:
        passes = self.variable("batch_stats", "passes", lambda: jnp.zeros((), jnp.int32))
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros((3,)))
        now = passes.value == self.at
        y = self.network(x, label, train=train)
        if train and not self.is_initializing():
            passes.value += 1
            if self.what == "statistic":
                mean.value = jnp.where(now, jnp.nan, mean.value)
        return jax.tree.map(lambda a: _nan_gradient(a, now & train), y) if self.what == "gradient" else y


def poison_batch(batch: dict[str, jax.Array], key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
    image = batch["image"].astype(jnp.float32) / 255.0
    return {**batch, "image": image.at[0, 0, 0, 0].set(jnp.where(step == BAD, jnp.nan, image[0, 0, 0, 0]))}


def poisoned(name: str, what: str, at: int) -> Any:
    base: Any = models.gan() if name in ("generator", "discriminator") else models.vae()
    return dataclasses.replace(base, **{name: Poisoned(getattr(base, name), what, at)})


# A discriminator sees the real images in one pass and the fakes in another.
CASES: dict[str, tuple[Any, Callable[..., Any] | None, str]] = {
    "the batch, of a GAN": (models.gan(), poison_batch, "the batch's image"),
    "the batch, of a VAE": (models.vae(), poison_batch, "the batch's image"),
    "the discriminator's gradient": (
        poisoned("discriminator", "gradient", 2 * BAD),
        None,
        "the discriminator's gradient at network/hidden_layers/Dense_0/bias",
    ),
    "the generator's gradient": (
        poisoned("generator", "gradient", BAD),
        None,
        "the generator's gradient at network/hidden_layers/Dense_0/bias",
    ),
    "the decoder's gradient": (
        poisoned("decoder", "gradient", BAD),
        None,
        "the encoder's gradient at hidden_layers/Dense_0/bias",  # through the decoder
    ),
    "a statistic of the discriminator": (
        poisoned("discriminator", "statistic", 2 * BAD + 1),
        None,
        "the discriminator's statistics at batch_stats/mean",
    ),
    "a statistic of the generator": (
        poisoned("generator", "statistic", BAD),
        None,
        "the generator's statistics at batch_stats/mean",
    ),
}


def make_loop(spec: Any, key: jax.Array, transform: Any = None, **options: Any) -> tuple[loop.Loop, Any, loop.Totals]:
    training = loop.Loop(
        partial(models.step(spec), spec), {"image": models.batch(40)["image"]}, key, 16, transform, **options
    )
    state = models.init(spec, key)
    return training, state, training.zero_totals(state)


QUICK = ("the batch, of a VAE", "the discriminator's gradient", "a statistic of the generator")


@pytest.mark.parametrize("case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES])
def test_the_step_and_the_first_bad_array_are_named(case: str, key: jax.Array) -> None:
    spec, transform, expected = CASES[case]
    training, start, zero = make_loop(spec, key, transform)
    good, good_totals = training.run(start, zero, BAD)
    assert bool(good_totals.finite)
    _, totals = training.run(start, zero, 20)
    assert not bool(totals.finite)
    found, found_totals = training.before_the_bad_step(start, zero, 20)
    chex.assert_trees_all_equal((found, found_totals), (good, good_totals))
    after, totals = training.run(found, zero, 1)
    batch = training.batch(BAD)
    bad = sentinel.BadStep(
        found,
        batch,
        key,
        {name: float(value) for name, value in totals.sums.items()},
        sentinel.find(spec, found, batch, key, after, totals.sums),
    )
    assert bad.findings[0] == expected
    loss = "discriminator_loss" if "GAN" in type(spec).__name__ else "loss"
    assert f"step {BAD + 1} made numbers that are not finite: {expected}" in str(bad)
    assert f"{loss} {bad.metrics[loss]:.6g}" in str(bad)


def test_a_bad_step_is_skipped_and_counted(key: jax.Array) -> None:
    """Training goes on as if the bad step's batch had not been there, but for the step's number."""
    training, state, totals = make_loop(models.vae(), key, poison_batch, sentinel="skip")
    state, totals = training.run(state, totals, BAD)
    after, after_totals = training.run(state, totals, 1)
    assert int(after.step) == BAD + 1
    chex.assert_trees_all_equal(after._replace(step=state.step), state)
    assert (int(after_totals.skipped), int(after_totals.steps)) == (1, BAD)
    chex.assert_trees_all_equal(after_totals.sums, totals.sums)
    state, totals = training.run(after, after_totals, 5)
    assert bool(totals.finite)
    assert (int(totals.skipped), int(totals.steps)) == (1, BAD + 5)


def test_healthy_steps_are_not_touched(key: jax.Array) -> None:
    states = []
    for option in ("watch", "skip", "off"):
        training, state, totals = make_loop(models.vae(), key, sentinel=option)
        state, totals = training.run(state, totals, 10)
        assert bool(totals.finite)
        assert int(totals.skipped) == 0
        states.append(state)
    chex.assert_trees_all_close(states[0], states[1], atol=1e-6)
    chex.assert_trees_all_equal(states[0], states[2])


def test_a_chunk_that_is_finite_the_second_time_ends_before_its_last_step(key: jax.Array) -> None:
    training, state, totals = make_loop(models.vae(), key)
    found, _ = training.before_the_bad_step(state, totals, 6)
    assert int(found.step) == 5


def test_recorded_gradients_are_the_optimizers(key: jax.Array) -> None:
    spec: Any = models.gan()
    state, batch = models.init(spec, key), {"image": models.batch(16)["image"]}
    found = sentinel.gradients(spec, state, batch, key)
    plain = dataclasses.replace(
        spec, generator_optimizer=optax.sgd(1.0), discriminator_optimizer=spec.discriminator_optimizer
    )
    start = state._replace(generator_optimizer_state=plain.generator_optimizer.init(state.generator_params))
    after, _ = models.step(spec)(plain, start, batch, key)
    expected = jax.tree.map(jnp.subtract, state.generator_params, after.generator_params)
    chex.assert_trees_all_close(found["generator_params"], expected, atol=1e-6)
    assert set(found) == {"generator_params", "discriminator_params"}


def test_all_finite() -> None:
    good = {"a": jnp.ones(3), "b": jnp.array([2**30]), "c": jnp.array([True]), "d": jnp.ones((), jnp.bfloat16)}
    assert bool(loop.all_finite(good))
    assert bool(loop.all_finite({}))
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        assert not bool(loop.all_finite({**good, "e": jnp.array([1.0, bad], jnp.bfloat16)}))


@pytest.fixture
def npz(tmp_path: Path) -> str:
    np.savez(tmp_path / "some.npz", image=data.load()["image"][::20])
    return f"npz:{tmp_path / 'some.npz'}"


TINY = ["vae", "--hidden", "16", "--latent-dim", "3", "--batch-size", "32", "--steps", "30"]


def test_a_run_that_goes_wrong_stops_and_can_be_replayed(
    npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(runs, "dynamic_binarization", poison_batch)
    workdir = tmp_path / "run"
    arguments = [*TINY, "--binarization", "dynamic", "--dataset", npz, "--workdir", str(workdir)]
    cadences = ["--log-every", "4", "--checkpoint-every", "2"]
    assert train.main([*arguments, *cadences]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"step {BAD + 1} made numbers that are not finite: the batch's image; " in error
    assert "loss nan" in error
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4], "stopped within one interval of the log"
    assert np.isfinite([row["loss"] for row in rows]).all()
    run: Any = Run.open(workdir)
    for step in run.steps():
        assert step <= BAD
        assert bool(loop.all_finite(run.restore(step)))
    assert replay.main([str(workdir)]) == 0
    shown = capsys.readouterr().out
    assert "the batch's image" in shown
    assert "again: nan: invalid value (nan) encountered in" in shown
    bad = sentinel.load(workdir, run.shapes())
    assert int(bad.state.step) == BAD
    chex.assert_trees_all_equal(bad.key, jax.random.key(0))
    assert np.isnan(bad.batch["image"]).sum() == 1


@pytest.mark.slow
def test_a_run_leaves_out_bad_steps_up_to_a_limit(
    npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The same run comes to the same place; asked to, it leaves the step out, but not as often as one likes."""
    monkeypatch.setattr(runs, "dynamic_binarization", poison_batch)
    arguments = [*TINY, "--binarization", "dynamic", "--dataset", npz, "--log-every", "4"]
    resume = [*arguments, "--workdir", str(tmp_path / "run"), "--resume"]
    for _ in range(2):
        assert train.main(resume) == 1
        assert f"step {BAD + 1} made numbers" in capsys.readouterr().err
    assert train.main([*resume, "--skip-bad-steps", "1"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["skipped_steps"] for row in rows if "skipped_steps" in row] == [1.0] * 6  # from step 8 on

    def poison_from_then_on(batch: dict[str, jax.Array], key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
        return {**batch, "image": batch["image"] / 255.0 * jnp.where(step > 31, jnp.nan, 1.0)}

    monkeypatch.setattr(runs, "dynamic_binarization", poison_from_then_on)
    assert train.main([*resume, "--steps", "50", "--skip-bad-steps", "1"]) == 1
    limit = r"more than --skip-bad-steps 1 steps made numbers that are not finite by step 3[3-6]"
    assert re.search(limit, capsys.readouterr().err)


@pytest.mark.slow
def test_a_tiny_learning_rate_does_not_stop(npz: str, tmp_path: Path, capsys: Any) -> None:
    assert train.main([*TINY, "--dataset", npz, "--workdir", str(tmp_path / "run"), "--learning-rate", "1e-10"]) == 0
    assert replay.main([str(tmp_path / "run")]) == 1
    assert "holds no bad step: nothing went wrong in this run" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vae", "gan"])
def test_a_learning_rate_that_is_far_too_large_stops(family: str, npz: str, tmp_path: Path, capsys: Any) -> None:
    workdir = tmp_path / "run"
    arguments = {
        "vae": f"{' '.join(TINY)} --learning-rate 1e20",
        "gan": "gan --steps 30 --generator-hidden 16 --discriminator-hidden 16 --discriminator-learning-rate 1e20",
    }
    assert train.main([*arguments[family].split(), "--dataset", npz, "--workdir", str(workdir)]) == 1
    error = capsys.readouterr().err
    assert "made numbers that are not finite: the " in error
    assert "lower the learning rate" in error
    assert replay.main([str(workdir)]) == 0
    assert "again: nan: " in capsys.readouterr().out
