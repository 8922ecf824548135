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
    """Average every leaf of a tree over the mapped axis or axes, on every device; the identity when there is none."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def _varying_axes(array: jax.Array) -> frozenset[str]:
    """Mesh axes over which `shard_map`'s replication check takes the array to vary."""
    aval: Any = jax.typeof(array)
    manual = getattr(aval, "manual_axis_type", None)  # newer JAX; older has .vma itself
    return frozenset(manual.varying if manual is not None else getattr(aval, "vma", ()))


def as_varying(tree: Tree, axis_name: AxisName) -> Tree:
    """Mark replicated arrays of a tree as differing between devices, where `shard_map` tracks that.

    Under ``shard_map`` with its replication checks on, differentiating by a replicated array already sums
    the gradient over the axis, and an average afterwards would be N times too large. Under ``pmap`` and
    ``vmap`` nothing is tracked, nothing is summed and nothing has to be done.
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

    ``loss`` is params -> (loss [], auxiliary output), without any averaging over devices inside: both are returned as
    they are on this device, with the averaged gradient.
    """
    value, gradient = jax.value_and_grad(loss, has_aux=True)(as_varying(params, axis_name))
    return value, average(gradient, axis_name)


def split_updates(
    batch: Mapping[str, Any], num_updates: int, packing: int, axis_name: AxisName
) -> list[dict[str, Any]]:
    """Divide the global batch between the updates of a step, images that are judged together side by side.

    The global batch of n m b examples, n = num_updates and m = packing, is taken as [n, m, b]: update i sees the rows
    [i], and pack r of it the m examples [i, :, r]. That order is the global batch's wherever its parts lie, so the
    parts are brought together over the axis and each device takes its packs.

    Of this device's part of the batch, arrays [B, ...] by name with B a multiple of n m, each update gets [B / n, ...],
    the m examples of a pack in successive rows.
    """
    if num_updates * packing == 1:
        return [dict(batch)]
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

    ``axes`` are numbers of devices by name, e.g. ``{"data": 4, "model": 2}``; ``devices`` those to use, the first of
    all there are when None.
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
    """Where each array of a state, or of its shapes, lies on a mesh: split over one axis, or on every device.

    Each array is split along its largest dimension that the axis divides: parameters, moments and moving averages
    alike (fully sharded data parallelism). Without that axis in the mesh, everything is on every device. A step on such
    a state begins with `gather_networks`. The tree of `NamedSharding` is for ``jax.device_put`` or ``out_shardings``.
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
    """Bring a sharded state's networks together on every device of the mesh for the time of a step; inside ``jit``.

    That is what fully sharded data parallelism means: the optimizer's moments stay where they are, as `state_shardings`
    places them, and what comes out is put back by ``out_shardings``. Without it, the partitioner splits the networks'
    arithmetic over the axis instead, and XLA then computes wrong gradients of convolutions (seen on the CPU with jax
    0.10 and 0.12).
    """
    networks = {
        name: getattr(state, name)
        for name in state._fields
        if name.endswith(("params", "collections")) and name != "hyperparams"
    }
    everywhere = NamedSharding(mesh, PartitionSpec())
    return state._replace(**jax.lax.with_sharding_constraint(networks, everywhere))
