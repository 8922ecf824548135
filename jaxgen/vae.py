"""The variational autoencoder: spec, state, init, losses, updates, step, and what to do with a trained one.

Kingma & Welling 2014, "Auto-Encoding Variational Bayes"; several stochastic layers as in Rezende et al. 2014 and
Burda et al. 2016. A VAE of one layer is the tuple of one throughout; only what callers see is then not a tuple. The
prior may be learnt, as in Tomczak & Welling 2018.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.typing
import optax

from jaxgen import batches, losses, modules
from jaxgen._stochastic_layers import (
    Batch,
    Bound,
    Call,
    as_given,
    bound_of,
    check_standard_prior,
    evaluation,
    layers_of,
    likelihood_of,
    named,
    noise_of,
    observe,
    posterior_of,
    prior_latents,
    whitened_means,
)
from jaxgen.keys import AxisName, example_keys, named_key, step_key
from jaxgen.parallel import average, value_and_averaged_gradient
from jaxgen.spec import (
    Schedule,
    check_latents,
    check_number,
    check_spec,
    check_state,
    initial_hyperparams,
    scheduled_hyperparams,
)

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class VAE:
    """What a VAE is: everything static about it. Build it once: a rebuilt spec is compiled again.

    For several stochastic layers, ``encoder``, ``decoder`` and ``latent_dim`` are tuples of one length, index 0 next to
    the data: encoder[l] maps z_l to q(z_{l+1} | z_l) with z_0 = x, decoder[l] maps z_{l+1} to the (mean [B, D_l],
    logvar [B, D_l]) of p(z_l | z_{l+1}), decoder[0] to the likelihood's parameters; the topmost z is N(0, I). With one
    layer it may have a learnt prior, p(z) = (1/K) sum_k q(z | u_k), whose KL is sampled under every objective.

    Args:
      encoder: network (x [B, ...], label=None, *, train) -> (mean [B, D], logvar [B, D]), or with a third array [B, D],
        the direction of a rank-one precision (see `losses.LatentGaussian`).
      decoder: network (z [B, D], label=None, *, train) -> likelihood parameters [B, ...].
      optimizer: optax transformation of encoder and decoder parameters together.
      latent_dim: number of latent dimensions D.
      likelihood: p(x | z), with ``log_prob``, ``mean`` and ``sample``.
      objective: log-weights [K, B] -> lower bound per example [B]; a `losses.Objective` may also say how its gradient
        is estimated. A plain function is given true importance weights.
      num_samples: latent samples per example in training, K.
      beta: weight of the KL of all layers, a number or a schedule of the step; ``state.hyperparams["beta"]``.
      free_bits: least KL that each latent dimension is charged for, in nats, a number or a schedule of the step;
        ``state.hyperparams["free_bits"]``. None for none.
      prior: network (train) -> pseudo-inputs u [K, ...], images whose posteriors are the prior's components, such as
        `networks.VampPrior`; its parameters are ``state.params["prior"]``. None for the standard normal.

    Raises:
      TypeError: a field cannot be hashed or is not what its name says.
      ValueError: a size is below 1, beta or free_bits is negative, the tuples are not of one length, free bits are
        asked for with an objective whose path weights do not allow them, or a prior is learnt with several stochastic
        layers, free bits or conditional networks.

    References:
      Tomczak & Welling 2018, "VAE with a VampPrior", equation 9.
    """

    encoder: Any
    decoder: Any
    optimizer: optax.GradientTransformation
    latent_dim: Any  # a whole number or a tuple of them
    likelihood: losses.Likelihood = losses.bernoulli
    objective: Callable[[jax.Array], jax.Array] = losses.elbo
    num_samples: int = 1
    beta: float | Schedule = 1.0
    free_bits: float | Schedule | None = None
    prior: Any = None

    def __post_init__(self) -> None:
        check_spec(self)
        lengths = {
            name: len(value) if isinstance(value := getattr(self, name), tuple) else None
            for name in ("encoder", "decoder", "latent_dim")
        }
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {'not a tuple' if n is None else n}" for name, n in lengths.items())
            raise ValueError(f"VAE.encoder, decoder and latent_dim must be tuples of one length, or none: got {listed}")
        if isinstance(self.likelihood, type):
            raise TypeError(f"VAE.likelihood is the class {self.likelihood.__name__}: call it, with its options")
        check_number(self, "beta", "at least 0", lambda value: value >= 0)
        check_number(self, "free_bits", "at least 0", lambda value: value >= 0)
        if self.free_bits is not None and getattr(self.objective, "path_weights", None) is not None:
            raise ValueError(
                "VAE.free_bits does not go with an objective that has path_weights (dreg): where a dimension's KL is "
                "replaced by a constant, its gradient would be biased; use iwae, elbo or stl"
            )
        self._check_prior()

    def _check_prior(self) -> None:
        if self.prior is None:
            return
        if not (hasattr(self.prior, "init") and hasattr(self.prior, "apply")):
            raise TypeError(
                f"VAE.prior must be None or a network of pseudo-inputs, got {type(self.prior).__name__}: e.g. "
                "jaxgen.networks.VampPrior(image_shape)"
            )
        if len(layers_of(self, self.latent_dim)) > 1:
            raise ValueError(
                "VAE.prior: a learnt prior is for one stochastic layer, whose encoder takes pseudo-inputs, got "
                f"{len(self.latent_dim)} layers: leave it None"
            )
        if self.free_bits is not None:
            raise ValueError(
                "VAE.free_bits does not go with a learnt prior, whose KL is no sum over latent dimensions: leave out "
                "one of the two"
            )
        if modules.num_classes(*layers_of(self, self.encoder), *layers_of(self, self.decoder)) is not None:
            raise ValueError(
                "VAE.prior: a learnt prior is for networks without labels, as pseudo-inputs have none: leave out "
                "num_classes, or the prior"
            )

    @property
    def hyperparams(self) -> dict[str, float | Schedule | None]:
        """The spec's values of what ``state.hyperparams`` holds, numbers or schedules; None for what it does not."""
        return {"beta": self.beta, "free_bits": self.free_bits}


