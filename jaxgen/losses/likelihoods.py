"""Likelihoods p(x | parameters): what a VAE's decoder means by its output.

Each is a frozen dataclass with ``log_prob(parameters, x) -> [B]``, ``mean(parameters)``, ``sample(key, parameters)``
and ``parameters_per_value``. ``parameters`` is the decoder's output, its first axis the batch; its last axis is
``parameters_per_value`` times that of x, all values' first parameter, then all values' second, and so on.
"""

import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp

from jaxgen import intervals
from jaxgen.intervals import Count, Interval, Positive
from jaxgen.losses._checks import check_batched, check_float, sum_event

# Images have 256 levels 0, 1/255, ..., 1; a level's bin reaches half of this to either side.
_LEVEL = 1.0 / 255.0


def _check(parameters: jax.Array, x: jax.Array, parameters_per_value: int) -> None:
    check_float("parameters", parameters)
    check_float("x", x)
    check_batched("x", x)
    expected = (*x.shape[:-1], x.shape[-1] * parameters_per_value)
    if parameters.shape != expected:
        raise ValueError(
            f"parameters must be {list(expected)} for x {list(x.shape)}, {parameters_per_value} for each value, got "
            f"{list(parameters.shape)}: give the decoder {expected[-1]} channels on its last axis"
        )


def _split(parameters: jax.Array, parameters_per_value: int) -> list[jax.Array]:
    """One array for each parameter of a value [B, ..., C], in float32 or better."""
    if parameters.shape[-1] % parameters_per_value:
        raise ValueError(
            f"parameters must have a multiple of {parameters_per_value} channels on their last axis, got shape "
            f"{list(parameters.shape)}"
        )
    parameters = parameters.astype(jnp.promote_types(parameters.dtype, jnp.float32))
    return jnp.split(parameters, parameters_per_value, axis=-1)


def _soft_clip(x: jax.Array, low: float, high: float) -> jax.Array:
    """Two bounds approached smoothly, to 5e-5 the identity from one unit inside them."""
    x = low + jax.nn.softplus(8.0 * (x - low)) / 8.0
    return high - jax.nn.softplus(8.0 * (high - x)) / 8.0


def _rows(array: jax.Array) -> jax.Array:
    """Values in one row per example, [B, ...] -> [B, D].

    On the CPU a sum over pixels of one channel is not vectorised: importance sampling took 10 times as long.
    """
    return array.reshape(array.shape[0], -1)


@jax.custom_jvp
def _bernoulli_log_prob(logits: jax.Array, x: jax.Array) -> jax.Array:
    """sum_i x_i logit_i - softplus(logit_i) over rows [B, D], with one logarithm for every 8 values.

    softplus(l) = relu(l) + log(1 + exp(-|l|)): the factors 1 + exp(-|l|) lie between 1 and 2, and a product of 8
    overflows in no type. A logarithm for every value makes importance sampling a tenth slower on a CPU, and
    `jax.nn.softplus`, which also asks for infinities, slower still.
    """
    factors = 1.0 + jnp.exp(-jnp.abs(logits))
    factors = jnp.pad(factors, ((0, 0), (0, -logits.shape[1] % 8)), constant_values=1)
    logs = jnp.log(jnp.prod(factors.reshape(logits.shape[0], 8, -1), axis=1))
    return sum_event(x * logits - jax.nn.relu(logits)) - sum_event(logs)


