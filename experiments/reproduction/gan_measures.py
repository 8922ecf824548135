"""How papers judge a trained GAN: by Parzen windows around its samples, and by what its discriminator's features are
worth to a linear classifier."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.reproduction.vae_measures import SEED, load_split
from jaxgen import GAN, gan_init, gan_sample, metrics, modules
from jaxgen.batches import to_float
from jaxgen.data import labelled_subset
from jaxgen.evaluation.records import mean_and_error
from jaxgen.evaluation.subject import Progress
from jaxgen.gan import GANState
from jaxgen.keys import named_key, numbered_keys
from jaxgen.training.run import Run

AT_ONCE = 500  # images


@dataclasses.dataclass(frozen=True)
class Parzen:
    """The Parzen window log-likelihood of the test split around samples of the generator: ``Parzen``, in nats.

    Windows are as wide as is likeliest for validation images; of several checkpoints the one likeliest for them counts.

    Args:
      num_samples: samples around which the windows are.
      num_validation: how many validation images are used, the first ones.
      sigmas: standard deviations to choose from, ascending, in units of the images' range.
      validation: the split that standard deviation and checkpoint are chosen on.
      split: the split that is judged, all of it.
      checkpoints: ``"newest"``, or ``"kept"`` for the best of all that the run has kept.
      average: whether the samples are of the generator's moving average (where it has one) or of the generator itself.

    References:
      Goodfellow et al. 2014, section 5 and table 1; parzen_ll.py of the code published with it: 10,000 samples, ten
      standard deviations from 0.1 to 1, 1,000 validation images.
    """

    num_samples: int = 10_000
    num_validation: int = 1000
    sigmas: tuple[float, ...] = tuple(10 ** (i / 9 - 1) for i in range(10))
    validation: str = "train[50000:]"
    split: str = "test"
    checkpoints: Literal["newest", "kept"] = "newest"
    average: bool = True

    def __call__(self, run: Run, progress: Progress) -> Mapping[str, float]:
        """``Parzen``, its ``standard error`` over the images, that of the validation images, sigma and the step."""
        validation = jnp.asarray(load_split(run, self.validation)["image"][: self.num_validation])
        steps = run.steps() if self.checkpoints == "kept" else run.steps()[-1:]
        found = []
        for number, step in enumerate(steps):
            progress(number, len(steps) + 1)
            samples = self.samples(run, step)
            width = metrics.parzen_bandwidth(samples, validation, self.sigmas)
            found.append((max(width.log_likelihoods), width.sigma, step))
        of_validation, sigma, step = max(found)
        samples = samples if step == steps[-1] else self.samples(run, step)
        images = jnp.asarray(load_split(run, self.split)["image"])
        each = np.asarray(metrics.parzen_log_likelihood(samples, images, sigma), np.float64)
        progress(len(steps) + 1, len(steps) + 1)
        return {
            "Parzen": float(each.mean()),
            "standard error": float(each.std() / np.sqrt(len(each))),  # of N degrees of freedom, as in parzen_ll.py
            "Parzen of validation images": of_validation,
            "sigma": sigma,
            "step": float(step),
        }

    def samples(self, run: Run, step: int) -> jax.Array:
        """The samples of a checkpoint, [num_samples, H, W, C]; the same latents for each."""
        state: Any = run.restore(step)
        state = state if self.average else state._replace(ema=None)
        keys = numbered_keys(named_key(jax.random.key(SEED), "parzen"), jnp.arange(-(-self.num_samples // AT_ONCE)))
        parts = [gan_sample(run.spec, state, key, AT_ONCE) for key in keys]
        return jnp.concatenate(parts)[: self.num_samples]


def discriminator_features(gan: GAN, params: Any, collections: Any, images: jax.Array, grid: int = 4) -> jax.Array:
    """What a convolutional discriminator sees of images: all its activations, each map pooled to a small grid.

    Args:
      gan: the spec; its discriminator is a DCGAN's.
      params: the discriminator's parameters.
      collections: the discriminator's statistics.
      images: uint8, bool or float, [B, H, W, C].
      grid: height and width of the maps after max-pooling.

    Returns:
      Features, [B, grid * grid * F], F the channels of all layers together.

    Raises:
      ValueError: the discriminator keeps no activations.

    References:
      Radford et al. 2016, section 5.1.
    """
    variables = {"params": params, **collections}
    discriminator: Any = gan.discriminator
    _, kept = discriminator.apply(variables, to_float(images), train=False, mutable=["intermediates"])
    layers = jax.tree.leaves(kept.get("intermediates", {}))
    if not layers:
        raise ValueError(f"{type(discriminator).__name__} keeps no activations: use one of --architecture dcgan")
    return jnp.concatenate([max_pool_to(x, grid).reshape(len(x), -1) for x in layers], axis=1)


def max_pool_to(x: jax.Array, grid: int) -> jax.Array:
    """Max-pool maps of any size to a grid: cell i of n pixels has floor(i n / grid) to ceil((i + 1) n / grid).

    Args:
      x: maps, [B, H, W, C], H and W at least the grid.
      grid: height and width wanted.

    Returns:
      [B, grid, grid, C].
    """
    for axis in (1, 2):
        num = x.shape[axis]
        cells = [slice(i * num // grid, -(-(i + 1) * num // grid)) for i in range(grid)]
        parts = [jnp.max(jax.lax.slice_in_dim(x, c.start, c.stop, axis=axis), axis=axis) for c in cells]
        x = jnp.stack(parts, axis=axis)
    return x


def settle_statistics(gan: GAN, params: Any, collections: Any, images: np.ndarray, passes: int = 40) -> Any:
    """A discriminator's statistics over real images alone: after a training they are of both kinds, before of none.

    Args:
      gan: the spec.
      params: the discriminator's parameters.
      collections: its statistics.
      images: real training images, [N, ...].
      passes: number of batches to see.

    Returns:
      The collections after them.
    """

    @jax.jit
    def seen(collections: Any, batch: jax.Array) -> Any:
        return modules.apply(
            gan.discriminator, params, collections, to_float(batch), train=True, key=jax.random.key(0)
        )[1]

    size = min(AT_ONCE, len(images))
    for number in range(passes):
        start = number * size % (len(images) - size + 1)
        collections = seen(collections, jnp.asarray(images[start : start + size]))
    return collections


def svm_loss(weights: jax.Array, features: jax.Array, signs: jax.Array, regularization: jax.Array) -> jax.Array:
    """The objective of linear L2-SVMs, one against the rest, the bias regularised like the weights.

    1/2 |W|^2 + C sum_n sum_k max(0, 1 - s_nk (x_n W)_k)^2

    Args:
      weights: W, [D + 1, K]; the last row is the biases.
      features: x, [N, D + 1], the last column 1.
      signs: s, 1 for the class and -1 for the others, [N, K].
      regularization: C, [].

    Returns:
      The objective, [].

    References:
      Fan et al. 2008, "LIBLINEAR: A Library for Large Linear Classification", equation 2 with the squared hinge loss.
    """
    margins = jnp.maximum(0.0, 1.0 - signs * (features @ weights))
    return 0.5 * jnp.sum(jnp.square(weights)) + regularization * jnp.sum(jnp.square(margins))


@partial(jax.jit, static_argnames="num_steps")
def train_svms(features: jax.Array, signs: jax.Array, regularizations: jax.Array, num_steps: int = 100) -> jax.Array:
    """Train linear L2-SVMs with each of several regularisations, by L-BFGS.

    Args:
      features: [N, D + 1], the last column 1.
      signs: 1 for the class and -1 for the others, [N, K].
      regularizations: C of each, [R]; smaller is more.
      num_steps: steps of L-BFGS.

    Returns:
      Weights, [R, D + 1, K].
    """
    solver = optax.lbfgs()

    def train(regularization: jax.Array) -> jax.Array:
        def loss(weights: jax.Array) -> jax.Array:
            return svm_loss(weights, features, signs, regularization)

        value_and_grad = optax.value_and_grad_from_state(loss)

        def step(_: jax.Array, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            weights, state = carry
            value, gradient = value_and_grad(weights, state=state)
            updates, state = solver.update(gradient, state, weights, value=value, grad=gradient, value_fn=loss)
            return optax.apply_updates(weights, updates), state

        start = jnp.zeros((features.shape[1], signs.shape[1]), features.dtype)
        return jax.lax.fori_loop(0, num_steps, step, (start, solver.init(start)))[0]

    return jax.vmap(train)(regularizations)


@jax.jit
def error_rates(weights: jax.Array, features: jax.Array, labels: jax.Array) -> jax.Array:
    """Share of examples that each classifier gets wrong.

    Args:
      weights: [R, D + 1, K].
      features: [N, D + 1].
      labels: int [N].

    Returns:
      Shares in [0, 1], [R].
    """
    guesses = jnp.argmax(jnp.einsum("nd,rdk->rnk", features, weights), axis=2)
    return jnp.mean(guesses != labels[None], axis=1)


Features = Callable[[np.ndarray], np.ndarray]
Split = Mapping[str, np.ndarray]


def linear_errors(
    features: Features, labelled: Split, validation: Split, test: Split, per_class: int, draws: int,
    regularizations: tuple[float, ...],
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Test errors of linear classifiers on features of a few labelled images, for several choices of these.

    The regularisation is the one with the smallest error of the validation images, over all choices together.

    Args:
      features: images [N, ...] -> features [N, D].
      labelled: ``image`` and ``label`` to choose labelled examples from.
      validation: ``image`` and ``label`` that the regularisation is chosen on.
      test: ``image`` and ``label`` that are judged.
      per_class: labelled examples of each class.
      draws: number of choices of them.
      regularizations: to choose from, of features whose squared norm is 1 in the mean.

    Returns:
      (shares of the test images that are wrong, [draws]; the regularisation).
    """
    num_classes = int(labelled["label"].max()) + 1
    rates = jnp.asarray(regularizations, jnp.float32)
    of_validation = features(validation["image"])
    scale = 1.0 / np.sqrt(np.mean(np.sum(np.square(of_validation), axis=1)))

    def ready(values: np.ndarray) -> jax.Array:
        return jnp.asarray(np.concatenate([values * scale, np.ones((len(values), 1))], axis=1), jnp.float32)

    validated, judged = ready(of_validation), ready(features(test["image"]))
    errors = np.zeros((2, draws, len(regularizations)))
    for number, key in enumerate(numbered_keys(named_key(jax.random.key(SEED), "labels"), jnp.arange(draws))):
        chosen = labelled_subset(labelled["label"], per_class, key)
        signs = 2.0 * jax.nn.one_hot(labelled["label"][chosen], num_classes) - 1.0
        weights = train_svms(ready(features(labelled["image"][chosen])), signs, rates)
        errors[0, number] = error_rates(weights, validated, jnp.asarray(validation["label"]))
        errors[1, number] = error_rates(weights, judged, jnp.asarray(test["label"]))
    best = int(np.argmin(errors[0].mean(axis=0)))
    return errors[1, :, best], regularizations[best]


