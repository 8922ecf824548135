"""Metrics: arrays in, numbers out."""

from jaxgen.metrics.distances import sliced_wasserstein_distance
from jaxgen.metrics.diversity import active_units, nearest_neighbour_distances, sample_diversity
from jaxgen.metrics.modes import gaussian_grid, gaussian_ring, mode_coverage, sample_gaussian_mixture

__all__ = [
    "active_units",
    "gaussian_grid",
    "gaussian_ring",
    "mode_coverage",
    "nearest_neighbour_distances",
    "sample_diversity",
    "sample_gaussian_mixture",
    "sliced_wasserstein_distance",
]
