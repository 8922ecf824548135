"""Metrics: arrays in, numbers out."""

from jaxgen.metrics.classifier import classifier_score
from jaxgen.metrics.distances import (
    Moments,
    frechet_distance,
    frechet_estimate,
    kernel_distance,
    merge_moments,
    moments,
    sliced_wasserstein_distance,
)
from jaxgen.metrics.diversity import active_units, nearest_neighbour_distances, sample_diversity
from jaxgen.metrics.estimates import Estimate, from_repetitions
from jaxgen.metrics.manifolds import PrecisionRecall, precision_recall
from jaxgen.metrics.modes import gaussian_grid, gaussian_ring, mode_coverage, sample_gaussian_mixture

__all__ = [
    "Estimate",
    "Moments",
    "PrecisionRecall",
    "active_units",
    "classifier_score",
    "frechet_distance",
    "frechet_estimate",
    "from_repetitions",
    "gaussian_grid",
    "gaussian_ring",
    "kernel_distance",
    "merge_moments",
    "mode_coverage",
    "moments",
    "nearest_neighbour_distances",
    "precision_recall",
    "sample_diversity",
    "sample_gaussian_mixture",
    "sliced_wasserstein_distance",
]
