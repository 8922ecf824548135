"""The classic fully connected networks: generators, discriminators, encoders and decoders.

They take and make images [B, H, W, C] or vectors [B, D]. With ``num_classes`` they are conditional: a one-hot label is
joined to the input, and a discriminator has a projection. Without it a label is accepted, as every network's call has
one, and not used. With the activation ``nn.glu`` the hidden layers are gated, h(x) = (x W + b) sigmoid(x V + c), of two
linear maps each (Dauphin et al. 2017, "Language Modeling with Gated Convolutional Networks", equation 1).
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen import intervals
from jaxgen.intervals import Count, Finite, Positive, Rate
from jaxgen.networks.conditioning import Projection, one_hot
from jaxgen.networks.layers import BatchNorm, Dropout
from jaxgen.networks.network import Network
from jaxgen.networks.products import Dense

Activation = Callable[[jax.Array], jax.Array]
Initialization = Literal["he", "pytorch"] | tuple[Literal["normal", "uniform"], Positive] | None


def leaky_relu(x: jax.Array) -> jax.Array:
    """Leaky rectifier of slope 0.2 below zero, any shape: max(x, 0.2 x)."""
    return nn.leaky_relu(x, negative_slope=0.2)


def _with_label(network: nn.Module, x: jax.Array, label: jax.Array | None, num_classes: int | None) -> jax.Array:
    """The flattened input, joined to the one-hot label of a conditional network: [B, ...] -> [B, D]."""
    x = x.reshape(x.shape[0], -1)
    if num_classes is None:
        return x
    return jnp.concatenate([x, one_hot(network, label, num_classes)], axis=1)


def _narrow_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """U(-0.005, 0.005), as in the code of the 2014 paper: a maximum of wide kernels would start far from zero."""
    return jax.random.uniform(key, shape, dtype, -0.005, 0.005)


def _kernel_init(initialization: Initialization, usual: Any = nn.linear.default_kernel_init) -> Any:
    """Numbers of variance 2 / inputs (He's) or a third of 1 / inputs, of one width everywhere, or the usual."""
    if initialization is None:
        return usual
    if initialization == "he":
        return nn.initializers.he_normal()
    if initialization == "pytorch":
        return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    if isinstance(initialization, tuple) and len(initialization) == 2:
        kind, width = initialization
        if kind == "normal":
            return nn.initializers.normal(width)
        if kind == "uniform":
            return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -width, width)
    raise ValueError(
        'initialization must be None, "he", "pytorch", ("normal", standard deviation) or ("uniform", largest weight), '
        f"got {initialization!r}"
    )


class _MLP(nn.Module):
    """Hidden layers over the flattened input: [B, ...] -> [B, hidden[-1]]."""

    hidden: tuple[int, ...]
    activation: Activation
    dropout_rate: float = 0.0
    axis_name: Any = None
    dtype: str = "float32"
    batch_norm: bool = False
    initialization: Initialization = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        maps = 2 if self.activation is nn.glu else 1  # the gate's beside the layer's own
        init = _kernel_init(self.initialization)
        for size in self.hidden:
            x = Dense(maps * size, use_bias=not self.batch_norm, kernel_init=init, dtype=self.dtype)(x)
            if self.batch_norm:
                x = BatchNorm(self.axis_name, dtype=self.dtype)(x, train=train)
            x = Dropout(self.dropout_rate, self.axis_name)(self.activation(x), train=train)
        return x


