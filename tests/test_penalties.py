"""Gradient penalties against closed forms, finite differences, other layouts of the batch, and the Dirac-GAN."""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from jaxgen import losses
from jaxgen.keys import AxisName, example_keys
from jaxgen.parallel import value_and_averaged_gradient

BATCH, DEVICES = 8, 4
SHAPE = (2, 3, 1)
PENALTIES: dict[str, losses.Penalty] = {
    "gradient_penalty": losses.GradientPenalty(),
    "one_sided": losses.GradientPenalty(one_sided=True, target=0.1),
    "r1": losses.R1(),
    "r2": losses.R2(),
    "dragan": losses.DRAGAN(),
}


def linear(weights: jax.Array, x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1) @ weights.ravel()


def quadratic(curvature: float, x: jax.Array) -> jax.Array:
    """Its gradient is curvature * x."""
    return 0.5 * curvature * jnp.square(x.reshape(x.shape[0], -1)).sum(1)


def mlp(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.tanh(x.reshape(x.shape[0], -1) @ params["hidden"]) @ params["output"]


def mlp_params(key: jax.Array) -> dict[str, jax.Array]:
    hidden, output = jax.random.split(key)
    return {"hidden": jax.random.normal(hidden, (6, 5)), "output": jax.random.normal(output, (5,))}


def pair(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    real_key, fake_key = jax.random.split(key)
    return jax.random.uniform(real_key, (BATCH, *SHAPE)), jax.random.normal(fake_key, (BATCH, *SHAPE))


def norms(x: jax.Array) -> np.ndarray:
    return np.linalg.norm(np.asarray(x).reshape(x.shape[0], -1), axis=1)


@pytest.mark.parametrize("norm", [0.5, 3.0])
def test_penalties_of_a_linear_discriminator(norm: float, key: jax.Array) -> None:
    """Its gradient is the same everywhere."""
    weights = jax.random.normal(key, SHAPE)
    weights = norm * weights / jnp.linalg.norm(weights)
    expected = {
        "gradient_penalty": (norm - 1) ** 2,
        "one_sided": (norm - 0.1) ** 2,
        "r1": norm**2 / 2,
        "r2": norm**2 / 2,
        "dragan": (norm - 1) ** 2,
    }
    for name, penalty in PENALTIES.items():
        got = jax.jit(partial(penalty, partial(linear, weights)))(*pair(key), example_keys(key, BATCH))
        np.testing.assert_allclose(got, np.full(BATCH, expected[name]), rtol=1e-5, err_msg=name)


def test_only_the_two_sided_penalty_minds_a_small_gradient(key: jax.Array) -> None:
    weights = jnp.zeros(SHAPE).at[0, 0, 0].set(0.25)
    arguments = (partial(linear, weights), *pair(key), example_keys(key, BATCH))
    np.testing.assert_allclose(losses.GradientPenalty()(*arguments), np.full(BATCH, 0.75**2), rtol=1e-6)
    np.testing.assert_array_equal(losses.GradientPenalty(one_sided=True)(*arguments), np.zeros(BATCH))


def test_penalties_of_a_quadratic_discriminator(key: jax.Array) -> None:
    """Its gradient tells where the penalty looked."""
    real, fake = pair(key)
    discriminator, keys = partial(quadratic, 3.0), example_keys(key, BATCH)
    np.testing.assert_allclose(losses.R1()(discriminator, real, fake, keys), 4.5 * norms(real) ** 2, rtol=1e-5)
    np.testing.assert_allclose(losses.R2()(discriminator, real, fake, keys), 4.5 * norms(fake) ** 2, rtol=1e-5)
    between_equals = losses.GradientPenalty()(discriminator, real, real, keys)
    np.testing.assert_allclose(between_equals, (3 * norms(real) - 1) ** 2, rtol=1e-5)


def test_interpolates_are_uniform_between_real_and_fake(key: jax.Array) -> None:
    num = 2000
    real, keys = jnp.full((num, 2), jnp.array([3.0, 4.0])), example_keys(key, num)
    penalty = jax.jit(partial(losses.GradientPenalty(target=0.0), partial(quadratic, 1.0)))
    squared = penalty(real, jnp.zeros_like(real), keys)
    share = jnp.sqrt(squared) / 5.0
    assert 0 <= share.min() < 0.01
    assert 0.99 < share.max() <= 1
    np.testing.assert_allclose(share.mean(), 0.5, atol=4 / np.sqrt(12 * num))
    np.testing.assert_allclose(share.std(), 1 / np.sqrt(12), rtol=0.05)


def test_dragan_perturbs_by_a_share_of_the_standard_deviation(key: jax.Array) -> None:
    num, scale = 2000, 0.8
    real = 5.0 + jax.random.normal(key, (num, 1))
    penalty = jax.jit(partial(losses.DRAGAN(scale), partial(quadratic, 1.0)))(real, real, example_keys(key, num))
    noise = (1.0 + jnp.sqrt(penalty) - real[:, 0]) / (scale * real.std())
    assert -1e-4 <= noise.min() < 0.01
    assert 0.99 < noise.max() <= 1 + 1e-4
    np.testing.assert_allclose(noise.mean(), 0.5, atol=4 / np.sqrt(12 * num))


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_through_the_penalty(name: str, key: jax.Array) -> None:
    """Second order: the discriminator's parameters under the gradient by the images."""
    arguments = (*pair(key), example_keys(key, BATCH))

    def loss(params: Any) -> jax.Array:
        return PENALTIES[name](partial(mlp, params), *arguments)

    check_grads(jax.jit(loss), (mlp_params(key),), order=1, modes=("rev",), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_finite_at_a_zero_gradient_and_at_a_large_one(
    name: str, dtype: jnp.dtype, key: jax.Array
) -> None:
    real, fake = (images.astype(dtype) for images in pair(key))

    def total(weights: jax.Array) -> jax.Array:
        penalty = PENALTIES[name](partial(linear, weights), real, fake, example_keys(key, BATCH))
        assert penalty.dtype == jnp.float32
        return penalty.sum()

    for weights in (jnp.zeros(SHAPE, dtype), jnp.full(SHAPE, 1e4, dtype)):
        value, gradient = jax.value_and_grad(total)(weights)
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()


def test_a_spread_of_zero_is_no_perturbation(key: jax.Array) -> None:
    real = jnp.full((BATCH, *SHAPE), 0.25)
    penalty = losses.DRAGAN()(partial(quadratic, 1.0), real, real, example_keys(key, BATCH))
    np.testing.assert_allclose(penalty, (norms(real) - 1) ** 2, rtol=1e-6)


def shard_mapped(function: Callable[..., Any]) -> Callable[..., Any]:
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:DEVICES])
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=(P(), P("data"), P("data"), P()), out_specs=P()))


