"""What a run is watched with: numbers on the test split, and grids of pictures."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import metrics
from jaxgen.batches import to_float
from jaxgen.data import spread
from jaxgen.evaluation import extractors
from jaxgen.evaluation.extractors import Extractor
from jaxgen.evaluation.figures import named
from jaxgen.evaluation.subject import BATCH, Settings, Subject
from jaxgen.families import family_of
from jaxgen.keys import named_key
from jaxgen.training.monitor import Monitor, interleaved
from jaxgen.training.run import Spec

GRID = 64  # samples in a grid
ROWS = 16  # classes in a grid, at most
COLUMNS = 8  # samples of each class
CONTRAST = 4  # of the difference between an image and its reconstruction, as it is shown
PAIRS = 32  # images and their reconstructions in a grid
DIVERSITY = 256  # samples, and test images, whose diversity is compared
DISTANCES = 1000  # samples, and test images, between which distances of features are measured
LIKELIHOOD_CHUNK = 10  # importance samples of each of them at a time
Dataset = dict[str, np.ndarray]


def class_rows(spec: Spec, columns: int = COLUMNS, rows: int = ROWS) -> np.ndarray | None:
    """Labels of a grid with one class a row, int [rows * columns]; None for a model without labels."""
    family = family_of(spec)
    classes = family.num_classes(spec, family.decoder)
    return None if classes is None else np.repeat(np.arange(min(rows, classes), dtype=np.int32), columns)


def choose_extractor(text: str, dataset: str, image_shape: tuple[int, ...]) -> Extractor:
    """The extractor of features that is asked for; with auto, the classifier of the data where there is one, that of
    colour pictures for such, or the pixels."""
    if text != "auto":
        found = extractors.find(text)
        if found.image_shape not in (None, image_shape):
            raise ValueError(
                f"--extractor {text} takes images {list(found.image_shape or ())}, {dataset} has {list(image_shape)}: "
                "use pixels or auto"
            )
        return found
    if len(image_shape) == 3 and image_shape[2] == 3:
        return extractors.lenet("color")
    if image_shape != (28, 28, 1) or "mnist" not in dataset:
        return extractors.pixels()
    return extractors.lenet("fashion_mnist" if "fashion" in dataset else "mnist")


def extractor_of(text: str, dataset: str, image_shape: tuple[int, ...]) -> Extractor | None:
    """The extractor that is asked for, see `choose_extractor`; None for none."""
    return None if text == "none" else choose_extractor(text, dataset, image_shape)


class Evaluation:
    """Measures a state on the test split.

    Of a VAE the ELBO, perhaps log p(x), and the active units of each stochastic layer; of a GAN a sample distance; of
    both the diversity of samples from latents that are the same every time, and perhaps distances of features.

    Before every batch of images it calls ``between``, which may raise to cut it short.
    """

    def __init__(
        self,
        spec: Spec,
        test: Dataset,
        key: jax.Array,
        log_likelihood_samples: int | None = None,
        between: Callable[[], None] = lambda: None,
        extractor: Extractor | None = None,
        num_features: int = DISTANCES,
    ) -> None:
        self._spec, self._family = spec, family_of(spec)
        self._between = between
        self._log_likelihood_samples = log_likelihood_samples
        self._test = test
        self._extractor, self._num_features = extractor, num_features
        self._key = named_key(key, "evaluation")
        num = len(test["image"])
        some = spread(num, DIVERSITY)  # over the whole split: some are sorted by class
        self._some = {name: array[some] for name, array in test.items()}

    def __call__(self, state: Any) -> tuple[dict[str, float], float]:
        """(metrics by name, score: higher is better)."""
        if self._family.evaluate is not None:
            measured, score = self._evaluated(state)
        else:
            distance = self._distance(state)
            measured, score = {"test_sliced_wasserstein": distance}, -distance
        return {**measured, **self._diversity(state), **self.feature_distances(state)}, score

    def _batches(self) -> Iterator[dict[str, np.ndarray]]:
        for i in range(0, len(self._test["image"]), BATCH):
            self._between()
            yield {name: array[i : i + BATCH] for name, array in self._test.items()}

    def settled(self, state: Any) -> dict[str, Any]:
        """What is measured on the split and kept in the state's ``hyperparams``, by name."""
        settle = self._family.settle
        return {} if settle is None else settle(self._spec, state, self._batches())

    def scores(self, state: Any) -> dict[str, float]:
        """All metrics by name, those too that are for comparing runs: a VAE's sample distance and squared error."""
        measured, _ = self(state)
        if self._family.reconstruct is not None:
            measured["test_squared_error"] = self._squared_error(state)
        if self._family.sample is not None:
            measured["test_sliced_wasserstein"] = self._distance(state)
        return measured

    def _diversity(self, state: Any) -> dict[str, float]:
        real = self._some["image"]
        if len(real) < 2 or self._family.sample is None:
            return {}
        draw = self._family.sample
        conditional = class_rows(self._spec) is not None
        label = self._some["label"] if conditional else None
        samples = draw(self._spec, state, named_key(self._key, "diversity"), len(real), label)
        return {"sample_diversity": float(_sample_diversity(real, samples))}

    def _evaluated(self, state: Any) -> tuple[dict[str, float], float]:
        family = self._family
        sums: dict[str, float] = {}
        means: list[tuple[jax.Array, ...]] = []
        num = len(self._test["image"])
        for i in range(0, num, BATCH):
            self._between()
            batch = {name: array[i : i + BATCH] for name, array in self._test.items()}
            key = jax.random.fold_in(self._key, i)
            given = self._spec, state, batch
            measured = family.evaluate(*given, key)
            if family.posteriors is not None:
                means.append(tuple(posterior[0] for posterior in family.posteriors(*given)))
            if self._log_likelihood_samples is not None:
                samples = self._log_likelihood_samples
                found = family.importance_sampling(*given, key, samples, chunk_size=LIKELIHOOD_CHUNK)
                measured["log_likelihood"] = found.log_likelihood
            for name, values in measured.items():
                sums[name] = sums.get(name, 0.0) + float(jnp.sum(values))
        averages = {f"test_{name}": value / num for name, value in sums.items()}
        if family.watch is not None:
            whole = family.watch(self._spec, state, self._batches())
            averages |= {f"test_{name}": value for name, value in whole.items()}
        name, more_is_better = family.score
        score = averages[f"test_{name}"]
        return {**averages, **_active_units(means)}, score if more_is_better else -score

    def _squared_error(self, state: Any) -> float:
        """Mean over pixels of the squared error of reconstructions."""
        total = 0.0
        for i in range(0, len(self._test["image"]), BATCH):
            self._between()
            batch = {name: array[i : i + BATCH] for name, array in self._test.items()}
            rebuilt = self._family.reconstruct(self._spec, state, batch, jax.random.fold_in(self._key, i))
            total += float(jnp.sum(jnp.square(rebuilt - to_float(batch["image"]))))
        return total / self._test["image"].size

    def _distance(self, state: Any) -> float:
        """Sliced Wasserstein distance of as many samples as there are test images."""
        real = self._test["image"]
        draw = self._family.sample
        conditional = class_rows(self._spec) is not None
        pieces = []
        for i in range(0, len(real), BATCH):
            self._between()
            label = self._test["label"][i : i + BATCH] if conditional else None
            key = jax.random.fold_in(self._key, i)
            pieces.append(draw(self._spec, state, key, min(BATCH, len(real) - i), label))
        return float(_sliced_wasserstein(real, jnp.concatenate(pieces), named_key(self._key, "projections")))

    @functools.cached_property
    def _features(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Features of some test images, and their labels."""
        assert self._extractor is not None
        places = spread(len(self._test["image"]), self._num_features)
        labels = self._test["label"][places] if "label" in self._test else None
        return extractors.extract(self._extractor, self._test["image"][places]).features, labels

    def feature_distances(self, state: Any) -> dict[str, float]:
        """The Frechet distance, precision and recall of the features of as many samples; without a prior, that of
        reconstructions, whose name begins with r."""
        if self._extractor is None:
            return {}
        real, labels = self._features
        if self._family.sample is None:
            return self._reconstruction_distance(state, real)
        subject = Subject(self._spec, state, named_key(self._key, "features"), Settings())
        labels = None if class_rows(self._spec) is None else labels
        binary = self._test["image"].dtype == np.bool_
        samples = subject.sample(len(real), labels, binary, lambda *_: self._between())
        fake = extractors.extract(self._extractor, samples).features
        shares = metrics.precision_recall(real, fake)
        found = {
            "FD": metrics.frechet_distance(metrics.moments(real), metrics.moments(fake)),
            "precision": shares.precision,
            "recall": shares.recall,
        }
        names = (self._extractor.metric_name(name).lower().replace("-", "_") for name in found)
        return {f"test_{name}": value for name, value in zip(names, found.values(), strict=True)}

    def _reconstruction_distance(self, state: Any, real: np.ndarray) -> dict[str, float]:
        assert self._extractor is not None
        places = spread(len(self._test["image"]), self._num_features)
        rebuilt = []
        for i in range(0, len(places), BATCH):
            self._between()
            batch = {name: array[places[i : i + BATCH]] for name, array in self._test.items()}
            rebuilt.append(np.asarray(self._family.reconstruct(self._spec, state, batch, self._key)).clip(0.0, 1.0))
        fake = extractors.extract(self._extractor, np.concatenate(rebuilt)).features
        name = self._extractor.metric_name("FD").lower().replace("-", "_")
        return {f"test_r{name}": metrics.frechet_distance(metrics.moments(real), metrics.moments(fake))}


_sliced_wasserstein = jax.jit(metrics.sliced_wasserstein_distance)
_sample_diversity = jax.jit(metrics.sample_diversity)


def _active_units(means: list[tuple[jax.Array, ...]]) -> dict[str, float]:
    """Active units of each stochastic layer, by name, from the posterior means of batches of images."""
    layers = [jnp.concatenate(layer) for layer in zip(*means, strict=True)]
    names = ["active_units"] * bool(layers) + [*(f"active_units_{number}" for number in range(2, len(layers) + 1))]
    return {
        name: float(metrics.active_units(layer))
        for name, layer in zip(names, layers, strict=True)
        if layer.shape[0] >= 2
    }


def class_titles(rows: np.ndarray | None, columns: int, names: Sequence[str] | None) -> list[str]:
    """What the rows of a grid with one class a row are called, of its labels as `class_rows` gives them."""
    return [] if rows is None else [named("class", int(label), names) for label in rows[::columns]]


def of_the_classes(shown: int, there: int | None) -> str:
    """That a grid shows some classes of more, in words."""
    return "" if there is None or shown >= there else f"The first {shown} of {there} classes."


def how_drawn(spec: Spec, state: Any, binary: bool) -> str:
    """How samples that are shown come to be, in words; ``binary``: whether the data are."""
    averaged = getattr(state, "ema", None) is not None
    weights = (
        "averaged weights: the moving average of those of the last steps" if averaged else "the weights of this step"
    )
    drawn = f"Drawn at random from the prior, with {weights}"
    if family_of(spec).likelihood(spec) is None:
        return f"{drawn}."
    return f"{drawn}; each is the decoder's mean{', the probability that a pixel is white' if binary else ''}."


class Pictures:
    """Grids from the same latents and the same test images every time.

    Their titles say what they are of: ``trained`` says on what the model was, as "trained on mnist, seed 0", and
    ``class_names`` are those of a conditional model.
    """

    def __init__(
        self,
        spec: Spec,
        test: Dataset,
        key: jax.Array,
        trained: str = "",
        class_names: Sequence[str] | None = None,
    ) -> None:
        self._spec = spec
        self._key = named_key(key, "pictures")
        self._images = {name: array[:PAIRS] for name, array in test.items()}
        self._of = f"{family_of(spec).title} {trained}".strip()
        self._class_names = class_names

    def __call__(self, state: Any, step: int, monitor: Monitor) -> list[Path]:
        """Write the grids of a state; none for data that are not images."""
        if self._images["image"].ndim != 4:
            return []
        labels = class_rows(self._spec)
        num, columns = (GRID, None) if labels is None else (len(labels), COLUMNS)
        family, written = family_of(self._spec), []
        binary = self._images["image"].dtype == np.bool_
        if family.sample is not None:
            samples = family.sample(self._spec, state, self._key, num, labels)
            rows = class_titles(labels, COLUMNS, self._class_names)
            some = of_the_classes(len(rows), family.num_classes(self._spec, family.decoder))
            note = f"{how_drawn(self._spec, state, binary)} {some}"
            title = f"Samples of a {self._of}, step {step:,}"
            written.append(
                monitor.show(step, "samples", np.asarray(samples), columns, title=title, note=note, rows=rows)
            )
        if family.reconstruct is None:
            return written
        originals = np.asarray(to_float(self._images["image"]))
        rebuilt = np.asarray(family.reconstruct(self._spec, state, self._images, self._key))
        parts, rows = [originals, rebuilt], ["image", "rebuilt"]
        note = f"The first {len(originals)} test images; below each, what the model makes of it: encoded, then decoded."
        if family.sample is None:  # there is nothing else to look at
            parts, rows = [*parts, np.minimum(CONTRAST * np.abs(rebuilt - originals), 1.0)], [*rows, "difference"]
            note += f" Below that, how far apart they are, {CONTRAST} times as bright."
        pairs = interleaved(*parts, columns=COLUMNS)
        title = f"Test images and their reconstructions by a {self._of}, step {step:,}"
        rows = rows * -(-len(originals) // COLUMNS)
        return [
            *written,
            monitor.show(step, "reconstructions", pairs, COLUMNS, title=title, note=note, rows=rows),
        ]
