"""Convolutions that are fast on every platform: matrix products on the CPU, the platform's own convolution elsewhere.

XLA's CPU compiler takes a slow path for convolutions inside loops (20 to 200 times slower, jax issue 12868) and for
transposed ones everywhere. A convolution of stride s and kernel k is the same as space-to-depth (s x s pixels become
channels) followed by one of stride 1 and ceil(k / s) taps a side, and that is one matrix product for each tap, on a
shifted view of the image. Each function here is both, and the platform it is lowered for chooses.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax

from jaxgen.networks.layers import SpectralNorm

Padding = str | Sequence[tuple[int, int]]
Initializer = Callable[..., jax.Array]

_lecun_normal = nn.initializers.lecun_normal()
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# A product over fewer columns than this spends its time on its result: then the taps are joined to one product.
_NARROW = 64


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


def _depth_kernel(kernel: jax.Array, h: _Side, w: _Side) -> jax.Array:
    """The kernel after space-to-depth: [kh, kw, I, O] -> [taps, sh * sw * I, O]."""
    inputs, outputs = kernel.shape[2:]
    kernel = jnp.pad(kernel, [(0, side.taps * side.stride - side.kernel) for side in (h, w)] + [(0, 0), (0, 0)])
    kernel = kernel.reshape(h.taps, h.stride, w.taps, w.stride, inputs, outputs).transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(h.taps * w.taps, h.stride * w.stride * inputs, outputs)


def _pad(x: jax.Array, *sides: tuple[int, int]) -> jax.Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*side, 0) for side in sides), (0, 0, 0)])


def _product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """x @ matrix over the last axis; flattened, as XLA copies the operands of a product over three axes transposed."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[-1])


def _sum(parts: list[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, parts)


def _conv_by_products(x: jax.Array, kernel: jax.Array, h: _Side, w: _Side) -> jax.Array:
    batch, _, _, channels = x.shape
    kernels = _depth_kernel(kernel, h, w)
    x = _pad(x, *((side.low, side.stride * side.cells - side.fine - side.low) for side in (h, w)))
    x = x.reshape(batch, h.cells, h.stride, w.cells, w.stride, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, h.cells, w.cells, h.stride * w.stride * channels)
    shifts = [(i, j) for i in range(h.taps) for j in range(w.taps)]
    taps, inputs, outputs = kernels.shape
    if taps * outputs < inputs:  # less to shift after the products than before
        products = _product(x, kernels.swapaxes(0, 1).reshape(inputs, taps * outputs))
        parts = jnp.split(products, taps, axis=-1)
        return _sum([y[:, i : i + h.coarse, j : j + w.coarse] for y, (i, j) in zip(parts, shifts, strict=True)])
    shifted = [x[:, i : i + h.coarse, j : j + w.coarse] for i, j in shifts]
    if inputs < _NARROW:
        return _product(jnp.concatenate(shifted, axis=-1), kernels.reshape(-1, kernels.shape[-1]))
    return _sum([_product(part, tap) for part, tap in zip(shifted, kernels, strict=True)])


def _conv_transpose_by_products(x: jax.Array, kernel: jax.Array, h: _Side, w: _Side) -> jax.Array:
    """The transpose of `_conv_by_products`: the products are spread over the cells they meet, and added up."""
    batch, features = x.shape[0], kernel.shape[3]
    # The convolution it is the transpose of reads the features and has its kernel flipped.
    kernels = _depth_kernel(jnp.flip(kernel, (0, 1)).swapaxes(2, 3), h, w).swapaxes(1, 2)
    if kernels.shape[-1] < _NARROW:
        parts = jnp.split(_product(x, kernels.swapaxes(0, 1).reshape(x.shape[-1], -1)), len(kernels), axis=-1)
    else:
        parts = [_product(x, tap) for tap in kernels]
    shifts = [(i, j) for i in range(h.taps) for j in range(w.taps)]
    placed = [_pad(part, (i, h.taps - 1 - i), (j, w.taps - 1 - j)) for part, (i, j) in zip(parts, shifts, strict=True)]
    y = _sum(placed).reshape(batch, h.cells, w.cells, h.stride, w.stride, features).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(batch, h.cells * h.stride, w.cells * w.stride, features)
    return _pad(y, *((-side.low, side.fine + side.low - side.stride * side.cells) for side in (h, w)))


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
        # No CPU multiplies bfloat16: sums over the taps are at least kept in float32, as accelerators keep theirs.
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return by_products(x.astype(wide), kernel.astype(wide), *sides).astype(x.dtype)

    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=lambda x, kernel: by_platform(x, kernel, *sides))


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

    y[b, i, j, o] = sum_{k, l, c} x[b, s i + k - low, s j + l - low, c] kernel[k, l, c, o]

    The same as `jax.lax.conv_general_dilated` under every transformation, to float tolerance.

    Args:
      x: images, [B, H, W, I].
      kernel: [kh, kw, I, O], of the type of x.
      strides: steps down and right in pixels.
      padding: "SAME" (output of ceil(H / stride) pixels a side), "VALID", or two pairs (low, high) of pixels.

    Returns:
      Images, [B, H', W', O].

    Raises:
      ValueError: shapes, strides or padding do not fit.
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
      strides: by how much the image grows, down and right.
      padding: "SAME" (output of H * stride pixels a side), "VALID", or two pairs (low, high) of pixels around the
        dilated image.

    Returns:
      Images, [B, H', W', O].

    Raises:
      ValueError: shapes, strides or padding do not fit.
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


class Conv(nn.Module):
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
      axis_name: mapped axis or axes over which the global batch is split; for `SpectralNorm`.

    Called as ``layer(x [B, H, W, I], train=False)``; returns [B, H', W', O].
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
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
        return y if bias is None else y + bias[None, None, None]


class ConvTranspose(Conv):
    """A transposed convolution with the parameters, the initialisation and the result of Flax's, fast on the CPU too.

    Args:
      features: number of output channels O.
      kernel_size: height and width of the kernel.
      strides: by how much the image grows, down and right.
      padding: "SAME", "VALID", or two pairs (low, high) of pixels around the dilated image.
      use_bias: whether to add a bias.
      dtype: type of the computation, e.g. "bfloat16"; that of inputs and parameters when None. Parameters stay float32.
      kernel_init: initialiser of the kernel; Flax's default, LeCun's normal one, when None. A bias starts at zero.
      spectral_norm: whether to divide the kernel by its spectral norm (`SpectralNorm`).
      axis_name: mapped axis or axes over which the global batch is split; for `SpectralNorm`.

    Called as ``layer(x [B, H, W, I], train=False)``; returns [B, H', W', O].
    """

    _function = staticmethod(conv_transpose)
