"""A VAE's training: init, loss, update and step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxgen import batches, modules
from jaxgen.keys import AxisName, named_key, step_key
from jaxgen.parallel import average, value_and_averaged_gradient
from jaxgen.spec import check_state, initial_hyperparams, optimized, scheduled_hyperparams
from jaxgen.vae.passes import Call, bound_of, noise_of
from jaxgen.vae.spec import VAE, Batch, VAEState, as_given, named, select

Metrics = dict[str, jax.Array]


@functools.partial(jax.jit, static_argnums=0)
def _init(vae: VAE, key: jax.Array, batch: Batch) -> VAEState:
    images, label = batches.read(batch)
    latents = [jnp.zeros((images.shape[0], dim)) for dim in vae.latent_dims]
    params, collections = {}, {}
    for kind, networks, inputs in (
        ("encoder", vae.encoders, [images, *latents[:-1]]),
        ("decoder", vae.decoders, latents),
    ):
        made = [
            modules.initialize(network, named_key(key, named(f"vae {kind}", layer)), x, label=label)
            for layer, (network, x) in enumerate(zip(networks, inputs, strict=True))
        ]
        params[kind] = as_given(vae, [tree for tree, _ in made])
        collections[kind] = as_given(vae, [tree for _, tree in made])
    if vae.prior is not None:
        params["prior"], _ = modules.initialize(vae.prior, named_key(key, "vae prior"))
        shape = jax.eval_shape(lambda: modules.apply(vae.prior, params["prior"], {}, train=False, key=key)[0]).shape
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
    """The state at step 0, from the shapes and types of an example batch, ``image`` [B, H, W, C] or [B, D]."""
    batch = batches.select(batch)
    batches.check_concrete(batch, vae.of_latents)
    return _init(vae, key, batch)


def vae_loss(
    vae: VAE, params: Any, state: VAEState, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[jax.Array, tuple[Metrics, dict[str, Any]]]:
    """The loss of a VAE in nats per example, [], as a pure function of its parameters.

    loss = -(1/B) sum_b objective(log w_b),
    log w = log p(x | z_1) - beta sum_l [log q(z_l | z_{l-1}) - log p(z_l | z_{l+1})],  z_l = mean + R eps

    With `losses.elbo` the top layer's term is its expectation, KL(q(z_L | z_{L-1}) || N(0, I)): the whole KL where
    there is one layer. A learnt prior's has no closed form: it is sampled there too. Free bits replace the KL of a
    latent dimension whose mean over the global batch is below ``free_bits`` by that number, max(free_bits, mean KL): it
    then has no gradient.

    The gradient of `losses.stl` leaves out the posterior's parameters in log q, that of `losses.dreg` also multiplies
    what flows back through a sample's latents: in both, each log q(z_l | z_{l-1}) still moves with z_{l-1}, and the
    path gradient follows all layers' reparameterised samples, as the joint posterior's reparameterisation requires.

    Meant for ``jax.value_and_grad(..., argnums=1, has_aux=True)``: ``params`` are of the form of ``state.params``,
    which are not used. The step's number is folded into the key here. No gradient is averaged over devices here.

    Returns:
      (loss [], (metrics, mutable collections after the pass)). The metrics are float32 []: ``loss``, ``elbo`` (the
      plain one, whatever the loss), ``reconstruction`` = E log p(x | z), ``kl``.

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

    The new state, and metrics as of `vae_loss` averaged over the axis, [].
    """
    (_, (metrics, collections)), gradient = value_and_averaged_gradient(
        lambda params: vae_loss(vae, params, state, batch, key, axis_name), state.params, axis_name
    )
    metrics = average(metrics, axis_name)
    updates, optimizer_state = optimized(vae.optimizer, gradient, state.optimizer_state, state.params, metrics["loss"])
    state = state._replace(
        params=optax.apply_updates(state.params, updates),
        collections=collections,
        optimizer_state=optimizer_state,
    )
    return state, metrics


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

    References:
      Kingma & Welling 2014, algorithm 1.
    """
    check_state(state, VAEState)
    batch = select(vae, batch)
    batches.check_concrete(batch, vae.of_latents)
    return _step(vae, state, batch, key, axis_name=axis_name)
