"""What a step needs to mean the same wherever it runs: keys by name and by example, and averaged gradients.

Every random number is a function of (run key, purpose, step, global index of the example), so it does not
depend on how the batch is laid out over devices.
"""

import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

AxisName = str | tuple[str, ...] | None
Tree = TypeVar("Tree")


def check_key(key: jax.Array) -> None:
    """Refuse anything but one typed threefry key.

    Args:
      key: what should be a scalar key of `jax.random.key`.

    Raises:
      TypeError: it is a raw uint32 key, a batch of keys, or of another implementation (whose draws would
        change when batched by vmap).
    """
    remedy = "pass jax.random.key(seed)"
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        given = f"{dtype}{list(key.shape)}" if dtype is not None else type(key).__name__
        raise TypeError(f"key must be a typed JAX key, got {given}: {remedy}")
    if "fry" not in str(dtype):
        raise TypeError(f"key must be of the threefry2x32 implementation, got {dtype}: {remedy}")
    if key.shape != ():
        raise TypeError(f"key must be one key, got an array of keys of shape {list(key.shape)}: {remedy}")


def named_key(key: jax.Array, name: str) -> jax.Array:
    """Derive the key of one purpose, e.g. ``named_key(key, "dropout")``.

    Args:
      key: typed key, [].
      name: the purpose, in words.

    Returns:
      Typed key, []: fold_in(key, CRC-32 of the name).

    Raises:
      TypeError: the key is not one typed threefry key.
    """
    check_key(key)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def step_key(key: jax.Array, name: str, step: jax.Array) -> jax.Array:
    """Derive the key of one step of one purpose, so that callers may pass the run's key at every step.

    Args:
      key: the run's typed key, [].
      name: the purpose, in words.
      step: number of the step, int32 [].

    Returns:
      Typed key, [].

    Raises:
      TypeError: the key is not one typed threefry key.
    """
    return jax.random.fold_in(named_key(key, name), step)


def example_keys(key: jax.Array, batch_size: int, axis_name: AxisName = None) -> jax.Array:
    """One key per example, derived from the example's global index in the batch.

    key_i = fold_in(key, axis_index * batch_size + i)

    Args:
      key: typed key, [].
      batch_size: number of examples on this device, B.
      axis_name: mapped axis or axes over which the global batch is split; None when it is not.

    Returns:
      Typed keys, [B].

    Raises:
      TypeError: the key is not one typed threefry key.
    """
    check_key(key)
    index = jnp.arange(batch_size, dtype=jnp.int32)
    if axis_name is not None:
        index = index + jax.lax.axis_index(axis_name) * batch_size
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def average(tree: Tree, axis_name: AxisName = None) -> Tree:
    """Average every leaf over the mapped axis; the identity when there is none.

    Args:
      tree: arrays of any shape, one value a device.
      axis_name: mapped axis or axes; None for the identity.

    Returns:
      The same tree of averages, alike on every device.
    """
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def _varying_axes(array: jax.Array) -> frozenset[str]:
    """Mesh axes over which `shard_map`'s replication check takes the array to vary."""
    aval: Any = jax.typeof(array)
    manual = getattr(aval, "manual_axis_type", None)  # newer JAX; older has .vma itself
    return frozenset(manual.varying if manual is not None else getattr(aval, "vma", ()))


def _as_varying(tree: Tree, axis_name: AxisName) -> Tree:
    """Mark replicated arrays as differing between devices, where `shard_map` tracks that.

    Under ``shard_map`` with its replication checks on, differentiating by a replicated array already sums
    the gradient over the axis, and an average afterwards would be N times too large. Under ``pmap`` and
    ``vmap`` nothing is tracked, nothing is summed and nothing has to be done.
    """
    names = (axis_name,) if isinstance(axis_name, str) else (axis_name or ())
    tracked = {name for name in names if name in _varying_axes(jax.lax.axis_index(name))}

    def cast(leaf: jax.Array) -> jax.Array:
        missing = tuple(sorted(tracked - _varying_axes(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree)


def value_and_averaged_gradient(
    loss: Callable[[Any], tuple[jax.Array, Any]], params: Any, axis_name: AxisName = None
) -> tuple[tuple[jax.Array, Any], Any]:
    """Differentiate this device's loss and average the gradient over the mapped axis.

    gradient = (1/N) sum_n d loss_n / d params, in every regime: jit, pmap, shard_map, vmap

    Args:
      loss: params -> (loss [], auxiliary output), without any averaging over devices inside.
      params: tree of parameters.
      axis_name: mapped axis or axes; None on one device.

    Returns:
      ((loss of this device [], auxiliary output of this device), averaged gradient like params).
    """
    value, gradient = jax.value_and_grad(loss, has_aux=True)(_as_varying(params, axis_name))
    return value, average(gradient, axis_name)
