"""Keys by name, by step and by example.

Every random number is a function of (run key, purpose, step, global index of the example), so it does not
depend on how the batch is laid out over devices.
"""

import zlib

import jax
import jax.numpy as jnp

AxisName = str | tuple[str, ...] | None


def check_key(key: jax.Array) -> None:
    """Refuse anything but one typed threefry key, [], of `jax.random.key`.

    A raw uint32 key and a batch of keys are none; draws by another implementation would change when batched by vmap.
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
    """Derive the key of one purpose, e.g. ``named_key(key, "dropout")``: fold_in(key [], CRC-32 of the name)."""
    check_key(key)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def step_key(key: jax.Array, name: str, step: jax.Array) -> jax.Array:
    """Derive the key [] of one step of one purpose, ``name``, so that callers may pass the run's key at every step."""
    return jax.random.fold_in(named_key(key, name), step)


def check_axis(axis_name: AxisName) -> None:
    """Refuse an axis, or one of several, over which no surrounding pmap, shard_map or vmap maps anything."""
    for name in (axis_name,) if isinstance(axis_name, str) else axis_name or ():
        try:
            jax.lax.axis_size(name)
        except NameError as error:
            mesh = jax.sharding.get_abstract_mesh().axis_names
            raise ValueError(
                f"axis_name={name!r} is no mapped axis here{f', the mesh has {mesh}' if mesh else ''}: give the name "
                "that the surrounding jax.pmap, jax.shard_map or jax.vmap(axis_name=...) has, or None"
            ) from error


def axis_size(axis_name: AxisName) -> int:
    """Number of parts that the global batch is split into: the product of the axes' sizes, 1 without an axis."""
    check_axis(axis_name)
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def numbered_keys(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """One key per number, int32 [N], such as that of an example in the batch: typed keys [N].

    key_i = fold_in(key, n_i),  n the numbers
    """
    check_key(key)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def example_keys(key: jax.Array, batch_size: int, axis_name: AxisName = None) -> jax.Array:
    """One key per example [B], derived from the example's global index in the batch.

    key_i = fold_in(key, axis_index * batch_size + i),  B = batch_size on this device
    """
    check_key(key)
    check_axis(axis_name)
    index = jnp.arange(batch_size, dtype=jnp.int32)
    if axis_name is not None:
        index = index + jax.lax.axis_index(axis_name) * batch_size
    return numbered_keys(key, index)
