"""Annealed importance sampling: log p(x) of any decoder, from below, and on simulated data from above as well."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.keys import check_key, example_keys, named_key

LogLikelihood = Callable[[jax.Array, Any], jax.Array]

ACCEPTANCE = 0.65  # of the proposals, which the step sizes are adapted to
_PILOT_CHAINS = 4
_FIRST_STEP_SIZE = 0.1
_RATE = 0.1  # at which the logarithm of a step size follows the acceptance
_SHARPNESS = 4.0  # of the sigmoid of temperatures


class AnnealedEstimate(NamedTuple):
    """A log-likelihood by annealed importance sampling, with what its chains say of its error.

    Args:
      log_likelihood: estimate of log p(x) in nats, [B].
      standard_error: from the spread of the chains' weights, in nats, [B].
      effective_chains: number of equally weighted chains that would be worth as much, from 1 to C, [B].
      acceptance: share of the proposals accepted, in [0, 1], [B].
    """

    log_likelihood: jax.Array
    standard_error: jax.Array
    effective_chains: jax.Array
    acceptance: jax.Array


class _Chains(NamedTuple):
    """Where the C chains of one example are."""

    z: jax.Array  # [C, D]
    log_px: jax.Array  # log p(x | z), [C]
    gradient: jax.Array  # of it by z, [C, D]


def annealed_importance_sampling(
    log_likelihood: LogLikelihood,
    examples: Any,
    latent_dim: int,
    key: jax.Array,
    *,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    num_leapfrog: int = 10,
    chunk_size: int = 16,
) -> AnnealedEstimate:
    """Log-likelihood of each example under a decoder with the prior N(0, I), by chains from the prior to the posterior.

    f_t(z) = N(z; 0, I) p(x | z)^(b_t),  b_t from 0 to 1 along a sigmoid
    log w = sum_t (b_t - b_{t-1}) log p(x | z_{t-1}),  z_t ~ Hamiltonian Monte Carlo on f_t from z_{t-1}
    log p(x) ~ log (1/C) sum_c w_c

    exp of it is unbiased, so it is a lower bound in expectation, tight when there are temperatures enough. The step
    size of each temperature is found by a few pilot chains of their own, towards an acceptance of 0.65, and then held:
    a step size that followed the chain itself would bias it.

    Compile it inside a caller's ``jit``. Example i's numbers depend on the key, on i and on the example alone, not on
    the others or on ``chunk_size``.

    Args:
      log_likelihood: (latents [N, D], examples [N, ...]) -> log p(x | z) in nats [N], differentiable by the latents.
      examples: array or tree of arrays [B, ...], such as images.
      latent_dim: number of latent dimensions D.
      key: typed key, [].
      num_chains: chains per example, C.
      num_temperatures: transitions of each chain, T.
      num_leapfrog: leapfrog steps in each, with a gradient each.
      chunk_size: examples in memory at a time.

    Returns:
      The estimates, each [B].

    Raises:
      TypeError: the key is not one typed threefry key.
      ValueError: a number is below 1, or log_likelihood does not return [N].

    References:
      Neal 2001, "Annealed importance sampling", equations 4 to 8; Wu et al. 2017, "On the quantitative analysis of
      decoder-based generative models", section 3; Neal 2011, "MCMC using Hamiltonian dynamics", section 5.3.
    """

    def run(sampler: _Sampler, example_key: jax.Array) -> AnnealedEstimate:
        step_sizes = sampler.pilot(example_key)
        chains = sampler.begin(named_key(example_key, "begin"), num_chains)
        log_weights, accepted = sampler.anneal(named_key(example_key, "forward"), chains, step_sizes)
        return _estimate(log_weights, accepted, 1.0)

    return _each(
        run, log_likelihood, examples, (), latent_dim, key, num_chains, num_temperatures, num_leapfrog, chunk_size
    )


def reverse_annealed_importance_sampling(
    log_likelihood: LogLikelihood,
    examples: Any,
    latents: jax.Array,
    key: jax.Array,
    *,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    num_leapfrog: int = 10,
    chunk_size: int = 16,
) -> AnnealedEstimate:
    """Log-likelihood of simulated examples from above, by the chains of `annealed_importance_sampling` backwards.

    log w = sum_t (b_t - b_{t-1}) log p(x | z_{t-1}),  z_{t-1} ~ Hamiltonian Monte Carlo on f_t from z_t
    log p(x) ~ -log (1/C) sum_c 1 / w_c

    All chains of an example begin at the latents that made it, an exact sample of its posterior: so exp of minus it is
    unbiased, and it is an upper bound in expectation. With the same key the step sizes are those of the forward
    chains. On data that a model itself made (z ~ N(0, I), x ~ p(x | z)) the two hold log p(x) between them, and how
    far they are apart says how far the forward estimate of other data may be off.

    Args:
      log_likelihood: (latents [N, D], examples [N, ...]) -> log p(x | z) in nats [N], differentiable by the latents.
      examples: array or tree of arrays [B, ...], made from the latents.
      latents: what they were made from, [B, D].
      key: typed key, [].
      num_chains: chains per example, C.
      num_temperatures: transitions of each chain, T.
      num_leapfrog: leapfrog steps in each, with a gradient each.
      chunk_size: examples in memory at a time.

    Returns:
      The estimates, each [B].

    Raises:
      TypeError: the key is not one typed threefry key.
      ValueError: a number is below 1, the latents are not [B, D], or log_likelihood does not return [N].

    References:
      Grosse, Ghahramani & Adams 2015, "Sandwiching the marginal likelihood using bidirectional Monte Carlo".
    """
    num = jax.tree.leaves(examples)[0].shape[0]
    if latents.ndim != 2 or latents.shape[0] != num:
        raise ValueError(f"latents must be [{num}, D], one for each example, got shape {list(latents.shape)}")

    def run(sampler: _Sampler, example_key: jax.Array, z: jax.Array) -> AnnealedEstimate:
        step_sizes = sampler.pilot(example_key)
        chains = sampler.at(jnp.broadcast_to(z, (num_chains, *z.shape)))
        log_weights, accepted = sampler.anneal(named_key(example_key, "reverse"), chains, step_sizes, reverse=True)
        return _estimate(-log_weights, accepted, -1.0)

    dim = latents.shape[1]
    return _each(
        run, log_likelihood, examples, (latents,), dim, key, num_chains, num_temperatures, num_leapfrog, chunk_size
    )


def _each(
    run: Callable[..., AnnealedEstimate],
    log_likelihood: LogLikelihood,
    examples: Any,
    others: tuple[jax.Array, ...],
    latent_dim: int,
    key: jax.Array,
    num_chains: int,
    num_temperatures: int,
    num_leapfrog: int,
    chunk_size: int,
) -> AnnealedEstimate:
    """Run the chains of every example, so many examples at a time."""
    check_key(key)
    sizes = {
        "latent_dim": latent_dim,
        "num_chains": num_chains,
        "num_temperatures": num_temperatures,
        "num_leapfrog": num_leapfrog,
        "chunk_size": chunk_size,
    }
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    num = jax.tree.leaves(examples)[0].shape[0]
    keys = example_keys(named_key(key, "annealing"), num)

    def one(inputs: Any) -> AnnealedEstimate:
        example, example_key, *rest = inputs
        sampler = _Sampler(log_likelihood, example, latent_dim, num_temperatures, num_leapfrog)
        return run(sampler, example_key, *rest)

    # Chunks of one size, the last filled up: one program runs them all.
    num_chunks = -(-num // chunk_size)
    size = -(-num // num_chunks)

    def split(x: jax.Array) -> jax.Array:
        places = jnp.minimum(jnp.arange(num_chunks * size), num - 1)
        return x[places].reshape(num_chunks, size, *x.shape[1:])

    found = jax.lax.map(jax.vmap(one), jax.tree.map(split, (examples, keys, *others)))
    return jax.tree.map(lambda x: x.reshape(-1)[:num], found)


def _estimate(log_weights: jax.Array, accepted: jax.Array, sign: float) -> AnnealedEstimate:
    """From the chains' log-weights [C] of p(x) (sign 1) or of 1 / p(x) (sign -1)."""
    num = log_weights.shape[0]
    total = jax.nn.logsumexp(log_weights)
    squares = jnp.exp(jax.nn.logsumexp(2.0 * (log_weights - total)))
    return AnnealedEstimate(
        log_likelihood=sign * (total - jnp.log(num)),
        standard_error=jnp.sqrt(jnp.maximum(squares - 1.0 / num, 0.0)),
        effective_chains=1.0 / squares,
        acceptance=accepted,
    )


