"""Losses against values worked out by hand, closed forms, finite differences and extreme inputs."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.stats import norm
from jax.test_util import check_grads

from jaxgen import losses, networks

EXTREME = np.array([-1e4, -88.0, -17.0, 0.0, 17.0, 88.0, 1e4], np.float32)
ADVERSARIAL = {name: loss for name, loss in vars(losses).items() if isinstance(loss, losses.AdversarialLoss)}
PAIRS = {
    f"{name}_{side}": getattr(loss, side)
    for name, loss in ADVERSARIAL.items()
    for side in ("generator", "discriminator")
}


def test_discriminator_at_zero_logits_pays_two_coin_flips() -> None:
    zero = jnp.zeros(3)
    np.testing.assert_allclose(losses.minimax.discriminator(zero, zero), np.full(3, 2 * math.log(2)), rtol=1e-6)


def test_adversarial_losses_by_hand() -> None:
    # D(x) = 3/4 is the logit log 3, D(G(z)) = 1/5 the logit -log 4.
    real, fake = jnp.array([math.log(3.0)]), jnp.array([-math.log(4.0)])
    np.testing.assert_allclose(losses.minimax.discriminator(real, fake), [-math.log(0.75) - math.log(0.8)], rtol=1e-6)
    np.testing.assert_allclose(losses.minimax.generator(real, fake), [math.log(0.8)], rtol=1e-6)
    np.testing.assert_allclose(losses.non_saturating.generator(real, fake), [-math.log(0.2)], rtol=1e-6)


def test_relativistic_losses_by_hand() -> None:
    real, fake = jnp.array([math.log(3.0), 0.0]), jnp.array([0.0, -math.log(4.0)])
    pairs = [math.log(1 + 1 / 3), math.log(1 + 1 / 4)]  # softplus(fake - real)
    np.testing.assert_allclose(losses.relativistic.discriminator(real, fake), pairs, rtol=1e-6)
    np.testing.assert_allclose(losses.relativistic.generator(fake, real), pairs, rtol=1e-6)
    # Means: sqrt 3 and 1/2 on the scale of the odds.
    average = [
        math.log(1 + 0.5 / 3) + math.log(1 + 1 / math.sqrt(3)),
        math.log(1 + 0.5) + math.log(1 + 0.25 / math.sqrt(3)),
    ]
    np.testing.assert_allclose(losses.relativistic_average.discriminator(real, fake), average, rtol=1e-6)
    np.testing.assert_allclose(losses.relativistic_average.generator(fake, real), average, rtol=1e-6)


def test_least_squares_by_hand() -> None:
    """Targets 1 and 0, each with the paper's factor 1/2."""
    real, fake = jnp.array([3.0, 1.0]), jnp.array([-2.0, 0.0])
    np.testing.assert_allclose(losses.least_squares.discriminator(real, fake), [(4 + 4) / 2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(losses.least_squares.generator(real, fake), [9 / 2, 1 / 2], rtol=1e-6)


def test_wasserstein_by_hand() -> None:
    real, fake = jnp.array([3.0, 1.0]), jnp.array([-2.0, 0.5])
    np.testing.assert_allclose(losses.wasserstein.discriminator(real, fake), [-5.0, -0.5], rtol=1e-6)
    np.testing.assert_allclose(losses.wasserstein.generator(real, fake), [2.0, -0.5], rtol=1e-6)


def test_hinge_by_hand() -> None:
    """Nothing is paid beyond the margin, 1 + |logit| on the wrong side."""
    real, fake = jnp.array([3.0, 0.25, -2.0]), jnp.array([-2.0, -0.5, 2.0])
    np.testing.assert_allclose(losses.hinge.discriminator(real, fake), [0.0, 0.75 + 0.5, 3.0 + 3.0], rtol=1e-6)
    np.testing.assert_allclose(losses.hinge.generator(real, fake), [2.0, 0.5, -2.0], rtol=1e-6)


def test_every_adversarial_loss_is_among_those_tested() -> None:
    assert set(ADVERSARIAL) == {
        "hinge", "least_squares", "minimax", "non_saturating", "relativistic", "relativistic_average", "wasserstein",
    }  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_adversarial_losses_push_the_logits_apart_and_together(name: str) -> None:
    """Discriminators raise real logits and lower fake ones, generators raise fake ones, where nothing is decided."""
    zero = jnp.zeros(4)
    of_real, of_fake = jax.grad(lambda r, f: PAIRS[name](r, f).sum(), argnums=(0, 1))(zero, zero)
    if name.endswith("discriminator"):
        assert (of_real < 0).all()
        assert (of_fake >= 0).all()
        assert (of_fake > 0).all() or name.startswith("least_squares")  # at 0, a fake is where it should be
    else:
        assert (of_fake < 0).all()


@pytest.mark.parametrize("name", PAIRS)
def test_adversarial_gradients(name: str) -> None:
    real, fake = jnp.array([0.3, -1.2, 2.0]), jnp.array([-0.7, 0.1, 1.5])
    check_grads(PAIRS[name], (real, fake), order=1, modes=("rev",), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", PAIRS)
def test_adversarial_losses_are_finite_at_extreme_logits(name: str, dtype: jnp.dtype) -> None:
    real, fake = (jnp.asarray(a.ravel(), dtype) for a in np.meshgrid(EXTREME, EXTREME))
    value, gradients = jax.value_and_grad(lambda r, f: PAIRS[name](r, f).sum(), argnums=(0, 1))(real, fake)
    assert jnp.isfinite(PAIRS[name](real, fake)).all()
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_a_trained_discriminator_approaches_the_optimal_one() -> None:
    """Between two known Gaussians, p_data / (p_data + p_g)."""
    discriminator = networks.MLPDiscriminator(hidden=(32, 32), activation=jnp.tanh)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 400))
    key = jax.random.key(0)
    params = discriminator.init(key, jnp.zeros((1, 1)), train=False)

    def logits(params: Any, x: jax.Array) -> Any:
        return discriminator.apply(params, x, train=True)

    def loss(params: Any, key: jax.Array) -> jax.Array:
        real, fake = jax.random.normal(key, (2, 512, 1))
        return losses.binary_discriminator_loss(logits(params, 1.0 + 0.7 * real), logits(params, fake - 0.5)).mean()

    def step(carry: Any, step: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, jax.random.fold_in(key, step)), state)
        return (optax.apply_updates(params, updates), state), None

    trained, _ = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(400))[0])((params, optimizer.init(params)))
    grid = jnp.linspace(-2.0, 2.5, 50)
    log_p_data, log_p_generator = norm.logpdf(grid, 1.0, 0.7), norm.logpdf(grid, -0.5, 1.0)
    optimal = jax.nn.sigmoid(losses.optimal_discriminator_logit(log_p_data, log_p_generator))
    learnt = jax.nn.sigmoid(logits(trained, grid[:, None]))
    np.testing.assert_allclose(learnt, optimal, atol=0.03)
    assert optimal.max() - optimal.min() > 0.8


