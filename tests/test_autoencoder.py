"""The networks of an image tokenizer: GroupNorm, the autoencoder of latent diffusion, the discriminator of patches."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxgen import modules, networks
from jaxgen.networks import AutoencoderDecoder, AutoencoderEncoder, GroupNorm, LeNet, PatchDiscriminator
from jaxgen.networks.autoencoder import Attention
from jaxgen.training import run


def spread_params(tree: Any, key: jax.Array) -> Any:
    """Parameters with scales and shifts that are no ones and zeros."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    moved = [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def initialized(network: Any, key: jax.Array, x: jax.Array) -> Any:
    """Its variables, compiled."""
    return jax.jit(functools.partial(network.init, train=False))(key, x)


def applied(network: Any, variables: Any, *arguments: Any, **options: Any) -> Any:
    return network.apply(variables, *arguments, **options)


# -- GroupNorm --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "asked", "groups"), [(8, 32, 8), (64, 32, 32), (12, 5, 4), (7, 3, 1)])
def test_group_norm_equals_that_of_flax(channels: int, asked: int, groups: int, key: jax.Array) -> None:
    """Protects: groups of neighbours, as many as divide the channels; values, and gradients of the second order too."""
    x = 2.0 + 3.0 * jax.random.normal(key, (2, 5, 3, channels))
    ours = GroupNorm(asked)
    reference = nn.GroupNorm(groups, epsilon=1e-6, use_fast_variance=False)
    params = spread_params(ours.init(key, x)["params"], key)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, reference.init(key, x)["params"])

    def looked_at(layer: Any) -> Any:
        def loss(params: Any, x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(applied(layer, {"params": params}, x)))

        def penalty(params: Any, x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.square(jax.grad(loss, 1)(params, x)))

        gradients = [jax.grad(function, (0, 1))(params, x) for function in (loss, penalty)]
        return applied(layer, {"params": params}, x), gradients

    made, expected = (jax.jit(functools.partial(looked_at, layer))() for layer in (ours, reference))
    chex.assert_trees_all_close(made, expected, atol=1e-5, rtol=1e-5)


def test_group_norm_of_a_large_mean(key: jax.Array) -> None:
    """Protects: the variance is not a difference of two large numbers; against float64."""
    x = 1e3 + jax.random.normal(key, (3, 16, 16, 4))
    exact = np.asarray(x, np.float64).reshape(3, 256, 2, 2)
    mean, std = (getattr(exact, name)(axis=(1, 3), keepdims=True) for name in ("mean", "std"))
    made = applied(GroupNorm(2), GroupNorm(2).init(key, x), x)
    np.testing.assert_allclose(made, ((exact - mean) / std).reshape(x.shape), atol=1e-3)


def test_group_norm_maps_vectors_and_halves(key: jax.Array) -> None:
    """Protects: each image by itself, under vmap; [B, C] too; statistics of bfloat16 in float32."""
    x = jax.random.normal(key, (3, 2, 4, 4, 8))
    layer = GroupNorm(4)
    variables = {"params": spread_params(layer.init(key, x[0])["params"], key)}
    mapped = jax.vmap(lambda x: applied(layer, variables, x))(x)
    alone = [[applied(layer, variables, image[None])[0] for image in images] for images in x]
    np.testing.assert_allclose(mapped, np.asarray(alone), atol=1e-5)
    np.testing.assert_allclose(
        applied(layer, variables, x[0, :, 0, 0]), applied(layer, variables, x[0, :, :1, :1])[:, 0, 0], atol=1e-6
    )
    half = applied(GroupNorm(4, "bfloat16"), variables, x[0].astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), mapped[0], atol=0.05)


# -- The autoencoder --------------------------------------------------------------------------------------------------


def pair(**fields: Any) -> tuple[AutoencoderEncoder, AutoencoderDecoder]:
    fields = {"width": 8, "groups": 4, **fields}
    return AutoencoderEncoder(6, **fields), AutoencoderDecoder(3, **fields)


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_an_autoencoder_keeps_the_size(levels: int, key: jax.Array) -> None:
    """Protects: the factor is 2^(levels - 1), of images that are not square too."""
    encoder, decoder = pair(multipliers=(1,) * levels, middle="attention" if levels == 2 else None)
    factor = 2 ** (levels - 1)
    x = jax.random.uniform(key, (2, 2 * factor, factor, 3))
    params, collections = modules.initialize(encoder, key, x)
    z, _ = modules.apply(encoder, params, collections, x, train=True, key=key)
    assert (z.shape, z.dtype, collections) == ((2, 2, 1, 6), jnp.float32, {})
    params, collections = modules.initialize(decoder, key, z)
    y, _ = modules.apply(decoder, params, collections, z, train=False, key=key)
    assert (y.shape, y.dtype) == (x.shape, jnp.float32)
    assert params["output"]["kernel"].shape == (3, 3, 8, 3)
    assert ("middle_attention" in params) == (levels == 2)