def vmapped(function: Callable[..., Any]) -> Callable[..., Any]:
    mapped = jax.vmap(function, axis_name="data", in_axes=(None, 0, 0, None), out_axes=None)

    def split(images: jax.Array) -> jax.Array:
        return images.reshape(DEVICES, -1, *SHAPE)

    return jax.jit(lambda params, real, fake, key: mapped(params, split(real), split(fake), key))


@pytest.mark.parametrize("name", ["gradient_penalty", "r1", "dragan"])
@pytest.mark.parametrize("layout", [shard_mapped, vmapped])
def test_penalties_do_not_depend_on_the_layout_of_the_batch(
    layout: Callable[..., Any], name: str, key: jax.Array
) -> None:
    """DRAGAN's standard deviation is the global batch's, random numbers are each example's."""

    def gradient(
        params: Any, real: jax.Array, fake: jax.Array, key: jax.Array, axis_name: AxisName = None
    ) -> tuple[jax.Array, Any]:
        keys = example_keys(key, real.shape[0], axis_name)

        def loss(params: Any) -> tuple[jax.Array, None]:
            return PENALTIES[name](partial(mlp, params), real, fake, keys, axis_name).mean(), None

        (value, _), gradient = value_and_averaged_gradient(loss, params, axis_name)
        return (value if axis_name is None else jax.lax.pmean(value, axis_name)), gradient

    real, fake = pair(key)
    real = real * jnp.linspace(0.1, 3.0, BATCH).reshape(-1, 1, 1, 1)  # the parts differ in their spread
    arguments = (mlp_params(key), real, fake, key)
    got = layout(partial(gradient, axis_name="data"))(*arguments)
    chex.assert_trees_all_close(got, jax.jit(gradient)(*arguments), rtol=1e-4, atol=1e-5)


def test_bad_penalties_are_refused(key: jax.Array) -> None:
    with pytest.raises(ValueError, match=r"GradientPenalty.target must be at least 0, got -1"):
        losses.GradientPenalty(target=-1.0)
    with pytest.raises(ValueError, match=r"GradientPenalty.target"):
        losses.GradientPenalty(target=float("nan"))
    with pytest.raises(TypeError, match=r"GradientPenalty.one_sided must be True or False, got 1.0"):
        losses.GradientPenalty(1.0)  # type: ignore[arg-type]
    for scale in (0.0, -0.5, float("inf")):
        with pytest.raises(ValueError, match=r"DRAGAN.scale must be (above 0|finite), "):
            losses.DRAGAN(scale)


