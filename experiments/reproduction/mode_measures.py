"""How papers judge a trained GAN by the modes that it finds, and by distances of features."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
import numpy as np

from experiments.reproduction.vae_measures import load_split, subject_of
from jaxgen import data, metrics
from jaxgen.evaluation import extractors
from jaxgen.evaluation.during_training import choose_extractor
from jaxgen.evaluation.sample_measures import stacked_modes
from jaxgen.evaluation.subject import Progress
from jaxgen.training.run import Run


def mixture_modes(samples: np.ndarray, centers: np.ndarray, scale: float) -> dict[str, float]:
    """What samples show of a mixture of equally likely Gaussians: ``modes``, ``good samples`` (%), ``reverse KL``.

    reverse KL = sum_m q_m log(M q_m),  q_m the share of the samples whose nearest centre is c_m, good or not

    Args:
      samples: points, [N, D].
      centers: of the modes, [M, D].
      scale: standard deviation of each mode; a sample within three of them of a centre is good, and its mode found.

    Returns:
      The numbers by name. Samples that are not finite are of no mode.

    References:
      Lin et al. 2018, "PacGAN", section 4.1.
    """
    found, good = metrics.mode_coverage(jnp.asarray(samples), jnp.asarray(centers), scale)
    finite = samples[np.isfinite(samples).all(axis=1)]
    distances = np.linalg.norm(finite[:, None] - centers[None], axis=2)
    counts = np.bincount(np.argmin(distances, axis=1), minlength=len(centers)).astype(np.float32)
    kl = metrics.histogram_kl(jnp.asarray(counts), jnp.ones(len(centers)))
    return {"modes": float(found), "good samples": 100.0 * float(good), "reverse KL": float(kl)}


@dataclasses.dataclass(frozen=True)
class Modes:
    """Modes that a GAN finds of the 25 Gaussians on a grid.

    Args:
      num_samples: number of samples that are judged.
      checkpoint: ``"newest"`` or ``"best"``.
    """

    num_samples: int = 2500
    checkpoint: Literal["newest", "best"] = "newest"

    def __call__(self, run: Run, progress: Progress) -> Mapping[str, float]:
        """``modes`` of 25, ``good samples`` in per cent and ``reverse KL`` in nats."""
        samples = subject_of(run, self.checkpoint).sample(self.num_samples, None, False, progress)
        return mixture_modes(samples, np.asarray(metrics.gaussian_grid()), data.GRID_SCALE)


@dataclasses.dataclass(frozen=True)
class StackedModes:
    """Modes that a GAN finds of the 1,000 of stacked MNIST: a LeNet says which digit each channel shows.

    Args:
      num_samples: number of samples that are judged.
      checkpoint: ``"newest"`` or ``"best"``.
    """

    num_samples: int = 26_000
    checkpoint: Literal["newest", "best"] = "newest"

    def __call__(self, run: Run, progress: Progress) -> Mapping[str, float]:
        """``modes`` of 1,000, and ``KL`` of the samples' histogram of modes from the even one, in nats."""
        samples = subject_of(run, self.checkpoint).sample(self.num_samples, None, False, progress)
        return dict(zip(("modes", "KL"), stacked_modes(samples), strict=True))


@dataclasses.dataclass(frozen=True)
class FeatureDistance:
    """The Frechet distance of samples from the test split, on the features of the classifier for the data.

    It is named after that classifier, such as ``FD-LeNet-MNIST``: it is no FID, and compares with none.

    Args:
      num_samples: number of samples; as many test images, spread over the split.
      checkpoint: ``"newest"`` or ``"best"``.
    """

    num_samples: int = 10_000
    checkpoint: Literal["newest", "best"] = "newest"

    def __call__(self, run: Run, progress: Progress) -> Mapping[str, float]:
        """The distance by its name, in squared units of the features."""
        real = load_split(run, "test")["image"]
        real = real[data.spread(len(real), self.num_samples)]
        extractor = choose_extractor("auto", run.config["settings"]["options"]["dataset"], real.shape[1:])
        samples = subject_of(run, self.checkpoint).sample(self.num_samples, None, False, progress)
        moments = [metrics.moments(extractors.extract(extractor, images).features) for images in (real, samples)]
        return {extractor.metric_name("FD"): float(metrics.frechet_distance(*moments))}
