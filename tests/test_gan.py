"""The GAN's contracts: state, the order of a step, the three layers, moving average and sampling."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen
from jaxgen import losses, networks
from tests import models


def test_state_and_metrics(key: jax.Array) -> None:
    gan = models.batch_norm_gan()
    state = models.init(gan, key)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert set(state.hyperparams) == {"ema_decay", "latent_mask"}
    assert set(state.ema) == {"params", "collections"}
    state, metrics = jaxgen.gan_step(gan, state, models.batch(), key)
    assert int(state.step) == 1
    assert set(metrics) == {"generator_loss", "discriminator_loss", "real_logit", "fake_logit"}
    assert all(value.shape == () and value.dtype == jnp.float32 for value in metrics.values())


def test_the_order_of_a_step(key: jax.Array) -> None:
    """Discriminator first; then the generator against the new discriminator, with the same fakes."""
    gan = models.gan(generator_optimizer=optax.sgd(0.1), discriminator_optimizer=optax.sgd(0.1))
    state, batch = models.init(gan, key), models.batch()
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    descend = partial(jax.tree.map, lambda p, g: p - 0.1 * g)

    fakes, _ = jaxgen.gan_fakes(gan, state.generator_params, state, batch, key)
    slope = jax.grad(lambda p: jaxgen.discriminator_loss(gan, p, state, batch, fakes, key)[0])(
        state.discriminator_params
    )
    discriminator_params = descend(state.discriminator_params, slope)
    against = state._replace(discriminator_params=discriminator_params)

    def generator_side(params: Any) -> jax.Array:
        images, _ = jaxgen.gan_fakes(gan, params, state, batch, key)
        return jaxgen.generator_loss(gan, images, against, batch, key)[0]

    generator_params = descend(state.generator_params, jax.grad(generator_side)(state.generator_params))
    new, metrics = jaxgen.gan_step(gan, state, batch, key)
    jax.tree.map(close, new.discriminator_params, discriminator_params)
    jax.tree.map(close, new.generator_params, generator_params)
    _, (given, _) = jaxgen.discriminator_loss(gan, state.discriminator_params, state, batch, fakes, key)
    jax.tree.map(close, metrics, given)


def test_real_and_fake_batches_are_normalised_apart(key: jax.Array) -> None:
    gan = models.batch_norm_gan()
    state = models.init(gan, key)
    white = {"image": np.full((16, *models.IMAGE_SHAPE), 255, np.uint8)}
    fakes, _ = jaxgen.gan_fakes(gan, state.generator_params, state, white, key)
    params = state.discriminator_params
    _, (metrics, collections) = jaxgen.discriminator_loss(gan, params, state, white, fakes, key)
    # 16 equal images have no variance: normalised on their own, they all get the bias, which is zero at the start.
    # (To float32's round-off times the 1 / sqrt(epsilon) = 316 of a batch without variance: about 1e-5.)
    np.testing.assert_allclose(metrics["real_logit"], 0.0, atol=1e-4)
    kernel = params["Dense_0"]["kernel"]
    means = [np.asarray(x).reshape(16, -1).astype(np.float32) @ kernel for x in (white["image"] / 255.0, fakes)]
    expected = 0.9 * 0.1 * means[0].mean(0) + 0.1 * means[1].mean(0)  # the real pass, then the fake one
    np.testing.assert_allclose(collections["batch_stats"]["BatchNorm_0"]["mean"], expected, rtol=1e-4, atol=1e-6)


def test_each_players_statistics_come_from_its_own_pass(key: jax.Array) -> None:
    gan = models.batch_norm_gan()
    state, batch = models.init(gan, key), models.batch()
    fakes, generator_collections = jaxgen.gan_fakes(gan, state.generator_params, state, batch, key)
    _, (_, collections) = jaxgen.discriminator_loss(gan, state.discriminator_params, state, batch, fakes, key)
    new, _ = jaxgen.gan_step(gan, state, batch, key)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, new.discriminator_collections, collections)
    jax.tree.map(close, new.generator_collections, generator_collections)


def test_moving_average_of_parameters_and_statistics(key: jax.Array) -> None:
    gan = models.batch_norm_gan()
    state = models.init(gan, key)
    new, _ = jaxgen.gan_step(gan, state, models.batch(), key)
    for name, before, now in (
        ("params", state.generator_params, new.generator_params),
        ("collections", state.generator_collections, new.generator_collections),
    ):
        expected = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, before, now)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), new.ema[name], expected)
    z = jax.random.normal(key, (4, models.LATENT_DIM))
    smooth, raw = jaxgen.gan_generate(gan, new, z), jaxgen.gan_generate(gan, new._replace(ema=None), z)
    assert not np.allclose(smooth, raw)
    averaged = new._replace(generator_params=new.ema["params"], generator_collections=new.ema["collections"], ema=None)
    np.testing.assert_array_equal(smooth, jaxgen.gan_generate(gan, averaged, z))


def test_samples(key: jax.Array) -> None:
    gan = models.gan()
    state = models.init(gan, key)
    samples = jaxgen.gan_sample(gan, state, key, 6)
    assert samples.shape == (6, *models.IMAGE_SHAPE)
    assert 0.0 <= float(samples.min()) <= float(samples.max()) <= 1.0
    np.testing.assert_array_equal(jaxgen.gan_sample(gan, state, key, 2), samples[:2])
    other = jaxgen.gan_sample(gan, state, jax.random.key(1), 6)
    assert not np.allclose(samples, other)


def test_the_same_key_gives_fresh_fakes_every_step(key: jax.Array) -> None:
    gan = models.gan()
    state, batch = models.init(gan, key), models.batch()
    now, _ = jaxgen.gan_fakes(gan, state.generator_params, state, batch, key)
    later, _ = jaxgen.gan_fakes(gan, state.generator_params, state._replace(step=state.step + 1), batch, key)
    again, _ = jaxgen.gan_fakes(gan, state.generator_params, state, batch, key)
    np.testing.assert_array_equal(now, again)
    assert not np.allclose(now, later)


def test_anybodys_images_can_be_the_fakes(key: jax.Array) -> None:
    """A VAE-GAN is composition: the GAN's losses on a VAE's reconstructions, differentiated to its decoder."""
    gan, vae = models.gan(), models.vae()
    gan_state, vae_state, batch = models.init(gan, key), models.init(vae, key), models.batch()

    def loss(params: Any) -> jax.Array:
        elbo_loss, _ = jaxgen.vae_loss(vae, params, vae_state, batch, key)
        rebuilt = jaxgen.vae_reconstruct(vae, vae_state._replace(params=params), batch, key)
        return elbo_loss + jaxgen.generator_loss(gan, rebuilt, gan_state, batch, key)[0]

    both = jax.grad(loss)(vae_state.params)
    alone = jax.grad(lambda p: jaxgen.vae_loss(vae, p, vae_state, batch, key)[0])(vae_state.params)
    difference = np.abs(both["decoder"]["output"]["kernel"] - alone["decoder"]["output"]["kernel"])
    assert float(difference.max()) > 1e-6


def test_a_gan_learns_where_the_data_are(key: jax.Array) -> None:
    """Points around (3, -2): the generator starts at the origin and must come there."""
    gan = jaxgen.GAN(
        networks.MLPGenerator((2,), hidden=(32,), output_activation=None),
        networks.MLPDiscriminator(hidden=(32,)),
        optax.adam(2e-3, b1=0.5),
        optax.adam(2e-3, b1=0.5),
        latent_dim=2,
        ema_decay=0.99,
    )
    points = np.random.default_rng(0).normal([3.0, -2.0], 0.5, (64, 2)).astype(np.float32)
    state = jaxgen.gan_init(gan, key, {"image": points})
    for _ in range(1500):
        state, _ = jaxgen.gan_step(gan, state, {"image": points}, key)
    samples = jaxgen.gan_sample(gan, state, key, 500)
    np.testing.assert_allclose(samples.mean(0), [3.0, -2.0], atol=0.4)
    assert (samples.std(0) > 0.1).all()


@pytest.mark.parametrize("loss", [losses.minimax, losses.non_saturating])
@pytest.mark.parametrize("bias", [-1e4, 1e4])
def test_steps_stay_finite_at_extreme_logits(loss: losses.AdversarialLoss, bias: float, key: jax.Array) -> None:
    gan = models.gan(loss=loss)
    state = models.init(gan, key)
    params = state.discriminator_params
    params = {**params, "output": {**params["output"], "bias": jnp.full((1,), bias)}}
    state, metrics = jaxgen.gan_step(gan, state._replace(discriminator_params=params), models.batch(), key)
    assert models.finite((state, metrics))


def test_bad_specs_and_networks_are_refused(key: jax.Array) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        models.gan(ema_decay=1.0)
    with pytest.raises(ValueError, match=r"makes images of shape \[5, 5, 1\], the batch holds \[4, 4, 1\]"):
        models.init(models.gan(generator=networks.MLPGenerator((5, 5, 1), hidden=(8,))), key)
    with pytest.raises(ValueError, match=r"one logit per image, \[16\], got shape \[16, 4, 4, 1\]"):
        models.init(models.gan(discriminator=networks.MLPGenerator(models.IMAGE_SHAPE, hidden=(8,))), key)
    with pytest.raises(ValueError, match=r"dropout_rate must be in \[0, 1\), got 1"):
        models.init(models.gan(discriminator=networks.MLPDiscriminator(dropout_rate=1.0)), key)
    gan = models.gan()
    state = models.init(gan, key)
    with pytest.raises(ValueError, match="at least 1"):
        jaxgen.gan_sample(gan, state, key, 0)
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        jaxgen.gan_generate(gan, state, jnp.zeros((2, 2)))
    with pytest.raises(TypeError, match="typed JAX key"):
        jaxgen.gan_step(gan, state, models.batch(), jax.random.PRNGKey(0))
