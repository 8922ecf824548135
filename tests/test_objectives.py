"""Objectives, latent Gaussians and free bits against values by hand, dense algebra and averages over many keys."""

import functools
import math
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

import jaxgen
from jaxgen import losses, networks
from tests import models
from tests.test_composition import REGIMES, learnt, looped

EXTREME = [-1e4, -1e2, -50.0, 0.0, 50.0, 1e2, 1e4]


class Affine(nn.Module):
    """One affine map for each answer, started from normal weights."""

    features: int
    answers: int = 1
    scale: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, label: Any = None, *, train: bool) -> Any:
        init = nn.initializers.normal(self.scale)
        x = x.reshape(x.shape[0], -1)
        made = tuple(nn.Dense(self.features, kernel_init=init, bias_init=init)(x) for _ in range(self.answers))
        return made if self.answers > 1 else made[0]


def affine_vae(layers: int = 1, answers: int = 3, **fields: Any) -> jaxgen.VAE:
    """Vectors of 3 from latents of 2, or of 2 and 2, with a rank-one posterior unless ``answers`` is 2."""
    encoder, decoder = (Affine(2, answers),) * layers, (Affine(3), Affine(2, 2))[:layers]
    fields = {
        "likelihood": losses.gaussian(scale=0.5),
        "optimizer": models.sgd(),
        "latent_dim": (2,) * layers,
        **fields,
    }
    return jaxgen.VAE(encoder, decoder, **fields)


def vectors(size: int = 2) -> dict[str, jax.Array]:
    return {"image": jax.random.normal(jax.random.key(7), (size, 3))}


def test_bounds_by_hand() -> None:
    log_weights = jnp.log(jnp.array([[1.0, 2.0], [3.0, 2.0]]))
    np.testing.assert_allclose(losses.elbo(log_weights), [0.5 * math.log(3.0), math.log(2.0)], rtol=1e-6)
    np.testing.assert_allclose(losses.iwae(log_weights), [math.log(2.0), math.log(2.0)], rtol=1e-6)
    for objective in (losses.sampled_elbo, losses.stl):
        np.testing.assert_array_equal(objective(log_weights), losses.elbo(log_weights))
    np.testing.assert_array_equal(losses.dreg(log_weights), losses.iwae(log_weights))
    # Normalised weights 1/4, 3/4 and 1/2, 1/2; with beta = 0 there is no log q whose score could be reparameterised.
    half = losses.doubly_reparameterized_weights(log_weights, jnp.float32(0.5))
    np.testing.assert_allclose(half, [[0.625, 0.75], [0.875, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(losses.doubly_reparameterized_weights(log_weights, jnp.float32(0.0)), np.ones((2, 2)))


def test_bounds_are_finite_at_extreme_weights() -> None:
    log_weights = jnp.array([[-1e4, 1e4, 0.0], [1e4, 1e4, -1e4]])
    value, gradient = jax.value_and_grad(lambda w: losses.iwae(w).sum())(log_weights)
    assert jnp.isfinite(value)
    np.testing.assert_allclose(gradient, [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]])
    with pytest.raises(ValueError, match=r"\[K, B\]"):
        losses.iwae(log_weights[0])
    with pytest.raises(TypeError, match="floating point"):
        losses.iwae(jnp.ones((2, 2), jnp.int32))


def test_objectives_are_equal_by_value_and_refuse_what_excludes_itself() -> None:
    assert losses.Objective(losses.log_mean_weight) == losses.iwae
    assert hash(losses.Objective(losses.mean_log_weight, stop_posterior=True)) == hash(losses.stl)
    with pytest.raises(ValueError, match="choose one of the two"):
        losses.Objective(losses.mean_log_weight, analytic_kl=True, stop_posterior=True)
    with pytest.raises(ValueError, match="set stop_posterior=True"):
        losses.Objective(losses.log_mean_weight, path_weights=losses.doubly_reparameterized_weights)


def dense(gaussian: losses.LatentGaussian) -> np.ndarray:
    """The covariance of one latent Gaussian, inverted as a matrix in double precision."""
    logvar, u = (np.asarray(a, np.float64) for a in (gaussian.logvar, gaussian.direction))
    return np.linalg.inv(np.diag(np.exp(-logvar)) + np.outer(u, u))


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 30.0])
def test_rank_one_gaussian_agrees_with_dense_algebra(size: float) -> None:
    mean, logvar, u, noise = jax.random.normal(jax.random.key(0), (4, 5))
    gaussian = losses.LatentGaussian(mean, logvar, size * u)
    covariance = dense(gaussian)
    factor = np.asarray(jax.jacobian(gaussian.deviation)(noise))
    np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-4, atol=1e-5)
    z = gaussian.sample(noise)
    np.testing.assert_allclose(gaussian.whiten(z - mean), noise, rtol=1e-3, atol=1e-4)
    away = np.asarray(z - mean, np.float64)
    _, log_det = np.linalg.slogdet(covariance)
    log_prob = -0.5 * (away @ np.linalg.solve(covariance, away) + log_det + 5 * math.log(2 * math.pi))
    np.testing.assert_allclose(gaussian.log_density(noise).sum(), log_prob, rtol=1e-4)
    np.testing.assert_allclose(gaussian.log_prob(z).sum(), log_prob, rtol=2e-3)
    kl = 0.5 * (np.trace(covariance) + np.square(np.asarray(mean, np.float64)).sum() - 5 - log_det)
    np.testing.assert_allclose(gaussian.kl().sum(), kl, rtol=1e-5)
    by_function = losses.gaussian_kl(mean[None], logvar[None], direction=size * u[None])
    np.testing.assert_allclose(by_function, [kl], rtol=1e-5)


