"""InfoGAN's networks, on which Lucic et al. 2018 compared the losses of GANs.

Chen et al. 2016, "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial
Nets", appendix C.1, as in the code of Lucic et al.: two strided 4 x 4 convolutions and one fully connected layer of
1,024 units at either end, leaky rectifiers throughout. Images are in [0, 1], inside as well.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.intervals import Count
from jaxgen.networks.conditioning import Projection, one_hot
from jaxgen.networks.convolution import Conv, ConvTranspose
from jaxgen.networks.dcgan import check_sides
from jaxgen.networks.layers import BatchNorm
from jaxgen.networks.mlp import leaky_relu
from jaxgen.networks.network import Network
from jaxgen.networks.products import Dense

_KERNEL, _STRIDES = (4, 4), (2, 2)
_INIT = nn.initializers.normal(0.02)
_UNITS = 16  # of the fully connected layer, for each channel next to the image: 1,024 of 64


class InfoGANGenerator(Network):
    """Latents to images: two fully connected layers, two transposed convolutions, BatchNorm in between.

    Args:
      image_shape: shape of one image, (H, W, C), H and W multiples of 4.
      width: channels of the layer next to the image, twice as many before it; the first layer has 16 times as many
        units. 64 is the paper's.
      num_classes: number of classes of a conditional generator (a one-hot label is joined to the latents); None for an
        unconditional one.
      dtype: type of the computation; parameters, statistics and images are float32.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``generator(z [B, D], label=None, *, train)``; returns images [B, H, W, C] in [0, 1].

    References:
      Chen et al. 2016, appendix C.1. Lucic et al. 2018, "Are GANs Created Equal? A Large-Scale Study", section 5.1.
    """

    image_shape: tuple[Count, ...]
    width: Count = 64
    num_classes: Count | None = None
    dtype: str = "float32"
    axis_name: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sides(self.image_shape, "InfoGAN's networks")

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        height, width, channels = self.image_shape
        common: dict[str, Any] = {"kernel_init": _INIT, "dtype": self.dtype}

        def activate(x: jax.Array, number: int) -> jax.Array:
            return leaky_relu(BatchNorm(self.axis_name, dtype=self.dtype, name=f"norm_{number}")(x, train=train))

        x = z if self.num_classes is None else jnp.concatenate([z, one_hot(self, label, self.num_classes)], axis=1)
        x = activate(Dense(_UNITS * self.width, use_bias=False, name="units", **common)(x), 0)
        corner = (height // 4, width // 4, 2 * self.width)
        x = Dense(corner[0] * corner[1] * corner[2], use_bias=False, name="project", **common)(x)
        # Normalised as units, not as channels, which is what the code of 2018 does.
        x = activate(x, 1).reshape(z.shape[0], *corner)
        x = ConvTranspose(self.width, _KERNEL, _STRIDES, use_bias=False, name="up", **common)(x)
        x = ConvTranspose(channels, _KERNEL, _STRIDES, name="output", **common)(activate(x, 2))
        return jax.nn.sigmoid(x.astype(jnp.float32))


class InfoGANDiscriminator(Network):
    """Images to one logit each: two strided convolutions and one fully connected layer.

    Args:
      width: channels of the layer next to the image, twice as many after it; the fully connected layer has 16 times as
        many units. 64 is the paper's.
      batch_norm: whether to normalise the layers but the first over the batch; gradient penalties want it off.
      num_classes: number of classes of a conditional discriminator (`Projection`); None for an unconditional one.
      dtype: type of the computation; parameters, statistics and logits are float32.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``discriminator(x [B, H, W, C], label=None, *, train)``; returns logits [B].

    References:
      Chen et al. 2016, appendix C.1. Lucic et al. 2018, "Are GANs Created Equal? A Large-Scale Study", section 5.1.
    """

    width: Count = 64
    batch_norm: bool = True
    num_classes: Count | None = None
    dtype: str = "float32"
    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        check_sides(x.shape[1:], "InfoGAN's networks")
        common: dict[str, Any] = {"kernel_init": _INIT, "dtype": self.dtype}
        bias = not self.batch_norm

        def activate(x: jax.Array, number: int) -> jax.Array:
            if self.batch_norm:
                x = BatchNorm(self.axis_name, dtype=self.dtype, name=f"norm_{number}")(x, train=train)
            return leaky_relu(x)

        x = leaky_relu(Conv(self.width, _KERNEL, _STRIDES, name="down_0", **common)(x))
        x = activate(Conv(2 * self.width, _KERNEL, _STRIDES, use_bias=bias, name="down_1", **common)(x), 1)
        x = Dense(_UNITS * self.width, use_bias=bias, name="units", **common)(x.reshape(x.shape[0], -1))
        h = activate(x, 2)
        logits = Dense(1, name="output", **common)(h)[:, 0].astype(jnp.float32)
        if self.num_classes is None:
            return logits
        return logits + Projection(self.num_classes, name="projection")(h, label)