class MLPGenerator(Network):
    """Latents to images through fully connected layers.

    Args:
      image_shape: shape of one image, (H, W, C), or (D,) for vectors.
      hidden, activation: sizes and activation of the hidden layers.
      output_activation: what turns the last layer into an image: sigmoid for images in [0, 1], None for
        unbounded data.
      num_classes: number of classes of a conditional generator; None for an unconditional one.
      dtype: type of the computation; parameters and images are float32.
      initialization: "he" for kernels of variance 2 / inputs, "pytorch" for uniform ones within 1 / sqrt(inputs), a
        third of LeCun's variance and the default of its Linear, ("normal", standard deviation) or ("uniform", largest
        weight) for the same in all layers; None for LeCun's, of variance 1 / inputs. Biases begin at zero with all.
      normalization: "batch" normalises the hidden layers over the batch; None leaves them alone.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``generator(z [B, D], label=None, *, train)``; returns images [B, *image_shape].
    """

    image_shape: tuple[Count, ...]
    hidden: tuple[Count, ...] = (128, 128)
    activation: Activation = leaky_relu
    output_activation: Activation | None = jax.nn.sigmoid
    num_classes: Count | None = None
    dtype: str = "float32"
    # None by default, so that a config written before these fields were there is of the same network.
    initialization: Initialization = None
    normalization: Literal["batch"] | None = None
    axis_name: Any = None

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        if self.normalization not in ("batch", None):
            raise ValueError(f"normalization must be 'batch' or None, got {self.normalization!r}")
        x = _with_label(self, z, label, self.num_classes)
        layers = _MLP(
            self.hidden,
            self.activation,
            axis_name=self.axis_name,
            dtype=self.dtype,
            batch_norm=self.normalization == "batch",
            initialization=self.initialization,
            name="hidden_layers",
        )
        x = layers(x, train=train)
        init = _kernel_init(self.initialization)
        output = Dense(math.prod(self.image_shape), kernel_init=init, dtype=self.dtype, name="output")
        x = output(x).astype(jnp.float32)
        if self.output_activation is not None:
            x = self.output_activation(x)
        return x.reshape(z.shape[0], *self.image_shape)


class MLPDiscriminator(Network):
    """Images to one logit each through fully connected layers.

    Args:
      hidden, activation: sizes and activation of the hidden layers.
      dropout_rate: share of the hidden units dropped in training, in [0, 1).
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.
      num_classes: number of classes of a conditional discriminator (`Projection`); None for an unconditional one.
      dtype: type of the computation; parameters and logits are float32.

    Called as ``discriminator(x [B, ...], label=None, *, train)``; returns logits [B].
    """

    hidden: tuple[Count, ...] = (128, 128)
    activation: Activation = leaky_relu
    dropout_rate: Rate = 0.0
    axis_name: Any = None
    num_classes: Count | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        layers = _MLP(self.hidden, self.activation, self.dropout_rate, self.axis_name, self.dtype, name="hidden_layers")
        h = layers(x, train=train)
        logits = Dense(1, dtype=self.dtype, name="output")(h)[:, 0].astype(jnp.float32)
        if self.num_classes is None:
            return logits
        return logits + Projection(self.num_classes, name="projection")(h, label)


class Maxout(Network):
    """Units that are the largest of several linear functions.

    h_i(x) = max_j (x W_ij + b_ij),  i = 1 ... features,  j = 1 ... pieces

    Args:
      features, pieces: numbers of units, and of linear functions of each.
      dtype: type of the computation; parameters are float32.
      initialization: as of `MLPGenerator`; None for the uniform one of the 2014 paper.

    Called as ``layer(x [B, D])``; returns [B, features].

    References:
      Goodfellow et al. 2013, "Maxout Networks", section 2.
    """

    features: Count
    pieces: Count
    dtype: str = "float32"
    initialization: Initialization = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = _kernel_init(self.initialization, _narrow_uniform)
        x = Dense(self.features * self.pieces, dtype=self.dtype, kernel_init=init)(x)
        return jnp.max(x.reshape(*x.shape[:-1], self.features, self.pieces), axis=-1)


class MaxoutDiscriminator(Network):
    """The discriminator of 2014: maxout units with dropout on the image and on every layer.

    Args:
      hidden: numbers of maxout units of the layers.
      pieces: linear functions of each unit.
      dropout_rate: share of the hidden units dropped in training, in [0, 1).
      input_dropout_rate: share of the pixels dropped in training, in [0, 1).
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.
      num_classes: number of classes of a conditional discriminator (`Projection`); None for an unconditional one.
      dtype: type of the computation; parameters and logits are float32.
      initialization: as of `MLPGenerator`; None for the uniform one of the 2014 paper.

    Called as ``discriminator(x [B, ...], label=None, *, train)``; returns logits [B].

    References:
      Goodfellow et al. 2014, "Generative Adversarial Nets", section 5; two layers of 240 units of 5 pieces, half of the
      units and a fifth of the pixels dropped, as in the code published with it.
    """

    hidden: tuple[Count, ...] = (240, 240)
    pieces: Count = 5
    dropout_rate: Rate = 0.5
    input_dropout_rate: Rate = 0.2
    axis_name: Any = None
    num_classes: Count | None = None
    dtype: str = "float32"
    initialization: Initialization = None

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        h = Dropout(self.input_dropout_rate, self.axis_name)(x.reshape(x.shape[0], -1), train=train)
        for size in self.hidden:
            h = Maxout(size, self.pieces, self.dtype, self.initialization)(h)
            h = Dropout(self.dropout_rate, self.axis_name)(h, train=train)
        init = _kernel_init(self.initialization, _narrow_uniform)
        logits = Dense(1, dtype=self.dtype, kernel_init=init, name="output")(h)[:, 0].astype(jnp.float32)
        if self.num_classes is None:
            return logits
        return logits + Projection(self.num_classes, name="projection")(h, label)


