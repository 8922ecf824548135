"""What a trained model is measured by: each measure makes numbers, and says what they depend on.

Measures of samples see two sides, real images and others, and are therefore calibrated: the same measure of real
images against other real images, at the same sizes, is what a perfect model would reach. Measures of a model see the
model itself: its encoder, or the likelihood of its decoder.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import losses, metrics
from jaxgen.annealed import annealed_log_likelihood, simulate
from jaxgen.batches import to_float
from jaxgen.data import spread
from jaxgen.evaluation.extractors import Extractor, extract, lenet
from jaxgen.evaluation.records import Parameter
from jaxgen.families import Family, Spec, family_of
from jaxgen.keys import named_key
from jaxgen.plain import to_plain

Progress = Callable[[int, int], None]
BATCH = 500  # images at a time
SOME = 1000  # images, of measures that compare each with each or are slow
CHUNK = 100  # images, of importance samples
LEAST_EFFECTIVE = 10.0  # importance samples
SIMULATED = 4  # images between whose two bounds annealing is checked
LARGE_GAP = 5.0  # nats


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
      ValueError: a number is not above 0.
    """

    num_neighbours: int = 5
    kernel_subsets: int = 100
    kernel_subset_size: int = 1000
    importance_samples: int = 500
    likelihood_images: int = 1000
    annealed_images: int = 16
    annealed_chains: int = 16
    annealed_temperatures: int = 1000
    observation_scale: float = 0.1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"{field.name} must be above 0, got {value!r}")


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
      known: images that the model was trained on, none of them among ``fake``, [M, ...].
      extractor: what made the features.
      key: typed key of the measures' randomness, [].
      settings: the choices.
    """

    real: Side
    fake: Side
    known: np.ndarray
    extractor: Extractor
    key: jax.Array
    settings: Settings

    def number(self, metric: str, value: Any, error: Any, unit: str, better: str, **others: Any) -> Number:
        """A number of all images of both sides."""
        error = None if error is None else float(error)
        sizes = {"num_real": len(self.real.images), "num_generated": len(self.fake.images)}
        return Number(metric, float(value), error, unit, better, **{**sizes, **others})

    def of_features(self, metric: str, value: Any, error: Any, unit: str, better: str, **others: Any) -> Number:
        """A number of the features of both sides, named after their extractor."""
        name = self.extractor.metric_name(metric)
        return self.number(name, value, error, unit, better, extractor=self.extractor, **others)


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


def _mean(values: Any) -> tuple[float, float | None]:
    """(mean, its standard error) of one value an image."""
    values = np.asarray(values, np.float64)
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(values.mean()), error


def _frechet(sides: Sides) -> list[Number]:
    real, fake = sides.real.features, sides.fake.features
    value, error = metrics.frechet_estimate(real, fake, named_key(sides.key, "groups"))
    few = min(len(real), len(fake)) < 2 * real.shape[1]
    warnings = (f"{min(len(real), len(fake))} images for {real.shape[1]} features: strongly biased upwards",) * few
    return [sides.of_features("FD", value, error, "features squared", "lower", warnings=warnings)]


def _kernel(sides: Sides) -> list[Number]:
    num = min(len(sides.real.images), len(sides.fake.images))
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
    num_real, num_fake = len(sides.real.images), len(sides.fake.images)
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
    digits = lenet("mnist")
    images = sides.fake.images
    channels = [extract(digits, images[..., channel : channel + 1]).probabilities for channel in range(3)]
    labels = np.stack([np.argmax(p, axis=1) for p in channels if p is not None], axis=1)
    modes, kl = metrics.stacked_modes(jnp.asarray(labels))
    return [
        sides.number("stacked-modes", modes, None, "modes of 1000", "higher", extractor=digits),
        sides.number("stacked-KL", kl, None, "nats", "lower", extractor=digits),
    ]


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


def _nearest(sides: Sides) -> list[Number]:
    fake = _some(sides.fake.images)
    _, places = metrics.nearest_neighbours(jnp.asarray(fake), jnp.asarray(sides.known))
    nearest = sides.known[np.asarray(places)]
    others: dict[str, Any] = {
        "num_real": len(sides.known),
        "num_generated": len(fake),
        "parameters": {"among": "training images"},
    }
    numbers = [sides.number("nearest-MSE", *_mean(_errors(fake, nearest)), "range squared", "neither", **others)]
    if _has_structure(fake):
        numbers.append(
            sides.number("nearest-SSIM", *_mean(_similarities(fake, nearest)), "similarity", "neither", **others)
        )
    return numbers


def _has_structure(images: np.ndarray) -> bool:
    return images.ndim == 4 and min(images.shape[1:3]) >= 11


def _errors(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.asarray(metrics.mean_squared_error(jnp.asarray(images), jnp.asarray(others)))


def _similarities(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.asarray(metrics.structural_similarity(jnp.asarray(images), jnp.asarray(others)))


def _parzen(sides: Sides) -> list[Number]:
    samples = jnp.asarray(sides.fake.images)
    found = metrics.parzen_bandwidth(samples, jnp.asarray(_some(sides.known)))
    values = metrics.parzen_log_likelihood(samples, jnp.asarray(sides.real.images), found.sigma)
    parameters = {"validation_images": min(SOME, len(sides.known)), "sigma": "best of 10 from 0.05 to 1"}
    warnings = (f"the best sigma, {found.sigma:.2g}, is at the end of those tried",) * found.at_end
    return [sides.number("Parzen", *_mean(values), "nats", "higher", parameters=parameters, warnings=warnings)]


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
    "nearest": _nearest,
    "parzen": _parzen,
}


def _batches(test: Mapping[str, np.ndarray], progress: Progress) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(number of the first, batch) of all test images."""
    num = len(test["image"])
    for i in range(0, num, BATCH):
        yield i, {name: array[i : i + BATCH] for name, array in test.items()}
        progress(min(i + BATCH, num), num)


