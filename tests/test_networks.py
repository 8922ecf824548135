"""Networks: shapes and sizes, labels, normalisation over the global batch, spectral norms, compute types."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from jaxgen import modules, networks, parallel

SHAPES = [(28, 28, 1), (32, 32, 3), (12, 20, 1), (4, 4, 3)]


def run(network: Any, *args: Any, train: bool = True, seed: int = 0, **kwargs: Any) -> tuple[Any, Any, Any]:
    """(output, parameters, collections after the pass) of a fresh network."""

    @jax.jit  # one program compiles faster than its many operations one by one
    def whole(args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
        key = jax.random.key(seed)
        params, collections = modules.initialize(network, key, *args, **kwargs)
        output, collections = modules.apply(network, params, collections, *args, train=train, key=key, **kwargs)
        return output, params, collections

    return whole(args, kwargs)


def images(shape: tuple[int, ...], num: int = 3) -> jax.Array:
    return jax.random.uniform(jax.random.key(1), (num, *shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_convolutional_networks_fit_any_multiple_of_four(shape: tuple[int, ...]) -> None:
    z, x = jnp.ones((3, 5)), images(shape)
    outputs = jax.eval_shape(
        lambda: (
            [run(g(shape, width=2), z)[0] for g in (networks.DCGANGenerator, networks.ResNetGenerator)],
            [run(d(width=2), x)[0] for d in (networks.DCGANDiscriminator, networks.ResNetDiscriminator)],
            run(networks.ConvEncoder(7, width=2), x)[0],
            run(networks.ConvDecoder((*shape[:2], 2 * shape[2]), width=2), z)[0],
        )
    )
    made, logits, (mean, logvar), parameters = outputs
    assert [image.shape for image in made] == [(3, *shape)] * 2
    assert [logit.shape for logit in logits] == [(3,)] * 2
    assert mean.shape == logvar.shape == (3, 7)
    assert parameters.shape == (3, *shape[:2], 2 * shape[2])


def test_the_number_of_halvings() -> None:
    sides = {28: 2, 32: 3, 64: 4, 4: 2, 8: 2, 12: 2, 20: 2, 48: 4, 128: 5}
    assert {side: networks.num_halvings((side, side, 1)) for side in sides} == sides


def test_the_paper_at_64_pixels() -> None:
    """Radford et al. 2016, figure 1: 4 x 4 x 1024, then 512, 256, 128 and the image; no bias before BatchNorm."""
    z = jnp.zeros((1, 100))
    shapes = jax.eval_shape(lambda: run(networks.DCGANGenerator((64, 64, 3), width=128), z)[1])
    kernels = [shapes[f"up_{i}"]["kernel"].shape for i in (1, 2, 3)]
    assert kernels == [(4, 4, 1024, 512), (4, 4, 512, 256), (4, 4, 256, 128)]
    assert shapes["project"]["kernel"].shape == (100, 4 * 4 * 1024)
    assert [name for name, layer in shapes.items() if "bias" in layer] == ["output"]


@pytest.mark.parametrize("shape", [(30, 28, 1), (28, 28), (0, 4, 1)])
def test_impossible_sizes_are_refused(shape: tuple[int, ...]) -> None:
    for make in (networks.DCGANGenerator, networks.ResNetGenerator, networks.ConvDecoder):
        with pytest.raises(ValueError, match=r"multiples of 4, got \(|shape must be sizes of at least 1, got \(0"):
            make(shape)


def test_impossible_images_are_refused_at_trace_time() -> None:
    for network in (networks.DCGANDiscriminator(), networks.ResNetDiscriminator(), networks.ConvEncoder(3)):
        with pytest.raises(ValueError, match=r"multiples of 4, got \(30, 30, 1\)"):
            run(network, images((30, 30, 1)))


def test_unknown_normalisations_are_refused() -> None:
    with pytest.raises(ValueError, match="must be 'batch' or None, got 'spectral'"):
        networks.ResNetGenerator((8, 8, 1), normalization="spectral")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be 'spectral' or None, got 'batch'"):
        networks.ResNetDiscriminator(normalization="batch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'diagonal' or 'rank_one'"):
        run(networks.MLPEncoder(3, covariance="full"), images((4, 4, 1)))  # type: ignore[arg-type]


SHAPE = (8, 8, 1)
CONDITIONAL = {
    "MLPGenerator": networks.MLPGenerator(SHAPE, (8,), num_classes=3),
    "MLPDecoder": networks.MLPDecoder(SHAPE, (8,), num_classes=3),
    "DCGANGenerator": networks.DCGANGenerator(SHAPE, width=2, num_classes=3),
    "ConvDecoder": networks.ConvDecoder(SHAPE, width=2, num_classes=3),
    "InfoGANGenerator": networks.InfoGANGenerator(SHAPE, width=2, num_classes=3),
    "ResNetGenerator": networks.ResNetGenerator(SHAPE, width=2, num_classes=3),
    "ResNetGenerator without norm": networks.ResNetGenerator(SHAPE, width=2, normalization=None, num_classes=3),
    "MLPDiscriminator": networks.MLPDiscriminator((8,), num_classes=3),
    "MaxoutDiscriminator": networks.MaxoutDiscriminator((8,), num_classes=3),
    "DCGANDiscriminator": networks.DCGANDiscriminator(width=2, num_classes=3),
    "InfoGANDiscriminator": networks.InfoGANDiscriminator(width=2, num_classes=3),
    "ResNetDiscriminator": networks.ResNetDiscriminator(width=2, num_classes=3),
    "MLPEncoder": networks.MLPEncoder(5, (8,), num_classes=3),
    "ConvEncoder": networks.ConvEncoder(5, width=2, num_classes=3),
    "GridGenerator": networks.GridGenerator(SHAPE, width=2, blocks=1, num_classes=3),
    "GridDiscriminator": networks.GridDiscriminator(width=2, blocks=1, num_classes=3),
}


def some_slow(name: str) -> Any:
    """Of these a CPU takes long to compile."""
    long = name.startswith("ResNet") or name in (
        *("DCGANDiscriminator", "InfoGANDiscriminator", "InfoGANGenerator", "MaxoutDiscriminator", "ConvEncoder"),
    )
    return pytest.param(name, marks=pytest.mark.slow) if long else name


@pytest.mark.parametrize("name", [some_slow(name) for name in CONDITIONAL])
def test_conditional_networks_listen_to_the_label(name: str) -> None:
    network = CONDITIONAL[name]
    makes = "Generator" in name or "Decoder" in name
    x = jax.random.normal(jax.random.key(2), (4, 5)) if makes else images(SHAPE, 4)
    label = jnp.array([0, 1, 2, 1])
    key = jax.random.key(0)
    assert modules.num_classes(network) == 3
    _, params, collections = run(network, x, label=label)
    # Class-conditional scales start at the identity and some residual branches at zero: any parameters will do.
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(key, p.shape), params)

    @jax.jit
    def output(label: jax.Array) -> jax.Array:
        got = modules.apply(network, params, collections, x, train=False, key=key, label=label)[0]
        return jnp.concatenate([part.reshape(4, -1) for part in jax.tree.leaves(got)], axis=1)

    changed = np.abs(output(label) - output(jnp.array([0, 2, 2, 1]))).max(axis=1)
    assert changed[1] > 1e-5
    np.testing.assert_array_equal(changed[[0, 2, 3]], 0.0)
    with pytest.raises(ValueError, match=rf"^{name.split()[0]}\(num_classes=3\) is conditional and was given no label"):
        modules.initialize(network, key, x)


def test_unconditional_networks_ignore_the_label() -> None:
    network = networks.DCGANDiscriminator(width=2)
    with_label, _, _ = run(network, images(SHAPE), label=jnp.array([0, 1, 2]))
    np.testing.assert_array_equal(with_label, run(network, images(SHAPE))[0])


def test_class_conditional_scales_start_at_the_identity() -> None:
    x = images((4, 4, 2), 6)
    plain, _, _ = run(networks.BatchNorm(), x)
    conditional, params, _ = run(networks.BatchNorm(num_classes=3), x, jnp.array([0, 1, 2, 0, 1, 2]))
    np.testing.assert_allclose(conditional, plain, rtol=1e-6)
    np.testing.assert_allclose(plain.mean((0, 1, 2)), 0.0, atol=1e-6)
    assert params["scale"]["kernel"].shape == (3, 2)


def over_devices(layer: Any, x: jax.Array, regime: str) -> jax.Array:
    apply = lambda part: layer.apply({}, part)  # noqa: E731
    if regime == "shard_map":
        mesh = parallel.make_mesh({"data": 4})
        return jax.shard_map(apply, mesh=mesh, in_specs=(P("data"),), out_specs=P("data"))(x)
    parts = x.reshape(4, -1, *x.shape[1:])
    mapped = jax.pmap(apply, axis_name="data", devices=jax.devices()[:4])
    return mapped(parts).reshape(x.shape[0], *x.shape[1:-1], -1)


@pytest.mark.parametrize("regime", ["shard_map", "pmap"])
def test_minibatch_standard_deviation_is_the_global_batchs(regime: str) -> None:
    x = images((4, 4, 3), 8)
    alone: Any = networks.MinibatchStandardDeviation().apply({}, x)
    expected = np.sqrt(np.var(np.asarray(x), axis=0) + 1e-8).mean()
    np.testing.assert_allclose(alone[..., 3], np.full((8, 4, 4), expected), rtol=1e-5)
    np.testing.assert_array_equal(alone[..., :3], x)
    np.testing.assert_allclose(over_devices(networks.MinibatchStandardDeviation("data"), x, regime), alone, rtol=1e-5)


def test_minibatch_standard_deviation_has_a_gradient_where_all_images_are_one() -> None:
    layer: Any = networks.MinibatchStandardDeviation()
    gradient = jax.grad(lambda x: jnp.sum(layer.apply({}, x)))(jnp.ones((4, 2, 2, 1)))
    assert np.isfinite(gradient).all()


def test_spectral_normalisation_brings_the_largest_singular_value_to_one() -> None:
    layer = networks.Conv(6, (3, 3), use_bias=False, spectral_norm=True)
    x = images((8, 8, 4))
    key = jax.random.key(0)
    params, collections = modules.initialize(layer, key, x)
    assert set(collections) == {"spectral_norm"}
    apply = jax.jit(partial(modules.apply, layer, train=True, key=key))
    for _ in range(60):
        _, collections = apply(params, collections, x)
    output, after = modules.apply(layer, params, collections, x, train=False, key=key)
    sigma = np.linalg.svd(np.asarray(params["kernel"]).reshape(-1, 6), compute_uv=False)[0]
    expected = networks.conv(x, params["kernel"] / sigma)
    np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-4)
    kept, unchanged = (c["spectral_norm"]["spectral_norm"]["u"] for c in (collections, after))
    np.testing.assert_array_equal(kept, unchanged)


def test_spectral_normalisation_takes_away_the_scale_of_a_kernel() -> None:
    """W / sigma(W) does not change with the scale of W: its gradient is orthogonal to W."""
    layer = networks.SpectralNorm()
    kernel = jax.random.normal(jax.random.key(3), (5, 4))
    _, _, collections = run(layer, kernel)
    for _ in range(50):
        _, collections = modules.apply(layer, {}, collections, kernel, train=True, key=jax.random.key(0))
    direction = jax.random.normal(jax.random.key(4), (5, 4))

    def value(kernel: jax.Array) -> jax.Array:
        return jnp.sum(direction * modules.apply(layer, {}, collections, kernel, train=False, key=jax.random.key(0))[0])

    gradient = jax.jit(jax.grad(value))(kernel)
    assert abs(float(jnp.sum(gradient * kernel))) < 1e-4 * float(jnp.linalg.norm(gradient) * jnp.linalg.norm(kernel))


DENSE = networks.MLPDiscriminator, networks.MaxoutDiscriminator, networks.MLPEncoder


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(
            networks.DCGANDiscriminator(width=4, dtype="bfloat16", spectral_norm=True), marks=pytest.mark.slow
        ),
        pytest.param(networks.ResNetDiscriminator(width=4, dtype="bfloat16"), marks=pytest.mark.slow),
        networks.MLPDiscriminator((16,), dtype="bfloat16"),
        pytest.param(networks.MaxoutDiscriminator((16,), dtype="bfloat16"), marks=pytest.mark.slow),
        networks.ConvEncoder(3, width=4, dtype="bfloat16"),
        networks.MLPEncoder(3, (16,), dtype="bfloat16", covariance="rank_one"),
    ],
    ids=lambda network: type(network).__name__,
)
def test_parameters_stay_float32_whatever_the_compute_type(network: Any) -> None:
    x = images(SHAPE, 8)
    output, params, collections = run(network, x)
    assert {leaf.dtype for leaf in jax.tree.leaves((output, params, collections))} == {jnp.dtype("float32")}
    exact, _, _ = run(network.clone(dtype="float32"), x)
    for got, wanted in zip(jax.tree.leaves(output), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(got, wanted, atol=0.05 * float(jnp.abs(wanted).max()) + 0.02)
        # Dense layers over few rows are those of float32 on a CPU, where rounding them costs more than it gains.
        assert np.array_equal(got, wanted) == isinstance(network, DENSE)


@pytest.mark.parametrize("name", [some_slow(name) for name in ("DCGANGenerator", "ResNetGenerator", "MLPGenerator")])
def test_generators_compute_in_bfloat16_and_give_float32_images(name: str) -> None:
    network = CONDITIONAL[name].clone(num_classes=None, dtype="bfloat16")
    output, params, _ = run(network, jax.random.normal(jax.random.key(0), (4, 5)))
    assert output.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert 0 <= float(output.min()) <= float(output.max()) <= 1


@pytest.mark.slow
def test_residual_branches_without_normalisation_start_at_zero() -> None:
    _, params, collections = run(networks.ResNetDiscriminator(width=2, normalization=None), images(SHAPE))
    assert collections == {}
    for number in range(networks.num_halvings(SHAPE)):
        assert not np.any(params[f"block_{number}"]["second"]["kernel"])
        assert np.any(params[f"block_{number}"]["first"]["kernel"])


def test_maxout_is_the_largest_of_its_pieces() -> None:
    x = jax.random.normal(jax.random.key(0), (3, 4))
    layer: Any = networks.Maxout(2, 5)
    params = layer.init(jax.random.key(0), x)["params"]
    linear = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None]
    expected = np.asarray(linear).reshape(3, 2, 5).max(-1)
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, rtol=1e-6)


@pytest.mark.slow
def test_gradients_of_penalties_reach_the_parameters() -> None:
    """Second derivatives through spectral norms, convolutions and leaky rectifiers: finite, and not zero."""
    network = networks.ResNetDiscriminator(width=2)
    x = images(SHAPE)
    _, params, collections = run(network, x)

    def penalty(params: Any) -> jax.Array:
        def logits(x: jax.Array) -> jax.Array:
            return jnp.sum(modules.apply(network, params, collections, x, train=True, key=jax.random.key(0))[0])

        return jnp.sum(jnp.square(jax.grad(logits)(x)))

    gradient = jax.jit(jax.grad(penalty))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(np.abs(gradient[f"block_{i}"]["first"]["kernel"]).max() > 0 for i in range(2))


def test_batch_norm_equals_that_of_flax() -> None:
    """With a large mean, where a variance is a small difference of large numbers."""
    x = 3.0 + jax.random.normal(jax.random.key(0), (8, 4, 4, 5))
    ours, flax = networks.BatchNorm(), nn.BatchNorm(use_running_average=False, momentum=0.9)
    variables = flax.init(jax.random.key(1), x)

    def differentiate(apply: Any, variables: Any) -> Any:
        def loss(params: Any, x: jax.Array) -> Any:
            y, updated = apply({**variables, "params": params}, x)
            return jnp.sum(jnp.sin(y)), (y, updated["batch_stats"])

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables["params"], x)

    nested = {kind: {"normalization": leaves} for kind, leaves in variables.items()}
    got = differentiate(lambda v, x: ours.apply(v, x, train=True, mutable=["batch_stats"]), nested)
    (scales, slope), (y, statistics) = differentiate(lambda v, x: flax.apply(v, x, mutable=["batch_stats"]), variables)
    expected = ({"normalization": scales}, slope), (y, {"normalization": statistics})
    chex.assert_trees_all_close(got, expected, atol=1e-4)


@pytest.mark.slow
def test_a_pass_and_the_same_pass_differentiated_are_computed_once() -> None:
    """A GAN's step makes its fakes for the discriminator, and again to differentiate by the generator's parameters."""
    generator = networks.DCGANGenerator((12, 12, 1), width=4)
    z = jnp.ones((4, 3))
    variables = generator.init(jax.random.key(0), z, train=False)

    def make(params: Any) -> jax.Array:
        return generator.apply({**variables, "params": params}, z, train=True, mutable=["batch_stats"])[0]

    def slope(params: Any) -> Any:
        return jax.grad(lambda params: jnp.sum(jnp.sin(make(params))))(params)

    def products(function: Any) -> int:
        return str(jax.jit(function).lower(variables["params"]).compile().as_text()).count(" dot(")

    assert products(make) > 1
    assert products(lambda params: (make(params), slope(params))) == products(slope)


@pytest.mark.parametrize(
    "discriminator",
    [
        networks.DCGANDiscriminator(width=2, batch_norm=False, spectral_norm=True),
        pytest.param(networks.ResNetDiscriminator(width=2), marks=pytest.mark.slow),
    ],
    ids=lambda network: type(network).__name__,
)
def test_spectral_norms_are_alike_on_every_device(discriminator: Any) -> None:
    """Under shard_map with its replication checks on, where a step's parameters count as different on each device."""
    x, key = images((8, 8, 1), num=4), jax.random.key(0)
    params, collections = jax.jit(partial(modules.initialize, discriminator))(key, x)

    def gradient(axis_name: str | None, params: Any, x: jax.Array) -> Any:
        network = modules.bind_axis(discriminator, collections, axis_name)

        def loss(params: Any) -> Any:
            logits, updated = modules.apply(network, params, collections, x, train=True, key=key)
            return jnp.mean(logits), updated

        (_, updated), slope = parallel.value_and_averaged_gradient(loss, params, axis_name)
        return slope, updated

    mesh = parallel.make_mesh({"data": 2})
    mapped = jax.shard_map(partial(gradient, "data"), mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    expected = jax.jit(partial(gradient, None))(params, x)
    chex.assert_trees_all_close(jax.jit(mapped)(params, x), expected, atol=1e-5)
