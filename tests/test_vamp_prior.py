"""A learnt prior, the mixture of pseudo-inputs' posteriors: against closed forms, and wherever a prior is used."""

import dataclasses
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxgen
from jaxgen import losses, networks
from jaxgen.cli.vae_options import MLPVAEOptions
from jaxgen.keys import named_key
from jaxgen.trained import Trained
from jaxgen.training import manifest, run
from jaxgen.vae.passes import noise_of
from tests import models
from tests.test_vae_oracles import SCALE, data, dense, linear_vae, log_normal

LOGVAR = np.array([-0.6, 0.4])


def linear(key: jax.Array, num: int, **fields: Any) -> tuple[jaxgen.VAE, Any]:
    """Affine encoder and decoder of vectors of 5, posterior variances exp(LOGVAR), any number of pseudo-inputs."""
    vae = linear_vae(prior=networks.VampPrior((5,), num, mean=1.0, std=1.0, bounds=None), **fields)
    state = jaxgen.vae_init(vae, key, {"image": data(2)})
    # Small enough for the posteriors to overlap each other and the true one.
    for network, layer, scale in (("encoder", "mean", 0.3), ("decoder", "Dense_0", 0.2)):
        state.params[network][layer]["kernel"] *= scale
    state.params["encoder"]["logvar"] = jnp.asarray(LOGVAR, jnp.float32)
    return vae, state


def components(state: Any) -> np.ndarray:
    """Means of the components of a linear VAE's prior, [K, 2]."""
    w, bias = dense(state.params["encoder"]["mean"])
    return np.asarray(state.params["prior"]["pseudo_inputs"], np.float64) @ w.T + bias


def log_marginal(state: Any, x: np.ndarray) -> np.ndarray:
    """log p(x) of a linear VAE: a mixture of as many Gaussians as there are pseudo-inputs."""
    w, bias = dense(state.params["decoder"]["Dense_0"])
    covariance = w @ np.diag(np.exp(LOGVAR)) @ w.T + SCALE**2 * np.eye(5)
    each = [log_normal(x, w @ mean + bias, covariance) for mean in components(state)]
    return np.logaddexp.reduce(each, axis=0) - math.log(len(each))


def test_one_pseudo_input_is_a_gaussian_prior(key: jax.Array) -> None:
    """KL(N(m, S) || N(m_u, S)) = sum_d (m - m_u)_d^2 / (2 S_d): the sampled KL's mean, and none where x is u."""
    vae, state = linear(key, 1)
    x = data(6)
    x[0] = np.asarray(state.params["prior"]["pseudo_inputs"])[0]
    w, bias = dense(state.params["encoder"]["mean"])
    expected = ((x @ w.T + bias - components(state)) ** 2 / np.exp(LOGVAR) / 2).sum(1)
    found = jaxgen.vae_evaluate(vae, state, {"image": x}, key, num_samples=4000)
    # Its variance over samples is twice itself.
    assert (np.abs(found["kl"] - expected) < 4 * np.sqrt(2 * expected / 4000) + 1e-4).all()
    assert expected.max() > 0.3
    np.testing.assert_allclose(found["elbo"], found["reconstruction"] - found["kl"], rtol=1e-5)


@pytest.mark.parametrize("num", [1, 3])
def test_the_likelihood_is_that_of_the_mixture(num: int, key: jax.Array) -> None:
    vae, state = linear(key, num)
    x = np.asarray(jaxgen.vae_sample(vae, state, key, 8)) + 0.3 * data(8)
    found = jaxgen.vae_importance_sampling(vae, state, {"image": x}, key, 4000, chunk_size=500)
    assert (np.asarray(found.standard_error) < 0.1).all()
    np.testing.assert_array_less(np.abs(found.log_likelihood - log_marginal(state, x)), 4 * found.standard_error)


