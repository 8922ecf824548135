"""Histograms checked and brought to shares."""

import jax
import jax.numpy as jnp


def shares(name: str, histogram: jax.Array) -> jax.Array:
    """Shares, float32 [K], of counts or shares [K] that errors call ``name``.

    Those that are negative, not finite or all 0 raise where their values are known; inside a caller's ``jit`` all is
    NaN.
    """
    counts = jnp.asarray(histogram, jnp.float32)
    total = jnp.sum(counts)
    valid = jnp.all(counts >= 0) & (total > 0) & (total < jnp.inf)
    if not isinstance(valid, jax.core.Tracer) and not bool(valid):
        raise ValueError(
            f"{name} must be finite counts or shares of at least 0, not all 0, got a sum of {float(total):g} and a "
            f"minimum of {float(counts.min()):g}"
        )
    return jnp.where(valid, counts / total, jnp.nan)
