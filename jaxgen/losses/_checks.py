"""Trace-time checks and the one bounded exponential that the losses share."""

import jax
import jax.numpy as jnp

# exp overflows float32 at 88.7. Up to e^50 (5e21) a sum over any number of latent dimensions still fits.
EXPONENT_BOUND = 50.0


def check_float(name: str, array: jax.Array) -> None:
    """Raise TypeError unless ``array`` is floating point."""
    if not jnp.issubdtype(jnp.result_type(array), jnp.floating):
        raise TypeError(
            f"{name} must be floating point, got {jnp.result_type(array)}: convert it, e.g. {name}.astype(jnp.float32)"
        )


def check_same_shape(**arrays: jax.Array) -> None:
    """Raise ValueError unless the named arrays have one shape (nothing is broadcast)."""
    shapes = {name: jnp.shape(array) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"expected one common shape, got {listed}")


def check_batched(name: str, array: jax.Array) -> None:
    """Raise ValueError unless ``array`` has a leading batch axis."""
    if jnp.ndim(array) < 1:
        raise ValueError(f"{name} must have a leading batch axis [B, ...], got a scalar")


def sum_event(array: jax.Array) -> jax.Array:
    """Sum over every axis but the first: [B, ...] -> [B]."""
    return jnp.sum(array, axis=tuple(range(1, array.ndim)))


def bounded_exp(exponent: jax.Array, bound: float = EXPONENT_BOUND) -> jax.Array:
    """exp(x), continued by its tangent above x = bound (50).

    Finite for every finite x of a network, with a gradient that never vanishes, so that a log-variance of
    1e2 costs a lot instead of becoming infinite and is pulled back instead of getting stuck.
    """
    bounded = jnp.minimum(exponent, bound)
    return jnp.exp(bounded) * (1.0 + (exponent - bounded))