@_bernoulli_log_prob.defjvp
def _(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    (logits, x), (logits_tangent, x_tangent) = primals, tangents
    # Not by the parts of the value, whose gradients jump where a logit is 0.
    tangent = (x - jax.nn.sigmoid(logits)) * logits_tangent + logits * x_tangent
    return _bernoulli_log_prob(logits, x), sum_event(tangent)


# Of logarithms whose exponentials float32 holds, (low, high).
Range = tuple[Annotated[float, Interval(-80.0, 80.0)], Annotated[float, Interval(-80.0, 80.0)]]


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Independent Bernoulli pixels, given by their logits [B, ...].

    log p(x | logits) = sum_i x_i logit_i - softplus(logit_i)

    For x strictly between 0 and 1 it is the usual cross-entropy: a bound on nothing, but what VAEs on grey
    images have always been trained with.
    """

    parameters_per_value = 1

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """Log-probability in nats [B] of images x in [0, 1] given their logits ``parameters``, both [B, ...].

        References:
          Kingma & Welling 2014, "Auto-Encoding Variational Bayes", appendix C.1, equation 11.
        """
        _check(parameters, x, self.parameters_per_value)
        return _bernoulli_log_prob(_rows(parameters), _rows(x))

    def mean(self, parameters: jax.Array) -> jax.Array:
        """Mean of the pixels: sigmoid(logits), in [0, 1], same shape as ``parameters`` [B, ...]."""
        return jax.nn.sigmoid(parameters)

    def sample(self, key: jax.Array, parameters: jax.Array) -> jax.Array:
        """Draw binary pixels, floats 0 or 1 of the shape of ``parameters`` [B, ...]."""
        return jax.random.bernoulli(key, self.mean(parameters)).astype(parameters.dtype)


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Independent Gaussian pixels of one fixed standard deviation, given by their means [B, ...].

    log p(x | mean) = -sum_i [ (x_i - mean_i)^2 / (2 scale^2) + log(scale) + log(2 pi) / 2 ]

    The standard deviation ``scale`` is in units of the image, whose range is 1.
    """

    scale: Positive = 1.0

    parameters_per_value = 1

    def __post_init__(self) -> None:
        intervals.check(self)

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """Log-density in nats [B] of images x given their means ``parameters``, both [B, ...].

        References:
          Kingma & Welling 2014, "Auto-Encoding Variational Bayes", appendix C.2, equation 12.
        """
        _check(parameters, x, self.parameters_per_value)
        log_normalizer = math.log(self.scale) + 0.5 * math.log(2.0 * math.pi)
        return -sum_event(0.5 * jnp.square((_rows(x) - _rows(parameters)) / self.scale) + log_normalizer)

    def mean(self, parameters: jax.Array) -> jax.Array:
        """Mean of the pixels: the parameters themselves, [B, ...]."""
        return parameters

    def sample(self, key: jax.Array, parameters: jax.Array) -> jax.Array:
        """Draw pixels around the means, of the shape of ``parameters`` [B, ...]; not clipped to [0, 1]."""
        return parameters + self.scale * jax.random.normal(key, parameters.shape, parameters.dtype)


@dataclasses.dataclass(frozen=True)
class ContinuousBernoulli:
    """Independent values in [0, 1] whose log-density is linear, given by their logits [B, ...].

    log p(x | logits) = sum_i x_i logit_i - log int_0^1 exp(t logit_i) dt

    What the Bernoulli's cross-entropy on grey images lacks to be a density: its normaliser.
    """

    parameters_per_value = 1

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """Log-density in nats [B] of images x in [0, 1] given their logits ``parameters``, both [B, ...].

        The normaliser is log((e^l - 1) / l), by its series where the logit l is small.

        References:
          Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli: fixing a pervasive error in variational
          autoencoders", in terms of the logit.
        """
        _check(parameters, x, self.parameters_per_value)
        (logits,) = _split(parameters, 1)
        size = self._size(logits)
        series = logits / 2.0 + jnp.square(logits) / 24.0 - jnp.square(jnp.square(logits)) / 2880.0
        log_normalizer = jax.nn.relu(logits) + jnp.log(-jnp.expm1(-size)) - jnp.log(size)
        return sum_event(x * logits - jnp.where(jnp.abs(logits) < 0.3, series, log_normalizer))

    def mean(self, parameters: jax.Array) -> jax.Array:
        """Mean of the pixels: 1 / (1 - exp(-logit)) - 1 / logit, in [0, 1], of the shape of ``parameters`` [B, ...]."""
        (logits,) = _split(parameters, 1)
        size = self._size(logits)
        series = 0.5 + logits / 12.0 - logits**3 / 720.0
        upper = -1.0 / jnp.expm1(-size) - 1.0 / size
        return jnp.where(jnp.abs(logits) < 0.3, series, jnp.where(logits > 0, upper, 1.0 - upper))

    def sample(self, key: jax.Array, parameters: jax.Array) -> jax.Array:
        """Draw pixels in [0, 1] by the inverse of their distribution function, like ``parameters`` [B, ...]."""
        (logits,) = _split(parameters, 1)
        size = self._size(logits)
        uniform = jax.random.uniform(key, logits.shape, logits.dtype)
        lower = -jnp.log1p(uniform * jnp.expm1(-size)) / size
        drawn = jnp.where(logits > 0, 1.0 - lower, lower)
        # To first order in the logit; the rest is below round-off there.
        series = uniform + 0.5 * logits * uniform * (1.0 - uniform)
        return jnp.clip(jnp.where(jnp.abs(logits) < 1e-3, series, drawn), 0.0, 1.0)

    @staticmethod
    def _size(logits: jax.Array) -> jax.Array:
        """|logit|, with 1 in place of those by which nothing may be divided; a series serves there."""
        return jnp.abs(jnp.where(jnp.abs(logits) < 1e-3, 1.0, logits))


@dataclasses.dataclass(frozen=True)
class GaussianLearnedVariance:
    """Independent Gaussian pixels whose means and log-variances the decoder gives, [B, ..., 2 C] for C channels.

    log p(x | mean, v) = -1/2 sum_i [ (x_i - mean_i)^2 exp(-v_i) + v_i + log(2 pi) ]

    Args:
      logvar_range: bounds that the log-variance approaches smoothly. The lower one keeps the density of a pixel that is
        always the same from growing without end; the default is a standard deviation of half a grey level.
      unit_mean: whether the mean is the sigmoid of its parameter, for images in [0, 1]; otherwise it is the parameter.
    """

    logvar_range: Range = (-12.5, 12.5)
    unit_mean: bool = False

    parameters_per_value = 2

    def __post_init__(self) -> None:
        intervals.check(self)
        intervals.check_order(self.logvar_range, "logvar_range")

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """Log-density in nats [B] of images x [B, ..., C] given ``parameters`` [B, ..., 2 C].

        Along the last axis come the means, then the log-variances.

        References:
          Kingma & Welling 2014, "Auto-Encoding Variational Bayes", appendix C.2, equation 12.
        """
        _check(parameters, x, self.parameters_per_value)
        logvar = _soft_clip(_split(parameters, 2)[1], *self.logvar_range)
        squares = jnp.square(x - self.mean(parameters)) * jnp.exp(-logvar)
        return -0.5 * sum_event(squares + logvar + math.log(2.0 * math.pi))

    def mean(self, parameters: jax.Array) -> jax.Array:
        """Mean of the pixels, [B, ..., C] of parameters [B, ..., 2 C]; in [0, 1] with ``unit_mean``."""
        mean, _ = _split(parameters, 2)
        return jax.nn.sigmoid(mean) if self.unit_mean else mean

    def sample(self, key: jax.Array, parameters: jax.Array) -> jax.Array:
        """Draw pixels [B, ..., C] around the means; not clipped to [0, 1]."""
        mean = self.mean(parameters)
        logvar = _soft_clip(_split(parameters, 2)[1], *self.logvar_range)
        return mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape, mean.dtype)


