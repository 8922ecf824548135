"""How a codebook is used, by how often each of its codes is chosen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.metrics._histograms import shares


class CodeUsage(NamedTuple):
    """How many codes are used, and how evenly.

    Args:
      share_used: codes chosen at least once, of all, float32 [].
      perplexity: number of equally likely codes that would be as uncertain, from 1 to K, float32 [].
    """

    share_used: jax.Array
    perplexity: jax.Array


def code_usage(counts: jax.Array) -> CodeUsage:
    """How a codebook is used: the share of codes chosen at all, and their perplexity.

    share_used = #{k: n_k > 0} / K,  perplexity = exp(-sum_k p_k ln p_k),  p_k = n_k / sum n,  0 ln 0 = 0

    ``counts`` say how often each code was chosen, at least 0, [K]. Of N choices neither can be more than N codes: take
    several times as many positions as there are codes. NaN where traced counts are negative or all 0.

    References:
      Jelinek et al. 1977, "Perplexity - a measure of the difficulty of speech recognition tasks".
    """
    if jnp.ndim(counts) != 1 or jnp.shape(counts)[0] < 1:
        raise ValueError(f"counts must be one number for each code, [K], got shape {list(jnp.shape(counts))}")
    p = shares("counts", counts)
    used = jnp.where(jnp.isnan(p), jnp.nan, p > 0)
    entropy = -jnp.sum(p * jnp.log(jnp.where(p == 0, 1.0, p)))
    return CodeUsage(jnp.mean(used), jnp.exp(entropy))