@pytest.mark.parametrize("covariance", ["diagonal", "rank_one"])
def test_the_kl_is_that_of_the_samples(covariance: Any, key: jax.Array) -> None:
    """log q(z | x) - log (1/K) sum_k q(z | u_k), by densities in double precision."""
    vae = dataclasses.replace(
        models.vamp_vae(), encoder=networks.MLPEncoder(models.LATENT_DIM, hidden=(8,), covariance=covariance)
    )
    state, batch = models.init(vae, key), {"image": models.batch(4)["image"]}
    noise = noise_of(vae, named_key(key, "vae evaluate"), "noise", 4, 1)[0][:, 0]
    z = np.asarray(losses.LatentGaussian(*jaxgen.vae_encode(vae, state, batch)).sample(noise))

    def densities(images: Any) -> np.ndarray:
        mean, logvar, *direction = (np.asarray(a, np.float64) for a in jaxgen.vae_encode(vae, state, {"image": images}))
        u = direction[0] if direction else np.zeros_like(mean)
        precisions = [np.diag(np.exp(-v)) + np.outer(d, d) for v, d in zip(logvar, u, strict=True)]
        return np.stack([log_normal(z, m, np.linalg.inv(p)) for m, p in zip(mean, precisions, strict=True)])

    pseudo_inputs = jnp.clip(state.params["prior"]["pseudo_inputs"], 0.0, 1.0)
    log_p = np.logaddexp.reduce(densities(pseudo_inputs)) - math.log(5)
    expected = np.diagonal(densities(batch["image"])) - log_p
    np.testing.assert_allclose(jaxgen.vae_evaluate(vae, state, batch, key)["kl"], expected, rtol=1e-4, atol=1e-5)
    _, metrics = jaxgen.vae_step(vae, state, batch, key)  # `elbo`, with no closed form to use
    np.testing.assert_allclose(metrics["loss"], metrics["kl"] - metrics["reconstruction"], rtol=1e-6)


def gradient(vae: jaxgen.VAE, state: Any, key: jax.Array) -> dict[str, Any]:
    batch = {"image": models.batch(6)["image"]}
    return jax.jit(jax.grad(lambda params: jaxgen.vae_loss(vae, params, state, batch, key)[0]))(state.params)


def test_gradients_reach_the_pseudo_inputs(key: jax.Array) -> None:
    vae = models.vamp_vae(beta=0.5)
    state = models.init(vae, key)
    values = state.params["prior"]["pseudo_inputs"].at[0].set(-0.1)  # out of their bounds
    state.params["prior"]["pseudo_inputs"] = values
    found = gradient(vae, state, key)["prior"]["pseudo_inputs"]
    np.testing.assert_array_equal(found[0], 0.0)
    assert (jnp.abs(found[1:]).max(axis=(1, 2, 3)) > 1e-4).all()

    @jax.jit
    def loss(values: jax.Array) -> jax.Array:
        params = {**state.params, "prior": {"pseudo_inputs": values}}
        return jaxgen.vae_loss(vae, params, state, {"image": models.batch(6)["image"]}, key)[0]

    direction = found / jnp.linalg.norm(found)
    slope = (loss(values + 1e-2 * direction) - loss(values - 1e-2 * direction)) / 2e-2
    np.testing.assert_allclose(jnp.linalg.norm(found), slope, rtol=2e-2)
    new, _ = jaxgen.vae_step(vae, state, models.batch(6), key)
    np.testing.assert_allclose(new.params["prior"]["pseudo_inputs"], values - 0.01 * found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("stopped", "plain"), [("stl", "sampled_elbo"), ("dreg", "iwae")])
def test_path_gradients_leave_the_priors_gradient_whole(stopped: str, plain: str, key: jax.Array) -> None:
    """What they leave out is the posterior's own score: the prior moves pseudo-inputs as it does without them."""
    found = []
    for name in (stopped, plain):
        vae = models.vamp_vae(objective=getattr(losses, name), num_samples=3)
        found.append(gradient(vae, models.init(vae, key), key))
    assert np.abs(found[0]["prior"]["pseudo_inputs"]).max() > 1e-4
    for part in ("prior", "decoder"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found[0][part], found[1][part]
        )
    kernels = [tree["encoder"]["mean"]["kernel"] for tree in found]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_samples_come_from_the_mixture(key: jax.Array) -> None:
    """Of three narrow components far apart, each a third; the moments of each are its own."""
    vae, state = linear(key, 3)
    state.params["encoder"]["logvar"] = jnp.array([-4.0, -2.0])
    state.params["prior"]["pseudo_inputs"] = state.params["prior"]["pseudo_inputs"] * 20.0
    w, bias = dense(state.params["decoder"]["Dense_0"])
    images = np.asarray(jaxgen.vae_sample(vae, state, key, 3000), np.float64)
    z = np.linalg.lstsq(w, (images - bias).T, rcond=None)[0].T
    means = components(state)
    nearest = np.argmin(((z[:, None] - means[None]) ** 2).sum(-1), axis=1)
    for k, mean in enumerate(means):
        own = z[nearest == k]
        assert abs(len(own) - 1000) < 4 * math.sqrt(3000 * 2 / 9)
        np.testing.assert_allclose(own.mean(0), mean, atol=4 * math.exp(-1.0) / math.sqrt(1000) + 1e-3)
        np.testing.assert_allclose(own.std(0), [math.exp(-2.0), math.exp(-1.0)], rtol=0.1)
    np.testing.assert_allclose(jaxgen.vae_sample(vae, state, key, 5), images[:5], rtol=1e-5, atol=1e-5)
    model = Trained("linear", vae, state, (5,), "float32")
    np.testing.assert_allclose(model.sample(key, 7), images[:7], rtol=1e-5, atol=1e-5)
    x = data(3)
    z_mean = model.encode(x)
    np.testing.assert_array_equal(z_mean, jaxgen.vae_encode(vae, state, {"image": x})[0])
    np.testing.assert_allclose(model.decode(z_mean), np.asarray(z_mean, np.float64) @ w.T + bias, rtol=1e-4, atol=1e-5)