class VAEState(NamedTuple):
    """Everything that training changes, arrays only.

    Args:
      step: number of steps done, int32 [].
      params: ``{"encoder": ..., "decoder": ...}``, tuples of trees where the spec has tuples of networks, and ``prior``
        where that is learnt.
      collections: mutable collections of the networks, likewise.
      optimizer_state: of ``vae.optimizer``.
      hyperparams: ``beta`` [], ``free_bits`` [] where it is given, and ``latent_mask`` [D] (a tuple where the spec has
        tuples), float32.
    """

    step: jax.Array
    params: dict[str, Any]
    collections: dict[str, Any]
    optimizer_state: Any
    hyperparams: dict[str, Any]


def _check_labels(vae: VAE, label: Any) -> None:
    modules.check_label_range(label, *layers_of(vae, vae.encoder), *layers_of(vae, vae.decoder))


def _select(vae: VAE, batch: Batch) -> Batch:
    """What a compiled function uses of a batch; a concrete label out of range is refused here, outside of it."""
    batch = batches.select(batch)
    _check_labels(vae, batch.get("label"))
    return batch


@functools.partial(jax.jit, static_argnums=0)
def _init(vae: VAE, key: jax.Array, batch: Batch) -> VAEState:
    images, label = batches.read(batch)
    latents = [jnp.zeros((images.shape[0], dim)) for dim in layers_of(vae, vae.latent_dim)]
    params, collections = {}, {}
    for kind, inputs in (("encoder", [images, *latents[:-1]]), ("decoder", latents)):
        made = [
            modules.initialize(network, named_key(key, named(f"vae {kind}", layer)), x, label=label)
            for layer, (network, x) in enumerate(zip(layers_of(vae, getattr(vae, kind)), inputs, strict=True))
        ]
        params[kind] = as_given(vae, [tree for tree, _ in made])
        collections[kind] = as_given(vae, [tree for _, tree in made])
    if vae.prior is not None:
        params["prior"], _ = modules.initialize(vae.prior, named_key(key, "vae prior"))
        shape = jax.eval_shape(lambda: vae.prior.apply({"params": params["prior"]}, train=False)).shape
        if shape[1:] != images.shape[1:]:
            raise ValueError(
                f"pseudo-inputs must have the shape of images, {list(images.shape[1:])}, got {list(shape[1:])}: give "
                "the prior that image_shape"
            )
    state = VAEState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=collections,
        optimizer_state=vae.optimizer.init(params),
        hyperparams=initial_hyperparams(vae.latent_dim, **vae.hyperparams),
    )
    # Traced for its checks of every shape; its result is not used and costs nothing.
    vae_loss(vae, params, state, batch, key)
    return state


