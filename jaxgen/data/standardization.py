"""Vectors whose features are far from [0, 1], brought to mean 0 and deviation 1, and back to their units."""

from typing import Any, NamedTuple, TypedDict

import numpy as np

from jaxgen.untrusted import check

MOST_FEATURES = 10_000  # whose numbers a run's config keeps


class Standardization(NamedTuple):
    """z = (x - mean) / scale, feature by feature.

    Args:
      mean: of each feature, float32 [D].
      scale: its standard deviation, or 1 where it has none, float32 [D].
    """

    mean: np.ndarray
    scale: np.ndarray

    def __call__(self, vectors: Any) -> Any:
        """Vectors [..., D] in standard units."""
        return (vectors - _like(self.mean, vectors)) / _like(self.scale, vectors)

    def undo(self, vectors: Any) -> Any:
        """Vectors [..., D] in the data's units."""
        return vectors * _like(self.scale, vectors) + _like(self.mean, vectors)

    @property
    def log_scale(self) -> float:
        """Sum of the logarithms of the scales: log p(x) = log p(z) - this, in nats."""
        return float(np.log(self.scale.astype(np.float64)).sum())

    def plain(self) -> dict[str, list[float]]:
        """The numbers as plain data."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}


def _like(numbers: np.ndarray, vectors: Any) -> np.ndarray:
    """Numbers [D] with as many axes as vectors."""
    return numbers.reshape((1,) * (vectors.ndim - 1) + numbers.shape)


def measured(vectors: np.ndarray) -> Standardization:
    """The standardization of some vectors, float32 [N, D]."""
    exact = vectors.astype(np.float64)
    scale = exact.std(0)
    # A feature that is constant but for rounding stays as it is.
    scale = np.where(scale > 1e-6 * np.maximum(np.abs(exact).max(0), 1e-30), scale, 1.0)
    return Standardization(exact.mean(0).astype(np.float32), scale.astype(np.float32))


class _Plain(TypedDict):
    mean: list[float]
    scale: list[float]


def of_plain(plain: Any) -> Standardization | None:
    """The standardization that a run's identity, or a file of weights, holds; None where its data are as they were."""
    if not plain:
        return None
    check(plain, _Plain, "standardized")
    mean, scale = (np.asarray(plain[name], np.float32) for name in ("mean", "scale"))
    if len(mean) != len(scale) or not (np.isfinite([mean, scale]).all() and (scale > 0).all()):
        raise ValueError("standardized must be as many finite means as scales above 0")
    return Standardization(mean, scale)