def test_masked_latents_neither_act_nor_count(key: jax.Array) -> None:
    """With the second of two latents masked, the likelihood is that of the mixture of the first alone."""
    vae, state = linear(key, 2)
    state = state._replace(hyperparams={**state.hyperparams, "latent_mask": jnp.array([1.0, 0.0])})
    x = data(5)
    w, bias = dense(state.params["decoder"]["Dense_0"])
    covariance = math.exp(LOGVAR[0]) * np.outer(w[:, 0], w[:, 0]) + SCALE**2 * np.eye(5)
    each = [log_normal(x, w[:, 0] * mean[0] + bias, covariance) for mean in components(state)]
    found = jaxgen.vae_importance_sampling(vae, state, {"image": x}, key, 4000, chunk_size=1000)
    assert (np.asarray(found.standard_error) < 0.1).all()
    expected = np.logaddexp.reduce(each) - math.log(2)
    np.testing.assert_array_less(np.abs(found.log_likelihood - expected), 4 * found.standard_error)


class Normalized(nn.Module):
    """An encoder with BatchNorm."""

    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, label: Any = None, *, train: bool) -> Any:
        x = networks.BatchNorm(self.axis_name)(nn.Dense(8, use_bias=False)(x.reshape(x.shape[0], -1)), train=train)
        return nn.Dense(models.LATENT_DIM)(x), nn.Dense(models.LATENT_DIM)(x)


def test_the_prior_sees_running_statistics_while_training(key: jax.Array) -> None:
    """BatchNorm normalises pseudo-inputs as it does in evaluation, and images alone move its averages."""
    prior = networks.VampPrior(models.IMAGE_SHAPE, 2)
    vae = dataclasses.replace(models.vae(), encoder=Normalized(), prior=prior)
    state, batch = models.init(vae, key), models.batch()
    new, _ = jaxgen.vae_step(vae, state, batch, key)
    (mean,) = (leaf for path, leaf in manifest.paths(new.collections["encoder"]).items() if path.endswith("mean"))
    kernel = state.params["encoder"]["Dense_0"]["kernel"]
    hidden = (batch["image"].reshape(16, -1) / 255.0) @ np.asarray(kernel)
    np.testing.assert_allclose(mean, 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-6)
    assert models.finite(new)


def test_what_takes_standard_normal_latents_is_refused(key: jax.Array) -> None:
    vae = models.vamp_vae()
    state, batch = models.init(vae, key), models.batch(2)
    noise = jnp.zeros((2, models.LATENT_DIM))
    model = Trained("learnt", vae, state, models.IMAGE_SHAPE, "uint8")
    for call in (
        lambda: jaxgen.vae_decode_noise(vae, state, noise),
        lambda: jaxgen.vae_encode_noise(vae, state, batch),
        lambda: jaxgen.vae_simulate(vae, state, key, 2),
        lambda: jaxgen.vae_annealed_log_likelihood(vae, state, batch, key, num_temperatures=2),
        lambda: jaxgen.vae_latent_kl(vae, state, batch, key),
        lambda: model.invert(batch["image"], key),
        lambda: model.complete(batch["image"], np.ones((4, 4), bool), key),
    ):
        with pytest.raises(ValueError, match=r"standard normal prior, this one's is learnt \(VampPrior\): use vae_"):
            call()


def test_bad_priors_are_refused(key: jax.Array) -> None:
    vae, prior = models.vae(), networks.VampPrior(models.IMAGE_SHAPE, 2)
    with pytest.raises(TypeError, match="network of pseudo-inputs, got int"):
        dataclasses.replace(vae, prior=3)
    with pytest.raises(ValueError, match="one stochastic layer, whose encoder takes pseudo-inputs, got 2 layers"):
        models.dlgm(free_bits=None, prior=prior)
    with pytest.raises(ValueError, match="free_bits does not go with a learnt prior"):
        dataclasses.replace(vae, prior=prior, free_bits=0.1)
    with pytest.raises(ValueError, match="networks without labels"):
        dataclasses.replace(models.conv_vae(), prior=prior)
    with pytest.raises(ValueError, match=r"shape of images, \[4, 4, 1\], got \[5, 4, 1\]"):
        models.init(dataclasses.replace(vae, prior=networks.VampPrior((5, 4, 1))), key)
    with pytest.raises(ValueError, match="num_pseudo_inputs must be at least 1, got 0"):
        models.init(dataclasses.replace(vae, prior=networks.VampPrior(models.IMAGE_SHAPE, 0)), key)
    with pytest.raises(ValueError, match="must be within their bounds"):
        models.init(dataclasses.replace(vae, prior=networks.VampPrior(models.IMAGE_SHAPE, mean=-0.05)), key)


