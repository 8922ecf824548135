"""Compare losses of GANs as Lucic et al. 2018 did: the best of random settings, for each loss alone.

    uv run experiments/lucic.py                                     # the whole protocol: weeks on one core
    uv run experiments/lucic.py --settings 4 --epochs 1 --width 16  # a smaller one
    uv run experiments/lucic.py --images fashion_mnist --dataset idx:PATH

Whatever stops it, the same command goes on. Each loss is one sweep, runs/lucic/IMAGES-LOSS; results.json in runs/lucic
has every member's distance.

Here the distance is FD-LeNet, on features of a classifier of these images, and the paper's is FID, on Inception's: the
numbers do not compare, their order does. The first setting is the default of the paper's code; in the others learning
rate, b1 and the penalty's weight are drawn from its wide ranges. Discriminator steps and BatchNorm are the defaults for
each loss, where the paper draws them too: they make another program. The penalties are of a discriminator without
BatchNorm, which the paper found better. Latents are normal, there uniform; a penalty is of the logit, DRAGAN's there of
the probability; an epoch is 60,000 images of the discriminator's updates.

A step of the minimax GAN takes 0.31 s of one core of an AMD EPYC virtual machine: a week for the 100 settings of one
loss. Not run.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from experiments import sweep
from experiments.command import exit_status
from experiments.lucic_protocol import EPOCHS, LOSSES, SETTINGS, Images, protocol
from experiments.sweep_plan import Plan
from jaxgen.training.files import replacing
from jaxgen.training.run import Run


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare losses of GANs: the best of random settings of each."""

    images: Images = "mnist"
    """Which images."""
    losses: tuple[str, ...] = tuple(LOSSES)
    """Which losses."""
    settings: int = SETTINGS
    """How many of the random settings."""
    epochs: int = EPOCHS
    """How many epochs."""
    steps: int | None = None
    """Fewer steps than an epoch: discriminator updates, the same number for every loss."""
    width: int = 64
    """Channels next to the image, in place of the paper's 64."""
    num_samples: int = 10_000
    """Samples, and test images, of the distance."""
    dataset: str | None = None
    """Where the images are, if not under their TFDS name: npz:PATH or idx:DIR."""
    workdir: Path = Path("runs/lucic")
    """Where the sweeps are."""

    def check(self) -> None:
        """Refuse what makes no sense."""
        unknown = [name for name in self.losses if name not in LOSSES]
        if unknown or not self.losses:
            raise ValueError(f"--losses are some of {', '.join(LOSSES)}, got {', '.join(unknown) or 'none'}")
        for name in ("settings", "epochs", "width", "num_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.settings > SETTINGS:
            raise ValueError(f"--settings {self.settings}: the protocol has {SETTINGS}")


def best(options: Options, name: str) -> dict[str, Any]:
    """Train the settings of a loss, measure each and return what was found."""
    made = protocol(name, options.images)
    per_step = made.options.discriminator_steps
    steps = options.epochs * made.reproduction.epoch if options.steps is None else max(1, options.steps // per_step)
    directory = options.workdir / f"{options.images}-{name}"
    chosen = dataclasses.replace(
        made.options,
        steps=steps,
        eval_every=steps,
        sample_every=steps,
        width=options.width,
        dataset=options.dataset or made.options.dataset,
        workdir=directory,
        resume=Run.exists(directory),
    )
    began = time.perf_counter()
    sweep.sweep(Plan(chosen, {}, 1, listed=made.search.settings(options.settings)))
    seconds = time.perf_counter() - began
    measure = dataclasses.replace(made.reproduction.measure, num_samples=options.num_samples)  # type: ignore[type-var]
    members = []
    for member in sorted((directory / "members").iterdir()):
        run = Run.open(member)
        finished = max(run.steps()) == steps
        found = dict(measure(run, lambda *_: None)) if finished else {}
        members.append({"setting": run.config["settings"]["setting"], "finished": finished, **found})
    return {"loss": name, "steps": steps, "seconds": round(seconds, 1), "members": members}


def table(found: Sequence[dict[str, Any]], images: Images) -> str:
    """A row a loss, the best first, beside the paper's number."""
    rows = []
    for each in found:
        finished = [member for member in each["members"] if member["finished"]]
        metric = next((name for member in finished for name in member if name.startswith("FD-")), "FD")
        winner = min(finished, key=lambda member: member[metric], default=None)
        value = float("inf") if winner is None else winner[metric]
        setting = "" if winner is None else ", ".join(f"{name} {v:.3g}" for name, v in winner["setting"].items())
        loss = LOSSES[each["loss"]]
        of = f"{len(finished)} of {len(each['members'])}"
        rows.append((value, f"| {loss.title} | {value:.3g} | {of} | {loss.fid[images]:g} | {setting} |"))
        head = f"| loss | best {metric} | settings finite | FID of the paper | setting |\n|---|---|---|---|---|"
    return "\n".join([head, *(row for _, row in sorted(rows))])


def compare(options: Options) -> Path:
    """Train and measure every loss; returns the file of results."""
    options.check()
    path = options.workdir / "results.json"
    found = []
    for name in options.losses:
        found.append(best(options, name))
        plain = {"options": {**dataclasses.asdict(options), "workdir": str(options.workdir)}, "losses": found}
        with replacing(path) as partial:
            partial.write_text(json.dumps(plain, indent=1) + "\n")
    print(table(found, options.images))
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns its exit status."""

    def run() -> None:
        print(compare(tyro.cli(Options, args=arguments, prog="lucic.py")))

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
