"""The KL of each latent dimension adds up to the KL, and names the dimensions that are used."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import losses
from tests import models


@pytest.mark.parametrize("make", [models.vae, models.dlgm])
def test_dimensions_and_layers_add_up_to_the_kl(make: Any, key: jax.Array) -> None:
    """Of the same samples, for the same key: another draw, or a layer left out, shows here."""
    vae, batch = make(), models.batch(6)
    state = models.init(vae, key)
    kls = jaxgen.vae_latent_kl(vae, state, batch, key, num_samples=3)
    layers = kls if isinstance(vae.latent_dim, tuple) else (kls,)
    assert [layer.shape[1] for layer in layers] == list(np.atleast_1d(vae.latent_dim))
    whole = jaxgen.vae_evaluate(vae, state, batch, key, num_samples=3)["kl"]
    np.testing.assert_allclose(sum(layer.sum(1) for layer in layers), whole, rtol=1e-5, atol=1e-6)


def test_each_dimension_is_its_own_in_closed_form(key: jax.Array) -> None:
    vae, batch = models.vae(), models.batch(5)
    state = models.init(vae, key)
    mask = jnp.array([1.0, 0.0, 1.0])
    state = state._replace(hyperparams={**state.hyperparams, "latent_mask": mask})
    mean, logvar = jaxgen.vae_encode(vae, state._replace(hyperparams={"latent_mask": jnp.ones(3)}), batch)
    kls = jaxgen.vae_latent_kl(vae, state, batch, key)
    expected = [losses.gaussian_kl(mean[:, d : d + 1], logvar[:, d : d + 1]) * mask[d] for d in range(3)]
    np.testing.assert_allclose(kls, jnp.stack(expected, 1), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(kls[:, 1], 0.0)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        jaxgen.vae_latent_kl(vae, state, batch, key, num_samples=0)
