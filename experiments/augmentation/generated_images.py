"""Enlarging a small labelled set by generated images of which a classifier is sure."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.batches import to_float
from jaxgen.keys import named_key

Sampler = Callable[[jax.Array, int, np.ndarray], Any]
Classifier = Callable[[Any], Any]

_ROUND = 1000  # images drawn at a time


class Filtered(NamedTuple):
    """Generated images of every class, told apart by how sure a classifier is of their class.

    Args:
      image: those that passed, class by class, at most as many of each as were wanted, float32 [N, ...] in [0, 1].
      label: the classes that they were made for, int32 [N].
      rejected_image: some of those that did not pass, at most as many of each class, float32 [M, ...].
      rejected_label: the classes that they were made for, int32 [M].
      drawn: number of images drawn of each class, int [K].
      passed: how many of them passed, int [K].
    """

    image: np.ndarray
    label: np.ndarray
    rejected_image: np.ndarray
    rejected_label: np.ndarray
    drawn: np.ndarray
    passed: np.ndarray


def draw_confident(
    sample: Sampler,
    classify: Classifier,
    key: jax.Array,
    per_class: int,
    num_classes: int,
    threshold: float,
    most_draws: int = 10,
) -> Filtered:
    """Draw images of every class until enough are left of which a classifier is sure.

    kept = {x_i ~ p(x | c) : p(c | x_i) >= threshold}

    Drawing ends when every class has enough, or after most_draws * K * per_class images; classes that still lack some
    are then short of them, which the lengths say.

    Args:
      sample: (key, N, label int32 [N]) -> images of these classes, [N, ...] in [0, 1], such as
        ``functools.partial(jaxgen.gan_sample, gan, state)``.
      classify: images [N, ...] -> probabilities of the classes, [N, K].
      key: typed key of the draws, [].
      per_class: number of images wanted of each class.
      num_classes: number of classes K.
      threshold: least probability of the class that an image was made for, in [0, 1]; 0 keeps all.
      most_draws: how many times as many images as are wanted are drawn at most.

    Returns:
      What passed, some of what did not, and the counts.

    Raises:
      TypeError: the key is not one typed threefry key.
      ValueError: a number is out of its range, or no image of any class passes.

    References:
      Frid-Adar et al. 2018, "GAN-based synthetic medical image augmentation for increased CNN performance in liver
      lesion classification" (GANs enlarge a training set class by class, without a filter).
    """
    for name, number in (("per_class", per_class), ("num_classes", num_classes), ("most_draws", most_draws)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a probability in [0, 1], got {threshold}")
    key = named_key(key, "confident samples")
    drawn, passed = np.zeros(num_classes, int), np.zeros(num_classes, int)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    rejected: list[tuple[np.ndarray, np.ndarray]] = []
    # Every round is of one size, so that sampler and classifier are compiled once.
    size = min(_ROUND, num_classes * per_class)
    for number in range(-(-most_draws * num_classes * per_class // size)):
        lacking = np.flatnonzero(passed < per_class)
        if not lacking.size:
            break
        label = np.resize(lacking, size).astype(np.int32)
        image = np.asarray(sample(jax.random.fold_in(key, number), size, label), np.float32)
        probabilities = np.asarray(classify(image))
        if probabilities.shape != (size, num_classes):
            raise ValueError(
                f"classify must return probabilities [{size}, {num_classes}], got {list(probabilities.shape)}"
            )
        passes = probabilities[np.arange(size), label] >= threshold
        kept.append((image[passes], label[passes]))
        rejected.append((image[~passes], label[~passes]))
        drawn += np.bincount(label, minlength=num_classes)
        passed += np.bincount(label[passes], minlength=num_classes)
    if not passed.any():
        raise ValueError(
            f"of {drawn.sum()} generated images none is of its class with a probability of {threshold} or more: lower "
            "the threshold, or train the generator for longer"
        )
    return Filtered(*_first_of_each(kept, per_class), *_first_of_each(rejected, per_class), drawn, passed)


def _first_of_each(rounds: list[tuple[np.ndarray, np.ndarray]], most: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images of each class and their labels, class by class."""
    image, label = (np.concatenate(parts) for parts in zip(*rounds, strict=True))
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], label[order])  # where each one's class begins
    order = order[np.arange(len(order)) - starts < most]
    return image[order], label[order]


def generated_per_class(per_class: int, share: float, least: int) -> tuple[int, int]:
    """How often to repeat labelled images, and how many generated ones to add, to reach a share of generated images.

    repeats = the smallest r >= 1 with r L s / (1 - s) >= least

    Args:
      per_class: number of labelled images of each class, L.
      share: of generated images in the enlarged set, s in (0, 1).
      least: number of generated images of each class to have at least.

    Returns:
      (repeats, generated images of each class).

    Raises:
      ValueError: the share is not inside (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of generated images must be inside (0, 1), got {share}")
    odds = share / (1 - share)
    repeats = max(1, int(np.ceil(round(least / (per_class * odds), 6))))
    return repeats, max(1, round(repeats * per_class * odds))


def enlarge(
    dataset: Mapping[str, np.ndarray], generated: Filtered, repeats: int, per_class: int
) -> dict[str, np.ndarray]:
    """Join generated images to a small labelled set.

    Where a class is short of generated images, its labelled ones take the places, so that all classes are as frequent.

    Args:
      dataset: ``image`` [N, ...] and ``label`` int [N], uint8, bool or floats in [0, 1], equally many of each class.
      generated: of the same classes.
      repeats: how often every labelled image is in the result, where nothing is short.
      per_class: number of generated images of each class.

    Returns:
      ``image``, uint8 where the labelled images are, else float32, and ``label`` int32.
    """
    real = np.asarray(dataset["image"])
    made = generated.image
    if real.dtype == np.uint8:
        made = np.round(255 * made).astype(np.uint8)
    else:
        real = np.asarray(to_float(real), np.float32)
    images, labels = [], []
    for number in range(int(dataset["label"].max()) + 1):
        added = made[generated.label == number][:per_class]
        own = np.flatnonzero(dataset["label"] == number)
        own = np.resize(own, repeats * len(own) + per_class - len(added))
        images += [real[own], added]
        labels.append(np.full(len(own) + len(added), number, np.int32))
    return {"image": np.concatenate(images), "label": np.concatenate(labels)}
