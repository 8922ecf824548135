"""Which length of the average of a run's weights is best, found after its training."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from jaxgen.cli.exploring.common import write_results
from jaxgen.cli.options import check_data, check_numbers, checkpoint
from jaxgen.cli.parsing import saved_options
from jaxgen.evaluation.during_training import Evaluation, choose_extractor
from jaxgen.evaluation.figures import new_figure, save_figure
from jaxgen.evaluation.measures import check_unseen
from jaxgen.intervals import Interval, RelativeLength, Seed
from jaxgen.training import snapshots
from jaxgen.training.run import Run
from jaxgen.training.run_data import load_data
from jaxgen.weights import save_weights

Images = Annotated[int, Interval(2, 100_000)]
# By which share weights over steps may differ from those that are asked for before a line says so: values that wander
# at random are 0.0008 of their size off at 0.045, and 0.003 at 0.06.
OFF = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ema:
    """A measure of a run's model against the length of the average of its weights, and the best one in a file."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run that was trained with --average-lengths."""
    out: Path = Path("ema")
    """Folder of the results."""
    lengths: tuple[RelativeLength, ...] = (0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.14, 0.2)
    """Relative lengths: standard deviations of the steps of an average, as shares of the training."""
    num: Images = 5000
    """Number of samples (of reconstructions, of a tokenizer) and of test images, at most."""
    extractor: str = "auto"
    """On which features: lenet_mnist, pixels, inception:PATH, auto."""
    checkpoint: str = "newest"
    """Of which step: newest, best, or the step of a checkpoint."""
    seed: Seed = 0
    """Seed of the samples, which are of the same latents for every length."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is loaded."""
        check_numbers(self)
        checkpoint(self.checkpoint)
        if not self.lengths:
            raise ValueError("--lengths must be at least one number, got none")


def _how_near(off: float) -> str:
    """What is said of an average that could not be made as it should be."""
    if off <= OFF:
        return ""
    return (
        f"; its weights over steps are {off:.0%} off, as the run left too few averages for it: train with a smaller "
        "--snapshot-every"
    )


def ema(options: Ema) -> dict[str, Any]:
    """Measure the model at each length, draw the measure, and keep the weights of the best."""
    run = Run.open(options.run)
    state, spec, saved = run.restore(checkpoint(options.checkpoint)), run.spec, saved_options(run)
    if not getattr(state, "averages", ()):
        raise ValueError(f"{options.run} kept no averages: train with --average-lengths 0.05 0.1")
    step = int(state.step)
    found = snapshots.with_own(snapshots.read(options.run, step), step, spec.average_lengths, state.averages)
    check_data(saved.dataset, options.run)
    loaded = load_data(saved.data_choice(), saved.batch_size)
    extractor = choose_extractor(options.extractor, saved.dataset, loaded.test["image"].shape[1:])
    check_unseen(spec, extractor)
    evaluation = Evaluation(
        spec, loaded.test, jax.random.key(options.seed), extractor=extractor, num_features=options.num
    )
    numbers: dict[str, float] = {}
    off: dict[str, float] = {}
    averaged: dict[float, Any] = {}
    measure = ""
    for length in sorted({*options.lengths, *spec.average_lengths}):
        average, off[str(length)] = snapshots.average(found, step, length, state.averages[0])
        averaged[length] = state._replace(ema=average)
        measured = evaluation.feature_distances(averaged[length])
        measure = next(name for name in measured if "fd" in name)
        numbers[str(length)] = measured[measure]
        if not math.isfinite(measured[measure]):
            raise ValueError(f"{options.run}: with the average of length {length} {measure} is not finite")
        print(f"length {length}: {measure} {measured[measure]:.4f}{_how_near(off[str(length)])}", flush=True)
    own = {} if state.ema is None else {"while_training": evaluation.feature_distances(state)[measure]}
    best = min(averaged, key=lambda length: numbers[str(length)])
    chosen = averaged[best]
    chosen = chosen._replace(hyperparams={**chosen.hyperparams, **evaluation.settled(chosen)})
    data = run.config["identity"]["data"]
    record = {"identity": run.config["identity"], "relative_length": best, measure: numbers[str(best)]}
    options.out.mkdir(parents=True, exist_ok=True)
    save_weights(
        options.out / "ema.safetensors",
        spec,
        chosen,
        image_shape=tuple(data["image_shape"]),
        image_type=data["image_type"],
        record=record,
    )
    arrays = {"lengths": np.array(sorted(averaged)), "measure": np.array(list(numbers.values()))}
    result = {"step": step, "measure": measure, "by_length": numbers, "off_by_length": off, **own, "best_length": best}
    write_results(options.out, arrays, result)
    draw(options, run, spec.average_lengths, numbers, own, measure, step)
    return result


def draw(
    options: Ema,
    run: Run,
    kept: tuple[float, ...],
    numbers: dict[str, float],
    own: dict[str, float],
    measure: str,
    step: int,
) -> None:
    """Draw the measure against the length."""
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    lengths = [float(name) for name in numbers]
    axes.plot(lengths, list(numbers.values()), "o-", markersize=4, label="made after training")
    same = [numbers[str(length)] for length in kept]
    axes.plot(kept, same, "s", fillstyle="none", markersize=9, color="C0", label="kept while training")
    for value in own.values():
        axes.axhline(value, color="C1", linestyle="--", label="the run's own moving average")
    axes.set_xscale("log")
    axes.set_xticks(lengths, [f"{100 * length:g}" for length in lengths])
    axes.minorticks_off()
    axes.set_xlabel("length of the average: deviation of its steps, % of the training")
    axes.set_ylabel(f"{measure.removeprefix('test_')} (lower is better)")
    axes.set_title(f"{run.directory.resolve().name}, step {step:,}: distance by the length of its weights' average")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save_figure(options.out / "ema.png", figure)
