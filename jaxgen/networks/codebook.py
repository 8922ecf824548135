"""Vector quantisation: a bottleneck with a codebook that is learnt by gradient or as moving averages."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxgen.intervals import Count, NotNegative, Rate
from jaxgen.keys import axis_size
from jaxgen.networks.bottlenecks import EXACT, Bottled, Bottleneck, image_mean, straight_through

_SMOOTHING = 1e-5


def _unit(vectors: jax.Array) -> jax.Array:
    """Vectors of length 1 along the last axis, [..., c]; what is shorter than 1e-6 stays short."""
    return vectors * lax.rsqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True) + 1e-12)


def _nearest_codes(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """Which row of the codebook [K, c] each vector [N, c] is nearest to, [N]."""
    likeness = jnp.matmul(vectors, codebook.T, precision=EXACT)
    squares = jnp.sum(jnp.square(codebook), axis=-1)
    return jnp.argmax(likeness - 0.5 * jnp.broadcast_to(squares[None], likeness.shape), axis=-1)


class VQBottleneck(Bottleneck):
    """The nearest vector of a learnt codebook, at each position.

    k = argmin_k |z - e_k|,  loss = commitment * mean (z - sg(e_k))^2 + mean (sg(z) - e_k)^2,  sg stops gradients

    Both are means over all values of an image, positions and channels, and the first is the number ``commitment``. The
    second trains the codebook by gradient. With ``decay`` there is none of it: counts and sums over the global batch
    are averaged in the collection ``codebook``, in training only:

    N_k <- decay N_k + (1 - decay) n_k,  m_k <- decay m_k + (1 - decay) sum of the z whose code is k,  e_k = m_k / N_k

    N_k is smoothed there as (N_k + 1e-5) / (sum N + 1e-5 K) sum N, and a code starts with N = 1 and m = e. Where
    normalised, e_k = m_k / |m_k|, and a code stays where it was when |m_k| is nothing.

    Codes start as directions drawn evenly where normalised, else as numbers even in [-1/K, 1/K].

    Args:
      codebook_size: number of codes K.
      channels: channels c of the latents, as many as are taken of the encoder.
      commitment: weight of the first term.
      normalized: whether inputs and codes are brought to length 1 first: latents are then on the unit sphere.
      decay: of the moving averages, usually 0.99; None for a codebook that is a parameter.
      restart_below: vectors of a global batch, N_k, below which a code is put on one of its vectors, drawn at random,
        and counts for 1, or for ``restart_below`` if more; of fewer vectors than such codes some serve several times.
        None for codes that are never moved so; it takes ``decay``.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``bottleneck(h [B, h, w, c], *, train)``; returns a `Bottled`. It needs a ``dropout`` key to restart.

    References:
      van den Oord et al. 2017, "Neural Discrete Representation Learning", equation 3 and appendix A.1, averaged over
      values as Esser et al. 2021, "Taming Transformers", do, smoothed as in the code published with the first. Yu et
      al. 2022, "Vector-quantized Image Modeling with Improved VQGAN", section 3.2: the sphere. Dhariwal et al. 2020,
      "Jukebox", section 3.1: restarts.
    """

    codebook_size: Count
    channels: Count
    commitment: NotNegative = 0.25
    normalized: bool = True
    decay: Rate | None = None
    restart_below: NotNegative | None = None
    axis_name: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restart_below is not None and self.decay is None:
            raise ValueError(
                f"VQBottleneck.restart_below={self.restart_below!r} must be None without decay, as codes are counted "
                "with it only: give decay=0.99 too"
            )

    @property
    def num_latents(self) -> int:
        return self.channels

    @property
    def num_codes(self) -> int:
        return self.codebook_size

    def setup(self) -> None:
        shape = (self.codebook_size, self.channels)

        def start(key: jax.Array) -> jax.Array:
            if self.normalized:
                return _unit(jax.random.normal(key, shape, jnp.float32))
            bound = 1.0 / self.codebook_size
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        if self.decay is None:
            self._parameter = self.param("codebook", start)
            return
        self._codes = self.variable("codebook", "codes", lambda: start(self.make_rng("params")))
        self._counts = self.variable("codebook", "counts", lambda: jnp.ones(shape[:1], jnp.float32))
        self._sums = self.variable("codebook", "sums", lambda: jnp.array(self._codes.value))

    def _codebook(self) -> jax.Array:
        if self.decay is not None:
            return self._codes.value
        return _unit(self._parameter) if self.normalized else self._parameter

    def embedded(self, codes: jax.Array) -> jax.Array:
        return jnp.take(self._codebook(), codes, axis=0)

    def nearest(self, z: jax.Array) -> jax.Array:
        z, codebook = z.astype(jnp.float32), self._codebook()
        z = _unit(z) if self.normalized else z
        chosen = _nearest_codes(lax.stop_gradient(z).reshape(-1, self.channels), codebook)
        return straight_through(z, jnp.take(codebook, chosen, axis=0).reshape(z.shape))

    def __call__(self, h: jax.Array, *, train: bool) -> Bottled:
        z, codebook = self.checked(h), self._codebook()
        z = _unit(z) if self.normalized else z
        vectors, fixed = (lax.stop_gradient(each) for each in (z.reshape(-1, self.channels), codebook))
        chosen = _nearest_codes(vectors, fixed)
        quantized = jnp.take(fixed, chosen, axis=0).reshape(z.shape)
        commitment = image_mean(jnp.square(z - quantized))
        loss = self.commitment * commitment
        # A product in place of looking up codes, whose gradient would be summed in any order on a GPU.
        one_hot = jax.nn.one_hot(chosen, self.codebook_size) if train else None
        if self.decay is None:
            learnt = quantized if one_hot is None else jnp.matmul(one_hot, codebook, precision=EXACT).reshape(z.shape)
            loss = loss + image_mean(jnp.square(lax.stop_gradient(z) - learnt))
        elif one_hot is not None and not self.is_initializing():
            self._learn(vectors, one_hot)
        codes = chosen.astype(jnp.int32).reshape(z.shape[:-1])
        return Bottled(straight_through(z, quantized), codes, loss, {"commitment": commitment})

    def _learn(self, vectors: jax.Array, one_hot: jax.Array) -> None:
        """Move the averages on by one global batch, of which these are this device's vectors [N, c] and codes [N, K].

        All that is kept comes from sums over the axis, so `shard_map` knows it to be the same on every device.
        """
        assert self.decay is not None
        counted = jnp.concatenate([vectors, jnp.ones_like(vectors[:, :1])], axis=1)
        found = jnp.matmul(one_hot.T, counted, precision=EXACT)
        found = found if self.axis_name is None else lax.psum(found, self.axis_name)
        counts = self.decay * self._counts.value + (1.0 - self.decay) * found[:, -1]
        sums = self.decay * self._sums.value + (1.0 - self.decay) * found[:, :-1]
        if self.normalized:
            squares = jnp.sum(jnp.square(sums), axis=-1, keepdims=True)
            there = squares > 1e-12
            codes = jnp.where(there, sums * lax.rsqrt(jnp.where(there, squares, 1.0)), self._codes.value)
        else:
            total = jnp.sum(counts)
            smoothed = (counts + _SMOOTHING) / (total + _SMOOTHING * self.codebook_size) * total
            codes = sums / smoothed[:, None]
        if self.restart_below is not None:
            unused = counts < self.restart_below
            others = self._drawn(vectors, unused)
            count = max(1.0, self.restart_below)
            counts = jnp.where(unused, count, counts)
            codes = jnp.where(unused[:, None], others, codes)
            sums = jnp.where(unused[:, None], count * others, sums)
        self._codes.value, self._counts.value, self._sums.value = codes, counts, sums

    def _drawn(self, vectors: jax.Array, unused: jax.Array) -> jax.Array:
        """For each unused code, bool [K], a vector of the global batch, of which these are this device's: [K, c]."""
        here, parts = len(vectors), axis_size(self.axis_name)
        order = jax.random.permutation(self.make_rng("dropout"), here * parts)
        index = order[(jnp.cumsum(unused) - 1) % len(order)]
        if self.axis_name is None:
            return vectors[index]
        place = index - lax.axis_index(self.axis_name) * here
        mine = (place >= 0) & (place < here)
        return lax.psum(jnp.where(mine[:, None], vectors[jnp.where(mine, place, 0)], 0.0), self.axis_name)
