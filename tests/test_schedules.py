"""Schedules at the steps where their values are known, under jit and inside optax."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.schedules import Cosine, EMAWarmup, Exponential, Linear, Piecewise

SCHEDULES: dict[str, Callable[[Any], jax.Array]] = {
    "linear": Linear(1.0, 3.0, num_steps=8, delay=2),
    "cosine": Cosine(1.0, 3.0, num_steps=8, delay=2),
    "exponential": Exponential(8.0, 0.5, num_steps=8, delay=2),
    "piecewise": Piecewise((3, 7), (1.0, 0.1, 0.01)),
    "ema_warmup": EMAWarmup(0.5),
}
BY_HAND = {
    "linear": {0: 1.0, 2: 1.0, 4: 1.5, 6: 2.0, 10: 3.0, 2**31 - 1: 3.0},
    "cosine": {0: 1.0, 2: 1.0, 4: 1 + (1 - math.sqrt(0.5)), 6: 2.0, 10: 3.0, 2**31 - 1: 3.0},
    "exponential": {0: 8.0, 2: 8.0, 4: 4.0, 6: 2.0, 10: 0.5, 2**31 - 1: 0.5},
    "piecewise": {0: 1.0, 2: 1.0, 3: 0.1, 6: 0.1, 7: 0.01, 2**31 - 1: 0.01},
    "ema_warmup": {0: 0.1, 2: 3 / 12, 7: 8 / 17, 8: 0.5, 100: 0.5, 2**31 - 1: 0.5},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_by_hand(name: str) -> None:
    schedule, compiled = SCHEDULES[name], jax.jit(SCHEDULES[name])
    for step, expected in BY_HAND[name].items():
        for value in (schedule(step), schedule(jnp.int32(step)), compiled(jnp.int32(step))):
            assert value.shape == ()
            assert value.dtype == jnp.float32
            assert not value.aval.weak_type
            np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=f"step {step}")


@pytest.mark.parametrize("kind", [Linear, Cosine, Exponential])
def test_both_ends_are_exact_and_a_long_way_is_monotonous(kind: Any) -> None:
    schedule = kind(0.9, 0.999, num_steps=10_000_000, delay=3)
    assert schedule(3) == np.float32(0.9)
    assert schedule(10_000_003) == np.float32(0.999)
    values = jax.vmap(schedule)(jnp.arange(0, 11_000_000, 1000))
    assert (jnp.diff(values) >= -1e-7).all()
    assert values.min() >= 0.9 - 1e-7
    assert values.max() <= 0.999 + 1e-7


@pytest.mark.parametrize("name", SCHEDULES)
def test_equal_schedules_are_equal_hashable_and_plain(name: str) -> None:
    schedule: Any = SCHEDULES[name]
    fields = {field.name: getattr(schedule, field.name) for field in dataclasses.fields(schedule)}
    again = type(schedule)(**fields)
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert all(isinstance(value, int | float | tuple) for value in fields.values())


def test_different_kinds_are_different() -> None:
    assert Linear(1.0, 3.0, 8) != Cosine(1.0, 3.0, 8)


def test_schedules_drive_an_optimizer() -> None:
    """Adam with scheduled rate and b2 equals Adam rebuilt with the numbers of each step."""
    rate, b2 = Cosine(1e-1, 1e-3, num_steps=4), Linear(0.9, 0.99, num_steps=3)
    scheduled = optax.inject_hyperparams(optax.adam)(learning_rate=rate, b2=b2)
    params = {"w": jnp.array([1.0, -2.0])}
    state = scheduled.init(params)
    inner = optax.adam(1.0).init(params)
    expected = params
    update = jax.jit(scheduled.update)
    for step in range(6):
        gradient = {"w": jnp.array([0.5, -1.0]) * (step + 1)}
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        updates, inner = optax.adam(rate(step), b2=b2(step)).update(gradient, inner)
        expected = optax.apply_updates(expected, updates)
        np.testing.assert_allclose(state.hyperparams["learning_rate"], rate(step), rtol=1e-6)
        np.testing.assert_allclose(state.hyperparams["b2"], b2(step), rtol=1e-6)
        np.testing.assert_allclose(params["w"], expected["w"], rtol=1e-5)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 1e-3, rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_in_a_loop(name: str) -> None:
    schedule = SCHEDULES[name]
    _, values = jax.lax.scan(lambda carry, step: (carry, schedule(step)), None, jnp.arange(12))
    np.testing.assert_allclose(values, [schedule(step) for step in range(12)], rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Linear(1.0, 2.0, num_steps=0), ValueError, r"Linear.num_steps must be at least 1, got 0"),
        (lambda: Cosine(1.0, 2.0, num_steps=10, delay=-1), ValueError, r"Cosine.delay must be at least 0, got -1"),
        (lambda: Linear(1.0, math.nan, num_steps=1), ValueError, r"Linear.final must be finite, .* got nan"),
        (lambda: Linear(math.inf, 1.0, num_steps=1), ValueError, r"Linear.initial must be finite, .* got inf"),
        (lambda: Cosine(1.0, 2.0, num_steps=1.5), TypeError, r"Cosine.num_steps must be a whole number"),  # type: ignore[arg-type]
        (lambda: Cosine("1", 2.0, num_steps=1), TypeError, r"Cosine.initial must be a number"),  # type: ignore[arg-type]
        (lambda: Exponential(1.0, 0.0, num_steps=1), ValueError, r"Exponential.final must be above 0"),
        (lambda: Piecewise((3, 3), (1.0, 2.0, 3.0)), ValueError, r"Piecewise.boundaries must increase"),
        (lambda: Piecewise((3,), (1.0,)), ValueError, r"one more than the boundaries, 2"),
        (lambda: Piecewise((3,), (1.0, math.inf)), ValueError, r"Piecewise.values must be finite"),
        (lambda: Piecewise([3], (1.0, 2.0)), TypeError, r"Piecewise.boundaries must be a tuple"),  # type: ignore[arg-type]
        (lambda: EMAWarmup(1.0), ValueError, r"EMAWarmup.decay must be in \[0, 1\)"),
        (lambda: EMAWarmup(-0.1), ValueError, r"EMAWarmup.decay must be in \[0, 1\)"),
        (lambda: EMAWarmup(math.nan), ValueError, r"EMAWarmup.decay must be in \[0, 1\), got nan"),
    ],
)  # fmt: skip
def test_bad_schedules_are_refused(build: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()
