"""The 25 Gaussians on a grid as a data set of fixed points: a check for mode collapse."""

import jax
import numpy as np

from jaxgen.keys import named_key
from jaxgen.metrics import gaussian_grid, sample_gaussian_mixture

GRID_SCALE = 0.05  # standard deviation of each of them, in each of the two dimensions
NUM_POINTS = {"train": 100_000, "test": 10_000}


def gaussian_points(split: str) -> dict[str, np.ndarray]:
    """Draw the points of a split, always the same ones.

    x = c_m + 0.05 eps,  c_m one of the 25 centres of `jaxgen.metrics.gaussian_grid`,  eps ~ N(0, I)

    Args:
      split: ``"train"`` (100,000 points) or ``"test"`` (10,000 others).

    Returns:
      ``image`` float32 [N, 2].

    Raises:
      ValueError: there is no such split.

    References:
      Lin et al. 2018, "PacGAN: The power of two samples in generative adversarial networks", section 4.1.
    """
    if split not in NUM_POINTS:
        raise ValueError(f"gaussians: unknown split {split!r}: use one of {', '.join(NUM_POINTS)}")
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # elsewhere a last bit may differ
        key = named_key(jax.random.key(0), f"gaussians {split}")
        return {"image": np.array(_draw(key, NUM_POINTS[split], gaussian_grid(), GRID_SCALE))}


_draw = jax.jit(sample_gaussian_mixture, static_argnums=(1, 3))
