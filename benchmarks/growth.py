"""Growth curves: what a step costs as something grows. Each point is a candidate of its own, measured like the others.

A curve is added by a function that returns one, and its name in `CURVES`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks.families import FAMILIES
from benchmarks.workers import Candidate


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a curve.

    Args:
      series: which of the curve's lines it is on.
      x: how large what grows is.
      candidate: what is timed.
      images: images that a step takes.
    """

    series: str
    x: int
    candidate: Candidate
    images: int


@dataclasses.dataclass(frozen=True)
class Curve:
    """A curve: its title, and its points."""

    title: str
    points: tuple[Point, ...]


def _fused(family: str, series: str, x: int, variant: str = "fused", flags: str = "", **changes: Any) -> Point:
    environment = (("XLA_FLAGS", flags),) if flags else ()
    candidate = Candidate(
        f"{series} {x}", "ours", family, variant, changes=tuple(changes.items()), environment=environment
    )
    return Point(series, x, candidate, changes.get("batch_size", FAMILIES[family].batch_size))


def batch_size(platform: str, num_devices: int) -> Curve:
    """Images a step."""
    sizes = (32, 128, 512, 2048) if platform == "cpu" else (32, 128, 512, 2048, 8192)
    points = [_fused("vae", "MLP VAE", size, batch_size=size) for size in sizes]
    if platform != "cpu":
        points += [_fused("dcgan64", "DCGAN 64 x 64", size, batch_size=size) for size in (64, 256, 1024)]
    return Curve("Batch size", tuple(points))


def image_size(platform: str, num_devices: int) -> Curve:
    """Pixels along a side of a DCGAN's images."""
    sides, batch, width = ((16, 32, 64), 16, 32) if platform == "cpu" else ((32, 64, 128), 64, 64)
    points = [
        _fused("dcgan", "DCGAN, side", s, image_shape=[s, s, 3], batch_size=batch, width=width, num_examples=2000)
        for s in sides
    ]
    return Curve(f"Image size (width {width}, batch {batch})", tuple(points))


def data_set_size(platform: str, num_devices: int) -> Curve:
    """Images of a resident data set."""
    sizes = (1_000, 10_000, 100_000) if platform == "cpu" else (10_000, 100_000, 1_000_000)
    return Curve("Data-set size, resident", tuple(_fused("vae", "MLP VAE, images", n, num_examples=n) for n in sizes))


def devices(platform: str, num_devices: int) -> Curve:
    """Devices of a mesh; on the CPU they are forced, and share its cores."""
    counts = (1, 2, 4) if platform == "cpu" else tuple(n for n in (1, 2, 4, 8) if n <= num_devices)
    points = []
    for n in counts:
        flags = f"--xla_force_host_platform_device_count={n}" if platform == "cpu" else ""
        points.append(_fused("vae", "MLP VAE, devices", n, f"devices-{n}", flags))
    return Curve("Devices, the batch split over them", tuple(points))


def members(platform: str, num_devices: int) -> Curve:
    """A population in one program, its members computed together (`jax.vmap`) or in turn (`jax.lax.map`)."""
    counts = (1, 4, 16) if platform == "cpu" else (1, 8, 64)
    points = [
        dataclasses.replace(
            _fused("gan", series, count, f"{variant}-{count}"), images=count * FAMILIES["gan"].batch_size
        )
        for count in counts
        for series, variant in (("together", "together"), ("in turn", "in_turn"))
    ]
    points.append(_fused("gan", "a single run", 1))
    if platform != "cpu":
        floor = Candidate("floor 64", "floor", "gan", "products-64")
        points.append(Point("floor", 64, floor, 64 * FAMILIES["gan"].batch_size))
    return Curve("Members of a population (MLP GAN); a step is one of every member", tuple(points))


def streaming(platform: str, num_devices: int) -> Curve | None:
    """Memory and waiting of a streamed data set; `jaxgen.training.loop.Loop` takes none: there is nothing to time."""
    return None


CURVES: dict[str, Callable[[str, int], Curve | None]] = {
    "members": members,
    "batch": batch_size,
    "data": data_set_size,
    "devices": devices,
    "image": image_size,
    "streaming": streaming,
}
