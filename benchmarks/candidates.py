"""Which candidates each family has, and which of the peers are there."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable

from benchmarks.families import FAMILIES, Family
from benchmarks.workers import Candidate

# XLA's command buffers (CUDA graphs) without loops, as it has them by default, and none; `Loop` asks for loops too.
COMMAND_BUFFERS = (("by default", ""), ("off", "--xla_gpu_enable_command_buffer="))


@dataclasses.dataclass(frozen=True)
class Peer:
    """Somebody else's library.

    Args:
      title: its name.
      package: what is imported of it.
      option: the option that names its interpreter.
    """

    title: str
    package: str
    option: str


PEERS = (
    Peer("PyTorch", "torch", "torch_python"),
    Peer("pythae", "pythae", "pythae_python"),
    Peer("avitai-artifex", "artifex", "artifex_python"),
)


def has_package(python: str, package: str) -> str | None:
    """None where an interpreter has a package; else why not, in a few words."""
    test = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    try:
        done = subprocess.run([python, "-c", test], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{python} does not run: {getattr(error, 'strerror', None) or 'no answer'}"
    return None if done.returncode == 0 else f"{python} has no {package}"


def interpreters(given: dict[str, str | None], say: Callable[[str], None]) -> dict[str, str]:
    """The interpreter of each peer that is there, by package; one line for each that is not."""
    found = {}
    for peer in PEERS:
        python = given.get(peer.option)
        option = "--" + peer.option.replace("_", "-")
        if python is None and peer.package == "torch" and has_package(sys.executable, "torch") is None:
            python = sys.executable
        why = f"name an interpreter that has it with {option}" if python is None else has_package(python, peer.package)
        if why is None and python is not None:
            found[peer.package] = python
        else:
            say(f"skipped: {peer.title}: {why}")
    return found


def torch_variants(family: Family, platform: str) -> tuple[str, ...]:
    """PyTorch's variants, the likely best first."""
    convolutional, narrow = family.convolutional, family.dtype == "bfloat16"
    if platform == "cpu":
        layouts = ("", "+channels_last") if convolutional else ("",)
        types = ("", "+amp") if narrow else ("",)  # float32 beside autocast, which is slower where bfloat16 is
        return tuple(f"{how}{kind}{layout}" for layout in layouts for kind in types for how in ("eager", "compile"))
    if narrow and convolutional:
        return ("compile+amp+channels_last", "eager+amp+channels_last")
    if narrow:
        return ("graphs+amp", "compile+amp", "eager+amp")
    return ("compile+channels_last", "eager+channels_last") if convolutional else ("graphs", "compile", "eager")


def of_family(chosen: Family, platform: str, pythons: dict[str, str]) -> list[Candidate]:
    """The candidates of a family; those that matter most come first, should time run out.

    Args:
      chosen: the family, perhaps of another type than its own.
      platform: cpu, gpu or tpu.
      pythons: interpreters of the peers that are there.
    """
    family, kind, convolutional = chosen.name, chosen.kind, chosen.convolutional
    # What computes in float32 whatever the family says.
    only_wide = chosen.dtype == "bfloat16" and not convolutional

    def ours(name: str, variant: str, flags: str = "") -> Candidate:
        environment = (("XLA_FLAGS", flags),) if flags else ()
        return Candidate(name, "ours", family, variant, environment=environment)

    def torch(variants: tuple[str, ...]) -> list[Candidate]:
        if "torch" not in pythons:
            return []
        return [Candidate(f"torch {v}", "torch_peer", family, v, pythons["torch"]) for v in variants]

    def flax(feed: str) -> list[Candidate]:
        return [] if kind == "resnet" or only_wide else [Candidate(f"flax {feed}", "flax_peer", family, feed)]

    variants = torch_variants(chosen, platform)
    found = [ours("fused", "fused"), Candidate("floor", "floor", family, "products"), ours("jitted", "jitted")]
    if platform == "cpu":
        found += [*flax("host"), *torch(variants)]
    else:
        found += [*flax("prefetch"), *torch(variants[:1])]
        if platform == "gpu" and not convolutional:
            found += [ours(f"fused, command buffers {name}", "unrolled-1", flags) for name, flags in COMMAND_BUFFERS]
        if not convolutional:
            found += [ours("8 seeds", "together-8")] if family == "burda" else []
            found.append(ours("fused, 4 steps unrolled", "unrolled-4"))
        found += [*torch(variants[1:]), *flax("host")]
    if "pythae" in pythons and kind == "vae" and not only_wide:
        found.append(Candidate("pythae", "pythae_peer", family, "trainer", pythons["pythae"]))
    if "artifex" in pythons and not convolutional and not only_wide:
        steps = ("step", "staged") if kind == "vae" else ("step",)
        found += [Candidate(f"artifex {v}", "artifex_peer", family, v, pythons["artifex"]) for v in steps]
    if chosen.dtype != FAMILIES[family].dtype:
        found = [dataclasses.replace(each, changes=(("dtype", chosen.dtype),)) for each in found]
    return found
