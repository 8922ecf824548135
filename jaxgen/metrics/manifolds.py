"""Precision and recall of generated images: is what is made real, and is what is real made?"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.metrics._features import Rows, check_pair, map_rows, on_devices

_CHUNK = 1000  # rows whose distances to all others are in memory


class PrecisionRecall(NamedTuple):
    """How two sets of features cover each other.

    Args:
      precision: share of generated points within the real ones' neighbourhoods, in [0, 1].
      recall: share of real points within the generated ones' neighbourhoods, in [0, 1].
      density: in how many real points' neighbourhoods a generated point is, on average, over k: about 1 for real ones.
      coverage: share of real points with a generated one in their neighbourhood, in [0, 1].
    """

    precision: float
    recall: float
    density: float
    coverage: float


def _squared_distances(rows: Rows, points: jax.Array) -> jax.Array:
    """[C, N]; what cancels in double precision is far below the distance of any neighbours."""
    squares = jnp.sum(jnp.square(rows.values), axis=1)[:, None] + jnp.sum(jnp.square(points), axis=1)[None]
    return squares - 2.0 * rows.values @ points.T


def _radii(rows: Rows, points: jax.Array, num_neighbours: jax.Array) -> jax.Array:
    """Squared distance of each row to the k-th nearest of the other points, [C]."""
    places = jnp.arange(points.shape[0])[None]
    others = jnp.where(places == rows.places[:, None], jnp.inf, _squared_distances(rows, points))

    def without_nearest(_: jax.Array, distances: jax.Array) -> jax.Array:
        return jnp.where(places == jnp.argmin(distances, axis=1)[:, None], jnp.inf, distances)

    return jnp.min(jax.lax.fori_loop(0, num_neighbours - 1, without_nearest, others), axis=1)


def _balls_around(rows: Rows, points: jax.Array, radii: jax.Array) -> jax.Array:
    """In how many of the points' balls each row is, [C]."""
    return jnp.sum(_squared_distances(rows, points) <= radii[None], axis=1)


def _nearest(rows: Rows, points: jax.Array) -> jax.Array:
    return jnp.min(_squared_distances(rows, points), axis=1)


def precision_recall(real: Any, fake: Any, num_neighbours: int = 5) -> PrecisionRecall:
    """Improved precision and recall, density and coverage of two sets of features.

    B(x) is the ball around x whose radius is the distance to its k-th nearest neighbour in its own set:

    precision = (1/M) sum_j 1[y_j in any B(x_i)],  recall = (1/N) sum_i 1[x_i in any B(y_j)],
    density = (1/(k M)) sum_j sum_i 1[y_j in B(x_i)],  coverage = (1/N) sum_i 1[any y_j in B(x_i)]

    The features of ``real`` images are x, [N, D], those of ``fake`` ones y, [M, D], and ``num_neighbours`` is k, below
    N and M. All depend on N, M and k: compare at equal ones only. Distances are in double precision, in pieces of 1000
    rows, spread over this process's devices.

    References:
      Kynkaanniemi et al. 2019, "Improved precision and recall metric for assessing generative models", equations 1, 2.
      Naeem et al. 2020, "Reliable fidelity and diversity metrics for generative models", equations 3 and 4.
    """
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours must be at least 1, got {num_neighbours}")
    real, fake = check_pair(real, fake, num_neighbours + 1)
    # Distances do not change, but less of them cancels.
    center = real.mean(axis=0)
    real, fake = real - center, fake - center
    real_points, fake_points = on_devices(real), on_devices(fake)
    real_radii = map_rows(_radii, real, real_points, num_neighbours, size=_CHUNK)
    fake_radii = map_rows(_radii, fake, fake_points, num_neighbours, size=_CHUNK)
    around_fake = map_rows(_balls_around, fake, real_points, real_radii, size=_CHUNK)
    around_real = map_rows(_balls_around, real, fake_points, fake_radii, size=_CHUNK)
    nearest = map_rows(_nearest, real, fake_points, size=_CHUNK)
    return PrecisionRecall(
        precision=float((around_fake > 0).mean()),
        recall=float((around_real > 0).mean()),
        density=float(around_fake.mean() / num_neighbours),
        coverage=float((nearest <= real_radii).mean()),
    )
