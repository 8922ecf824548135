"""What the library computes, a table of programs for `test_as_users_run.py`: every public function once at each size.

A program is a function of arrays. Compiled, it must give what it gives operation by operation.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import augmentation, keys, latents, losses, metrics, networks, platform
from tests import models

# Of a group's largest error over its size, both in the Euclidean norm: round-off of sums of up to 50,000 terms. What is
# wrong in a single one of 50,000 numbers of about one size, by its own size, is 4e-3.
TOLERANCE = 1e-5
# Of a group's size, below which an array is not measured by its own: round-off of larger sums is left in it.
FLOOR = 0.01


class Size(NamedTuple):
    """How large the arrays are: what XLA makes of a program depends on it."""

    batch: int
    side: int
    channels: int
    latent_dim: int
    hidden: int
    width: int
    points: int


SIZES = {"small": Size(6, 4, 1, 3, 16, 4, 24), "usual": Size(64, 28, 1, 20, 500, 64, 64)}


class Program(NamedTuple):
    """A function, its arguments, and how it is looked at.

    Args:
      function: of ``arguments``.
      arguments: trees; the gradient is by all their floating-point leaves.
      gradient: whether there is one.
      jitted: whether users may compile it: what returns Python's numbers compiles its own parts.
      bends: whether it is of a network, whose activations may have bends.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    gradient: bool = True
    jitted: bool = True
    bends: bool = False


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


def uniform(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng((seed, *shape)).uniform(size=shape), jnp.float32)


def whole(*shape: int, below: int = 10) -> jax.Array:
    return jnp.asarray(np.random.default_rng(shape).integers(0, below, shape), jnp.int32)


def key() -> jax.Array:
    return jax.random.key(7)


