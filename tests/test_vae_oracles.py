"""VAEs whose likelihood is known in closed form: linear decoders, Gaussian likelihoods, low dimensions."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxgen
from jaxgen import losses
from tests import models
from tests.test_objectives import Affine

SCALE = 0.5


class ConstantCovariance(nn.Module):
    """A Gaussian whose mean is affine in its input and whose log-variances (and direction) do not depend on it."""

    latent_dim: int
    rank_one: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, label: Any = None, *, train: bool) -> Any:
        mean = nn.Dense(self.latent_dim, name="mean")(x)
        names = ("logvar", "direction") if self.rank_one else ("logvar",)
        rest = (self.param(name, nn.initializers.zeros, (self.latent_dim,)) for name in names)
        return mean, *(jnp.broadcast_to(vector[None], mean.shape) for vector in rest)


def log_normal(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Log-density of each row in double precision."""
    away = np.asarray(x, np.float64) - mean
    _, log_det = np.linalg.slogdet(covariance)
    squares = np.einsum("bi,ij,bj->b", away, np.linalg.inv(covariance), away)
    return -0.5 * (squares + log_det + x.shape[1] * math.log(2 * math.pi))


def dense(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """(matrix W, bias) of a Dense layer, x = W z + bias, in double precision."""
    return np.asarray(layer["kernel"], np.float64).T, np.asarray(layer["bias"], np.float64)


def data(num: int = 200) -> np.ndarray:
    """Vectors of 5, most of whose variance lies in two directions that are not orthogonal."""
    generator = np.random.default_rng(0)
    factors = generator.normal(size=(num, 2)) @ np.array([[2.0, 1.0, 0.0, 0.5, 0.0], [0.0, 1.5, -1.0, 0.0, 0.5]])
    return (factors + generator.normal(size=(num, 5)) * SCALE + 1.0).astype(np.float32)


def ppca(x: np.ndarray, latent_dim: int) -> float:
    """Mean log p(x) of the best linear decoder at the given noise: Tipping & Bishop 1999, equation 7."""
    mean = x.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(x.T.astype(np.float64), bias=True))
    values, vectors = values[::-1][:latent_dim], vectors[:, ::-1][:, :latent_dim]
    w = vectors * np.sqrt(np.maximum(values - SCALE**2, 0.0))
    return float(log_normal(x, mean, w @ w.T + SCALE**2 * np.eye(x.shape[1])).mean())


def linear_vae(latent_dim: int = 2, rank_one: bool = False, **fields: Any) -> jaxgen.VAE:
    fields = {"optimizer": models.sgd(), "likelihood": losses.gaussian(scale=SCALE), **fields}
    return jaxgen.VAE(ConstantCovariance(latent_dim, rank_one), Affine(5), latent_dim=latent_dim, **fields)


def log_marginal(state: Any, x: np.ndarray) -> np.ndarray:
    """log p(x) of a linear decoder."""
    w, bias = dense(state.params["decoder"]["Dense_0"])
    return log_normal(x, bias, w @ w.T + SCALE**2 * np.eye(5))


