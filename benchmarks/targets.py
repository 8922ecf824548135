"""What the library is aimed at, judged by the numbers of a run."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.report import Spread, fastest, ratio, spread

Results = Mapping[str, Any]


class Target(NamedTuple):
    """An aim and what was reached.

    Args:
      what: in words.
      aim: the number to reach.
      reached: the number measured with its spread; None where it was not measured.
      at_most: whether less is better.
      unit: of both numbers.
    """

    what: str
    aim: float
    reached: Spread | None
    at_most: bool = False
    unit: str = ""

    @property
    def held(self) -> bool | None:
        """Whether the median is at the aim or better; None where it was not measured."""
        if self.reached is None:
            return None
        return self.reached.median <= self.aim if self.at_most else self.reached.median >= self.aim

    def line(self) -> str:
        """One line."""
        aim = f"{'at most' if self.at_most else 'at least'} {self.aim:g}{self.unit}"
        if self.reached is None:
            return f"target: {self.what}: {aim}, not measured"
        low, median, high = self.reached
        verdict = "held" if self.held else "MISSED"
        return f"target: {self.what}: {aim}, reached {median:.3g}{self.unit} ({low:.3g} .. {high:.3g}), {verdict}"

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {**self._asdict(), "reached": self.reached and list(self.reached), "held": self.held}


def _speedup(results: Results, family: str, ours: str, other: str | None) -> Spread | None:
    """How many times faster ours is than another candidate, within rounds."""
    candidates = results["families"].get(family, {}).get("candidates", {})
    if ours not in candidates or other not in candidates:
        return None
    return ratio(candidates[other], candidates[ours])


def _against(results: Results, family: str, what: str, prefix: str, aim: float) -> Target:
    """The loop against the fastest candidate whose name begins so."""
    best = fastest(results["families"].get(family, {}).get("candidates", {}), prefix)
    named = f" ({best})" if best is not None and best != prefix else ""
    return Target(f"{family} against {what}{named}", aim, _speedup(results, family, "fused", best))


def population_on_cpu(results: Results) -> Target:
    """Members in turn, as a CPU computes them, against so many single runs, at the worst number of them."""
    points = results["growth"].get("members", {}).get("points", [])
    single = [point for point in points if point["series"] == "a single run"]
    costs = [
        Spread(*(share / point["x"] for share in ratio(point, single[0])))
        for point in points
        if single and point["series"] == "in turn"
    ]
    reached = max(costs, key=lambda cost: cost.median, default=None)
    return Target("a population against its members one after another", 1.0, reached, at_most=True)


def streaming(results: Results) -> list[Target]:
    """Memory of ten times the data, and the wait for it; measured once `growth` has a curve named ``streaming``."""
    points = results["growth"].get("streaming", {}).get("points", [])
    memory = spread([points[-1]["host_bytes"] / points[0]["host_bytes"]]) if points else None
    waits = [point["wait_share"] for point in points if "wait_share" in point]
    return [
        Target("streaming: peak memory of 10 times the data", 1.05, memory, at_most=True),
        Target("streaming: share of the time waiting for input", 0.02, spread(waits) if waits else None, at_most=True),
    ]


def _common(results: Results) -> list[Target]:
    found = [
        Target(f"{family} fused against jitted", 1.0, _speedup(results, family, "fused", "jitted"))
        for family in results["families"]
    ]
    picture = results.get("first_picture_seconds")
    seconds = spread(picture) if picture else None
    return [*found, Target("first picture of train.py vae", 15.0, seconds, at_most=True, unit=" s")]


def on_cpu(results: Results) -> list[Target]:
    """The targets on a CPU."""
    floor = _speedup(results, "vae", "fused", "floor")
    return [
        _against(results, "vae", "PyTorch's best", "torch", 2.0),
        _against(results, "vae", "pythae's trainer", "pythae", 3.5),
        Target("vae, share of the floor", 0.8, floor),
        _against(results, "gan", "PyTorch's best", "torch", 4.5),
        _against(results, "dcgan", "PyTorch's best", "torch", 1.5),
        *_common(results),
        population_on_cpu(results),
        *streaming(results),
    ]


def on_accelerator(results: Results) -> list[Target]:
    """The targets on an accelerator."""
    burda = results["families"].get("burda", {})
    candidates = burda.get("candidates", {})
    minutes = seeds = None
    if "fused" in candidates:
        minutes = Spread(*(burda["total_steps"] * value / 60 for value in spread(candidates["fused"]["seconds"])))
        if "8 seeds" in candidates:
            seeds = ratio(candidates["8 seeds"], candidates["fused"])
    points = results["growth"].get("members", {}).get("points", [])
    many = {point["series"]: point for point in points if point["x"] == 64}
    share = ratio(many["floor"], many["together"]) if {"floor", "together"} <= set(many) else None
    return [
        _against(results, "vae", "a prefetching host-fed loop", "flax prefetch", 3.0),
        _against(results, "gan", "a prefetching host-fed loop", "flax prefetch", 3.0),
        _against(results, "dcgan64", "PyTorch compiled, bfloat16, channels last", "torch compile", 1.0),
        Target("burda, all 3280 epochs, extrapolated", 30.0, minutes, at_most=True, unit=" min"),
        Target("burda, 8 seeds against one", 1.3, seeds, at_most=True),
        Target("64 members together, share of their floor", 0.5, share),
        *_common(results),
        *streaming(results),
    ]


def judge(results: Results) -> list[Target]:
    """The targets of the machine that was measured."""
    return on_cpu(results) if results["platform"] == "cpu" else on_accelerator(results)
