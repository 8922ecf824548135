"""Metrics: arrays in, numbers out."""

from jaxgen.metrics.distances import sliced_wasserstein_distance

__all__ = ["sliced_wasserstein_distance"]
