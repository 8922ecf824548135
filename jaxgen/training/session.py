"""A session of a run: from where it stands to its last step, unless it is asked to stop or something goes wrong."""

import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from jaxgen.evaluation import curves
from jaxgen.evaluation.during_training import Evaluation, Pictures
from jaxgen.families import family_of
from jaxgen.training import loop, processes, sentinel, snapshots
from jaxgen.training.checkpoint import Checkpoints, NotWrittenError
from jaxgen.training.monitor import Monitor
from jaxgen.training.run import Run
from jaxgen.training.stopping import Stopped, StopRequest

CHUNK_SECONDS = 1.0  # a signal waits for the end of a chunk
DRAWING = 0.01  # share of the time that is spent on drawing curves, at most, before the last step
FIRST_DRAWING = 1.0  # seconds that it takes, before that is known


class Cadence(NamedTuple):
    """When a session looks at its run, and when it ends: numbers of steps.

    Args:
      steps: in all.
      log_every: between rows of the log.
      eval_every: between evaluations on the test split.
      sample_every: between pictures.
      checkpoint_every: between checkpoints.
      skip_bad_steps: that make numbers which are not finite and are left out, at most; 0 to end at the first.
    """

    steps: int
    log_every: int = 100
    eval_every: int = 1000
    sample_every: int = 1000
    checkpoint_every: int = 1000
    skip_bad_steps: int = 0
    snapshot_every: int = 0  # 0 where no averages are kept


class Start(NamedTuple):
    """Where a session begins."""

    state: Any
    totals: loop.Totals
    looked: bool  # whether what is due after this step (log, evaluation, pictures) is done
    saved: bool  # whether the newest checkpoint is of this step, and of it looked at
    warnings: tuple[str, ...] = ()  # what the log is to keep of how it begins


