"""Inception v3 as the Frechet Inception distance knows it: the network of TensorFlow's graph of 2015-12-05.

It differs from the paper's, and from the one that classifies ImageNet in PyTorch: average pools do not count their
padding, the last block pools by maximum, and there are 1,008 logits. Layers and parameters have PyTorch's names, so
that weights are found by them; a kernel is [height, width, inputs, outputs] and not PyTorch's [outputs, inputs, height,
width], a matrix [inputs, outputs].
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxgen.intervals import Count
from jaxgen.networks.network import Network

_EPSILON = 1e-3
_Make = Callable[..., Any]

_max_pool = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))


def _average_pool(x: jax.Array) -> jax.Array:
    """Mean over the pixels that there are of 3 x 3 around each."""
    return nn.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)


class _Kernel(nn.Module):
    """A convolution without bias."""

    features: int
    kernel_size: tuple[int, int]
    stride: int
    padding: tuple[int, int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("weight", nn.initializers.he_normal(), shape)
        edges = [(side, side) for side in self.padding]
        strides = (self.stride, self.stride)
        return lax.conv_general_dilated(x, kernel, strides, edges, dimension_numbers=("NHWC", "HWIO", "NHWC"))


class _Normalization(nn.Module):
    """Batch normalisation by statistics that are fixed."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def vector(name: str, init: Any) -> jax.Array:
            return self.param(name, init, x.shape[-1:])[None, None, None]

        scale = vector("weight", nn.initializers.ones)
        shift = vector("bias", nn.initializers.zeros)
        mean = vector("running_mean", nn.initializers.zeros)
        var = vector("running_var", nn.initializers.ones)
        return (x - mean) * (scale * lax.rsqrt(var + _EPSILON)) + shift


class _Conv(nn.Module):
    """Convolution, normalisation, ReLU."""

    features: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = _Kernel(self.features, self.kernel_size, self.stride, self.padding, name="conv")(x)
        return nn.relu(_Normalization(name="bn")(x))


# Kernels with as much padding as keeps the size.
_conv_3x3 = partial(_Conv, kernel_size=(3, 3), padding=(1, 1))
_conv_5x5 = partial(_Conv, kernel_size=(5, 5), padding=(2, 2))
_conv_1x3 = partial(_Conv, kernel_size=(1, 3), padding=(0, 1))
_conv_3x1 = partial(_Conv, kernel_size=(3, 1), padding=(1, 0))
_conv_1x7 = partial(_Conv, kernel_size=(1, 7), padding=(0, 3))
_conv_7x1 = partial(_Conv, kernel_size=(7, 1), padding=(3, 0))
# And the one that halves it.
_reduce_3x3 = partial(_Conv, kernel_size=(3, 3), stride=2)


def _chain(x: jax.Array, name: str, *layers: tuple[_Make, int]) -> jax.Array:
    """Layers one after the other, called name_1, name_2 and so on."""
    for number, (make, features) in enumerate(layers, 1):
        x = make(features, name=f"{name}_{number}")(x)
    return x


def _join(*branches: jax.Array) -> jax.Array:
    return jnp.concatenate(branches, axis=-1)


class _MixedA(nn.Module):
    """The paper's figure 5: 35 x 35 pixels."""

    pool_features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _join(
            _Conv(64, name="branch1x1")(x),
            _chain(x, "branch5x5", (_Conv, 48), (_conv_5x5, 64)),
            _chain(x, "branch3x3dbl", (_Conv, 64), (_conv_3x3, 96), (_conv_3x3, 96)),
            _Conv(self.pool_features, name="branch_pool")(_average_pool(x)),
        )


