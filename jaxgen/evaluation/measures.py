"""What a trained model is measured by: each measure makes numbers, and says what they depend on.

Those of samples are in `jaxgen.evaluation.sample_measures`. Measures of a model see the model itself: its encoder, or
the likelihood of its decoder.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import losses, metrics
from jaxgen.annealed import annealed_log_likelihood, simulate
from jaxgen.batches import to_float
from jaxgen.data import spread
from jaxgen.evaluation.extractors import Extractor
from jaxgen.evaluation.records import Parameter, mean_and_error
from jaxgen.evaluation.sample_measures import SAMPLE_MEASURES, similarities, squared_errors
from jaxgen.evaluation.subject import BATCH, Number, Progress, Subject
from jaxgen.families import Spec, family_of
from jaxgen.keys import named_key
from jaxgen.plain import to_plain

CHUNK = 100  # images, of importance samples
LEAST_EFFECTIVE = 10.0  # importance samples
SIMULATED = 4  # images between whose two bounds annealing is checked
LARGE_GAP = 5.0  # nats
FEW = 4  # places for each code, below which not all codes could be used
REBUILT = "reconstruction_distance"  # which needs an extractor: it is made by the evaluator


def _batches(test: Mapping[str, np.ndarray], progress: Progress) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(number of the first, batch) of all test images."""
    num = len(test["image"])
    for i in range(0, num, BATCH):
        yield i, {name: array[i : i + BATCH] for name, array in test.items()}
        progress(min(i + BATCH, num), num)


