"""Annealed importance sampling: right where the answer is known, and above and below it where it is not."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy import stats

import jaxgen
from jaxgen import losses, metrics, networks, parallel
from tests import models
from tests.test_vae import two_layers
from tests.test_vae_oracles import chain, data, exact_chain

D, P, SCALE = 4, 10, 0.3
NOISE = losses.gaussian(scale=SCALE)
_GENERATOR = np.random.default_rng(0)
W = (_GENERATOR.normal(size=(P, D)) / 2).astype(np.float32)
B = _GENERATOR.normal(size=P).astype(np.float32)


def log_likelihood(z: jax.Array, x: jax.Array) -> jax.Array:
    """A linear decoder."""
    return NOISE.log_prob(z @ W.T + B[None], x)


def simulated(num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images, latents, log N(x; b, W W^T + s^2 I)) of the linear decoder."""
    generator = np.random.default_rng(1)
    z = generator.normal(size=(num, D)).astype(np.float32)
    x = (z @ W.T + B + SCALE * generator.normal(size=(num, P))).astype(np.float32)
    covariance = W.astype(np.float64) @ W.T + SCALE**2 * np.eye(P)
    return x, z, stats.multivariate_normal(B, covariance).logpdf(x.astype(np.float64))


def both(num: int, num_temperatures: int, key: jax.Array) -> tuple[np.ndarray, Any, Any]:
    x, z, exact = simulated(num)
    options: dict[str, Any] = {"num_temperatures": num_temperatures, "num_leapfrog": 5}
    forward = jax.jit(lambda k: metrics.annealed_importance_sampling(log_likelihood, x, D, k, **options))(key)
    reverse = jax.jit(
        lambda k: metrics.reverse_annealed_importance_sampling(log_likelihood, x, jnp.asarray(z), k, **options)
    )(key)
    return exact, forward, reverse


def test_a_linear_decoder_within_its_own_error_and_between_both_chains(key: jax.Array) -> None:
    """In float32. A step that does not keep its density (half a leapfrog step missing, the test of Metropolis with the
    wrong sign) is off by many of these errors."""
    exact, forward, reverse = both(24, 300, key)
    errors = []
    for estimate in (forward, reverse):
        assert estimate.log_likelihood.dtype == jnp.float32
        error = np.asarray(estimate.log_likelihood, np.float64) - exact
        z = error / np.asarray(estimate.standard_error)
        assert np.abs(z).max() < 4.5  # the errors come from 16 chains: Student's t
        assert 0.6 < np.sqrt(np.mean(z**2)) < 1.6
        assert np.asarray(estimate.standard_error).max() < 0.5
        assert (np.abs(np.asarray(estimate.acceptance) - 0.65) < 0.1).all()
        errors.append((error.mean(), error.std() / np.sqrt(len(error))))
    (below, below_error), (above, above_error) = errors
    assert below < 3 * below_error
    assert above > -3 * above_error
    assert abs(below) < 0.1
    assert abs(above) < 0.1


@pytest.mark.slow
def test_the_gap_closes_as_temperatures_grow(key: jax.Array) -> None:
    """Forward below, reverse above, by less and less."""
    gaps = []
    for num_temperatures in (4, 40):
        exact, forward, reverse = both(24, num_temperatures, key)
        below, above = (np.asarray(e.log_likelihood, np.float64) - exact for e in (forward, reverse))
        error = np.hypot(below.std(), above.std()) / np.sqrt(len(exact))
        assert below.mean() < 3 * error
        assert above.mean() > -3 * error
        gaps.append(above.mean() - below.mean())
    assert gaps[0] > 3 * gaps[1] > 0


@pytest.mark.slow
def test_weights_are_exact_at_few_temperatures(key: jax.Array) -> None:
    """E w = p(x) however few the steps. A weight with another step's difference of temperatures shows here only."""
    x, _, _ = simulated(2)
    near = 0.2 * x + 0.8 * B  # the decoder's mean: a wide posterior
    wide = losses.gaussian(scale=2.0)
    covariance = W.astype(np.float64) @ W.T + 4.0 * np.eye(P)
    expected = stats.multivariate_normal(B, covariance).logpdf(near.astype(np.float64))
    for num_temperatures in (1, 3):
        estimate = metrics.annealed_importance_sampling(
            lambda z, x: wide.log_prob(z @ W.T + B[None], x),
            near,
            D,
            key,
            num_chains=2000,
            num_temperatures=num_temperatures,
            num_leapfrog=3,
        )
        error = np.asarray(estimate.log_likelihood) - expected
        assert (np.abs(error) < 4 * np.asarray(estimate.standard_error)).all()
        assert (np.asarray(estimate.standard_error) < 0.03).all()