def test_the_identity_of_older_runs_is_what_it_was() -> None:
    """A config from before there were priors, gates and bounds: it makes an equal spec, and no difference is found."""
    adam = run.optimizer("adam", learning_rate=1e-3)
    encoder, decoder = networks.MLPEncoder(3, hidden=(16,)), networks.MLPDecoder(models.IMAGE_SHAPE, hidden=(16,))
    spec = jaxgen.VAE(encoder, decoder, adam, 3)
    now = json.loads(json.dumps(run.to_plain(spec)))
    old = json.loads(json.dumps(now))
    del (
        old["prior"],
        old["encoder"]["initialization"],
        old["encoder"]["logvar_bounds"],
        old["decoder"]["initialization"],
    )
    assert run.from_plain(old) == spec
    assert run.differences(old, now) == []
    learnt = dataclasses.replace(spec, prior=networks.VampPrior(models.IMAGE_SHAPE, 2))
    assert run.from_plain(json.loads(json.dumps(run.to_plain(learnt)))) == learnt
    assert len(run.differences(old, run.to_plain(learnt))) == 1


def test_gated_layers_bounds_and_initialisation(key: jax.Array) -> None:
    x = jax.random.normal(key, (400, 50))
    encoder = networks.MLPEncoder(
        200, hidden=(300,), activation=nn.glu, initialization="he", logvar_bounds=(-0.5, 0.25)
    )
    params: Any = encoder.init(key, x, train=False)["params"]
    made: Any = encoder.apply({"params": params}, x, train=False)
    mean, logvar = made
    layer = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["hidden_layers"]["Dense_0"])
    assert layer["kernel"].shape == (50, 600)
    h, g = np.split(np.asarray(x, np.float64) @ layer["kernel"] + layer["bias"], 2, axis=1)
    hidden = h / (1 + np.exp(-g))
    np.testing.assert_allclose(mean, hidden @ np.asarray(params["mean"]["kernel"], np.float64), rtol=1e-3, atol=1e-4)
    raw = hidden @ np.asarray(params["logvar"]["kernel"], np.float64)
    np.testing.assert_allclose(logvar, np.clip(raw, -0.5, 0.25), rtol=1e-3, atol=1e-4)
    assert raw.min() < -0.5
    assert raw.max() > 0.25
    for kernel, inputs in ((layer["kernel"], 50), (params["mean"]["kernel"], 300)):
        np.testing.assert_allclose(np.std(kernel), math.sqrt(2 / inputs), rtol=0.02)
    narrow: Any = networks.MLPDecoder((200,), (300,), initialization="pytorch").init(key, x, train=False)["params"]
    for kernel, inputs in ((narrow["hidden_layers"]["Dense_0"]["kernel"], 50), (narrow["output"]["kernel"], 300)):
        np.testing.assert_allclose(np.std(kernel), math.sqrt(1 / (3 * inputs)), rtol=0.02)
        np.testing.assert_allclose(np.max(np.abs(kernel)), math.sqrt(1 / inputs), rtol=1e-2)
    with pytest.raises(ValueError, match=r"initialization must be None, .*, got 'xavier'"):
        networks.MLPDecoder((5,), initialization="xavier").init(key, x, train=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1e-5, 1e-2])
def test_rmsprop_is_that_of_the_card(size: float) -> None:
    """PyTorch's: v = 0.99 v + 0.01 g^2, step lr g / (sqrt(v) + 1e-8); 1e-8 under the root stops small gradients."""
    options = MLPVAEOptions(optimizer="rmsprop", learning_rate=1e-4, hidden=(8,))
    optimizer = options.spec(models.IMAGE_SHAPE).optimizer
    params = {"w": jnp.zeros(3)}
    state, second = optimizer.init(params), 0.0
    for g in (size, -2.0 * size):
        updates, state = optimizer.update({"w": jnp.full(3, g)}, state, params)
        params = optax.apply_updates(params, updates)
        second = 0.99 * second + 0.01 * g**2
        expected = -1e-4 * g / (math.sqrt(second) + 1e-8)
        np.testing.assert_allclose(updates["w"], expected, rtol=0.02)
