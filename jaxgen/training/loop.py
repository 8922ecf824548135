"""The training loop: many steps in one compiled program, stopped only where somebody wants to look.

Every chunk, one of a single step too, is the same `fori_loop` with a traced length. Where the chunks end
therefore changes no bit of the run. That also makes watching for numbers that are not finite cheap: a chunk looks once,
at its end, as one that went wrong can be run again in smaller pieces until the step is found.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxgen.data.order import batch_indices
from jaxgen.parallel import gather_networks, state_shardings

Step = Callable[[Any, dict[str, jax.Array], jax.Array], tuple[Any, dict[str, jax.Array]]]
Transform = Callable[[dict[str, jax.Array], jax.Array], dict[str, jax.Array]]


class Totals(NamedTuple):
    """What a loop has counted; saved with the state, so no step is lost.

    Args:
      sums: sum of each metric since the last row of the log, float32 [].
      steps: number of steps in them, int32 [].
      skipped: number of steps skipped since the run began, int32 [].
      finite: whether the sums, and the state after the last chunk, hold no NaN and no infinity, bool [].
    """

    sums: dict[str, Any]
    steps: Any
    skipped: Any
    finite: Any


def all_finite(tree: Any) -> jax.Array:
    """Whether a tree holds no NaN and no infinity.

    Args:
      tree: arrays of any shapes and types; integers and booleans are always finite.

    Returns:
      bool [].
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves], jnp.bool_))


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


