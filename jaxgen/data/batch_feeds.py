"""Where a loop's batches come from: arrays of the whole data set on the device, or on a mesh.

A feed says what the compiled loop is given for a run of steps (`Feed.blocks`), and how it finds the batch of one step
in that (`Feed.batch`). The order of examples is the pure function of `jaxgen.data.order` in every feed.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxgen.data.order import batch_indices


class Feed(Protocol):
    """What a loop asks of its data."""

    def shapes(self) -> Any:
        """What `blocks` gives, or arrays of the same shapes and types, any shapes."""
        ...

    def blocks(self, step: jax.Array, num_steps: int) -> Iterator[tuple[Any, int]]:
        """(arrays on the device, the number of steps they are for), for the steps from ``step`` [] on.

        Those numbers are at least 1 and add up to ``num_steps``; for 0 steps there is one block, of 0 steps.
        """
        ...

    def batch(self, arrays: Any, key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
        """The batch [B, ...] of a step whose block these arrays are, by name; traced."""
        ...

    def close(self) -> None:
        """End what works in the background; the feed can be used again."""
        ...


def batch_at(
    dataset: Mapping[str, jax.Array], key: jax.Array, step: jax.Array, num_examples: int, batch_size: int
) -> dict[str, jax.Array]:
    """The global batch of a step: a pure function of (key, step).

    Args:
      dataset: ``image`` [N, ...] and optionally ``label`` [N], on the device; rows past N are padding.
      key: the run's typed key, [].
      step: number of the step, int32 [].
      num_examples: size of the data set, N.
      batch_size: number of examples, B.

    Returns:
      ``image`` [B, ...] and, where there are labels, ``label`` [B].

    Raises:
      ValueError: the batch size is not positive, or larger than the data set.
    """
    indices = batch_indices(key, step, num_examples, batch_size)
    return {name: array.at[indices].get(mode="promise_in_bounds") for name, array in dataset.items()}


class Share(NamedTuple):
    """Which rows of a data set a process holds: equal contiguous blocks, so that a mesh can hold all of them as one.

    Args:
      process: number of this process, from 0.
      num_processes: number of processes.
      num_blocks: number of devices along the mesh's axis ``data``, over all processes.
    """

    process: int
    num_processes: int
    num_blocks: int

    def padded(self, num_examples: int) -> int:
        """Rows a process's part of the mesh has room for, the padding included (no shapes)."""
        return -(-num_examples // self.num_blocks) * self.num_blocks // self.num_processes

    def rows(self, num_examples: int) -> slice:
        """This process's rows of a data set of so many examples (no shapes)."""
        start = self.process * self.padded(num_examples)
        return slice(min(start, num_examples), min(start + self.padded(num_examples), num_examples))


def split_rows(dataset: Mapping[str, Any], mesh: jax.sharding.Mesh, num_examples: int) -> dict[str, jax.Array]:
    """Put a data set on a mesh, its rows split over the axis ``data``.

    Args:
      dataset: this process's rows: ``image`` [n, ...] and optionally ``label`` [n].
      mesh: the mesh.
      num_examples: size of the whole data set, N.

    Returns:
      Global arrays of N rows, rounded up to a multiple of the axis with zeros: [N', ...].
    """
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    share = Share(jax.process_index(), jax.process_count(), mesh.shape["data"])
    missing = share.padded(num_examples) - len(dataset["image"])
    return {
        name: jax.make_array_from_process_local_data(
            sharding, np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        )
        for name, array in dataset.items()
    }


class Resident:
    """The whole data set on the device, or its rows split over a mesh: every step's batch is gathered there.

    Args:
      dataset: ``image`` [N, ...] and optionally ``label`` [N]; on a mesh this process's rows, `Share.rows` of them.
      batch_size: number of examples in the global batch, B.
      mesh: a mesh with an axis ``data``; None for one device.
      num_examples: size of the whole data set, N.
    """

    def __init__(
        self, dataset: Mapping[str, Any], batch_size: int, mesh: jax.sharding.Mesh | None, num_examples: int
    ) -> None:
        self._arrays = jax.device_put(dict(dataset)) if mesh is None else split_rows(dataset, mesh, num_examples)
        self._batch_size = batch_size
        self._num_examples = num_examples

    def shapes(self) -> Any:
        """The whole data set, [N, ...] by name."""
        return self._arrays

    def blocks(self, step: jax.Array, num_steps: int) -> Iterator[tuple[Any, int]]:
        """The whole data set, for all steps; see `Feed.blocks`."""
        yield self._arrays, num_steps

    def batch(self, arrays: Any, key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
        """The batch of a step, [B, ...] by name; see `Feed.batch`."""
        return batch_at(arrays, key, step, self._num_examples, self._batch_size)

    def close(self) -> None:
        """Nothing to do."""
