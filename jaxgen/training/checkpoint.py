"""Checkpoints of a run, through Orbax, each with a manifest by which it is verified when it is read."""

import math
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxgen.training import manifest

_DELETED = "deleted"
_DAMAGED = "damaged"
Which = Literal["newest", "best"] | int


class DamagedCheckpointError(OSError):
    """A checkpoint cannot be read back as it was saved."""


class Restored(NamedTuple):
    """What `Checkpoints.restore_newest` found.

    Args:
      step: the checkpoint's step.
      items: trees of arrays of any shapes by name.
      manifest: its manifest, plain data.
      damaged: why each newer checkpoint could not be used, by its step.
    """

    step: int
    items: dict[str, Any]
    manifest: dict[str, Any]
    damaged: dict[int, str]


class _Retention:
    """Which checkpoints stay: the newest few, every m-th step, and the best."""

    def __init__(self, newest: int, every: int | None) -> None:
        self._newest = newest
        self._every = every
        self.scores: dict[int, float] = {}

    def best(self, steps: Sequence[int]) -> int | None:
        """The step with the highest score, the latest of equals."""
        scored = [step for step in steps if step in self.scores]
        return max(scored, key=lambda step: (self.scores[step], step), default=None)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's question."""
        steps = [info.step for info in checkpoints]
        kept = {*steps[-self._newest :], self.best(steps)}
        return [step in kept or (self._every is not None and step % self._every == 0) for step in steps]


