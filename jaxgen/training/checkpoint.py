"""Checkpoints of a run, through Orbax."""

import math
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

_DELETED = "deleted"
Which = Literal["newest", "best"] | int


def shape_differences(saved: Any, wanted: Any) -> list[str]:
    """Where two trees of arrays differ in structure, shape or type, in words.

    Args:
      saved: tree of arrays or of their descriptions.
      wanted: the tree it ought to be like.

    Returns:
      One line per difference, naming the leaf's path; empty when there is none.
    """

    def describe(tree: Any) -> dict[str, str]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
            for path, leaf in leaves
        }

    old, new = describe(saved), describe(wanted)
    # Parameters first: the rest follows from them.
    paths = sorted(old.keys() | new.keys(), key=lambda path: ("params" not in path.partition("/")[0], path))
    return [
        f"{path}: saved {old.get(path, 'nothing')}, wanted {new.get(path, 'nothing')}"
        for path in paths
        if old.get(path) != new.get(path)
    ]


def summary(differences: list[str], most: int = 6) -> str:
    """The first few of a list of differences, on one line.

    Args:
      differences: one line each.
      most: how many to show.

    Returns:
      Those lines, and how many more there are.
    """
    more = len(differences) - most
    return "; ".join([*differences[:most], *([f"and {more} more"] if more > 0 else [])])


class Checkpoints:
    """The checkpoints of one run: the newest few, and the best by its score.

    A context manager. Saving is synchronous: when `save` returns, the checkpoint is on the disk.

    Args:
      directory: where they lie; made when it does not exist, unless read_only.
      keep: how many of the newest to keep.
      read_only: only look.

    Raises:
      ValueError: keep is below 1.
    """

    def __init__(self, directory: Path, *, keep: int = 2, read_only: bool = False) -> None:
        if keep < 1:
            raise ValueError(f"at least 1 checkpoint must be kept, got {keep}")
        self.directory = directory.absolute()
        policies = [checkpoint_managers.LatestN(keep), checkpoint_managers.BestN(get_metric_fn=_rank, n=1)]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=_rank,
            best_mode="max",
            enable_async_checkpointing=False,
            cleanup_tmp_directories=not read_only,
            # Renamed first and removed after: a killed deletion cannot leave half a checkpoint listed.
            todelete_subdir=None if read_only else _DELETED,
            save_root_metadata=not read_only,
            create=not read_only,
        )
        if not read_only:
            self._remove_deleted()
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "totals": ocp.StandardCheckpointHandler(),
            "config": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps of the completed checkpoints, ascending; no shapes involved."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Step of the checkpoint with the highest score, or None when none was scored."""
        return self._manager.best_step() if self.best_score() is not None else None

    def best_score(self) -> float | None:
        """The highest score among the checkpoints, or None when none was scored."""
        step = self._manager.best_step()
        rank = -math.inf if step is None else _rank(self._manager.metrics(step))
        return None if rank == -math.inf else rank

    def find(self, which: Which) -> int:
        """Find a checkpoint.

        Args:
          which: ``"newest"``, ``"best"`` or a step.

        Returns:
          Its step.

        Raises:
          FileNotFoundError: there is none such; the error lists those that there are.
        """
        steps = self.steps()
        found = {"newest": steps[-1] if steps else None, "best": self.best_step()}.get(str(which), which)
        if found is None or found not in steps:
            raise FileNotFoundError(f"no {which} checkpoint in {self.directory}: there are {steps or 'none'}")
        return int(found)

    def save(self, step: int, state: Any, totals: Any, config: dict[str, Any], score: float | None) -> None:
        """Save a checkpoint and wait until it is on the disk.

        Args:
          step: number of steps done.
          state: the state, arrays of any shapes.
          totals: sums of the metrics since the last row of the log.
          config: the run's config, plain data.
          score: what makes the best one, higher is better; None when it was not evaluated here.

        Raises:
          RuntimeError: Orbax did not save, for instance because later steps are there.
        """
        latest = self._manager.latest_step()
        saved = (latest is None or step > latest) and self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                totals=ocp.args.StandardSave(totals),
                config=ocp.args.JsonSave(config),
            ),
            metrics={"score": score},
            force=True,
        )
        self._manager.wait_until_finished()
        self._remove_deleted()
        if not saved:
            raise RuntimeError(
                f"checkpoint {step} was not saved in {self.directory}, which holds {self.steps()}: "
                "use another --workdir, or remove the later steps"
            )

    def restore(self, step: int, state: Any, totals: Any) -> tuple[Any, Any]:
        """Read a checkpoint back, bit for bit.

        Args:
          step: its step.
          state: a state of the shapes and types wanted, or their descriptions.
          totals: likewise.

        Returns:
          (state, totals), where the arrays given lie; on this process's first device when only described.

        Raises:
          ValueError: the saved arrays are not of those shapes and types; the error names each that differs.
        """
        restored = self._restore(step, state=state, totals=totals)
        return restored["state"], restored["totals"]

    def restore_state(self, step: int, state: Any) -> Any:
        """Read only the state of a checkpoint back, bit for bit.

        Args:
          step: its step.
          state: a state of the shapes and types wanted, or their descriptions.

        Returns:
          The state, where the arrays given lie; on this process's first device when only described.

        Raises:
          ValueError: the saved arrays are not of those shapes and types; the error names each that differs.
        """
        return self._restore(step, state=state)["state"]

    def _restore(self, step: int, **items: Any) -> Any:
        saved = self._manager.item_metadata(step)
        differences = [line for name, wanted in items.items() for line in shape_differences(saved[name].tree, wanted)]
        if differences:
            raise ValueError(f"checkpoint {step} in {self.directory} is of another model: {summary(differences)}")
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here), items
        )
        arguments = {name: ocp.args.StandardRestore(item) for name, item in wanted.items()}
        return self._manager.restore(step, args=ocp.args.Composite(**arguments))

    def _remove_deleted(self) -> None:
        if jax.process_index() == 0 and (self.directory / _DELETED).exists():
            shutil.rmtree(self.directory / _DELETED)


def _rank(metrics: dict[str, float | None]) -> float:
    score = metrics["score"]
    return -math.inf if score is None or math.isnan(score) else score
