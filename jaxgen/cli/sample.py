"""Draw samples from a trained run.

jaxgen sample runs/vae-001 --num 64 --out samples.png
jaxgen sample runs/gan-001 --num 10000 --out samples.npz
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxgen.cli.exit_status import exit_status
from jaxgen.cli.options import check_seed
from jaxgen.evaluation.during_training import COLUMNS, class_rows
from jaxgen.families import family_of
from jaxgen.training.files import replacing
from jaxgen.training.monitor import image_grid, write_png
from jaxgen.training.run import Run, Spec

CHUNK = 500


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw samples from a trained run."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory that jaxgen train wrote."""
    num: int = 64
    """Number of samples."""
    out: Path = Path("samples.png")
    """A .png file for a grid, or a .npz file: `images` [N, H, W, C], floats in [0, 1] (and `labels` [N])."""
    checkpoint: str = "newest"
    """newest, best, or the step of a checkpoint."""
    label: int | None = None
    """The class to draw, of a conditional model; when not given, all of them in turn, one a row of 8."""
    seed: int = 0
    """Seed of the latents."""


def choose_labels(spec: Spec, options: Options) -> np.ndarray | None:
    """Labels for the samples, int [num rounded up to whole chunks]; None for a model without labels."""
    rows = class_rows(spec, COLUMNS, options.num)
    if rows is None:
        if options.label is not None:
            raise ValueError(f"--label is for conditional models: {options.run} was trained without --conditional")
        return None
    chosen = rows if options.label is None else np.full(1, options.label, np.int32)
    return np.resize(chosen, -(-options.num // CHUNK) * CHUNK)


def sample(options: Options) -> Path:
    """Draw the samples and write them, whole or not at all; returns the file."""
    if options.out.suffix not in (".png", ".npz"):
        raise ValueError(f"--out must end in .png or .npz, got {options.out}")
    if options.num < 1:
        raise ValueError(f"--num must be at least 1, got {options.num}")
    if options.checkpoint not in ("newest", "best") and not options.checkpoint.isdecimal():
        raise ValueError(f"--checkpoint must be newest, best or a step, got {options.checkpoint!r}")
    check_seed(options.seed)
    run = Run.open(options.run)
    which: Any = options.checkpoint
    state: Any = run.restore(int(which) if which.isdecimal() else which)
    spec: Any = run.spec
    draw = family_of(spec).sample
    if draw is None:
        raise ValueError(f"{options.run} holds a {family_of(spec).title}, which has no prior to draw from")
    key = jax.random.key(options.seed)
    labels = choose_labels(spec, options)
    pieces = []
    for i in range(0, options.num, CHUNK):
        label = None if labels is None else labels[i : i + CHUNK]
        pieces.append(draw(spec, state, jax.random.fold_in(key, i), CHUNK, label))
    images = np.asarray(jnp.concatenate(pieces)[: options.num])
    if options.out.suffix == ".png":
        write_png(options.out, image_grid(images, None if labels is None or options.label is not None else COLUMNS))
    else:
        drawn: dict[str, Any] = {} if labels is None else {"labels": labels[: options.num]}
        with replacing(options.out) as partial:
            np.savez_compressed(partial, images=images, **drawn)
    return options.out


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns its exit status."""
    return exit_status(
        lambda: tyro.cli(Options, args=arguments, prog="jaxgen sample"), lambda options: print(sample(options))
    )
