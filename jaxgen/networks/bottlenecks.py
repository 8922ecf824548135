"""What stands between an image tokenizer's encoder and decoder: a Gaussian, or codes without a codebook.

A bottleneck is called as ``bottleneck(h [B, h, w, P], *, train)`` with what the encoder makes of images, and returns a
`Bottled`. All is computed in float32.
"""

import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxgen import intervals
from jaxgen.intervals import INT32_MAX, Count, Finite, Interval, NotNegative, Positive
from jaxgen.keys import example_keys
from jaxgen.losses import gaussian_kl
from jaxgen.networks.network import Network

EXACT = lax.Precision.HIGHEST  # of distances and averages, where a product's rounding could choose another code
_SHRINKING = 1e-3
_LEAST_SHARE = 1e-20  # whose logarithm is finite, with a gradient


class Bottled(NamedTuple):
    """What a bottleneck makes of B images on a grid of h x w positions.

    Args:
      latents: what the decoder takes, [B, h, w, c]; where they are quantised, their gradient goes straight through.
      codes: which code each position has, int32 [B, h, w]; None where there are none.
      loss: the bottleneck's own loss of each image, its terms weighted, float32 [B].
      numbers: the terms by name, of each image and not weighted, float32 [B] each.
    """

    latents: jax.Array
    codes: jax.Array | None
    loss: jax.Array
    numbers: dict[str, jax.Array]


def straight_through(values: jax.Array, quantized: jax.Array) -> jax.Array:
    """The quantised values, exactly, with the gradient of those that they are of; both of one shape."""
    return lax.stop_gradient(quantized) + (values - lax.stop_gradient(values))


def image_mean(values: jax.Array) -> jax.Array:
    """Mean over all but the first axis, [B, ...] -> [B]."""
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


class Bottleneck(Network):
    """What bottlenecks have in common: how many channels and codes they have, and what they refuse."""

    @property
    def num_latents(self) -> int:
        """Channels c of the latents."""
        raise NotImplementedError

    @property
    def num_codes(self) -> int | None:
        """Number of codes K; None where there are none."""
        raise NotImplementedError

    @property
    def num_inputs(self) -> int:
        """Channels P that are wanted of the encoder."""
        return self.num_latents

    @property
    def bits_per_position(self) -> float | None:
        """log2 K: bits that say which code a position has; None where there are no codes."""
        return None if self.num_codes is None else math.log2(self.num_codes)

    def checked(self, h: jax.Array) -> jax.Array:
        """What the encoder made, [B, h, w, P], as float32."""
        if jnp.ndim(h) != 4 or h.shape[-1] != self.num_inputs:
            raise ValueError(
                f"{type(self).__name__} takes [B, h, w, {self.num_inputs}], got {list(jnp.shape(h))}: let the encoder "
                f"end in {self.num_inputs} channels (num_inputs)"
            )
        return h.astype(jnp.float32)

    def embed(self, codes: jax.Array) -> jax.Array:
        """Latents [B, h, w, c] of codes, integers [B, h, w] from 0 to K - 1; NaN where traced ones are out of range."""
        codes, last = jnp.asarray(codes), (self.num_codes or 0) - 1
        if not jnp.issubdtype(codes.dtype, jnp.integer):
            raise TypeError(f"codes must be integers, got {codes.dtype}: give a Bottled's codes, or .astype(jnp.int32)")
        valid = (codes >= 0) & (codes <= last)
        if codes.size and not isinstance(valid, jax.core.Tracer) and not bool(valid.all()):
            raise ValueError(
                f"codes must be from 0 to {last}, got values from {int(codes.min())} to {int(codes.max())}: they are "
                f"no codes of this {type(self).__name__}"
            )
        return jnp.where(valid[..., None], self.embedded(codes.astype(jnp.int32)), jnp.nan)

    def embedded(self, codes: jax.Array) -> jax.Array:
        """Latents [B, h, w, c] of codes int32 [B, h, w] that are in range; anything for others."""
        raise NotImplementedError

    def nearest(self, z: jax.Array) -> jax.Array:
        """Any latents [B, h, w, c] as those of the nearest codes, with the gradient of the former."""
        raise NotImplementedError


