"""Measures of samples: of two sides, real images and others.

They are calibrated: the same measure of real images against other real images, at the same sizes, is what a perfect
model would reach.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import metrics
from jaxgen.data import spread
from jaxgen.evaluation import extractors
from jaxgen.evaluation.extractors import Extractor
from jaxgen.evaluation.records import mean_and_error
from jaxgen.evaluation.subject import Number, Settings
from jaxgen.keys import named_key

SOME = 1000  # images, of measures that compare each with each or are slow
WIDE = 1024  # values of an image, above which measures in `OF_SOME` take so few images unless asked for by name
KNOWN = 10_000  # images, likewise, that nearest neighbours are sought among


class Side(NamedTuple):
    """Images as the measures of samples see them.

    Args:
      images: uint8, bool or floats in [0, 1], [N, ...].
      features: float32 [N, D].
      probabilities: of the extractor's classes, float32 [N, K]; None where it does not classify.
    """

    images: np.ndarray
    features: np.ndarray
    probabilities: np.ndarray | None


class Sides(NamedTuple):
    """What a measure of samples compares.

    Args:
      real: real images that the model has not seen, N of them.
      fake: as many generated ones; for the calibration, other real ones.
      known: images that neighbours are sought among, none of them among ``fake``, [M, ...].
      among: what these are, in words.
      extractor: what made the features.
      key: typed key of the measures' randomness, [].
      settings: the choices.
    """

    real: Side
    fake: Side
    known: np.ndarray
    among: str
    extractor: Extractor
    key: jax.Array
    settings: Settings

    def of_some(self, measure: str) -> "Sides":
        """The sides as a measure takes them that nobody has asked for by name: fewer images where all take minutes."""
        features, values = self.real.features.shape[1], int(np.prod(self.real.images.shape[1:]))
        features = features if self.extractor.name == "pixels" else 0
        num = takes(measure, len(self.real.features), features, values)
        known = self.known[spread(len(self.known), KNOWN)] if measure == "nearest" and values > WIDE else self.known
        if num == len(self.real.features):
            return self._replace(known=known)
        return self._replace(real=_spread(self.real, num), fake=_spread(self.fake, num), known=known)

    def number(self, metric: str, value: Any, error: Any, unit: str, better: str, **others: Any) -> Number:
        """A number of all images of both sides."""
        error = None if error is None else float(error)
        sizes = {"num_real": len(self.real.features), "num_generated": len(self.fake.features)}
        return Number(metric, float(value), error, unit, better, **{**sizes, **others})

    def of_features(self, metric: str, value: Any, error: Any, unit: str, better: str, **others: Any) -> Number:
        """A number of the features of both sides, named after their extractor."""
        name = self.extractor.metric_name(metric)
        return self.number(name, value, error, unit, better, extractor=self.extractor, **others)


def takes(measure: str, num: int, features: int, values: int) -> int:
    """How many of ``num`` images of each side a ``measure`` takes that nobody has asked for by name.

    On more than `WIDE` ``features``, which are an image's pixels, or ``values`` of an image, `SOME`.
    """
    wide = values if measure in OF_IMAGES else features
    return min(num, SOME) if measure in OF_SOME and wide > WIDE else num


def _spread(side: Side, num: int) -> Side:
    places = spread(len(side.features), num)
    probabilities = None if side.probabilities is None else side.probabilities[places]
    return Side(side.images[places], side.features[places], probabilities)


def _frechet(sides: Sides) -> list[Number]:
    real, fake = sides.real.features, sides.fake.features
    value, error = metrics.frechet_estimate(real, fake, named_key(sides.key, "groups"))
    few = min(len(real), len(fake)) < 2 * real.shape[1]
    warnings = (f"{min(len(real), len(fake))} images for {real.shape[1]} features: strongly biased upwards",) * few
    return [sides.of_features("FD", value, error, "features squared", "lower", warnings=warnings)]


def _kernel(sides: Sides) -> list[Number]:
    num = min(len(sides.real.features), len(sides.fake.features))
    size = min(sides.settings.kernel_subset_size, num // 2)
    subsets = sides.settings.kernel_subsets
    value, error = metrics.kernel_distance(
        sides.real.features, sides.fake.features, named_key(sides.key, "subsets"), subsets, size
    )
    parameters = {"subsets": subsets, "subset_size": size}
    return [sides.of_features("KD", value, error, "kernel", "lower", parameters=parameters)]


def _precision_recall(sides: Sides) -> list[Number]:
    k = sides.settings.num_neighbours
    found = metrics.precision_recall(sides.real.features, sides.fake.features, k)
    num_real, num_fake = len(sides.real.features), len(sides.fake.features)
    # Given the neighbourhoods, a share is a mean over images.
    nums = {"precision": num_fake, "recall": num_real, "density": None, "coverage": num_real}
    return [
        sides.of_features(
            name,
            value := getattr(found, name),
            None if num is None else (value * (1.0 - value) / num) ** 0.5,
            "share" if num is not None else "neighbourhoods",
            "higher",
            parameters={"neighbours": k},
        )
        for name, num in nums.items()
    ]


def _classifier_score(sides: Sides) -> list[Number]:
    value, error = metrics.classifier_score(sides.fake.probabilities, named_key(sides.key, "splits"))
    return [sides.of_features("CS", value, error, "classes", "higher", parameters={"splits": 10})]


def _classes(sides: Sides) -> list[Number]:
    assert sides.real.probabilities is not None
    assert sides.fake.probabilities is not None
    real, fake = (np.argmax(p, axis=1) for p in (sides.real.probabilities, sides.fake.probabilities))
    num = sides.real.probabilities.shape[1]
    histograms = [metrics.label_histogram(jnp.asarray(labels), num) for labels in (fake, real)]
    kl = float(metrics.histogram_kl(*histograms))
    covered = metrics.class_coverage(jnp.asarray(fake), num).num_covered
    warnings = ("samples are of a class that no real image is of",) * (not np.isfinite(kl))
    return [
        sides.of_features("label-KL", kl, None, "nats", "lower", warnings=warnings),
        sides.of_features("classes", covered, None, "classes", "higher", parameters={"least_share": 0.1}),
    ]


def _stacked(sides: Sides) -> list[Number]:
    digits = extractors.lenet("mnist")
    modes, kl = stacked_modes(sides.fake.images)
    return [
        sides.number("stacked-modes", modes, None, "modes of 1000", "higher", extractor=digits),
        sides.number("stacked-KL", kl, None, "nats", "lower", extractor=digits),
    ]


def stacked_modes(images: np.ndarray) -> tuple[float, float]:
    """(modes of 1,000, KL of their histogram from the even one, in nats) of images [N, 28, 28, 3] of stacked digits."""
    digits = extractors.lenet("mnist")
    channels = [extractors.extract(digits, images[..., c : c + 1]).probabilities for c in range(3)]
    labels = np.stack([np.argmax(p, axis=1) for p in channels if p is not None], axis=1)
    found = metrics.stacked_modes(jnp.asarray(labels))
    return float(found.num_modes), float(found.kl)


def _birthday(sides: Sides) -> list[Number]:
    threshold = float(metrics.birthday_threshold(jnp.asarray(sides.real.images)))
    found = metrics.birthday_test(jnp.asarray(sides.fake.images), threshold)
    parameters = {"threshold": "least distance of two real images"}
    rate, error, least = found.collision_rate, found.standard_error, found.least_support_size
    return [
        sides.number("duplicates", rate, error, "share of pairs", "lower", parameters=parameters),
        sides.number("least-support", least, None, "images", "higher", parameters=parameters),
    ]


def _some(images: np.ndarray) -> np.ndarray:
    return images[spread(len(images), SOME)]


def _diversity(sides: Sides) -> list[Number]:
    real, fake = _some(sides.real.images), _some(sides.fake.images)
    num = {"num_real": len(real), "num_generated": len(fake)}
    value = metrics.sample_diversity(jnp.asarray(real), jnp.asarray(fake))
    return [sides.number("diversity", value, None, "of the data's", "higher", **num)]


def _sliced(sides: Sides) -> list[Number]:
    key = named_key(sides.key, "projections")
    value = metrics.sliced_wasserstein_distance(jnp.asarray(sides.real.images), jnp.asarray(sides.fake.images), key)
    return [sides.number("SW-pixels", value, None, "pixels", "lower", parameters={"projections": 128})]


def _nearest_known(sides: Sides) -> list[Number]:
    fake = _some(sides.fake.images)
    neighbours = sides.known[nearest(fake, sides.known)[1]]
    others: dict[str, Any] = {
        "num_real": len(sides.known),
        "num_generated": len(fake),
        "parameters": {"among": sides.among},
    }
    error, similarity = squared_errors(fake, neighbours), similarities(fake, neighbours)
    numbers = [sides.number("nearest-MSE", *mean_and_error(error), "range squared", "neither", **others)]
    if similarity is not None:
        numbers.append(sides.number("nearest-SSIM", *mean_and_error(similarity), "similarity", "neither", **others))
    return numbers


def nearest(images: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distance to the nearest known image [M, ...], its place) of each image [N, ...]: float32 [N] and int32 [N]."""
    distances, places = metrics.nearest_neighbours(jnp.asarray(images), jnp.asarray(known))
    return np.asarray(distances), np.asarray(places)