class Session:
    """Drives the loop from stop to stop: log, evaluate, show, save.

    State and totals always belong together and are finite; ``looked`` says whether what is due after their step is
    done. All three are saved, so a run that is stopped anywhere, in the middle of an evaluation too, goes on as if it
    had not been.
    """

    def __init__(
        self,
        *,
        cadence: Cadence,
        key: jax.Array,
        spec: Any,
        run: Run,
        training: loop.Loop,
        test: dict[str, Any],
        checkpoints: Checkpoints,
        monitor: Monitor | None,
        evaluation: Evaluation,
        pictures: Pictures,
        mesh: jax.sharding.Mesh | None,
        stop: StopRequest,
        start: Start,
    ) -> None:
        self.cadence, self.key, self.spec, self.run, self.training = cadence, key, spec, run, training
        self.checkpoints, self.monitor, self.evaluation, self.pictures = checkpoints, monitor, evaluation, pictures
        self.test, self.mesh, self.stop = test, mesh, stop
        self.state, self.totals, self.looked = start.state, start.totals, start.looked
        self.step = int(np.asarray(start.state.step).max())  # a population's members that diverged stay behind
        self.saved = self.step if start.saved else None
        self.best = checkpoints.best_score(test["sha256"])
        self.zero = jax.device_get(training.zero_totals(start.state))
        self.chunk_limit = 1
        self.since, self.since_step, self.waited = time.perf_counter(), self.step, training.input_wait
        self.signum: int | None = None
        self.written: list[Path] = []
        self.drawn, self.drawing = self.since, FIRST_DRAWING

    def train(self) -> list[Path]:
        """Go on to the last step; returns the last pictures."""
        interval = 0.2 if sys.stderr.isatty() else 10.0
        self.bar = tqdm(
            total=self.cadence.steps,
            initial=self.step,
            unit=" steps",
            mininterval=interval,
            disable=not processes.is_primary(),
        )
        if self.monitor is not None:
            threading.Thread(target=curves.prepare, daemon=True).start()  # beside the first compilation
        with self.bar:
            try:
                if not self.looked:
                    self.look()
                while self.step < self.cadence.steps and not self.must_stop():
                    self.advance()
                    self.look()
                if self.saved != self.step:
                    self.save(None)
                drawn = [] if self.signum is not None else self.draw()  # while the checkpoint is written
                self.checkpoints.wait()
            except BaseException as error:
                self.rescue(error)
                if isinstance(error, Stopped | sentinel.NonFiniteError):
                    self.draw()
                raise
        if self.signum is not None:
            self.draw()  # who asks to stop may not wait: the checkpoint comes first
            raise Stopped(self.signum)
        return [*self.written, *drawn]

    def must_stop(self) -> bool:
        """Whether any process of the run was asked to stop; they also agree on how long a chunk may be."""
        self.chunk_limit, self.signum = processes.agree_on_chunk(self.chunk_limit, self.stop.signum)
        return self.signum is not None

    def advance(self) -> None:
        """Run the next chunk: to where somebody wants to look, but not for much longer than `chunk_seconds`."""
        looks = (
            self.cadence.log_every,
            self.cadence.eval_every,
            self.cadence.sample_every,
            self.cadence.checkpoint_every,
            self.cadence.snapshot_every or self.cadence.steps,
        )
        num_steps = min(loop.next_stop(self.step, self.cadence.steps, looks) - self.step, self.chunk_limit)
        began = time.perf_counter()
        state, totals = self.run_steps(num_steps)  # waits for the chunk
        seconds = time.perf_counter() - began
        self.chunk_limit = max(1, min(4 * self.chunk_limit, int(self.chunk_seconds() / seconds * num_steps)))
        self.state, self.totals, self.looked = state, totals, False
        self.step += num_steps
        self.bar.update(num_steps)

    def chunk_seconds(self) -> float:
        """About how long a chunk may take."""
        return CHUNK_SECONDS

    def run_steps(self, num_steps: int) -> tuple[Any, loop.Totals]:
        """The state and the totals after a chunk; an error where they are not to be trained on."""
        state, totals = self.training.run(self.state, self.totals, num_steps)
        if not bool(totals.finite):
            raise self.bad_step(num_steps)
        most = self.cadence.skip_bad_steps
        if most and int(totals.skipped) > most:
            raise sentinel.NonFiniteError(
                f"more than --skip-bad-steps {most} steps made numbers that are not finite by step "
                f"{self.step + num_steps}: lower the learning rate, or go back further"
            )
        return state, totals

    def look(self) -> None:
        """Do what is due after this step: a row of the log, an evaluation, pictures, a checkpoint."""
        cadence, step, last = self.cadence, self.step, self.step == self.cadence.steps
        logs = step % cadence.log_every == 0
        evaluates = step % cadence.eval_every == 0 or last
        shows = step % cadence.sample_every == 0 or last
        whole = processes.local_copy(self.state, self.mesh) if evaluates or shows else None
        if cadence.snapshot_every and (step % cadence.snapshot_every == 0 or last):
            self.snapshot()
        if logs:
            self.log()
        score = self.evaluate(whole) if evaluates else None
        if shows:
            self.show(whole)
        if logs:
            self.totals = self.training.place_totals(self.zero._replace(skipped=jax.device_get(self.totals.skipped)))
        self.looked = True
        is_best = score is not None and (self.best is None or score > self.best)
        self.best = score if is_best else self.best
        if evaluates and not last and (time.perf_counter() - self.drawn) * DRAWING > self.drawing:
            self.draw()
        if is_best or last or step % cadence.checkpoint_every == 0:
            self.save(score)

    def snapshot(self) -> None:
        """Keep the averages of this step."""
        averages = processes.local_copy(self.state.averages, self.mesh)
        if self.monitor is not None:
            snapshots.write(self.run.directory, self.step, self.spec.average_lengths, averages)

    def log(self) -> None:
        """Write a row of the log."""
        row = loop.means(self.totals)
        if self.cadence.skip_bad_steps:
            row["skipped_steps"] = float(self.totals.skipped)
        now = time.perf_counter()
        times = {"time_steps_per_second": (self.step - self.since_step) / (now - self.since)}
        if self.training.streams:
            times["time_input_wait_share"] = (self.training.input_wait - self.waited) / (now - self.since)
        self.since, self.since_step, self.waited = now, self.step, self.training.input_wait
        if self.monitor is not None:
            self.monitor.write(self.step, {**row, **times})
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in row.items()}, refresh=False)

    def evaluate(self, whole: Any) -> float | None:
        """Evaluate the state; returns its score, the same in every process, or None where nothing is best."""
        measured, score = self.evaluation(whole)
        self.settle(self.evaluation.settled(whole))
        warnings = family_of(self.spec).collapse(self.spec, loop.means(self.totals), measured, self.step)
        if self.monitor is not None:
            self.monitor.write(self.step, measured, "test")
            for text in warnings:
                self.monitor.write(self.step, {"warning": text})
            listed = "  ".join(f"{name} {value:.4f}" for name, value in measured.items())
            for line in (listed, *(f"warning: {text}" for text in warnings)):
                self.bar.write(f"step {self.step}: {line}")
        return processes.agree(score)

    def settle(self, measured: Mapping[str, Any]) -> None:
        """Keep in the state what is measured of it and not learnt, by its names among the hyper-parameters."""
        if not measured:
            return
        old = self.state.hyperparams
        placed = {name: jax.device_put(np.asarray(value), old[name].sharding) for name, value in measured.items()}
        self.state = self.state._replace(hyperparams={**old, **placed})

    def show(self, whole: Any) -> None:
        """Make pictures of the state."""
        if self.monitor is not None:
            self.written = self.pictures(whole, self.step, self.monitor)

    def draw(self) -> list[Path]:
        """Draw the curves of the log; whatever goes wrong there ends no training. Returns the picture."""
        if self.monitor is None:
            return []
        began, drawn = time.perf_counter(), []
        try:
            drawn.append(curves.draw_run(self.run.directory))
        except curves.NothingLoggedError:
            pass
        except Exception as error:
            self.bar.write(f"curves.png was not drawn: {' '.join(str(error).split())}", file=sys.stderr)
        self.drawn = time.perf_counter()
        self.drawing = self.drawn - began
        return drawn

    def save(self, score: float | None) -> None:
        """Save the state, and how far it was looked at."""
        items = {"state": self.state, "totals": self.totals}
        notes = {"looked": self.looked, "config": self.run.config, "test": self.test}
        self.checkpoints.save(self.step, items, score, notes, self.test["sha256"])
        self.saved = self.step if self.looked else None

    def rescue(self, error: BaseException) -> None:
        """Save what there is before an error ends the session; the processes of a larger run may not all be here."""
        if self.saved == self.step or (jax.process_count() > 1 and not isinstance(error, Stopped)):
            return
        try:
            self.save(None)
            self.checkpoints.wait()
        except (OSError, ValueError) as second:
            if isinstance(error, Stopped):
                raise  # it would say that all is saved
            if isinstance(error, NotWrittenError):
                return  # it says the same
            self.bar.write(f"the state of step {self.step} was not saved: {second}", file=sys.stderr)

    def bad_step(self, num_steps: int) -> sentinel.NonFiniteError:
        """Find the step of the chunk ahead that makes numbers that are not finite, keep it, and describe it."""
        state, _ = self.training.before_the_bad_step(self.state, self.totals, num_steps)
        after, totals = self.training.run(state, self.training.place_totals(self.zero), 1)
        step = int(state.step)
        key = self.key
        batch = {name: sentinel.on_host(array) for name, array in self.training.batch(step).items()}
        metrics = {name: float(value) for name, value in totals.sums.items()}
        whole, whole_after = (processes.local_copy(each, self.mesh) for each in (state, after))
        findings = sentinel.find(self.spec, whole, batch, key, whole_after, totals.sums)
        bad = sentinel.BadStep(state, batch, key, metrics, findings)
        folder = sentinel.keep(self.run.directory, bad, self.run.config)
        return sentinel.NonFiniteError(
            f"{bad}; {folder} keeps the state before it and its batch (`jaxgen replay {self.run.directory}` does "
            "it again). The same run would come here again: lower the learning rate, clip or penalise, or pass "
            "--skip-bad-steps"
        )
