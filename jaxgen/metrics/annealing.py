"""Annealed importance sampling: log p(x) of any decoder under a stated likelihood, from below and from above."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.batches import to_float
from jaxgen.keys import example_keys, named_key

LogLikelihood = Callable[[jax.Array, Any], jax.Array]

_TARGET_ACCEPTANCE = 0.65  # Neal 2011, section 5.4.4.3: where Hamiltonian trajectories are cheapest
_PILOT_CHAINS = 4
_PILOT_GAIN = 0.1  # change of the step's logarithm for an acceptance that is off by one
_FIRST_STEP = 0.3
_JITTER = 0.2
_STEEPNESS = 4.0  # of the sigmoid, as in Wu et al.


class AnnealedEstimate(NamedTuple):
    """An annealed log-likelihood, with what its chains say of its error.

    Args:
      log_likelihood: estimate of log p(x) in nats, [B].
      standard_error: its standard error from the spread of the chains' weights, in nats, [B]. It cannot exceed 1: close
        to it, one chain has all the weight, and the error is not known.
      acceptance: share of the proposed trajectories that were accepted, in [0, 1], [B].
    """

    log_likelihood: jax.Array
    standard_error: jax.Array
    acceptance: jax.Array


class AnnealedSamples(NamedTuple):
    """Where annealed chains ended, with their weights: weighted samples of the posterior of each image's latents.

    Args:
      latents: the end of each chain, [B, C, D].
      log_weights: logarithms of the importance weights in nats, [B, C]; the mean weight estimates p(x).
      log_likelihood: log p(x | z) in nats, [B, C].
      acceptance: share of the proposed trajectories that were accepted, in [0, 1], [B].
    """

    latents: jax.Array
    log_weights: jax.Array
    log_likelihood: jax.Array
    acceptance: jax.Array


class _Point(NamedTuple):
    """Where the chains of one image are, with what is known there."""

    z: jax.Array  # [C, D]
    log_likelihood: jax.Array  # [C]
    gradient: jax.Array  # of the log-likelihood, [C, D]


def _temperatures(num_temperatures: int) -> list[float]:
    """Inverse temperatures 0 = b_0 < ... < b_T = 1 along a sigmoid, in double precision."""
    ramp = [math.tanh(_STEEPNESS * (t / num_temperatures - 0.5)) for t in range(num_temperatures + 1)]
    return [(value - ramp[0]) / (ramp[-1] - ramp[0]) for value in ramp]


def _look(log_likelihood: LogLikelihood, z: jax.Array, image: Any) -> _Point:
    def total(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = log_likelihood(z, image)
        if values.shape != z.shape[:1]:
            raise ValueError(
                f"log_likelihood must return one value a latent, {list(z.shape[:1])}, got {list(values.shape)}"
            )
        return jnp.sum(values), values

    gradient, values = jax.grad(total, has_aux=True)(z)
    return _Point(z, values.astype(jnp.float32), gradient)


def _hamiltonian(
    log_likelihood: LogLikelihood,
    image: Any,
    point: _Point,
    temperature: jax.Array,
    step_size: jax.Array,
    keys: jax.Array,
    num_leapfrog: int,
) -> tuple[_Point, jax.Array]:
    """One trajectory of each chain, accepted or not: it leaves N(z; 0, I) p(x | z)^b invariant and is reversible."""

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        momentum = jax.random.normal(named_key(key, "momentum"), point.z.shape[1:])
        # Trajectories of one length would come back to where they began in some direction.
        jitter = jax.random.uniform(named_key(key, "jitter"), (), minval=1.0 - _JITTER, maxval=1.0 + _JITTER)
        return momentum, jitter, jax.random.exponential(named_key(key, "accept"))

    momentum, jitter, threshold = jax.vmap(draw)(keys)
    step = (step_size * jitter)[:, None]

    def force(at: _Point) -> jax.Array:
        return temperature * at.gradient - at.z

    def leap(_: jax.Array, carry: tuple[_Point, jax.Array]) -> tuple[_Point, jax.Array]:
        at, p = carry
        at = _look(log_likelihood, at.z + step * p, image)
        return at, p + step * force(at)

    proposal, p = jax.lax.fori_loop(0, num_leapfrog, leap, (point, momentum + 0.5 * step * force(point)))
    p = p - 0.5 * step * force(proposal)
    # Of differences: the energies themselves have lost the digits that decide where they are thousands of nats.
    log_ratio = temperature * (proposal.log_likelihood - point.log_likelihood) + 0.5 * jnp.sum(
        (point.z - proposal.z) * (point.z + proposal.z) + (momentum - p) * (momentum + p), axis=1
    )
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)  # a trajectory that diverged is not accepted
    accepted = -threshold < log_ratio
    chosen = jax.tree.map(
        lambda new, old: jnp.where(jnp.expand_dims(accepted, range(1, old.ndim)), new, old), proposal, point
    )
    return chosen, jnp.exp(jnp.minimum(log_ratio, 0.0))


def _chain_keys(key: jax.Array, num_chains: int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_chains))


def _at(keys: jax.Array, number: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def _spread(image: Any, num: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (num, *leaf.shape)), image)


def _from_prior(keys: jax.Array, latent_dim: int) -> jax.Array:
    return jax.vmap(lambda key: jax.random.normal(named_key(key, "prior"), (latent_dim,)))(keys)


def _pilot(
    log_likelihood: LogLikelihood, image: Any, key: jax.Array, latent_dim: int, betas: list[float], num_leapfrog: int
) -> jax.Array:
    """Step sizes of each temperature between the ends, [T - 1], found on chains that are then forgotten."""
    keys = _chain_keys(key, _PILOT_CHAINS)
    image = _spread(image, _PILOT_CHAINS)

    def transition(carry: tuple[_Point, jax.Array], at: Any) -> tuple[tuple[_Point, jax.Array], jax.Array]:
        (point, log_step), (beta, number) = carry, at
        point, accepted = _hamiltonian(
            log_likelihood, image, point, beta, jnp.exp(log_step), _at(keys, number), num_leapfrog
        )
        changed = log_step + _PILOT_GAIN * (jnp.mean(accepted) - _TARGET_ACCEPTANCE)
        return (point, changed), jnp.exp(log_step)

    inner = (jnp.asarray(betas[1:-1], jnp.float32), jnp.arange(1, len(betas) - 1))
    start = _look(log_likelihood, _from_prior(keys, latent_dim), image)
    _, step_sizes = jax.lax.scan(transition, (start, jnp.log(jnp.float32(_FIRST_STEP))), inner)
    return step_sizes


def _anneal(
    log_likelihood: LogLikelihood,
    image: Any,
    latent: jax.Array | None,
    key: jax.Array,
    latent_dim: int,
    num_chains: int,
    num_temperatures: int,
    num_leapfrog: int,
) -> AnnealedSamples:
    """The chains of one image: upwards from the prior, or downwards from a latent of the posterior."""
    betas = _temperatures(num_temperatures)
    step_sizes = _pilot(log_likelihood, image, named_key(key, "pilot"), latent_dim, betas, num_leapfrog)
    keys = _chain_keys(named_key(key, "forward" if latent is None else "reverse"), num_chains)
    image = _spread(image, num_chains)
    # Weights are sums of (b_{t+1} - b_t) log p(x | z): upwards the z is the one before the step, downwards after it.
    rises = [after - before for before, after in itertools.pairwise(betas)]
    if latent is None:
        z, first, rest = _from_prior(keys, latent_dim), rises[0], rises[1:]
    else:
        z, first, rest = _spread(latent.astype(jnp.float32), num_chains), rises[-1], rises[:-1]
    point = _look(log_likelihood, z, image)
    zeros = jnp.zeros_like(point.log_likelihood)

    def transition(carry: Any, at: Any) -> tuple[Any, None]:
        point, total, lost, accepted = carry
        beta, rise, step_size, number = at
        point, acceptance = _hamiltonian(log_likelihood, image, point, beta, step_size, _at(keys, number), num_leapfrog)
        # Compensated: a plain sum of a thousand terms loses 4e-7 of it, hundredths of a nat for large images.
        term = rise * point.log_likelihood - lost
        increased = total + term
        return (point, increased, (increased - total) - term, accepted + acceptance), None

    inner = (
        jnp.asarray(betas[1:-1], jnp.float32),
        jnp.asarray(rest, jnp.float32),
        step_sizes,
        jnp.arange(1, num_temperatures),
    )
    carry = (point, jnp.float32(first) * point.log_likelihood, zeros, zeros)
    (point, log_weights, _, accepted), _ = jax.lax.scan(transition, carry, inner, reverse=latent is not None)
    acceptance = jnp.mean(accepted) / max(num_temperatures - 1, 1)
    return AnnealedSamples(point.z, log_weights, point.log_likelihood, acceptance)


def _estimate(chains: AnnealedSamples, sign: float) -> AnnealedEstimate:
    """The estimate from each image's weights; of a sign of -1 where it is 1 / w that has the mean 1 / p(x)."""
    num_chains = chains.log_weights.shape[1]
    shares = jax.nn.softmax(sign * chains.log_weights)
    variance = (jnp.sum(jnp.square(shares), axis=1) - 1.0 / num_chains) * num_chains / (num_chains - 1)
    return AnnealedEstimate(
        log_likelihood=sign * (jax.nn.logsumexp(sign * chains.log_weights, axis=1) - jnp.log(num_chains)),
        standard_error=jnp.sqrt(jnp.maximum(variance, 0.0)),
        acceptance=chains.acceptance,
    )


