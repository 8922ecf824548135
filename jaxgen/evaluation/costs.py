"""How long an evaluation takes: from the sizes of what is measured, before it is."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.evaluation.during_training import class_rows
from jaxgen.evaluation.sample_measures import KNOWN, SAMPLE_MEASURES, SOME, takes
from jaxgen.evaluation.subject import Settings, Subject

DOUBLE, SINGLE = 1.5e10, 7e10  # multiplications a second of two cores, of metrics and of networks
COMPILING = 1.0  # seconds of a measure that is made for the first time
_SIDE = 512  # of the product by which a machine's speed is told
LIKELIHOOD, TESTED = 4e12, 1e12  # multiplications that importance sampling, and each test of a model, may take
FEWEST = 8  # images, below which a likelihood is left out


def multiplications(function: Callable[..., Any], *arguments: Any) -> float:
    """Of all matrix products and convolutions in a function of arrays, or of their shapes and types."""
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        made = float(np.prod(equation.outvars[0].aval.shape)) if equation.outvars else 0.0
        if name == "dot_general":
            shape = equation.invars[0].aval.shape
            total += made * float(np.prod([shape[axis] for axis in params["dimension_numbers"][0][0]]))
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            total += made * float(np.prod(kernel)) / kernel[params["dimension_numbers"].rhs_spec[0]]
        else:
            inner = [_of_jaxpr(each) for value in params.values() for each in _jaxprs(value)]
            # One of several branches is taken; a loop of a known length goes round as often.
            total += max(inner, default=0.0) if name == "cond" else params.get("length", 1) * sum(inner)
    return total


def _jaxprs(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [each for part in value for each in _jaxprs(part)]
    value = getattr(value, "jaxpr", value)
    return [value] if hasattr(value, "eqns") else []


def of_decoding(subject: Subject) -> float:
    """Multiplications of one image that a model makes of its latents."""
    spec, family = subject.spec, subject.family
    latents = jax.ShapeDtypeStruct((1, sum(family.latent_dims(spec))), jnp.float32)
    label = None if class_rows(spec) is None else jnp.zeros(1, jnp.int32)
    return multiplications(lambda z: family.decode(spec, subject.state, z, label), latents)


def _power_of_two(number: float) -> int:
    return 2 ** int(np.log2(number)) if number >= 1 else 0


def tested_images(subject: Subject, num: int) -> int:
    """How many of so many test images a model is tested on where nobody has asked for all: fewer of a slow one."""
    affordable = TESTED / (2.0 * max(1.0, of_decoding(subject)))
    return num if affordable >= num else max(FEWEST, _power_of_two(affordable))


def likelihood_images(subject: Subject) -> int:
    """Of how many images log p(x) is estimated where nobody has said: fewer where a decoder is slow.

    Raises:
      ValueError: the decoder is so slow that hardly any are left.
    """
    settings, usual = subject.settings, Settings()
    given = settings.likelihood_images, settings.importance_samples
    if given != (usual.likelihood_images, usual.importance_samples):
        return settings.likelihood_images
    affordable = LIKELIHOOD / (settings.importance_samples * max(1.0, of_decoding(subject)))
    if affordable < FEWEST:
        raise ValueError(
            f"{settings.importance_samples} importance samples of {settings.likelihood_images} images take this "
            "decoder more than minutes: --likelihood-images 4, say, or --measures log_likelihood for all"
        )
    return settings.likelihood_images if affordable >= settings.likelihood_images else _power_of_two(affordable)


@functools.cache
def slowness() -> float:
    """How many times as long as on two idle cores something takes here and now, by a short product in double."""
    with jax.enable_x64(True):
        square = jnp.ones((_SIDE, _SIDE), jnp.float64)
        (square @ square).block_until_ready()
        began = time.perf_counter()
        for _ in range(3):
            (square @ square).block_until_ready()
    return float(np.clip((time.perf_counter() - began) / (3 * _SIDE**3 / DOUBLE), 0.1, 50.0))


def of_samples(
    measure: str, num: int, values: int, features: int, known: int, pixels: bool = False, asked: bool = False
) -> float:
    """Seconds of a measure of so many images of each side on two cores, of so many values or features each."""
    num = num if asked else takes(measure, num, features if pixels else 0, values)
    points, some = min(num, features), min(num, SOME)
    few = num < features
    multiplied = {
        "frechet": num * num * features + 11.0 * 6.0 * points**3 if few else 11.0 * 25.0 * points**3,
        "kernel": min(3.0 * num * num, 300.0 * min(SOME, num // 2) ** 2) * features,
        "precision_recall": 5.0 * num * num * (features + 40),
        "sliced_wasserstein": 256.0 * num * (values + 20),
        "diversity": 2.0 * some * some * values,
        "duplicates": 2.0 * num * num * values,
        "nearest": 1.0 * some * (known if asked else min(known, KNOWN)) * values,
        "parzen": 1.0 * num * (num + SOME) * (values + 100),
    }
    assert multiplied.keys() <= SAMPLE_MEASURES.keys()
    return multiplied.get(measure, 0.0) / DOUBLE


def of_model(measure: str, subject: Subject, decoding: float, num: int, asked: bool = False) -> float:
    """Seconds of a measure of a model that is tested on so many images, a decoding being so many multiplications."""
    settings = subject.settings
    if measure == "annealed":
        steps = settings.annealed_temperatures * 30.0 * settings.annealed_chains
        return steps * (settings.annealed_images + 8) * decoding / SINGLE
    if measure == "log_likelihood":
        images = min(num, settings.likelihood_images)
        cost = images * settings.importance_samples * decoding
        return (cost if asked else min(cost, LIKELIHOOD)) / SINGLE
    cost = 2.0 * num * decoding
    return (cost if asked else min(cost, TESTED)) / SINGLE
