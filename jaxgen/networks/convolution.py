"""Convolutions that are fast on every platform: matrix products on the CPU, and on CUDA where there are few channels;
the platform's own convolution elsewhere.

XLA's CPU compiler takes a slow path for convolutions inside loops (20 to 200 times slower, jax issue 12868) and for
transposed ones everywhere. A convolution is the sum over the rows of its kernel of one matrix product each: of the
lines that the row meets, s neighbouring pixels taken as channels and ceil(k / s) shifted copies side by side, with that
row; its transpose spreads the same products. Each function here is both, and the platform it is lowered for chooses.
A convolution of 3 x 3 and stride 1 over many channels takes Winograd's sixteen products instead.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax

from jaxgen.intervals import Count, Integer
from jaxgen.networks import winograd
from jaxgen.networks.channels import spread
from jaxgen.networks.layers import SpectralNorm
from jaxgen.networks.network import Network
from jaxgen.networks.products import product

Padding = str | Sequence[tuple[Integer, Integer]]
Initializer = Callable[..., jax.Array]
Multiply = Callable[[jax.Array, jax.Array], jax.Array]

_lecun_normal = nn.initializers.lecun_normal()
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# A product over fewer columns than this spends its time on its result: then the taps are joined to one product.
_NARROW = 64
# Of images with so few channels cuDNN makes padded copies: on an H100 the products were faster (benchmarks/README.md).
_FEW_CHANNELS = 4
# Over so many channels, in and out, Winograd's products are faster than those of rows (benchmarks/README.md).
_MANY_CHANNELS = 32


class _Side(NamedTuple):
    """One spatial side of a convolution: fine[stride * i + k - low] meets coarse[i] in kernel[k]."""

    fine: int  # size of the image a convolution reads, and a transposed one writes
    coarse: int  # size of the other
    kernel: int
    stride: int
    low: int

    @property
    def high(self) -> int:
        return self.stride * (self.coarse - 1) + self.kernel - self.fine - self.low

    @property
    def taps(self) -> int:
        """Taps of the same convolution after space-to-depth."""
        return -(-self.kernel // self.stride)

    @property
    def cells(self) -> int:
        """Cells of ``stride`` pixels that those taps meet."""
        return self.coarse - 1 + self.taps


def _pad(x: jax.Array, *sides: tuple[int, int]) -> jax.Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*side, 0) for side in sides), (0, 0, 0)])


def _product(x: jax.Array, matrix: jax.Array, multiply: Multiply) -> jax.Array:
    """x @ matrix over the last axis; flattened, as XLA copies the operands of a product over three axes transposed."""
    return multiply(x.reshape(-1, x.shape[-1]), matrix).reshape(*x.shape[:-1], matrix.shape[-1])


def _sum(parts: list[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, parts)


def _row_kernels(kernel: jax.Array, w: _Side) -> jax.Array:
    """The kernel with its columns padded to whole cells: [kh, kw, I, O] -> [kh, taps, stride * I, O]."""
    kernel = jnp.pad(kernel, [(0, 0), (0, w.taps * w.stride - w.kernel), (0, 0), (0, 0)])
    return kernel.reshape(kernel.shape[0], w.taps, w.stride * kernel.shape[2], kernel.shape[3])


def _conv_by_products(x: jax.Array, kernel: jax.Array, h: _Side, w: _Side, multiply: Multiply) -> jax.Array:
    batch, _, _, channels = x.shape
    kernels = _row_kernels(kernel, w)
    num_rows, taps, inputs, outputs = kernels.shape
    x = _pad(x, (h.low, h.high), (w.low, w.stride * w.cells - w.fine - w.low))
    x = x.reshape(batch, -1, w.cells, w.stride * channels)  # pixels of a cell are neighbours in memory

    def met(x: jax.Array, row: int, tap: int) -> jax.Array:
        return x[:, row : row + h.stride * (h.coarse - 1) + 1 : h.stride, tap : tap + w.coarse]

    if num_rows * taps * outputs < inputs:  # less to shift after the products than before
        products = _product(x, kernels.transpose(2, 0, 1, 3).reshape(inputs, -1), multiply)
        parts = jnp.split(products, num_rows * taps, axis=-1)
        return _sum([met(part, *divmod(number, taps)) for number, part in enumerate(parts)])
    rows = [jnp.concatenate([met(x, row, tap) for tap in range(taps)], axis=-1) for row in range(num_rows)]
    if taps * inputs < _NARROW:
        return _product(jnp.concatenate(rows, axis=-1), kernels.reshape(-1, outputs), multiply)
    return _sum(
        [_product(row, matrix.reshape(-1, outputs), multiply) for row, matrix in zip(rows, kernels, strict=True)]
    )


def _conv_transpose_by_products(x: jax.Array, kernel: jax.Array, h: _Side, w: _Side, multiply: Multiply) -> jax.Array:
    """The transpose of `_conv_by_products`: the products are spread over the lines they meet, and added up."""
    batch, inputs, features = x.shape[0], x.shape[3], kernel.shape[3]
    # The convolution it is the transpose of reads the features and has its kernel flipped.
    kernels = _row_kernels(jnp.flip(kernel, (0, 1)).swapaxes(2, 3), w)
    num_rows, taps, outputs, _ = kernels.shape
    matrices = kernels.reshape(num_rows, taps * outputs, inputs).swapaxes(1, 2)
    if taps * outputs < _NARROW:
        rows = jnp.split(_product(x, matrices.swapaxes(0, 1).reshape(inputs, -1), multiply), num_rows, axis=-1)
    else:
        rows = [_product(x, matrix, multiply) for matrix in matrices]
    num_lines = h.low + h.fine + h.high
    last = h.stride * (h.coarse - 1) + 1

    def placed(products: jax.Array, row: int) -> jax.Array:
        parts = jnp.split(products, taps, axis=-1)
        line = _sum([_pad(part, (0, 0), (tap, taps - 1 - tap)) for tap, part in enumerate(parts)])
        edges = [(0, 0, 0), (row, num_lines - row - last, h.stride - 1), (0, 0, 0), (0, 0, 0)]
        return lax.pad(line, jnp.zeros((), line.dtype), edges)

    y = _sum([placed(products, row) for row, products in enumerate(rows)])
    y = y.reshape(batch, num_lines, w.cells * w.stride, features)
    return _pad(y, (-h.low, -h.high), (-w.low, w.fine + w.low - w.stride * w.cells))


def _conv_by_platform(x: jax.Array, kernel: jax.Array, h: _Side, w: _Side) -> jax.Array:
    padding = [(side.low, side.high) for side in (h, w)]
    return lax.conv_general_dilated(x, kernel, (h.stride, w.stride), padding, dimension_numbers=_DIMENSIONS)


def _conv_transpose_by_platform(x: jax.Array, kernel: jax.Array, h: _Side, w: _Side) -> jax.Array:
    padding = [(side.kernel - 1 - side.low, side.kernel - 1 - side.high) for side in (h, w)]
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, lhs_dilation=(h.stride, w.stride), dimension_numbers=_DIMENSIONS
    )


def _choose(
    by_products: Callable[..., jax.Array],
    by_platform: Callable[..., jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    *sides: _Side,
) -> jax.Array:
    def on_cpu(x: jax.Array, kernel: jax.Array) -> jax.Array:
        # Few CPUs multiply bfloat16, and none adds it: all but products is float32.
        wide = jnp.promote_types(x.dtype, jnp.float32)
        many = min(kernel.shape[2:]) >= _MANY_CHANNELS and all((side.kernel, side.stride) == (3, 1) for side in sides)
        images, kernel = lax.optimization_barrier(x.astype(wide)), kernel.astype(wide)
        if many and by_products is _conv_by_products:
            above_below, left_right = ((side.low, side.high) for side in sides)
            y = winograd.convolve(images, kernel, (above_below, left_right), x.dtype)
        else:
            y = by_products(images, kernel, *sides, functools.partial(product, dtype=x.dtype))
        return y.astype(x.dtype)

    def on_cuda(x: jax.Array, kernel: jax.Array) -> jax.Array:
        if min(kernel.shape[2:]) > _FEW_CHANNELS:
            return by_platform(x, kernel, *sides)
        # Without the barrier, whatever made x is computed anew for each pixel of each tap.
        return by_products(lax.optimization_barrier(x), kernel, *sides, jnp.matmul)

    return lax.platform_dependent(
        x, kernel, cpu=on_cpu, cuda=on_cuda, default=lambda x, kernel: by_platform(x, kernel, *sides)
    )


def _check(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding) -> None:
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(
            f"expected images [B, H, W, I] and a kernel [kh, kw, I, O], got {list(x.shape)} and {list(kernel.shape)}"
        )
    if len(strides) != 2 or min(strides) < 1:
        raise ValueError(f"strides must be two numbers of at least 1, got {strides}")
    if isinstance(padding, str) and padding not in ("SAME", "VALID"):
        raise ValueError(f"padding must be 'SAME', 'VALID' or two pairs (low, high), got {padding!r}")


def conv(x: jax.Array, kernel: jax.Array, strides: tuple[int, int] = (1, 1), padding: Padding = "SAME") -> jax.Array:
    """Convolve images, by matrix products on the CPU and by the platform's convolution on GPU and TPU.

    y[b, i, j, o] = sum_{k, l, c} x[b, s i + k - low, s j + l - low, c] kernel[k, l, c, o],  images [B, H', W', O]

    The same as `jax.lax.conv_general_dilated` under every transformation, to float tolerance.

    Args:
      x: images, [B, H, W, I].
      kernel: [kh, kw, I, O], of the type of x.
      strides: steps down and right in pixels.
      padding: "SAME" (output of ceil(H / stride) pixels a side), "VALID", or two pairs (low, high) of pixels.
    """
    _check(x, kernel, strides, padding)
    pixels, window = x.shape[1:3], kernel.shape[:2]
    edges = lax.padtype_to_pads(pixels, window, strides, padding) if isinstance(padding, str) else padding
    sides = [
        _Side(size, (size + low + high - k) // stride + 1, k, stride, low)
        for size, k, stride, (low, high) in zip(pixels, window, strides, edges, strict=True)
    ]
    if min(side.coarse for side in sides) < 1:
        raise ValueError(f"a kernel of {list(window)} does not fit into {list(pixels)} pixels with padding {padding!r}")
    return _choose(_conv_by_products, _conv_by_platform, x, kernel, *sides)


def _transposed_edges(k: int, stride: int, padding: str) -> tuple[int, int]:
    """How `jax.lax.conv_transpose` pads the dilated image."""
    if padding == "SAME":
        total = k + stride - 2
        low = k - 1 if stride > k - 1 else -(-total // 2)
        return low, total - low
    return k - 1, stride - 1 + max(k - stride, 0)


def conv_transpose(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int] = (1, 1), padding: Padding = "SAME"
) -> jax.Array:
    """Convolve images dilated by the strides: a fractionally strided, so-called transposed convolution.

    y[b, m, n, o] = sum_{i, j, c} x[b, i, j, c] kernel[s i + low - m, s j + low - n, c, o], kernel spatially unflipped

    The same as `jax.lax.conv_transpose` under every transformation, to float tolerance.

    Args:
      x: images, [B, H, W, I].
      kernel: [kh, kw, I, O], of the type of x.
      strides: by how much the image grows, down and right: to [B, H', W', O].
      padding: "SAME" (output of H * stride pixels a side), "VALID", or two pairs (low, high) of pixels around the
        dilated image.
    """
    _check(x, kernel, strides, padding)
    window = kernel.shape[:2]
    edges = (
        [_transposed_edges(k, stride, padding) for k, stride in zip(window, strides, strict=True)]
        if isinstance(padding, str)
        else padding
    )
    sides = [
        _Side((size - 1) * stride + 2 + low + high - k, size, k, stride, k - 1 - low)
        for size, k, stride, (low, high) in zip(x.shape[1:3], window, strides, edges, strict=True)
    ]
    return _choose(_conv_transpose_by_products, _conv_transpose_by_platform, x, kernel, *sides)


def _box(kernel: jax.Array) -> jax.Array:
    """The kernel summed over each two neighbouring taps, down and right: one tap more a side."""
    for axis in (0, 1):
        edges = [[(0, 0, 0)] * 4 for _ in range(2)]
        edges[0][axis], edges[1][axis] = (0, 1, 0), (1, 0, 0)
        kernel = _sum([lax.pad(kernel, jnp.zeros((), kernel.dtype), edge) for edge in edges])
    return kernel


def _shrinking(x: jax.Array, kernel: jax.Array, strides: Any = None, padding: Any = None) -> jax.Array:
    return conv(x, _box(kernel) / 4.0, (2, 2), "SAME")


def _enlarging(x: jax.Array, kernel: jax.Array, strides: Any = None, padding: Any = None) -> jax.Array:
    return conv_transpose(x, _box(kernel), (2, 2), "SAME")


class Conv(Network):
    """A convolution with the parameters, the initialisation and the result of Flax's, fast on the CPU as well.

    Args:
      features: number of output channels O.
      kernel_size: height and width of the kernel.
      strides: steps down and right in pixels.
      padding: "SAME", "VALID", or two pairs (low, high) of pixels.
      use_bias: whether to add a bias.
      dtype: type of the computation, e.g. "bfloat16"; that of inputs and parameters when None. Parameters stay float32.
      kernel_init: initialiser of the kernel; Flax's default, LeCun's normal one, when None. A bias starts at zero.
      spectral_norm: whether to divide the kernel by its spectral norm (`SpectralNorm`).
      axis_name: mapped axis or axes over which the global batch is split, for the spectral norm.

    Called as ``layer(x [B, H, W, I], train=False)``; returns [B, H', W', O].
    """

    features: Count
    kernel_size: tuple[Count, Count]
    strides: tuple[Count, Count] = (1, 1)
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Initializer | None = None
    spectral_norm: bool = False
    axis_name: Any = None

    _function = staticmethod(conv)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init or _lecun_normal, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32) if self.use_bias else None
        if self.spectral_norm:
            kernel = SpectralNorm(self.axis_name, name="spectral_norm")(kernel, train=train)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = self._function(x, kernel, self.strides, self.padding)
        if bias is None:
            return y
        wide = jnp.promote_types(y.dtype, jnp.float32)  # of its gradient's sum
        return y + spread(bias.astype(wide), y.shape).astype(y.dtype)


class ConvTranspose(Conv):
    """A transposed convolution with the parameters, the initialisation and the result of Flax's, fast on the CPU too.

    Its fields are those of `Conv`; by ``strides`` the image grows, and ``padding`` is around the dilated image.

    Called as ``layer(x [B, H, W, I], train=False)``; returns [B, H', W', O].
    """

    _function = staticmethod(conv_transpose)


class _ResizingConv(Conv):
    """Fields that only `Conv` has a use for are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.kernel_size, self.strides, self.padding
        if given != ((3, 3), (1, 1), "SAME"):
            raise ValueError(f"{type(self).__name__} has kernel_size (3, 3), strides (1, 1) and 'SAME', got {given}")


class ShrinkingConv(_ResizingConv):
    """A convolution of 3 x 3, then the mean of each 2 x 2 pixels, by 16 products a pixel instead of 36.

    It is a convolution of 4 x 4 and stride 2, whose kernel is the mean of the four places of the smaller one.

    Called as ``layer(x [B, 2H, 2W, I], train=False)``; returns [B, H, W, O].
    """

    _function = staticmethod(_shrinking)


class EnlargingConv(_ResizingConv):
    """Each pixel four times, then a convolution of 3 x 3, by 16 products a pixel instead of 36.

    It is a transposed convolution of 4 x 4 and stride 2, whose kernel is the sum of the four places of the smaller one.

    Called as ``layer(x [B, H, W, I], train=False)``; returns [B, 2H, 2W, O].
    """

    _function = staticmethod(_enlarging)
