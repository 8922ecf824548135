"""Latents of any decoder: arcs, projections against closed forms, completions against the exact posterior."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import jaxgen
from jaxgen import latents, losses
from tests import models

D, P, SCALE = 3, 12, 0.3
_GENERATOR = np.random.default_rng(0)
W = (_GENERATOR.normal(size=(P, D)) / 2).astype(np.float32)
OFFSETS = (_GENERATOR.normal(size=(4, P)) / 4).astype(np.float32)  # of each label
NOISE = losses.gaussian(scale=SCALE)
MASK = np.arange(P) % 3 > 0


def decode(z: jax.Array, label: Any = None) -> jax.Array:
    """A linear decoder, whose posterior is known; conditional on a label where there is one."""
    means = z @ W.T
    return means if label is None else means + jnp.asarray(OFFSETS)[label]


def simulated(num: int, label: np.ndarray | None = None) -> dict[str, np.ndarray]:
    z = np.random.default_rng(1).normal(size=(num, D)).astype(np.float32)
    noise = SCALE * np.random.default_rng(2).normal(size=(num, P)).astype(np.float32)
    batch = {"image": np.asarray(decode(jnp.asarray(z), label)) + noise}
    return batch if label is None else {**batch, "label": label}


def posterior(
    images: np.ndarray, mask: np.ndarray, prior_weight: float = 1.0, offset: Any = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """(means [B, D], covariance [D, D]) of z given the visible values, in closed form."""
    seen = W[mask].astype(np.float64)
    precision = prior_weight * np.eye(D) + seen.T @ seen / SCALE**2
    covariance = np.linalg.inv(precision)
    return (images - offset)[:, mask] @ seen @ covariance / SCALE**2, covariance


def test_arcs_keep_the_length_and_the_angle() -> None:
    """Ends exact, lengths and equal angles in between; lines where directions are parallel or opposite."""
    start, end = jnp.eye(3)[:2] * 2.0
    weights = jnp.linspace(0.0, 1.0, 5)
    arc = latents.spherical_interpolation(start, end, weights)
    np.testing.assert_allclose(arc[jnp.array([0, -1])], jnp.stack([start, end]), atol=1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(arc, axis=1), 2.0, rtol=1e-6)
    angles = np.arctan2(arc[:, 1], arc[:, 0])
    np.testing.assert_allclose(angles, np.linspace(0, np.pi / 2, 5), atol=1e-6)
    line = latents.linear_interpolation(start, end, weights)
    np.testing.assert_allclose(line[2], [1.0, 1.0, 0.0], atol=1e-6)
    for other in (start * 2, -start, jnp.zeros(3)):
        np.testing.assert_allclose(
            latents.spherical_interpolation(start, other, weights),
            latents.linear_interpolation(start, other, weights),
            atol=1e-6,
        )


def test_interpolation_is_batched_and_has_finite_gradients() -> None:
    start, end = (jax.random.normal(jax.random.key(i), (2, 4, 5)) for i in range(2))
    weights = jnp.linspace(0.0, 1.0, 7)
    whole = latents.spherical_interpolation(start, end, weights)
    assert whole.shape == (2, 4, 7, 5)
    each = jax.vmap(jax.vmap(lambda a, b: latents.spherical_interpolation(a, b, weights)))(start, end)
    np.testing.assert_allclose(whole, each, atol=1e-6)
    for other in (start, jnp.zeros_like(start)):
        gradient = jax.grad(lambda a, b: jnp.sum(latents.spherical_interpolation(a, b, weights)))(start, other)
        assert bool(jnp.isfinite(gradient).all())
    with pytest.raises(ValueError, match=r"one shape, got \[2, 4, 5\] and \[5\]"):
        latents.spherical_interpolation(start, end[0, 0], weights)
    with pytest.raises(ValueError, match=r"weights must be \[T\]"):
        latents.linear_interpolation(start, end, jnp.float32(0.5))


def test_truncated_latents_are_the_middle_of_the_prior(key: jax.Array) -> None:
    z = latents.truncated_normal(key, 500, 4, 0.7)
    assert float(jnp.abs(z).max()) <= 0.7
    assert stats.kstest(np.asarray(z).ravel(), stats.truncnorm(-0.7, 0.7).cdf).pvalue > 0.01
    np.testing.assert_array_equal(z[:10], latents.truncated_normal(key, 10, 4, 0.7))
    with pytest.raises(ValueError, match="threshold must be above 0, got 0"):
        latents.truncated_normal(key, 5, 4, 0)


def test_an_attributes_direction_is_the_difference_of_means() -> None:
    z = np.random.default_rng(0).normal(size=(20, D)).astype(np.float32)
    moved = np.add(z[:5], [0, 2, 0])
    np.testing.assert_allclose(latents.attribute_direction(moved, z[5:]), moved.mean(0) - z[5:].mean(0), atol=1e-6)
    with pytest.raises(ValueError, match=r"N, M >= 1, got shapes \[0, 3\]"):
        latents.attribute_direction(z[:0], z)


@pytest.mark.parametrize("prior_weight", [0.0, 1.0])
def test_inversion_finds_the_mode_of_a_linear_decoder(key: jax.Array, prior_weight: float) -> None:
    """All that is visible: the posterior's mean; without the prior the least squares."""
    batch = simulated(6)
    found = latents.invert(decode, batch, key, D, likelihood=NOISE, prior_weight=prior_weight, num_restarts=2)
    exact, _ = posterior(batch["image"], np.ones(P, bool), prior_weight)
    np.testing.assert_allclose(found.latents, exact, atol=2e-3)
    np.testing.assert_allclose(found.images, decode(found.latents), atol=1e-6)
    heights = NOISE.log_prob(found.images, jnp.asarray(batch["image"])) + prior_weight * jnp.sum(
        jax.scipy.stats.norm.logpdf(found.latents), axis=1
    )
    np.testing.assert_allclose(found.log_posterior, heights, rtol=1e-5)
    np.testing.assert_array_equal(found.log_posterior, found.restarts.max(axis=1))