def test_the_ends_of_an_autoencoder(key: jax.Array) -> None:
    """Protects: images are in [0, 1] outside and [-1, 1] inside; an activation has the last layer itself."""
    encoder, decoder = pair(multipliers=(1,))
    x = jax.random.uniform(key, (1, 4, 4, 3))
    params = initialized(encoder, key, x)["params"]
    params = {**params, "input": {"kernel": jnp.zeros((3, 3, 3, 8)).at[1, 1, 0].set(1.0), "bias": jnp.zeros(8)}}
    _, state = applied(encoder, {"params": params}, x, train=False, capture_intermediates=True, mutable="intermediates")
    seen = state["intermediates"]["input"]["__call__"][0]
    np.testing.assert_allclose(seen, jnp.broadcast_to(2 * x[..., :1] - 1, (1, 4, 4, 8)), atol=1e-6)
    z = jax.random.normal(key, (1, 4, 4, 6))
    params = initialized(decoder, key, z)["params"]
    output = {**params["output"], "bias": jnp.asarray([-1.0, 0.0, 1.0])}
    params = {**params, "output": {**output, "kernel": jnp.zeros_like(output["kernel"])}}
    colour = applied(decoder, {"params": params}, z, train=False)[0, 0, 0]
    np.testing.assert_allclose(colour, [0.0, 0.5, 1.0], atol=1e-6)
    squashed = applied(decoder.clone(output_activation=jax.nn.sigmoid), {"params": params}, z, train=False)[0, 0, 0]
    np.testing.assert_allclose(squashed, 1 / (1 + np.exp([1.0, 0.0, -1.0])), atol=1e-6)


def test_the_attention_is_that_of_the_equation(key: jax.Array) -> None:
    """Protects: softmax over the places that are attended to, the scale, and the residual; against NumPy."""
    x = jax.random.normal(key, (2, 3, 2, 8))
    layer = Attention(4, "float32")
    params = spread_params(layer.init(key, x)["params"], key)
    made = applied(layer, {"params": params}, x)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    h = np.asarray(nn.GroupNorm(4, epsilon=1e-6).apply({"params": params["norm"]}, x), np.float64).reshape(2, 6, 8)
    q, k, v = (h @ p[name]["kernel"] + p[name]["bias"] for name in ("query", "key", "value"))
    weights = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(8.0))
    h = (weights / weights.sum(axis=2, keepdims=True)) @ v
    expected = np.asarray(x) + (h @ p["output"]["kernel"] + p["output"]["bias"]).reshape(x.shape)
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_an_autoencoder_learns(key: jax.Array) -> None:
    """Protects: gradients reach every parameter, and a few steps of plain descent make images of images."""
    encoder, decoder = pair(multipliers=(1, 2), middle="attention", projection=True)
    x = jax.random.uniform(key, (4, 4, 4, 3))
    params = [initialized(encoder, key, x)["params"], initialized(decoder, key, jnp.zeros((4, 2, 2, 6)))["params"]]

    @jax.jit
    @jax.value_and_grad
    def loss(params: Any) -> jax.Array:
        z = applied(encoder, {"params": params[0]}, x, train=True)
        return jnp.mean(jnp.square(applied(decoder, {"params": params[1]}, z, train=True) - x))

    first, gradient = loss(params)
    for _ in range(40):
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, loss(params)[1])
    assert loss(params)[0] < 0.4 * first
    # A key's bias moves all scores of a place alike, which its softmax does not see.
    blind = {"['middle_attention']['key']['bias']"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path[1:])
        assert name in blind or float(jnp.abs(leaf).max()) > 1e-9, name


def test_half_precision_and_plain_data(key: jax.Array) -> None:
    encoder, decoder = pair(multipliers=(1,), middle="attention", projection=True)
    x = jax.random.uniform(key, (2, 4, 4, 3))
    variables = initialized(encoder, key, x)
    made = applied(encoder, variables, x, train=False)
    half = applied(encoder.clone(dtype="bfloat16"), variables, x, train=False)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, made, atol=0.15)
    for network in (encoder, decoder.clone(output_activation=jax.nn.sigmoid), PatchDiscriminator(8)):
        assert run.from_plain(run.to_plain(network)) == network


def test_what_an_autoencoder_refuses(key: jax.Array) -> None:
    encoder, decoder = pair()
    with pytest.raises(ValueError, match=r"of 3 levels .* multiples of 4, got \[1, 28, 30, 3\]: crop or resize"):
        encoder.init(key, jnp.zeros((1, 28, 30, 3)), train=False)
    with pytest.raises(ValueError, match=r"maps \[B, h, w, c\], got \[2, 6\]"):
        decoder.init(key, jnp.zeros((2, 6)), train=False)
    with pytest.raises(ValueError, match=r"multipliers must have one number a level, got none"):
        pair(multipliers=())
    with pytest.raises(ValueError, match=r"multipliers must be sizes of at least 1"):
        AutoencoderEncoder(4, multipliers=(1, 0))


