"""The classic fully connected networks: a generator, a discriminator, an encoder and a decoder.

They take and make images [B, H, W, C] or vectors [B, D]. A label is accepted, as every network's call has
one, and not used: these four are unconditional.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from jaxgen.networks.layers import Dropout

Activation = Callable[[jax.Array], jax.Array]


def leaky_relu(x: jax.Array) -> jax.Array:
    """Leaky rectifier of slope 0.2 below zero, any shape: max(x, 0.2 x)."""
    return nn.leaky_relu(x, negative_slope=0.2)


class _MLP(nn.Module):
    """Hidden layers over the flattened input: [B, ...] -> [B, hidden[-1]]."""

    hidden: tuple[int, ...]
    activation: Activation
    dropout_rate: float = 0.0
    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for size in self.hidden:
            x = self.activation(nn.Dense(size)(x))
            x = Dropout(self.dropout_rate, self.axis_name)(x, train=train)
        return x


class MLPGenerator(nn.Module):
    """Latents to images through fully connected layers.

    Args:
      image_shape: shape of one image, (H, W, C), or (D,) for vectors.
      hidden: sizes of the hidden layers.
      activation: activation of the hidden layers.
      output_activation: what turns the last layer into an image: sigmoid for images in [0, 1], None for
        unbounded data.

    Called as ``generator(z [B, D], label=None, *, train)``; returns images [B, *image_shape].
    """

    image_shape: tuple[int, ...]
    hidden: tuple[int, ...] = (128, 128)
    activation: Activation = leaky_relu
    output_activation: Activation | None = jax.nn.sigmoid

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        x = _MLP(self.hidden, self.activation, name="hidden_layers")(z, train=train)
        x = nn.Dense(math.prod(self.image_shape), name="output")(x)
        if self.output_activation is not None:
            x = self.output_activation(x)
        return x.reshape(z.shape[0], *self.image_shape)


class MLPDiscriminator(nn.Module):
    """Images to one logit each through fully connected layers.

    Args:
      hidden: sizes of the hidden layers.
      activation: activation of the hidden layers.
      dropout_rate: share of the hidden units dropped in training, in [0, 1).
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``discriminator(x [B, ...], label=None, *, train)``; returns logits [B].
    """

    hidden: tuple[int, ...] = (128, 128)
    activation: Activation = leaky_relu
    dropout_rate: float = 0.0
    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        layers = _MLP(self.hidden, self.activation, self.dropout_rate, self.axis_name, name="hidden_layers")
        return nn.Dense(1, name="output")(layers(x, train=train))[:, 0]


class MLPEncoder(nn.Module):
    """Images to the mean and log-variance of a diagonal Gaussian posterior.

    Args:
      latent_dim: number of latent dimensions D.
      hidden: sizes of the hidden layers.
      activation: activation of the hidden layers.

    Called as ``encoder(x [B, ...], label=None, *, train)``; returns (mean [B, D], logvar [B, D]).
    """

    latent_dim: int
    hidden: tuple[int, ...] = (128, 128)
    activation: Activation = leaky_relu

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> tuple[jax.Array, jax.Array]:
        x = _MLP(self.hidden, self.activation, name="hidden_layers")(x, train=train)
        return nn.Dense(self.latent_dim, name="mean")(x), nn.Dense(self.latent_dim, name="logvar")(x)


class MLPDecoder(MLPGenerator):
    """Latents to the parameters of a likelihood through fully connected layers.

    The generator's network with another last activation.

    Args:
      image_shape: shape of one image, (H, W, C), or (D,) for vectors.
      hidden: sizes of the hidden layers.
      activation: activation of the hidden layers.
      output_activation: None for logits (Bernoulli) and unbounded means; sigmoid for means in [0, 1]
        (a Gaussian likelihood of images).

    Called as ``decoder(z [B, D], label=None, *, train)``; returns likelihood parameters [B, *image_shape].
    """

    output_activation: Activation | None = None
