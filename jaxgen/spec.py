"""What the two specs share: checks of their fields, and their dynamic hyper-parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxgen import intervals, modules

_NETWORKS = ("generator", "discriminator", "encoder", "bottleneck", "decoder")
# Of a field that came after runs had been saved without it: plain data say nothing of it where it has its default.
LATER = {"later": True}
Schedule = Callable[[jax.Array], jax.Array]


def _each(spec: Any, name: str) -> tuple[Any, ...]:
    """What a field holds: one thing, or where the spec has stochastic layers, what its property of them says."""
    return getattr(spec, f"{name}s", (getattr(spec, name),))


def check_spec(spec: Any) -> None:
    """Check a spec as it is built: hashable, with networks and optimizers that are some, numbers in their intervals."""
    kind = type(spec).__name__
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        try:
            hash(value)
        except TypeError as error:
            raise TypeError(
                f"{kind}.{field.name} must be hashable, as the compiled step is looked up by it, got "
                f"{type(value).__name__} ({str(error).splitlines()[0]}): use tuples for lists and module-level "
                "functions for closures"
            ) from error
        if value is None and field.default is None:
            continue
        for one in value if isinstance(value, tuple) else (value,):
            modules.check_instance(f"{kind}.{field.name}", one)
        if field.name.endswith("optimizer"):
            _check_optimizer(f"{kind}.{field.name}", value)
        for network in _each(spec, field.name) if field.name in _NETWORKS else ():
            if not (hasattr(network, "init") and hasattr(network, "apply")):
                raise TypeError(
                    f"{kind}.{field.name} must be a network with Flax Linen's init and apply, got "
                    f"{type(network).__name__}: e.g. jaxgen.networks.MLP{field.name.capitalize()}(...)"
                )
            modules.check_call(f"{kind}.{field.name}", network)
    intervals.check(spec)


_LINE_SEARCH = (
    "a line search, which would take the loss again: use a learning rate, e.g. optax.adam(1e-3) or optax.lbfgs(1e-2, "
    "linesearch=None)"
)
# States of what a step has not got all for, and what to use in its place.
_UNFIT: dict[type, str] = {
    optax.ScaleByBacktrackingLinesearchState: _LINE_SEARCH,
    optax.ScaleByZoomLinesearchState: _LINE_SEARCH,
    optax.LookaheadState: "optax.lookahead, whose parameters are a pair of its own: use the optimizer inside it alone",
}


def _check_optimizer(name: str, optimizer: Any) -> None:
    """Refuse what is no optax transformation, or one that a step has not got all for."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"{name} must be an optax transformation, got {shown(optimizer)}: e.g. optax.adam(1e-3)")
    tiny = {part: jax.ShapeDtypeStruct((1,), jnp.float32) for part in ("encoder", "decoder")}
    try:
        state = jax.eval_shape(optimizer.init, tiny)
    except Exception:  # made for parameters of other names: a step will say what does not fit
        return
    for part in jax.tree.leaves(state, is_leaf=lambda part: type(part) in _UNFIT):
        if type(part) in _UNFIT:
            raise ValueError(f"{name} holds {_UNFIT[type(part)]}")


def optimized(optimizer: Any, gradient: Any, state: Any, params: Any, value: jax.Array) -> tuple[Any, Any]:
    """An optimizer's update, told the loss where it takes such things: (updates, new state).

    Args:
      optimizer: an optax transformation.
      gradient: tree of arrays of any shapes.
      state: the optimizer's.
      params: parameters like the gradient.
      value: the loss over the global batch, [].
    """
    extra = modules.taken(optimizer.update, {"value": value})
    return optimizer.update(gradient, state, params, **extra)


def shown(value: Any) -> str:
    """What was given, of any shape, in a few words: a function or a class by its name."""
    name = getattr(value, "__name__", None)
    return " ".join(repr(value).split())[:80] if name is None else f"the {type(value).__name__} {name}"


def names_in(module: Any, holds: Callable[[str, Any], bool]) -> str:
    """The public names of a module whose (name, value) are such, in a row; no arrays of any shape are involved."""
    return ", ".join(sorted(n for n, value in vars(module).items() if not n.startswith("_") and holds(n, value)))


def check_state(state: Any, kind: type) -> None:
    """Raise TypeError unless ``state`` is of the family's own kind of NamedTuple."""
    if not isinstance(state, kind):
        raise TypeError(
            f"state must be a {kind.__name__}, got {type(state).__name__}: pass what the init or the step of the same "
            "family returned"
        )


def initial_hyperparams(latent_dim: int | tuple[int, ...] | None, **values: float | Schedule | None) -> dict[str, Any]:
    """The dynamic part of a spec, as arrays: float32 scalars [] by name, and ``latent_mask`` [D], all ones.

    The mask is 1 for the dimensions in use; a tuple when ``latent_dim`` is one, with that of each stochastic layer;
    left out when it is None. The ``values`` are numbers, or schedules (evaluated at step 0); None leaves the name out.
    """
    zero = jnp.zeros((), jnp.int32)
    scalars = {
        name: jnp.asarray(value(zero) if callable(value) else value, jnp.float32)
        for name, value in values.items()
        if value is not None
    }
    if latent_dim is None:
        return scalars
    return {**scalars, "latent_mask": jax.tree.map(lambda dim: jnp.ones((dim,), jnp.float32), latent_dim)}


def scheduled_hyperparams(
    hyperparams: dict[str, Any], step: jax.Array, **values: float | Schedule | None
) -> dict[str, Any]:
    """Write this step's value of every schedule, the step int32 []; what is not scheduled stays as it is in the state.

    ``hyperparams`` are the state's, and ``values`` the spec's fields: numbers (ignored) or schedules.
    """
    scheduled = {name: jnp.asarray(value(step), jnp.float32) for name, value in values.items() if callable(value)}
    return {**hyperparams, **scheduled}


def check_latents(z: jax.Array, latent_dim: int) -> None:
    """Raise ValueError unless ``z`` is [N, latent_dim]."""
    if z.ndim != 2 or z.shape[1] != latent_dim:
        raise ValueError(f"latents must be [N, {latent_dim}], got shape {list(z.shape)}")


def check_observation_noise(likelihood: Any) -> None:
    """Refuse a likelihood that is no noise around mean images, such as a Bernoulli, which would take them for logits.

    It should have ``log_prob(means, x)`` and ``sample(key, means)``, where the means [B, ...] are those of what it
    draws.
    """
    with jax.ensure_compile_time_eval():
        means = jnp.array([[0.25, 0.75]])
        takes_means = (
            hasattr(likelihood, "mean")
            and getattr(likelihood, "parameters_per_value", 1) == 1
            and bool(jnp.array_equal(likelihood.mean(means), means))
        )
    if not takes_means:
        raise TypeError(
            f"the observation noise must be a likelihood whose parameters are mean images, got {likelihood!r}: e.g. "
            "losses.gaussian(scale=0.1)"
        )
