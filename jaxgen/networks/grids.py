"""A generator and a discriminator of small grids of numbers: an image tokenizer's latents.

Residual blocks in R3GAN's way, without normalisation and with branches that start at zero, at the grid's own size: it
has been made small already.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.intervals import Count
from jaxgen.networks.autoencoder import Attention
from jaxgen.networks.conditioning import one_hot
from jaxgen.networks.convolution import Conv
from jaxgen.networks.dcgan import Judgement
from jaxgen.networks.mlp import leaky_relu
from jaxgen.networks.network import Network
from jaxgen.networks.products import Dense
from jaxgen.networks.resnet import ResidualBlock

_HE = nn.initializers.he_normal()
_GROUPS = 32  # of attention's normalisation


def _blocks(x: jax.Array, network: "GridGenerator | GridDiscriminator", name: str, train: bool) -> jax.Array:
    """Residual blocks, and attention between all places before the last of them if asked for: [B, h, w, C]."""
    for number in range(network.blocks):
        if network.attention and number == network.blocks - 1:
            x = Attention(_GROUPS, network.dtype, name=f"{name}_attention")(x)
        block = ResidualBlock(x.shape[-1], None, None, None, network.dtype, None, name=f"{name}_{number}")
        x = block(x, None, train=train)
    return x


class GridGenerator(Network):
    """Latents to grids of unbounded numbers: a linear map to the whole grid, residual blocks, a convolution.

    Args:
      image_shape: shape of one grid, (h, w, c), such as a tokenizer's ``latent_shape``.
      width: channels of the blocks.
      blocks: number of residual blocks.
      attention: whether there is attention between all places before the last block.
      num_classes: number of classes of a conditional generator, whose one-hot label joins the latents; None.
      dtype: type of the computation; parameters and grids are float32.

    Called as ``generator(z [B, D], label=None, *, train)``; returns grids [B, h, w, c].

    References:
      Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern GAN Baseline", section 3.2, on the blocks.
    """

    image_shape: tuple[Count, ...]
    width: Count = 64
    blocks: Count = 3
    attention: bool = False
    num_classes: Count | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.image_shape) != 3:
            raise ValueError(f"GridGenerator.image_shape must be (h, w, c), got {self.image_shape!r}")

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        if self.num_classes is not None:
            z = jnp.concatenate([z, one_hot(self, label, self.num_classes)], axis=1)
        height, width, channels = self.image_shape
        x = Dense(height * width * self.width, kernel_init=_HE, dtype=self.dtype, name="project")(z)
        x = _blocks(x.reshape(z.shape[0], height, width, self.width), self, "block", train)
        return Conv(channels, (3, 3), dtype=self.dtype, name="output")(leaky_relu(x)).astype(jnp.float32)


class GridDiscriminator(Network):
    """Grids of numbers to one logit each: residual blocks at the grid's size, and at half of it with twice the width.

    Args:
      width: channels at the grid's size.
      blocks: number of residual blocks at either size.
      attention: whether there is attention between all places before the last block of either size.
      num_classes: number of classes of a conditional discriminator (`Projection`); None for an unconditional one.
      dtype: type of the computation; parameters and logits are float32.

    Called as ``discriminator(x [B, h, w, c], label=None, *, train)``; returns logits [B].

    References:
      Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern GAN Baseline", section 3.2, on the blocks.
    """

    width: Count = 64
    blocks: Count = 2
    attention: bool = False
    num_classes: Count | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        if x.ndim != 4:
            raise ValueError(f"GridDiscriminator takes grids [B, h, w, c], got {list(x.shape)}")
        x = Conv(self.width, (3, 3), kernel_init=_HE, dtype=self.dtype, name="stem")(x)
        x = _blocks(x, self, "block", train)
        x = Conv(2 * self.width, (3, 3), (2, 2), kernel_init=_HE, dtype=self.dtype, name="down")(leaky_relu(x))
        x = leaky_relu(_blocks(x, self, "half", train))
        return Judgement(self.num_classes, name="output")(x, label, train=train)
