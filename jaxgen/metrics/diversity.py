"""Signs of collapse: how far apart the samples of a model are, and how many latent dimensions it uses."""

import jax
import jax.numpy as jnp

from jaxgen.batches import to_float


def nearest_neighbour_distances(points: jax.Array) -> jax.Array:
    """Euclidean distance of each point to the nearest other one, flattened: float32 [N].

    d_i = min_{j != i} |x_i - x_j|,  x the points, uint8, bool or float, [N, ...] with N >= 2

    References:
      Clark & Evans 1954, "Distance to nearest neighbor as a measure of spatial relationships in populations".
    """
    if points.ndim < 2 or points.shape[0] < 2:
        raise ValueError(f"expected at least two points, [N, ...] with N >= 2, got shape {list(points.shape)}")
    points = to_float(points).reshape(points.shape[0], -1).astype(jnp.float32)
    indices = jnp.arange(points.shape[0])

    def nearest(i: jax.Array) -> jax.Array:
        # From the differences: |x|^2 - 2 x.y + |y|^2 would cancel where the points have collapsed into one.
        squares = jnp.sum(jnp.square(points - points[i][None]), axis=1)
        return jnp.sqrt(jnp.min(jnp.where(indices == i, jnp.inf, squares)))

    return jax.lax.map(nearest, indices)  # one point at a time: [N, N, D] would be gigabytes


def sample_diversity(real: jax.Array, fake: jax.Array, quantile: float = 0.25) -> jax.Array:
    """How far apart generated images are, relative to as many real ones: 0 where they have collapsed, about 1 else.

    diversity = Q(min_{j != i} |fake_i - fake_j|) / Q(min_{j != i} |real_i - real_j|),  Q a quantile over i

    It falls once that share of the samples is in clumps: a quarter of them, with the first quartile. Blurred samples,
    such as the means of a likelihood, are nearer to each other than images are. It does not see that whole classes are
    missing from samples that differ from each other. Float32 []; not finite where that share of the real images are
    copies of others.

    Args:
      real: images, uint8, bool or float, [N, ...] with N >= 2.
      fake: images, as many and of the same shape, [N, ...]; for a conditional model, of the same labels.
      quantile: which quantile of the distances is compared, in [0, 1].

    References:
      Clark & Evans 1954, "Distance to nearest neighbor as a measure of spatial relationships in populations": the
      ratio of observed to expected distances (of their means, and expected of points scattered at random).
    """
    if real.shape != fake.shape:
        raise ValueError(f"expected two equally large sets of images, got {list(real.shape)} and {list(fake.shape)}")
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must be in [0, 1], got {quantile!r}")
    expected, observed = (jnp.quantile(nearest_neighbour_distances(images), quantile) for images in (real, fake))
    return observed / expected


def active_units(means: jax.Array, threshold: float = 0.01) -> jax.Array:
    """Number of latent dimensions whose posterior mean depends on the image, int32 [].

    A_u = Var_x(E_{q(z | x)}[z_u]),  u active when A_u > threshold

    ``means`` are the posterior means of the images, [N, D] with N >= 2; of an upper stochastic layer, given the layer
    below it.

    References:
      Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders", on latent representations.
    """
    if means.ndim != 2 or means.shape[0] < 2:
        raise ValueError(f"means must be [N, D] with N >= 2, got shape {list(means.shape)}")
    if not threshold >= 0:
        raise ValueError(f"threshold must be at least 0, got {threshold!r}")
    return jnp.sum(jnp.var(means.astype(jnp.float32), axis=0) > threshold, dtype=jnp.int32)