def test_latent_gaussian_without_a_direction_is_the_diagonal_one() -> None:
    mean, logvar, noise = jax.random.normal(jax.random.key(1), (3, 4))
    plain, zero = (losses.LatentGaussian(mean, logvar, u) for u in (None, jnp.zeros(4)))
    for method in ("deviation", "sample", "whiten", "log_density", "log_prob"):
        np.testing.assert_allclose(getattr(plain, method)(noise), getattr(zero, method)(noise), atol=1e-6)
    np.testing.assert_allclose(plain.kl(), zero.kl(), atol=1e-6)


def test_masked_dimensions_do_not_act_through_the_direction() -> None:
    mean, logvar, u = jax.random.normal(jax.random.key(2), (3, 1, 4))
    kept = losses.gaussian_kl(mean[:, :3], logvar[:, :3], direction=u[:, :3])
    mask = jnp.array([1.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(losses.gaussian_kl(mean, logvar, mask, u), kept, rtol=1e-6)
    with pytest.raises(ValueError, match="common shape"):
        losses.gaussian_kl(mean, logvar, direction=u[:, :3])


def test_rank_one_gradients() -> None:
    mean, logvar, u, noise = jax.random.normal(jax.random.key(3), (4, 1, 3))
    check_grads(
        lambda m, v, u: losses.gaussian_kl(m, v, direction=u),
        (mean, logvar, u),
        2,
        modes=("rev",),
        atol=2e-2,
        rtol=2e-2,
    )

    def joint(m: jax.Array, v: jax.Array, u: jax.Array) -> Any:
        gaussian = losses.LatentGaussian(m, v, u)
        return gaussian.sample(noise), gaussian.log_density(noise), gaussian.log_prob(noise)

    check_grads(joint, (mean, logvar, u), 1, modes=("rev",), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_latent_gaussians_are_finite_at_extremes(dtype: jnp.dtype) -> None:
    logvar, u = (jnp.asarray(a.reshape(-1, 1), dtype) for a in np.meshgrid(EXTREME, [0.0, 1e-4, 1.0, 1e4]))
    pair = [jnp.concatenate([a, jnp.ones_like(a)], axis=1) for a in (logvar, u)]

    def total(logvar: jax.Array, u: jax.Array) -> jax.Array:
        gaussian = losses.LatentGaussian(jnp.zeros_like(logvar), logvar, u)
        noise = jnp.ones_like(logvar)
        return gaussian.kl().sum() + gaussian.log_density(noise).sum() + gaussian.sample(noise).sum()

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(*pair)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(g).all() for g in gradients)


@functools.cache
def gradients(objective: losses.Objective, layers: int = 2) -> Any:
    """Gradients of the loss by the parameters for many keys, stacked, with a rank-one posterior and beta != 1."""
    vae = affine_vae(layers, objective=objective, num_samples=3, beta=0.7)
    state = jaxgen.vae_init(vae, jax.random.key(0), vectors())

    def one(key: jax.Array) -> Any:
        return jax.grad(lambda p: jaxgen.vae_loss(vae, p, state, vectors(), key)[0])(state.params)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(11), 40_000))


