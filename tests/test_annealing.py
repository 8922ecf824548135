"""Annealed importance sampling and Parzen windows against closed forms."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import jaxgen
from jaxgen import losses, metrics
from tests import models

NUM, DIM, VALUES, SCALE = 12, 3, 8, 0.4
NOISE = losses.gaussian(scale=SCALE)


@functools.cache
def linear() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(W, latents, examples made from them, their exact log-densities) of x = z W + 1 + noise."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((DIM, VALUES)).astype(np.float32)
    latents = generator.standard_normal((NUM, DIM)).astype(np.float32)
    examples = latents @ weights + 1.0 + SCALE * generator.standard_normal((NUM, VALUES)).astype(np.float32)
    covariance = weights.T.astype(float) @ weights + SCALE**2 * np.eye(VALUES)
    return weights, latents, examples, multivariate_normal(np.ones(VALUES), covariance).logpdf(examples)


def log_likelihood(z: jax.Array, x: jax.Array) -> jax.Array:
    return NOISE.log_prob(z @ linear()[0] + 1.0, x)


@functools.cache
def both_ways(num_temperatures: int) -> tuple[metrics.AnnealedEstimate, metrics.AnnealedEstimate]:
    _, latents, examples, _ = linear()
    options: Any = {"num_temperatures": num_temperatures, "num_leapfrog": 5, "num_chains": 8}
    key = jax.random.key(1)
    forward = jax.jit(lambda x: metrics.annealed_importance_sampling(log_likelihood, x, DIM, key, **options))
    backward = jax.jit(lambda x, z: metrics.reverse_annealed_importance_sampling(log_likelihood, x, z, key, **options))
    return forward(examples), backward(examples, latents)


def mean_and_error(values: Any) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def test_forward_and_reverse_hold_the_closed_form_between_them() -> None:
    """Lower and upper bounds of log p(x), in expectation; with more temperatures they come together."""
    truth, gaps = linear()[3], []
    for num_temperatures in (10, 300):
        forward, backward = both_ways(num_temperatures)
        below, below_error = mean_and_error(np.asarray(forward.log_likelihood) - truth)
        above, above_error = mean_and_error(np.asarray(backward.log_likelihood) - truth)
        assert below < 3 * below_error
        assert above > -3 * above_error
        gaps.append(above - below)
    assert gaps[0] > 5 * abs(gaps[1])
    assert np.all(np.abs(np.asarray(forward.acceptance) - 0.65) < 0.15)


def test_the_error_is_about_right() -> None:
    forward, _ = both_ways(300)
    scores = (np.asarray(forward.log_likelihood) - linear()[3]) / np.asarray(forward.standard_error)
    assert np.abs(scores.mean()) < 3 / np.sqrt(NUM)
    assert 0.4 < np.sqrt(np.mean(scores**2)) < 2.0
    assert np.all((np.asarray(forward.effective_chains) >= 1) & (np.asarray(forward.effective_chains) <= 8))


@pytest.mark.slow
def test_an_example_does_not_depend_on_the_others() -> None:
    examples = linear()[2]
    options: dict[str, int] = {"num_temperatures": 10, "num_leapfrog": 3, "num_chains": 4}

    def run(x: np.ndarray, chunk_size: int) -> np.ndarray:
        def estimate(x: jax.Array) -> jax.Array:
            key = jax.random.key(2)
            found = metrics.annealed_importance_sampling(log_likelihood, x, DIM, key, chunk_size=chunk_size, **options)
            return found.log_likelihood

        return np.asarray(jax.jit(estimate)(x))

    whole = run(examples, 12)
    np.testing.assert_allclose(run(examples, 5), whole, rtol=1e-4)
    np.testing.assert_allclose(run(examples[:3], 12), whole[:3], rtol=1e-4)
    assert np.ptp(whole) > 1


@pytest.mark.slow
def test_a_gan_has_a_likelihood_under_noise(key: jax.Array) -> None:
    gan, state = models.gan(), models.init(models.gan(), key)
    noise = losses.gaussian(scale=0.3)
    options: Any = {"num_temperatures": 60, "num_leapfrog": 5, "num_chains": 4}
    images, latents = jaxgen.gan_simulate(gan, state, key, 6, noise)
    below = jaxgen.gan_log_likelihood(gan, state, {"image": images}, key, noise, **options)
    above = jaxgen.gan_log_likelihood(gan, state, {"image": images}, key, noise, latents=latents, **options)
    gap, error = mean_and_error(np.asarray(above.log_likelihood) - np.asarray(below.log_likelihood))
    assert gap > -3 * error
    assert abs(gap) < 1.0


@pytest.mark.parametrize("layers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_vae_s_likelihood_is_that_of_importance_sampling(layers: int, key: jax.Array) -> None:
    vae: Any = models.vae() if layers == 1 else models.dlgm()
    state = models.init(vae, key)
    options: Any = {"num_temperatures": 60, "num_leapfrog": 5, "num_chains": 8}
    images, noise = jaxgen.vae_simulate(vae, state, key, 6)
    batch = {"image": images}
    below = jaxgen.vae_annealed_log_likelihood(vae, state, batch, key, **options)
    above = jaxgen.vae_annealed_log_likelihood(vae, state, batch, key, latents=noise, **options)
    sampled = jaxgen.vae_importance_sampling(vae, state, batch, key, 3000)
    error = np.hypot(np.asarray(below.standard_error), np.asarray(sampled.standard_error))
    apart = np.asarray(below.log_likelihood) - np.asarray(sampled.log_likelihood)
    assert np.all(np.abs(apart) < 4 * error + 0.05)
    gap, gap_error = mean_and_error(np.asarray(above.log_likelihood) - np.asarray(below.log_likelihood))
    assert gap > -3 * gap_error - 0.01
    assert gap < 0.5


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_chains": 0}, "num_chains must be at least 1, got 0"),
        ({"num_temperatures": 0}, "num_temperatures must be at least 1"),
        ({"num_leapfrog": -1}, "num_leapfrog must be at least 1"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
    ],
)
def test_sizes_are_checked(options: dict[str, int], error: str, key: jax.Array) -> None:
    with pytest.raises(ValueError, match=error):
        metrics.annealed_importance_sampling(log_likelihood, linear()[2], DIM, key, **options)


def test_shapes_are_checked(key: jax.Array) -> None:
    examples = linear()[2]
    with pytest.raises(ValueError, match=r"log_likelihood must return \[4\], got shape \[\]"):
        metrics.annealed_importance_sampling(lambda z, x: jnp.sum(z), examples, DIM, key)
    with pytest.raises(ValueError, match=r"latents must be \[12, D\], one for each example, got shape \[5, 3\]"):
        metrics.reverse_annealed_importance_sampling(log_likelihood, examples, jnp.zeros((5, 3)), key)
    vae = models.vae()
    with pytest.raises(ValueError, match="latents must be"):
        jaxgen.vae_annealed_log_likelihood(vae, models.init(vae, key), models.batch(2), key, latents=jnp.zeros((2, 99)))


def test_parzen_is_the_sum_over_the_samples() -> None:
    """784 values at sigma 0.2: in float32 the exponents, of hundreds, would lose their second decimal."""
    generator = np.random.default_rng(0)
    samples = generator.random((300, 28, 28, 1), dtype=np.float32)
    images = np.concatenate([generator.random((40, 28, 28, 1), dtype=np.float32), samples[:10]])
    flat = [x.reshape(len(x), -1).astype(float) for x in (samples, images)]
    squares = np.square(flat[1][:, None] - flat[0][None]).sum(axis=2)
    expected = logsumexp(-squares / (2 * 0.2**2), axis=1) - np.log(300) - 784 * np.log(0.2 * np.sqrt(2 * np.pi))
    measured = metrics.parzen_log_likelihood(jnp.asarray(samples), jnp.asarray(images), 0.2)
    np.testing.assert_allclose(measured, expected, rtol=1e-6)


def test_the_bandwidth_is_chosen_on_validation_images() -> None:
    generator = np.random.default_rng(1)
    samples, validation = (jnp.asarray(generator.normal(0.5, 0.1, (200, 2)), jnp.float32) for _ in range(2))
    found = metrics.parzen_bandwidth(samples, validation, [0.001, 0.03, 1.0])
    assert (found.sigma, found.at_end) == (0.03, False)
    assert found.log_likelihoods[1] == max(found.log_likelihoods)
    assert metrics.parzen_bandwidth(samples, validation, [0.3, 1.0]).at_end
    assert len(metrics.parzen_bandwidth(samples, validation).candidates) == 10
    for bad, error in (([], "at least one"), ([0.2, 0.1], "ascending")):
        with pytest.raises(ValueError, match=error):
            metrics.parzen_bandwidth(samples, validation, bad)
    with pytest.raises(ValueError, match="sigma must be a finite number above 0"):
        metrics.parzen_log_likelihood(samples, validation, 0.0)
    with pytest.raises(ValueError, match="of one shape"):
        metrics.parzen_log_likelihood(samples, validation[:, :1], 0.1)