def test_minimax_gradient_vanishes_where_non_saturating_does_not() -> None:
    sure = jnp.array([-20.0])  # the discriminator is certain that it is a fake
    minimax = jax.grad(lambda f: losses.minimax.generator(f, f).sum())(sure)
    non_saturating = jax.grad(lambda f: losses.non_saturating.generator(f, f).sum())(sure)
    assert abs(float(minimax[0])) < 1e-8
    np.testing.assert_allclose(non_saturating, [-1.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (jnp.zeros((3, 1)), jnp.zeros(3), "one logit per example"),
        (jnp.zeros(3), jnp.zeros(4), "one common shape"),
    ],
)
@pytest.mark.parametrize("name", PAIRS)
def test_adversarial_losses_refuse_wrong_shapes(name: str, real: jax.Array, fake: jax.Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PAIRS[name](real, fake)


@pytest.mark.parametrize("name", PAIRS)
def test_adversarial_losses_refuse_integers(name: str) -> None:
    with pytest.raises(TypeError, match="floating point"):
        PAIRS[name](jnp.zeros(3, jnp.int32), jnp.zeros(3))


def test_bernoulli_by_hand() -> None:
    logits = jnp.array([[math.log(3.0), 0.0], [-math.log(4.0), math.log(9.0)]])  # 3/4, 1/2; 1/5, 9/10
    x = jnp.array([[1.0, 0.0], [0.0, 0.5]])
    expected = [
        math.log(0.75) + math.log(0.5),
        math.log(0.8) + 0.5 * math.log(0.9) + 0.5 * math.log(0.1),
    ]
    np.testing.assert_allclose(losses.bernoulli.log_prob(logits, x), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.bernoulli.mean(logits), [[0.75, 0.5], [0.2, 0.9]], rtol=1e-6)


def test_gaussian_by_hand() -> None:
    mean, x = jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 1.0]])
    log_normalizer = math.log(0.5 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(losses.gaussian(scale=0.5).log_prob(mean, x), [-0.5 - 2 * log_normalizer], rtol=1e-6)


@pytest.mark.parametrize("likelihood", [losses.bernoulli, losses.gaussian(scale=0.3)])
def test_likelihoods_sum_over_pixels_and_keep_examples(likelihood: losses.Likelihood) -> None:
    parameters = jax.random.normal(jax.random.key(0), (5, 4, 4, 1))
    x = jax.random.uniform(jax.random.key(1), parameters.shape)
    log_prob = likelihood.log_prob(parameters, x)
    assert log_prob.shape == (5,)
    pixels = [
        likelihood.log_prob(parameters.reshape(5, 16)[:, i : i + 1], x.reshape(5, 16)[:, i : i + 1]) for i in range(16)
    ]
    np.testing.assert_allclose(log_prob, sum(pixels), rtol=1e-5)
    check_grads(lambda p: likelihood.log_prob(p, x), (parameters,), order=1, modes=("rev",), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("likelihood", [losses.bernoulli, losses.gaussian(scale=0.3)])
def test_likelihood_samples_have_the_mean(likelihood: losses.Likelihood) -> None:
    parameters = jnp.linspace(-1.0, 1.0, 5)[None]
    num = 20_000
    samples = likelihood.sample(jax.random.key(0), jnp.broadcast_to(parameters, (num, 5)))
    error = 4 * float(samples.std(0).max()) / math.sqrt(num)
    np.testing.assert_allclose(samples.mean(0), likelihood.mean(parameters)[0], atol=error)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_bernoulli_is_finite_at_extreme_logits(dtype: jnp.dtype) -> None:
    logits, x = (jnp.asarray(a.ravel(), dtype) for a in np.meshgrid(EXTREME, np.array([0.0, 0.5, 1.0], np.float32)))
    value, gradient = jax.value_and_grad(lambda p: losses.bernoulli.log_prob(p[None], x[None]).sum())(logits)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()


def test_gaussian_kl_by_hand() -> None:
    mean, logvar = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, math.log(4.0)]])
    np.testing.assert_allclose(losses.gaussian_kl(mean, logvar), [0.5 + (4 - 1 - math.log(4.0)) / 2], rtol=1e-6)
    np.testing.assert_allclose(losses.gaussian_kl(mean, logvar, jnp.array([1.0, 0.0])), [0.5], rtol=1e-6)
    assert float(losses.gaussian_kl(jnp.zeros((1, 7)), jnp.zeros((1, 7)))[0]) == 0.0


