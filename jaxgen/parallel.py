"""What a step needs to mean the same wherever it runs: averages and gradients over a mapped axis, and meshes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxgen.keys import AxisName, check_axis

Tree = TypeVar("Tree")


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


def as_varying(tree: Tree, axis_name: AxisName) -> Tree:
    """Mark replicated arrays as differing between devices, where `shard_map` tracks that.

    Under ``shard_map`` with its replication checks on, differentiating by a replicated array already sums
    the gradient over the axis, and an average afterwards would be N times too large. Under ``pmap`` and
    ``vmap`` nothing is tracked, nothing is summed and nothing has to be done.

    Args:
      tree: arrays of any shape.
      axis_name: mapped axis or axes; None for the identity.

    Returns:
      The same values.

    Raises:
      ValueError: the axis is not mapped here.
    """
    check_axis(axis_name)
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
    value, gradient = jax.value_and_grad(loss, has_aux=True)(as_varying(params, axis_name))
    return value, average(gradient, axis_name)


def split_updates(batch: dict[str, Any], num_updates: int, packing: int, axis_name: AxisName) -> list[dict[str, Any]]:
    """Divide the global batch between the updates of a step, images that are judged together side by side.

    The global batch of n m b examples is taken as [n, m, b]: update i sees the rows [i], and pack r of it the m
    examples [i, :, r]. That order is the global batch's wherever its parts lie, so the parts are brought together over
    the axis and each device takes its packs.

    Args:
      batch: arrays [B, ...] by name, this device's part of the batch.
      num_updates: number of updates n.
      packing: number of examples in a pack m.
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      A batch for each update, [B / n, ...], the m examples of a pack in successive rows.

    Raises:
      ValueError: the batch on a device is no multiple of n m, or the axis is not mapped here.
    """
    if num_updates * packing == 1:
        return [batch]
    size = batch["image"].shape[0]
    if size % (num_updates * packing):
        raise ValueError(
            f"a batch of {size} images on a device is no multiple of discriminator_steps * packing = {num_updates} * "
            f"{packing}: give each device a multiple of {num_updates * packing} images"
        )
    packs = size // (num_updates * packing)  # of this device, in each update
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * packs

    def split(leaf: Any) -> jax.Array:
        whole = leaf if axis_name is None else jax.lax.all_gather(leaf, axis_name, tiled=True)
        grid = jnp.reshape(whole, (num_updates, packing, -1, *leaf.shape[1:]))
        mine = jax.lax.dynamic_slice_in_dim(grid, first, packs, axis=2)
        return jnp.swapaxes(mine, 1, 2).reshape(num_updates, packs * packing, *leaf.shape[1:])

    parts = {name: split(jnp.asarray(leaf)) for name, leaf in batch.items()}
    return [{name: leaf[i] for name, leaf in parts.items()} for i in range(num_updates)]


def make_mesh(axes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh whose axes the partitioner handles by itself (``AxisType.Auto``), as the steps need it.

    Args:
      axes: number of devices along each axis, by name, e.g. ``{"data": 4, "model": 2}``.
      devices: the devices to use; the first of all there are when None.

    Returns:
      The mesh.

    Raises:
      ValueError: an axis is empty, or there are fewer devices than the mesh needs.
    """
    devices = jax.devices() if devices is None else list(devices)
    needed = math.prod(axes.values())
    if not axes or any(size < 1 for size in axes.values()):
        raise ValueError(f"a mesh needs at least one axis of at least 1 device, got {dict(axes)}")
    if needed > len(devices):
        raise ValueError(f"a mesh of {dict(axes)} needs {needed} devices, there are {len(devices)}: make it smaller")
    auto = (jax.sharding.AxisType.Auto,) * len(axes)
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=auto, devices=devices[:needed])


def state_shardings(state: Any, mesh: jax.sharding.Mesh, axis: str = "model") -> Any:
    """Where each array of a state lies on a mesh: split over one axis, or on every device where it cannot be.

    Each array is split along its largest dimension that the axis divides: parameters, moments and moving averages
    alike (fully sharded data parallelism). Without that axis in the mesh, everything is on every device. A step on such
    a state begins with `gather_networks`.

    Args:
      state: a state, or its shapes.
      mesh: the mesh.
      axis: the axis over which to split.

    Returns:
      A tree like the state of `NamedSharding`, for ``jax.device_put`` or ``out_shardings``; leaves have any shape.
    """
    size = mesh.shape.get(axis, 1)

    def place(leaf: Any) -> NamedSharding:
        divisible = [d for d, length in enumerate(leaf.shape) if length >= size and length % size == 0]
        if size == 1 or not divisible:
            return NamedSharding(mesh, PartitionSpec())
        largest = max(divisible, key=lambda d: leaf.shape[d])
        return NamedSharding(mesh, PartitionSpec(*(axis if d == largest else None for d in range(len(leaf.shape)))))

    return jax.tree.map(place, state)


def gather_networks(state: Any, mesh: jax.sharding.Mesh) -> Any:
    """Bring a sharded state's networks together on every device for the time of a step; inside ``jit``.

    That is what fully sharded data parallelism means: the optimizer's moments stay where they are, and what comes out
    is put back by ``out_shardings``. Without it, the partitioner splits the networks' arithmetic over the axis instead,
    and XLA then computes wrong gradients of convolutions (seen on the CPU with jax 0.10 and 0.12).

    Args:
      state: a state placed by `state_shardings`, arrays of any shape.
      mesh: the mesh.

    Returns:
      The state, its parameters and mutable collections constrained to be whole on every device.
    """
    networks = {
        name: getattr(state, name)
        for name in state._fields
        if name.endswith(("params", "collections")) and name != "hyperparams"
    }
    everywhere = NamedSharding(mesh, PartitionSpec())
    return state._replace(**jax.lax.with_sharding_constraint(networks, everywhere))
