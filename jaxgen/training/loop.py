"""The training loop: many steps in one compiled program, stopped only where somebody wants to look.

Every chunk, one of a single step too, is the same `fori_loop` with a traced length. Where the chunks end
therefore changes no bit of the run.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.data.order import batch_indices

Step = Callable[[Any, dict[str, jax.Array], jax.Array], tuple[Any, dict[str, jax.Array]]]
Transform = Callable[[dict[str, jax.Array], jax.Array], dict[str, jax.Array]]


class Totals(NamedTuple):
    """Sums of the steps' metrics since the last row of the log; saved with the state, so no step is lost.

    Args:
      sums: sum of each metric, float32 [].
      steps: number of steps in them, int32 [].
    """

    sums: dict[str, jax.Array]
    steps: jax.Array


def batch_at(
    dataset: Mapping[str, jax.Array], key: jax.Array, step: jax.Array, batch_size: int
) -> dict[str, jax.Array]:
    """The global batch of a step: a pure function of (key, step).

    Args:
      dataset: ``image`` [N, ...] and optionally ``label`` [N], on the device.
      key: the run's typed key, [].
      step: number of the step, int32 [].
      batch_size: number of examples, B.

    Returns:
      ``image`` [B, ...] and, where there are labels, ``label`` [B].

    Raises:
      ValueError: the batch size is not positive, or larger than the data set.
    """
    indices = batch_indices(key, step, dataset["image"].shape[0], batch_size)
    return {name: array.at[indices].get(mode="promise_in_bounds") for name, array in dataset.items()}


class Loop:
    """A compiled loop over a step, fed from a data set held on the device.

    Args:
      step: (state, batch, key) -> (state, metrics).
      dataset: ``image`` [N, ...] and optionally ``label`` [N].
      key: the run's typed key, [].
      batch_size: number of examples in a batch, B.
      transform: (batch, step) -> batch, applied to each batch on the device (dynamic binarisation).

    Raises:
      ValueError: the batch size is not positive, or larger than the data set.
    """

    def __init__(
        self,
        step: Step,
        dataset: Mapping[str, Any],
        key: jax.Array,
        batch_size: int,
        transform: Transform | None = None,
    ) -> None:
        self._dataset = jax.device_put(dict(dataset))
        self._key = key

        def advance(dataset: dict[str, jax.Array], key: jax.Array, state: Any) -> tuple[Any, dict[str, jax.Array]]:
            batch = batch_at(dataset, key, state.step, batch_size)
            return step(state, transform(batch, state.step) if transform else batch, key)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def run(
            state: Any, totals: Totals, dataset: dict[str, jax.Array], key: jax.Array, num_steps: jax.Array
        ) -> tuple[Any, Totals]:
            def body(_: jax.Array, carry: tuple[Any, Totals]) -> tuple[Any, Totals]:
                state, totals = carry
                state, metrics = advance(dataset, key, state)
                return state, Totals(jax.tree.map(jnp.add, totals.sums, metrics), totals.steps + 1)

            return jax.lax.fori_loop(0, num_steps, body, (state, totals))

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
        return Totals({name: jnp.zeros((), jnp.float32) for name in metrics}, jnp.zeros((), jnp.int32))

    def run(self, state: Any, totals: Totals, num_steps: int) -> tuple[Any, Totals]:
        """Train for some steps. The state and totals given are donated: do not use them again.

        Args:
          state: the state; its own step says where in the data the run is.
          totals: metrics summed so far.
          num_steps: number of steps, at least 0.

        Returns:
          (state, totals) after those steps.
        """
        return self._run(state, totals, self._dataset, self._key, jnp.asarray(num_steps, jnp.int32))


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
