"""The training loop: many steps in one compiled program, stopped only where somebody wants to look.

Every chunk, one of a single step too, is the same `fori_loop` with a traced length. Where the chunks end
therefore changes no bit of the run. That also makes watching for numbers that are not finite cheap: a chunk looks once,
at its end, as one that went wrong can be run again in smaller pieces until the step is found.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxgen.data.batch_feeds import Feed, Resident
from jaxgen.data.sources import Source
from jaxgen.data.streaming import Streamed
from jaxgen.parallel import gather_networks, state_shardings

Step = Callable[[Any, dict[str, jax.Array], jax.Array], tuple[Any, dict[str, jax.Array]]]
Transform = Callable[[dict[str, jax.Array], jax.Array, jax.Array], dict[str, jax.Array]]
Members = Literal["together", "in_turn"]

# What XLA may put into a CUDA graph: what it does by default, and loops. Otherwise the host looks after every step
# whether there is another one: that cost a small model on an H100 a tenth of its time, and much more on a busy host.
_COMMANDS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"


def default_members() -> Members:
    """How a population is best computed here: in turn on a CPU, together elsewhere (measured: benchmarks/README.md)."""
    return "in_turn" if jax.default_backend() == "cpu" else "together"


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
    """Whether a tree of arrays holds no NaN and no infinity, bool []; integers and booleans are always finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves], jnp.bool_))