def z_scores(a: Any, b: Any) -> dict[str, np.ndarray]:
    """By how many standard errors the means of two stacks of gradients of the same keys differ, per kind of network."""

    def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
        error = difference.std(0) / math.sqrt(len(difference))
        return np.ravel(np.abs(difference.mean(0)) / (error + 1e-7))

    scores = jax.tree.map(score, a, b)
    return {kind: np.concatenate(jax.tree.leaves(scores[kind])) for kind in scores}


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("estimator", "estimated"), [("stl", "sampled_elbo"), ("dreg", "iwae")])
def test_estimators_are_unbiased(layers: int, estimator: str, estimated: str) -> None:
    """In expectation the gradient is that of the bound; the upper layers' log q moves with the latents below."""
    got, expected = (gradients(getattr(losses, name), layers) for name in (estimator, estimated))
    assert z_scores(got, expected)["encoder"].max() < 4.5
    chex.assert_trees_all_close(got["decoder"], expected["decoder"], rtol=1e-3, atol=1e-3)  # for each key
    # There is something to see: the gradients are not zero, and the two estimators differ for each key.
    zero = jax.tree.map(jnp.zeros_like, got)
    assert np.median(z_scores(got, zero)["encoder"]) > 20
    assert not np.allclose(jax.tree.leaves(got["encoder"])[0][0], jax.tree.leaves(expected["encoder"])[0][0], rtol=1e-2)


@pytest.mark.slow
def test_the_test_of_unbiasedness_can_fail() -> None:
    """Stopping log q under the importance-weighted bound is biased (Tucker et al. 2019): it shows."""
    biased = losses.Objective(losses.log_mean_weight, stop_posterior=True)
    assert z_scores(gradients(biased), gradients(losses.iwae))["encoder"].max() > 10


@pytest.mark.slow
def test_analytic_and_sampled_kl_have_one_gradient_in_expectation() -> None:
    scores = z_scores(gradients(losses.elbo), gradients(losses.sampled_elbo))
    assert max(score.max() for score in scores.values()) < 4.5


def products(vae: jaxgen.VAE, key: jax.Array) -> int:
    """Matrix products of a compiled step."""
    state = jaxgen.vae_init(vae, key, vectors())
    step = jax.jit(partial(jaxgen.vae_step, vae))
    return str(step.lower(state, vectors(), key).compile().as_text()).count(" dot(")


@pytest.mark.slow
def test_the_second_pass_of_dreg_costs_no_matrix_product(key: jax.Array) -> None:
    fields: dict[str, Any] = {
        "encoder": networks.MLPEncoder(3, (16,)),
        "decoder": networks.MLPDecoder((3,), (16,)),
        "optimizer": models.sgd(),
        "latent_dim": 3,
        "num_samples": 3,
    }
    counts = [products(jaxgen.VAE(**fields, objective=o), key) for o in (losses.iwae, losses.dreg)]
    assert counts[0] > 6
    assert len(set(counts)) == 1


def mean_kl_by_dimension(vae: jaxgen.VAE, state: Any) -> np.ndarray:
    return np.asarray(losses.LatentGaussian(*jaxgen.vae_encode(vae, state, models.batch())).kl().mean(0))