# -- The discriminator of patches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["batch", "group", "spectral", None])
@pytest.mark.parametrize(("side", "num_layers", "logits"), [(28, 2, 5), (28, 3, 1), (24, 3, 1)])
def test_patches(normalization: Any, side: int, num_layers: int, logits: int, key: jax.Array) -> None:
    network = PatchDiscriminator(8, num_layers, normalization)
    x = jax.random.uniform(key, (2, side, side, 1))
    params, collections = modules.initialize(network, key, x)
    made, after = modules.apply(network, params, collections, x, train=True, key=key)
    assert (made.shape, made.dtype) == ((2, logits, logits), jnp.float32)
    kept = {"batch": {"batch_stats"}, "spectral": {"spectral_norm"}}.get(normalization, set())
    assert set(after) == set(collections) == kept
    assert not kept or any(
        (a != b).any() for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(collections), strict=True)
    )


@pytest.mark.parametrize(("num_layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch_of_the_stated_size(num_layers: int, patch: int, key: jax.Array) -> None:
    network = PatchDiscriminator(2, num_layers, None)
    x = jax.random.uniform(key, (1, 96, 96, 1))
    variables = initialized(network, key, x)

    def logit(x: jax.Array) -> jax.Array:
        made = applied(network, variables, x, train=False)
        return made[0, made.shape[1] // 2, made.shape[2] // 2]

    rows = np.flatnonzero(np.abs(jax.jit(jax.grad(logit))(x)[0, :, :, 0]).sum(axis=1))
    assert rows[-1] - rows[0] + 1 == patch == 9 * 2**num_layers - 2


def test_patches_against_convolutions_by_the_paper(key: jax.Array) -> None:
    """Protects: strides, padding of one, slope 0.2, no activation after the last; against XLA's own convolution."""
    network = PatchDiscriminator(4, 2, None)
    x = jax.random.uniform(key, (2, 14, 17, 3))
    params = spread_params(initialized(network, key, x)["params"], key)
    h, maps = 2.0 * x - 1.0, []
    for name, stride in (("layer_0", 2), ("layer_1", 2), ("layer_2", 1), ("output", 1)):
        h = jax.lax.conv_general_dilated(
            h, params[name]["kernel"], (stride, stride), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        h = h + params[name]["bias"][None, None, None]
        if name != "output":
            h = jnp.where(h > 0, h, 0.2 * h)
            maps.append(h)
    np.testing.assert_allclose(applied(network, {"params": params}, x, train=False), h[..., 0], atol=1e-5)
    features = applied(network, {"params": params}, x, train=False, method="features")
    assert [feature.shape for feature in features] == [(2, 7, 8, 4), (2, 3, 4, 8), (2, 2, 3, 16)]
    chex.assert_trees_all_close(list(features), maps, atol=1e-5)


def test_the_widths_of_patches_stop_at_eightfold(key: jax.Array) -> None:
    init = functools.partial(PatchDiscriminator(2, 5).init, train=False)
    params = jax.eval_shape(init, key, jnp.zeros((1, 96, 96, 1)))["params"]
    widths = [params[f"layer_{number}"]["kernel"].shape[3] for number in range(6)]
    assert widths == [2, 4, 8, 16, 16, 16]
    assert "bias" in params["layer_0"]
    assert "bias" not in params["layer_1"], "BatchNorm has its own"


def test_what_a_discriminator_of_patches_refuses(key: jax.Array) -> None:
    with pytest.raises(ValueError, match=r"at least 24 pixels a side, got \[1, 28, 20, 1\]: give it fewer layers"):
        PatchDiscriminator(4).init(key, jnp.zeros((1, 28, 20, 1)), train=False)
    with pytest.raises(ValueError, match="must be 'batch', 'group', 'spectral' or None, got 'layer'"):
        networks.PatchDiscriminator(normalization="layer")  # type: ignore[arg-type]


def test_the_features_of_a_lenet(key: jax.Array) -> None:
    """Protects: what a distance of features needs of the shipped classifiers; their parameters keep their names."""
    x = jax.random.uniform(key, (2, 28, 28, 1))
    network = LeNet()
    variables = network.init(key, x)
    assert set(variables["params"]) == {"conv_0", "conv_1", "features", "logits"}
    first, second = applied(network, variables, x, train=False, method="features")
    assert (first.shape, second.shape) == ((2, 12, 12, 24), (2, 4, 4, 48))
    dense = variables["params"]["features"]
    expected = second.reshape(2, -1) @ dense["kernel"] + dense["bias"][None]
    features, _ = applied(network, variables, x)
    np.testing.assert_allclose(features, jnp.where(expected > 0, expected, 0.2 * expected), atol=1e-5)
