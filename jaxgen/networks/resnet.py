"""A residual generator and discriminator: spectrally normalised, or without any normalisation as R3GAN's.

Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks"; Huang et al. 2024, "The GAN is dead;
long live the GAN! A Modern GAN Baseline".
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.intervals import Count
from jaxgen.networks.conditioning import one_hot
from jaxgen.networks.convolution import Conv, EnlargingConv, ShrinkingConv
from jaxgen.networks.dcgan import Judgement, num_halvings
from jaxgen.networks.layers import BatchNorm
from jaxgen.networks.mlp import leaky_relu
from jaxgen.networks.network import Network
from jaxgen.networks.products import Dense

_HE = nn.initializers.he_normal()
_ZEROS = nn.initializers.zeros


def _enlarge(x: jax.Array) -> jax.Array:
    """Twice the size by repeating pixels, [B, H, W, C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def _shrink(x: jax.Array) -> jax.Array:
    """Half the size by averaging pixels, [B, 2H, 2W, C] -> [B, H, W, C]."""
    batch, height, width, channels = x.shape
    return jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4))


class ResidualBlock(nn.Module):
    """x -> resize(shortcut(x)) + branch(x), the branch two activated 3 x 3 convolutions and the resizing, if any.

    Without normalisation the branch starts at zero, so that the variance does not grow with depth.
    """

    features: int
    enlarges: bool | None  # None: neither that nor halving
    normalization: str | None
    num_classes: int | None
    dtype: str
    axis_name: Any

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None, *, train: bool) -> jax.Array:
        batch_norm = self.normalization == "batch"

        def activate(h: jax.Array, number: int) -> jax.Array:
            if batch_norm:
                norm = BatchNorm(self.axis_name, self.num_classes, self.dtype, name=f"norm_{number}")
                h = norm(h, label, train=train)
            return leaky_relu(h)

        def conv(size: int, name: str, use_bias: bool = True, kernel_init: Any = _HE, kind: type[Conv] = Conv) -> Conv:
            return kind(
                self.features,
                (size, size),
                use_bias=use_bias,
                kernel_init=kernel_init,
                dtype=self.dtype,
                spectral_norm=self.normalization == "spectral",
                axis_name=self.axis_name,
                name=name,
            )

        h = activate(x, 0)
        first = EnlargingConv if self.enlarges else Conv
        second = ShrinkingConv if self.enlarges is False else Conv
        h = conv(3, "first", use_bias=not batch_norm, kind=first)(h, train=train)
        last_init = _ZEROS if self.normalization is None else _HE
        h = conv(3, "second", kernel_init=last_init, kind=second)(activate(h, 1), train=train)
        x = _shrink(x) if self.enlarges is False else x
        if x.shape[-1] != self.features:  # pointwise: the same before and after the resizing
            x = conv(1, "shortcut", use_bias=False)(x, train=train)
        return (_enlarge(x) if self.enlarges else x) + h


class ResNetGenerator(Network):
    """Latents to images through residual blocks, each of which doubles the size.

    Args:
      image_shape: shape of one image, (H, W, C), H and W multiples of 4.
      width: channels of the block next to the image; they double with every halving, up to eightfold.
      normalization: "batch", or None for R3GAN's way: residual branches that start at zero.
      output_activation: what turns the last layer into an image: sigmoid for images in [0, 1], None for unbounded.
      num_classes: number of classes of a conditional generator (a BatchNorm scale and shift for each, and without
        BatchNorm the one-hot label joined to the latents); None for an unconditional one.
      dtype: type of the computation; parameters, statistics and images are float32.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``generator(z [B, D], label=None, *, train)``; returns images [B, H, W, C].

    References:
      Miyato et al. 2018, appendix B.4, table 3. Huang et al. 2024, section 3.2.
    """

    image_shape: tuple[Count, ...]
    width: Count = 64
    normalization: Literal["batch"] | None = "batch"
    output_activation: Callable[[jax.Array], jax.Array] | None = jax.nn.sigmoid
    num_classes: Count | None = None
    dtype: str = "float32"
    axis_name: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        num_halvings(self.image_shape)
        if self.normalization not in ("batch", None):
            raise ValueError(f"ResNetGenerator.normalization must be 'batch' or None, got {self.normalization!r}")

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        height, width, channels = self.image_shape
        halvings = num_halvings(self.image_shape)
        if self.normalization is None and self.num_classes is not None:
            z = jnp.concatenate([z, one_hot(self, label, self.num_classes)], axis=1)
        features = self.width * 2 ** min(halvings - 1, 3)
        corner = (height >> halvings, width >> halvings, features)
        x = Dense(corner[0] * corner[1] * corner[2], kernel_init=_HE, dtype=self.dtype, name="project")(z)
        x = x.reshape(z.shape[0], *corner)
        for number in range(halvings):
            features = self.width * 2 ** min(halvings - 1 - number, 3)
            block = ResidualBlock(
                features,
                True,
                self.normalization,
                self.num_classes,
                self.dtype,
                self.axis_name,
                name=f"block_{number}",
            )
            x = block(x, label, train=train)
        if self.normalization == "batch":
            x = BatchNorm(self.axis_name, dtype=self.dtype, name="norm")(x, train=train)
        x = Conv(channels, (3, 3), dtype=self.dtype, name="output")(leaky_relu(x)).astype(jnp.float32)
        return x if self.output_activation is None else self.output_activation(x)


class ResNetDiscriminator(Network):
    """Images to one logit each through residual blocks, each of which halves the size.

    Args:
      width: channels of the block next to the image; they double with every halving, up to eightfold.
      normalization: "spectral" to divide every kernel by its spectral norm, or None for R3GAN's way: residual branches
        that start at zero, to be kept in check by gradient penalties.
      num_classes: number of classes of a conditional discriminator (`Projection`); None for an unconditional one.
      dtype: type of the computation; parameters and logits are float32.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``discriminator(x [B, H, W, C], label=None, *, train)``; returns logits [B].

    References:
      Miyato et al. 2018, appendix B.4, table 3. Huang et al. 2024, section 3.2.
    """

    width: Count = 64
    normalization: Literal["spectral"] | None = "spectral"
    num_classes: Count | None = None
    dtype: str = "float32"
    axis_name: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalization not in ("spectral", None):
            raise ValueError(
                f"ResNetDiscriminator.normalization must be 'spectral' or None, got {self.normalization!r}"
            )

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        spectral = self.normalization == "spectral"
        halvings = num_halvings(x.shape[1:])
        stem = Conv(
            self.width,
            (3, 3),
            kernel_init=_HE,
            dtype=self.dtype,
            spectral_norm=spectral,
            axis_name=self.axis_name,
            name="stem",
        )
        x = stem(2.0 * x - 1.0, train=train)
        for number in range(halvings):
            features = self.width * 2 ** min(number + 1, 3)
            block = ResidualBlock(
                features, False, self.normalization, None, self.dtype, self.axis_name, name=f"block_{number}"
            )
            x = block(x, None, train=train)
        return Judgement(self.num_classes, spectral, self.axis_name, name="output")(leaky_relu(x), label, train=train)