def test_inversion_sees_visible_pixels_only_and_each_image_its_own_label(key: jax.Array) -> None:
    batch = simulated(6, np.arange(6) % 4)
    ruined = {**batch, "image": np.where(MASK, batch["image"], 7.0)}
    found = latents.invert(decode, ruined, key, D, mask=MASK, likelihood=NOISE, num_restarts=1)
    exact, _ = posterior(batch["image"], MASK, offset=OFFSETS[batch["label"]])
    np.testing.assert_allclose(found.latents, exact, atol=2e-3)


@pytest.mark.slow
def test_inversion_by_a_line_search(key: jax.Array) -> None:
    """Any optax transformation, those too that evaluate the objective along a line."""
    batch = simulated(3)
    found = latents.invert(
        decode, batch, key, D, likelihood=NOISE, num_restarts=1, num_steps=8, optimizer=optax.lbfgs()
    )
    np.testing.assert_allclose(found.latents, posterior(batch["image"], np.ones(P, bool))[0], atol=1e-4)


def test_the_best_start_wins_and_no_step_makes_it_worse(key: jax.Array) -> None:
    """A landscape with two summits: from the wrong side Adam does not get over, from several starts it does; and a rate
    that is far too large keeps the best point that it came through."""

    def two_summits(z: jax.Array, label: jax.Array | None) -> jax.Array:
        return 0.8 * jnp.tanh(3.0 * z) + 0.2 * z

    batch = {"image": np.full((16, 1), 0.9, np.float32)}
    sharp = losses.gaussian(scale=0.02)
    one, many = (
        latents.invert(two_summits, batch, key, 1, likelihood=sharp, num_restarts=n, num_steps=200) for n in (1, 8)
    )
    assert bool((many.log_posterior >= one.log_posterior - 1e-3).all())
    start = jnp.full((16, 1), 0.7)
    wild = latents.invert(
        two_summits, batch, key, 1, likelihood=sharp, start=start, num_restarts=1, num_steps=5, optimizer=optax.sgd(1e3)
    )
    still = latents.invert(
        two_summits, batch, key, 1, likelihood=sharp, start=start, num_restarts=1, num_steps=1, optimizer=optax.sgd(0.0)
    )
    assert bool((wild.log_posterior >= still.log_posterior).all())
    np.testing.assert_allclose(still.latents, start)


