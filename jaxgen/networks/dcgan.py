"""The DCGAN and the convolutional VAE made of the same layers.

Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks":
strided 4 x 4 convolutions, BatchNorm, no hidden fully connected layers. Images are in [0, 1], and in [-1, 1] inside.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.intervals import Count, Rate
from jaxgen.networks.conditioning import Projection, one_hot
from jaxgen.networks.convolution import Conv, ConvTranspose
from jaxgen.networks.layers import BatchNorm, Dropout, MinibatchStandardDeviation
from jaxgen.networks.mlp import leaky_relu
from jaxgen.networks.network import Network
from jaxgen.networks.products import Dense

_KERNEL, _STRIDES = (4, 4), (2, 2)
_INIT = nn.initializers.normal(0.02)  # Radford et al. 2016, section 4


def check_sides(image_shape: tuple[int, ...], what: str) -> None:
    """Raise ValueError unless a shape is an image's (H, W, C), H and W multiples of 4; the error names the nearest."""
    sides = [max(4, 4 * round(side / 4)) for side in image_shape[:2]]
    if len(image_shape) != 3 or min(image_shape) < 1 or sides != list(image_shape[:2]):
        nearest = "x".join(map(str, sides if len(set(sides)) > 1 else sides[:1]))
        raise ValueError(
            f"{what} take and make images (H, W, C) with H and W multiples of 4, got {tuple(image_shape)}: crop or "
            f"resize them (--image-size {nearest})"
        )


