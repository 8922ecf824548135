"""The floor under a step: its matrix products alone, and one pass over what the optimizer reads and writes.

The products have the step's shapes and do not wait for each other. They are listed here from the layers, not taken from
a program: each layer has one product forward, one for its kernel's gradient and one for its input's, and a pass over a
network leaves some of them out. A convolution is the product of its patches with its kernel on the CPU, and the
platform's own convolution elsewhere. What Adam must move is 28 bytes a parameter: it reads the gradient, the parameter
and two moments, and writes the last three.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks import families, jax_worker, protocol
from benchmarks.families import Family

Product = Literal["forward", "kernel", "input"]
BYTES_A_PARAMETER = 28


class Layer(NamedTuple):
    """A layer as a product [rows, inputs] x [inputs, outputs].

    Args:
      rows: images, or patches of all images.
      inputs: values that a row has.
      outputs: values that it gets.
      biases: parameters besides the kernel's.
      image: shapes of the larger and the smaller image where it is a convolution, else None.
      transposed: whether it makes the larger of the two.
      window: pixels along a side of a convolution's kernel.
      stride: of a convolution.
    """

    rows: int
    inputs: int
    outputs: int
    biases: int
    image: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    transposed: bool = False
    window: int = 4
    stride: int = 2


class Pass(NamedTuple):
    """A network's use in a step: which products each layer has."""

    layers: list[Layer]
    products: tuple[Product, ...]
    inputs_too: bool  # whether the first layer's input needs a gradient as well

    def __iter__(self) -> Iterator[Any]:  # pairs of a layer and a product
        for number, layer in enumerate(self.layers):
            for product in self.products:
                if product != "input" or number > 0 or self.inputs_too:
                    yield layer, product


def dense(batch_size: int, sizes: tuple[int, ...]) -> list[Layer]:
    """Fully connected layers of these sizes."""
    return [Layer(batch_size, i, o, o) for i, o in itertools.pairwise(sizes)]


def convolutions(family: Family, transposed: bool) -> list[Layer]:
    """Strided layers, from the image down, or from the smallest image up."""
    side, channels = family.image_shape[0], family.image_shape[2]
    layers = []
    for number in range(family.halvings):
        side //= 2
        features = family.width * 2**number
        large = (family.batch_size, 2 * side, 2 * side, channels)
        small = (family.batch_size, side, side, features)
        rows, patch = family.batch_size * side * side, 16 * channels
        if transposed:
            biases = channels if number == 0 else 2 * channels
            layers.append(Layer(rows, features, patch, biases, (large, small), True))
        else:
            layers.append(Layer(rows, patch, features, features if number == 0 else 2 * features, (large, small)))
        channels = features
    return layers[::-1] if transposed else layers


def same(batch_size: int, side: int, inputs: int, outputs: int, biases: int) -> Layer:
    """A 3 x 3 convolution of stride 1."""
    image = (batch_size, side, side, inputs), (batch_size, side, side, outputs)
    return Layer(batch_size * side * side, 9 * inputs, outputs, biases, image, window=3, stride=1)


