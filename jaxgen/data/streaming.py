"""Batches of a data set that does not fit: read in the background, some steps ahead, by threads of grain.

The steps of a run are cut into blocks of equally many, from step 0 on. A block is read as a whole, in the order that
`jaxgen.data.order` gives, and put on the device by the thread that has read it. What is held is what is in flight: a
few blocks, whatever the size of the data set.
"""

import functools
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxgen.data.order import batch_indices
from jaxgen.data.sources import Source

BLOCK_BYTES = 4 * 2**20  # of a block's images, in a process
BLOCK_EXAMPLES = 4096  # in a block, at most, unless one batch has more
AHEAD_BYTES = 2**28  # of all blocks that are read ahead, but there are always two
MOST_THREADS = 16
_STEPS = 2**31 - 1  # of any run: its step is an int32


class Streamed:
    """A feed of blocks [K, B, ...] of the batches of K steps each; the last block used is kept, others are read ahead.

    Args:
      source: the data set; read by several threads at once.
      key: the run's typed key, [].
      batch_size: number of examples in the global batch, B.
      mesh: a mesh with an axis ``data``, over which each batch is split; every process reads its part. None for one
        device.

    Raises:
      ValueError: the batch size is not positive, or larger than the data set; or it is the keys of a population.
    """

    def __init__(self, source: Source, key: jax.Array, batch_size: int, mesh: jax.sharding.Mesh | None) -> None:
        if key.ndim:
            raise ValueError(
                f"a population of {key.size} members needs its data set on the device, as each member has its own "
                "order of examples: load it instead of streaming it"
            )
        self._source, self._batch_size = source, batch_size
        self._sharding = None if mesh is None else NamedSharding(mesh, PartitionSpec(None, "data"))
        self._columns = slice(0, batch_size) if mesh is None else _own_columns(mesh, batch_size)
        own = max(1, batch_size * source.example_bytes // jax.process_count())  # bytes of a batch in a process
        self._num_steps = max(1, min(BLOCK_BYTES // own, BLOCK_EXAMPLES // max(batch_size, 1)))
        self._threads = min(len(_cores()), MOST_THREADS)
        self._ahead = max(2, min(self._threads + 1, AHEAD_BYTES // (own * self._num_steps)))
        # On the CPU where there is one beside the accelerator: the order is needed where the data are read.
        self._key = jax.device_put(key, _host())
        order = functools.partial(batch_indices, num_examples=source.num_examples, batch_size=batch_size)
        self._order = jax.jit(jax.vmap(order, (None, 0)))
        jax.eval_shape(self._order, key, jax.ShapeDtypeStruct((1,), jnp.int32))  # the batch size is checked here
        self._iterator: Any = None
        self._next = 0  # number of the block that the iterator gives next
        self._block: tuple[int, Any] = (-1, None)  # the last one given

    def shapes(self) -> Any:
        """Shapes and types of a block: ``image`` and ``label`` [K, B, ...], and its first step, int32 []."""
        shape = (self._num_steps, self._batch_size)
        image = jax.ShapeDtypeStruct((*shape, *self._source.image_shape), self._source.image_type)
        labels = {"label": jax.ShapeDtypeStruct(shape, np.int32)} if self._source.labels else {}
        return {"image": image, **labels, "first": jax.ShapeDtypeStruct((), np.int32)}

    def blocks(self, step: jax.Array, num_steps: int) -> Iterator[tuple[Any, int]]:
        """The blocks of some steps; see `jaxgen.data.batch_feeds.Feed.blocks`."""
        position = int(step)
        stop = position + num_steps
        while True:
            number = position // self._num_steps
            now = min(stop, (number + 1) * self._num_steps) - position
            yield self._get(number), now
            position += now
            if position >= stop:
                return

    def batch(self, arrays: Any, key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
        """The batch of a step, [B, ...] by name; see `jaxgen.data.batch_feeds.Feed.batch`."""
        place = step - arrays["first"]
        return {name: array[place] for name, array in arrays.items() if name != "first"}

    def close(self) -> None:
        """End the threads; they finish the blocks that they are reading."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _get(self, number: int) -> Any:
        if number == self._block[0]:
            return self._block[1]
        if self._iterator is None or number != self._next:
            self.close()
            self._iterator = self._start(number)
        self._block = (-1, None)  # if the next one cannot be read, there is none
        try:
            block = next(self._iterator)
        except BaseException:
            self.close()
            raise
        self._next, self._block = number + 1, (number, block)
        return block

    def _start(self, number: int) -> Any:
        try:
            import grain
        except ImportError as error:
            raise ModuleNotFoundError(
                f"{self._source.name}: streaming needs grain, which is not installed ({error}): pip install grain, or "
                "load the data set into the memory (--streaming never)"
            ) from error
        numbers = grain.MapDataset.range(number, _STEPS // self._num_steps)
        options = grain.ReadOptions(num_threads=min(self._threads, self._ahead), prefetch_buffer_size=self._ahead)
        return iter(numbers.map(self._read).to_iter_dataset(options))

    def _read(self, number: int) -> Any:
        first = number * self._num_steps
        steps = np.arange(first, first + self._num_steps, dtype=np.int32)
        places = np.asarray(self._order(self._key, jax.device_put(steps, _host())))[:, self._columns]
        examples = self._source.read(places.reshape(-1).astype(np.int64))
        block = {name: array.reshape(*places.shape, *array.shape[1:]) for name, array in examples.items()}
        return {name: self._place(array) for name, array in block.items()} | {"first": self._place_number(first)}

    def _place(self, array: np.ndarray) -> jax.Array:
        """This process's columns of a block, [K, b, ...], in their place on the device or the mesh, [K, B, ...]."""
        if self._sharding is None:
            return jax.device_put(array)
        start = self._columns.start

        def piece(index: Any) -> np.ndarray:
            low, high, _ = index[1].indices(self._batch_size)
            return array[:, low - start : high - start]

        shape = (array.shape[0], self._batch_size, *array.shape[2:])
        return jax.make_array_from_callback(shape, self._sharding, piece)

    def _place_number(self, number: int) -> jax.Array:
        if self._sharding is None:
            return jax.device_put(np.int32(number))
        everywhere = NamedSharding(self._sharding.mesh, PartitionSpec())
        return jax.make_array_from_callback((), everywhere, lambda _: np.array(number, np.int32))


def _own_columns(mesh: jax.sharding.Mesh, batch_size: int) -> slice:
    """Which part of a batch that is split over a mesh this process's devices need."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    ranges = [index[0].indices(batch_size) for index in indices if index is not None]
    return slice(min(low for low, _, _ in ranges), max(high for _, high, _ in ranges))


def _cores() -> Any:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _host() -> jax.Device:
    """A device of the CPU, or the default one where JAX was told to see no CPU."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]