@dataclasses.dataclass(frozen=True)
class LinearFeatures:
    """The error of linear classifiers of a few labels on the discriminator's features: ``error``, in per cent.

    Beside it the same of the pixels, and of the features of the same discriminator before it had learnt anything.

    Args:
      per_class: labelled images of each class.
      draws: how many times they are drawn; the error is the mean, its standard error that of the mean over draws.
      regularizations: constants C of the SVM to choose from, of features whose squared norm is 1 in the mean.
      grid: height and width that every map of the discriminator is pooled to.
      labelled: the split that labelled images are drawn from.
      validation: the split that C is chosen on.
      split: the split that is judged.

    References:
      Radford et al. 2016, sections 5.1 and 5.2.
    """

    per_class: int = 100
    draws: int = 10
    regularizations: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    grid: int = 4
    labelled: str = "train[:50000]"
    validation: str = "train[50000:]"
    split: str = "test"

    def __call__(self, run: Run, progress: Progress) -> Mapping[str, float]:
        """``error`` with its standard error and C, of the features, of pixels and of random weights."""
        labelled, validation, test = (load_split(run, split) for split in (self.labelled, self.validation, self.split))
        gan: Any = run.spec
        trained: Any = run.restore("newest")
        untrained = gan_init(gan, named_key(jax.random.key(SEED), "init"), {"image": labelled["image"][:1]})
        ways: dict[str, Features] = {
            "error": self.features_of(gan, trained, labelled["image"]),
            "error of pixels": lambda images: np.asarray(to_float(images)).reshape(len(images), -1),
            "error of random weights": self.features_of(gan, untrained, labelled["image"]),
        }
        values = {}
        for number, (name, features) in enumerate(ways.items()):
            progress(number, len(ways))
            errors, constant = linear_errors(
                features, labelled, validation, test, self.per_class, self.draws, self.regularizations
            )
            mean, error = mean_and_error(errors)
            values[name], values[f"{name}, standard error"] = 100 * mean, 100 * (error or 0.0)
            values[f"{name}, C"] = constant
        progress(len(ways), len(ways))
        return values

    def features_of(self, gan: GAN, state: GANState, images: np.ndarray) -> Features:
        """The function from images [N, ...] to the features [N, D] of a state's discriminator."""
        params = state.discriminator_params
        collections = settle_statistics(gan, params, state.discriminator_collections, images)
        of_batch = jax.jit(partial(discriminator_features, gan, params, collections, grid=self.grid))

        def features(images: np.ndarray) -> np.ndarray:
            starts = range(0, len(images), AT_ONCE)
            return np.concatenate([np.asarray(of_batch(jnp.asarray(images[i : i + AT_ONCE]))) for i in starts])

        return features