@pytest.mark.parametrize("name", PENALTIES)
def test_bad_arguments_are_refused(name: str, key: jax.Array) -> None:
    (real, fake), keys = pair(key), example_keys(key, BATCH)
    penalty = PENALTIES[name]
    with pytest.raises(ValueError, match="one common shape"):
        penalty(partial(quadratic, 1.0), real, fake[1:], keys)
    with pytest.raises(TypeError, match="floating point"):
        penalty(partial(quadratic, 1.0), real.astype(jnp.int32), fake.astype(jnp.int32), keys)
    with pytest.raises(ValueError, match=r"one logit per image, \[8\], got \[8, 1\]"):
        penalty(lambda x: quadratic(1.0, x)[:, None], real, fake, keys)
    if name not in ("r1", "r2"):
        with pytest.raises(ValueError, match="one typed key per image"):
            penalty(partial(quadratic, 1.0), real, fake, keys[1:])


def test_equal_penalties_are_equal_and_hashable() -> None:
    assert losses.GradientPenalty() == losses.GradientPenalty(False, 1.0)
    assert hash(losses.DRAGAN(0.25)) == hash(losses.DRAGAN(0.25))
    assert losses.R1() == losses.R1()
    assert losses.R1() != losses.R2()


def dirac_gan(loss: losses.AdversarialLoss, gamma: float, alternating: bool, steps: int = 2000) -> np.ndarray:
    """Distances to the equilibrium of the Dirac-GAN under gradient descent.

    The data is at 0, the generator at theta, the discriminator is D(x) = psi x; the equilibrium is (0, 0).

    References:
      Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?", section 2.
    """
    rate, data = 0.1, jnp.zeros((1, 1))
    keys = example_keys(jax.random.key(0), 1)

    def discriminator_loss(psi: jax.Array, theta: jax.Array) -> jax.Array:
        discriminator, fake = partial(linear, psi), theta.reshape(1, 1)
        penalty = losses.R1()(discriminator, data, fake, keys)
        return (loss.discriminator(discriminator(data), discriminator(fake)) + gamma * penalty).mean()

    def generator_loss(theta: jax.Array, psi: jax.Array) -> jax.Array:
        discriminator = partial(linear, psi)
        return loss.generator(discriminator(data), discriminator(theta.reshape(1, 1))).mean()

    def step(players: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        psi, theta = players
        updated = psi - rate * jax.grad(discriminator_loss)(psi, theta)
        theta = theta - rate * jax.grad(generator_loss)(theta, updated if alternating else psi)
        return (updated, theta), jnp.hypot(updated, theta)[0]

    start = (jnp.array([0.1]), jnp.array([0.1]))
    return np.asarray(jax.jit(lambda: jax.lax.scan(step, start, None, steps)[1])())


@pytest.mark.parametrize("name", ["minimax", "non_saturating", "wasserstein"])
def test_the_dirac_gan_does_not_converge_without_a_penalty(name: str) -> None:
    loss, start = getattr(losses, name), np.hypot(0.1, 0.1)
    simultaneous = dirac_gan(loss, 0.0, alternating=False)
    assert simultaneous[-1] > simultaneous[1000] > 1.2 * start  # away, a little every round
    alternating = dirac_gan(loss, 0.0, alternating=True)
    if name == "non_saturating":
        # In continuous time d r^2 / dt = -2 psi theta tanh(psi theta / 2), -r^4 / 8 over a round: it does converge, but
        # only as r^-2 = r_0^-2 + t / 8, no faster than 1 / sqrt(t).
        np.testing.assert_allclose(alternating[-200:].mean(), (start**-2 + 195.0 / 8) ** -0.5, rtol=0.05)
    else:
        assert alternating[-200:].mean() > 0.95 * start  # around and around


@pytest.mark.parametrize("alternating", [False, True], ids=["simultaneous", "alternating"])
@pytest.mark.parametrize("name", ["minimax", "non_saturating", "wasserstein"])
def test_the_dirac_gan_converges_with_r1(name: str, alternating: bool) -> None:
    distances = dirac_gan(getattr(losses, name), 1.0, alternating)
    assert distances[-1] < 1e-6 * np.hypot(0.1, 0.1)
