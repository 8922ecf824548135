"""A session of a sweep: one program trains all members, and each of them is watched as a run of its own."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.cli.sweeping.plan import Member
from jaxgen.evaluation.during_training import Evaluation, Pictures
from jaxgen.families import family_of
from jaxgen.training import loop, population, sentinel, snapshots
from jaxgen.training.monitor import Monitor
from jaxgen.training.run import Run
from jaxgen.training.session import Session

MOST_SECONDS = 10  # a signal waits for the end of a chunk


class Watched(NamedTuple):
    """A member, and what it is watched with."""

    member: Member
    run: Run
    monitor: Monitor
    evaluation: Evaluation
    pictures: Pictures


class SweepSession(Session):
    """Drives a population from stop to stop as `Session` does a run, and leaves out a member that diverges.

    State and totals are the population's, [M, ...]. A member that diverged stays at its last finite step, so whoever is
    behind the others has diverged: nothing else need be saved.
    """

    def __init__(self, watched: Sequence[Watched], **arguments: Any) -> None:
        first = watched[0]
        super().__init__(monitor=None, evaluation=first.evaluation, pictures=first.pictures, mesh=None, **arguments)
        self.watched = watched
        self.alive = np.asarray(self.state.step) == self.step

    def living(self, tree: Any) -> list[tuple[Watched, Any]]:
        """Each member that has not diverged, with its part of a tree of arrays [M, ...]."""
        tree = jax.device_get(tree)
        return [(each, population.member(tree, m)) for m, each in enumerate(self.watched) if self.alive[m]]

    def chunk_seconds(self) -> float:
        """Longer than a run's, as every chunk writes all the members' states anew."""
        return super().chunk_seconds() * min(len(self.watched), MOST_SECONDS)

    def run_steps(self, num_steps: int) -> tuple[Any, loop.Totals]:
        """Train all that are alive; who diverges is named and left behind."""
        state, totals, alive = population.advance(self.training, self.state, self.totals, self.alive, num_steps)
        lost = [m for m in range(len(alive)) if self.alive[m] and not alive[m]]
        where = [f"{self.watched[m].member} after step {int(state.step[m])}" for m in lost]
        if not alive.any():
            raise sentinel.NonFiniteError(
                f"every member has diverged, the last of them {'; '.join(where)}: lower the learning rates, clip or "
                "penalise"
            )
        for line in where:
            self.bar.write(f"diverged: {line}; the others go on without it")
        self.alive = alive
        return state, totals

    def snapshot(self) -> None:
        """Keep each member's averages."""
        for each, averages in self.living(self.state.averages):
            snapshots.write(each.run.directory, self.step, self.spec.average_lengths, averages)

    def log(self) -> None:
        """Write a row of each member's log."""
        now = time.perf_counter()
        speed = (self.step - self.since_step) / (now - self.since)
        self.since, self.since_step = now, self.step
        for each, totals in self.living(self.totals):
            each.monitor.write(self.step, {**loop.means(totals), "time_steps_per_second": speed})

    def evaluate(self, whole: Any) -> None:
        """Evaluate each member."""
        scores = {}
        living = self.living(whole)
        self.settle(self.of_the_living([each.evaluation.settled(state) for each, state in living]))
        for (each, state), (_, totals) in zip(living, self.living(self.totals), strict=True):
            measured, scores[str(each.member)] = each.evaluation(state)
            warnings = family_of(each.member.spec).collapse(each.member.spec, loop.means(totals), measured, self.step)
            each.monitor.write(self.step, measured, "test")
            for text in warnings:
                each.monitor.write(self.step, {"warning": text})
        best, worst = max(scores, key=lambda name: scores[name]), min(scores, key=lambda name: scores[name])
        self.bar.write(f"step {self.step}: from {scores[worst]:.4f} ({worst}) to {scores[best]:.4f} ({best})")

    def of_the_living(self, measured: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """What was measured of each member that has not diverged, [M, ...] by name; the others keep what they have."""
        found = {}
        for name in measured[0]:
            rows = np.array(self.state.hyperparams[name])
            rows[self.alive] = [np.asarray(each[name]) for each in measured]
            found[name] = rows
        return found

    def show(self, whole: Any) -> None:
        """Make each member's pictures."""
        for each, state in self.living(whole):
            self.written = each.pictures(state, self.step, each.monitor)

    def finish(self) -> list[dict[str, Any]]:
        """Leave each member's state in its own run directory; returns what there is to say of each."""
        rows = []
        states, totals = jax.device_get((self.state, self.totals))
        for m, each in enumerate(self.watched):
            state = population.member(states, m)
            items = {"state": state, "totals": population.member(totals, m)}
            notes = {"looked": True, "config": each.run.config, "test": self.test}
            with each.run.checkpoints() as checkpoints:
                checkpoints.save(int(state.step), items, notes=notes)
            scores = each.evaluation.scores(state) if self.alive[m] else {}
            rows.append(
                {
                    "member": m,
                    "setting": each.member.setting,
                    "seed": each.member.options.seed,
                    "diverged": not self.alive[m],
                    "finite_steps": int(state.step),
                    "scores": scores,
                }
            )
        return rows
