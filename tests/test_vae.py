"""The VAE's contracts: state, step, losses, and what a trained one does."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxgen
from jaxgen import losses, networks
from tests import models


def test_state_holds_arrays_only_and_counts(key: jax.Array) -> None:
    vae = models.vae()
    state = models.init(vae, key)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state))
    assert state.step.dtype == jnp.int32
    assert {name: (v.shape, v.dtype) for name, v in state.hyperparams.items()} == {
        "beta": ((), jnp.float32),
        "latent_mask": ((models.LATENT_DIM,), jnp.float32),
    }
    state, metrics = jaxgen.vae_step(vae, state, models.batch(), key)
    assert int(state.step) == 1
    assert set(metrics) == {"loss", "elbo", "reconstruction", "kl"}
    assert all(value.shape == () and value.dtype == jnp.float32 for value in metrics.values())


def test_metrics_add_up_and_are_of_the_parameters_given(key: jax.Array) -> None:
    vae = models.vae(beta=3.0)
    state = models.init(vae, key)
    _, metrics = jaxgen.vae_step(vae, state, models.batch(), key)
    np.testing.assert_allclose(metrics["elbo"], metrics["reconstruction"] - metrics["kl"], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], 3.0 * metrics["kl"] - metrics["reconstruction"], rtol=1e-6)
    loss, (again, _) = jaxgen.vae_loss(vae, state.params, state, models.batch(), key)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(metrics["kl"], again["kl"], rtol=1e-6)
    mean, logvar = jaxgen.vae_encode(vae, state, models.batch())
    np.testing.assert_allclose(metrics["kl"], losses.gaussian_kl(mean, logvar).mean(), rtol=1e-5)


def test_the_step_is_gradient_descent_on_the_loss(key: jax.Array) -> None:
    vae = models.vae(optimizer=optax.sgd(0.1))
    state = models.init(vae, key)
    new, _ = jaxgen.vae_step(vae, state, models.batch(), key)
    gradient = jax.grad(lambda p: jaxgen.vae_loss(vae, p, state, models.batch(), key)[0])(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, gradient)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), new.params, expected)


def test_training_raises_the_elbo(key: jax.Array) -> None:
    vae = models.vae(optimizer=optax.adam(1e-2))
    state = models.init(vae, key)
    batch = {"image": np.repeat([False, True], 8)[:, None, None, None] & np.ones(models.IMAGE_SHAPE, bool)}
    for _ in range(300):
        state, _ = jaxgen.vae_step(vae, state, batch, key)
    # Black and white images hold log 2 nats each, which no bound exceeds; not knowing them costs 16 log 2 = 11.1.
    elbo = float(jaxgen.vae_evaluate(vae, state, batch, key, num_samples=100)["elbo"].mean())
    assert -2.0 < elbo < -np.log(2)


def test_the_same_key_gives_fresh_noise_every_step_and_the_same_bits_again(key: jax.Array) -> None:
    vae = models.vae(optimizer=optax.sgd(0.0))  # nothing but the noise changes
    state, batch = models.init(vae, key), models.batch()
    seen = []
    for _ in range(2):
        run = state
        values = []
        for _ in range(3):
            run, metrics = jaxgen.vae_step(vae, run, batch, key)
            values.append(float(metrics["reconstruction"]))
        seen.append(values)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 3


def test_uint8_bool_and_float_images_mean_the_same(key: jax.Array) -> None:
    vae = models.vae()
    state = models.init(vae, key)
    bits = np.random.default_rng(0).integers(0, 2, (8, *models.IMAGE_SHAPE))
    images = [(bits * 255).astype(np.uint8), bits.astype(bool), bits.astype(np.float32)]
    elbos = [jaxgen.vae_evaluate(vae, state, {"image": i}, key)["elbo"] for i in images]
    np.testing.assert_array_equal(elbos[0], elbos[1])
    np.testing.assert_array_equal(elbos[0], elbos[2])


def test_samples_decodings_and_reconstructions(key: jax.Array) -> None:
    vae = models.vae()
    state = models.init(vae, key)
    samples = jaxgen.vae_sample(vae, state, key, 5)
    assert samples.shape == (5, *models.IMAGE_SHAPE)
    assert 0.0 <= float(samples.min()) <= float(samples.max()) <= 1.0
    np.testing.assert_array_equal(jaxgen.vae_sample(vae, state, key, 3), samples[:3])
    assert jaxgen.vae_decode(vae, state, jnp.zeros((2, models.LATENT_DIM))).shape == (2, *models.IMAGE_SHAPE)
    assert jaxgen.vae_reconstruct(vae, state, models.batch(7), key).shape == (7, *models.IMAGE_SHAPE)
    mean, logvar = jaxgen.vae_encode(vae, state, models.batch(7))
    assert mean.shape == logvar.shape == (7, models.LATENT_DIM)


def test_more_latent_samples_estimate_the_same_elbo_with_less_noise(key: jax.Array) -> None:
    vae = models.vae()
    state, batch = models.init(vae, key), models.batch(4)
    estimate = jax.jit(
        lambda k, num: jaxgen.vae_evaluate(vae, state, {"image": batch["image"]}, k, num)["elbo"],
        static_argnums=1,
    )
    keys = jax.random.split(key, 300)
    few, many = (np.stack([estimate(k, num) for k in keys]) for num in (1, 16))
    assert (many.std(0) < 0.5 * few.std(0)).all()
    error = 4 * few.std(0) / np.sqrt(len(keys))
    assert (np.abs(few.mean(0) - many.mean(0)) < error * 1.1).all()


def test_schedules_are_written_and_numbers_are_left_to_the_caller(key: jax.Array) -> None:
    scheduled = models.vae(beta=optax.linear_schedule(0.0, 1.0, 4))
    state = models.init(scheduled, key)
    seen = []
    for _ in range(3):
        state, _ = jaxgen.vae_step(scheduled, state, models.batch(), key)
        seen.append(float(state.hyperparams["beta"]))
    assert seen == [0.0, 0.25, 0.5]
    fixed = models.vae(beta=2.0)
    state = models.init(fixed, key)
    state = state._replace(hyperparams={**state.hyperparams, "beta": jnp.float32(5.0)})
    state, metrics = jaxgen.vae_step(fixed, state, models.batch(), key)
    assert float(state.hyperparams["beta"]) == 5.0
    np.testing.assert_allclose(metrics["loss"], 5.0 * metrics["kl"] - metrics["reconstruction"], rtol=1e-6)


def test_masked_latents_do_not_count(key: jax.Array) -> None:
    vae = models.vae()
    state = models.init(vae, key)
    masked = state._replace(hyperparams={**state.hyperparams, "latent_mask": jnp.array([1.0, 0.0, 0.0])})
    z = jax.random.normal(key, (4, 3))
    np.testing.assert_array_equal(
        jaxgen.vae_decode(vae, masked, z), jaxgen.vae_decode(vae, masked, z * jnp.array([[1.0, 0.0, 0.0]]))
    )
    mean, logvar = jaxgen.vae_encode(vae, masked, models.batch())
    kl = losses.gaussian_kl(mean[:, :1], logvar[:, :1])
    np.testing.assert_allclose(jaxgen.vae_evaluate(vae, masked, models.batch(), key)["kl"], kl, rtol=1e-5)


def test_vectors_are_data_as_well(key: jax.Array) -> None:
    vae = jaxgen.VAE(
        networks.MLPEncoder(2, hidden=(8,)),
        networks.MLPDecoder((5,), hidden=(8,)),
        optax.adam(1e-3),
        latent_dim=2,
        likelihood=losses.gaussian(scale=0.5),
    )
    batch = {"image": np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)}
    state = jaxgen.vae_init(vae, key, batch)
    state, metrics = jaxgen.vae_step(vae, state, batch, key)
    assert models.finite((state, metrics))
    assert jaxgen.vae_sample(vae, state, key, 3).shape == (3, 5)


class ConstantEncoder:
    """An encoder without parameters that always answers with one mean and log-variance."""

    def __init__(self, logvar: float) -> None:
        self.logvar = logvar

    def init(self, rngs: Any, x: jax.Array, label: Any = None, *, train: bool) -> dict[str, Any]:
        return {}

    def apply(self, variables: Any, x: jax.Array, label: Any = None, *, train: bool, **_: Any) -> Any:
        answer = (
            jnp.zeros((x.shape[0], models.LATENT_DIM)),
            jnp.full((x.shape[0], models.LATENT_DIM), self.logvar),
        )
        return (answer, {}) if "mutable" in _ else answer


@pytest.mark.parametrize("logvar", [-1e2, 1e2])
def test_steps_stay_finite_at_extreme_log_variances(logvar: float, key: jax.Array) -> None:
    vae = jaxgen.VAE(
        ConstantEncoder(logvar),
        networks.MLPDecoder(models.IMAGE_SHAPE, hidden=(16,)),
        optax.sgd(1e-30),
        latent_dim=models.LATENT_DIM,
    )
    state = models.init(vae, key)
    state, metrics = jaxgen.vae_step(vae, state, models.batch(), key)
    assert models.finite((state, metrics))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_initialisation_is_finite_on_constant_images(value: float, key: jax.Array) -> None:
    vae = models.vae(optimizer=optax.adam(1e-3))
    batch = {"image": np.full((4, *models.IMAGE_SHAPE), value, np.float32)}
    state = jaxgen.vae_init(vae, key, batch)
    state, metrics = jaxgen.vae_step(vae, state, batch, key)
    assert models.finite((state, metrics))


BAD_CALLS: dict[str, tuple[type[Exception], str, Any]] = {
    "raw key": (TypeError, r"typed JAX key, got uint32\[2\]", {"key": jax.random.PRNGKey(0)}),
    "rbg key": (TypeError, "threefry2x32", {"key": jax.random.key(0, impl="rbg")}),
    "many keys": (TypeError, "one key", {"key": jax.random.split(jax.random.key(0), 3)}),
    "integer key": (TypeError, "typed JAX key", {"key": 0}),
    "array for a batch": (TypeError, "must be a mapping", {"batch": np.zeros((4, 4, 4, 1), np.uint8)}),
    "no image": (KeyError, r"got the keys \['img'\]", {"batch": {"img": np.zeros((4, 4, 4, 1))}}),
    "integer images": (TypeError, "got int32", {"batch": {"image": np.zeros((4, 4, 4, 1), np.int32)}}),
    "no images": (ValueError, "B >= 1", {"batch": {"image": np.zeros((0, 4, 4, 1), np.uint8)}}),
    "float labels": (
        TypeError,
        "labels must be integers",
        {"batch": {"image": np.zeros((4, 4, 4, 1), np.uint8), "label": np.zeros(4, np.float32)}},
    ),
    "too few labels": (
        ValueError,
        "one per image",
        {"batch": {"image": np.zeros((4, 4, 4, 1), np.uint8), "label": np.zeros(3, np.int32)}},
    ),
    "another size": (ValueError, "1 channels on its last axis", {"batch": {"image": np.zeros((4, 2, 8, 1), np.uint8)}}),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_are_refused(name: str, key: jax.Array) -> None:
    kind, message, changes = BAD_CALLS[name]
    vae = models.vae()
    arguments = {"state": models.init(vae, key), "batch": models.batch(), "key": key, **changes}
    with pytest.raises(kind, match=message):
        jaxgen.vae_step(vae, **arguments)


def test_bad_specs_are_refused(key: jax.Array) -> None:
    encoder, decoder = networks.MLPEncoder(3), networks.MLPDecoder(models.IMAGE_SHAPE)
    with pytest.raises(TypeError, match=r"VAE\.encoder must be hashable.*tuples for lists"):
        jaxgen.VAE(networks.MLPEncoder(3, hidden=[8]), decoder, models.sgd(), 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="optax transformation"):
        jaxgen.VAE(encoder, decoder, 1e-3, 3)
    with pytest.raises(TypeError, match="whole number"):
        jaxgen.VAE(encoder, decoder, models.sgd(), 3.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        jaxgen.VAE(encoder, decoder, models.sgd(), 0)
    with pytest.raises(TypeError, match="init and apply"):
        jaxgen.VAE((encoder, None), (decoder, decoder), models.sgd(), (3, 3))
    with pytest.raises(ValueError, match=r"tuples of one length.*encoder 1, decoder not a tuple"):
        jaxgen.VAE((encoder,), decoder, models.sgd(), 3)
    with pytest.raises(ValueError, match="beta must be at least 0"):
        jaxgen.VAE(encoder, decoder, models.sgd(), 3, beta=-1.0)
    with pytest.raises(ValueError, match="free_bits must be at least 0"):
        jaxgen.VAE(encoder, decoder, models.sgd(), 3, free_bits=-0.1)
    with pytest.raises(ValueError, match="does not go with an objective that has path_weights"):
        jaxgen.VAE(encoder, decoder, models.sgd(), 3, objective=losses.dreg, free_bits=0.1)
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        jaxgen.VAE(encoder, decoder, models.sgd(), 3, num_samples=0)
    with pytest.raises(ValueError, match="give it latent_dim=5"):
        jaxgen.vae_init(jaxgen.VAE(encoder, decoder, models.sgd(), 5), key, models.batch())
    vae = models.vae()
    state = models.init(vae, key)
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        jaxgen.vae_decode(vae, state, jnp.zeros((2, 4)))


class Labelled(nn.Module):
    """An affine map of its input and its label, with any number of answers."""

    features: int
    answers: int

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> Any:
        x = x.reshape(x.shape[0], -1)
        if label is not None:
            x = jnp.concatenate([x, nn.Embed(10, 4)(label)], axis=1)
        made = tuple(nn.Dense(self.features)(x) for _ in range(self.answers))
        return made if self.answers > 1 else made[0].reshape(-1, *models.IMAGE_SHAPE)


def two_layers(answers: int = 3, **fields: Any) -> jaxgen.VAE:
    encoder, decoder = (Labelled(4, answers), Labelled(2, answers)), (Labelled(16, 1), Labelled(4, 2))
    return jaxgen.VAE(encoder, decoder, models.sgd(), (4, 2), **fields)


def test_a_plain_vae_is_the_tuple_of_one(key: jax.Array) -> None:
    plain = models.vae(num_samples=2)
    layered = jaxgen.VAE(
        (plain.encoder,), (plain.decoder,), plain.optimizer, plain.latent_dims, num_samples=plain.num_samples
    )
    one, other = (models.init(vae, key) for vae in (plain, layered))
    assert isinstance(other.params["encoder"], tuple)
    assert isinstance(other.hyperparams["latent_mask"], tuple)
    assert isinstance(jaxgen.vae_encode(layered, other, models.batch())[0], tuple)
    one, other = (jaxgen.vae_step(v, s, models.batch(), key)[0] for v, s in ((plain, one), (layered, other)))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_a_vae_of_two_layers_does(key: jax.Array) -> None:
    vae, batch = two_layers(num_samples=2), models.batch(5)
    state = jaxgen.vae_init(vae, key, batch)
    state, metrics = jaxgen.vae_step(vae, state, batch, key)
    assert models.finite((state, metrics))
    np.testing.assert_allclose(metrics["loss"], metrics["kl"] - metrics["reconstruction"], rtol=1e-6)
    lower, upper = jaxgen.vae_encode(vae, state, batch)
    assert [a.shape for a in (*lower, *upper)] == [(5, 4)] * 3 + [(5, 2)] * 3
    label = jnp.asarray(batch["label"])
    (mean, *_) = vae.encoder[1].apply({"params": state.params["encoder"][1]}, lower[0], label, train=False)
    np.testing.assert_allclose(upper[0], mean, rtol=1e-5)  # from the means below
    assert jaxgen.vae_reconstruct(vae, state, batch, key).shape == (5, *models.IMAGE_SHAPE)
    assert jaxgen.vae_decode(vae, state, jnp.zeros((5, 2)), label).shape == (5, *models.IMAGE_SHAPE)
    samples = jaxgen.vae_sample(vae, state, key, 5, label)
    np.testing.assert_allclose(jaxgen.vae_sample(vae, state, key, 3, label[:3]), samples[:3], rtol=1e-6)
    z = jax.vmap(lambda k: jax.random.normal(k, (2,)))(jax.random.split(key, 5))
    assert np.abs(samples - jaxgen.vae_decode(vae, state, z, label)).max() > 1e-3
    with pytest.raises(ValueError, match=r"\[N, 2\]"):
        jaxgen.vae_decode(vae, state, jnp.zeros((5, 4)), label)


def test_labels_reach_every_network_at_every_sample(key: jax.Array) -> None:
    vae, batch = two_layers(num_samples=3), models.batch(4)
    state = jaxgen.vae_init(vae, key, batch)
    gradient = jax.jit(jax.grad(lambda p: jaxgen.vae_loss(vae, p, state, batch_of(batch), key)[0]))(state.params)
    used = np.isin(np.arange(10), batch["label"])
    for layer in jax.tree.leaves(gradient, is_leaf=lambda tree: "Embed_0" in tree):
        moved = np.abs(layer["Embed_0"]["embedding"]).max(1) > 0
        np.testing.assert_array_equal(moved, used)
    # Row by row the label is the example's own: the first example alone has the ELBO that it has among others.
    first = {name: leaf[:1] for name, leaf in batch.items()}
    together, alone = (jaxgen.vae_evaluate(vae, state, b, key, 3)["elbo"][0] for b in (batch, first))
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def batch_of(batch: Any) -> dict[str, jax.Array]:
    return {name: jnp.asarray(batch[name]) for name in ("image", "label")}


def test_masked_latents_of_every_layer_neither_act_nor_count(key: jax.Array) -> None:
    """Not through the direction of a rank-one posterior either, nor through the layer above."""
    vae, batch = two_layers(objective=losses.iwae, num_samples=2), batch_of(models.batch(4))
    state = jaxgen.vae_init(vae, key, batch)
    masks = (jnp.array([1.0, 1.0, 0.0, 1.0]), jnp.array([0.0, 1.0]))
    state = state._replace(hyperparams={**state.hyperparams, "latent_mask": masks})
    value = jax.jit(lambda p: jaxgen.vae_loss(vae, p, state, batch, key))

    def changed(masked: bool) -> Any:
        """Every answer about one dimension of each layer moved by one."""
        lower, upper = (2, 0) if masked else (1, 1)

        def move(network: Any, dimension: int) -> Any:
            return jax.tree.map(lambda leaf: leaf.at[dimension].add(1.0) if leaf.ndim == 1 else leaf, network)

        encoder, decoder = state.params["encoder"], state.params["decoder"]
        return {
            "encoder": (move(encoder[0], lower), move(encoder[1], upper)),
            "decoder": (decoder[0], move(decoder[1], lower)),
        }

    loss, (metrics, _) = value(state.params)
    same, (same_metrics, _) = value(changed(True))
    np.testing.assert_array_equal(loss, same)
    np.testing.assert_array_equal(metrics["kl"], same_metrics["kl"])
    assert abs(float(value(changed(False))[0] - loss)) > 0.1


def first_sample(log_weights: jax.Array) -> jax.Array:
    return log_weights[0, :1]


def test_networks_and_objectives_that_do_not_fit_are_refused(key: jax.Array) -> None:
    batch = models.batch(3)
    good = two_layers()
    cases: dict[str, dict[str, Any]] = {
        r"encoder\[1\] must return mean and logvar \(and optionally a direction\) of shape \[3, 2\], got .* .3, 3.": {
            "encoder": (Labelled(4, 2), Labelled(3, 2))
        },
        r"decoder\[1\] must return mean and logvar of shape \[3, 4\], got shapes .3, 4., .3, 4., .3, 4.": {
            "decoder": (Labelled(16, 1), Labelled(4, 3))
        },
        r"one bound per example, \[3\]": {"objective": first_sample},
    }
    for message, fields in cases.items():
        vae = dataclasses.replace(good, **fields)
        with pytest.raises(ValueError, match=message):
            jaxgen.vae_init(vae, key, batch)
    for latent_dim in ((4,), 4, (4, 2, 1)):
        with pytest.raises(ValueError, match="tuples of one length"):
            dataclasses.replace(good, latent_dim=latent_dim)
    with pytest.raises(TypeError, match="whole number"):
        dataclasses.replace(good, latent_dim=(4, 2.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("logvar", [-1e2, 1e2])
def test_sampled_kls_stay_finite_at_extreme_log_variances(logvar: float, key: jax.Array) -> None:
    decoder = networks.MLPDecoder(models.IMAGE_SHAPE, hidden=(16,))
    vae = jaxgen.VAE(
        ConstantEncoder(logvar), decoder, optax.sgd(1e-30), models.LATENT_DIM, objective=losses.dreg, num_samples=2
    )
    state, metrics = jaxgen.vae_step(vae, models.init(vae, key), models.batch(), key)
    assert models.finite((state, metrics))