def _run(
    log_likelihood: LogLikelihood,
    images: Any,
    latents: jax.Array | None,
    latent_dim: int,
    key: jax.Array,
    num_chains: int,
    num_temperatures: int,
    num_leapfrog: int,
    chunk_size: int | None,
) -> AnnealedSamples:
    sizes = {
        "latent_dim": latent_dim,
        "num_chains": num_chains,
        "num_temperatures": num_temperatures,
        "num_leapfrog": num_leapfrog,
    }
    for name, size in {**sizes, "chunk_size": 1 if chunk_size is None else chunk_size}.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    leaves = jax.tree.leaves(images)
    lengths = {leaf.shape[0] if jnp.ndim(leaf) else 0 for leaf in leaves}
    if len(lengths) != 1 or min(lengths) < 1:
        raise ValueError(
            f"images must be [B, ...] with B >= 1, got shapes {[list(jnp.shape(leaf)) for leaf in leaves]}"
        )
    num = lengths.pop()
    if latents is not None and latents.shape[0] != num:
        raise ValueError(f"latents must be one for each of the {num} images, [{num}, D], got {list(latents.shape)}")

    def one(of: tuple[Any, jax.Array | None, jax.Array]) -> AnnealedSamples:
        image, latent, example = of
        return _anneal(log_likelihood, image, latent, example, latent_dim, num_chains, num_temperatures, num_leapfrog)

    everything = (images, latents, example_keys(named_key(key, "annealing"), num))
    if chunk_size is None or chunk_size >= num:
        return jax.vmap(one)(everything)
    return jax.lax.map(one, everything, batch_size=chunk_size)


