"""What a model costs: parameters, training time, memory of a training step, and the time to draw samples."""

import statistics
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.cli.comparing.curves import logged_seconds
from jaxgen.cli.comparing.models import all_parameters, decoder_parameters
from jaxgen.evaluation.during_training import class_rows
from jaxgen.families import family_of
from jaxgen.training.run import Run, Spec

SAMPLES = 1000
REPEATS = 5


class Cost(NamedTuple):
    """What a model costs on this machine."""

    decoder_parameters: int
    parameters: int  # of all that is trained
    steps: int
    batch_size: int
    training_seconds: float | None  # None where the log does not say
    step_bytes: int | None  # None where the compiler does not say
    sampling_seconds: float | None  # for `SAMPLES` images; None where there is no prior


def step_bytes(spec: Spec, state: Any, batch: dict[str, Any]) -> int | None:
    """Memory of one training step as the compiler has planned it: state, batch, results and everything between."""
    step = family_of(spec).step
    plan = jax.jit(partial(step, spec)).lower(state, batch, jax.random.key(0)).compile().memory_analysis()
    if plan is None:
        return None
    shared = plan.alias_size_in_bytes
    return plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes - shared


def sampling_seconds(spec: Spec, state: Any) -> float | None:
    """Median seconds to draw `SAMPLES` images, once the program is compiled; None where there is no prior."""
    draw = family_of(spec).sample
    if draw is None:
        return None
    labels = class_rows(spec)
    labels = None if labels is None else np.resize(labels, SAMPLES)
    seconds = []
    for repeat in range(REPEATS + 1):
        began = time.perf_counter()
        jax.block_until_ready(draw(spec, state, jax.random.key(repeat), SAMPLES, labels))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])  # the first compiles


def cost_of(run: Run, state: Any) -> Cost:
    """The costs of a trained run's model."""
    identity = run.config["identity"]
    size, data = identity["batch_size"], identity["data"]
    batch: dict[str, Any] = {"image": jnp.zeros((size, *data["image_shape"]), data["image_type"])}
    if data["labels"]:
        batch["label"] = jnp.zeros(size, jnp.int32)
    return Cost(
        decoder_parameters=decoder_parameters(run.spec, state),
        parameters=all_parameters(state),
        steps=int(state.step),
        batch_size=size,
        training_seconds=logged_seconds(run.directory),
        step_bytes=step_bytes(run.spec, state, batch),
        sampling_seconds=sampling_seconds(run.spec, state),
    )
