"""How papers judge a trained VAE: by bounds and estimates of its log-likelihood, on the split that they name."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from jaxgen import data
from jaxgen.cli.parsing import saved_options
from jaxgen.evaluation import measures
from jaxgen.evaluation.subject import Progress, Settings, Subject
from jaxgen.training.checkpoint import Which
from jaxgen.training.run import Run

SEED = 0  # of what a measure draws


def load_split(run: Run, split: str) -> dict[str, np.ndarray]:
    """A split of the data that a run was trained on, binarised once where the run binarises."""
    options = saved_options(run)
    names = ("data_dir", "manual_dir", "image_size", "color")
    places: dict[str, Any] = {name: getattr(options, name) for name in names}
    loaded = data.load(options.dataset, split, **places)
    if getattr(options, "binarization", "none") != "none":
        loaded["image"] = data.binarize_set(loaded["image"])
    return loaded


def subject_of(run: Run, checkpoint: Which, **settings: int) -> Subject:
    """A run's model as a checkpoint has it, to be measured."""
    return Subject(run.spec, run.restore(checkpoint), jax.random.key(SEED), Settings(**settings))


@dataclasses.dataclass(frozen=True)
class NegativeELBO:
    """The negative ELBO of the test split, with one latent sample an image: ``-ELBO``, in nats.

    Args:
      split: the split that is judged.
      checkpoint: ``"newest"``, or ``"best"`` on the run's ``test_split``.
    """

    split: str = "test"
    checkpoint: Literal["newest", "best"] = "newest"

    def __call__(self, run: Run, progress: Progress) -> Mapping[str, float]:
        """``-ELBO`` of the run's checkpoint, and its two parts."""
        subject = subject_of(run, self.checkpoint)
        found = measures.MODEL_MEASURES["elbo"](subject, load_split(run, self.split), progress)
        values = {number.metric: float(number.value) for number in found}
        return {"-ELBO": -values["ELBO"], "KL": values["KL"]}


@dataclasses.dataclass(frozen=True)
class NegativeLogLikelihood:
    """The negative log-likelihood of the test split by importance sampling: ``NLL-K``, in nats.

    NLL-K = -1/N sum_n log 1/K sum_k p(x_n, z_nk) / q(z_nk | x_n)

    Args:
      num_samples: importance samples an image, K.
      split: the split that is judged, all of it.
      checkpoint: ``"newest"``, or ``"best"`` on the run's ``test_split``.

    References:
      Rezende et al. 2014, appendix E; Burda et al. 2016, section 5.
    """

    num_samples: int
    split: str = "test"
    checkpoint: Literal["newest", "best"] = "newest"

    def __call__(self, run: Run, progress: Progress) -> Mapping[str, float]:
        """``NLL-K`` of the run's checkpoint, with its ``-ELBO`` beside it."""
        images = load_split(run, self.split)
        num = len(images["image"])
        subject = subject_of(run, self.checkpoint, importance_samples=self.num_samples, likelihood_images=num)
        (estimate,) = measures.MODEL_MEASURES["log_likelihood"](subject, images, progress)
        bounds = measures.MODEL_MEASURES["elbo"](subject, images, lambda *_: None)
        values = {number.metric: float(number.value) for number in (estimate, *bounds)}
        return {f"NLL-{self.num_samples}": -values["log-likelihood"], "-ELBO": -values["ELBO"], "KL": values["KL"]}
