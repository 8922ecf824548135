"""Matrix products and their gradients, against those of NumPy and of XLA."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxgen import networks, platform
from jaxgen.networks import products

# Few rows; a small gradient; large ones, turned in one way and in the other: on each of two devices, too.
SHAPES = [(8, 6, 4), (2200, 12, 20), (2200, 60, 150), (2200, 150, 60)]


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor is one that multiplies bfloat16; the test's own computes both."""
    monkeypatch.setattr(platform, "multiplies_bfloat16", lambda: request.param)
    return bool(request.param)


def operands(rows: int, inputs: int, outputs: int) -> Any:
    draws = np.random.default_rng(rows + inputs)
    return tuple(draws.normal(size=shape) for shape in [(rows, inputs), (inputs, outputs), (rows, outputs)])


def rounded(x: np.ndarray) -> np.ndarray:
    return np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients(shape: tuple[int, int, int], dtype: str, narrow: bool) -> None:
    x, matrix, gradient = operands(*shape)
    rounding = rounded if dtype == "bfloat16" and narrow and shape[0] > 1000 else np.asarray
    multiply = partial(products.product, dtype=dtype)
    y, pull = jax.vjp(jax.jit(multiply), *(jnp.asarray(each, jnp.float32) for each in (x, matrix)))
    of_x, of_matrix = pull(jnp.asarray(gradient, jnp.float32))
    assert (y.dtype, of_x.dtype, of_matrix.dtype) == (jnp.float32,) * 3
    x, matrix, gradient = rounding(x), rounding(matrix), rounding(gradient)
    for found, expected in [(y, x @ matrix), (of_x, gradient @ matrix.T), (of_matrix, x.T @ gradient)]:
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@jax.custom_vjp
def rounding_product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """In float32, of operands without what bfloat16 does not keep; what is kept for the gradients is bfloat16."""
    return jnp.matmul(*(jax.lax.reduce_precision(each, 8, 7) for each in (x, matrix)))


def _rounding_gradients(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, matrix = (each.astype(jnp.float32) for each in kept)
    return rounding_product(g, matrix.T), rounding_product(x.T, g)


rounding_product.defvjp(
    lambda x, matrix: (rounding_product(x, matrix), (x.astype(jnp.bfloat16), matrix.astype(jnp.bfloat16))),
    _rounding_gradients,
)


def test_the_shapes_reach_every_branch() -> None:
    turned = [rows >= products._MANY_ROWS and i * o >= products._LARGE_GRADIENT for rows, i, o in SHAPES]
    assert turned == [False, False, True, True]


def loss(multiply: Callable[..., jax.Array], matrix: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.mean(jnp.sin(multiply(x, matrix) / len(matrix) ** 0.5) ** 2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformations(shape: tuple[int, int, int], dtype: str, narrow: bool) -> None:
    """vmap, a second gradient and shard_map give what a plain product gives, or one of rounded operands."""
    x, matrix, _ = (jnp.asarray(each, jnp.float32) for each in operands(*shape))
    narrowed = dtype == "bfloat16" and narrow and shape[0] > 1000
    ours = partial(products.product, dtype=dtype)
    plain = (lambda x, matrix: rounding_product(*products.alike(x, matrix))) if narrowed else jnp.matmul

    def second(multiply: Callable[..., jax.Array], matrix: jax.Array, x: jax.Array) -> jax.Array:
        return jax.grad(lambda matrix: jnp.sum(jax.grad(partial(loss, multiply))(matrix, x) ** 2))(matrix)

    def several(multiply: Callable[..., jax.Array], matrix: jax.Array, x: jax.Array) -> jax.Array:
        three = jnp.stack([matrix, 2.0 * matrix, 3.0 * matrix])
        return jax.vmap(jax.grad(partial(loss, multiply)), in_axes=(0, None))(three, x)

    def split(multiply: Callable[..., jax.Array], matrix: jax.Array, x: jax.Array) -> jax.Array:
        def of_one(matrix: jax.Array, x: jax.Array) -> jax.Array:
            return jax.grad(lambda matrix: jax.lax.pmean(loss(multiply, matrix, x), "data"))(matrix)

        mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
        specs = PartitionSpec(), PartitionSpec("data")
        return jax.shard_map(of_one, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())(matrix, x)

    # Some products of a second gradient are over few rows, and round nothing where the other rounds by up to 1 / 256.
    tolerances = (
        {second: 2.0**-8, several: 1e-4, split: 1e-4} if narrowed else dict.fromkeys((second, several, split), 1e-5)
    )
    for transformed, tolerance in tolerances.items():
        found, expected = (np.asarray(jax.jit(partial(transformed, way))(matrix, x)) for way in (ours, plain))
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_mode(shape: tuple[int, int, int]) -> None:
    x, matrix, _ = (jnp.asarray(each, jnp.float32) for each in operands(*shape))
    pairs = [
        jax.jvp(partial(loss, way), (matrix, x), (jnp.cos(matrix), jnp.cos(x)))
        for way in (products.product, jnp.matmul)
    ]
    np.testing.assert_allclose(np.asarray(pairs[0]), np.asarray(pairs[1]), rtol=1e-5)
    only = [
        jax.jvp(lambda matrix, way=way: loss(way, matrix, x), (matrix,), (matrix,))
        for way in (products.product, jnp.matmul)
    ]
    np.testing.assert_allclose(np.asarray(only[0]), np.asarray(only[1]), rtol=1e-5)


def test_a_dense_layer_rounds_nothing_over_few_rows(narrow: bool) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)), jnp.float32)
    layer = products.Dense(5, dtype="bfloat16")
    parameters = layer.init(jax.random.key(0), x)
    kernel = np.asarray(parameters["params"]["kernel"])
    y: Any = layer.apply(parameters, x)
    np.testing.assert_allclose(y, x @ kernel, rtol=1e-5, atol=1e-6)