class Loop:
    """A compiled loop over a step, fed from a data set held on the device or split over a mesh.

    On a mesh the batch is split over the axis ``data`` and the state over ``model``, by JAX's own partitioner: the
    step, and what it computes, are the same.

    Args:
      step: (state, batch, key) -> (state, metrics).
      dataset: ``image`` [N, ...] and optionally ``label`` [N]; on a mesh of several processes only this process's
        rows, `Share.rows` of them.
      key: the run's typed key, [].
      batch_size: number of examples in the global batch, B.
      transform: (batch, step) -> batch, applied to each batch on the device (dynamic binarisation).
      mesh: a mesh with an axis ``data`` and perhaps an axis ``model``; None for one device.
      num_examples: size of the whole data set, N; that of ``dataset`` when None.
      sentinel: what becomes of numbers that are not finite: ``"watch"`` says so in `Totals.finite`; ``"skip"`` leaves
        out every step whose metrics or new state hold any, and counts it (a look at the whole state a step); ``"off"``.

    Raises:
      ValueError: the batch size is not positive, larger than the data set, or not divisible by the axis ``data``.
    """

    def __init__(
        self,
        step: Step,
        dataset: Mapping[str, Any],
        key: jax.Array,
        batch_size: int,
        transform: Transform | None = None,
        mesh: jax.sharding.Mesh | None = None,
        num_examples: int | None = None,
        sentinel: Literal["watch", "skip", "off"] = "watch",
    ) -> None:
        total = len(dataset["image"]) if num_examples is None else num_examples
        self._mesh = mesh
        self._key = key
        if mesh is None:
            self._dataset = jax.device_put(dict(dataset))
        else:
            if batch_size % mesh.shape["data"]:
                raise ValueError(
                    f"a batch of {batch_size} images cannot be split over the {mesh.shape['data']} devices of "
                    "the mesh's axis data: make it a multiple"
                )
            self._dataset = split_rows(dataset, mesh, total)

        def batch_of(dataset: dict[str, jax.Array], key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
            batch = batch_at(dataset, key, step, total, batch_size)
            if mesh is not None:
                batch = jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec("data")))
            return transform(batch, step) if transform else batch

        def advance(dataset: dict[str, jax.Array], key: jax.Array, state: Any) -> tuple[Any, dict[str, jax.Array]]:
            batch = batch_of(dataset, key, state.step)
            state, metrics = step(state if mesh is None else gather_networks(state, mesh), batch, key)
            return self.place(state), metrics

        def body(dataset: dict[str, jax.Array], key: jax.Array, state: Any, totals: Totals) -> tuple[Any, Totals]:
            new, metrics = advance(dataset, key, state)
            counted: Any = jnp.ones((), jnp.bool_)
            if sentinel == "skip":
                counted = all_finite((new, metrics))
                new, metrics = jax.tree.map(
                    lambda now, before: jnp.where(counted, now, before),
                    (new, metrics),
                    (state._replace(step=new.step), jax.tree.map(jnp.zeros_like, metrics)),
                )
            return new, totals._replace(
                sums=jax.tree.map(jnp.add, totals.sums, metrics),
                steps=totals.steps + counted,
                skipped=totals.skipped + ~counted,
            )

        # The state given is not donated: it is the last good one, should this chunk go wrong.
        @jax.jit
        def run(
            state: Any, totals: Totals, dataset: dict[str, jax.Array], key: jax.Array, num_steps: jax.Array
        ) -> tuple[Any, Totals]:
            state, totals = jax.lax.fori_loop(
                0, num_steps, lambda _, carry: body(dataset, key, *carry), (state, totals)
            )
            finite = jnp.ones((), jnp.bool_) if sentinel == "off" else all_finite((state, totals.sums))
            return state, totals._replace(finite=finite)

        self._batch = jax.jit(batch_of)
        self._advance = advance
        self._run = run

    def zero_totals(self, state: Any) -> Totals:
        """Totals of no steps at all.

        Args:
          state: a state of the run, or its shapes.

        Returns:
          Zeros, float32 [] by metric, and a count of 0.

        Raises:
          ValueError: the batch does not fit the data set, or the state does not fit the step.
        """
        _, metrics = jax.eval_shape(self._advance, self._dataset, self._key, state)
        sums = {name: np.zeros((), np.float32) for name in metrics}
        return self.place_totals(Totals(sums, np.zeros((), np.int32), np.zeros((), np.int32), np.ones((), np.bool_)))

    def place_totals(self, totals: Totals) -> Totals:
        """Put totals on the device, or on every device of the mesh.

        Args:
          totals: sums, float32 [] by metric, and their count.

        Returns:
          The same totals.
        """
        return jax.device_put(totals, None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec()))

    def place(self, state: Any) -> Any:
        """Constrain a state to its place on the mesh; the identity without one. Use it inside ``jit``.

        Args:
          state: a state, arrays of any shape.

        Returns:
          The same state.
        """
        if self._mesh is None:
            return state
        return jax.lax.with_sharding_constraint(state, state_shardings(state, self._mesh))

    def run(self, state: Any, totals: Totals, num_steps: int) -> tuple[Any, Totals]:
        """Train for some steps.

        Args:
          state: the state; its own step says where in the data the run is.
          totals: metrics summed so far.
          num_steps: number of steps, at least 0.

        Returns:
          (state, totals) after those steps; not to be used further when ``totals.finite`` is False.
        """
        return self._run(state, totals, self._dataset, self._key, jnp.asarray(num_steps, jnp.int32))

    def batch(self, step: int) -> dict[str, jax.Array]:
        """The batch of a step, as the step is given it.

        Args:
          step: number of steps done before.

        Returns:
          ``image`` [B, ...] and, where there are labels, ``label`` [B].
        """
        return self._batch(self._dataset, self._key, jnp.asarray(step, jnp.int32))

    def before_the_bad_step(self, state: Any, totals: Totals, num_steps: int) -> tuple[Any, Totals]:
        """Find the first step of a chunk that made a number that is not finite, by halving the chunk.

        The same steps give the same bits, so a chunk that went wrong does so again.

        Args:
          state: the state before the chunk, arrays of any shape.
          totals: the totals before the chunk.
          num_steps: length of the chunk, at least 1.

        Returns:
          (state, totals) just before that step; before the chunk's last step when none goes wrong this time.
        """
        while num_steps > 1:
            half = num_steps // 2
            middle = self.run(state, totals, half)
            if bool(middle[1].finite):
                state, totals = middle
                num_steps -= half
            else:
                num_steps = half
        return state, totals


def next_stop(step: int, last: int, cadences: Sequence[int]) -> int:
    """The next step at which somebody wants to look.

    Args:
      step: number of steps done.
      last: number of steps in all.
      cadences: a stop at every multiple of each.

    Returns:
      The smallest multiple of a cadence above ``step``, at most ``last``.
    """
    return min([last, *((step // every + 1) * every for every in cadences)])


def means(totals: Totals) -> dict[str, float]:
    """Means of the metrics summed since the last row; empty when no step was.

    Args:
      totals: sums, float32 [] by metric, and their count.

    Returns:
      Python floats by metric.
    """
    totals = jax.device_get(totals)
    if int(totals.steps) == 0:
        return {}
    return {name: float(value) / int(totals.steps) for name, value in totals.sums.items()}
