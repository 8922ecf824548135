"""Importance sampling: against the closed form of a linear VAE, and what it says of its own error."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy import special, stats

import jaxgen
from jaxgen import keys as keys_of
from jaxgen import parallel
from tests import models
from tests.test_vae_oracles import SCALE, data, dense, linear_vae, posterior_of


def nearly_exact(key: jax.Array, x: np.ndarray, off: float = 0.15, wider: float = 0.2) -> tuple[jaxgen.VAE, Any]:
    """A linear VAE whose posterior is a little off its place and a little too wide, and diagonal."""
    vae = linear_vae()
    state = jaxgen.vae_init(vae, key, {"image": x})
    kernel, bias, precision = posterior_of(state)
    state.params["encoder"] = {
        "mean": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias + off, jnp.float32)},
        "logvar": wider - jnp.log(jnp.asarray(np.diag(precision), jnp.float32)),
    }
    return vae, state


def exact(state: Any, x: np.ndarray) -> np.ndarray:
    w, bias = dense(state.params["decoder"]["Dense_0"])
    return stats.multivariate_normal(bias, w @ w.T + SCALE**2 * np.eye(x.shape[1])).logpdf(x.astype(np.float64))


def test_the_estimate_is_right_within_its_own_error(key: jax.Array) -> None:
    """log N(x; b, W W^T + s^2 I) within 3 standard errors, in float32 with 5,000 samples; the errors of 64 images are
    neither too small nor too large. A rate of 1/K forgotten in the error, or its square, shows here."""
    x = data(64)
    vae, state = nearly_exact(key, x)
    estimate = jaxgen.vae_importance_sampling(vae, state, {"image": x}, key, num_samples=5000)
    assert estimate.log_likelihood.dtype == jnp.float32
    z = (np.asarray(estimate.log_likelihood, np.float64) - exact(state, x)) / np.asarray(estimate.standard_error)
    assert np.abs(z).max() < 3.0
    assert 0.8 < np.sqrt(np.mean(z**2)) < 1.25  # of 64 standard normal numbers: 1.0 +- 0.09
    assert abs(z.mean()) < 3.0 / np.sqrt(len(z))
    assert (np.asarray(estimate.standard_error) < 0.05).all()
    assert (np.asarray(estimate.effective_samples) > 1000).all()


def test_errors_agree_with_repetition(key: jax.Array) -> None:
    """The spread over independent keys is what one estimate says it is."""
    x = data(3)
    vae, state = nearly_exact(key, x, off=0.3)
    keys = jax.random.split(jax.random.key(5), 500)
    estimates = jax.vmap(lambda k: jaxgen.vae_importance_sampling(vae, state, {"image": x}, k, 400))(keys)
    spread = np.asarray(estimates.log_likelihood).std(0)
    claimed = np.sqrt(np.square(np.asarray(estimates.standard_error)).mean(0))
    np.testing.assert_allclose(claimed, spread, rtol=0.15)


def test_errors_and_effective_samples_are_those_of_the_weights(key: jax.Array) -> None:
    """From the same draws in double precision, whatever the chunks."""
    x, num = data(4), 50
    vae, state = nearly_exact(key, x)
    keys = keys_of.example_keys(keys_of.named_key(key, "vae log likelihood"), len(x))
    draw = jax.vmap(lambda example, k: jax.random.normal(jax.random.fold_in(example, k), (2,)), in_axes=(None, 0))
    noise = np.asarray(jax.vmap(draw, in_axes=(0, None))(keys, jnp.arange(num)), np.float64)
    encoder = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params["encoder"])
    std = np.exp(0.5 * encoder["logvar"])
    z = (x @ encoder["mean"]["kernel"] + encoder["mean"]["bias"])[:, None] + std * noise
    w, bias = dense(state.params["decoder"]["Dense_0"])
    log_px = stats.norm(z @ w.T + bias, SCALE).logpdf(x[:, None]).sum(-1)
    log_weights = log_px + (stats.norm.logpdf(z) - stats.norm.logpdf(noise) + np.log(std)).sum(-1)
    shares = special.softmax(log_weights, axis=1)
    for chunk_size in (100, 7):
        estimate = jaxgen.vae_importance_sampling(vae, state, {"image": x}, key, num, chunk_size)
        np.testing.assert_allclose(
            estimate.log_likelihood, special.logsumexp(log_weights, axis=1) - np.log(num), rtol=1e-5
        )
        np.testing.assert_allclose(estimate.effective_samples, 1 / np.square(shares).sum(1), rtol=1e-4)
        np.testing.assert_allclose(estimate.standard_error, np.sqrt(np.square(shares).sum(1) - 1 / num), rtol=1e-3)


def test_a_poor_posterior_says_so(key: jax.Array) -> None:
    """Few effective samples where the posterior misses the mass: that is how the estimate's failure can be seen."""
    x = data(8)
    vae, good = nearly_exact(key, x)
    _, bad = nearly_exact(key, x, off=1.5, wider=-2.0)
    effective = [
        np.asarray(jaxgen.vae_importance_sampling(vae, state, {"image": x}, key, 1000).effective_samples)
        for state in (good, bad)
    ]
    assert (effective[0] > 300).all()
    assert (effective[1] < 30).all()


def test_one_exact_posterior_has_no_error(key: jax.Array) -> None:
    """All weights equal: all samples count, and the round-off of 1/K - 1/K is no negative square."""
    vae, x = linear_vae(latent_dim=1), data(5)
    state = jaxgen.vae_init(vae, key, {"image": x})
    kernel, bias, precision = posterior_of(state)
    state.params["encoder"] = {
        "mean": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)},
        "logvar": -jnp.log(jnp.asarray(np.diag(precision), jnp.float32)),
    }
    estimate = jaxgen.vae_importance_sampling(vae, state, {"image": x}, key, 1000)
    np.testing.assert_allclose(estimate.log_likelihood, exact(state, x), rtol=1e-5)
    np.testing.assert_allclose(estimate.effective_samples, 1000, rtol=1e-3)
    assert (np.asarray(estimate.standard_error) < 1e-3).all()


@pytest.mark.parametrize("make", [models.vae, models.dlgm, models.vamp_vae])
def test_eight_devices_give_the_numbers_of_one(make: Any, key: jax.Array) -> None:
    vae, batch = make(), {"image": jnp.asarray(models.batch(16)["image"])}
    state = models.init(vae, key)
    mesh = parallel.make_mesh({"data": 8})
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    one, eight = (jaxgen.vae_importance_sampling(vae, state, b, key, 50, chunk_size=20) for b in (batch, spread))
    for a, b in zip(one, eight, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5)
    assert np.ptp(one.log_likelihood) > 0.1
    assert len(eight.log_likelihood.sharding.device_set) == 8


def test_the_likelihood_is_the_first_field(key: jax.Array) -> None:
    vae, batch = models.vae(), models.batch(5)
    state = models.init(vae, key)
    estimate = jaxgen.vae_importance_sampling(vae, state, batch, key, 30)
    np.testing.assert_array_equal(jaxgen.vae_log_likelihood(vae, state, batch, key, 30), estimate.log_likelihood)
    for sizes in ({"num_samples": 0}, {"chunk_size": 0}):
        with pytest.raises(ValueError, match="at least 1, got 0"):
            jaxgen.vae_importance_sampling(vae, state, batch, key, **sizes)
