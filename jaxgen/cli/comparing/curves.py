"""How runs learnt: their logs as curves against time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.cli.comparing.charts import Chart, Line
from jaxgen.training.monitor import read_rows


class Log(NamedTuple):
    """What a run has logged, and when."""

    rows: list[dict[str, Any]]
    steps: list[int]  # from 0, those of the rows that have a speed
    seconds: list[float]  # of wall-clock time until each of them, with compilation and evaluations

    def minutes(self, steps: Sequence[int]) -> list[float]:
        """Minutes of training until some steps."""
        if len(self.steps) == 1:
            return [0.0] * len(steps)
        # The last evaluation may come after the last row with a speed.
        pace = self.seconds[-1] / self.steps[-1]
        late = [pace * max(0, step - self.steps[-1]) for step in steps]
        return [float(t) / 60.0 for t in np.interp(steps, self.steps, self.seconds) + late]


def read_log(directory: Path) -> Log:
    """Read the log of a run; an empty one where there is none."""
    rows = read_rows(directory / "metrics.jsonl")
    steps, seconds = [0], [0.0]
    for row in rows:
        if "time_steps_per_second" in row:
            seconds.append(seconds[-1] + (row["step"] - steps[-1]) / row["time_steps_per_second"])
            steps.append(row["step"])
    return Log(rows, steps, seconds)


def logged_seconds(directory: Path) -> float | None:
    """Wall-clock seconds of all steps of a run; None where its log does not say."""
    return read_log(directory).seconds[-1] or None


def curves(directories: Mapping[str, Path]) -> list[Chart]:
    """How runs learnt, given their names and directories: what there is of distance, ELBO and losses in their logs."""
    logs = {name: read_log(directory) for name, directory in directories.items()}

    def lines(metric: str, dashed: bool = False, beginning: bool = False, since: str = "") -> list[Line]:
        found = []
        for number, (title, log) in enumerate(logs.items()):
            names = {n for row in log.rows for n in row if (n.startswith(metric) if beginning else n == metric)}
            after = min((row["step"] for row in log.rows if since in row), default=0)
            for name in sorted(names)[:1]:
                points = [(row["step"], float(row[name])) for row in log.rows if name in row and row["step"] >= after]
                steps, values = [p[0] for p in points], [p[1] for p in points]
                found.append(Line(title, number, log.minutes(steps), values, dashed))
        return found

    distances = lines("test_fd_", beginning=True) or lines("test_fid", beginning=True)
    charts = [
        Chart(
            "Samples come nearer to test images",
            "Fréchet distance of samples while training; lower is better.",
            "minutes",
            "Fréchet distance",
            tuple(distances),
            logarithmic=True,
        ),
        Chart(
            "Samples become more various",
            "Distance of a sample to the most similar other one; 1 is that of the data.",
            "minutes",
            "diversity",
            tuple(lines("sample_diversity")),
        ),
        Chart(
            "VAEs: what they say of images",
            "ELBO in nats, of test images solid, of training images dotted; where they part, it learns by heart.",
            "minutes",
            "ELBO, nats",
            (*lines("test_elbo"), *lines("elbo", dashed=True, since="test_elbo")),
        ),
        Chart(
            "Tokenizers: what is lost of test images",
            "Squared error of reconstructions while training; lower is better.",
            "minutes",
            "squared error",
            tuple(lines("test_squared_error")),
            logarithmic=True,
        ),
        Chart(
            "GANs: two networks in balance",
            "Losses of generator (solid) and discriminator (dotted): they need not fall, but neither may vanish.",
            "minutes",
            "loss",
            (*lines("generator_loss"), *lines("discriminator_loss", dashed=True)),
        ),
    ]
    return [chart for chart in charts if any(len(line.xs) for line in chart.lines)]
