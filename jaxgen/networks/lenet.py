"""A small classifier whose features samples are judged by, where an Inception network would be out of its depth."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.intervals import Count
from jaxgen.networks.convolution import Conv
from jaxgen.networks.mlp import leaky_relu
from jaxgen.networks.network import Network


def halve(x: jax.Array) -> jax.Array:
    """Maximum over 2 x 2 pixels, [B, H, W, C] -> [B, H // 2, W // 2, C]; pairwise, as XLA's CPU windows are slow."""
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    x = jnp.maximum(x[:, 0::2], x[:, 1::2])
    return jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])


class _Layers(nn.Module):
    """All that a LeNet does; apart from it, as a layer of its own is called what its method is."""

    num_classes: int
    channels: tuple[int, int]
    num_features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array]:
        if x.ndim != 4 or any(side % 4 or side < 16 for side in x.shape[1:3]):
            raise ValueError(
                f"LeNet takes images [B, H, W, C], H and W multiples of 4 and at least 16, got {list(x.shape)}: "
                "resize or pad them"
            )
        maps = []
        for number, channels in enumerate(self.channels):
            # Rectified after the maximum, which comes to the same.
            x = leaky_relu(halve(Conv(channels, (5, 5), padding="VALID", name=f"conv_{number}")(x)))
            maps.append(x)
        # Leaky, as of 64 features behind plain rectifiers 18 were zero on all of MNIST after training.
        features = leaky_relu(nn.Dense(self.num_features, name="features")(x.reshape(x.shape[0], -1)))
        return tuple(maps), features, nn.Dense(self.num_classes, name="logits")(features)


class LeNet(Network):
    """Images to features and to the logits of classes: two convolutions, two fully connected layers.

    twice: 5x5 convolution without padding, leaky ReLU, maximum over 2x2; dense, leaky ReLU: features; dense: logits

    Args:
      num_classes: number of classes K.
      channels: number of channels of the two convolutions.
      num_features: number of features D.

    Called as ``network(x [B, H, W, C])``, floats in [0, 1], H and W multiples of 4 and at least 16; returns
    (features [B, D], logits [B, K]).

    References:
      LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", section II.B, with today's
      activations and widths, and one fully connected layer less.
    """

    num_classes: Count = 10
    channels: tuple[Count, Count] = (24, 48)
    num_features: Count = 64

    def setup(self) -> None:
        self.layers = _Layers(self.num_classes, self.channels, self.num_features)
        nn.share_scope(self, self.layers)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, features, logits = self.layers(x)
        return features, logits

    def features(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """What each convolution makes of images [B, H, W, C], rectified and halved: [B, h, w, c] each.

        Called by ``apply(..., method="features")``; ``train`` makes no difference.
        """
        first, second = self.layers(x)[0]
        return first, second
