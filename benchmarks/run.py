"""Measure everything: jaxgen's steps, the same models elsewhere, and the floor under them.

    uv run benchmarks/run.py --torch-python PATH --pythae-python PATH --artifex-python PATH

Each candidate is a process of its own. They take turns, round after round, in one order and in the other, and ratios
are taken within a round. A peer whose interpreter is not given is left out. On an accelerator the same command measures
it, and writes its numbers to a file named by its chip. Where jaxgen is not installed: ``python -m benchmarks.run``.
"""

import argparse
import dataclasses
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import candidates, families, growth, report, targets
from benchmarks.first_picture import first_picture
from benchmarks.peaks import peak_flops
from benchmarks.workers import ROOT, Candidate, Result, WorkerError, environment_of, measure

FORMAT = 1
GROWTH_SHARE = 0.3  # of a budget, where growth curves are asked for
PICTURES = 3
ACCELERATOR_BUDGET = 540.0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", help="names with commas between them; those of the machine when not given")
    parser.add_argument("--candidates", help="names with commas between them; all when not given")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each candidate")
    parser.add_argument("--turn-seconds", type=float, help="length of a turn: 0.5 on the CPU, 0.3 elsewhere")
    parser.add_argument("--torch-python", help="interpreter that has PyTorch; this one where it does")
    parser.add_argument("--pythae-python", help="interpreter that has pythae")
    parser.add_argument("--artifex-python", help="interpreter that has avitai-artifex")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="what networks compute in; each family's own")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--baseline", type=Path, help="numbers of an earlier run to compare with")
    parser.add_argument("--growth", action="store_true", help="measure the growth curves too")
    parser.add_argument("--curves", help=f"only these of {','.join(growth.CURVES)}")
    parser.add_argument("--quick", action="store_true", help="three short rounds and no first picture: a trial")
    parser.add_argument("--budget", type=float, help="seconds for everything; 540 on an accelerator")
    parser.add_argument("--plan", choices=("cpu", "gpu", "tpu"), help="pretend to be on another kind of device")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    for given, known in ((options.families, families.FAMILIES), (options.curves, growth.CURVES)):
        unknown = [name for name in _split(given) or [] if name not in known]
        if unknown:
            parser.error(f"unknown {', '.join(unknown)}: there are {', '.join(known)}")
    if options.quick:
        options.rounds, options.turn_seconds = min(options.rounds, 3), options.turn_seconds or 0.05
    return options


def _split(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]


