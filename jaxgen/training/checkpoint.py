"""Checkpoints of a run, through Orbax, each with a manifest by which it is verified when it is read."""

import contextlib
import errno
import math
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxgen.training import manifest
from jaxgen.training.files import write_text

_DELETED = "deleted"
_DAMAGED = "damaged"
_REPLACEMENTS = "replacements"
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # say nothing about a checkpoint
_KINDS = {stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
_PATIENCE = 5.0  # seconds in which the rest of a checkpoint that failed may be written
Which = Literal["newest", "best"] | int
_T = TypeVar("_T")


class DamagedCheckpointError(OSError):
    """A checkpoint cannot be read back as it was saved."""


class NotWrittenError(OSError):
    """A checkpoint could not be written; those before it are intact."""


class Restored(NamedTuple):
    """What `Checkpoints.restore_newest` found.

    Args:
      step: the checkpoint's step.
      items: trees of arrays by name.
      manifest: its manifest, plain data.
      damaged: why each newer checkpoint could not be used, by its step.
    """

    step: int
    items: dict[str, Any]
    manifest: dict[str, Any]
    damaged: dict[int, str]


class _Score(NamedTuple):
    value: float
    data: str | None  # what it was measured on: scores of other data are not compared


class _Retention:
    """Which checkpoints stay: the newest few, every m-th step, and the best on each data that were scored on."""

    def __init__(self, newest: int, every: int | None) -> None:
        self._newest = newest
        self._every = every
        self.scores: dict[int, _Score] = {}

    def best(self, steps: Sequence[int], data: str | None) -> int | None:
        """The step with the highest score on these data, the latest of equals; older ones do not say on which."""
        scored = [step for step in steps if step in self.scores and self.scores[step].data in (data, None)]
        return max(scored, key=lambda step: (self.scores[step].value, step), default=None)

    def preserved(self, steps: Sequence[int]) -> set[int]:
        """Those of the steps, ascending, that stay."""
        best = {self.best(steps, score.data) for score in self.scores.values()}
        every = {step for step in steps if self._every is not None and step % self._every == 0}
        return {*steps[-self._newest :], *every}.union(step for step in best if step is not None)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's question."""
        steps = [info.step for info in checkpoints]
        kept = self.preserved(steps)
        return [step in kept for step in steps]


def _of_old(item: Any) -> Any:
    """A state as it was before it got fields that have a default, where they have it: its checkpoints stay readable."""
    defaults = getattr(item, "_field_defaults", {})
    if not any(getattr(item, name) == value for name, value in defaults.items()):
        return item
    return {name: value for name, value in item._asdict().items() if name not in defaults or value != defaults[name]}


class Checkpoints:
    """The checkpoints of one run: the newest few, every m-th for good, and the best by its score.

    A context manager: leaving it waits until everything is on the disk. A checkpoint becomes visible whole or not at
    all; it holds a manifest with the SHA-256 of every array, and is verified against it whenever it is read. One that
    takes the place of another of its step is whole before that one goes.

    Args:
      directory: where they lie; made when it does not exist, unless read_only.
      keep: how many of the newest to keep.
      keep_every: keep for good those whose step is a multiple of this; None for none.
      asynchronous: write while the program goes on; otherwise `save` returns when all is on the disk.
      read_only: only look.
      record: a file that keeps the step of the newest checkpoint that was ever saved; None for none.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int = 2,
        keep_every: int | None = None,
        asynchronous: bool = False,
        read_only: bool = False,
        record: Path | None = None,
    ) -> None:
        if keep < 1 or (keep_every is not None and keep_every < 1):
            raise ValueError(f"keep and keep_every must be at least 1, got {keep} and {keep_every}")
        self.directory = directory.absolute()
        self._read_only = read_only
        self._asynchronous = asynchronous
        self._record = record
        self._retention = _Retention(keep, keep_every)
        self.was_there = True  # whether the folder was, before this opened it
        self._saving: int | None = None
        self._opened: ocp.CheckpointManager | None = None
        self._reader: ocp.Checkpointer | None = None

    def __enter__(self) -> "Checkpoints":
        jax.devices()  # where JAX has none, that is the error, and no checkpoint is called damaged
        self.was_there = self.directory.exists()
        steps = self.steps()
        if not self._read_only:
            self._recover(steps)
            self._opened = self._manager_of(self.directory, self._asynchronous)
        self._reader = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
        self._read_scores()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            for used in (self._reader, self._opened):
                if used is not None:
                    # Whether all is on the disk is known by now; Orbax would raise an error of its own once more.
                    with contextlib.suppress(OSError, ValueError, RuntimeError):
                        used.close()
            self._opened = self._reader = None

    def _read_scores(self) -> None:
        """Which one is the best, from what lies there."""
        self._retention.scores.clear()
        for step in self.steps():
            try:
                saved = self.manifest(step)
            except (DamagedCheckpointError, FileNotFoundError):
                continue  # it has no score; whoever restores it is told why
            except PermissionError:
                if not self._read_only:
                    raise
                continue
            self._set_score(step, saved["score"], saved.get("scored_on"))

    def _manager_of(self, directory: Path, asynchronous: bool) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._retention,
            enable_async_checkpointing=asynchronous,
            # Where a folder cannot be made, what is to be written into it would wait five minutes for it.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            cleanup_tmp_directories=True,
            # Renamed first and removed after: a killed deletion cannot leave half a checkpoint listed.
            todelete_subdir=_DELETED,
            save_root_metadata=False,
            create=True,
            # Nothing is read before it is verified.
            lightweight_initialize=True,
        )
        try:
            return ocp.CheckpointManager(directory, options=options)
        except (OSError, ValueError, RuntimeError) as error:
            raise OSError(f"{directory} cannot be opened to hold checkpoints: {_first_line(error)}") from error

    @property
    def _manager(self) -> ocp.CheckpointManager:
        if self._opened is None:
            raise RuntimeError("checkpoints are saved in a with statement: with Checkpoints(...) as checkpoints: ...")
        return self._opened

    def steps(self) -> list[int]:
        """Steps of the completed checkpoints, ascending, damaged ones included."""
        for _ in range(2):  # a listing may miss both what a training has just deleted and what it has just made
            there = {*_steps_in(self.directory), *_steps_in(self.directory / _REPLACEMENTS)}
            if there:
                return sorted(there)
        return _steps_in(self.directory / _DELETED)

    def newest_saved(self) -> int | None:
        """Step of the newest checkpoint that was ever saved, be it there or not; None where that is not known."""
        if self._record is not None and self._record.is_file():
            text = self._record.read_text(errors="replace").strip()
            return int(text) if text.isdecimal() else 0
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """Step of the checkpoint with the highest score on what the newest score was measured on, or None."""
        scores = self._retention.scores
        steps = [step for step in self.steps() if step in scores]
        return self._retention.best(steps, scores[steps[-1]].data) if steps else None

    def best_score(self, scored_on: str | None = None) -> float | None:
        """The highest score among the checkpoints, or None when none was scored.

        Only scores measured on the data ``scored_on`` count; those on the data of the newest score when None.
        """
        step = self.best_step() if scored_on is None else self._retention.best(self.steps(), scored_on)
        return None if step is None else self._retention.scores[step].value

    def find(self, which: Which) -> int:
        """The step of the checkpoint that ``which`` names: ``"newest"``, ``"best"`` or a step.

        Where there is none such, FileNotFoundError lists those that there are.
        """
        steps = self.steps()
        found = {"newest": steps[-1] if steps else None, "best": self.best_step()}.get(str(which), which)
        if found is None or found not in steps:
            raise self._missing(which)
        return int(found)

    def _missing(self, which: Which) -> FileNotFoundError:
        return FileNotFoundError(f"no {which} checkpoint in {self.directory}: there are {self.steps() or 'none'}")

    def _place(self, step: int) -> Path:
        """Where a checkpoint lies: for an instant not in its own place, when one takes that of another."""
        places = [self.directory / str(step), self.directory / _REPLACEMENTS / str(step)]
        return next((place for place in places if os.path.lexists(place)), self.directory / _DELETED / str(step))

    def save(
        self,
        step: int,
        items: Mapping[str, Any],
        score: float | None = None,
        notes: Mapping[str, Any] | None = None,
        scored_on: str | None = None,
    ) -> None:
        """Save a checkpoint; one of the same step is replaced, and stays until the new one is on the disk.

        To be called in a ``with`` statement, and never of a step before one that is saved already. Where it, or the one
        before it, could not be written, OSError names the folder.

        Args:
          step: number of steps done.
          items: trees of arrays by name, such as ``state``, none of them empty and all finite.
          score: what makes the best one, higher is better; None when it was not evaluated here.
          notes: plain data for the manifest, by name.
          scored_on: names the data that the score was measured on; scores on other data are not compared with it.
        """
        manager = self._manager
        score = None if score is None or math.isnan(score) else float(score)
        noted = {"score": score, "scored_on": None if score is None else scored_on, **(notes or {})}
        contents = manifest.build(step, dict(items), noted)
        self.wait()
        steps = self.steps()
        later = [other for other in steps if other > step]
        if later:
            raise FileExistsError(
                f"checkpoint {step} was not saved in {self.directory}, which holds {later}: use another --workdir, or "
                "remove the later steps"
            )
        self._set_score(step, score, scored_on)
        arrays = {name: ocp.args.StandardSave(_of_old(item)) for name, item in items.items()}
        arguments = ocp.args.Composite(manifest=ocp.args.JsonSave(contents), **arrays)
        try:
            if step in steps:
                replacements = self._manager_of(self.directory / _REPLACEMENTS, asynchronous=False)
                with contextlib.closing(replacements) as beside:
                    saved = beside.save(step, args=arguments, force=True)
                self._put_in_place()
                for other in set(steps) - self._retention.preserved(steps):
                    manager.delete(other)
            else:
                saved = manager.save(step, args=arguments, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._not_written(step, error) from error
        if not saved:
            raise OSError(f"checkpoint {step} was not saved in {self.directory}, which holds {self.steps()}")
        self._saving = step
        if not self._asynchronous:
            self.wait()

    def wait(self) -> None:
        """Wait until everything saved so far is on the disk; if it cannot be written, OSError names the folder."""
        step, self._saving = self._saving, None
        if step is None:
            return
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._not_written(step, error) from error
        if jax.process_index() == 0:
            if step not in _steps_in(self.directory):
                raise self._not_written(step, OSError("Orbax reports no error, but it is not there"))
            self._keep_record(step)
            self._remove_deleted()

    def _not_written(self, step: int, error: Exception) -> NotWrittenError:
        self._retention.scores.pop(step, None)
        if jax.process_index() == 0:
            # What was written of it would fill a disk that is full already. Orbax reports the first error while threads
            # of its own still write the other items; their errors are of the same disk.
            until = time.monotonic() + _PATIENCE
            for thread in threading.enumerate():
                if type(thread).__module__.startswith("orbax."):
                    threading.Thread.join(thread, max(0.0, until - time.monotonic()))
            self._discard_replacements()
            for path in self.directory.glob(f"{step}.*tmp*"):
                shutil.rmtree(path, ignore_errors=True)
        return NotWrittenError(
            f"checkpoint {step} could not be written in {self.directory} ({_first_line(error)}): the earlier ones, "
            f"{self.steps() or 'none'}, are intact; make room or repair the disk, then go on with --resume"
        )

    def _put_in_place(self) -> None:
        """Put what was written beside in its place; what lay there is deleted. A kill in between is mended by
        `_recover`."""
        self._wait_for_all("replacements are written")
        if jax.process_index() == 0:
            beside = self.directory / _REPLACEMENTS
            for step in _steps_in(beside):
                place, deleted = self.directory / str(step), self.directory / _DELETED / str(step)
                if os.path.lexists(place):
                    deleted.parent.mkdir(exist_ok=True)
                    shutil.rmtree(deleted, ignore_errors=True)
                    place.rename(deleted)
                (beside / str(step)).rename(place)
            shutil.rmtree(beside)
        self._wait_for_all("replacements are in their places")

    def _recover(self, steps: Sequence[int]) -> None:
        """Bring back what a kill left in no place of its own."""
        if jax.process_index() == 0:
            for folder in (self.directory / _REPLACEMENTS, self.directory / _DELETED):
                for step in {*_steps_in(folder)}.intersection(steps).difference(_steps_in(self.directory)):
                    (folder / str(step)).rename(self.directory / str(step))
            self._discard_replacements()
            if steps and self._record is not None and not self._record.exists():
                self._keep_record(max(steps))
        self._wait_for_all("checkpoints are in their places")

    def _discard_replacements(self) -> None:
        """Remove what was to take the place of checkpoints that are there: those are as good."""
        beside = self.directory / _REPLACEMENTS
        if all(os.path.lexists(self.directory / str(step)) for step in _steps_in(beside)):
            shutil.rmtree(beside, ignore_errors=True)

    def _keep_record(self, step: int) -> None:
        if self._record is not None:
            write_text(self._record, f"{step}\n")

    def _wait_for_all(self, name: str) -> None:
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(name)

    def manifest(self, step: int) -> dict[str, Any]:
        """The manifest of the checkpoint of a step, verified, or a DamagedCheckpointError.

        Plain data: ``step``, ``score``, ``leaves``, ``versions``, ``topology`` and what it was saved with.
        """
        return self._unless_it_changed(step, lambda: self._manifest(step))

    def _manifest(self, step: int) -> dict[str, Any]:
        read = self._read(step, {"manifest": ocp.args.JsonRestore()})["manifest"]
        try:
            manifest.check(read, step)
        except ValueError as error:
            raise self._damaged(step, error) from error
        return read

    def _read(self, step: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Items of a checkpoint as Orbax reads them; what goes wrong is damage, unless it says nothing of the files."""
        if self._reader is None:
            raise RuntimeError("checkpoints are read in a with statement: with Checkpoints(...) as checkpoints: ...")
        place = self._place(step)
        try:
            _look(place)
            return dict(self._reader.restore(place, args=ocp.args.Composite(**arguments)))
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise
        except Exception as error:
            refused = _refusal(error)
            if refused is None:
                raise self._damaged(step, error) from error
            raise PermissionError(
                f"checkpoint {step} in {self.directory} cannot be read ({refused}), which does not mean that it is "
                "damaged: let this process read it, or move it away"
            ) from error

    def _unless_it_changed(self, step: int, read: Callable[[], _T]) -> _T:
        """What is read of a checkpoint, again when it was replaced meanwhile: a training may be going on."""
        while True:
            before = _identity(self._place(step))
            if before is None:
                raise self._missing(step)
            try:
                return read()
            except DamagedCheckpointError:
                if _identity(self._place(step)) == before:
                    raise

    def restore(self, step: int, items: Mapping[str, Any]) -> Restored:
        """Read the checkpoint of a step back, bit for bit, where the arrays given lie.

        ``items`` are trees of arrays, or of their descriptions, as they are wanted; what else the checkpoint holds is
        not read. What was not committed to a device, or only described, is on the default one and not committed either,
        so that programs compiled for a fresh state serve a restored one.

        Raises:
          FileNotFoundError: there is none of that step, or no more.
          ValueError: the saved arrays are not of those shapes and types; the error names each that differs.
          DamagedCheckpointError: they cannot be read, or not as they were written.
          OSError: the system does not let them be read.
        """
        return self._unless_it_changed(step, lambda: self._restore(step, items))

    def _restore(self, step: int, items: Mapping[str, Any]) -> Restored:
        contents = self._manifest(step)
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
        old = {name: ocp.args.StandardRestore(_of_old(item)) for name, item in wanted.items()}
        found = manifest.paths(self._read(step, old))
        read = jax.tree.unflatten(jax.tree.structure(wanted), [found[path] for path in manifest.paths(wanted)])
        bad = [path for path, leaf in manifest.describe_leaves(read).items() if leaf != leaves[path]]
        if bad:
            raise self._damaged(step, ValueError(f"not the bits that were saved: {manifest.summary(bad)}"))
        lying = jax.tree.map(
            lambda array, x: array if _committed_to(x) else jax.device_put(np.asarray(array)), read, dict(items)
        )
        return Restored(step, lying, contents, {})

    def restore_newest(self, items: Mapping[str, Any]) -> Restored:
        """Read the newest checkpoint that is whole; newer, damaged ones are moved to the folder ``damaged``.

        ``items`` are as for `restore`; beside them is returned why each newer checkpoint could not be used.

        Raises:
          FileNotFoundError: there is no checkpoint at all.
          ValueError: the newest whole one is of another model; the error names each array that differs.
          DamagedCheckpointError: none is whole; the error says why of each.
        """
        while True:
            damaged: dict[int, str] = {}
            steps = self.steps()
            if not steps:
                raise FileNotFoundError(f"no checkpoint in {self.directory}")
            # What is being deleted comes last: it is older, or was to be replaced.
            last = [step for step in _steps_in(self.directory / _DELETED) if step not in steps]
            for step in (*reversed(steps), *reversed(last)):
                try:
                    restored = self.restore(step, items)
                except DamagedCheckpointError as error:
                    damaged[step] = str(error)
                    continue
                except FileNotFoundError:
                    break  # a training that goes on has deleted it
                if not self._read_only:
                    self._settle(step, list(damaged))
                return restored._replace(damaged=damaged)
            # One that was replaced by a damaged one may be on its way out still.
            hidden = sorted({*_steps_in(self.directory / _DELETED)}.intersection(damaged).difference(last))
            if hidden and not self._read_only:
                self._set_aside(hidden)
            elif self.steps() == steps and len(damaged) == len(steps) + len(last):
                raise DamagedCheckpointError(
                    f"no checkpoint in {self.directory} can be used: {'; '.join(damaged.values())}: put one back from "
                    "a copy, or start again in another --workdir"
                )

    def restore_one(self, which: Which, items: Mapping[str, Any]) -> Restored:
        """Read the checkpoint that ``which`` names: ``"newest"`` (the newest whole one), ``"best"`` or a step.

        ``items``, what is returned and the errors are as of `restore_newest` and `restore`; the best one as it is when
        it is read, if a training goes on meanwhile.
        """
        while which != "newest":
            step = self.find(which)
            try:
                return self.restore(step, items)
            except FileNotFoundError:
                self._read_scores()
        return self.restore_newest(items)

    def _settle(self, step: int, damaged: list[int]) -> None:
        """Go on from a checkpoint that is whole."""
        if jax.process_index() == 0:
            if self._place(step).parent.name == _DELETED:
                self._place(step).rename(self.directory / str(step))
            self._remove_deleted()
        if damaged:
            self._set_aside(damaged)

    def _set_aside(self, steps: list[int]) -> None:
        """Make room for checkpoints of the same steps; what is damaged may still be of use to somebody."""
        if jax.process_index() == 0:
            for step in steps:
                number = 0
                while (place := self.directory / _DAMAGED / f"{step}-{number}").exists():
                    number += 1
                place.parent.mkdir(exist_ok=True)
                self._place(step).rename(place)
        self._wait_for_all("damaged checkpoints are set aside")
        for step in steps:
            self._retention.scores.pop(step, None)
        self._manager.reload()

    def _damaged(self, step: int, error: Exception) -> DamagedCheckpointError:
        return DamagedCheckpointError(f"checkpoint {step} in {self.directory} is damaged: {_first_line(error)}")

    def _set_score(self, step: int, score: float | None, scored_on: str | None) -> None:
        self._retention.scores.pop(step, None)
        if score is not None:
            self._retention.scores[step] = _Score(score, scored_on)

    def _remove_deleted(self) -> None:
        if (self.directory / _DELETED).exists():
            shutil.rmtree(self.directory / _DELETED)


def _what(path: Path) -> str:
    """What lies at a path, in words."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode), "no file and no folder")
    except FileNotFoundError:
        return f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "not there"


def _steps_in(folder: Path) -> list[int]:
    """Steps that a folder lists, ascending; none where it is not there, an error where it is something else."""
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        if os.path.lexists(folder) and not folder.is_dir():
            raise NotADirectoryError(
                f"{folder} ought to be the folder of the checkpoints and is {_what(folder)}: put the folder back"
            ) from None
        return []
    return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))


def _identity(place: Path) -> tuple[int, int] | None:
    """What tells a checkpoint from another one in the same place."""
    try:
        found = place.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _refusal(error: Exception) -> str | None:
    """Why the system does not let files be read, where that is what an error says; Orbax's say it in words only."""
    if isinstance(error, OSError) and error.errno in _UNREADABLE:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return next((reason for reason in map(os.strerror, _UNREADABLE) if reason in str(error)), None)


def _look(place: Path) -> None:
    """Raise where a checkpoint is not all folders and files (Orbax would wait at a pipe), or one cannot be opened."""
    if place.is_symlink() and not place.exists():
        raise OSError(errno.EACCES, _what(place), str(place))
    if not place.is_dir():
        raise ValueError(f"it is {_what(place)}, not a folder")

    def fail(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(place, onerror=fail):
        for path in (Path(folder, name) for name in names):
            if not path.is_file():
                raise ValueError(f"{path.relative_to(place)} is {_what(path)}")
            path.open("rb").close()


def _committed_to(x: Any) -> jax.sharding.Sharding | None:
    """Where an array, or its description, has to lie; None where that is nobody's concern."""
    return getattr(x, "sharding", None) if getattr(x, "committed", True) else None


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    code = re.search(
        r"os_error_code='(\d+)'", str(error)
    )  # TensorStore's words are many, and the reason among the last
    if code:
        return f"{os.strerror(int(code[1]))}: {line[:200]}"
    if len(line) > 400:
        line = f"{line[:200]} ... {line[-200:]}"
    return line if type(error) is ValueError else f"{type(error).__name__}: {line}"
