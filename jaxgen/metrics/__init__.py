"""Metrics: arrays in, numbers out."""

from jaxgen.metrics.annealing import (
    AnnealedEstimate,
    AnnealedSamples,
    annealed_importance_sampling,
    annealed_samples,
    reverse_annealed_importance_sampling,
)
from jaxgen.metrics.birthday import BirthdayTest, birthday_test, birthday_threshold
from jaxgen.metrics.classifier import classifier_score
from jaxgen.metrics.codes import CodeUsage, code_usage
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
from jaxgen.metrics.labels import (
    ClassCoverage,
    StackedModes,
    class_coverage,
    histogram_kl,
    label_histogram,
    stacked_modes,
)
from jaxgen.metrics.manifolds import PrecisionRecall, precision_recall
from jaxgen.metrics.modes import gaussian_grid, gaussian_ring, mode_coverage, sample_gaussian_mixture
from jaxgen.metrics.parzen import ParzenBandwidth, parzen_bandwidth, parzen_log_likelihood
from jaxgen.metrics.pixels import (
    mean_squared_error,
    nearest_neighbours,
    peak_signal_to_noise_ratio,
    structural_similarity,
)

__all__ = [
    "AnnealedEstimate",
    "AnnealedSamples",
    "BirthdayTest",
    "ClassCoverage",
    "CodeUsage",
    "Estimate",
    "Moments",
    "ParzenBandwidth",
    "PrecisionRecall",
    "StackedModes",
    "active_units",
    "annealed_importance_sampling",
    "annealed_samples",
    "birthday_test",
    "birthday_threshold",
    "class_coverage",
    "classifier_score",
    "code_usage",
    "frechet_distance",
    "frechet_estimate",
    "from_repetitions",
    "gaussian_grid",
    "gaussian_ring",
    "histogram_kl",
    "kernel_distance",
    "label_histogram",
    "mean_squared_error",
    "merge_moments",
    "mode_coverage",
    "moments",
    "nearest_neighbour_distances",
    "nearest_neighbours",
    "parzen_bandwidth",
    "parzen_log_likelihood",
    "peak_signal_to_noise_ratio",
    "precision_recall",
    "reverse_annealed_importance_sampling",
    "sample_diversity",
    "sample_gaussian_mixture",
    "sliced_wasserstein_distance",
    "stacked_modes",
    "structural_similarity",
]