class KLBottleneck(Bottleneck):
    """A diagonal Gaussian for each image, held near the standard normal: continuous latents, no codes.

    z = mean + exp(logvar / 2) eps,  loss = weight * KL(N(mean, exp(logvar)) || N(0, I)),  h = (mean, logvar)

    The divergence is in nats of an image, summed over positions and channels, and is the number ``kl``. eps depends
    on the image's place in the global batch, not on how that is laid out over devices.

    Args:
      channels: channels c of the latents; it takes P = 2 c, the means before the log-variances.
      weight: of the divergence.
      sampled: whether latents are sampled in training; else, and outside of training, they are the means.
      logvar_bounds: (low, high), what logvar is clipped to: it has no gradient beyond.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``bottleneck(h [B, h, w, 2 c], *, train)``; returns a `Bottled`. It needs a ``dropout`` key to sample.

    References:
      Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", section 3.1, KL-reg; weight
      and bounds as in the code published with it.
    """

    channels: Count
    weight: NotNegative = 1e-6
    sampled: bool = True
    logvar_bounds: tuple[Finite, Finite] = (-30.0, 20.0)
    axis_name: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        intervals.check_order(self.logvar_bounds, f"{type(self).__name__}.logvar_bounds")

    @property
    def num_latents(self) -> int:
        return self.channels

    @property
    def num_inputs(self) -> int:
        return 2 * self.channels

    @property
    def num_codes(self) -> None:
        return None

    def __call__(self, h: jax.Array, *, train: bool) -> Bottled:
        mean, logvar = self.posterior(h)
        latents = mean
        if train and self.sampled:
            keys = example_keys(self.make_rng("dropout"), mean.shape[0], self.axis_name)
            noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:], jnp.float32))(keys)
            latents = mean + jnp.exp(0.5 * logvar) * noise
        kl = gaussian_kl(mean, logvar)
        return Bottled(latents, None, self.weight * kl, {"kl": kl})

    def posterior(self, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Means and log-variances, clipped, of what the encoder made [B, h, w, 2 c]: each [B, h, w, c]."""
        mean, logvar = jnp.split(self.checked(h), 2, axis=-1)
        return mean, jnp.clip(logvar, *self.logvar_bounds)

    def embed(self, codes: jax.Array) -> jax.Array:
        """Refused, whatever the codes [B, h, w]: there are none here."""
        raise ValueError(
            "KLBottleneck has no codes to embed: its latents are continuous; use VQBottleneck, FSQBottleneck or "
            "LFQBottleneck for codes"
        )

    def nearest(self, z: jax.Array) -> jax.Array:
        """Refused, whatever the latents [B, h, w, c]: there are no codes here."""
        raise ValueError("KLBottleneck has no codes that latents could be near to: decode them as they are")


class FSQBottleneck(Bottleneck):
    """Every channel rounded to one of a few levels: a grid of codes, without a codebook and without a loss.

    y = round(a tanh(h + s) - o),  z = y / floor(L / 2),  code = sum_i (y_i + floor(L_i / 2)) prod_{j < i} L_j

    a = (1 - 1e-3) (L - 1) / 2,  o = 1/2 of even levels, else 0,  s = tan(o / a)

    Latents are in [-1, 1], those of even levels below 1. The gradient goes straight through the rounding.

    Args:
      levels: L, number of levels of each channel, at least 2: as many channels as there are numbers.

    Called as ``bottleneck(h [B, h, w, c], *, train)``; returns a `Bottled` whose loss is 0, without numbers.

    References:
      Mentzer et al. 2024, "Finite Scalar Quantization: VQ-VAE Made Simple", section 3 and appendix A.1; levels for a
      codebook of some size are in table 1.
    """

    levels: tuple[Annotated[int, Interval(2, INT32_MAX)], ...] = (8, 5, 5, 5)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.levels, tuple | list) or not self.levels or math.prod(self.levels) > INT32_MAX:
            raise ValueError(
                f"FSQBottleneck.levels must be at least one number, and their product at most {INT32_MAX}, got "
                f"{self.levels!r}: name fewer levels or channels"
            )

    @property
    def num_latents(self) -> int:
        return len(self.levels)

    @property
    def num_codes(self) -> int:
        return math.prod(self.levels)

    def _of_channels(self, numbers: list[Any], like: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(numbers, like.dtype), like.shape)

    def __call__(self, h: jax.Array, *, train: bool) -> Bottled:
        h = self.checked(h)
        halves = [(1.0 - _SHRINKING) * (levels - 1) / 2 for levels in self.levels]
        offsets = [0.0 if levels % 2 else 0.5 for levels in self.levels]
        shifts = [math.tan(offset / half) for offset, half in zip(offsets, halves, strict=True)]
        bounded = jnp.tanh(h + self._of_channels(shifts, h)) * self._of_channels(halves, h)
        bounded = bounded - self._of_channels(offsets, h)
        rounded = jnp.round(bounded)
        middles = [levels // 2 for levels in self.levels]
        latents = straight_through(bounded, rounded) / self._of_channels(middles, h)
        digits = rounded.astype(jnp.int32) + self._of_channels(middles, rounded.astype(jnp.int32))
        codes = jnp.sum(digits * self._of_channels(self._bases(), digits), axis=-1, dtype=jnp.int32)
        return Bottled(latents, codes, jnp.zeros(h.shape[0], jnp.float32), {})

    def _bases(self) -> list[int]:
        return [math.prod(self.levels[:channel]) for channel in range(len(self.levels))]

    def embedded(self, codes: jax.Array) -> jax.Array:
        repeated = jnp.broadcast_to(codes[..., None], (*codes.shape, len(self.levels)))
        digits = repeated // self._of_channels(self._bases(), repeated) % self._of_channels([*self.levels], repeated)
        middles = self._of_channels([levels // 2 for levels in self.levels], repeated)
        return (digits - middles).astype(jnp.float32) / middles.astype(jnp.float32)

    def nearest(self, z: jax.Array) -> jax.Array:
        z = z.astype(jnp.float32)
        middles = self._of_channels([levels // 2 for levels in self.levels], z)
        last = self._of_channels([levels - 1 - levels // 2 for levels in self.levels], z)
        return straight_through(z, jnp.clip(jnp.round(z * middles), -middles, last) / middles)


def _code_probabilities(logits: jax.Array) -> jax.Array:
    """Probabilities of all codes of independent bits [N, n] from their logits: [N, 2^n], bit i worth 2^i."""
    table = jnp.ones((len(logits), 1), logits.dtype)
    for bit in range(logits.shape[1]):
        one = logits[:, bit : bit + 1]
        table = jnp.concatenate([table * jax.nn.sigmoid(-one), table * jax.nn.sigmoid(one)], axis=1)
    return table


class LFQBottleneck(Bottleneck):
    """The sign of every channel: 2^bits codes without a codebook, kept in use by an entropy.

    z_i = 1 if h_i > 0, else -1,  code = sum_i 2^i [z_i = 1],  q(code | h) = prod_i sigmoid(4 z_i h_i / temperature)

    loss = commitment * mean (h - sg(z))^2 + entropy_weight (mean H(q) - diversity * H(mean of q)),  sg stops gradients

    The first two means are over an image's values and positions, the last over the global batch; entropies are in nats.
    q is the softmax of -|h - z|^2 / temperature over all codes, whose entropy is the sum of the bits'. That of the
    mean is exact up to ``group_bits``: with the bits in two halves the mean is a product of two matrices, [2^(bits/2),
    N] and [N, 2^(bits/2)] for N positions. Of more bits it is the sum over groups of them, which is at least as much.

    Args:
      bits: channels; there are 2^bits codes.
      entropy_weight: of both entropies.
      diversity: of the second one, beside the first.
      temperature: of q.
      commitment: weight of the distance to the code.
      group_bits: most bits whose codes are counted together: as few groups as that allows, as even as may be.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``bottleneck(h [B, h, w, bits], *, train)``; returns a `Bottled` with the numbers ``commitment``,
    ``entropy`` (mean H(q) of an image) and ``batch_entropy`` (H(mean of q), the same of all images).

    References:
      Yu et al. 2024, "Language Model Beats Diffusion - Tokenizer is Key to Visual Generation", section 3.1. Luo
      et al. 2024, "Open-MAGVIT2", on groups of bits.
    """

    bits: Annotated[int, Interval(1, 31)]
    entropy_weight: NotNegative = 0.1
    diversity: NotNegative = 1.0
    temperature: Positive = 0.01
    commitment: NotNegative = 0.25
    group_bits: Annotated[int, Interval(1, 20)] = 18
    axis_name: Any = None

    @property
    def num_latents(self) -> int:
        return self.bits

    @property
    def num_codes(self) -> int:
        return 2**self.bits

    def __call__(self, h: jax.Array, *, train: bool) -> Bottled:
        h = self.checked(h)
        ones = h > 0
        z = jnp.where(ones, 1.0, -1.0)
        weights = jnp.broadcast_to(jnp.left_shift(1, jnp.arange(self.bits, dtype=jnp.int32)), h.shape)
        codes = jnp.sum(jnp.where(ones, weights, 0), axis=-1, dtype=jnp.int32)
        logits = 4.0 / self.temperature * h
        sure = jnp.abs(logits)  # H = -log sigmoid(l) + l sigmoid(-l) for l > 0, where nothing cancels
        entropies = jax.nn.softplus(-sure) + sure * jax.nn.sigmoid(-sure)
        entropy = self.bits * image_mean(entropies)
        batch_entropy = jnp.broadcast_to(self._batch_entropy(logits.reshape(-1, self.bits)), entropy.shape)
        commitment = image_mean(jnp.square(h - z))
        loss = self.commitment * commitment + self.entropy_weight * (entropy - self.diversity * batch_entropy)
        numbers = {"commitment": commitment, "entropy": entropy, "batch_entropy": batch_entropy}
        return Bottled(straight_through(h, z), codes, loss, numbers)

    def _batch_entropy(self, logits: jax.Array) -> jax.Array:
        """H(mean of q) in nats, [], of all devices' positions, of which these are the logits here [N, bits]."""
        groups = -(-self.bits // self.group_bits)
        total = jnp.float32(0.0)
        for group in range(groups):
            start, end = (self.bits * (group + more) // groups for more in (0, 1))
            middle = (start + end) // 2
            low, high = _code_probabilities(logits[:, start:middle]), _code_probabilities(logits[:, middle:end])
            mean = jnp.matmul(high.T, low, precision=EXACT) / len(logits)
            mean = mean if self.axis_name is None else lax.pmean(mean, self.axis_name)
            total = total - jnp.sum(mean * jnp.log(jnp.maximum(mean, _LEAST_SHARE)))
        return total

    def embedded(self, codes: jax.Array) -> jax.Array:
        shape = (*codes.shape, self.bits)
        places = jnp.broadcast_to(jnp.arange(self.bits, dtype=jnp.int32), shape)
        return jnp.where(jnp.right_shift(jnp.broadcast_to(codes[..., None], shape), places) & 1 == 1, 1.0, -1.0)

    def nearest(self, z: jax.Array) -> jax.Array:
        z = z.astype(jnp.float32)
        return straight_through(z, jnp.where(z > 0, 1.0, -1.0))