def _floats(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _with_gradient(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """The function's values, and the gradient of their sum with weights of both signs."""
    leaves, structure = jax.tree.flatten(arguments)
    places = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def of(floats: list[jax.Array]) -> tuple[jax.Array, Any]:
        given = list(leaves)
        for place, leaf in zip(places, floats, strict=True):
            given[place] = leaf
        values = function(*jax.tree.unflatten(structure, given))
        weighted = (jnp.sum(leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)) for leaf in _floats(values))
        return sum(weighted, jnp.float32(0.0)), values

    gradient, values = jax.grad(of, has_aux=True)([leaves[place] for place in places])
    return {"value": values, "gradient": gradient}


def looked_at(program: Program) -> Callable[..., dict[str, Any]]:
    """What is compared: values and, where there is one, the gradient."""
    if program.gradient:
        return functools.partial(_with_gradient, program.function)
    return lambda *arguments: {"value": program.function(*arguments)}


def errors(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    """By name, how far each array is off, of its Euclidean norm, or, of a gradient or state, of `FLOOR` of its group's
    if that is larger, for as many numbers. Numbers that are no floats must be equal.
    """
    found_errors: dict[str, float] = {}
    for group, tree in expected.items():
        named = jax.tree_util.tree_leaves_with_path(tree)
        others = jax.tree.leaves(found[group])
        assert len(named) == len(others)
        right = [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for _, leaf in named]
        floats = [np.ravel(leaf).astype(np.float64) for leaf in right if leaf.dtype.kind == "f"]
        every = np.concatenate([np.zeros(0), *floats])
        squares = np.square(every[np.isfinite(every)])
        floor = 0.0 if group == "value" or not squares.size else FLOOR * float(np.sqrt(np.mean(squares)))
        for (path, _), ours, other in zip(named, right, others, strict=True):
            theirs = np.asarray(jax.random.key_data(other) if is_key(other) else other)
            found_errors[f"{group}{jax.tree_util.keystr(path)}"] = _error(theirs, ours, floor)
    return found_errors


def is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _error(found: np.ndarray, expected: np.ndarray, floor: float) -> float:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return np.inf
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else np.inf
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True):
        return np.inf
    difference = np.linalg.norm(np.ravel(found[finite].astype(np.float64) - expected[finite]))
    size = max(float(np.linalg.norm(expected[finite].astype(np.float64))), floor * np.sqrt(finite.sum()))
    return float(difference / size) if difference else 0.0


def worst(found: dict[str, float]) -> tuple[float, str]:
    """The largest error and its name; NaN is the largest of all."""
    name = max(found, key=lambda n: np.nan_to_num(found[n], nan=np.inf))
    return found[name], name


def error_of(program: Program) -> tuple[float, str]:
    """The worst of a compiled program, against itself uncompiled.

    Where one of a million activations is at its bend, two right programs take different sides, and gradients differ:
    those of networks, and no values, are looked at once more elsewhere, where what is compiled wrongly is wrong again.
    """
    found = _errors_at(program, program.arguments)
    values = {name: error for name, error in found.items() if not name.startswith("gradient")}
    error, where = worst(found)
    if error <= TOLERANCE or not program.bends:
        return error, where
    if values and worst(values)[0] > TOLERANCE:
        return worst(values)

    def elsewhere(leaf: Any) -> Any:
        return 0.97 * leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return worst(_errors_at(program, jax.tree.map(elsewhere, program.arguments)))


def _errors_at(program: Program, arguments: tuple[Any, ...]) -> dict[str, float]:
    function = looked_at(program)
    with jax.disable_jit():
        expected = function(*arguments)
    found = (jax.jit(function) if program.jitted else function)(*arguments)
    return errors(found, expected)


def _logits(size: Size) -> tuple[jax.Array, jax.Array]:
    return 3.0 * normal(size.batch), 3.0 * normal(size.batch, seed=1)


def _images(size: Size, seed: int = 0) -> jax.Array:
    return uniform(size.batch, size.side, size.side, size.channels, seed=seed)


def _label(size: Size) -> jax.Array:
    return whole(size.batch)


def _likelihood(likelihood: Any, size: Size) -> Program:
    images = _images(size)
    given = normal(*images.shape[:-1], likelihood.parameters_per_value * size.channels)

    def of(parameters: jax.Array, images: jax.Array) -> Any:
        drawn = jax.lax.stop_gradient(likelihood.sample(key(), parameters))
        return likelihood.log_prob(parameters, images), likelihood.mean(parameters), drawn

    return Program(of, (given, images))


def _latent_gaussian(size: Size) -> Program:
    shape = (size.batch, size.latent_dim)

    def of(mean: jax.Array, logvar: jax.Array, direction: jax.Array, noise: jax.Array) -> Any:
        both = (losses.LatentGaussian(mean, logvar), losses.LatentGaussian(mean, logvar, direction))
        return [(q.sample(noise), q.whiten(noise), q.log_density(noise), q.log_prob(noise), q.kl()) for q in both]

    return Program(of, tuple(normal(*shape, seed=seed) for seed in range(4)))


def _penalty(penalty: Any, size: Size) -> Program:
    """Of a discriminator of two layers: the gradient of a gradient by its weights."""
    flat = size.side * size.side * size.channels
    first, second = normal(flat, size.hidden) / flat**0.5, normal(size.hidden) / size.hidden**0.5

    def of(first: jax.Array, second: jax.Array, real: jax.Array, fake: jax.Array) -> jax.Array:
        def discriminator(x: jax.Array) -> jax.Array:
            return jax.nn.softplus(x.reshape(x.shape[0], -1) @ first) @ second

        return penalty(discriminator, real, fake, keys.example_keys(key(), size.batch))

    return Program(of, (first, second, _images(size), _images(size, seed=1)))


def _weights(function: Callable[..., Any], size: Size) -> Program:
    return Program(function, (5.0 * normal(8, size.batch),))


def spread(params: Any) -> Any:
    """Parameters with kernels of a spread that keeps signals as they are, N(0, 2 / inputs).

    With the usual 0.02 a generator's images are all but one, and BatchNorm divides round-off by their spread.
    """

    def drawn(path: Any, leaf: jax.Array) -> jax.Array:
        if leaf.ndim < 2:
            return leaf
        return normal(*leaf.shape, seed=len(path)) * (2.0 / (leaf.size // leaf.shape[-1])) ** 0.5

    return jax.tree_util.tree_map_with_path(drawn, params)


def _network(network: Any, *arguments: Any, **options: Any) -> Program:
    """A network's call, with its new statistics, by parameters and inputs; ``train`` where it has one."""
    variables = dict(jax.jit(functools.partial(network.init, **options))(key(), *arguments))
    params = spread(variables.pop("params", {}))

    def of(params: Any, collections: Any, *arguments: Any) -> Any:
        rngs = {"dropout": key()}
        return network.apply({"params": params, **collections}, *arguments, rngs=rngs, mutable=True, **options)

    return Program(of, (params, variables, *arguments), bends=True)


def _generator(make: Callable[..., Any], size: Size, **fields: Any) -> Program:
    network = make((size.side, size.side, size.channels), num_classes=10, **fields)
    return _network(network, normal(_convolved(size), size.latent_dim), whole(_convolved(size)), train=True)


def _bottleneck(*bottlenecks: Any) -> Callable[[Size], Program]:
    """What one bottleneck or several make of as many channels as they want, in training."""

    def of(size: Size) -> Program:
        grid = (_convolved(size), size.side // 2, size.side // 2)
        each = [_network(one, normal(*grid, one.num_inputs), train=True) for one in bottlenecks]
        return Program(
            lambda *given: [one.function(*arguments) for one, arguments in zip(each, given, strict=True)],
            tuple(one.arguments for one in each),
        )

    return of


def _convolved(size: Size) -> int:
    """Images at a time where each costs much."""
    return min(size.batch, 16)


def _seen(make: Callable[..., Any], size: Size, **fields: Any) -> Program:
    images = uniform(_convolved(size), size.side, size.side, size.channels)
    return _network(make(num_classes=10, **fields), images, whole(_convolved(size)), train=True)


def _convolution(function: Callable[..., Any], size: Size, *, strides: tuple[int, int]) -> Program:
    """Three by three, and four by four with strides as a DCGAN's."""
    sides = 3 if strides == (1, 1) else 4
    images = normal(_convolved(size), size.side // 2, size.side // 2, size.width)
    kernel = normal(sides, sides, size.width, size.width) / (sides * size.width**0.5)
    return Program(lambda x, kernel: function(x, kernel, strides), (images, kernel))


def _both_strides(function: Callable[..., Any], size: Size) -> Program:
    one, two = (_convolution(function, size, strides=(s, s)) for s in (1, 2))
    first, second = (program.function for program in (one, two))
    return Program(lambda x, a, b: (first(x, a), second(x, b)), (*one.arguments, two.arguments[1]))


def _decoder(size: Size) -> tuple[Any, Callable[..., jax.Array]]:
    """Parameters, and log p(x | z) of a decoder of two layers."""
    flat = size.side * size.side * size.channels
    weights = (normal(size.latent_dim, size.hidden) / size.latent_dim**0.5, normal(size.hidden, flat) / size.hidden)

    def decode(weights: Any, z: jax.Array, _: Any = None) -> jax.Array:
        first, second = weights
        return jax.nn.sigmoid(jax.nn.softplus(z @ first) @ second).reshape(-1, size.side, size.side, size.channels)

    return weights, decode


def _annealing(function: Callable[..., Any], size: Size, *, given: bool = False) -> Program:
    """A few temperatures: of many, a trajectory accepted here and not there makes two chains of one.

    A standard error is a difference of the chains' weights: it is off by what their logarithms are off, in nats, and is
    compared on their scale.
    """
    weights, decode = _decoder(size)
    num = 4
    options = {"num_chains": 4, "num_temperatures": 5, "num_leapfrog": 3}

    def of(weights: Any, images: jax.Array, z: jax.Array) -> Any:
        def log_likelihood(z: jax.Array, x: jax.Array) -> jax.Array:
            return -0.125 * jnp.sum(jnp.square(x - decode(weights, z)), axis=(1, 2, 3))

        found = function(log_likelihood, images, z if given else size.latent_dim, key(), **options)
        if not isinstance(found, metrics.AnnealedEstimate):
            return found
        return found._replace(standard_error=found.log_likelihood - found.standard_error)

    return Program(of, (weights, _images(size)[:num], normal(num, size.latent_dim)), gradient=False)


def _inversion(size: Size) -> Program:
    weights, decode = _decoder(size)

    def of(weights: Any, images: jax.Array) -> Any:
        decoder = functools.partial(decode, weights)
        return latents.invert(decoder, {"image": images}, key(), size.latent_dim, num_restarts=2, num_steps=10)

    return Program(of, (weights, _images(size)[:4]), gradient=False)


def _completion(size: Size) -> Program:
    """Of an eighth of the pixels: what is accepted is off by as much of itself as the energy is off, in nats."""
    weights, decode = _decoder(size)
    likelihood = losses.gaussian(scale=1.0)
    options: dict[str, Any] = {"likelihood": likelihood, "num_temperatures": 5, "num_leapfrog": 3}

    def of(weights: Any, images: jax.Array, mask: jax.Array) -> Any:
        batch, decoder = {"image": images}, functools.partial(decode, weights)
        drawn = latents.complete(decoder, batch, mask, key(), size.latent_dim, num_samples=2, **options)
        best = latents.complete(
            decoder, batch, mask, key(), size.latent_dim, likelihood=likelihood, num_restarts=2, num_steps=10
        )
        return drawn, best

    return Program(of, (weights, _images(size)[:4], jnp.arange(size.side**2).reshape(size.side, -1) % 8 == 0), False)


def _features(size: Size) -> tuple[jax.Array, jax.Array]:
    return normal(4 * size.points, size.latent_dim), 0.5 + normal(4 * size.points, size.latent_dim, seed=1)


def _ends(size: Size) -> tuple[jax.Array, ...]:
    return normal(size.batch, size.latent_dim), normal(size.batch, size.latent_dim, seed=1), jnp.linspace(0.0, 1.0, 9)


def _mask(size: Size) -> jax.Array:
    return jnp.arange(size.side**2).reshape(size.side, size.side) % 3 > 0


def _alike(size: Size) -> Program:
    """Images that are large enough for structural similarity."""
    images = uniform(_convolved(size), 28, 28, size.channels)
    return Program(metrics.structural_similarity, (images, 0.8 * images + 0.1))


def _shares(size: Size) -> jax.Array:
    return jax.nn.softmax(normal(4 * size.points, 10))


def _moments(size: Size) -> Any:
    return [metrics.moments(features) for features in _features(size)]


def _host(function: Callable[..., Any], *arguments: Any) -> Program:
    """What checks and returns Python's numbers, and compiles its own parts."""
    return Program(lambda *given: jax.tree.map(jnp.asarray, function(*given)), arguments, gradient=False, jitted=False)


def _canary(name: str) -> Program:
    canary = platform.CANARIES[name]()
    return Program(canary.program, canary.arguments, gradient=False)


_OF_LOGITS = [name for name in losses.__all__ if name.endswith("_loss")] + ["optimal_discriminator_logit"]
_OBJECTIVES = ["mean_log_weight", "log_mean_weight", "elbo", "sampled_elbo", "iwae", "stl", "dreg"]
_PENALTIES = {"GradientPenalty": losses.GradientPenalty, "R1": losses.R1, "R2": losses.R2, "DRAGAN": losses.DRAGAN}
_LIKELIHOODS: dict[str, Any] = {
    "Bernoulli": losses.bernoulli,
    "ContinuousBernoulli": losses.continuous_bernoulli,
    "Gaussian": losses.gaussian(scale=0.1),
    "GaussianLearnedVariance": losses.gaussian_learned_variance(),
    "DiscretizedLogistic": losses.discretized_logistic,
    "DiscretizedLogisticMixture": losses.discretized_logistic_mixture(5),
}
# Instances, and other names, of classes in the table.
_ALSO = {
    "bernoulli": "Bernoulli",
    "continuous_bernoulli": "ContinuousBernoulli",
    "gaussian": "Gaussian",
    "gaussian_learned_variance": "GaussianLearnedVariance",
    "discretized_logistic": "DiscretizedLogistic",
    "discretized_logistic_mixture": "DiscretizedLogisticMixture",
}

PROGRAMS: dict[str, Callable[[Size], Program]] = {
    **{
        f"losses.{name}": lambda size, name=name: Program(getattr(losses, name), _logits(size))  # type: ignore[misc]
        for name in _OF_LOGITS
    },
    **{f"losses.{name}": lambda size, name=name: _weights(getattr(losses, name), size) for name in _OBJECTIVES},  # type: ignore[misc]
    "losses.doubly_reparameterized_weights": lambda size: Program(
        losses.doubly_reparameterized_weights, (5.0 * normal(8, size.batch), jnp.float32(0.7))
    ),
    **{f"losses.{name}": lambda size, make=make: _penalty(make(), size) for name, make in _PENALTIES.items()},  # type: ignore[misc]
    **{f"losses.{name}": lambda size, each=each: _likelihood(each, size) for name, each in _LIKELIHOODS.items()},  # type: ignore[misc]
    "losses.feature_distance": lambda size: Program(
        losses.feature_distance,
        (
            [normal(_convolved(size), 7, 7, size.width), normal(_convolved(size), 4, 4, size.width)],
            [normal(_convolved(size), 7, 7, size.width, seed=1), normal(_convolved(size), 4, 4, size.width, seed=1)],
            [uniform(size.width), uniform(size.width, seed=1)],
        ),
    ),
    "losses.absolute_error": lambda size: Program(losses.absolute_error, (_images(size), _images(size, seed=1))),
    "losses.squared_error": lambda size: Program(losses.squared_error, (_images(size), _images(size, seed=1))),
    "losses.lecam_penalty": lambda size: Program(
        losses.lecam_penalty, (*_logits(size), jnp.float32(0.7), jnp.float32(-0.4))
    ),
    "losses.Equivariance": lambda size: Program(
        lambda z, x: losses.Equivariance()(z, x, key()),
        (normal(_convolved(size), size.side // 2, size.side // 2, 4), _images(size)[: _convolved(size)]),
    ),
    "losses.LatentGaussian": _latent_gaussian,
    "losses.gaussian_kl": lambda size: Program(
        losses.gaussian_kl, (*_ends(size)[:2], jnp.ones(size.latent_dim), normal(size.batch, size.latent_dim, seed=2))
    ),
    "metrics.annealed_importance_sampling": lambda size: _annealing(metrics.annealed_importance_sampling, size),
    "metrics.annealed_samples": lambda size: _annealing(metrics.annealed_samples, size),
    "metrics.reverse_annealed_importance_sampling": lambda size: _annealing(
        metrics.reverse_annealed_importance_sampling, size, given=True
    ),
    "metrics.birthday_test": lambda size: Program(metrics.birthday_test, (_images(size), jnp.float32(2.0)), False),
    "metrics.birthday_threshold": lambda size: Program(metrics.birthday_threshold, (_images(size),), False),
    "metrics.classifier_score": lambda size: _host(metrics.classifier_score, _shares(size), key()),
    "metrics.sliced_wasserstein_distance": lambda size: Program(
        lambda real, fake: metrics.sliced_wasserstein_distance(real, fake, key()), _features(size)
    ),
    "metrics.moments": lambda size: _host(metrics.moments, _features(size)[0]),
    "metrics.merge_moments": lambda size: _host(metrics.merge_moments, *_moments(size)),
    "metrics.frechet_distance": lambda size: _host(metrics.frechet_distance, *_moments(size)),
    "metrics.frechet_estimate": lambda size: _host(metrics.frechet_estimate, *_features(size), key()),
    "metrics.kernel_distance": lambda size: _host(
        functools.partial(metrics.kernel_distance, num_subsets=4, subset_size=size.points), *_features(size), key()
    ),
    "metrics.precision_recall": lambda size: _host(metrics.precision_recall, *_features(size)),
    "metrics.nearest_neighbour_distances": lambda size: Program(
        metrics.nearest_neighbour_distances, (_images(size),), False
    ),
    "metrics.sample_diversity": lambda size: Program(
        metrics.sample_diversity, (_images(size), _images(size, seed=1)), False
    ),
    "metrics.active_units": lambda size: Program(metrics.active_units, (0.1 * _features(size)[0],), False),
    "metrics.from_repetitions": lambda size: _host(metrics.from_repetitions, normal(size.batch)),
    "metrics.label_histogram": lambda size: Program(lambda label: metrics.label_histogram(label, 10), (_label(size),)),
    "metrics.histogram_kl": lambda size: Program(metrics.histogram_kl, (_shares(size)[0], _shares(size)[1])),
    "metrics.class_coverage": lambda size: Program(lambda label: metrics.class_coverage(label, 10), (_label(size),)),
    "metrics.stacked_modes": lambda size: Program(metrics.stacked_modes, (whole(size.batch, 3),), False),
    "metrics.code_usage": lambda size: Program(metrics.code_usage, (whole(size.hidden),), False),
    "metrics.gaussian_grid": lambda size: Program(metrics.gaussian_grid, (), False),
    "metrics.gaussian_ring": lambda size: Program(metrics.gaussian_ring, (), False),
    "metrics.mode_coverage": lambda size: Program(
        lambda samples, centers: metrics.mode_coverage(samples, centers, 0.5),
        (3.0 * normal(4 * size.points, 2), metrics.gaussian_grid()),
        False,
    ),
    "metrics.sample_gaussian_mixture": lambda size: Program(
        lambda centers: metrics.sample_gaussian_mixture(key(), size.points, centers, 0.05), (metrics.gaussian_grid(),)
    ),
    "metrics.parzen_log_likelihood": lambda size: _host(
        metrics.parzen_log_likelihood, _images(size), _images(size, seed=1), jnp.float32(0.3)
    ),
    "metrics.parzen_bandwidth": lambda size: _host(metrics.parzen_bandwidth, _images(size), _images(size, seed=1)),
    "metrics.mean_squared_error": lambda size: Program(
        metrics.mean_squared_error, (_images(size), _images(size, seed=1))
    ),
    "metrics.peak_signal_to_noise_ratio": lambda size: Program(
        metrics.peak_signal_to_noise_ratio, (_images(size), _images(size, seed=1))
    ),
    "metrics.structural_similarity": _alike,
    "metrics.nearest_neighbours": lambda size: Program(
        metrics.nearest_neighbours, (_images(size), _images(size, seed=1)), False
    ),
    "networks.Projection": lambda size: _network(
        networks.Projection(10), normal(size.batch, size.hidden), _label(size)
    ),
    "networks.conv": lambda size: _both_strides(networks.conv, size),
    "networks.conv_transpose": lambda size: _both_strides(networks.conv_transpose, size),
    "networks.Conv": lambda size: _network(
        networks.Conv(size.width, (4, 4), (2, 2), spectral_norm=True), _images(size)[:16], train=True
    ),
    "networks.ConvTranspose": lambda size: _network(
        networks.ConvTranspose(size.width, (4, 4), (2, 2)), _images(size)[:16], train=True
    ),
    "networks.ConvDecoder": lambda size: _generator(networks.ConvDecoder, size, width=size.width),
    "networks.ConvEncoder": lambda size: _seen(
        functools.partial(networks.ConvEncoder, size.latent_dim), size, width=size.width
    ),
    "networks.DCGANDiscriminator": lambda size: _seen(
        networks.DCGANDiscriminator,
        size,
        width=size.width,
        spectral_norm=True,
        dropout_rate=0.3,
        minibatch_stddev=True,
    ),
    "networks.DCGANGenerator": lambda size: _generator(networks.DCGANGenerator, size, width=size.width),
    "networks.InfoGANDiscriminator": lambda size: _seen(networks.InfoGANDiscriminator, size, width=size.width),
    "networks.InfoGANGenerator": lambda size: _generator(networks.InfoGANGenerator, size, width=size.width),
    "networks.ResNetDiscriminator": lambda size: _seen(networks.ResNetDiscriminator, size, width=size.width // 2),
    "networks.ResNetGenerator": lambda size: _generator(networks.ResNetGenerator, size, width=size.width // 2),
    "networks.Judgement": lambda size: _network(
        networks.Judgement(10, spectral_norm=True), normal(size.batch, size.hidden), _label(size), train=True
    ),
    "networks.GridGenerator": lambda size: _network(
        networks.GridGenerator((7, 7, 4), size.width // 2, 2, attention=True),
        normal(_convolved(size), size.latent_dim),
        train=True,
    ),
    "networks.GridDiscriminator": lambda size: _network(
        networks.GridDiscriminator(size.width // 2, 1, attention=True), normal(_convolved(size), 7, 7, 4), train=True
    ),
    # Half of the least side it takes, for it has one size.
    "networks.InceptionV3": lambda size: _network(networks.InceptionV3(), uniform(1, 75, 75, 3))._replace(
        gradient=False
    ),
    "networks.VGG16": lambda size: _network(networks.VGG16(), uniform(1, 16, 16, 3))._replace(gradient=False),
    "networks.LeNet": lambda size: _network(networks.LeNet(), uniform(_convolved(size), 28, 28, 1)),
    "networks.BatchNorm": lambda size: _network(
        networks.BatchNorm(num_classes=10), normal(size.batch, 7, 7, size.width), _label(size), train=True
    ),
    "networks.GroupNorm": lambda size: _network(networks.GroupNorm(8), normal(_convolved(size), 7, 7, size.width)),
    "networks.AutoencoderEncoder": lambda size: _network(
        networks.AutoencoderEncoder(6, size.width // 4, (1, 2), middle="attention", projection=True),
        uniform(4, 12, 8, size.channels),
        train=True,
    ),
    "networks.AutoencoderDecoder": lambda size: _network(
        networks.AutoencoderDecoder(size.channels, size.width // 4, (1, 2), middle="attention", projection=True),
        normal(4, 6, 4, 6),
        train=True,
    ),
    "networks.PatchDiscriminator": lambda size: _network(
        networks.PatchDiscriminator(size.width // 2, num_layers=2, normalization="group"),
        uniform(_convolved(size), 28, 28, size.channels),
        train=True,
    ),
    "networks.Dropout": lambda size: _network(networks.Dropout(0.3), normal(size.batch, size.hidden), train=True),
    "networks.MinibatchStandardDeviation": lambda size: _network(
        networks.MinibatchStandardDeviation(), normal(size.batch, 4, 4, size.width)
    ),
    "networks.SpectralNorm": lambda size: _network(
        networks.SpectralNorm(), normal(4, 4, size.width, size.width), train=True
    ),
    "networks.KLBottleneck": _bottleneck(networks.KLBottleneck(4, weight=0.1)),
    "networks.VQBottleneck": _bottleneck(
        networks.VQBottleneck(50, 8),
        networks.VQBottleneck(50, 8, normalized=False, decay=0.9, restart_below=1.0),
        networks.VQBottleneck(50, 8, decay=0.9),
    ),
    "networks.FSQBottleneck": _bottleneck(networks.FSQBottleneck()),
    "networks.LFQBottleneck": _bottleneck(networks.LFQBottleneck(9, temperature=2.0, group_bits=5)),
    "networks.Maxout": lambda size: _network(networks.Maxout(size.hidden, 5), normal(size.batch, size.hidden)),
    "networks.MLPGenerator": lambda size: _generator(
        networks.MLPGenerator, size, hidden=(size.hidden, size.hidden), normalization="batch"
    ),
    "networks.MLPDecoder": lambda size: _generator(networks.MLPDecoder, size, hidden=(size.hidden,)),
    "networks.MLPDiscriminator": lambda size: _seen(
        networks.MLPDiscriminator, size, hidden=(size.hidden, size.hidden), dropout_rate=0.3
    ),
    "networks.MaxoutDiscriminator": lambda size: _seen(
        networks.MaxoutDiscriminator, size, hidden=(size.hidden // 2, size.hidden // 2)
    ),
    "networks.MLPEncoder": lambda size: _seen(
        functools.partial(networks.MLPEncoder, size.latent_dim, covariance="rank_one"), size, hidden=(size.hidden,)
    ),
    "networks.MLPGaussian": lambda size: _network(
        networks.MLPGaussian(size.latent_dim, hidden=(size.hidden,)), normal(size.batch, size.latent_dim), train=True
    ),
    "networks.VampPrior": lambda size: _network(
        networks.VampPrior((size.side, size.side, size.channels), size.batch), train=True
    ),
    "networks.from_nnx": lambda size: _network(
        networks.from_nnx(models.NNXGenerator, size.latent_dim), normal(size.batch, size.latent_dim), train=True
    ),
    "networks.leaky_relu": lambda size: Program(networks.leaky_relu, (normal(size.batch, size.hidden),)),
    "latents.linear_interpolation": lambda size: Program(latents.linear_interpolation, _ends(size)),
    "latents.spherical_interpolation": lambda size: Program(latents.spherical_interpolation, _ends(size)),
    "latents.truncated_normal": lambda size: Program(
        lambda threshold: latents.truncated_normal(key(), size.batch, size.latent_dim, threshold), (jnp.float32(0.7),)
    ),
    "latents.attribute_direction": lambda size: Program(latents.attribute_direction, _features(size)),
    "latents.read_mask": lambda size: Program(
        lambda mask: latents.read_mask(mask, _images(size).shape), (_mask(size),), False
    ),
    "latents.keep_visible": lambda size: Program(
        latents.keep_visible, (_images(size), _mask(size), _images(size, seed=1)), False
    ),
    "latents.invert": _inversion,
    "latents.complete": _completion,
    "augmentation.DiffAugment": lambda size: Program(
        lambda images: augmentation.DiffAugment()(images, keys.example_keys(key(), size.batch), 0.8), (_images(size),)
    ),
    "augmentation.adapt_probability": lambda size: Program(
        lambda p, mean: augmentation.adapt_probability(p, mean, 64), (jnp.float32(0.3), jnp.float32(0.7)), False
    ),
    **{f"platform.{name}": lambda size, name=name: _canary(name) for name in platform.CANARIES},  # type: ignore[misc]
}
# Of programs that are the same at each size.
ONE_SIZE = {
    "metrics.gaussian_grid",
    "metrics.gaussian_ring",
    "networks.InceptionV3",
    "networks.VGG16",
    *(name for name in PROGRAMS if name.startswith("platform.")),
}
# Names under which nothing is computed: tuples of results, types, and pairs of losses, which are in the table one by
# one and whose steps are taken.
NOTHING_COMPUTED = {
    *(f"losses.{name}" for name in ("AdversarialLoss", "Likelihood", "Objective", "PairLoss", "Penalty")),
    *(f"losses.{name}" for name, value in vars(losses).items() if isinstance(value, losses.AdversarialLoss)),
    *(
        f"metrics.{name}"
        for name, value in vars(metrics).items()
        if isinstance(value, type) and value.__mro__[1] is tuple
    ),
    "latents.Completion",
    "latents.Inversion",
    "networks.Bottled",
    "networks.FromNNX",
    "networks.num_halvings",
}
SAME_AS = {f"losses.{name}": f"losses.{other}" for name, other in _ALSO.items()}
