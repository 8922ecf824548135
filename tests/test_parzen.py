"""Parzen windows against their sum in double precision."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from jaxgen import metrics


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