class MLPEncoder(Network):
    """Images, or the latents below, to the parameters of a Gaussian over latents.

    Args:
      latent_dim: number of latent dimensions D.
      hidden, activation: sizes and activation of the hidden layers.
      covariance: "diagonal", or "rank_one" for a precision with one direction more (`losses.LatentGaussian`).
      num_classes: number of classes of a conditional encoder; None for an unconditional one.
      dtype: type of the computation; parameters and outputs are float32.
      initialization: see `MLPGenerator`.
      logvar_bounds: (low, high), what logvar is clipped to; None for no bounds.

    Called as ``encoder(x [B, ...], label=None, *, train)``; returns (mean [B, D], logvar [B, D]), and the direction
    [B, D] when it is asked for.

    References:
      Rezende et al. 2014, "Stochastic Backpropagation and Approximate Inference in Deep Generative Models", section
      4.3.
    """

    latent_dim: Count
    hidden: tuple[Count, ...] = (128, 128)
    activation: Activation = leaky_relu
    covariance: Literal["diagonal", "rank_one"] = "diagonal"
    num_classes: Count | None = None
    dtype: str = "float32"
    initialization: Initialization = None
    logvar_bounds: tuple[Finite, Finite] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        intervals.check_order(self.logvar_bounds, f"{type(self).__name__}.logvar_bounds")

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> tuple[jax.Array, ...]:
        if self.covariance not in ("diagonal", "rank_one"):
            raise ValueError(f"covariance must be 'diagonal' or 'rank_one', got {self.covariance!r}")
        common: dict[str, Any] = {"dtype": self.dtype, "kernel_init": _kernel_init(self.initialization)}
        layers = _MLP(
            self.hidden, self.activation, dtype=self.dtype, initialization=self.initialization, name="hidden_layers"
        )
        x = layers(_with_label(self, x, label, self.num_classes), train=train)
        names = ("mean", "logvar") if self.covariance == "diagonal" else ("mean", "logvar", "direction")
        mean, logvar, *rest = (Dense(self.latent_dim, **common, name=n)(x).astype(jnp.float32) for n in names)
        if self.logvar_bounds is not None:
            logvar = jnp.clip(logvar, *self.logvar_bounds)
        return mean, logvar, *rest


class MLPGaussian(MLPEncoder):
    """Latents to the diagonal Gaussian over the latents below: p(z_l | z_{l+1}) of a deep latent Gaussian model.

    It is the encoder's network, read in the other direction: its fields are those of `MLPEncoder`, ``latent_dim`` that
    of the layer below, and ``covariance`` "diagonal", as a decoder's must be.

    Called as ``decoder(z [B, D'], label=None, *, train)``; returns (mean [B, D], logvar [B, D]).
    """


class MLPDecoder(MLPGenerator):
    """Latents to the parameters of a likelihood through fully connected layers.

    It is the generator's network with another last activation: its other fields are those of `MLPGenerator`. Of a
    likelihood with P parameters a value, the last axis of ``image_shape`` is P times as long.

    Args:
      output_activation: None for logits (Bernoulli) and unbounded means; sigmoid for means in [0, 1]
        (a Gaussian likelihood of images).

    Called as ``decoder(z [B, D], label=None, *, train)``; returns likelihood parameters [B, *image_shape].
    """

    output_activation: Activation | None = None