def probe() -> dict[str, Any]:
    """What machine this is, asked of a process that ends before anything is timed."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = environment_of({}, Path(scratch))
    command = [sys.executable, "-m", "benchmarks.machine"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"JAX does not start: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


class Session:
    """A run of the benchmarks: its options, its time, and what it found.

    Args:
      options: the command's.
      machine: what `probe` says.
      scratch: a folder for what workers leave behind.
    """

    def __init__(self, options: argparse.Namespace, machine: dict[str, Any], scratch: Path) -> None:
        self.options, self.scratch = options, scratch
        self.platform: str = options.plan or machine["platform"]
        self.num_devices: int = machine["num_devices"]
        on_cpu = self.platform == "cpu"
        budget = options.budget or (None if on_cpu else ACCELERATOR_BUDGET)
        self.start = time.monotonic()
        self.end = self.start + budget if budget else float("inf")
        self.turn_seconds = options.turn_seconds or (0.5 if on_cpu else 0.3)
        self.kind: str = machine["device_kind"]
        self.said: list[str] = []
        self.results: dict[str, Any] = {
            "format": FORMAT,
            **machine,
            "platform": self.platform,
            "rounds": options.rounds,
            "families": {},
            "growth": {},
        }

    def say(self, line: str) -> None:
        """Print a line on what is left out, and keep it."""
        self.said.append(line)
        print(line, flush=True)

    def measure(self, named: list[Candidate], deadline: float, rounds: int) -> dict[str, Result]:
        """Time candidates in turns; on a TPU, which one process holds at a time, one after another."""
        groups = [[each] for each in named] if self.platform == "tpu" else [named]
        found: dict[str, Result] = {}
        for group in groups:
            found |= measure(
                group,
                rounds=rounds,
                turn_seconds=self.turn_seconds,
                deadline=deadline,
                say=self.say,
                scratch=self.scratch,
                on_cpu=self.platform == "cpu",
            )
        return found

    def family(self, name: str, pythons: dict[str, str], deadline: float) -> None:
        """Measure a family and print its table."""
        family = families.read(name, json.dumps({"dtype": self.options.dtype} if self.options.dtype else {}))
        wanted = _split(self.options.candidates)
        named = [
            each
            for each in candidates.of_family(family, self.platform, pythons)
            if wanted is None or any(each.name == w or each.name.startswith(f"{w} ") for w in wanted)
        ]
        found = self.measure(named, deadline, self.options.rounds)
        if not found:
            return
        operations = found["floor"].about["operations"] if "floor" in found else None
        described = {}
        for candidate, result in found.items():
            seconds = statistics.median(result.seconds)
            peak = peak_flops(self.kind, result.about.get("precision", ""))
            members = 8 if candidate.startswith("8 seeds") else 1
            described[candidate] = {
                **dataclasses.asdict(result),
                "images_a_second": members * family.batch_size / seconds,
                "peak_share": operations / seconds / peak if operations and peak else None,
            }
        self.results["families"][name] = {**dataclasses.asdict(family), "candidates": described}
        print("\n" + "\n".join(report.family_table(self.results["families"][name])), flush=True)
        if family.total_steps and "fused" in found:
            hours = family.total_steps * statistics.median(found["fused"].seconds) / 3600
            print(
                f"  extrapolation: {family.total_steps:,} steps at that rate take {hours:.2f} h ({60 * hours:.0f} min)"
            )

    def curve(self, name: str) -> None:
        """Measure a growth curve and print its table."""
        curve = growth.CURVES[name](self.platform, self.num_devices)
        named = [point.candidate for point in curve.points]
        found = self.measure(named, self.end, max(2, self.options.rounds // 3))
        points = []
        for point in curve.points:
            if point.candidate.name in found:
                result = found[point.candidate.name]
                seconds = statistics.median(result.seconds)
                rate = {"images_a_second": point.images / seconds}
                points.append({"series": point.series, "x": point.x, **dataclasses.asdict(result), **rate})
        self.results["growth"][name] = {"title": curve.title, "points": points}
        print("\n" + "\n".join(report.curve_table(self.results["growth"][name])), flush=True)

    def pictures(self) -> None:
        """Measure the time to the first picture."""
        if importlib.util.find_spec("tyro") is None:
            self.say("skipped: first picture: the scripts need tyro")
            return
        seconds: list[float] = []
        try:
            for _ in range(PICTURES):
                seconds.append(first_picture())
        except WorkerError as error:
            self.say(f"skipped: first picture: {error}")
        if seconds:
            self.results["first_picture_seconds"] = seconds
            print("\nfirst picture of jaxgen train vae: " + ", ".join(f"{s:.1f} s" for s in seconds), flush=True)

    def streaming(self) -> None:
        """Measure the memory and the waiting of a streamed data set, by a command of its own."""
        if importlib.util.find_spec("grain") is None:
            self.say("skipped: streaming: it needs grain")
            return
        numbers = self.scratch / "streaming.json"
        command = [sys.executable, "-m", "benchmarks.streaming", "--out", str(numbers)]
        environment = environment_of({}, self.scratch)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
        if not numbers.exists():
            self.say(f"skipped: streaming: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
            return
        self.results["streaming"] = json.loads(numbers.read_text())
        print("\nstreaming:\n" + done.stdout.rstrip(), flush=True)

    def run(self) -> None:
        """Measure what is asked for, in the time there is."""
        options = self.options
        pythons = candidates.interpreters(vars(options), self.say)
        names = _split(options.families) or list(families.ON_CPU if self.platform == "cpu" else families.ON_ACCELERATOR)
        reserved = GROWTH_SHARE * (self.end - self.start) if options.growth and self.end < float("inf") else 0.0
        for number, name in enumerate(names):
            left = self.end - reserved - time.monotonic()
            if left <= 0:
                self.say(f"skipped: {name}: no time left of the budget")
                continue
            self.family(name, pythons, time.monotonic() + left / (len(names) - number))
        if not options.quick and not options.candidates:
            self.pictures()
            if options.growth:
                self.streaming()
        for name in _split(options.curves) or list(growth.CURVES) if options.growth else []:
            if self.end - time.monotonic() < 20.0:
                self.say(f"skipped: growth curve {name}: no time left of the budget")
                continue
            self.curve(name)
        judged = targets.judge(self.results)
        print("\n" + "\n".join(target.line() for target in judged))
        self.results["targets"] = [target.plain() for target in judged]
        self.results["left_out"] = self.said
        self.results["wall_seconds"] = time.monotonic() - self.start


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and write the numbers where asked."""
    options = parse(arguments)
    before = json.loads(options.baseline.read_text()) if options.baseline else None
    machine = probe()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    print(f"{machine['chip']}; {versions}; XLA_FLAGS {machine['xla_flags'] or 'unset'}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        session = Session(options, machine, Path(scratch))
        session.run()
    if before is not None:
        print("\n" + "\n".join(report.compare(session.results, before)))
    path = options.json
    if path is None and session.platform != "cpu":
        path = Path(f"results-{re.sub('[^a-z0-9]+', '-', machine['chip'].lower()).strip('-')}.json")
    if path is not None:
        path.write_text(json.dumps(session.results, indent=1) + "\n")
        print(f"numbers: {path}")
    print(f"took {session.results['wall_seconds']:.0f} s")


if __name__ == "__main__":
    main()