class Checkpoints:
    """The checkpoints of one run: the newest few, every m-th for good, and the best by its score.

    A context manager: leaving it waits until everything is on the disk. A checkpoint becomes visible whole or not at
    all; it holds a manifest with the SHA-256 of every array, and is verified against it whenever it is read.

    Args:
      directory: where they lie; made when it does not exist, unless read_only.
      keep: how many of the newest to keep.
      keep_every: keep for good those whose step is a multiple of this; None for none.
      asynchronous: write while the program goes on; otherwise `save` returns when all is on the disk.
      read_only: only look.

    Raises:
      ValueError: keep or keep_every is below 1.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int = 2,
        keep_every: int | None = None,
        asynchronous: bool = False,
        read_only: bool = False,
    ) -> None:
        if keep < 1 or (keep_every is not None and keep_every < 1):
            raise ValueError(f"keep and keep_every must be at least 1, got {keep} and {keep_every}")
        self.directory = directory.absolute()
        self._read_only = read_only
        self._asynchronous = asynchronous
        self._retention = _Retention(keep, keep_every)
        self._saving: int | None = None
        self._opened: ocp.CheckpointManager | None = None

    def __enter__(self) -> "Checkpoints":
        if not self._read_only:
            self._clean()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._retention,
            enable_async_checkpointing=self._asynchronous,
            cleanup_tmp_directories=not self._read_only,
            # Renamed first and removed after: a killed deletion cannot leave half a checkpoint listed.
            todelete_subdir=None if self._read_only else _DELETED,
            save_root_metadata=False,
            create=not self._read_only,
            # Nothing is read before it is verified.
            lightweight_initialize=True,
        )
        self._opened = ocp.CheckpointManager(self.directory, options=options)
        for step in self.steps():
            try:
                self._set_score(step, self.manifest(step)["score"])
            except DamagedCheckpointError:
                continue  # it has no score; whoever restores it is told why
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._manager.close()
            self._opened = None

    @property
    def _manager(self) -> ocp.CheckpointManager:
        if self._opened is None:
            raise RuntimeError("checkpoints are used in a with statement: with Checkpoints(...) as checkpoints: ...")
        return self._opened

    def steps(self) -> list[int]:
        """Steps of the completed checkpoints, ascending, damaged ones included; no shapes involved."""
        if not self.directory.is_dir():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdecimal() and path.is_dir())

    def best_step(self) -> int | None:
        """Step of the checkpoint with the highest score, or None when none was scored."""
        return self._retention.best(self.steps())

    def best_score(self) -> float | None:
        """The highest score among the checkpoints, or None when none was scored."""
        step = self.best_step()
        return None if step is None else self._retention.scores[step]

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

    def save(
        self,
        step: int,
        items: Mapping[str, Any],
        score: float | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        """Save a checkpoint; one of the same step is replaced.

        Args:
          step: number of steps done.
          items: trees of arrays of any shapes by name, such as ``state``.
          score: what makes the best one, higher is better; None when it was not evaluated here.
          notes: plain data for the manifest, by name.

        Raises:
          ValueError: an array is empty or not finite.
          RuntimeError: this is not in a ``with`` statement.
          FileExistsError: later steps are there.
          OSError: it, or the one before it, could not be written; the error names the folder.
        """
        manager = self._manager
        score = None if score is None or math.isnan(score) else float(score)
        contents = manifest.build(step, dict(items), {"score": score, **(notes or {})})
        self.wait()
        later = [other for other in self.steps() if other > step]
        if later:
            raise FileExistsError(
                f"checkpoint {step} was not saved in {self.directory}, which holds {later}: use another --workdir, or "
                "remove the later steps"
            )
        self._set_score(step, score)
        arrays = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        try:
            if step in self.steps():
                manager.delete(step)
            saved = manager.save(
                step, args=ocp.args.Composite(manifest=ocp.args.JsonSave(contents), **arrays), force=True
            )
        except (OSError, ValueError, jax.errors.JaxRuntimeError) as error:
            raise self._not_written(step, error) from error
        if not saved:
            raise OSError(f"checkpoint {step} was not saved in {self.directory}, which holds {self.steps()}")
        self._saving = step
        if not self._asynchronous:
            self.wait()

    def wait(self) -> None:
        """Wait until everything saved so far is on the disk.

        Raises:
          OSError: something could not be written; the error names the folder.
        """
        step, self._saving = self._saving, None
        if step is None:
            return
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, jax.errors.JaxRuntimeError) as error:
            raise self._not_written(step, error) from error
        if jax.process_index() == 0 and step not in self.steps():
            raise self._not_written(step, OSError("Orbax reports no error, but it is not there"))
        self._clean()

    def _not_written(self, step: int, error: Exception) -> OSError:
        self._retention.scores.pop(step, None)
        if jax.process_index() == 0:
            # What was written of it would fill a disk that is full already. Orbax reports the first error while threads
            # of its own still write the other items; their errors are of the same disk.
            for thread in threading.enumerate():
                if type(thread).__module__.startswith("orbax."):
                    threading.Thread.join(thread)
            for path in self.directory.glob(f"{step}.*tmp*"):
                shutil.rmtree(path, ignore_errors=True)
        return OSError(
            f"checkpoint {step} could not be written in {self.directory} ({_first_line(error)}): the earlier ones, "
            f"{self.steps() or 'none'}, are intact; make room or repair the disk, then go on with --resume"
        )

    def manifest(self, step: int) -> dict[str, Any]:
        """The manifest of a checkpoint, verified.

        Args:
          step: its step.

        Returns:
          Plain data: ``step``, ``score``, ``leaves``, ``versions``, ``topology`` and what it was saved with.

        Raises:
          DamagedCheckpointError: it cannot be read, or not as it was written.
        """
        manager = self._manager
        try:
            read = manager.restore(step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))
            manifest.check(read["manifest"], step)
        except MemoryError:
            raise  # says nothing about the checkpoint
        except Exception as error:
            raise self._damaged(step, error) from error
        return read["manifest"]

    def restore(self, step: int, items: Mapping[str, Any]) -> Restored:
        """Read a checkpoint back, bit for bit.

        Args:
          step: its step.
          items: trees of arrays of any shapes, or of their descriptions, as they are wanted; what else the checkpoint
            holds is not read.

        Returns:
          The trees, where the arrays given lie. What was not committed to a device, or only described, is on the
          default one and not committed either, so that programs compiled for a fresh state serve a restored one.

        Raises:
          ValueError: the saved arrays are not of those shapes and types; the error names each that differs.
          DamagedCheckpointError: they cannot be read, or not as they were written.
        """
        contents = self.manifest(step)
        leaves = {path: leaf for path, leaf in contents["leaves"].items() if path.split("/")[0] in items}
        differing = manifest.array_differences(
            {path: leaf["array"] for path, leaf in leaves.items()}, manifest.arrays(dict(items))
        )
        if differing:
            raise ValueError(
                f"checkpoint {step} in {self.directory} is of another model: {manifest.summary(differing)}"
            )
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_committed_to(x) or here), dict(items)
        )
        try:
            arguments = {name: ocp.args.StandardRestore(item) for name, item in wanted.items()}
            read = dict(self._manager.restore(step, args=ocp.args.Composite(**arguments)))
            bad = [path for path, leaf in manifest.describe_leaves(read).items() if leaf != leaves[path]]
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise  # says nothing about the checkpoint
        except Exception as error:
            raise self._damaged(step, error) from error
        if bad:
            raise self._damaged(step, ValueError(f"not the bits that were saved: {manifest.summary(bad)}"))
        lying = jax.tree.map(
            lambda array, x: array if _committed_to(x) else jax.device_put(np.asarray(array)), read, dict(items)
        )
        return Restored(step, lying, contents, {})

    def restore_newest(self, items: Mapping[str, Any]) -> Restored:
        """Read the newest checkpoint that is whole; newer, damaged ones are moved to the folder ``damaged``.

        Args:
          items: as for `restore`.

        Returns:
          The trees, and why each newer checkpoint could not be used.

        Raises:
          FileNotFoundError: there is no checkpoint at all.
          ValueError: the newest whole one is of another model; the error names each array that differs.
          DamagedCheckpointError: none is whole; the error says why of each.
        """
        damaged: dict[int, str] = {}
        steps = self.steps()
        if not steps:
            raise FileNotFoundError(f"no checkpoint in {self.directory}")
        for step in reversed(steps):
            try:
                restored = self.restore(step, items)
            except DamagedCheckpointError as error:
                damaged[step] = str(error)
                continue
            if damaged and not self._read_only:
                self._set_aside(list(damaged))
            return restored._replace(damaged=damaged)
        raise DamagedCheckpointError(
            f"no checkpoint in {self.directory} can be used: {'; '.join(damaged.values())}: put one back from a copy, "
            "or start again in another --workdir"
        )

    def _set_aside(self, steps: list[int]) -> None:
        """Make room for checkpoints of the same steps; what is damaged may still be of use to somebody."""
        if jax.process_index() == 0:
            for step in steps:
                number = 0
                while (place := self.directory / _DAMAGED / f"{step}-{number}").exists():
                    number += 1
                place.parent.mkdir(exist_ok=True)
                (self.directory / str(step)).rename(place)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        for step in steps:
            self._retention.scores.pop(step, None)
        self._manager.reload()

    def _damaged(self, step: int, error: Exception) -> DamagedCheckpointError:
        return DamagedCheckpointError(f"checkpoint {step} in {self.directory} is damaged: {_first_line(error)}")

    def _set_score(self, step: int, score: float | None) -> None:
        if score is not None:
            self._retention.scores[step] = score
        else:
            self._retention.scores.pop(step, None)

    def _clean(self) -> None:
        if jax.process_index() == 0 and (self.directory / _DELETED).exists():
            shutil.rmtree(self.directory / _DELETED)


def _committed_to(x: Any) -> jax.sharding.Sharding | None:
    """Where an array, or its description, has to lie; None where that is nobody's concern."""
    return getattr(x, "sharding", None) if getattr(x, "committed", True) else None


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    if len(line) > 400:  # what was done comes first, the system's reason last
        line = f"{line[:200]} ... {line[-200:]}"
    return line if type(error) is ValueError else f"{type(error).__name__}: {line}"