def _level_log_prob(mean: jax.Array, log_scale: jax.Array, x: jax.Array) -> jax.Array:
    """Log-probability of the level next to each x under a logistic cut into 256 bins, the outer ones open, [..., C].

    With a and b the bin's edges in units of the scale, sigmoid(a) - sigmoid(b) is
    sigmoid(a) sigmoid(-b) (1 - exp(b - a)), whose logarithm loses no digits however far out or narrow the bin is.
    """
    x = jnp.round(x.astype(mean.dtype) / _LEVEL) * _LEVEL
    precision = jnp.exp(-log_scale)
    above = jax.nn.log_sigmoid(precision * (x - mean + 0.5 * _LEVEL))  # log P(below the upper edge)
    below = jax.nn.log_sigmoid(-precision * (x - mean - 0.5 * _LEVEL))  # log P(above the lower edge)
    inner = above + below + jnp.log(-jnp.expm1(-precision * _LEVEL))
    lowest, highest = x < 0.5 * _LEVEL, x > 1.0 - 0.5 * _LEVEL
    return jnp.where(lowest, above, jnp.where(highest, below, inner))


def _clipped_logistic_mean(mean: jax.Array, log_scale: jax.Array) -> jax.Array:
    """E[clip(y, 0, 1)] of a logistic y."""
    scale = jnp.exp(log_scale)
    return jnp.clip(scale * (jax.nn.softplus(mean / scale) - jax.nn.softplus((mean - 1.0) / scale)), 0.0, 1.0)


def _sample_level(key: jax.Array, mean: jax.Array, log_scale: jax.Array) -> jax.Array:
    y = mean + jnp.exp(log_scale) * jax.random.logistic(key, mean.shape, mean.dtype)
    return jnp.round(jnp.clip(y, 0.0, 1.0) / _LEVEL) * _LEVEL