class _Sampler:
    """The chains of one example."""

    def __init__(
        self, log_likelihood: LogLikelihood, example: Any, latent_dim: int, num_temperatures: int, num_leapfrog: int
    ) -> None:
        self._log_likelihood, self._example, self._latent_dim = log_likelihood, example, latent_dim
        self._num_leapfrog = num_leapfrog
        sigmoid = jax.nn.sigmoid(_SHARPNESS * jnp.linspace(-1.0, 1.0, num_temperatures + 1))
        self._inverse_temperatures = (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])

    def at(self, z: jax.Array) -> _Chains:
        """The chains at latents [C, D]."""
        examples = jax.tree.map(lambda x: jnp.broadcast_to(x, (z.shape[0], *x.shape)), self._example)

        def total(z: jax.Array) -> tuple[jax.Array, jax.Array]:
            log_px = self._log_likelihood(z, examples)
            if log_px.shape != z.shape[:1]:
                raise ValueError(f"log_likelihood must return {list(z.shape[:1])}, got shape {list(log_px.shape)}")
            return jnp.sum(log_px), log_px

        gradient, log_px = jax.grad(total, has_aux=True)(z)
        return _Chains(z, log_px, gradient)

    def begin(self, key: jax.Array, num_chains: int) -> _Chains:
        """Chains at samples of the prior."""
        return self.at(self._normal(key, num_chains))

    def _normal(self, key: jax.Array, num_chains: int) -> jax.Array:
        return jax.random.normal(key, (num_chains, self._latent_dim), jnp.float32)

    def _move(
        self, key: jax.Array, chains: _Chains, temperature: jax.Array, step_size: jax.Array
    ) -> tuple[_Chains, jax.Array]:
        """A transition that leaves f_t as it is, and whether each chain accepted it, [C]."""
        momentum_key, accept_key = jax.random.split(key)
        momentum = self._normal(momentum_key, chains.z.shape[0])

        def force(chains: _Chains) -> jax.Array:
            return temperature * chains.gradient - chains.z

        def energy(chains: _Chains, momentum: jax.Array) -> jax.Array:
            squares = jnp.sum(jnp.square(chains.z) + jnp.square(momentum), axis=1)
            return 0.5 * squares - temperature * chains.log_px

        def leap(_: jax.Array, carry: tuple[_Chains, jax.Array]) -> tuple[_Chains, jax.Array]:
            there, momentum = carry
            momentum = momentum + 0.5 * step_size * force(there)
            there = self.at(there.z + step_size * momentum)
            return there, momentum + 0.5 * step_size * force(there)

        there, after = jax.lax.fori_loop(0, self._num_leapfrog, leap, (chains, momentum))
        log_uniform = jnp.log1p(-jax.random.uniform(accept_key, chains.log_px.shape))  # of (0, 1]
        # A trajectory that has left the numbers is no state to be in: the comparison with NaN is false.
        accepted = log_uniform < energy(chains, momentum) - energy(there, after)

        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(choose, there, chains), accepted

    def pilot(self, key: jax.Array) -> jax.Array:
        """A step size for each temperature, [T], from chains that are used for nothing else."""
        key = named_key(key, "pilot")

        def body(carry: tuple[_Chains, jax.Array], t: jax.Array) -> tuple[tuple[_Chains, jax.Array], jax.Array]:
            chains, log_size = carry
            temperature = self._inverse_temperatures[t + 1]
            chains, accepted = self._move(jax.random.fold_in(key, t), chains, temperature, jnp.exp(log_size))
            following = log_size + _RATE * (jnp.mean(accepted) - ACCEPTANCE)
            return (chains, following), jnp.exp(log_size)

        chains = self.begin(named_key(key, "begin"), _PILOT_CHAINS)
        steps = jnp.arange(self._inverse_temperatures.shape[0] - 1)
        _, step_sizes = jax.lax.scan(body, (chains, jnp.log(_FIRST_STEP_SIZE)), steps)
        return step_sizes

    def anneal(
        self, key: jax.Array, chains: _Chains, step_sizes: jax.Array, reverse: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """(log w of each chain [C], share of proposals accepted []), from the prior, or backwards to it."""

        def body(carry: tuple[_Chains, jax.Array], t: jax.Array) -> tuple[tuple[_Chains, jax.Array], jax.Array]:
            chains, log_weights = carry
            gain = self._inverse_temperatures[t + 1] - self._inverse_temperatures[t]
            if not reverse:
                log_weights = log_weights + gain * chains.log_px
            temperature, size = self._inverse_temperatures[t + 1], step_sizes[t]
            chains, accepted = self._move(jax.random.fold_in(key, t), chains, temperature, size)
            if reverse:
                log_weights = log_weights + gain * chains.log_px
            return (chains, log_weights), jnp.mean(accepted, dtype=jnp.float32)

        steps = jnp.arange(step_sizes.shape[0])
        start = (chains, jnp.zeros(chains.z.shape[0]))
        (_, log_weights), accepted = jax.lax.scan(body, start, steps, reverse=reverse)
        return log_weights, jnp.mean(accepted)