def test_gaussian_kl_agrees_with_its_expectation() -> None:
    mean, logvar = jnp.array([[0.7, -0.3]]), jnp.array([[0.4, -1.1]])
    std = jnp.exp(0.5 * logvar)
    num = 200_000
    noise = jax.random.normal(jax.random.key(0), (num, 2))
    z = mean + std * noise
    log_ratio = (-0.5 * noise**2 - jnp.log(std) + 0.5 * z**2).sum(1)  # log q(z) - log p(z)
    error = 4 * float(log_ratio.std()) / math.sqrt(num)
    np.testing.assert_allclose(losses.gaussian_kl(mean, logvar)[0], log_ratio.mean(), atol=error)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gaussian_kl_is_finite_and_pulls_back_at_extreme_log_variances(dtype: jnp.dtype) -> None:
    logvar = jnp.asarray([[-1e2, -50.0, 0.0, 50.0, 88.0, 1e2]], dtype)
    value, gradient = jax.value_and_grad(lambda v: losses.gaussian_kl(jnp.zeros_like(v), v).sum())(logvar)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    assert (jnp.sign(gradient[0]) == jnp.array([-1, -1, 0, 1, 1, 1])).all()


def test_gaussian_kl_gradient() -> None:
    mean, logvar = jnp.array([[0.7, -0.3]]), jnp.array([[0.4, -1.1]])
    check_grads(losses.gaussian_kl, (mean, logvar), order=2, modes=("rev",), atol=1e-2, rtol=1e-2)


def test_elbo_is_the_mean_log_weight_of_each_example() -> None:
    log_weights = jnp.array([[1.0, -2.0, 0.0], [3.0, -4.0, 0.0]])
    np.testing.assert_allclose(losses.elbo(log_weights), [2.0, -3.0, 0.0])
    with pytest.raises(ValueError, match=r"\[K, B\]"):
        losses.elbo(log_weights[0])


def test_equal_losses_are_equal_and_hashable() -> None:
    assert losses.gaussian(scale=0.5) == losses.gaussian(scale=0.5)
    assert hash(losses.bernoulli) == hash(losses.Bernoulli())
    with pytest.raises(ValueError, match="above 0"):
        losses.gaussian(scale=0.0)