def _of_images(metric: str, values: Any, unit: str, better: str, **others: Any) -> Number:
    return Number(metric, *_mean(values), unit, better, num_real=len(values), num_generated=0, **others)


def _of_likelihood(subject: Subject) -> dict[str, Parameter]:
    """Likelihoods are comparable on one scale only: probabilities, or densities under the same noise."""
    return {"likelihood": json.dumps(to_plain(subject.family.likelihood(subject.spec)))}


def _elbo(subject: Subject, test: Mapping[str, np.ndarray], progress: Progress) -> list[Number]:
    found: dict[str, list[np.ndarray]] = {}
    for i, batch in _batches(test, progress):
        key = jax.random.fold_in(named_key(subject.key, "elbo"), i)
        for name, values in subject.family.evaluate(subject.spec, subject.state, batch, key).items():
            found.setdefault(name, []).append(np.asarray(values))
    names = {"elbo": ("ELBO", "higher"), "reconstruction": ("reconstruction", "higher"), "kl": ("KL", "neither")}
    return [
        _of_images(metric, np.concatenate(found[name]), "nats", better, parameters=_of_likelihood(subject))
        for name, (metric, better) in names.items()
    ]


def _log_likelihood(subject: Subject, test: Mapping[str, np.ndarray], progress: Progress) -> list[Number]:
    samples = subject.settings.importance_samples
    places = spread(len(test["image"]), subject.settings.likelihood_images)
    some = {name: array[places] for name, array in test.items()}
    values, effective = [], []
    for i in range(0, len(places), CHUNK):
        batch = {name: array[i : i + CHUNK] for name, array in some.items()}
        key = jax.random.fold_in(named_key(subject.key, "log likelihood"), i)
        found = subject.family.importance_sampling(subject.spec, subject.state, batch, key, samples)
        values.append(np.asarray(found.log_likelihood))
        effective.append(np.asarray(found.effective_samples))
        progress(min(i + CHUNK, len(places)), len(places))
    median = float(np.median(np.concatenate(effective)))
    loose = f"half of the images have at most {median:.1f} effective importance samples: a loose lower bound; take more"
    return [
        _of_images(
            "log-likelihood",
            np.concatenate(values),
            "nats",
            "higher",
            parameters={**_of_likelihood(subject), "importance_samples": samples},
            warnings=(loose,) * (median < LEAST_EFFECTIVE),
        )
    ]


