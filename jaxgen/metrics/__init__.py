"""Metrics: arrays in, numbers out."""

from jaxgen.metrics.distances import sliced_wasserstein_distance
from jaxgen.metrics.modes import gaussian_grid, gaussian_ring, mode_coverage, sample_gaussian_mixture

__all__ = [
    "gaussian_grid",
    "gaussian_ring",
    "mode_coverage",
    "sample_gaussian_mixture",
    "sliced_wasserstein_distance",
]