MODELS: dict[str, Any] = {"gan": models.gan, "vae": models.vae, "two layers": models.dlgm}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_decoders_are_sandwiched(name: str, key: jax.Array) -> None:
    """Forward <= reverse + error on images that the model made, with a small gap; where there is an encoder whose
    samples count, importance sampling agrees."""
    spec = MODELS[name]()
    state = models.init(spec, key)
    sizes: Any = {"num_chains": 8, "num_temperatures": 100, "num_leapfrog": 5}
    if name == "gan":
        noise = losses.gaussian(scale=0.1)
        batch, latents = jaxgen.gan_simulate(spec, state, key, 12, noise)
        annealed: Any = partial(jaxgen.gan_log_likelihood, spec, state, batch, key, noise, **sizes)
    else:
        batch, latents = jaxgen.vae_simulate(spec, state, key, 12)
        annealed = partial(jaxgen.vae_annealed_log_likelihood, spec, state, batch, key, **sizes)
    below, above = annealed(), annealed(latents=latents)
    assert models.finite((below, above))
    gap = np.asarray(above.log_likelihood - below.log_likelihood)
    error = np.hypot(below.standard_error, above.standard_error)
    assert gap.mean() > -3 * np.sqrt(np.mean(error**2) / len(gap))
    assert abs(gap.mean()) < 0.15
    assert (np.asarray(below.acceptance) > 0.4).all()
    if name == "vae":
        sampled = jaxgen.vae_importance_sampling(spec, state, batch, key, 5000)
        z = (sampled.log_likelihood - below.log_likelihood) / np.hypot(sampled.standard_error, below.standard_error)
        assert (np.abs(z) < 4).all()


@pytest.mark.slow
def test_two_stochastic_layers_have_the_closed_form(key: jax.Array) -> None:
    """x of 5 from z_1 from z_2, all linear: the noise of both layers is annealed together."""
    x = data(6)
    state, exact = exact_chain(key, x)
    vae = chain(losses.elbo)
    estimate = jaxgen.vae_annealed_log_likelihood(vae, state, {"image": x}, key, num_temperatures=200, num_leapfrog=5)
    error = np.asarray(estimate.log_likelihood) - exact
    assert (np.abs(error) < 4 * np.asarray(estimate.standard_error)).all()
    assert (np.asarray(estimate.standard_error) < 0.3).all()


@pytest.mark.slow
def test_the_sum_of_many_terms_keeps_its_digits(key: jax.Array) -> None:
    """A constant of -98,765.4 nats comes out as itself: the differences of the temperatures add up to 1."""
    estimate = metrics.annealed_importance_sampling(
        lambda z, x: jnp.zeros(z.shape[0]) * z[:, 0] - 98765.4,
        jnp.zeros((1, 3)),
        2,
        key,
        num_chains=2,
        num_temperatures=300,
        num_leapfrog=1,
    )
    np.testing.assert_allclose(estimate.log_likelihood, [-98765.4], atol=0.017)