def test_a_convolution_in_bfloat16_is_near_one_in_float32(narrow: bool) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 16)), jnp.float32)
    layers = [networks.Conv(24, (4, 4), (2, 2), dtype=dtype) for dtype in ("float32", "bfloat16")]
    parameters = layers[0].init(jax.random.key(0), x)

    def squares(layer: networks.Conv, parameters: dict[str, Any]) -> jax.Array:
        y: Any = layer.apply(parameters, x)
        return jnp.mean(jnp.square(y.astype(jnp.float32)))

    wide, narrower = (jax.value_and_grad(partial(squares, layer))(parameters) for layer in layers)
    for expected, found in zip(jax.tree.leaves(wide), jax.tree.leaves(narrower), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.02 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [3, 4], ids=["winograd", "rows"])
def test_convolutions_over_many_rows_on_each_of_two_devices(size: int, dtype: str, narrow: bool) -> None:
    """A gradient is that of all images on one device, and so is that of one of several kernels."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 32, 32, 32)), jnp.float32)
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(size, size, 32, 32)) / 16.0, jnp.float32)
    stride = size - 2

    def squares(kernel: jax.Array, x: jax.Array) -> jax.Array:
        y = networks.conv(x.astype(dtype), kernel.astype(dtype), (stride, stride)).astype(jnp.float32)
        return jnp.mean(jnp.sin(y) ** 2)

    def split(kernel: jax.Array, x: jax.Array) -> jax.Array:
        def of_one(kernel: jax.Array, x: jax.Array) -> jax.Array:
            return jax.grad(lambda kernel: jax.lax.pmean(squares(kernel, x), "data"))(kernel)

        mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
        specs = PartitionSpec(), PartitionSpec("data")
        return jax.shard_map(of_one, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())(kernel, x)

    whole = np.asarray(jax.jit(jax.grad(squares))(kernel, x))
    tolerance = 5e-3 if dtype == "bfloat16" else 1e-5  # a gradient in bfloat16 ends in it, by up to 1 / 256
    np.testing.assert_allclose(jax.jit(split)(kernel, x), whole, rtol=0, atol=tolerance * np.abs(whole).max())
    several = jax.jit(jax.vmap(jax.grad(squares), in_axes=(0, None)))(jnp.stack([0.5 * kernel, kernel]), x)
    np.testing.assert_allclose(several[1], whole, rtol=0, atol=tolerance * np.abs(whole).max())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags : fpu avx512_bf16 sse", True),
        ("flags : amx_bf16", True),
        ("Features : fp bf16", True),
        ("flags : avx2", False),
    ],
)
def test_a_processor_says_whether_it_multiplies_bfloat16(
    text: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(platform, "PROCESSOR", tmp_path / "cpuinfo")
    platform.multiplies_bfloat16.cache_clear()
    assert platform.multiplies_bfloat16() == expected
    assert (
        platform.computed_dtype("auto")
        == platform.computed_dtype("bfloat16")
        == ("bfloat16" if expected else "float32")
    )
    assert platform.computed_dtype("float32") == "float32"
    monkeypatch.setattr(platform, "PROCESSOR", tmp_path / "nothing")
    platform.multiplies_bfloat16.cache_clear()
    assert not platform.multiplies_bfloat16()
    platform.multiplies_bfloat16.cache_clear()