def test_free_bits_by_hand(key: jax.Array) -> None:
    vae = models.vae(free_bits=0.1, beta=2.0)
    state = models.init(vae, key)
    kl = mean_kl_by_dimension(vae, state)
    least = float(np.sort(kl)[1]) * 0.999  # one dimension below, two above
    state = state._replace(hyperparams={**state.hyperparams, "free_bits": jnp.float32(least)})
    batch = {"image": jnp.asarray(models.batch()["image"])}
    loss_of = jax.jit(lambda s: jaxgen.vae_loss(vae, s.params, s, batch, key))
    loss, (metrics, _) = loss_of(state)
    charged = np.maximum(kl, least).sum()
    assert charged > kl.sum() + 1e-3
    np.testing.assert_allclose(loss, 2.0 * charged - metrics["reconstruction"], rtol=1e-6)
    np.testing.assert_allclose(metrics["elbo"], metrics["reconstruction"] - kl.sum(), rtol=1e-6)
    _, stepped = jaxgen.vae_step(vae, state, models.batch(), key)
    np.testing.assert_allclose(stepped["loss"], loss, rtol=1e-6)  # a number is left to the caller
    masked = {**state.hyperparams, "latent_mask": jnp.array([1.0, 0.0, 0.0]), "free_bits": jnp.float32(100.0)}
    loss, (metrics, _) = loss_of(state._replace(hyperparams=masked))
    np.testing.assert_allclose(loss, 2.0 * 100.0 - metrics["reconstruction"], rtol=1e-6)


def test_free_bits_have_no_gradient_below_and_the_usual_one_above(key: jax.Array) -> None:
    free, plain = models.vae(free_bits=0.0), models.vae()
    state = models.init(free, key)

    batch = {"image": jnp.asarray(models.batch()["image"])}

    def gradient(vae: jaxgen.VAE) -> Any:
        return jax.jit(jax.grad(lambda p, s: jaxgen.vae_loss(vae, p, s, batch, key)[0]))

    def held(**values: float) -> Any:
        given = {name: jnp.float32(value) for name, value in values.items()}
        return state._replace(hyperparams={"latent_mask": state.hyperparams["latent_mask"], **given})

    with_bits, without = gradient(free), gradient(plain)
    for least, beta in ((0.0, 1.0), (1e3, 0.0)):  # nothing is below the one, everything below the other
        expected = without(state.params, held(beta=beta))
        chex.assert_trees_all_close(with_bits(state.params, held(beta=1.0, free_bits=least)), expected, atol=1e-6)


def test_free_bits_can_be_scheduled_and_count_every_layer(key: jax.Array) -> None:
    vae = affine_vae(2, free_bits=lambda step: 100.0 + step)  # far above any KL here
    state = jaxgen.vae_init(vae, key, vectors())
    for t in range(2):
        state, metrics = jaxgen.vae_step(vae, state, vectors(), key)
        assert float(state.hyperparams["free_bits"]) == 100.0 + t
        np.testing.assert_allclose(metrics["loss"], 4 * (100.0 + t) - metrics["reconstruction"], rtol=1e-6)


REGIME_SPECS: dict[str, dict[str, Any]] = {
    # Which dimensions are charged the least depends on the mean over the global batch.
    "free_bits": {"objective": losses.iwae, "free_bits": 1.0},
    "dreg": {"objective": losses.dreg},
}


@pytest.mark.parametrize("spec", ["free_bits", pytest.param("dreg", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "regime", ["shard_map", *(pytest.param(r, marks=pytest.mark.slow) for r in REGIMES if r != "shard_map")]
)
def test_two_layers_in_every_regime(regime: str, spec: str, key: jax.Array) -> None:
    vae = jaxgen.VAE(
        (Affine(3, 3), Affine(2, 2)),
        (networks.MLPDecoder(models.IMAGE_SHAPE, (16,)), Affine(3, 2)),
        models.sgd(),
        (3, 2),
        num_samples=2,
        **REGIME_SPECS[spec],
    )
    state = models.init(vae, key)
    step = partial(jaxgen.vae_step, vae)
    expected, expected_metrics = looped(step)(state, key)
    got, got_metrics = REGIMES[regime](step)(state, key)
    chex.assert_trees_all_close(learnt(got), learnt(expected), atol=2e-5, rtol=0)
    chex.assert_trees_all_close(got_metrics, expected_metrics, atol=1e-4, rtol=1e-4)
