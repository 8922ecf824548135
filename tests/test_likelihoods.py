"""Likelihoods: normalised, by hand, differentiable, finite at extremes, and clear about the channels they need."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxgen
from jaxgen import losses, networks
from tests import models

LEVELS = jnp.arange(256) / 255.0
LIKELIHOODS: dict[str, Any] = {
    "bernoulli": losses.bernoulli,
    "continuous_bernoulli": losses.continuous_bernoulli,
    "gaussian": losses.gaussian(scale=0.3),
    "gaussian_learned_variance": losses.gaussian_learned_variance(unit_mean=True),
    "discretized_logistic": losses.discretized_logistic,
    "discretized_logistic_mixture": losses.discretized_logistic_mixture(3),
}
PER_VALUE = {"gaussian_learned_variance": 2, "discretized_logistic": 2, "discretized_logistic_mixture": 9}
LEVELLED = ("discretized_logistic", "discretized_logistic_mixture")


def parameters_for(name: str, *shape: int, seed: int = 0) -> jax.Array:
    *leading, channels = shape
    return jax.random.normal(jax.random.key(seed), (*leading, channels * PER_VALUE.get(name, 1)))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood_says_what_it_needs(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    n = likelihood.parameters_per_value
    assert n == PER_VALUE.get(name, 1)
    x = jnp.full((2, 4, 4, 3), 0.5)
    parameters = parameters_for(name, *x.shape)
    log_prob = likelihood.log_prob(parameters, x)
    assert log_prob.shape == (2,)
    assert likelihood.mean(parameters).shape == likelihood.sample(jax.random.key(0), parameters).shape == x.shape
    if name != "gaussian":
        assert ((likelihood.mean(parameters) >= 0) & (likelihood.mean(parameters) <= 1)).all()
    with pytest.raises(ValueError, match=rf"{n} for each value.*{3 * n} channels on its last axis"):
        likelihood.log_prob(parameters[..., 1:], x)
    with pytest.raises(TypeError, match="floating point"):
        likelihood.log_prob(parameters, x.astype(jnp.int32))
    if n > 1:
        with pytest.raises(ValueError, match=f"multiple of {n} channels"):
            likelihood.mean(parameters[..., 1:])
    # Summed over pixels and channels; channel c has the parameters c, c + 3, c + 6, ...
    alone = jnp.moveaxis(parameters.reshape(2, 16, n, 3), 2, 3).reshape(-1, n)
    each = likelihood.log_prob(alone, x.reshape(-1, 1)).reshape(2, -1)
    np.testing.assert_allclose(log_prob, each.sum(1), rtol=1e-5)


@pytest.mark.parametrize("name", LEVELLED)
@pytest.mark.parametrize("log_scale", [-1e4, -3.0, 0.0, 1e4])
def test_levels_have_probabilities_that_sum_to_one(name: str, log_scale: float) -> None:
    likelihood = LIKELIHOODS[name]
    parameters = parameters_for(name, 5, 1) * 0.7 + 0.4
    n = parameters.shape[-1]
    parameters = parameters.at[:, n - max(1, n // 3) :].set(log_scale)  # the log-scales come last
    x = jnp.repeat(LEVELS, 5)[:, None]
    log_prob = jax.jit(likelihood.log_prob)(jnp.tile(parameters, (256, 1)), x)
    np.testing.assert_allclose(np.exp(np.asarray(log_prob, np.float64)).reshape(256, 5).sum(0), np.ones(5), atol=2e-4)


@pytest.mark.parametrize("logit", [-1e3, -20.0, -0.301, -0.299, -1e-4, 0.0, 1e-3, 0.299, 0.301, 3.0, 1e3])
def test_continuous_bernoulli_is_a_density(logit: float) -> None:
    # On a grid that is fine at both ends, where all the mass lies at extreme logits.
    edge = np.concatenate([[0.0], np.geomspace(1e-7, 0.5, 20_000)])
    grid = np.concatenate([edge, 1.0 - edge[-2::-1]])
    logits = jnp.full((len(grid), 1), logit)
    density = np.exp(np.asarray(losses.continuous_bernoulli.log_prob(logits, jnp.asarray(grid[:, None], jnp.float32))))
    np.testing.assert_allclose(np.trapezoid(density, grid), 1.0, rtol=2e-3 if abs(logit) > 100 else 2e-5)
    mean = np.trapezoid(density * grid, grid)
    np.testing.assert_allclose(losses.continuous_bernoulli.mean(logits[:1])[0, 0], mean, rtol=2e-3, atol=1e-6)


def test_continuous_bernoulli_by_hand() -> None:
    # lambda = 3/4: C = 2 atanh(-1/2) / (-1/2) = 2 log 3, p(x) = C (3/4)^x (1/4)^(1 - x); at 1/2 it is uniform.
    logits, x = jnp.array([[math.log(3.0), 0.0]]), jnp.array([[0.25, 0.9]])
    expected = math.log(2 * math.log(3.0)) + 0.25 * math.log(0.75) + 0.75 * math.log(0.25)
    np.testing.assert_allclose(losses.continuous_bernoulli.log_prob(logits, x), [expected], rtol=1e-5)
    mean = 0.75 / (2 * 0.75 - 1) + 1 / (2 * math.atanh(1 - 2 * 0.75))
    np.testing.assert_allclose(losses.continuous_bernoulli.mean(logits), [[mean, 0.5]], rtol=1e-6)


def test_gaussian_learned_variance_by_hand() -> None:
    parameters, x = jnp.array([[0.0, 1.0, math.log(0.25), 0.0]]), jnp.array([[0.5, 3.0]])
    expected = -0.5 - math.log(0.5) - 2.0 - math.log(2 * math.pi)
    likelihood = losses.gaussian_learned_variance()
    np.testing.assert_allclose(likelihood.log_prob(parameters, x), [expected], rtol=1e-5)
    np.testing.assert_array_equal(likelihood.mean(parameters), [[0.0, 1.0]])
    # The log-variance stops at its bounds: a constant pixel costs no less than at half a grey level.
    narrow = likelihood.log_prob(jnp.array([[0.0, -1e4]]), jnp.zeros((1, 1)))
    np.testing.assert_allclose(narrow, [6.25 - 0.5 * math.log(2 * math.pi)], rtol=1e-5)


def test_discretized_logistics_by_hand() -> None:
    def sigmoid(t: float) -> float:
        return 1 / (1 + math.exp(-t))

    mean, scale, half = 0.4, 0.1, 1 / 510

    def probability(level: int) -> float:
        upper = 1.0 if level == 255 else sigmoid((level / 255 + half - mean) / scale)
        return upper - (0.0 if level == 0 else sigmoid((level / 255 - half - mean) / scale))

    parameters = jnp.array([mean, math.log(scale)])
    log_prob = losses.discretized_logistic.log_prob
    for level in (0, 1, 100, 255):
        x = jnp.array([[level / 255]])
        np.testing.assert_allclose(log_prob(parameters[None], x), [math.log(probability(level))], rtol=2e-5)
        np.testing.assert_array_equal(log_prob(parameters[None], x + 0.3 / 255), log_prob(parameters[None], x))
    # A mixture of equals is one of them, whatever the weights; one of weight 1/4 in the dark gives a quarter there.
    mixture = losses.discretized_logistic_mixture(2)
    equal = jnp.array([[0.0, 5.0, mean, mean, math.log(scale), math.log(scale)]])
    np.testing.assert_allclose(
        mixture.log_prob(equal, jnp.full((1, 1), 0.5)), log_prob(parameters[None], jnp.full((1, 1), 0.5)), rtol=1e-5
    )
    split = jnp.array([[0.0, math.log(3.0), 0.0, 1.0, -6.0, -6.0]])
    np.testing.assert_allclose(
        mixture.log_prob(split, jnp.zeros((1, 1))), [math.log(0.25 * sigmoid(half * math.exp(6)))], rtol=1e-3
    )
    np.testing.assert_allclose(mixture.mean(split), [[0.75]], atol=2e-3)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihood_samples_have_the_mean(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    parameters = parameters_for(name, 4, 1, seed=3) + 0.2
    num = 20_000
    samples = likelihood.sample(jax.random.key(1), jnp.repeat(parameters, num, axis=0)).reshape(4, num)
    error = 4.5 * np.asarray(samples.std(1)) / math.sqrt(num) + (0.5 / 255 if name in LEVELLED else 0.0)
    assert (np.abs(samples.mean(1) - likelihood.mean(parameters)[:, 0]) < error).all()
    if name in LEVELLED:
        np.testing.assert_allclose(samples * 255, jnp.round(samples * 255), atol=1e-3)
        assert len(np.unique(np.round(samples * 255))) > 200


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name not in ("bernoulli", "gaussian")])
def test_likelihood_gradients(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    parameters = parameters_for(name, 3, 2, seed=5)
    x = jnp.round(jax.random.uniform(jax.random.key(6), (3, 2)) * 255) / 255
    x = x.at[0].set(jnp.array([0.0, 1.0]))
    check_grads(jax.jit(lambda p: likelihood.log_prob(p, x)), (parameters,), 1, modes=("rev",), atol=2e-2, rtol=2e-2)
    check_grads(jax.jit(likelihood.mean), (parameters,), 1, modes=("rev",), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("size", [1, 8, 27])
def test_bernoulli_takes_logarithms_of_products(size: int) -> None:
    """Of 8 factors each, the last padded: as in double precision, its gradient x - sigmoid(logit), at 0 too."""
    generator = np.random.default_rng(size)
    logits = 10 * generator.normal(size=(5, size, 2, 1)) * generator.integers(0, 2, size=(5, size, 2, 1))
    x = generator.uniform(size=logits.shape)
    assert (logits == 0).any()
    arrays = [jnp.asarray(array, jnp.float32) for array in (logits, x)]
    expected = (x * logits - np.logaddexp(0.0, logits)).sum((1, 2, 3))
    np.testing.assert_allclose(losses.bernoulli.log_prob(*arrays), expected, rtol=1e-6, atol=1e-6)
    by_logits, by_x = jax.grad(lambda *both: losses.bernoulli.log_prob(*both).sum(), argnums=(0, 1))(*arrays)
    np.testing.assert_allclose(by_logits, x - 1 / (1 + np.exp(-logits)), atol=1e-6)
    np.testing.assert_array_equal(by_x, arrays[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_are_finite_at_extremes(name: str, dtype: jnp.dtype) -> None:
    extremes = [-1e4, -88.0, -17.0, -1e-3, 0.0, 1e-3, 17.0, 88.0, 1e4]
    n = PER_VALUE.get(name, 1)
    # Each parameter of a value, or each kind of a mixture's, at every extreme against every other.
    kinds = np.stack([a.ravel() for a in np.meshgrid(*[extremes] * min(n, 3), [0.0, 0.5, 1.0])], axis=1)
    parameters = jnp.asarray(np.repeat(kinds[:, :-1], max(1, n // 3), axis=1), dtype)
    x = jnp.asarray(kinds[:, -1:], dtype)

    def total(p: jax.Array) -> jax.Array:
        return LIKELIHOODS[name].log_prob(p, x).astype(jnp.float32).sum() + LIKELIHOODS[name].mean(p).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(parameters)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    assert jnp.isfinite(LIKELIHOODS[name].sample(jax.random.key(0), parameters)).all()


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        losses.discretized_logistic_mixture(0)
    with pytest.raises(ValueError, match="low < high"):
        losses.gaussian_learned_variance(logvar_range=(1.0, -1.0))
    with pytest.raises(TypeError, match="call it"):
        models.vae(likelihood=losses.gaussian)


@pytest.mark.slow
def test_a_vae_of_pixels_with_levels(key: jax.Array) -> None:
    likelihood = losses.discretized_logistic_mixture(2)
    shape = (4, 4, likelihood.parameters_per_value)
    vae = jaxgen.VAE(
        networks.MLPEncoder(2, (16,)), networks.MLPDecoder(shape, (16,)), models.sgd(), 2, likelihood=likelihood
    )
    state = models.init(vae, key)
    state, metrics = jaxgen.vae_step(vae, state, models.batch(), key)
    assert models.finite((state, metrics))
    assert jaxgen.vae_sample(vae, state, key, 3).shape == (3, *models.IMAGE_SHAPE)
    wrong = jaxgen.VAE(vae.encoder, networks.MLPDecoder((4, 4, 1), (16,)), models.sgd(), 2, likelihood=likelihood)
    with pytest.raises(ValueError, match="give the decoder 6 channels"):
        models.init(wrong, key)
