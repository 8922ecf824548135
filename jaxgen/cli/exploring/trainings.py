"""How a run learnt, as an animation of the grids that it left."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from jaxgen.cli.exploring.common import write_results
from jaxgen.cli.options import check_numbers
from jaxgen.evaluation.figures import Picture, save_animation, titled
from jaxgen.intervals import Interval
from jaxgen.training.run import Run

Frames = Annotated[int, Interval(2, 1000)]
Shown = Annotated[float, Interval(0.02, 60.0)]
HELD = 2.0  # seconds for which the last frame stays


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """An animation of a training: what the run made of the same latents, or of the same images, at each step."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, that of a sweep's member too."""
    out: Path = Path("training")
    """Folder of the results."""
    pictures: Literal["samples", "reconstructions"] = "samples"
    """Which grids of the run."""
    frames: Frames = 100
    """At most so many grids, spread over the training."""
    frame_seconds: Shown = 0.2
    """How long each is shown."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is loaded."""
        check_numbers(self)


def grids_of(options: Training) -> dict[int, Path]:
    """The grids of a run by their steps, at least two."""
    config = Run.open(options.run).config
    if "sweep" in config["identity"]:
        raise ValueError(f"{options.run} holds a sweep: name one of its members, such as {options.run}/members/000")
    names = {path: re.fullmatch(r"(\w+)_(\d+)\.png", path.name) for path in (options.run / "samples").glob("*.png")}
    kinds = sorted({match[1] for match in names.values() if match})
    found = {int(match[2]): path for path, match in names.items() if match and match[1] == options.pictures}
    if kinds and not found:
        raise ValueError(f"{options.run} has no grids of {options.pictures}: use --pictures {kinds[0]}")
    if len(found) < 2:
        every = config["settings"].get("options", {}).get("sample_every")
        was = "" if every is None else f" than {every}"
        raise ValueError(
            f"{options.run} has {len(found) or 'no'} grid{'s' * (not found)} of {options.pictures}, and an animation "
            f"needs two: train with a smaller --sample-every{was}"
        )
    return dict(sorted(found.items()))


def frame(path: Path, step: int, options: Training) -> np.ndarray:
    """A grid, uint8 [height, width, 3], with its step: older runs left grids without words."""
    from PIL import Image

    with Image.open(path) as file:
        pixels, title = np.asarray(file.convert("RGB")), str(file.info.get("Title", ""))
    if f"step {step:,}" in title:
        return pixels
    return titled(pixels, f"{options.pictures.capitalize()} of {options.run.resolve().name}, step {step:,}").pixels


def training(options: Training) -> dict[str, Any]:
    """Make the animation."""
    grids = grids_of(options)
    places = np.linspace(0, len(grids) - 1, min(options.frames, len(grids)))  # the first and the last among them
    steps = [list(grids)[place] for place in places.round().astype(int)]
    found = [frame(grids[step], step, options) for step in steps]
    height, width = (max(pixels.shape[side] for pixels in found) for side in (0, 1))
    padded = [
        np.pad(f, ((0, height - f.shape[0]), (0, width - f.shape[1]), (0, 0)), constant_values=255) for f in found
    ]
    same = "latents" if options.pictures == "samples" else "images"
    title = f"How {options.run.resolve().name} learnt: {options.pictures} of the same {same} at each step"
    listed = f"Steps, in order: {', '.join(f'{step:,}' for step in steps)}."
    padded += padded[-1:] * round(HELD / options.frame_seconds)
    numbers = {"frames": len(steps), "grids": len(grids), "first_step": steps[0], "last_step": steps[-1]}
    write_results(options.out, {"steps": steps}, numbers)
    pictures = [Picture(pixels, title, listed, ()) for pixels in padded]
    save_animation(options.out / "training.gif", pictures, round(1000 * options.frame_seconds))
    return numbers