def _check_spread(num_chains: int) -> None:
    if num_chains < 2:
        raise ValueError(f"num_chains must be at least 2, as the error comes from their spread, got {num_chains}")


def _images(images: Any) -> Any:
    """Images as floats, in a tree whose integers (labels) stay what they are."""
    if isinstance(images, dict):
        return {name: to_float(leaf) if name == "image" else jnp.asarray(leaf) for name, leaf in images.items()}
    return to_float(images)


def annealed_importance_sampling(
    log_likelihood: LogLikelihood,
    images: Any,
    latent_dim: int,
    key: jax.Array,
    *,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    num_leapfrog: int = 10,
    chunk_size: int | None = None,
) -> AnnealedEstimate:
    """The log-likelihood of each image under a decoder of standard normal latents, by annealing from the prior.

    log p(x) ~ log (1/C) sum_c w_c,  log w = sum_t (b_{t+1} - b_t) log p(x | z_t),  z_0 ~ N(0, I),
    z_t from z_{t-1} by a step that leaves N(z; 0, I) p(x | z)^b_t invariant,  0 = b_0 < ... < b_T = 1 along a sigmoid

    E w = p(x) whatever the number of temperatures and however badly the steps mix, so that the estimate is a lower
    bound in expectation. It is loose where they do not reach the posterior: see how it grows with ``num_temperatures``,
    and compare with `reverse_annealed_importance_sampling` on simulated data. The decoder need be no VAE's and have no
    encoder; a GAN's generator has a likelihood once a noise around its images is stated.

    A step is a Hamiltonian trajectory with fresh momenta and a Metropolis test. Step sizes are adapted for each image
    towards an acceptance of 0.65 on four pilot chains with random numbers of their own, which then count for nothing:
    the steps of the chains that are weighed do not depend on their own past, and E w = p(x) stays exact. A decoder that
    is not differentiable everywhere (ReLU) costs acceptance only.

    Numbers are drawn from the key and the image's place alone. It is a plain function of arrays: under a caller's
    ``jax.jit`` it is compiled once (`jaxgen.gan_log_likelihood`, `jaxgen.vae_annealed_log_likelihood` are), and images
    may be sharded over devices with ``chunk_size=None``. The time is that of (C + 4) num_temperatures num_leapfrog
    gradients for each image.

    Args:
      log_likelihood: (z [N, D], x [N, ...]) -> log p(x | z) in nats, [N]; differentiable in z, pure.
      images: uint8, bool or float, [B, ...]; or a dict of such arrays [B, ...], ``image`` among them, which is handed
        to the likelihood as it is (with a ``label``, say).
      latent_dim: number of latent dimensions D.
      key: typed key, [].
      num_chains: chains of each image C, at least 2.
      num_temperatures: number of steps from the prior to the posterior T.
      num_leapfrog: gradients of a trajectory.
      chunk_size: images at a time, which bounds the memory; None for all of them.

    References:
      Neal 2001, "Annealed Importance Sampling"; Wu, Burda, Salakhutdinov & Grosse 2017, "On the Quantitative Analysis
      of Decoder-Based Generative Models", sections 2.2 and 3; Neal 2011, "MCMC using Hamiltonian dynamics".
    """
    _check_spread(num_chains)
    options = (num_chains, num_temperatures, num_leapfrog, chunk_size)
    return _estimate(_run(log_likelihood, _images(images), None, latent_dim, key, *options), 1.0)