def test_inversion_is_the_same_under_transformations(key: jax.Array) -> None:
    gan = models.gan()
    state = models.init(gan, key)
    generate = functools.partial(jaxgen.gan_generate, gan, state)
    batch = {"image": jaxgen.gan_sample(gan, state, key, 4)}
    invert: Any = functools.partial(
        latents.invert, generate, latent_dim=models.LATENT_DIM, num_restarts=2, num_steps=20
    )
    eager = invert(batch, key)
    compiled = jax.jit(invert)(batch, key)
    np.testing.assert_allclose(eager.latents, compiled.latents, atol=1e-4)
    sets = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), batch)
    keys = jnp.stack([key, jax.random.key(1)])
    mapped = jax.jit(jax.vmap(invert))(sets, keys)
    np.testing.assert_allclose(mapped.latents[0], eager.latents, atol=1e-4)
    np.testing.assert_allclose(mapped.latents[1], invert({"image": sets["image"][1]}, keys[1]).latents, atol=1e-4)


@pytest.mark.parametrize(
    "likelihood",
    [
        losses.bernoulli,
        losses.continuous_bernoulli,
        NOISE,
        losses.GaussianLearnedVariance(),
        losses.DiscretizedLogistic(),
        losses.DiscretizedLogisticMixture(num_components=2),
    ],
    ids=lambda likelihood: type(likelihood).__name__,
)
@pytest.mark.parametrize("shape", [(4, 3, 2), (5,)], ids=["images", "vectors"])
def test_pixels_sum_to_the_image(likelihood: Any, shape: tuple[int, ...], key: jax.Array) -> None:
    """With everything visible but a corner the masked likelihood is the whole one less the corner's: of every
    likelihood, parameters and channels kept together."""
    per_value = likelihood.parameters_per_value
    parameters = jax.random.normal(key, (3, *shape[:-1], shape[-1] * per_value))
    images = jnp.round(jax.random.uniform(jax.random.key(1), (3, *shape)) * 255) / 255
    pixels = latents._log_prob_of_pixels(likelihood, parameters, images)
    assert pixels.shape == (3, *(shape[:-1] if len(shape) == 3 else shape))
    np.testing.assert_allclose(
        pixels.reshape(3, -1).sum(axis=1), likelihood.log_prob(parameters, images), rtol=2e-5, atol=1e-4
    )


def test_completions_are_draws_of_the_exact_posterior(key: jax.Array) -> None:
    """Of the linear decoder: mean and covariance of the latents of many completions; the visible values bit for bit."""
    batch = simulated(3)
    ruined = {"image": np.where(MASK, batch["image"], 7.0).astype(np.float32)}
    complete = jax.jit(
        lambda batch, key: latents.complete(
            decode, batch, MASK, key, D, num_samples=200, likelihood=NOISE, chains_per_sample=2, num_temperatures=40
        )
    )
    found = complete(ruined, key)
    exact, covariance = posterior(batch["image"], MASK)
    z = np.asarray(found.latents, np.float64)
    deviation = (z - exact[:, None]) @ np.linalg.cholesky(np.linalg.inv(covariance))
    assert np.abs(deviation.mean(axis=1)).max() < 4 / np.sqrt(200)
    assert np.abs(deviation.std(axis=1) - 1).max() < 4 / np.sqrt(400)
    np.testing.assert_array_equal(found.images[..., MASK], np.repeat(ruined["image"][:, None, MASK], 200, axis=1))
    np.testing.assert_allclose(found.images[..., ~MASK], (z @ W.T)[..., ~MASK], atol=1e-5)
    heights = stats.norm(0, 1).logpdf(z).sum(-1) + stats.norm(0, SCALE).logpdf(
        batch["image"][:, None, MASK] - (z @ W.T)[..., MASK]
    ).sum(-1)
    np.testing.assert_allclose(found.log_posterior, heights, rtol=1e-4)
    assert found.acceptance is not None
    assert bool(((found.acceptance > 0.4) & (found.acceptance < 0.9)).all())


