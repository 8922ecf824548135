"""What a run is watched with: numbers on the test split, and grids of pictures."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen import metrics
from jaxgen.batches import to_float
from jaxgen.keys import named_key
from jaxgen.training.monitor import Monitor
from jaxgen.training.run import Spec

GRID = 64  # samples in a grid
PAIRS = 32  # images and their reconstructions in a grid
BATCH = 500  # images at a time
Dataset = dict[str, np.ndarray]


class Evaluation:
    """Measures a state on the test split: the ELBO of a VAE, a sample distance of a GAN."""

    def __init__(self, spec: Spec, test: Dataset, key: jax.Array) -> None:
        self._spec = spec
        self._test = test
        self._key = named_key(key, "evaluation")

    def __call__(self, state: Any) -> tuple[dict[str, float], float]:
        """(metrics by name, score: higher is better)."""
        if isinstance(self._spec, jaxgen.VAE):
            return self._elbo(self._spec, state)
        return self._distance(self._spec, state)

    def _elbo(self, vae: jaxgen.VAE, state: Any) -> tuple[dict[str, float], float]:
        sums: dict[str, float] = {}
        num = len(self._test["image"])
        for i in range(0, num, BATCH):
            batch = {name: array[i : i + BATCH] for name, array in self._test.items()}
            key = jax.random.fold_in(self._key, i)
            for name, values in jaxgen.vae_evaluate(vae, state, batch, key).items():
                sums[name] = sums.get(name, 0.0) + float(jnp.sum(values))
        means = {f"test_{name}": value / num for name, value in sums.items()}
        return means, means["test_elbo"]

    def _distance(self, gan: jaxgen.GAN, state: Any) -> tuple[dict[str, float], float]:
        real = self._test["image"]
        pieces = [
            jaxgen.gan_sample(gan, state, jax.random.fold_in(self._key, i), min(BATCH, len(real) - i))
            for i in range(0, len(real), BATCH)
        ]
        distance = float(_sliced_wasserstein(real, jnp.concatenate(pieces), named_key(self._key, "projections")))
        return {"test_sliced_wasserstein": distance}, -distance


_sliced_wasserstein = jax.jit(metrics.sliced_wasserstein_distance)


class Pictures:
    """Grids from the same latents and the same test images every time."""

    def __init__(self, spec: Spec, test: Dataset, key: jax.Array) -> None:
        self._spec = spec
        self._key = named_key(key, "pictures")
        self._images = {name: array[:PAIRS] for name, array in test.items()}

    def __call__(self, state: Any, step: int, monitor: Monitor) -> list[Path]:
        """Write the grids of a state; none for data that are not images."""
        if self._images["image"].ndim != 4:
            return []
        if isinstance(self._spec, jaxgen.GAN):
            samples = jaxgen.gan_sample(self._spec, state, self._key, GRID)
            return [monitor.show(step, "samples", np.asarray(samples))]
        samples = jaxgen.vae_sample(self._spec, state, self._key, GRID)
        originals = to_float(self._images["image"])
        rebuilt = jaxgen.vae_reconstruct(self._spec, state, self._images, self._key)
        columns = 8  # a row of originals above a row of their reconstructions
        rows = [part[i : i + columns] for i in range(0, len(originals), columns) for part in (originals, rebuilt)]
        return [
            monitor.show(step, "samples", np.asarray(samples)),
            monitor.show(step, "reconstructions", np.concatenate(rows), columns),
        ]
