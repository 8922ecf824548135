"""Layers of several networks: those that must know their place in the global batch, and spectral normalisation.

Their ``axis_name`` names the mapped axis or axes over which the global batch is split, None when it is not.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.intervals import Count, Rate
from jaxgen.keys import AxisName, example_keys
from jaxgen.networks.channels import channel_sum, spread
from jaxgen.networks.conditioning import one_hot
from jaxgen.networks.network import Network
from jaxgen.networks.products import Dense


class Dropout(Network):
    """Dropout whose mask depends on the example's global index, not on how the batch is laid out over devices.

    y = x * mask / (1 - rate),  mask ~ Bernoulli(1 - rate), drawn per example,  rate in [0, 1)

    Called as ``dropout(x [B, ...], train=...)``; needs a ``dropout`` key when training. Returns [B, ...].

    References:
      Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", section 4.
    """

    rate: Rate
    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if not train or self.rate == 0:
            return x
        axis_name: AxisName = self.axis_name
        keys = example_keys(self.make_rng("dropout"), x.shape[0], axis_name)
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1.0 - self.rate), 0.0)


class _Normalization(nn.Module):
    """Flax's BatchNorm, its parameters and statistics, written so that XLA finds equal passes.

    A GAN's step makes the same fakes twice, once to differentiate. Flax gives a channel's statistics the rank of the
    images before it takes their root; XLA then moves that reshape in one of the passes only, and computes both.
    """

    affine: bool
    dtype: str
    axis_name: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def kept(name: str, init: Any) -> Any:
            return self.variable("batch_stats", name, init, x.shape[-1:], jnp.float32)

        running_mean, running_var = kept("mean", jnp.zeros), kept("var", jnp.ones)
        mean, var = running_mean.value, running_var.value
        x = x.astype(jnp.float32)
        if train:
            count = x.size // x.shape[-1]
            moments = jnp.stack([channel_sum(x), channel_sum(jnp.square(x))]) / count
            if self.axis_name is not None:
                moments = jax.lax.pmean(moments, self.axis_name)
            mean, var = moments[0], jnp.maximum(moments[1] - jnp.square(moments[0]), 0.0)
            if not self.is_initializing():
                running_mean.value = 0.9 * running_mean.value + 0.1 * mean
                running_var.value = 0.9 * running_var.value + 0.1 * var
        scale = jax.lax.rsqrt(var + 1e-5)
        if self.affine:
            scale = scale * self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        y = (x - spread(mean, x.shape)) * spread(scale, x.shape)
        if self.affine:
            y = y + spread(self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32), x.shape)
        return y.astype(self.dtype)


class BatchNorm(Network):
    """Batch normalisation over the global batch, its scale and shift learnt for all images or for each class.

    y = scale_c (x - mean) / sqrt(var + 1e-5) + shift_c

    Running averages forget by 0.9 a pass. Statistics and parameters are float32. A layer before it needs no bias.

    Args:
      axis_name: mapped axis or axes over which the global batch is split.
      num_classes: number of classes, each with a scale and a shift; None for one of both.
      dtype: type of the result.

    Called as ``layer(x [B, ..., C], label=None, train=...)``; returns [B, ..., C].

    References:
      Ioffe & Szegedy 2015, "Batch Normalization", algorithm 1. de Vries et al. 2017, "Modulating early visual
      processing by language", section 3 (per class, starting from the identity).
    """

    axis_name: Any = None
    num_classes: Count | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        shared = self.num_classes is None
        y = _Normalization(shared, self.dtype, self.axis_name, name="normalization")(x, train=train)
        if self.num_classes is None:
            return y
        chosen = one_hot(self, label, self.num_classes)
        scale, shift = (
            Dense(x.shape[-1], use_bias=False, kernel_init=nn.initializers.zeros, dtype=self.dtype, name=name)(chosen)
            for name in ("scale", "shift")
        )
        expand = tuple(range(1, x.ndim - 1))
        return y * (1.0 + jnp.expand_dims(scale, expand)) + jnp.expand_dims(shift, expand)


class GroupNorm(Network):
    """Group normalisation: each image by itself, over places and groups of neighbouring channels, in training as later.

    y = scale_c (x - mean) / sqrt(var + 1e-6) + shift_c

    Statistics and parameters are float32, and the variance is that of the differences from the mean.

    Args:
      groups: number of groups; where it does not divide the channels, the largest smaller number that does.
      dtype: type of the result.

    Called as ``layer(x [B, ..., C])``; returns [B, ..., C].

    References:
      Wu & He 2018, "Group Normalization", equations 1 to 7.
    """

    groups: Count = 32
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, channels = x.shape[0], x.shape[-1]
        groups = next(number for number in range(min(self.groups, channels), 0, -1) if channels % number == 0)
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        shift = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)

        def everywhere(vectors: jax.Array) -> jax.Array:
            return jnp.broadcast_to(jnp.expand_dims(vectors, tuple(range(1, x.ndim - 1))), x.shape)

        def of_groups(vectors: jax.Array) -> jax.Array:
            """Means over the channels of each group, for each channel: [B, C] -> [B, C]."""
            means = jnp.mean(vectors.reshape(batch, groups, -1), axis=2)
            return jnp.repeat(means, channels // groups, axis=1)

        def mean(x: jax.Array) -> jax.Array:
            return of_groups(jnp.mean(x.reshape(batch, -1, channels), axis=1))

        x = x.astype(jnp.float32)
        # A shift near the mean, whatever its gradient: E[x^2] - E[x]^2 then loses no digits to a mean far from zero.
        near = jax.lax.stop_gradient(of_groups(x.reshape(batch, -1, channels)[:, 0]))
        x = x - everywhere(near)
        first, second = mean(x), mean(jnp.square(x))
        scale, shift = (jnp.broadcast_to(vector, first.shape) for vector in (scale, shift))
        factor = jax.lax.rsqrt(jnp.maximum(second - jnp.square(first), 0.0) + 1e-6) * scale
        return (x * everywhere(factor) + everywhere(shift - first * factor)).astype(self.dtype)


class MinibatchStandardDeviation(nn.Module):
    """Show a discriminator how much the images of the global batch differ: one constant channel more.

    s = mean over positions and channels of sqrt(var over the batch + 1e-8)

    Called as ``layer(x [B, H, W, C])``; returns [B, H, W, C + 1].

    References:
      Karras et al. 2018, "Progressive Growing of GANs", section 3, with the whole global batch as the group.
    """

    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def batch_mean(values: jax.Array) -> jax.Array:
            mean = jnp.mean(values, axis=0, keepdims=True)
            return mean if self.axis_name is None else jax.lax.pmean(mean, self.axis_name)

        wide = x.astype(jnp.float32)
        variance = batch_mean(jnp.square(wide - batch_mean(wide)))
        deviation = jnp.mean(jnp.sqrt(variance + 1e-8)).astype(x.dtype)
        return jnp.concatenate([x, jnp.broadcast_to(deviation, (*x.shape[:-1], 1))], axis=-1)


class SpectralNorm(nn.Module):
    """Divide a kernel by its largest singular value, which power iteration follows from pass to pass.

    W / sigma(W),  sigma = v^T W u,  v <- W u / |W u|,  u <- W^T v / |W^T v|, W as the matrix [inputs, outputs]

    One iteration a training pass; u is kept in the collection ``spectral_norm``. u and v are not differentiated.
    ``axis_name`` is set because u depends on the kernel alone: ``shard_map`` has to be told that it is therefore the
    same on every device.

    Called as ``layer(kernel [..., outputs], train=...)``; returns [..., outputs].

    References:
      Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", equation 8 and appendix A. Of a
      convolution it is the norm of the reshaped kernel, as there, not of the linear map.
    """

    axis_name: Any = None

    @nn.compact
    def __call__(self, kernel: jax.Array, *, train: bool) -> jax.Array:
        matrix = kernel.reshape(-1, kernel.shape[-1])

        def unit(vector: jax.Array) -> jax.Array:
            return vector / (jnp.linalg.norm(vector) + 1e-12)

        def start() -> jax.Array:
            return unit(jax.random.normal(self.make_rng("params"), (matrix.shape[1],)))

        kept = self.variable("spectral_norm", "u", start)
        fixed = jax.lax.stop_gradient(matrix)
        v = unit(fixed @ kept.value)
        u = unit(v @ fixed)
        if train and not self.is_initializing():
            kept.value = u if self.axis_name is None else jax.lax.pmax(u, self.axis_name)
        return kernel / (v @ matrix @ u)