def _of_images(metric: str, values: Any, unit: str, better: str, **others: Any) -> Number:
    return Number(metric, *mean_and_error(values), unit, better, num_real=len(values), num_generated=0, **others)


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
    # As many at a time as take no more memory than those of 28 x 28 pixels.
    pixels = math.prod(test["image"].shape[1:])
    chunk_size = max(1, min(CHUNK, CHUNK * 784 // pixels))
    values, effective = [], []
    for i in range(0, len(places), CHUNK):
        batch = {name: array[i : i + CHUNK] for name, array in some.items()}
        key = jax.random.fold_in(named_key(subject.key, "log likelihood"), i)
        found = subject.family.importance_sampling(subject.spec, subject.state, batch, key, samples, chunk_size)
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
    errors, likeness = [], []
    for i, batch in _batches(test, progress):
        key = jax.random.fold_in(named_key(subject.key, "reconstructions"), i)
        rebuilt = np.asarray(subject.family.reconstruct(subject.spec, subject.state, batch, key))
        # The mean of a Gaussian likelihood is not confined to the images' range.
        rebuilt, originals = rebuilt.clip(0.0, 1.0), np.asarray(to_float(batch["image"]))
        errors.append(squared_errors(originals, rebuilt))
        likeness.append(similarities(originals, rebuilt))
    all_errors = np.concatenate(errors)
    mean, error = mean_and_error(all_errors)
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
    found = [each for each in likeness if each is not None]
    if found:
        numbers.append(_of_images("reconstruction-SSIM", np.concatenate(found), "similarity", "higher"))
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
    gap, error = mean_and_error(gaps)
    loose = f"on images that the model made it is {gap:.3g} nats below the upper bound: take more temperatures"
    return [
        _of_images(
            "AIS-log-likelihood", values, "nats", "higher", parameters=parameters, warnings=(loose,) * (gap > LARGE_GAP)
        ),
        Number("AIS-gap", gap, error, "nats", "lower", num_real=0, num_generated=num_made, parameters=parameters),
    ]


def _codes(subject: Subject, test: Mapping[str, np.ndarray], progress: Progress) -> list[Number]:
    """How the codes of the split are used and what they cost; of latents without codes how many say something, and what
    drawing them changes."""
    spec, num = subject.spec, len(test["image"])
    found = subject.family.watch(spec, subject.state, (batch for _, batch in _batches(test, progress)))
    common: dict[str, Any] = {"standard_error": None, "num_real": num, "num_generated": 0}
    if not spec.num_codes:
        active = Number("active-channels", found["active_channels"], unit="channels", better="neither", **common)
        return [dataclasses.replace(active, parameters={"threshold": 0.01}), _sampled(subject, test, progress)]
    places, pixels = math.prod(spec.latent_shape[:2]), math.prod(test["image"].shape[1:3])
    few = num * places < FEW * spec.num_codes
    warnings = (f"{num * places:,} places in all for {spec.num_codes:,} codes: more images would use more",) * few
    bits = places * spec.bottleneck.bits_per_position / pixels
    return [
        Number("codes-used", found["codes_used"], unit="share", better="higher", warnings=warnings, **common),
        Number("code-perplexity", found["code_perplexity"], unit="codes", better="higher", warnings=warnings, **common),
        Number("bits-per-pixel", bits, unit="bits", better="neither", **common),
    ]


def _sampled(subject: Subject, test: Mapping[str, np.ndarray], progress: Progress) -> Number:
    """How far reconstructions of drawn latents are from those of their means."""
    rebuild, errors = subject.family.reconstruct, []
    for i, batch in _batches(test, progress):
        key = jax.random.fold_in(named_key(subject.key, "sampled reconstructions"), i)
        both = [rebuild(subject.spec, subject.state, batch, key, sampled=drawn) for drawn in (False, True)]
        errors.append(squared_errors(*(np.asarray(images).clip(0.0, 1.0) for images in both)))
    return _of_images("sampled-MSE", np.concatenate(errors), "range squared", "neither")


def rebuilt(subject: Subject, images: np.ndarray, progress: Progress) -> np.ndarray:
    """Reconstructions of images [N, H, W, C], floats in [0, 1], by a model without labels."""
    pieces = []
    for i, batch in _batches({"image": images}, progress):
        key = jax.random.fold_in(named_key(subject.key, "reconstructions"), i)
        pieces.append(np.asarray(subject.family.reconstruct(subject.spec, subject.state, batch, key)).clip(0.0, 1.0))
    return np.concatenate(pieces)


def check_unseen(spec: Spec, extractor: Extractor) -> None:
    """Refuse an extractor whose features the model was trained to match: a distance of them would say nothing.

    The ``spec`` says so by the hash of a file, which is the ``extractor``'s.
    """
    if getattr(spec, "perceptual_sha256", None) == extractor.sha256:
        raise ValueError(
            f"the model was trained to match the features of {extractor.name} (--perceptual), which cannot judge it "
            "then: use another --extractor, such as pixels"
        )


MODEL_MEASURES: dict[str, Callable[[Subject, Mapping[str, np.ndarray], Progress], list[Number]]] = {
    "elbo": _elbo,
    "log_likelihood": _log_likelihood,
    "reconstructions": _reconstructions,
    "active_units": _active_units,
    "codes": _codes,
    "annealed": _annealed,
}
# What of a family a measure is made with.
NEEDS = {
    "elbo": "latent_kl",
    "log_likelihood": "importance_sampling",
    "reconstructions": "reconstruct",
    "active_units": "posteriors",
    "codes": "watch",
    REBUILT: "reconstruct",
    **dict.fromkeys(SAMPLE_MEASURES, "sample"),
}
# What one with an encoder has not got all the same.
LACKS = {
    "elbo": "ELBO",
    "log_likelihood": "prior, and so no likelihood",
    "active_units": "units of one posterior (codes counts its channels)",
    "codes": "codes",
    **dict.fromkeys(SAMPLE_MEASURES, "prior"),
}
MEASURES = (*SAMPLE_MEASURES, REBUILT, *MODEL_MEASURES)


def _why_not_of(measure: str, spec: Spec) -> str | None:
    """Why a measure cannot be made of a family's model."""
    family = family_of(spec)
    if getattr(family, NEEDS.get(measure, "decode")) is None:
        lacks_all = family.encode is None and measure not in SAMPLE_MEASURES
        return f"a {family.title} has no {'encoder' if lacks_all else LACKS[measure]}"
    if measure == REBUILT and family.sample is not None:
        return f"the samples of a {family.title} are measured: frechet"
    if measure == "annealed" and not family.standard_prior(spec):
        return "it is for latents with a standard normal prior"
    return None


def why_not(
    measure: str, spec: Spec | None, image_shape: tuple[int, ...], dataset: str, classifies: bool
) -> str | None:
    """Why a measure cannot be made of a model, in words; None where it can.

    Args:
      measure: one of `MEASURES`.
      spec: the GAN or VAE; None of images without their model.
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
    if spec is None:
        if measure not in SAMPLE_MEASURES:
            return "it needs the model"
    elif reason := _why_not_of(measure, spec):
        return reason
    if measure in ("classifier_score", "classes") and not classifies:
        return "the extractor does not classify"
    if measure == "stacked_modes" and not (dataset.startswith("stacked") and image_shape == (28, 28, 3)):
        return "it is for stacked digits (--dataset stacked:mnist)"
    return None
