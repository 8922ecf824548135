"""Convolutions: Flax's parameters and results, under every transformation, with the platform's fast path."""

from collections.abc import Callable, Iterable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxgen.networks import Conv, ConvTranspose, conv, conv_transpose
from jaxgen.networks.channels import channel_sum, spread
from jaxgen.networks.convolution import EnlargingConv, ShrinkingConv

# (kernel, strides, padding, height, width, channels in, channels out)
CASES: list[tuple[Any, ...]] = [
    ((4, 4), (2, 2), "SAME", 8, 6, 3, 5),
    ((4, 4), (2, 2), "SAME", 8, 6, 70, 70),
    ((3, 3), (1, 1), "SAME", 6, 6, 70, 1),
    ((3, 3), (1, 1), [(2, 0), (-1, 3)], 7, 6, 40, 33),  # by Winograd's products, an odd number of lines
    ((5, 3), (2, 1), "VALID", 9, 9, 3, 5),
    ((3, 3), (1, 1), "VALID", 8, 9, 32, 32),
    ((3, 3), (1, 1), "SAME", 7, 6, 3, 70),
    ((2, 2), (3, 3), "SAME", 10, 9, 3, 5),
    ((5, 5), (2, 2), [(2, 1), (0, 3)], 9, 9, 3, 5),
]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=pytest.mark.slow if number > 3 else ())
        for number, case in enumerate(CASES)
    ],
)
@pytest.mark.parametrize(("ours", "flax"), [(Conv, nn.Conv), (ConvTranspose, nn.ConvTranspose)])
def test_layers_equal_those_of_flax(ours: Any, flax: Any, case: tuple[Any, ...], key: jax.Array) -> None:
    kernel, strides, padding, height, width, channels, features = case
    x = jax.random.normal(key, (2, height, width, channels))
    layer, reference = (module(features, kernel, strides, padding) for module in (ours, flax))
    variables = jax.jit(layer.init)(key, x)
    chex.assert_trees_all_equal(variables, jax.jit(reference.init)(key, x))

    def run(module: Any) -> Any:
        def loss(variables: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = module.apply(variables, x)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(variables, x)

    ((_, y), gradient), ((_, expected), expected_gradient) = run(layer), run(reference)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    chex.assert_trees_all_close(gradient, expected_gradient, atol=1e-4, rtol=1e-5)


def means(x: jax.Array) -> jax.Array:
    """The mean of each 2 x 2 pixels."""
    return nn.avg_pool(x, (2, 2), (2, 2))


def repeated(x: jax.Array) -> jax.Array:
    """Each pixel four times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


@pytest.mark.parametrize(
    ("layer", "slowly"),
    [
        (ShrinkingConv, lambda reference, variables, x: means(reference.apply(variables, x))),
        (EnlargingConv, lambda reference, variables, x: reference.apply(variables, repeated(x))),
    ],
)
def test_a_convolution_and_a_resizing_in_one(layer: type[Conv], slowly: Callable[..., Any], key: jax.Array) -> None:
    x = jax.random.normal(key, (2, 6, 8, 3))
    ours, reference = layer(5, (3, 3)), nn.Conv(5, (3, 3))
    variables = jax.tree.map(lambda leaf: leaf + 0.1, ours.init(key, x))  # with biases
    chex.assert_trees_all_equal_shapes(variables, reference.init(key, x))
    values, expected = (
        jax.value_and_grad(lambda v, x, apply=apply: jnp.sum(jnp.sin(apply(v, x))), (0, 1))(variables, x)
        for apply in (ours.apply, lambda v, x: slowly(reference, v, x))
    )
    np.testing.assert_allclose(np.asarray(ours.apply(variables, x)), slowly(reference, variables, x), atol=1e-5)
    chex.assert_trees_all_close(values, expected, atol=1e-4, rtol=1e-5)
    with pytest.raises(ValueError, match=r"has kernel_size \(3, 3\), strides \(1, 1\) and 'SAME', got \(\(3, 3\), \(2"):
        layer(5, (3, 3), (2, 2))


def test_sums_over_places_and_what_they_are_the_transpose_of(key: jax.Array) -> None:
    x, vector = jax.random.normal(key, (4, 3, 5, 7)), jnp.arange(7.0)
    np.testing.assert_allclose(channel_sum(x), np.sum(x, (0, 1, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(spread(vector, x.shape), np.broadcast_to(vector, x.shape))
    np.testing.assert_allclose(jax.grad(lambda v: jnp.sum(x * spread(v, x.shape)))(vector), channel_sum(x), rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda x: vector @ channel_sum(x))(x), spread(vector, x.shape))
    np.testing.assert_allclose(jax.vmap(channel_sum)(x), np.sum(x, (1, 2)), rtol=1e-5, atol=1e-6)
    assert channel_sum(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.slow
def test_without_bias_and_in_bfloat16(key: jax.Array) -> None:
    x = jax.random.normal(key, (2, 8, 8, 70))
    for layer in (
        Conv(5, (4, 4), (2, 2), use_bias=False, dtype="bfloat16"),
        ConvTranspose(5, (4, 4), (2, 2), dtype="bfloat16"),
    ):
        variables = jax.jit(layer.init)(key, x)
        assert set(variables["params"]) == ({"kernel", "bias"} if layer.use_bias else {"kernel"})
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
        y = jax.jit(layer.apply)(variables, x)
        assert y.dtype == jnp.bfloat16
        exact = jax.jit(layer.clone(dtype=None).apply)(variables, x)
        chex.assert_trees_all_close(y.astype(jnp.float32), exact, atol=0.05)
        gradient = jax.jit(jax.grad(lambda v, layer=layer: jnp.sum(layer.apply(v, x).astype(jnp.float32))))(variables)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))


def parameters(key: jax.Array) -> dict[str, jax.Array]:
    down, up = jax.random.split(key)
    return {
        "down": 0.2 * jax.random.normal(down, (4, 4, 3, 70)),
        "middle": 0.1 * jax.random.normal(up, (3, 3, 70, 8)),
        "up": 0.1 * jax.random.normal(up, (4, 4, 8, 3)),
    }


def network(kernels: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    x = jnp.tanh(conv(x, kernels["down"], (2, 2)))
    return conv_transpose(jnp.tanh(conv(x, kernels["middle"])), kernels["up"], (2, 2))


def reference(kernels: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    x = jnp.tanh(jax.lax.conv_general_dilated(x, kernels["down"], (2, 2), "SAME", dimension_numbers=layout))
    x = jnp.tanh(jax.lax.conv_general_dilated(x, kernels["middle"], (1, 1), "SAME", dimension_numbers=layout))
    return jax.lax.conv_transpose(x, kernels["up"], (2, 2), "SAME", dimension_numbers=layout)


Network = Callable[[dict[str, jax.Array], jax.Array], jax.Array]


def gradient(net: Network) -> Callable[..., Any]:
    return jax.grad(lambda kernels, x: jnp.mean(jnp.sum(jnp.square(net(kernels, x)), (1, 2, 3))))


def penalty_gradient(net: Network) -> Callable[..., Any]:
    """The gradient of a gradient penalty: differentiated twice, through both convolutions."""

    def penalty(kernels: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        slope = jax.grad(lambda x: jnp.sum(jnp.tanh(net(kernels, x))))(x)
        return jnp.mean(jnp.sum(jnp.square(slope), (1, 2, 3)))

    return jax.grad(penalty)


def stacked(kernels: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), kernels)


TRANSFORMED: dict[str, Callable[[Network], Callable[..., Any]]] = {
    "jit": lambda net: jax.jit(gradient(net)),
    "second order": lambda net: jax.jit(penalty_gradient(net)),
    "jvp": lambda net: jax.jit(lambda kernels, x: jax.jvp(net, (kernels, x), (kernels, x))),
    "forward over reverse": lambda net: jax.jit(
        lambda kernels, x: jax.jvp(lambda k: gradient(net)(k, x), (kernels,), (kernels,))
    ),
    "vmapped images": lambda net: jax.jit(
        lambda kernels, x: jax.vmap(lambda image: net(kernels, image[None])[0])(x)
    ),
    "vmapped kernels": lambda net: jax.jit(
        lambda kernels, x: jax.vmap(gradient(net), in_axes=(0, None))(stacked(kernels), x)
    ),
    "scan": lambda net: jax.jit(
        lambda kernels, x: jax.lax.scan(lambda y, _: (net(kernels, y), None), x, None, length=3)[0]
    ),
    "gradient of a scan": lambda net: jax.jit(
        jax.grad(
            lambda kernels, x: jnp.sum(jax.lax.scan(lambda y, _: (net(kernels, y), None), x, None, length=3)[0])
        )
    ),
}  # fmt: skip


# Each is a program to compile. What is left for every run: twice differentiated, batched kernels, loops, shard_map.
SLOW = {
    "jit",
    "second order",
    "vmapped kernels",
    "jvp",
    "vmapped images",
    "gradient of a scan",
    "forward over reverse",
    "vmap",
    "pmap",
    "shard_map",
}


def some_slow(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


@pytest.mark.parametrize("name", some_slow(TRANSFORMED))
def test_transformations_equal_those_of_lax(name: str, key: jax.Array) -> None:
    kernels, x = parameters(key), jax.random.normal(key, (4, 8, 8, 3))
    got, expected = (TRANSFORMED[name](net)(kernels, x) for net in (network, reference))
    chex.assert_trees_all_close(got, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("regime", some_slow(["pmap", "shard_map", "shard_map, varying kernels", "vmap"]))
def test_mapped_axes(regime: str, key: jax.Array) -> None:
    devices = 4
    kernels, x = parameters(key), jax.random.normal(key, (8, 8, 8, 3))
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])

    def mean_gradient(kernels: dict[str, jax.Array], x: jax.Array) -> Any:
        if "varying" in regime:
            kernels = jax.tree.map(lambda leaf: jax.lax.pcast(leaf, ("data",), to="varying"), kernels)
        if regime == "shard_map":  # differentiating by replicated kernels sums over the axis by itself
            return jax.tree.map(lambda leaf: leaf / devices, gradient(network)(kernels, x))
        return jax.lax.pmean(gradient(network)(kernels, x), "data")

    if "shard_map" in regime:
        got = jax.jit(jax.shard_map(mean_gradient, mesh=mesh, in_specs=(P(), P("data")), out_specs=P()))(kernels, x)
    else:
        mapping: Any = jax.pmap if regime == "pmap" else jax.vmap
        mapped = mapping(mean_gradient, axis_name="data", in_axes=(None, 0), out_axes=None)
        got = mapped(kernels, x.reshape(devices, -1, *x.shape[1:]))
    chex.assert_trees_all_close(got, jax.jit(gradient(reference))(kernels, x), atol=2e-4, rtol=1e-4)


def in_a_loop(kernels: dict[str, jax.Array], x: jax.Array) -> Any:
    """Steps of a loop on both gradients, as training makes them."""

    def step(kernels: Any, x: jax.Array) -> tuple[Any, None]:
        slopes = gradient(network)(kernels, x), penalty_gradient(network)(kernels, x)
        return jax.tree.map(lambda leaf, *slope: leaf - 1e-3 * sum(slope), kernels, *slopes), None

    return jax.lax.scan(step, kernels, jnp.stack([x, x, x]))[0]


def compiled_text(function: Callable[..., Any], *args: Any) -> str:
    return str(jax.jit(function).lower(*args).compile().as_text())


def test_the_cpu_sees_no_convolution_and_no_choice(key: jax.Array) -> None:
    kernels, x = parameters(key), jax.random.normal(key, (4, 8, 8, 3))
    text = compiled_text(in_a_loop, kernels, x)
    assert "while(" in text
    assert " convolution(" not in text
    assert "conditional(" not in text
    # The test can fail: the reference does hold convolutions.
    assert " convolution(" in compiled_text(gradient(reference), kernels, x)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_exported_programs_hold_what_the_platform_is_fast_at(platform: str, key: jax.Array) -> None:
    kernels, x = parameters(key), jax.random.normal(key, (4, 8, 8, 3))
    text = jax.export.export(jax.jit(in_a_loop), platforms=[platform])(kernels, x).mlir_module()
    slow, fast = "stablehlo.convolution", "stablehlo.dot_general"
    if platform != "cpu":
        slow, fast = fast, slow
    assert fast in text
    assert slow not in text


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 70), (70, 1), (8, 70)])
@pytest.mark.parametrize("layer", [conv, conv_transpose])
def test_cuda_multiplies_where_there_are_few_channels(layer: Any, inputs: int, outputs: int) -> None:
    x, kernel = jnp.ones((2, 8, 8, inputs)), jnp.ones((4, 4, inputs, outputs))
    slopes = jax.jit(jax.grad(lambda x, kernel: jnp.sum(jnp.sin(layer(x, kernel, (2, 2)))), argnums=(0, 1)))
    text = jax.export.export(slopes, platforms=["cuda"])(x, kernel).mlir_module()
    few = min(inputs, outputs) <= 4
    assert ("stablehlo.convolution" in text) != few
    assert ("stablehlo.dot_general" in text) == few


def test_one_export_runs_on_many_platforms(key: jax.Array) -> None:
    kernels, x = parameters(key), jax.random.normal(key, (4, 8, 8, 3))
    exported = jax.export.export(jax.jit(network), platforms=["cpu", "cuda"])(kernels, x)
    np.testing.assert_allclose(exported.call(kernels, x), reference(kernels, x), atol=1e-4)


def test_what_does_not_fit_is_refused(key: jax.Array) -> None:
    x, kernel = jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 3, 2))
    for function in (conv, conv_transpose):
        with pytest.raises(ValueError, match=r"got \[4, 4, 3\] and"):
            function(x[0], kernel)
        with pytest.raises(ValueError, match=r"got \[1, 4, 4, 3\] and \[3, 3, 2, 3\]"):
            function(x, kernel.swapaxes(2, 3))
        with pytest.raises(ValueError, match="strides must be two numbers"):
            function(x, kernel, (0, 1))
        with pytest.raises(ValueError, match="'CIRCULAR'"):
            function(x, kernel, padding="CIRCULAR")
    with pytest.raises(ValueError, match=r"\[5, 5\] does not fit into \[4, 4\] pixels"):
        conv(x, jnp.zeros((5, 5, 3, 1)), padding="VALID")
