"""What is measured, by what choices, and what is found: a trained model, settings, numbers."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import intervals
from jaxgen.evaluation.extractors import Extractor
from jaxgen.evaluation.records import Parameter
from jaxgen.families import Family, Spec, family_of
from jaxgen.intervals import INT32_MAX, Count, Interval, Positive
from jaxgen.keys import named_key

Progress = Callable[[int, int], None]
BATCH = 500  # images at a time
Two = Annotated[int, Interval(2, INT32_MAX)]  # of what has a spread
Repeats = Annotated[int, Interval(2, 100_000)]  # of what is done again and again
Draws = Annotated[int, Interval(1, 1_000_000)]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Choices of an evaluation; each is part of the protocol of the numbers that depend on it.

    Args:
      num_neighbours: neighbour that gives the radius of precision, recall, density and coverage.
      kernel_subsets: subsets of the kernel distance.
      kernel_subset_size: images in each, at most half of those that there are.
      importance_samples: latent samples per image of a VAE's log-likelihood.
      likelihood_images: images whose log-likelihood is estimated, spread over the split.
      annealed_images: images of the log-likelihood by annealed importance sampling.
      annealed_chains: chains per image.
      annealed_temperatures: intermediate distributions.
      observation_scale: standard deviation of the Gaussian observation noise around the decoder's means, in units of
        the images' range, under which GANs and VAEs have comparable likelihoods.

    Raises:
      ValueError: a number is outside of its interval.
    """

    num_neighbours: Count = 5
    kernel_subsets: Repeats = 100
    kernel_subset_size: Two = 1000
    importance_samples: Draws = 500
    likelihood_images: Count = 1000
    annealed_images: Count = 16
    annealed_chains: Repeats = 16
    annealed_temperatures: Draws = 1000
    observation_scale: Positive = 0.1

    def __post_init__(self) -> None:
        intervals.check(self, lambda name: f"{name} (--{name.replace('_', '-')})")


@dataclasses.dataclass(frozen=True)
class Number:
    """What a measure found, and what it depends on besides data and model.

    Args:
      metric: its name.
      value: the number.
      standard_error: of its own randomness; None where it is not known.
      unit: what it is measured in.
      better: ``"lower"``, ``"higher"`` or ``"neither"``.
      num_real: number of real images that it saw.
      num_generated: number of generated ones.
      extractor: of the features that it saw; None for pixels.
      parameters: its other choices by name.
      version: of its definition.
      warnings: what is to be known before it is believed.
    """

    metric: str
    value: float
    standard_error: float | None
    unit: str
    better: str
    num_real: int
    num_generated: int
    extractor: Extractor | None = None
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    version: int = 1
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained model that is measured.

    Args:
      spec: the GAN or VAE.
      state: its state, arrays of any shapes.
      key: typed key of all that is drawn, [].
      settings: the choices.
    """

    spec: Spec
    state: Any
    key: jax.Array
    settings: Settings

    @property
    def family(self) -> Family:
        """The model's row of the table of families."""
        return family_of(self.spec)

    def sample(self, num_samples: int, labels: np.ndarray | None, binary: bool, progress: Progress) -> np.ndarray:
        """Draw images, of labels int [N] where the model is conditional; binary ones with the model's probabilities.

        Args:
          num_samples: number of images N.
          labels: classes to draw, int [N]; None for a model without labels.
          binary: whether the data are binary, so that pixels are drawn from the model's means.
          progress: called with the numbers of images drawn and of all.

        Returns:
          Floats, clipped to [0, 1] where they are images, or bool, [N, ...].
        """
        draw: Any = self.family.sample
        key, pixel_key = named_key(self.key, "samples"), named_key(self.key, "pixels")
        pieces = []
        for i in range(0, num_samples, BATCH):
            label = None if labels is None else np.resize(labels[i : i + BATCH], BATCH)
            images = draw(self.spec, self.state, jax.random.fold_in(key, i), BATCH, label)
            if binary:
                images = jax.random.bernoulli(jax.random.fold_in(pixel_key, i), images)
            # The mean of a Gaussian likelihood is not confined to the images' range.
            drawn = np.asarray(images if binary or images.ndim < 4 else jnp.clip(images, 0.0, 1.0))
            pieces.append(drawn[: num_samples - i])
            progress(i + len(pieces[-1]), num_samples)
        return np.concatenate(pieces)