def _reconstructions(subject: Subject, test: Mapping[str, np.ndarray], progress: Progress) -> list[Number]:
    errors, similarities = [], []
    for i, batch in _batches(test, progress):
        key = jax.random.fold_in(named_key(subject.key, "reconstructions"), i)
        rebuilt = np.asarray(subject.family.reconstruct(subject.spec, subject.state, batch, key))
        # The mean of a Gaussian likelihood is not confined to the images' range.
        rebuilt, originals = rebuilt.clip(0.0, 1.0), np.asarray(to_float(batch["image"]))
        errors.append(_errors(originals, rebuilt))
        if _has_structure(originals):
            similarities.append(_similarities(originals, rebuilt))
    all_errors = np.concatenate(errors)
    mean, error = _mean(all_errors)
    # The mean of the ratios would be infinite for one perfect image: the ratio of the mean, its error by derivative.
    decibels = 10.0 / math.log(10.0)
    perfect = mean == 0.0
    numbers = [
        _of_images("reconstruction-MSE", all_errors, "range squared", "lower"),
        Number(
            "reconstruction-PSNR",
            math.inf if perfect else -decibels * math.log(mean),
            None if perfect or error is None else decibels * error / mean,
            "dB",
            "higher",
            num_real=len(all_errors),
            num_generated=0,
            warnings=("every reconstruction is exact",) * perfect,
        ),
    ]
    if similarities:
        numbers.append(_of_images("reconstruction-SSIM", np.concatenate(similarities), "similarity", "higher"))
    return numbers


def latent_kl(subject: Subject, test: Mapping[str, np.ndarray], progress: Progress) -> list[np.ndarray]:
    """Mean KL of each latent dimension of each stochastic layer over the test images.

    Args:
      subject: a VAE.
      test: ``image`` [N, ...] and perhaps ``label`` [N].
      progress: called with the numbers of images done and of all.

    Returns:
      Nats, float64 [D], one array a layer from below.
    """
    sums: list[np.ndarray] = []
    for i, batch in _batches(test, progress):
        key = jax.random.fold_in(named_key(subject.key, "latent kl"), i)
        found = subject.family.latent_kl(subject.spec, subject.state, batch, key)
        parts = [np.asarray(layer, np.float64).sum(axis=0) for layer in found]
        sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
    return [total / len(test["image"]) for total in sums]


def _active_units(subject: Subject, test: Mapping[str, np.ndarray], progress: Progress) -> list[Number]:
    means: list[list[np.ndarray]] = []
    for _, batch in _batches(test, progress):
        posteriors = subject.family.posteriors(subject.spec, subject.state, batch)
        means.append([np.asarray(posterior[0]) for posterior in posteriors])
    return [
        Number(
            "active-units" if number == 1 else f"active-units-{number}",
            float(metrics.active_units(jnp.asarray(np.concatenate(layer)))),
            None,
            "units",
            "neither",
            num_real=len(test["image"]),
            num_generated=0,
            parameters={"threshold": 0.01},
        )
        for number, layer in enumerate(zip(*means, strict=True), 1)
    ]