def annealed_samples(
    log_likelihood: LogLikelihood,
    images: Any,
    latent_dim: int,
    key: jax.Array,
    *,
    num_chains: int = 16,
    num_temperatures: int = 300,
    num_leapfrog: int = 10,
    chunk_size: int | None = None,
) -> AnnealedSamples:
    """Weighted samples of the posterior of each image's latents, by annealing from the prior.

    z_c with weight w_c / sum_c w_c ~ p(z | x) = N(z; 0, I) p(x | z) / p(x)

    The arguments and the chains are those of `annealed_importance_sampling`, ``log_likelihood`` of latents [N, D],
    ``images`` [B, ...], ``latent_dim``, ``num_chains``, ``num_temperatures``, ``num_leapfrog`` and ``chunk_size``: with
    the same key, sizes and images, the chains are the same ones. They begin all over the prior, so that they find
    several modes where one chain would stay in the first. The more temperatures, the more even the weights are.

    References:
      Neal 2001, "Annealed Importance Sampling", section 2.
    """
    options = (num_chains, num_temperatures, num_leapfrog, chunk_size)
    return _run(log_likelihood, _images(images), None, latent_dim, key, *options)


def reverse_annealed_importance_sampling(
    log_likelihood: LogLikelihood,
    images: Any,
    latents: jax.Array,
    key: jax.Array,
    *,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    num_leapfrog: int = 10,
    chunk_size: int | None = None,
) -> AnnealedEstimate:
    """An upper bound in expectation on the log-likelihood of simulated images, by annealing from the posterior.

    log p(x) ~ -log (1/C) sum_c 1 / w_c,  w as in `annealed_importance_sampling` along a chain that runs from z_T, a
    latent of the posterior, down to the prior

    If z ~ N(0, I) and then x ~ p(x | z) were drawn, z is an exact sample of p(z | x), and E[1 / w] = 1 / p(x). Between
    the two estimates on such images lies log p(x): their gap bounds the error of both, and says how far estimates of
    real images by the same settings can be trusted, if the model is like the data. Not for real images: no sample of
    their posterior is to be had. For an image, the step sizes are those of the forward chains with the same key.

    The arguments ``log_likelihood``, ``images`` [B, ...], ``num_chains``, ``num_temperatures``, ``num_leapfrog`` and
    ``chunk_size`` are those of `annealed_importance_sampling`. All chains of an image begin at its ``latents`` [B, D],
    from which it was simulated, so that the standard error does not hold what another latent would have changed: over
    images it averages out.

    References:
      Grosse, Ghahramani & Adams 2015, "Sandwiching the marginal likelihood using bidirectional Monte Carlo"; Wu et al.
      2017, section 3.
    """
    if jnp.ndim(latents) != 2:
        raise ValueError(f"latents must be [B, D], got shape {list(jnp.shape(latents))}")
    _check_spread(num_chains)
    options = (num_chains, num_temperatures, num_leapfrog, chunk_size)
    return _estimate(_run(log_likelihood, _images(images), latents, latents.shape[1], key, *options), -1.0)
