"""Distances between images by what a network makes of them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxgen.losses._checks import check_float, check_same_shape


def feature_distance(
    features_a: Sequence[jax.Array], features_b: Sequence[jax.Array], weights: Sequence[jax.Array] | None = None
) -> jax.Array:
    """Squared distance of two images' features of unit length, summed over the maps of a network: [B].

    d = sum_l mean_p sum_c w_lc (u_lpc - v_lpc)^2,  u_lp = a_lp / sqrt(|a_lp|^2 + 1e-10),  v from b alike

    With the maps of `jaxgen.networks.VGG16` and the weights that are learnt for them it is LPIPS.

    Args:
      features_a, features_b: maps l of two batches of images, [B, ..., C_l] each, the places p between; of another
        network as well, such as a discriminator's ``features``.
      weights: one vector w_l a map, [C_l], not negative; ones when None.

    References:
      Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", equation 1.
    """
    if not len(features_a) == len(features_b) > 0 or (weights is not None and len(weights) != len(features_a)):
        others = "" if weights is None else f" and {len(weights)} weights"
        raise ValueError(
            f"expected as many maps of both images and as many weights, got {len(features_a)} and "
            f"{len(features_b)} maps{others}"
        )
    distances = []
    for number, (a, b) in enumerate(zip(features_a, features_b, strict=True)):
        check_float(f"features_a[{number}]", a)
        check_float(f"features_b[{number}]", b)
        check_same_shape(**{f"features_a[{number}]": a, f"features_b[{number}]": b})
        if jnp.ndim(a) < 2:
            raise ValueError(f"features_a[{number}] must be [B, ..., C], got {list(jnp.shape(a))}")
        squares = jnp.square(_unit(a) - _unit(b))
        if weights is not None:
            check_same_shape(**{f"weights[{number}]": weights[number], "channels": a[(0,) * (a.ndim - 1)]})
            squares = squares * jnp.expand_dims(weights[number], tuple(range(a.ndim - 1)))
        distances.append(jnp.mean(jnp.sum(squares, axis=-1), axis=tuple(range(1, a.ndim - 1))))
    return jnp.sum(jnp.stack(distances), axis=0)


def _unit(features: jax.Array) -> jax.Array:
    """Vectors [..., C] of length one, shorter where they are zero or nearly so: the gradient stays finite."""
    wide = features.astype(jnp.float32)
    return wide * jax.lax.rsqrt(jnp.sum(jnp.square(wide), axis=-1, keepdims=True) + 1e-10)