def num_halvings(image_shape: tuple[int, ...]) -> int:
    """How often a convolutional network halves an image: at least twice, then while its sides are even and above 4.

    The sides of the ``image_shape`` (H, W, C) are multiples of 4: 2 for 28 pixels (to 7), 3 for 32 and 4 for 64 (to 4).
    """
    check_sides(image_shape, "convolutional networks")
    halvings, sides = 2, (image_shape[0] // 4, image_shape[1] // 4)
    while all(side % 2 == 0 and side > 4 for side in sides):
        halvings, sides = halvings + 1, (sides[0] // 2, sides[1] // 2)
    return halvings


def label_planes(network: nn.Module, x: jax.Array, label: jax.Array | None, num_classes: int | None) -> jax.Array:
    """Images with a constant plane for each class, that of the label 1: [B, H, W, C] -> [B, H, W, C + K].

    ``num_classes`` is K; None leaves the images x as they are. Without a label the error names the ``network`` that
    asks.
    """
    if num_classes is None:
        return x
    planes = one_hot(network, label, num_classes)[:, None, None]
    return jnp.concatenate([x, jnp.broadcast_to(planes, (*x.shape[:3], num_classes))], axis=-1)


class DCGANGenerator(Network):
    """Latents to images through fractionally strided convolutions.

    Args:
      image_shape: shape of one image, (H, W, C), H and W multiples of 4.
      width: channels of the layer next to the image; they double with every halving. 128 is the paper's at 64 x 64.
      output_activation: what turns the last layer into an image: sigmoid for images in [0, 1], None for unbounded.
      num_classes: number of classes of a conditional generator (a BatchNorm scale and shift for each); None for an
        unconditional one.
      dtype: type of the computation; parameters, statistics and images are float32.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``generator(z [B, D], label=None, *, train)``; returns images [B, H, W, C].

    References:
      Radford et al. 2016, section 3 and figure 1.
    """

    image_shape: tuple[Count, ...]
    width: Count = 64
    output_activation: Callable[[jax.Array], jax.Array] | None = jax.nn.sigmoid
    num_classes: Count | None = None
    dtype: str = "float32"
    axis_name: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        num_halvings(self.image_shape)

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        height, width, channels = self.image_shape
        halvings = num_halvings(self.image_shape)

        def activate(x: jax.Array, number: int) -> jax.Array:
            norm = BatchNorm(self.axis_name, self.num_classes, self.dtype, name=f"norm_{number}")
            return nn.relu(norm(x, label, train=train))

        features = self.width * 2 ** (halvings - 1)
        corner = (height >> halvings, width >> halvings, features)
        x = Dense(
            corner[0] * corner[1] * corner[2], use_bias=False, kernel_init=_INIT, dtype=self.dtype, name="project"
        )(z)
        x = activate(x.reshape(z.shape[0], *corner), 0)
        for number in range(1, halvings):
            features //= 2
            x = ConvTranspose(
                features, _KERNEL, _STRIDES, use_bias=False, kernel_init=_INIT, dtype=self.dtype, name=f"up_{number}"
            )(x)
            x = activate(x, number)
        output = ConvTranspose(channels, _KERNEL, _STRIDES, kernel_init=_INIT, dtype=self.dtype, name="output")
        x = output(x).astype(jnp.float32)
        return x if self.output_activation is None else self.output_activation(x)


class _Trunk(nn.Module):
    """Strided convolutions down to the smallest image: [B, H, W, C] -> [B, h, w, F]."""

    width: int
    batch_norm: bool
    spectral_norm: bool
    dropout_rate: float
    dtype: str
    axis_name: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for number in range(num_halvings(x.shape[1:])):
            normalized = self.batch_norm and number > 0
            x = Conv(
                self.width * 2**number,
                _KERNEL,
                _STRIDES,
                use_bias=not normalized,
                kernel_init=_INIT,
                dtype=self.dtype,
                spectral_norm=self.spectral_norm,
                axis_name=self.axis_name,
                name=f"down_{number}",
            )(x, train=train)
            if normalized:
                x = BatchNorm(self.axis_name, dtype=self.dtype, name=f"norm_{number}")(x, train=train)
            x = leaky_relu(x)
            # Kept where somebody asks for it, with apply(..., mutable=["intermediates"]); nothing is computed for it.
            self.sow("intermediates", f"activation_{number}", x)
            x = Dropout(self.dropout_rate, self.axis_name)(x, train=train)
        return x


class DCGANDiscriminator(Network):
    """Images to one logit each through strided convolutions.

    The logit has no bias of its own: relativistic and Wasserstein losses do not see it, and the features have theirs.

    Args:
      width: channels of the layer next to the image; they double with every halving.
      batch_norm: whether to normalise the layers but the first over the batch; gradient penalties want it off.
      spectral_norm: whether to divide every kernel by its spectral norm; then batch_norm is usually off.
      dropout_rate: share of the hidden units dropped in training, in [0, 1).
      minibatch_stddev: whether to show it the standard deviation over the batch (`MinibatchStandardDeviation`).
      num_classes: number of classes of a conditional discriminator (`Projection`); None for an unconditional one.
      dtype: type of the computation; parameters, statistics and logits are float32.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``discriminator(x [B, H, W, C], label=None, *, train)``; returns logits [B].

    References:
      Radford et al. 2016, section 3.
    """

    width: Count = 64
    batch_norm: bool = True
    spectral_norm: bool = False
    dropout_rate: Rate = 0.0
    minibatch_stddev: bool = False
    num_classes: Count | None = None
    dtype: str = "float32"
    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        trunk = _Trunk(
            self.width,
            self.batch_norm,
            self.spectral_norm,
            self.dropout_rate,
            self.dtype,
            self.axis_name,
            name="features",
        )
        x = trunk(2.0 * x - 1.0, train=train)
        if self.minibatch_stddev:
            x = MinibatchStandardDeviation(self.axis_name)(x)
        return Judgement(self.num_classes, self.spectral_norm, self.axis_name, name="output")(x, label, train=train)


class Judgement(Network):
    """Features to one logit, and to the projection on the class of a conditional discriminator.

    logit = <w, h> + <embedding(y), h>

    Args:
      num_classes: number of classes; None leaves out the second term.
      spectral_norm: whether to divide w by its norm.
      axis_name: mapped axis or axes over which the global batch is split, for the spectral norm.

    Called as ``layer(h [B, ...], label=None, train=...)``; returns logits [B], float32.
    """

    num_classes: Count | None = None
    spectral_norm: bool = False
    axis_name: Any = None

    @nn.compact
    def __call__(self, h: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        h = h.reshape(h.shape[0], -1).astype(jnp.float32)
        # A kernel of one pixel is a fully connected layer.
        logit = Conv(
            1,
            (1, 1),
            use_bias=False,
            kernel_init=_INIT,
            spectral_norm=self.spectral_norm,
            axis_name=self.axis_name,
            name="logit",
        )
        logits = logit(h[:, None, None], train=train)[:, 0, 0, 0]
        if self.num_classes is None:
            return logits
        return logits + Projection(self.num_classes, name="projection")(h, label)


class ConvEncoder(Network):
    """Images to the mean and log-variance of a diagonal Gaussian posterior, through strided convolutions.

    Args:
      latent_dim: number of latent dimensions D.
      width: channels of the layer next to the image; they double with every halving.
      batch_norm: whether to normalise the layers but the first over the batch.
      num_classes: number of classes of a conditional encoder (a constant plane for each); None for an unconditional
        one.
      dtype: type of the computation; parameters, statistics and outputs are float32.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``encoder(x [B, H, W, C], label=None, *, train)``; returns (mean [B, D], logvar [B, D]).
    """

    latent_dim: Count
    width: Count = 64
    batch_norm: bool = True
    num_classes: Count | None = None
    dtype: str = "float32"
    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> tuple[jax.Array, jax.Array]:
        x = label_planes(self, 2.0 * x - 1.0, label, self.num_classes)
        trunk = _Trunk(self.width, self.batch_norm, False, 0.0, self.dtype, self.axis_name, name="features")
        x = trunk(x, train=train)
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)
        return Dense(self.latent_dim, name="mean")(x), Dense(self.latent_dim, name="logvar")(x)


class ConvDecoder(DCGANGenerator):
    """Latents to the parameters of a likelihood: the DCGAN's generator without its last activation.

    Its other fields are those of `DCGANGenerator`; of a likelihood with P parameters a value, the C of ``image_shape``
    is P times the image's.

    Args:
      output_activation: None for logits (Bernoulli) and unbounded means; sigmoid for means in [0, 1].

    Called as ``decoder(z [B, D], label=None, *, train)``; returns likelihood parameters [B, H, W, C].
    """

    output_activation: Callable[[jax.Array], jax.Array] | None = None