class _MixedB(nn.Module):
    """From 35 x 35 pixels to 17 x 17."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _join(
            _reduce_3x3(384, name="branch3x3")(x),
            _chain(x, "branch3x3dbl", (_Conv, 64), (_conv_3x3, 96), (_reduce_3x3, 96)),
            _max_pool(x),
        )


class _MixedC(nn.Module):
    """The paper's figure 6: 17 x 17 pixels."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n = self.width
        down_and_across = ((_conv_7x1, n), (_conv_1x7, n), (_conv_7x1, n), (_conv_1x7, 192))
        return _join(
            _Conv(192, name="branch1x1")(x),
            _chain(x, "branch7x7", (_Conv, n), (_conv_1x7, n), (_conv_7x1, 192)),
            _chain(x, "branch7x7dbl", (_Conv, n), *down_and_across),
            _Conv(192, name="branch_pool")(_average_pool(x)),
        )


class _MixedD(nn.Module):
    """From 17 x 17 pixels to 8 x 8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _join(
            _chain(x, "branch3x3", (_Conv, 192), (_reduce_3x3, 320)),
            _chain(x, "branch7x7x3", (_Conv, 192), (_conv_1x7, 192), (_conv_7x1, 192), (_reduce_3x3, 192)),
            _max_pool(x),
        )


class _MixedE(nn.Module):
    """The paper's figure 7: 8 x 8 pixels."""

    pool: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def split(x: jax.Array, name: str) -> jax.Array:
            return _join(_conv_1x3(384, name=f"{name}a")(x), _conv_3x1(384, name=f"{name}b")(x))

        return _join(
            _Conv(320, name="branch1x1")(x),
            split(_chain(x, "branch3x3", (_Conv, 384)), "branch3x3_2"),
            split(_chain(x, "branch3x3dbl", (_Conv, 448), (_conv_3x3, 384)), "branch3x3dbl_3"),
            _Conv(192, name="branch_pool")(self.pool(x)),
        )


class _Linear(nn.Module):
    """x @ weight + bias."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        weight = self.param("weight", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        return x @ weight + self.param("bias", nn.initializers.zeros, (self.features,))[None]


class InceptionV3(Network):
    """Images to the 2,048 features and ``num_classes`` logits of the network behind the Frechet Inception distance.

    features = mean over the pixels of the last block;  logits = features @ weight + bias

    The Inception score's reference code leaves out the bias of the logits.

    Called as ``network(x [B, H, W, 3])``, floats in [0, 1] of 299 x 299 pixels; returns (features [B, 2048], logits
    [B, num_classes]).

    References:
      Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", table 1. Heusel et al. 2017,
      "GANs Trained by a Two Time-Scale Update Rule", section 4 (its use). What TensorFlow's graph of 2015-12-05 does
      otherwise: the PyTorch port of the FID, https://github.com/mseitzer/pytorch-fid.
    """

    num_classes: Count = 1008

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        if x.ndim != 4 or x.shape[3] != 3 or min(x.shape[1:3]) < 75:
            raise ValueError(f"Inception v3 takes images [B, 299, 299, 3], got {list(x.shape)}: resize them")
        x = 2.0 * x - 1.0
        x = _reduce_3x3(32, name="Conv2d_1a_3x3")(x)
        x = _Conv(32, (3, 3), name="Conv2d_2a_3x3")(x)
        x = _max_pool(_conv_3x3(64, name="Conv2d_2b_3x3")(x))
        x = _Conv(80, name="Conv2d_3b_1x1")(x)
        x = _max_pool(_Conv(192, (3, 3), name="Conv2d_4a_3x3")(x))
        for letter, pool_features in zip("bcd", (32, 64, 64), strict=True):
            x = _MixedA(pool_features, name=f"Mixed_5{letter}")(x)
        x = _MixedB(name="Mixed_6a")(x)
        for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
            x = _MixedC(width, name=f"Mixed_6{letter}")(x)
        x = _MixedD(name="Mixed_7a")(x)
        x = _MixedE(_average_pool, name="Mixed_7b")(x)
        around = partial(nn.max_pool, window_shape=(3, 3), padding=((1, 1), (1, 1)))
        x = _MixedE(around, name="Mixed_7c")(x)
        features = jnp.mean(x, axis=(1, 2))
        return features, _Linear(self.num_classes, name="fc")(features)
