"""The order of examples as a pure function of (key, step): nothing to save, nothing to resume.

Epoch e visits the data in the order of a keyed bijection of {0, ..., N - 1}; step t of an epoch takes the
next B of it. The indices of a step are computed without those of any other step.
"""

import jax
import jax.numpy as jnp

from jaxgen.keys import step_key

_ROUNDS = 24


def _mix(bits: jax.Array) -> jax.Array:
    """Scramble uint32 values, bijectively (the finalizer of MurmurHash3)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def permute(key: jax.Array, index: jax.Array, size: int) -> jax.Array:
    """Look up places of a pseudo-random permutation without building it.

    x' = (k_r - x) mod N;  x <- x' if the bit h_r(max(x, x')) is set;  for rounds r = 1, ..., 24

    Each round pairs every element with another one and swaps half of the pairs: a bijection for every N, without a
    loop of unknown length, which would hold up an accelerator. In a round one of two elements moves without the other
    with a chance of 1/2, so after 24 of them two that were neighbours are so with the chance of any others, to 2^-24.

    Args:
      key: typed key, []; one permutation a key.
      index: places, int32, any shape, each in [0, size).
      size: number of elements N, from 1 to 2^31 - 1.

    Returns:
      The elements at those places, int32 of the same shape.

    References:
      Hoang, Morris & Rogaway 2012, "An Enciphering Scheme Based on a Card Shuffle", figure 1 (swap-or-not).
    """
    element, size = index.astype(jnp.uint32), jnp.uint32(size)
    for shift, salt in jax.random.bits(key, (_ROUNDS, 2), jnp.uint32):
        partner = shift % size + size - element
        partner = jnp.where(partner >= size, partner - size, partner)
        swaps = _mix(jnp.maximum(element, partner) ^ salt) >> 31 == 1
        element = jnp.where(swaps, partner, element)
    return element.astype(jnp.int32)


def batch_indices(key: jax.Array, step: jax.Array, num_examples: int, batch_size: int) -> jax.Array:
    """Which examples make up the batch of a step.

    epoch = step // (N // B);  index_i = permutation_epoch((step mod (N // B)) B + i)

    Every epoch shows N // B full batches and leaves out N mod B examples, others each time.

    Args:
      key: the run's typed key, [].
      step: number of the step, int32 [].
      num_examples: size of the data set, N.
      batch_size: size of the global batch, B.

    Returns:
      Indices into the data set, int32 [B], all different.

    Raises:
      ValueError: the batch size is not positive, or larger than the data set.
    """
    if batch_size < 1:
        raise ValueError(f"batch size must be at least 1, got {batch_size}")
    if batch_size > num_examples:
        raise ValueError(
            f"batch size {batch_size} is larger than the data set of {num_examples} images: "
            f"use a batch size of at most {num_examples}"
        )
    steps_per_epoch = num_examples // batch_size
    epoch_key = step_key(key, "data order", step // steps_per_epoch)
    position = (step % steps_per_epoch) * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    return permute(epoch_key, position, num_examples)