def residual_networks(family: Family) -> tuple[list[Layer], list[Layer]]:
    """A generator whose blocks double the image, BatchNorm before both convolutions, and a discriminator without it.

    The shortcuts, of 1 x 1 where channels change, are at the smaller size in the one and at the larger in the other.
    """
    batch, halvings, side = family.batch_size, family.halvings, family.image_shape[0]
    corner, channels = side >> halvings, family.width * 2 ** min(halvings - 1, 3)
    values = corner * corner * channels
    generator = [Layer(batch, family.latent_dim, values, values)]
    for number in range(halvings):
        features, large = family.width * 2 ** min(halvings - 1 - number, 3), corner << number + 1
        generator.append(same(batch, large, channels, features, 2 * channels))
        generator.append(same(batch, large, features, features, 3 * features))
        if channels != features:
            generator.append(Layer(batch * (large // 2) ** 2, channels, features, 0))
        channels = features
    generator.append(same(batch, side, channels, family.image_shape[2], 2 * channels + family.image_shape[2]))
    channels = family.width
    discriminator = [same(batch, side, family.image_shape[2], channels, channels)]
    for number in range(halvings):
        features, large = family.width * 2 ** min(number + 1, 3), side >> number
        discriminator.append(same(batch, large, channels, features, features))
        discriminator.append(same(batch, large, features, features, features))
        if channels != features:
            discriminator.append(Layer(batch * large * large, channels, features, 0))
        channels = features
    discriminator.append(Layer(batch, corner * corner * channels, 1, 0))
    return generator, discriminator


def autoencoder(family: Family) -> tuple[list[Layer], list[Layer], list[Layer]]:
    """Encoder, decoder and discriminator of a tokenizer of two halvings; GroupNorm has two numbers a channel."""
    batch, width, channels, side = family.batch_size, family.width, family.image_shape[2], family.image_shape[0]
    latents = len(family.levels)

    def block(side: int, inputs: int, outputs: int) -> list[Layer]:
        shortcut = [Layer(batch * side * side, inputs, outputs, outputs)] if inputs != outputs else []
        both = [same(batch, side, n, outputs, 2 * n + outputs) for n in (inputs, outputs)]
        return [*both, *shortcut]

    def halved(side: int, features: int) -> Layer:
        image = (batch, side, side, features), (batch, side // 2, side // 2, features)
        return Layer(batch * (side // 2) ** 2, 9 * features, features, features, image, window=3)

    encoder = [same(batch, side, channels, width, width), *block(side, width, width), halved(side, width)]
    encoder += [*block(side // 2, width, 2 * width), halved(side // 2, 2 * width)]
    encoder += [
        *block(side // 4, 2 * width, 2 * width),
        same(batch, side // 4, 2 * width, latents, 4 * width + latents),
    ]
    decoder = [same(batch, side // 4, latents, 2 * width, 2 * width), *block(side // 4, 2 * width, 2 * width)]
    decoder += [same(batch, side // 2, 2 * width, 2 * width, 2 * width), *block(side // 2, 2 * width, 2 * width)]
    decoder += [same(batch, side, 2 * width, 2 * width, 2 * width), *block(side, 2 * width, width)]
    decoder += [same(batch, side, width, channels, 2 * width + channels)]
    judged, inputs, large = [], channels, side
    for number, stride in enumerate((2, 2, 1, 1) if family.discriminator_width else ()):
        outputs = 1 if number == 3 else family.discriminator_width * 2**number
        small = large // 2 if stride == 2 else large - 1
        from_side = large if stride == 2 else small  # as many pixels as it makes: the floor's convolutions keep a size
        image = (batch, from_side, from_side, inputs), (batch, small, small, outputs)
        judged.append(Layer(batch * small * small, 16 * inputs, outputs, outputs, image, stride=stride))
        inputs, large = outputs, small
    return encoder, decoder, judged


def networks(family: Family) -> tuple[list[Layer], ...]:
    """Layers of the encoder and the decoder, or of the generator and the discriminator; of a tokenizer all three."""
    if family.kind == "tokenizer":
        return autoencoder(family)
    if family.kind == "vae":
        encoder = dense(family.batch_size, (family.num_pixels, *family.hidden))
        heads = 2 * dense(family.batch_size, (family.hidden[-1], family.latent_dim))
        sizes = (family.latent_dim, *family.hidden[::-1], family.num_pixels)
        return [*encoder, *heads], dense(family.batch_size, sizes)
    if family.kind == "gan":
        generator = dense(family.batch_size, (family.latent_dim, *family.hidden, family.num_pixels))
        return generator, dense(family.batch_size, (family.num_pixels, *family.hidden, 1))
    if family.kind == "resnet":
        return residual_networks(family)
    ups, downs = convolutions(family, True), convolutions(family, False)
    corner = math.prod(downs[-1].image[1][1:]) if downs[-1].image else 0
    features = family.width * 2 ** (family.halvings - 1)
    project = Layer(family.batch_size, family.latent_dim, corner, 2 * features)
    return [project, *ups], [*downs, Layer(family.batch_size, corner, 1, 0)]


def passes(family: Family) -> list[Pass]:
    """What a step must compute."""
    first, second, *third = networks(family)
    everything: tuple[Product, ...] = ("forward", "kernel", "input")
    if family.kind == "tokenizer":
        judged = Pass(third[0], everything, False)
        return [
            Pass(first, everything, False),
            Pass(second, everything, True),
            *(judged, judged, Pass(third[0], ("forward", "input"), True)),
        ]
    if family.kind == "vae":
        return [Pass(first, everything, False), Pass(second, everything, True)]
    return [
        Pass(first, everything, False),  # the fakes, once
        Pass(second, everything, False),  # the discriminator on real images
        Pass(second, everything, False),  # and on fakes
        Pass(second, ("forward", "input"), True),  # after its update, for the generator's gradient
    ]


def num_parameters(family: Family) -> int:
    """Parameters of both networks."""
    return sum(layer.inputs * layer.outputs + layer.biases for network in networks(family) for layer in network)


def num_operations(family: Family) -> int:
    """Multiplications and additions of a step's products."""
    return sum(2 * layer.rows * layer.inputs * layer.outputs for each in passes(family) for layer, _ in each)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _as_convolution(
    layer: Layer, product: Product
) -> tuple[tuple[int, ...], tuple[int, ...], Callable[..., jax.Array]]:
    assert layer.image is not None
    large, small = layer.image
    kernel = (layer.window, layer.window, large[3], small[3])
    convolve = functools.partial(_convolve, stride=layer.stride)

    def transpose(function: Callable[..., Any], shape: tuple[int, ...], like: jax.Array) -> Any:
        return jax.linear_transpose(function, jax.ShapeDtypeStruct(shape, like.dtype))

    if product == "kernel":
        return large, small, lambda x, y: transpose(lambda k: convolve(x, k), kernel, x)(y)[0]
    if (product == "forward") == layer.transposed:
        return small, kernel, lambda y, k: transpose(lambda x: convolve(x, k), large, y)(y)[0]
    return large, kernel, convolve


def _as_product(layer: Layer, product: Product) -> tuple[tuple[int, ...], tuple[int, ...], Callable[..., jax.Array]]:
    rows, inputs, outputs = layer.rows, layer.inputs, layer.outputs
    if product == "forward":
        return (rows, inputs), (inputs, outputs), lambda x, k: x @ k
    if product == "kernel":
        return (rows, inputs), (rows, outputs), lambda x, g: lax.dot_general(x, g, (((0,), (0,)), ((), ())))
    return (rows, outputs), (inputs, outputs), lambda g, k: lax.dot_general(g, k, (((1,), (1,)), ((), ())))


def products(family: Family, num_members: int = 1) -> Callable[[int], Any]:
    """A loop over the products of a step, or of a step of so many members of a population."""
    on_cpu = jax.default_backend() == "cpu"
    parts = [
        _as_product(layer, product) if layer.image is None or on_cpu else _as_convolution(layer, product)
        for each in passes(family)
        for layer, product in each
    ]
    functions = [function if num_members == 1 else jax.vmap(function) for _, _, function in parts]
    members = () if num_members == 1 else (num_members,)
    dtype = jnp.float32 if on_cpu else jnp.dtype(family.dtype)  # as the networks on the CPU

    @jax.jit
    def draw(key: jax.Array) -> list[Any]:
        keys = jax.random.split(key, len(parts))
        shapes = [(left, right) for left, right, _ in parts]
        return [
            tuple(
                jax.random.normal(k, (*members, *shape), jnp.float32).astype(dtype)
                for k, shape in zip(pair, both, strict=True)
            )
            for pair, both in zip([jax.random.split(k) for k in keys], shapes, strict=True)
        ]

    @jax.jit
    def loop(operands: list[Any], num_steps: jax.Array) -> Any:
        def compute(operands: list[Any]) -> list[jax.Array]:
            return [function(*pair) for function, pair in zip(functions, operands, strict=True)]

        def body(number: jax.Array, _: Any) -> Any:
            # For all the compiler knows the operands are new in each iteration, and the results are all kept.
            fresh, _ = lax.optimization_barrier((operands, number))
            return compute(fresh)

        empty = [jnp.zeros(result.shape, result.dtype) for result in jax.eval_shape(compute, operands)]
        return lax.fori_loop(0, num_steps, body, empty)

    operands = draw(jax.random.key(0))
    return lambda steps: loop(operands, jnp.asarray(steps, jnp.int32))


def optimizer_traffic(size: int) -> Callable[[int], Any]:
    """A loop over one pass through gradient, parameters and moments of so many parameters."""

    @jax.jit
    def loop(gradient: jax.Array, carry: Any, num_steps: jax.Array) -> Any:
        def body(_: Any, carry: Any) -> Any:
            parameters, first, second = carry
            first, second = 0.5 * first + gradient, 0.25 * second + gradient
            return 0.5 * parameters + first - second, first, second

        return lax.fori_loop(0, num_steps, body, carry)

    gradient = jnp.ones((size,))
    held = [(jnp.zeros((size,)), jnp.zeros((size,)), jnp.zeros((size,)))]

    def run(steps: int) -> Any:
        held[0] = loop(gradient, held[0], jnp.asarray(steps, jnp.int32))
        return held[0]

    return run


def main() -> None:
    """Answer each line of the input."""
    options = protocol.arguments().parse_args()
    family = families.read(options.family, options.changes)
    num_members = int(options.variant.partition("-")[2] or 1)
    size = num_members * num_parameters(family)
    take_products = jax_worker.timed(products(family, num_members))
    take_traffic = jax_worker.timed(optimizer_traffic(size))

    def take(steps: int) -> dict[str, float]:
        both = take_products(steps), take_traffic(steps)
        return {
            "seconds": sum(both),
            "products_seconds_a_step": both[0] / steps,
            "traffic_seconds_a_step": both[1] / steps,
            "bytes_a_second": BYTES_A_PARAMETER * size * steps / both[1],
        }

    about = {**jax_worker.about(family), "operations": num_members * num_operations(family), "parameters": size}
    if jax.default_backend() == "cpu":
        about["precision"] = "float32"
    protocol.serve(about, take, jax_worker.device_bytes)


if __name__ == "__main__":
    main()