@pytest.mark.slow
def test_numbers_do_not_depend_on_the_other_images_nor_on_chunks_nor_devices(key: jax.Array) -> None:
    x, _, _ = simulated(16)
    sizes = {"num_chains": 4, "num_temperatures": 20, "num_leapfrog": 3}
    run = jax.jit(
        lambda x, chunk_size: metrics.annealed_importance_sampling(
            log_likelihood, x, D, key, chunk_size=chunk_size, **sizes
        ),
        static_argnums=1,
    )
    whole = run(x, None)
    for again, value in zip(run(x, None), whole, strict=True):
        np.testing.assert_array_equal(again, value)
    mesh = parallel.make_mesh({"data": 8})
    spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    for other in (run(x[:5], 2), run(spread, None)):
        for value, expected in zip(other, whole, strict=True):
            np.testing.assert_allclose(value, expected[: len(value)], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_labels_and_the_moving_average_reach_the_decoder(key: jax.Array) -> None:
    """Of a conditional model, another label is another density."""
    batch = models.batch(4)
    sizes: Any = {"num_chains": 2, "num_temperatures": 3, "num_leapfrog": 1}
    noise = losses.gaussian(scale=0.1)
    gan = models.gan(generator=networks.MLPGenerator(models.IMAGE_SHAPE, hidden=(8,), num_classes=10), ema_decay=0.9)
    state = models.init(gan, key)
    vae = two_layers()
    for annealed in (
        partial(jaxgen.gan_log_likelihood, gan, state, key=key, likelihood=noise),
        partial(jaxgen.vae_annealed_log_likelihood, vae, jaxgen.vae_init(vae, key, batch), key=key),
    ):
        one = annealed(batch=batch, **sizes).log_likelihood
        other = annealed(batch={**batch, "label": (batch["label"] + 1) % 10}, **sizes).log_likelihood
        assert (np.abs(one - other) > 1e-3).all()
    ema = jax.tree.map(jnp.zeros_like, state.ema)
    averaged = state._replace(ema=ema)
    raw = jaxgen.gan_log_likelihood(gan, averaged._replace(ema=None), batch, key, noise, **sizes).log_likelihood
    still = jaxgen.gan_log_likelihood(gan, averaged, batch, key, noise, **sizes).log_likelihood
    assert (np.abs(raw - still) > 1e-3).all()


def test_mistakes_are_named(key: jax.Array) -> None:
    x, z, _ = simulated(3)
    run = partial(metrics.annealed_importance_sampling, log_likelihood, x, D, key)
    for name in ("num_temperatures", "num_leapfrog", "chunk_size"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            run(**{name: 0})
    with pytest.raises(ValueError, match="num_chains must be at least 2"):
        run(num_chains=1)
    with pytest.raises(ValueError, match=r"must return one value a latent, \[4\], got \[4, 10\]"):
        metrics.annealed_importance_sampling(lambda z, x: z @ W.T, x, D, key)
    with pytest.raises(ValueError, match="one for each of the 3 images"):
        metrics.reverse_annealed_importance_sampling(log_likelihood, x, jnp.asarray(z[:2]), key)
    with pytest.raises(ValueError, match=r"latents must be \[B, D\]"):
        metrics.reverse_annealed_importance_sampling(log_likelihood, x, jnp.asarray(z[0]), key)
    gan = models.gan()
    state = models.init(gan, key)
    others: tuple[Any, ...] = (losses.bernoulli, losses.gaussian_learned_variance())
    for likelihood in others:
        with pytest.raises(TypeError, match="observation noise must be a likelihood whose parameters are mean images"):
            jaxgen.gan_log_likelihood(gan, state, models.batch(), key, likelihood)
    with pytest.raises(ValueError, match=r"latents must be \[N, 3\]"):
        jaxgen.gan_log_likelihood(gan, state, models.batch(2), key, NOISE, latents=jnp.zeros((2, 4)))


@pytest.mark.slow
def test_the_default_settings_on_a_harder_decoder(key: jax.Array) -> None:
    """16 chains of 1,000 temperatures, 12 latents that 40 pixels of little noise pin down."""
    generator = np.random.default_rng(3)
    w = (generator.normal(size=(40, 12)) / 2).astype(np.float32)
    z = generator.normal(size=(32, 12)).astype(np.float32)
    x = (z @ w.T + 0.15 * generator.normal(size=(32, 40))).astype(np.float32)
    exact = stats.multivariate_normal(np.zeros(40), w.astype(np.float64) @ w.T + 0.15**2 * np.eye(40)).logpdf(x)
    noise = losses.gaussian(scale=0.15)
    forward = jax.jit(
        lambda k: metrics.annealed_importance_sampling(lambda z, x: noise.log_prob(z @ w.T, x), x, 12, k)
    )(key)
    reverse = jax.jit(
        lambda k: metrics.reverse_annealed_importance_sampling(
            lambda z, x: noise.log_prob(z @ w.T, x), x, jnp.asarray(z), k
        )
    )(key)
    below, above = (np.asarray(e.log_likelihood, np.float64) - exact for e in (forward, reverse))
    error = np.hypot(below.std(), above.std()) / np.sqrt(len(exact))
    assert below.mean() < 3 * error
    assert above.mean() > -3 * error
    assert above.mean() - below.mean() < 1.0  # 0.51 as measured