def _annealed(subject: Subject, test: Mapping[str, np.ndarray], progress: Progress) -> list[Number]:
    """Of test images from below; and of images that the model made, how far below the upper bound that is."""
    settings = subject.settings
    noise = losses.gaussian(scale=settings.observation_scale)
    key = named_key(subject.key, "annealed")
    sizes = {"num_chains": settings.annealed_chains, "num_temperatures": settings.annealed_temperatures}

    def value(batch: Mapping[str, Any], place: int, latents: Any = None) -> float:
        own_key = jax.random.fold_in(key, place)
        found = annealed_log_likelihood(subject.spec, subject.state, batch, own_key, noise, latents=latents, **sizes)
        return float(found.log_likelihood[0])

    def rows(batch: Mapping[str, Any], i: int) -> dict[str, Any]:
        return {name: array[i : i + 1] for name, array in batch.items()}

    places = spread(len(test["image"]), settings.annealed_images)
    num_made = min(SIMULATED, len(places))
    total = len(places) + 2 * num_made
    values = []
    for i, place in enumerate(places):
        values.append(value(rows(test, place), int(place)))
        progress(i + 1, total)
    label = test["label"][places[:num_made]] if "label" in test else None
    made, latents = simulate(subject.spec, subject.state, named_key(key, "made"), num_made, noise, label)
    gaps = []
    for i in range(num_made):
        batch = rows(made, i)
        gaps.append(value(batch, i, latents[i : i + 1]) - value(batch, i))
        progress(len(places) + 2 * (i + 1), total)
    parameters: dict[str, Parameter] = {
        "observation_noise": settings.observation_scale,
        "chains": settings.annealed_chains,
        "temperatures": settings.annealed_temperatures,
    }
    gap, error = _mean(gaps)
    loose = f"on images that the model made it is {gap:.3g} nats below the upper bound: take more temperatures"
    return [
        _of_images(
            "AIS-log-likelihood", values, "nats", "higher", parameters=parameters, warnings=(loose,) * (gap > LARGE_GAP)
        ),
        Number("AIS-gap", gap, error, "nats", "lower", num_real=0, num_generated=num_made, parameters=parameters),
    ]


MODEL_MEASURES: dict[str, Callable[[Subject, Mapping[str, np.ndarray], Progress], list[Number]]] = {
    "elbo": _elbo,
    "log_likelihood": _log_likelihood,
    "reconstructions": _reconstructions,
    "active_units": _active_units,
    "annealed": _annealed,
}
# What of a family a measure is made with.
NEEDS = {
    "elbo": "evaluate",
    "log_likelihood": "importance_sampling",
    "reconstructions": "reconstruct",
    "active_units": "posteriors",
    **dict.fromkeys(SAMPLE_MEASURES, "sample"),
}
MEASURES = (*SAMPLE_MEASURES, *MODEL_MEASURES)


def why_not(measure: str, spec: Spec, image_shape: tuple[int, ...], dataset: str, classifies: bool) -> str | None:
    """Why a measure cannot be made of a model, in words; None where it can.

    Args:
      measure: one of `MEASURES`.
      spec: the GAN or VAE.
      image_shape: shape of an image, (H, W, C) or (D,).
      dataset: name of the data.
      classifies: whether the extractor tells classes apart.

    Returns:
      The reason, or None.

    Raises:
      ValueError: there is no such measure; the error lists them.
    """
    if measure not in MEASURES:
        raise ValueError(f"there is no measure {measure!r}: choose from {', '.join(MEASURES)}")
    family = family_of(spec)
    if getattr(family, NEEDS.get(measure, "decode")) is None:
        return f"a {family.title} has no {'prior' if NEEDS[measure] == 'sample' else 'encoder'}"
    if measure == "annealed" and not family.standard_prior(spec):
        return "it is for latents with a standard normal prior"
    if measure in ("classifier_score", "classes") and not classifies:
        return "the extractor does not classify"
    if measure == "stacked_modes" and not (dataset.startswith("stacked") and image_shape == (28, 28, 3)):
        return "it is for stacked digits (--dataset stacked:mnist)"
    return None