def squared_errors(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The mean squared error of each image [N, ...] against the other of its place, [N]."""
    return np.asarray(metrics.mean_squared_error(jnp.asarray(images), jnp.asarray(others)))


def similarities(images: np.ndarray, others: np.ndarray) -> np.ndarray | None:
    """The structural similarity of each image [N, ...] and the other of its place, [N]; None of what is too small."""
    if images.ndim != 4 or min(images.shape[1:3]) < 11:
        return None
    return np.asarray(metrics.structural_similarity(jnp.asarray(images), jnp.asarray(others)))


def _parzen(sides: Sides) -> list[Number]:
    samples = jnp.asarray(sides.fake.images)
    found = metrics.parzen_bandwidth(samples, jnp.asarray(_some(sides.known)))
    values = metrics.parzen_log_likelihood(samples, jnp.asarray(sides.real.images), found.sigma)
    parameters = {"validation_images": min(SOME, len(sides.known)), "sigma": "best of 10 from 0.05 to 1"}
    warnings = (f"the best sigma, {found.sigma:.2g}, is at the end of those tried",) * found.at_end
    return [sides.number("Parzen", *mean_and_error(values), "nats", "higher", parameters=parameters, warnings=warnings)]


OF_IMAGES = ("sliced_wasserstein", "diversity", "duplicates", "nearest", "parzen")  # of which features say nothing
OF_SOME = ("frechet", "kernel", "precision_recall", "duplicates", "parzen")  # whose time is the square of the images'
SAMPLE_MEASURES: dict[str, Callable[[Sides], list[Number]]] = {
    "frechet": _frechet,
    "kernel": _kernel,
    "precision_recall": _precision_recall,
    "classifier_score": _classifier_score,
    "classes": _classes,
    "stacked_modes": _stacked,
    "sliced_wasserstein": _sliced,
    "diversity": _diversity,
    "duplicates": _birthday,
    "nearest": _nearest_known,
    "parzen": _parzen,
}
