"""Images to maps of features and back: the convolutional pair of latent diffusion, AutoencoderKL.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"; the layers are those of Esser et
al. 2021, "Taming Transformers for High-Resolution Image Synthesis", table 7. Images are in [0, 1], and in [-1, 1]
inside. `jaxgen.networks.diffusers` reads and writes their parameters by the names of the library diffusers.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.intervals import Count
from jaxgen.networks.convolution import Conv, EnlargingConv
from jaxgen.networks.layers import GroupNorm
from jaxgen.networks.network import Network
from jaxgen.networks.products import Dense


class _Block(nn.Module):
    """x -> shortcut(x) + two convolutions of 3 x 3, each behind GroupNorm and swish; the shortcut is 1 x 1 or x."""

    features: int
    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = x
        for number, name in enumerate(("first", "second")):
            h = nn.silu(GroupNorm(self.groups, self.dtype, name=f"norm_{number}")(h))
            h = Conv(self.features, (3, 3), dtype=self.dtype, name=name)(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, (1, 1), dtype=self.dtype, name="shortcut")(x)
        return x + h


class Attention(nn.Module):
    """x -> x + what each place takes from all: one head of self-attention, of softmax(q k^T / sqrt(C)) v."""

    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        h = GroupNorm(self.groups, self.dtype, name="norm")(x).reshape(batch, height * width, channels)
        query, key, value = (Dense(channels, dtype=self.dtype, name=name)(h) for name in ("query", "key", "value"))
        scores = jnp.einsum("bnc,bmc->bnm", query, key).astype(jnp.float32) / channels**0.5
        h = jnp.einsum("bnm,bmc->bnc", jax.nn.softmax(scores).astype(value.dtype), value)
        return x + Dense(channels, dtype=self.dtype, name="output")(h).reshape(x.shape)


def _middle(x: jax.Array, middle: str | None, groups: int, dtype: str) -> jax.Array:
    """Nothing, or a block, attention if asked for, and a block: [B, h, w, C] -> [B, h, w, C]."""
    if middle is None:
        return x
    x = _Block(x.shape[-1], groups, dtype, name="middle_0")(x)
    if middle == "attention":
        x = Attention(groups, dtype, name="middle_attention")(x)
    return _Block(x.shape[-1], groups, dtype, name="middle_1")(x)


def _check_levels(network: "AutoencoderEncoder | AutoencoderDecoder") -> None:
    if not network.multipliers:
        raise ValueError(f"{type(network).__name__}.multipliers must have one number a level, got none: give (1, 2, 2)")
    if network.middle not in (None, "blocks", "attention"):
        raise ValueError(f"{type(network).__name__}.middle must be None, blocks or attention, got {network.middle!r}")


class AutoencoderEncoder(Network):
    """Images to maps of features whose sides are 2^(levels - 1) times smaller: AutoencoderKL's encoder.

    A convolution; levels of residual blocks, halved in between by convolutions of stride 2; the middle, two residual
    blocks and attention between them; GroupNorm, swish and a convolution.

    Args:
      features: channels P of what it returns; AutoencoderKL's are the means and log-variances of P / 2 latents.
      width: channels of a level whose multiplier is 1.
      multipliers: what each level multiplies them by, from the images down; there are as many levels.
      blocks: residual blocks a level.
      groups: groups of every GroupNorm, or the largest number below that divides the channels.
      middle: None for nothing, "blocks" for two of them, "attention" for attention between all places as well.
      projection: whether one more convolution, 1 x 1, ends it: AutoencoderKL's quant_conv.
      dtype: type of the computation; parameters, statistics and outputs are float32.

    AutoencoderKL as Stable Diffusion has it: features 8, width 128, multipliers (1, 2, 4, 4), blocks 2, middle
    "attention" and projection.

    Called as ``encoder(x [B, H, W, C], *, train)``, H and W multiples of the factor; returns [B, h, w, P].

    References:
      Rombach et al. 2022, appendix G. Esser et al. 2021, table 7.
    """

    features: Count
    width: Count = 32
    multipliers: tuple[Count, ...] = (1, 2, 2)
    blocks: Count = 1
    groups: Count = 32
    middle: Literal["blocks", "attention"] | None = None
    projection: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_levels(self)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        factor = 2 ** (len(self.multipliers) - 1)
        if x.ndim != 4 or any(side % factor or not side for side in x.shape[1:3]):
            raise ValueError(
                f"AutoencoderEncoder of {len(self.multipliers)} levels takes images [B, H, W, C] with H and W "
                f"multiples of {factor}, got {list(x.shape)}: crop or resize them, or give it fewer multipliers"
            )
        x = Conv(self.width, (3, 3), dtype=self.dtype, name="input")(2.0 * x - 1.0)
        for level, multiplier in enumerate(self.multipliers):
            for number in range(self.blocks):
                name = f"level_{level}_block_{number}"
                x = _Block(multiplier * self.width, self.groups, self.dtype, name=name)(x)
            if level < len(self.multipliers) - 1:
                down = Conv(x.shape[-1], (3, 3), (2, 2), ((0, 1), (0, 1)), dtype=self.dtype, name=f"level_{level}_down")
                x = down(x)
        x = _middle(x, self.middle, self.groups, self.dtype)
        x = nn.silu(GroupNorm(self.groups, self.dtype, name="norm")(x))
        x = Conv(self.features, (3, 3), dtype=self.dtype, name="output")(x)
        if self.projection:
            x = Conv(self.features, (1, 1), dtype=self.dtype, name="projection")(x)
        return x.astype(jnp.float32)


class AutoencoderDecoder(Network):
    """Maps of features to images whose sides are 2^(levels - 1) times larger: AutoencoderKL's decoder.

    A convolution; the middle, two residual blocks and attention between them; levels of residual blocks, doubled in
    between by repeating pixels and a convolution; GroupNorm, swish and a convolution.

    Args:
      channels: C of the images.
      width: channels of a level whose multiplier is 1.
      multipliers: what each level multiplies them by, from the images down, as the encoder's; there are as many levels.
      blocks: residual blocks a level, in AutoencoderKL one more than its encoder has.
      groups: groups of every GroupNorm, or the largest number below that divides the channels.
      middle: None for nothing, "blocks" for two of them, "attention" for attention between all places as well.
      projection: whether one more convolution, 1 x 1, begins it: AutoencoderKL's post_quant_conv.
      output_activation: what turns the last layer y into images in [0, 1], such as a sigmoid; (y + 1) / 2, which is
        unbounded, when None: AutoencoderKL's y are images in [-1, 1].
      dtype: type of the computation; parameters, statistics and images are float32.

    Called as ``decoder(z [B, h, w, c], *, train)``; returns images [B, H, W, C].

    References:
      Rombach et al. 2022, appendix G. Esser et al. 2021, table 7.
    """

    channels: Count
    width: Count = 32
    multipliers: tuple[Count, ...] = (1, 2, 2)
    blocks: Count = 1
    groups: Count = 32
    middle: Literal["blocks", "attention"] | None = None
    projection: bool = False
    output_activation: Callable[[jax.Array], jax.Array] | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_levels(self)

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        if z.ndim != 4:
            raise ValueError(f"AutoencoderDecoder takes maps [B, h, w, c], got {list(z.shape)}")
        if self.projection:
            z = Conv(z.shape[-1], (1, 1), dtype=self.dtype, name="projection")(z)
        x = Conv(self.multipliers[-1] * self.width, (3, 3), dtype=self.dtype, name="input")(z)
        x = _middle(x, self.middle, self.groups, self.dtype)
        for level, multiplier in enumerate(reversed(self.multipliers)):
            for number in range(self.blocks):
                name = f"level_{level}_block_{number}"
                x = _Block(multiplier * self.width, self.groups, self.dtype, name=name)(x)
            if level < len(self.multipliers) - 1:
                x = EnlargingConv(x.shape[-1], (3, 3), dtype=self.dtype, name=f"level_{level}_up")(x)
        x = nn.silu(GroupNorm(self.groups, self.dtype, name="norm")(x))
        x = Conv(self.channels, (3, 3), dtype=self.dtype, name="output")(x).astype(jnp.float32)
        return 0.5 * (x + 1.0) if self.output_activation is None else self.output_activation(x)