@dataclasses.dataclass(frozen=True)
class DiscretizedLogistic:
    """Independent pixels of 256 levels: a logistic distribution cut into bins, [B, ..., 2 C] for C channels.

    P(x | mean, s) = sigmoid((x - mean + 1/510) / s) - sigmoid((x - mean - 1/510) / s),  x in {0, 1/255, ..., 1}

    The bins of 0 and 1 are open to the outside. Means are in units of the image, whose range is 1. log s approaches the
    bounds of ``log_scale_range`` smoothly.
    """

    log_scale_range: Range = (-8.0, 8.0)

    parameters_per_value = 2

    def __post_init__(self) -> None:
        intervals.check(self)
        intervals.check_order(self.log_scale_range, "log_scale_range")

    def _parts(self, parameters: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, log_scale = _split(parameters, 2)
        return mean, _soft_clip(log_scale, *self.log_scale_range)

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """Log-probability in nats [B] of images x [B, ..., C] given ``parameters`` [B, ..., 2 C].

        Along the last axis come the means, then the log-scales. Images are in [0, 1] and taken to the next of the 256
        levels.

        References:
          Kingma et al. 2016, "Improved Variational Inference with Inverse Autoregressive Flow"; Salimans
          et al. 2017, "PixelCNN++", equation 2.
        """
        _check(parameters, x, self.parameters_per_value)
        return sum_event(_level_log_prob(*self._parts(parameters), x))

    def mean(self, parameters: jax.Array) -> jax.Array:
        """Mean of the logistic clipped to [0, 1], half a level from the pixels' at most, [B, ..., C]."""
        return _clipped_logistic_mean(*self._parts(parameters))

    def sample(self, key: jax.Array, parameters: jax.Array) -> jax.Array:
        """Draw pixels of the 256 levels, [B, ..., C]."""
        return _sample_level(key, *self._parts(parameters))


@dataclasses.dataclass(frozen=True)
class DiscretizedLogisticMixture:
    """Independent pixels of 256 levels: a mixture of M discretised logistics, [B, ..., 3 M C] for C channels.

    P(x | ...) = sum_m softmax(logits)_m P(x | mean_m, s_m),  each as in `DiscretizedLogistic`

    Channels are independent given the parameters. Along the last axis come the logits, the means and the log-scales,
    each [M, C], components first. M is ``num_components``; log s approaches the bounds of ``log_scale_range`` smoothly.
    """

    num_components: Count
    log_scale_range: Range = (-8.0, 8.0)

    def __post_init__(self) -> None:
        intervals.check(self)
        intervals.check_order(self.log_scale_range, "log_scale_range")

    @property
    def parameters_per_value(self) -> int:
        """Parameters that the decoder gives for each value: 3 M."""
        return 3 * self.num_components

    def _parts(self, parameters: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Log-weights, means and log-scales of the components, [M, B, ..., C]."""
        parts = jnp.stack(_split(parameters, self.parameters_per_value))
        logits, mean, log_scale = parts.reshape(3, self.num_components, *parts.shape[1:])
        return jax.nn.log_softmax(logits, axis=0), mean, _soft_clip(log_scale, *self.log_scale_range)

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """Log-probability in nats [B] of images x [B, ..., C] given ``parameters`` [B, ..., 3 M C].

        Images are in [0, 1] and taken to the next of the 256 levels.

        References:
          Salimans et al. 2017, "PixelCNN++", section 2, without its coupling of the channels.
        """
        _check(parameters, x, self.parameters_per_value)
        log_weights, mean, log_scale = self._parts(parameters)
        return sum_event(jax.nn.logsumexp(log_weights + _level_log_prob(mean, log_scale, x[None]), axis=0))

    def mean(self, parameters: jax.Array) -> jax.Array:
        """Mean of the mixture clipped to [0, 1], half a level from the pixels' at most, [B, ..., C]."""
        log_weights, mean, log_scale = self._parts(parameters)
        return jnp.clip(jnp.sum(jnp.exp(log_weights) * _clipped_logistic_mean(mean, log_scale), axis=0), 0.0, 1.0)

    def sample(self, key: jax.Array, parameters: jax.Array) -> jax.Array:
        """Draw a component and a level for each pixel, [B, ..., C]."""
        component_key, level_key = jax.random.split(key)
        log_weights, mean, log_scale = self._parts(parameters)
        chosen = jax.random.categorical(component_key, log_weights, axis=0)[None]
        mean, log_scale = (jnp.take_along_axis(part, chosen, axis=0)[0] for part in (mean, log_scale))
        return _sample_level(level_key, mean, log_scale)


Likelihood = (
    Bernoulli
    | ContinuousBernoulli
    | Gaussian
    | GaussianLearnedVariance
    | DiscretizedLogistic
    | DiscretizedLogisticMixture
)

bernoulli = Bernoulli()
continuous_bernoulli = ContinuousBernoulli()
gaussian = Gaussian
gaussian_learned_variance = GaussianLearnedVariance
discretized_logistic = DiscretizedLogistic()
discretized_logistic_mixture = DiscretizedLogisticMixture
