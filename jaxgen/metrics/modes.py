"""Modes found of a known mixture of Gaussians: the classic check for mode collapse, and the mixtures."""

import math

import jax
import jax.numpy as jnp

from jaxgen.keys import example_keys


def _check_mixture(centers: jax.Array, scale: float) -> None:
    if centers.ndim != 2 or centers.shape[0] < 1:
        raise ValueError(f"centers must be [M, D] with M >= 1, got shape {list(centers.shape)}")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a finite number above 0, got {scale!r}")


def mode_coverage(
    samples: jax.Array, centers: jax.Array, scale: float, num_scales: float = 3.0
) -> tuple[jax.Array, jax.Array]:
    """How many modes of a mixture of Gaussians the samples find, int32 [], and how many samples lie on one, float32 [].

    A sample x is good when |x - c| <= num_scales scale, c the nearest centre; a mode is found when at least one good
    sample is nearest to it. The share of good samples is in [0, 1]; one that is not finite is not good.

    Args:
      samples, centers: generated points [N, D] and centres of the modes [M, D].
      scale: standard deviation of each mode in each dimension, in units of the points.
      num_scales: greatest distance of a good sample in standard deviations.

    References:
      Srivastava et al. 2017, "VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning".
      Lin et al. 2018, "PacGAN: The power of two samples in generative adversarial networks", section 4.1.
    """
    _check_mixture(centers, scale)
    if samples.ndim != 2 or samples.shape[0] < 1 or samples.shape[1] != centers.shape[1]:
        raise ValueError(f"samples must be [N, {centers.shape[1]}] with N >= 1, got shape {list(samples.shape)}")
    if not num_scales > 0:
        raise ValueError(f"num_scales must be above 0, got {num_scales!r}")
    # From the differences: |x|^2 - 2 x.c + |c|^2 would cancel where the modes are narrow and far from the origin.
    distances = jnp.linalg.norm(samples[:, None, :] - centers[None, :, :], axis=2)
    nearest = jnp.argmin(distances, axis=1)
    good = jnp.min(distances, axis=1) <= num_scales * scale
    found = jnp.zeros(centers.shape[0], bool).at[nearest].max(good)
    return jnp.sum(found, dtype=jnp.int32), jnp.mean(good, dtype=jnp.float32)


def gaussian_grid(side: int = 5, spacing: float = 2.0) -> jax.Array:
    """Centres on a square grid around the origin: with the defaults, the usual 25 at -4, -2, 0, 2, 4.

    Float32 [M, 2] with M = side^2 and neighbours at the distance ``spacing``.

    References:
      Srivastava et al. 2017, "VEEGAN", synthetic data (2D grid, of standard deviation 0.05).
    """
    if side < 1:
        raise ValueError(f"side must be at least 1, got {side}")
    if not spacing > 0:
        raise ValueError(f"spacing must be above 0, got {spacing!r}")
    ticks = (jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2) * spacing
    return jnp.stack(jnp.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)


def gaussian_ring(num_modes: int = 8, radius: float = 1.0) -> jax.Array:
    """Centres on a circle of a radius around the origin, the first on the first axis: float32 [M, 2].

    M is ``num_modes``.

    References:
      Srivastava et al. 2017, "VEEGAN", synthetic data (2D ring, of standard deviation 0.01).
    """
    if num_modes < 1:
        raise ValueError(f"num_modes must be at least 1, got {num_modes}")
    if not radius > 0:
        raise ValueError(f"radius must be above 0, got {radius!r}")
    angles = jnp.arange(num_modes, dtype=jnp.float32) * (2 * math.pi / num_modes)
    return radius * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def sample_gaussian_mixture(key: jax.Array, num_samples: int, centers: jax.Array, scale: float) -> jax.Array:
    """Draw from a mixture of equally likely Gaussians of one standard deviation: float32 [N, D].

    x = c_m + scale eps,  m uniform on 1 ... M,  eps ~ N(0, I)

    Sample i of the ``num_samples`` N depends on the key and on i alone; the centers c are [M, D], and scale is in units
    of the points.
    """
    _check_mixture(centers, scale)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")

    def draw(key: jax.Array) -> jax.Array:
        mode_key, noise_key = jax.random.split(key)
        center = centers[jax.random.randint(mode_key, (), 0, centers.shape[0])]
        return center + scale * jax.random.normal(noise_key, centers.shape[1:])

    return jax.vmap(draw)(example_keys(key, num_samples))