class Loop:
    """A compiled loop over a step, of one run or of a population of them, fed with a data set.

    On a mesh the batch is split over the axis ``data`` and the state over ``model``, by JAX's own partitioner: the
    step, and what it computes, are the same.

    With keys [M] there are M members, each the run of its own key: its own batches and its own noise. States and totals
    then hold an array [M, ...] for each of a single run's.

    Args:
      step: (state, batch, key) -> (state, metrics).
      dataset: ``image`` [N, ...] and optionally ``label`` [N], to be held on the device; on a mesh of several
        processes only this process's rows, `Share.rows` of them. Or a source, from which the batches stream.
      key: the run's typed key, []; or the members' keys, [M].
      batch_size: number of examples in the global batch, B.
      transform: (batch, key, step) -> batch, applied to each batch on the device (dynamic binarisation).
      mesh: a mesh with an axis ``data`` and perhaps an axis ``model``; None for one device.
      num_examples: size of the whole data set, N; that of ``dataset`` when None.
      sentinel: what becomes of numbers that are not finite: ``"watch"`` says so in `Totals.finite`; ``"skip"`` leaves
        out every step whose metrics or new state hold any, and counts it (a look at the whole state a step); ``"off"``
        does not look, and gives the memory of the state before a chunk to the one after it.
      members: how a population is computed: ``"together"``, each operation on all members at once, or ``"in_turn"``,
        one member's steps after another's; what `default_members` says of this platform when None.

    The attribute ``streams`` says whether the data stream from a source, and ``input_wait`` counts the seconds in which
    nothing was computed because they were not there yet.
    """

    def __init__(
        self,
        step: Step,
        dataset: Mapping[str, Any] | Source,
        key: jax.Array,
        batch_size: int,
        transform: Transform | None = None,
        mesh: jax.sharding.Mesh | None = None,
        num_examples: int | None = None,
        sentinel: Literal["watch", "skip", "off"] = "watch",
        members: Members | None = None,
    ) -> None:
        if mesh is not None and batch_size % mesh.shape["data"]:
            raise ValueError(
                f"a batch of {batch_size} images cannot be split over the {mesh.shape['data']} devices of "
                "the mesh's axis data: make it a multiple"
            )
        if mesh is not None and key.ndim:
            raise ValueError(f"a population of {key.size} members trains on one device: leave out the mesh")
        self._feed: Feed
        self.streams, self.input_wait = isinstance(dataset, Source), 0.0
        if isinstance(dataset, Source):
            self._feed = Streamed(dataset, key, batch_size, mesh)
        else:
            total = len(dataset["image"]) if num_examples is None else num_examples
            self._feed = Resident(dataset, batch_size, mesh, total)
        self._mesh, self._key = mesh, key
        together = (members or default_members()) == "together"

        def batch_of(arrays: Any, key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
            batch = self._feed.batch(arrays, key, step)
            if mesh is not None:
                batch = jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec("data")))
            return transform(batch, key, step) if transform else batch

        def advance(arrays: Any, key: jax.Array, state: Any) -> tuple[Any, dict[str, jax.Array]]:
            batch = batch_of(arrays, key, state.step)
            state, metrics = step(state if mesh is None else gather_networks(state, mesh), batch, key)
            return self.place(state), metrics

        def body(arrays: Any, key: jax.Array, state: Any, totals: Totals) -> tuple[Any, Totals]:
            new, metrics = advance(arrays, key, state)
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

        def train(state: Any, totals: Totals, key: jax.Array, arrays: Any, num_steps: jax.Array) -> tuple[Any, Totals]:
            state, totals = jax.lax.fori_loop(0, num_steps, lambda _, carry: body(arrays, key, *carry), (state, totals))
            finite = jnp.ones((), jnp.bool_) if sentinel == "off" else all_finite((state, totals.sums))
            return state, totals._replace(finite=finite)

        def run(state: Any, totals: Totals, key: jax.Array, arrays: Any, num_steps: jax.Array) -> tuple[Any, Totals]:
            if key.ndim == 0:
                return train(state, totals, key, arrays, num_steps)
            if together:
                return jax.vmap(train, in_axes=(0, 0, 0, None, None))(state, totals, key, arrays, num_steps)
            member = functools.partial(train, arrays=arrays, num_steps=num_steps)
            return jax.lax.map(lambda carry: member(*carry), (state, totals, key))

        # Watched, the state given is not donated: it is the last good one, should this chunk go wrong.
        self._run = jax.jit(
            run,
            donate_argnums=(0, 1) if sentinel == "off" else (),
            compiler_options={"xla_gpu_enable_command_buffer": _COMMANDS} if jax.default_backend() == "gpu" else None,
        )
        self._batch = jax.jit(batch_of if key.ndim == 0 else jax.vmap(batch_of, in_axes=(None, 0, None)))
        self._advance = advance if key.ndim == 0 else jax.vmap(advance, in_axes=(None, 0, 0))

    def zero_totals(self, state: Any) -> Totals:
        """Totals of no steps at all, zeros, float32 [] by metric; [M] for a population.

        ``state`` is one of the run, or its shapes.
        """
        _, metrics = jax.eval_shape(self._advance, self._feed.shapes(), self._key, state)
        shape = self._key.shape
        sums = {name: np.zeros(shape, np.float32) for name in metrics}
        counts = np.zeros(shape, np.int32)
        return self.place_totals(Totals(sums, counts, counts, np.ones(shape, np.bool_)))

    def place_totals(self, totals: Totals) -> Totals:
        """Put totals on the device, or on every device of the mesh."""
        return jax.device_put(totals, None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec()))

    def place(self, state: Any) -> Any:
        """Constrain a state to its place on the mesh; the identity without one. Use it inside ``jit``."""
        if self._mesh is None:
            return state
        return jax.lax.with_sharding_constraint(state, state_shardings(state, self._mesh))

    def run(self, state: Any, totals: Totals, num_steps: int) -> tuple[Any, Totals]:
        """Train for ``num_steps`` steps, at least 0, from where the state's own step says that the run is in the data.

        The state and the totals after them are not to be used further when ``totals.finite`` is False.
        """
        blocks = self._feed.blocks(state.step, num_steps)
        running: Any = None
        while True:
            began = time.perf_counter()
            block = next(blocks, None)
            if block is None:
                return state, totals
            if running is None or running.is_ready():
                self.input_wait += time.perf_counter() - began
            jax.block_until_ready(running)  # one block waits on the device while another is used, not more
            arrays, now = block
            state, totals = self._run(state, totals, self._key, arrays, jnp.asarray(now, jnp.int32))
            running = totals.steps

    def close(self) -> None:
        """End what reads data in the background; the loop can be used again."""
        self._feed.close()

    def batch(self, step: int) -> dict[str, jax.Array]:
        """The batch of the step after so many: ``image`` [B, ...] and, where there are labels, ``label`` [B]."""
        start = jnp.asarray(step, jnp.int32)
        arrays, _ = next(self._feed.blocks(start, 1))
        return self._batch(arrays, self._key, start)

    def before_the_bad_step(self, state: Any, totals: Totals, num_steps: int) -> tuple[Any, Totals]:
        """Find the first of ``num_steps`` steps that made a number that is not finite, by halving the chunk.

        The same steps give the same bits, so a chunk that went wrong does so again. The state and the totals are those
        before the chunk; returned are those just before that step, or before the chunk's last step when none goes wrong
        this time.
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
    """The next step at which somebody looks: the next multiple after ``step`` of one of the cadences, or the last."""
    return min([last, *((step // every + 1) * every for every in cadences)])


def means(totals: Totals) -> dict[str, float]:
    """Means of the metrics summed in totals since the last row, by metric; empty when no step was."""
    totals = jax.device_get(totals)
    if int(totals.steps) == 0:
        return {}
    return {name: float(value) / int(totals.steps) for name, value in totals.sums.items()}