def posterior_of(state: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(kernel and bias of the posterior mean of a linear decoder, its precision)."""
    w, bias = dense(state.params["decoder"]["Dense_0"])
    precision = np.eye(w.shape[1]) + w.T @ w / SCALE**2
    gain = np.linalg.solve(precision, w.T) / SCALE**2
    return gain.T, -gain @ bias, precision


@pytest.mark.parametrize("objective", [losses.stl, pytest.param(losses.elbo, marks=pytest.mark.slow)])
def test_a_linear_vae_learns_the_ppca_solution(objective: losses.Objective, key: jax.Array) -> None:
    """The ELBO has no worse optimum than the likelihood, and no local ones: Lucas et al. 2019.

    A diagonal posterior is exact once the decoder's columns are orthogonal, and nothing but the ELBO makes them so.
    """
    x = data()
    steps = 3000
    vae = linear_vae(objective=objective, num_samples=4, optimizer=optax.adam(optax.cosine_decay_schedule(0.02, steps)))
    batch = {"image": jnp.asarray(x)}
    state = jaxgen.vae_init(vae, key, batch)
    before = log_marginal(state, x).mean()
    state = jax.jit(lambda s: jax.lax.fori_loop(0, steps, lambda _, s: jaxgen.vae_step(vae, s, batch, key)[0], s))(
        state
    )
    best = ppca(x, 2)
    assert before < best - 1.0
    # STL's gradient has no noise left at the optimum, the ELBO's has.
    tolerance = 1e-4 if objective == losses.stl else 5e-3
    np.testing.assert_allclose(log_marginal(state, x).mean(), best, atol=tolerance)
    elbo = np.asarray(jaxgen.vae_evaluate(vae, state, batch, key, num_samples=1000)["elbo"])
    np.testing.assert_allclose(elbo.mean(), best, atol=1e-2)
    w, _ = dense(state.params["decoder"]["Dense_0"])
    assert abs(w[:, 0] @ w[:, 1]) < 1e-2 * np.linalg.norm(w[:, 0]) * np.linalg.norm(w[:, 1])


def test_bounds_grow_with_samples_up_to_the_likelihood(key: jax.Array) -> None:
    """ELBO <= IWAE-5 <= IWAE-50 <= log p(x), whose estimate is right at 5,000 samples: Burda et al. 2016, theorem 1."""
    vae = linear_vae()
    batch = {"image": data(8)}
    state = jaxgen.vae_init(vae, key, batch)
    kernel, bias, precision = posterior_of(state)
    state.params["encoder"] = {  # not quite the posterior: a little off, and too wide
        "mean": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias + 0.2, jnp.float32)},
        "logvar": 0.5 - jnp.log(jnp.asarray(np.diag(precision), jnp.float32)),
    }
    exact = log_marginal(state, batch["image"])
    num = 2000
    keys = jax.random.split(jax.random.key(3), num)

    def bound(k: int) -> tuple[np.ndarray, np.ndarray]:
        values = jax.vmap(lambda one: jaxgen.vae_log_likelihood(vae, state, batch, one, k))(keys)
        return np.asarray(values.mean(0)), np.asarray(values.std(0)) / math.sqrt(num)

    ladder = [*map(bound, (1, 5, 50)), (exact, np.zeros(8))]
    for (low, low_error), (high, high_error) in itertools.pairwise(ladder):
        assert (low < high + 4 * (low_error + high_error)).all()
        assert low.mean() < high.mean() - 4 * np.hypot(low_error, high_error).mean() / math.sqrt(8)
    estimate = jaxgen.vae_log_likelihood(vae, state, batch, key, num_samples=5000)
    np.testing.assert_allclose(estimate, exact, atol=0.05)


def test_the_likelihood_does_not_depend_on_the_chunks(key: jax.Array) -> None:
    vae = linear_vae(rank_one=True)
    batch = {"image": data(3)}
    state = jaxgen.vae_init(vae, key, batch)
    whole = jaxgen.vae_log_likelihood(vae, state, batch, key, num_samples=7)
    chunked = jaxgen.vae_log_likelihood(vae, state, batch, key, num_samples=7, chunk_size=3)
    np.testing.assert_allclose(chunked, whole, rtol=1e-6)
    fewer = jaxgen.vae_log_likelihood(vae, state, {"image": batch["image"][:2]}, key, num_samples=7)
    np.testing.assert_allclose(fewer, whole[:2], rtol=1e-6)
    assert (np.abs(jaxgen.vae_log_likelihood(vae, state, batch, key, num_samples=6) - whole) > 1e-4).all()
    # Training's weights play no part.
    held = {**state.hyperparams, "beta": jnp.float32(3.0)}
    again = jaxgen.vae_log_likelihood(vae, state._replace(hyperparams=held), batch, key, num_samples=7)
    np.testing.assert_allclose(again, whole, rtol=1e-6)
    for sizes in ({"num_samples": 0}, {"chunk_size": 0}):
        with pytest.raises(ValueError, match="at least 1, got 0"):
            jaxgen.vae_log_likelihood(vae, state, batch, key, **sizes)


def test_a_rank_one_posterior_is_exact_where_the_diagonal_one_is_not(key: jax.Array) -> None:
    """With one direction of the latents in use, p(z | x) has precision I + u u^T: Rezende et al. 2014, section 4.3."""
    x = data(16)
    batch = {"image": x}
    elbos = {}
    for rank_one in (False, True):
        vae = linear_vae(latent_dim=3, rank_one=rank_one)
        state = jaxgen.vae_init(vae, key, batch)
        v, w = np.array([0.6, -0.8, 1.0]), np.array([1.0, 0.5, -0.5, 0.0, 0.3])
        state.params["decoder"]["Dense_0"]["kernel"] = jnp.asarray(np.outer(v, w), jnp.float32)
        kernel, bias, precision = posterior_of(state)
        encoder = state.params["encoder"]
        encoder["mean"] = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
        if rank_one:
            encoder["direction"] = jnp.asarray(v * np.linalg.norm(w) / SCALE, jnp.float32)
        else:  # the best diagonal one
            encoder["logvar"] = -jnp.log(jnp.asarray(np.diag(precision), jnp.float32))
        elbos[rank_one] = np.asarray(jaxgen.vae_evaluate(vae, state, batch, key, num_samples=20_000)["elbo"])
        exact = log_marginal(state, x)
        weights = jaxgen.vae_log_likelihood(vae, state, batch, key, num_samples=1)
        assert np.allclose(weights, exact, atol=1e-3) == rank_one  # every weight is p(x) when q is exact
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    assert gap > 0.5
    np.testing.assert_allclose(elbos[True].mean(), exact.mean(), atol=0.02)
    np.testing.assert_allclose(elbos[False].mean(), exact.mean() - gap, atol=0.02)


def most_negative(log_weights: jax.Array) -> jax.Array:
    """A user's bound: no library code, and equal to log p(x) only if every weight is."""
    return log_weights.min(axis=0)


def chain(objective: Any) -> jaxgen.VAE:
    """x of 5 from z_1 of 1 from z_2 of 1, all linear."""
    return jaxgen.VAE(
        (ConstantCovariance(1), ConstantCovariance(1)),
        (Affine(5), ConstantCovariance(1)),
        optax.sgd(1.0),
        (1, 1),
        likelihood=losses.gaussian(scale=SCALE),
        objective=objective,
        num_samples=3,
    )


def exact_chain(key: jax.Array, x: np.ndarray) -> tuple[Any, np.ndarray]:
    """A state of `chain` whose posteriors are the true ones, and log p(x)."""
    state = jaxgen.vae_init(chain(losses.elbo), key, {"image": x})
    w, bias = dense(state.params["decoder"][0]["Dense_0"])
    a, c, variance = 0.8, 0.3, 0.4  # z_1 = a z_2 + c + noise of that variance

    def affine(kernel: Any, bias: Any, logvar: float) -> dict[str, Any]:
        kernel, bias = (jnp.asarray(array, jnp.float32) for array in (np.reshape(kernel, (-1, 1)), np.reshape(bias, 1)))
        return {"mean": {"kernel": kernel, "bias": bias}, "logvar": jnp.full((1,), logvar, jnp.float32)}

    marginal = a**2 + variance  # of z_1
    precision = 1 / marginal + (w.T @ w)[0, 0] / SCALE**2
    gain = w[:, 0] / SCALE**2 / precision
    upper = a / marginal
    params = {
        "encoder": (
            affine(gain, c / marginal / precision - gain @ bias, -math.log(precision)),
            affine(upper, -upper * c, math.log(1 - upper * a)),
        ),
        "decoder": (state.params["decoder"][0], affine(a, c, math.log(variance))),
    }
    log_p = log_normal(x, bias + w[:, 0] * c, marginal * w @ w.T + SCALE**2 * np.eye(5))
    return state._replace(params=params), log_p


@pytest.mark.slow
def test_two_layers_with_exact_posteriors_have_one_weight(key: jax.Array) -> None:
    """Every sample's weight is p(x) itself: any bound of true weights is exact, and STL and DReG have no gradient."""
    x = data(4)
    batch = {"image": x}
    state, log_p = exact_chain(key, x)
    sizes = {}
    for name, objective in {
        "elbo": losses.elbo,
        "iwae": losses.iwae,
        "stl": losses.stl,
        "dreg": losses.dreg,
        "user": most_negative,
    }.items():
        vae = chain(objective)
        loss_of = jax.value_and_grad(lambda p, vae=vae: jaxgen.vae_loss(vae, p, state, batch, key), has_aux=True)
        (loss, (metrics, _)), gradient = jax.jit(loss_of)(state.params)
        if name != "elbo":  # its top KL is in closed form, the rest sampled: equal in expectation only
            np.testing.assert_allclose(-loss, log_p.mean(), rtol=1e-5)
        np.testing.assert_allclose(metrics["elbo"], metrics["reconstruction"] - metrics["kl"], rtol=1e-5)
        sizes[name] = float(optax.tree.norm(gradient["encoder"]))
    assert max(sizes["stl"], sizes["dreg"]) < 1e-3 < 0.1 < min(sizes["elbo"], sizes["iwae"])
    np.testing.assert_allclose(jaxgen.vae_log_likelihood(chain(losses.elbo), state, batch, key, 1), log_p, rtol=1e-5)


def test_the_likelihood_of_two_layers_converges(key: jax.Array) -> None:
    x = data(4)
    state, log_p = exact_chain(key, x)
    worse = jax.tree.map(lambda leaf: leaf * 1.1, state.params["encoder"])
    state = state._replace(params={**state.params, "encoder": worse})
    vae = chain(losses.elbo)
    np.testing.assert_allclose(jaxgen.vae_log_likelihood(vae, state, {"image": x}, key), log_p, atol=0.1)
    one = jaxgen.vae_log_likelihood(vae, state, {"image": x}, key, num_samples=1)
    assert (np.abs(np.asarray(one) - log_p) > 0.02).any()


def test_dreg_has_less_variance_than_iwae(key: jax.Array) -> None:
    """The encoder's gradient, near the optimum; Tucker et al. 2019."""
    x = data(2)
    state, _ = exact_chain(key, x)
    near = jax.tree.map(lambda leaf: leaf + 0.05, state.params["encoder"])
    params = {**state.params, "encoder": near}

    def variance(objective: losses.Objective) -> float:
        vae = chain(objective)
        one = jax.grad(lambda p, k: jaxgen.vae_loss(vae, p, state, {"image": x}, k)[0])
        stacked = jax.jit(jax.vmap(one, in_axes=(None, 0)))(params, jax.random.split(key, 500))["encoder"]
        return float(sum(leaf.var(0).sum() for leaf in jax.tree.leaves(stacked)))

    assert variance(losses.dreg) < 0.1 * variance(losses.iwae)