def test_the_likeliest_completion(key: jax.Array) -> None:
    """Without a number of samples: the mode, once; its height does not hold the weight of the prior."""
    batch = simulated(3)
    found = latents.complete(decode, batch, MASK, key, D, likelihood=NOISE, num_restarts=2)
    exact, _ = posterior(batch["image"], MASK)
    np.testing.assert_allclose(found.latents[:, 0], exact, atol=2e-3)
    assert found.images.shape == (3, 1, P)
    assert found.acceptance is None
    flat = latents.complete(decode, batch, MASK, key, D, likelihood=NOISE, prior_weight=0.0, num_restarts=2)
    assert bool((flat.log_posterior <= found.log_posterior + 1e-4).all())
    with pytest.raises(TypeError, match="num_steps: of the optimiser"):
        latents.complete(decode, batch, MASK, key, D, num_samples=2, num_steps=3)


def test_masks_are_checked(key: jax.Array) -> None:
    batch = {"image": np.zeros((2, 4, 4, 1), np.float32)}

    def attempt(mask: Any) -> Any:
        return latents.complete(lambda z, label: z, batch, mask, key, 3)

    with pytest.raises(TypeError, match="must be a bool array, True where a pixel is visible, got float32"):
        attempt(np.ones((4, 4), np.float32))
    with pytest.raises(ValueError, match=r"must be \[4, 4\] or \[2, 4, 4\], got \[4, 5\]"):
        attempt(np.ones((4, 5), bool))
    with pytest.raises(ValueError, match="the mask has no visible pixel"):
        attempt(np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="image 1 has no visible pixel"):
        attempt(np.array([np.ones((4, 4), bool), np.zeros((4, 4), bool)]))
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        latents.complete(lambda z, label: z, batch, np.ones((4, 4), bool), key, 3, num_samples=0)
    with pytest.raises(ValueError, match=r"start must be one latent an image, \[2, 3\], got shape \[1, 3\]"):
        latents.invert(lambda z, label: z, batch, key, 3, start=jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"or \[2, S, ...\], got \[2, 5\]"):
        latents.keep_visible(batch["image"], np.ones((4, 4), bool), jnp.zeros((2, 5)))


def test_a_vae_of_any_depth_is_a_decoder_of_its_noise(key: jax.Array) -> None:
    """The noise of the posterior means comes back through those means; noise drawn from N(0, I) makes its samples."""
    for vae in (models.vae(), models.dlgm()):
        state = models.init(vae, key)
        batch = {"image": models.batch(5)["image"]}
        noise = jaxgen.vae_encode_noise(vae, state, batch)
        posteriors = jaxgen.vae_encode(vae, state, batch)
        layered = isinstance(vae.latent_dim, tuple)
        means = [each[0] for each in posteriors] if layered else [posteriors[0]]
        assert noise.shape == (5, sum(mean.shape[1] for mean in means))
        np.testing.assert_allclose(noise[:, -means[-1].shape[1] :], means[-1], atol=1e-5)
        images = vae.likelihood.mean(jaxgen.vae_decode_noise(vae, state, noise))
        lowest = vae.decoder[0] if layered else vae.decoder
        params = state.params["decoder"][0] if layered else state.params["decoder"]
        direct = vae.likelihood.mean(lowest.apply({"params": params}, means[0], train=False))
        np.testing.assert_allclose(images, direct, atol=1e-5)
        top = means[-1]
        alone = jnp.concatenate([jnp.zeros((5, noise.shape[1] - top.shape[1])), top], axis=1)
        images = vae.likelihood.mean(jaxgen.vae_decode_noise(vae, state, alone))
        np.testing.assert_allclose(images, jaxgen.vae_decode(vae, state, top), atol=1e-5)
        with pytest.raises(ValueError, match="latents must be"):
            jaxgen.vae_decode_noise(vae, state, noise[:, 1:])