def vae_init(vae: VAE, key: jax.Array, batch: Batch) -> VAEState:
    """Initialise the state of a VAE.

    Args:
      vae: the spec.
      key: typed key, [].
      batch: an example batch, ``image`` [B, H, W, C] or [B, D]; its shapes and types are used, not its values.

    Returns:
      The state at step 0.

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: the networks' shapes do not fit the images or each other.
    """
    return _init(vae, key, batches.select(batch))


def vae_loss(
    vae: VAE, params: Any, state: VAEState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[jax.Array, tuple[Metrics, dict[str, Any]]]:
    """The loss of a VAE as a pure function of its parameters.

    loss = -(1/B) sum_b objective(log w_b),
    log w = log p(x | z_1) - beta sum_l [log q(z_l | z_{l-1}) - log p(z_l | z_{l+1})],  z_l = mean + R eps

    With `losses.elbo` the top layer's term is its expectation, KL(q(z_L | z_{L-1}) || N(0, I)): the whole KL where
    there is one layer. A learnt prior's has no closed form: it is sampled there too. Free bits replace the KL of a
    latent dimension whose mean over the global batch is below ``free_bits`` by that number, max(free_bits, mean KL): it
    then has no gradient.

    The gradient of `losses.stl` leaves out the posterior's parameters in log q, that of `losses.dreg` also multiplies
    what flows back through a sample's latents: in both, each log q(z_l | z_{l-1}) still moves with z_{l-1}, and the
    path gradient follows all layers' reparameterised samples, as the joint posterior's reparameterisation requires.

    Meant for ``jax.value_and_grad(..., argnums=1, has_aux=True)``. No gradient is averaged over devices here.

    Args:
      vae: the spec.
      params: of the form of ``state.params``; the state's own are not used.
      state: gives the step, the mutable collections and the hyper-parameters.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: the run's typed key, []; the step's number is folded in here.
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      (loss [] in nats per example, (metrics, mutable collections after the pass)). The metrics are float32 []:
      ``loss``, ``elbo`` (the plain one, whatever the loss), ``reconstruction`` = E log p(x | z), ``kl``.

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit.

    References:
      Kingma & Welling 2014, equation 10; Higgins et al. 2017, "beta-VAE", equation 4; Burda et al. 2016, equation 8;
      Kingma et al. 2016, "Improved Variational Inference with Inverse Autoregressive Flow", equation 16; Roeder et al.
      2017, "Sticking the Landing"; Tucker et al. 2019; Bauer & Mnih 2021, "Generalized Doubly Reparameterized Gradient
      Estimators" (several layers).
    """
    key = step_key(key, "vae step", state.step)
    noise = noise_of(vae, key, "noise", batches.read(batch)[0].shape[0], vae.num_samples, axis_name)
    bound = bound_of(Call(vae, params, state, key, True, axis_name), batch, noise, vae.objective)
    values = vae.objective(bound.log_weights)
    if jnp.shape(values) != bound.kl.shape:
        raise ValueError(
            f"the objective must return one bound per example, {list(bound.kl.shape)}, of log-weights "
            f"{list(bound.log_weights.shape)}, got shape {list(jnp.shape(values))}"
        )
    loss = -jnp.mean(values)
    metrics = {
        "loss": loss,
        "elbo": jnp.mean(bound.reconstruction - bound.kl),
        "reconstruction": jnp.mean(bound.reconstruction),
        "kl": jnp.mean(bound.kl),
    }
    metrics = {name: value.astype(jnp.float32) for name, value in metrics.items()}
    return loss, (metrics, bound.collections)


def vae_update(
    vae: VAE, state: VAEState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[VAEState, Metrics]:
    """Gradient, average over the axis, optimizer: everything of a step but schedules and counting.

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: the run's typed key, [].
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      (state with new parameters, collections and optimizer state, metrics as of `vae_loss` averaged over the axis).

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit.
    """
    (_, (metrics, collections)), gradient = value_and_averaged_gradient(
        lambda params: vae_loss(vae, params, state, batch, key, axis_name), state.params, axis_name
    )
    updates, optimizer_state = vae.optimizer.update(gradient, state.optimizer_state, state.params)
    state = state._replace(
        params=optax.apply_updates(state.params, updates),
        collections=collections,
        optimizer_state=optimizer_state,
    )
    return state, average(metrics, axis_name)


@functools.partial(jax.jit, static_argnums=0, static_argnames="axis_name")
def _step(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, axis_name: AxisName) -> tuple[VAEState, Metrics]:
    hyperparams = scheduled_hyperparams(state.hyperparams, state.step, **vae.hyperparams)
    state, metrics = vae_update(vae, state._replace(hyperparams=hyperparams), batch, key, axis_name)
    return state._replace(step=state.step + 1), metrics


def vae_step(
    vae: VAE, state: VAEState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[VAEState, Metrics]:
    """One training step of a VAE, compiled.

    Args:
      vae: the spec (static).
      state: the state.
      batch: ``image`` [B, H, W, C] or [B, D] (uint8, bool or float), optionally ``label`` int [B]; the rest is ignored.
      key: the run's typed key, []; the same at every step or a fresh one.
      axis_name: mapped axis or axes over which the global batch is split (pmap, shard_map, vmap).

    Returns:
      (new state, metrics: float32 [] averaged over the axis, of the parameters given: ``loss``, ``elbo``,
      ``reconstruction``, ``kl`` in nats per example).

    Raises:
      TypeError: state, key or batch are of the wrong type.
      ValueError: shapes do not fit, the axis is not mapped here, or a concrete label is out of range.

    References:
      Kingma & Welling 2014, algorithm 1.
    """
    check_state(state, VAEState)
    return _step(vae, state, _select(vae, batch), key, axis_name=axis_name)


def _evaluated(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int) -> Bound:
    noise = noise_of(vae, named_key(key, "vae evaluate"), "noise", batches.read(batch)[0].shape[0], num_samples)
    return bound_of(evaluation(vae, state), batch, noise, losses.elbo)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _evaluate(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int) -> Metrics:
    bound = _evaluated(vae, state, batch, key, num_samples)
    return {
        "elbo": bound.reconstruction - bound.kl,
        "reconstruction": bound.reconstruction,
        "kl": bound.kl,
    }


def vae_evaluate(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int = 1) -> dict[str, jax.Array]:
    """The ELBO of each example and its two terms, with the networks in evaluation mode.

    elbo = reconstruction - kl,  reconstruction = (1/K) sum_k log p(x | z_k)

    The KL of the top stochastic layer is in closed form, that of the layers below it and of a learnt prior sampled.

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: typed key, [].
      num_samples: latent samples per example, K.

    Returns:
      ``elbo``, ``reconstruction`` and ``kl`` in nats, each [B].

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit, or num_samples is below 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    return _evaluate(vae, state, _select(vae, batch), key, num_samples)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _latent_kl(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int) -> Any:
    return as_given(vae, _evaluated(vae, state, batch, key, num_samples).latent_kls)


def vae_latent_kl(vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int = 1) -> Any:
    """The KL of each latent dimension of each image: averaged over images, it says which dimensions are used.

    KL_d = E_q[log q(z_d | ...) - log p(z_d | ...)],  sum_d KL_d = ``kl`` of `vae_evaluate` with the same arguments

    The top stochastic layer's is in closed form given a sample of the layer below, that of the layers below is sampled
    and may be negative for an image. A rank-one posterior's shared information is divided between the dimensions as
    `losses.LatentGaussian` says. A dimension whose mean is a hundredth of a nat or less says nothing of the image; a
    masked one is zero.

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: typed key, []; a VAE of one layer draws nothing.
      num_samples: latent samples per example, K.

    Returns:
      Nats, [B, D]; of a VAE with tuples, a tuple of these, one a stochastic layer.

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit, num_samples is below 1, or the prior is learnt: its KL is no sum over dimensions.

    References:
      Hoffman & Johnson 2016, "ELBO surgery: yet another way to carve up the variational evidence lower bound"; Burda et
      al. 2016, on inactive units.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    check_standard_prior(vae, "the KL of each latent dimension")
    return _latent_kl(vae, state, _select(vae, batch), key, num_samples)


class LikelihoodEstimate(NamedTuple):
    """An importance-sampled log-likelihood with what its weights say of its error.

    Args:
      log_likelihood: estimate of log p(x) in nats, [B].
      standard_error: its standard error in nats, [B].
      effective_samples: number of equally weighted samples that would be worth as much, from 1 to K, [B].
    """

    log_likelihood: jax.Array
    standard_error: jax.Array
    effective_samples: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _importance_sampling(
    vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int, chunk_size: int
) -> LikelihoodEstimate:
    batch_size = batches.read(batch)[0].shape[0]
    # The weights are those of p(x, z) / q(z | x), whatever the training's.
    hyperparams = {"beta": jnp.ones(()), "latent_mask": state.hyperparams["latent_mask"]}
    call = evaluation(vae, state._replace(hyperparams=hyperparams))
    keys = [
        example_keys(named_key(key, named("vae log likelihood", layer)), batch_size)
        for layer in range(len(layers_of(vae, vae.latent_dim)))
    ]

    def chunk(carry: tuple[jax.Array, jax.Array], start: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        indices = start + jnp.arange(chunk_size)
        fold = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)), in_axes=(0, None))
        noise = [
            jax.vmap(jax.vmap(lambda k, dim=dim: jax.random.normal(k, (dim,), jnp.float32)))(fold(example, indices))
            for example, dim in zip(keys, layers_of(vae, vae.latent_dim), strict=True)
        ]
        log_weights = bound_of(call, batch, noise, losses.iwae).log_weights
        log_weights = jnp.where((indices < num_samples)[:, None], log_weights, -jnp.inf)
        before, squares = carry
        total = jnp.logaddexp(before, jax.nn.logsumexp(log_weights, axis=0))
        # Squares of the weights' shares of their sum: of differences, which keep their digits at any log p(x).
        squares = jnp.logaddexp(
            squares + 2.0 * (before - total), jax.nn.logsumexp(2.0 * (log_weights - total[None]), axis=0)
        )
        return (total, squares), None

    starts = jnp.arange(0, num_samples, chunk_size)
    nothing = jnp.full((batch_size,), -jnp.inf)
    (total, squares), _ = jax.lax.scan(chunk, (nothing, nothing), starts)
    return LikelihoodEstimate(
        log_likelihood=total - jnp.log(num_samples),
        standard_error=jnp.sqrt(jnp.maximum(jnp.exp(squares) - 1.0 / num_samples, 0.0)),
        effective_samples=jnp.exp(-squares),
    )


def vae_importance_sampling(
    vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int = 5000, chunk_size: int = 100
) -> LikelihoodEstimate:
    """The log-likelihood of each example by importance sampling from the posterior, with its standard error.

    log p(x) ~ log (1/K) sum_k w_k,  w_k = p(x, z_k) / q(z_k | x),  z_k ~ q(z | x)
    error^2 ~ sum_k w_k^2 / (sum_k w_k)^2 - 1/K,  effective samples = (sum_k w_k)^2 / sum_k w_k^2

    A lower bound in expectation that approaches log p(x) as K grows; by half the squared error, about. The error is
    that of the delta method, and is itself estimated from the weights: where few samples are effective (tens, say,
    of thousands), one or two of them carry the sum, the posterior q misses where p(x, z) has its mass, and then the
    estimate is too low by more than the error admits. Draw more samples, or use `vae_annealed_log_likelihood`.

    It is computed in chunks of samples, in evaluation mode, and the draws depend on the key, the example's place in the
    batch and the sample's number only, so that the chunks' size changes the memory it takes and, but for round-off,
    nothing else. The batch may be sharded over devices.

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: typed key, [].
      num_samples: latent samples per example, K.
      chunk_size: samples per example held in memory at a time.

    Returns:
      The estimate, its standard error and the effective samples, each [B]; an error of zero for one sample says
      nothing.

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit, or num_samples or chunk_size is below 1.

    References:
      Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders", equation 8; Kong, Liu & Wong 1994,
      "Sequential Imputations and Bayesian Missing Data Problems" (effective samples); Owen 2013, "Monte Carlo theory,
      methods and examples", chapter 9.
    """
    for name, size in (("num_samples", num_samples), ("chunk_size", chunk_size)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    return _importance_sampling(vae, state, _select(vae, batch), key, num_samples, min(chunk_size, num_samples))


def vae_log_likelihood(
    vae: VAE, state: VAEState, batch: Batch, key: jax.Array, num_samples: int = 5000, chunk_size: int = 100
) -> jax.Array:
    """The log-likelihood of each example, estimated by importance sampling from the posterior, in evaluation mode.

    log p(x) ~ log (1/K) sum_k p(x, z_k) / q(z_k | x),  z_k ~ q(z | x)

    A lower bound in expectation that approaches log p(x) as K grows. It is computed in chunks of samples, and the
    draws depend on the key, the example's place in the batch and the sample's number only, so that the chunks' size
    changes the memory it takes and, but for round-off, nothing else. `vae_importance_sampling` gives its error too.

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: typed key, [].
      num_samples: latent samples per example, K.
      chunk_size: samples per example held in memory at a time.

    Returns:
      log p(x) in nats, [B].

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit, or num_samples or chunk_size is below 1.

    References:
      Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders", equation 8.
    """
    return vae_importance_sampling(vae, state, batch, key, num_samples, chunk_size).log_likelihood


@functools.partial(jax.jit, static_argnums=0)
def _encode_images(vae: VAE, state: VAEState, batch: Batch) -> Any:
    inputs, label = batches.read(batch)
    call = evaluation(vae, state)
    posteriors = []
    for layer in range(len(layers_of(vae, vae.latent_dim))):
        posterior, _ = posterior_of(call, layer, inputs, label)
        # Of a masked dimension the encoder says what its initialisation made it say.
        posteriors.append(tuple(call.masked(layer, array) for array in posterior if array is not None))
        inputs = call.rows(layer, posterior.mean)
    return as_given(vae, posteriors)


def vae_encode(vae: VAE, state: VAEState, batch: Batch) -> Any:
    """The approximate posterior q(z | x) of each image.

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].

    Returns:
      (mean [B, D], logvar [B, D]), and the direction [B, D] where the encoder gives one. Of a VAE with tuples, a tuple
      of these, one a stochastic layer: q(z_1 | x), and q(z_{l+1} | z_l) at the mean of the layer below. All zero
      for masked dimensions, which say nothing of the image.

    Raises:
      TypeError: the batch is of the wrong type.
      ValueError: shapes do not fit.
    """
    return _encode_images(vae, state, _select(vae, batch))


def _generate(
    vae: VAE, state: VAEState, z: jax.Array, label: jax.Array | None, noise: list[jax.Array] | None = None
) -> jax.Array:
    """Mean images of the topmost latents; see `observe`."""
    return vae.likelihood.mean(observe(evaluation(vae, state), z, label, noise))


_decode = functools.partial(jax.jit, static_argnums=0)(_generate)


def vae_decode(vae: VAE, state: VAEState, z: jax.Array, label: jax.typing.ArrayLike | None = None) -> jax.Array:
    """The mean image of each latent of the top stochastic layer; the layers between take their means.

    Args:
      vae: the spec.
      state: the state.
      z: latents, [N, D].
      label: labels for a conditional model, int [N].

    Returns:
      Means of p(x | z), [N, H, W, C], in [0, 1] for image likelihoods.

    Raises:
      TypeError: the labels are not integers.
      ValueError: z is not [N, D], or the labels are not [N], out of range, or missing for a conditional decoder.
    """
    check_latents(z, layers_of(vae, vae.latent_dim)[-1])
    _check_labels(vae, label)
    return _decode(vae, state, z, batches.read_label(label, z.shape[0]))


def _noise_dim(vae: VAE) -> int:
    return sum(layers_of(vae, vae.latent_dim))


@functools.partial(jax.jit, static_argnums=0)
def _decode_noise(vae: VAE, state: VAEState, noise: jax.Array, label: jax.Array | None) -> jax.Array:
    ends = list(itertools.accumulate(layers_of(vae, vae.latent_dim)))
    layers = jnp.split(noise, ends[:-1], axis=1)
    return observe(evaluation(vae, state), layers[-1], label, layers)


def vae_decode_noise(
    vae: VAE, state: VAEState, noise: jax.Array, label: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """The likelihood's parameters as a function of standard normal noise: a VAE of any depth as one decoder.

    z_L = eps_L,  z_l = mean_l(z_{l+1}) + std_l(z_{l+1}) eps_l,  parameters of p(x | z_1),  eps ~ N(0, I)

    The noise of all stochastic layers side by side is a latent with a standard normal prior, so that what is written
    for one decoder (`jaxgen.latents`) holds for every VAE. With one layer it is the latent. Images are
    ``vae.likelihood.mean(parameters)``.

    Args:
      vae: the spec.
      state: the state.
      noise: of all layers, next to the data first, [N, D_1 + ... + D_L].
      label: labels for a conditional model, int [N].

    Returns:
      Parameters of p(x | z_1), [N, ...].

    Raises:
      TypeError: the labels are not integers.
      ValueError: the noise is not [N, D_1 + ... + D_L], the labels do not fit (see `vae_decode`), or the prior is
        learnt: its latents are no function of standard normal noise.

    References:
      Rezende, Mohamed & Wierstra 2014, equations 1 to 4 (deep latent Gaussian models).
    """
    check_standard_prior(vae, "vae_decode_noise")
    check_latents(noise, _noise_dim(vae))
    _check_labels(vae, label)
    return _decode_noise(vae, state, noise, batches.read_label(label, noise.shape[0]))


@functools.partial(jax.jit, static_argnums=0)
def _encode_noise(vae: VAE, state: VAEState, batch: Batch) -> jax.Array:
    images, label = batches.read(batch)
    return jnp.concatenate(whitened_means(evaluation(vae, state), images, label), axis=1)


def vae_encode_noise(vae: VAE, state: VAEState, batch: Batch) -> jax.Array:
    """The noise from which `vae_decode_noise` comes through the posterior means of each image.

    eps_L = mean of q(z_L | ...),  eps_l = (mean of q(z_l | ...) - mean_l(z_{l+1})) / std_l(z_{l+1})

    With one layer these are the posterior means. Zero for masked dimensions.

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].

    Returns:
      Noise of all layers, next to the data first, [B, D_1 + ... + D_L].

    Raises:
      TypeError: the batch is of the wrong type.
      ValueError: shapes do not fit, or the prior is learnt; see `vae_decode_noise`.
    """
    check_standard_prior(vae, "vae_encode_noise")
    return _encode_noise(vae, state, _select(vae, batch))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _sample(vae: VAE, state: VAEState, key: jax.Array, num_samples: int, label: jax.Array | None) -> jax.Array:
    noise = [layer[:, 0] for layer in noise_of(vae, key, "vae sample", num_samples, 1)]
    z = prior_latents(evaluation(vae, state), noise[-1], key, jnp.arange(num_samples))
    return _generate(vae, state, z, label, noise)


def vae_sample(
    vae: VAE, state: VAEState, key: jax.Array, num_samples: int, label: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """Mean images of latents drawn from the prior, layer by layer.

    z_L ~ N(0, I), z_l ~ p(z_l | z_{l+1}), image = E[x | z_1]

    Of a learnt prior, z ~ q(z | u_k) of a pseudo-input u_k drawn uniformly.

    Args:
      vae: the spec.
      state: the state.
      key: typed key, []; image i depends on the key and on i alone.
      num_samples: number of images N.
      label: labels for a conditional model, int [N].

    Returns:
      Images, [N, H, W, C].

    Raises:
      TypeError: the key is not a typed threefry key.
      ValueError: num_samples is below 1, or the labels do not fit; see `vae_decode`.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    _check_labels(vae, label)
    return _sample(vae, state, key, num_samples, batches.read_label(label, num_samples))


@functools.partial(jax.jit, static_argnums=0)
def _reconstruct(vae: VAE, state: VAEState, batch: Batch, key: jax.Array) -> jax.Array:
    images, label = batches.read(batch)
    call = evaluation(vae, state)
    posterior, _ = posterior_of(call, 0, images, label)
    z = posterior.sample(noise_of(vae, key, "vae reconstruct", images.shape[0], 1)[0][:, 0])
    parameters, _ = likelihood_of(call, call.rows(0, z), label)
    return vae.likelihood.mean(parameters)


def vae_reconstruct(vae: VAE, state: VAEState, batch: Batch, key: jax.Array) -> jax.Array:
    """Mean images decoded from a posterior sample of each image, of the stochastic layer next to the data.

    z_1 ~ q(z_1 | x), image = E[x | z_1]

    Args:
      vae: the spec.
      state: the state.
      batch: ``image`` [B, ...], optionally ``label`` [B].
      key: typed key, [].

    Returns:
      Images, [B, H, W, C].

    Raises:
      TypeError: key or batch are of the wrong type.
      ValueError: shapes do not fit.
    """
    return _reconstruct(vae, state, _select(vae, batch), key)
