"""Use a trained model: complete, interpolate, invert, find neighbours, change attributes, truncate, see its latents.

    jaxgen explore complete runs/vae-001 --out completions
    jaxgen explore complete dcgan-fashion-mnist --hide left --num-samples 6 --out completions
    jaxgen explore interpolate runs/gan-001 --between images --out walks
    jaxgen explore invert runs/gan-001 --out inversions
    jaxgen explore neighbours runs/gan-001 --out neighbours
    jaxgen explore attribute runs/vae-001 --without-label 3 --with-label 1 --out attribute
    jaxgen explore truncate dcgan-fashion-mnist --out truncated
    jaxgen explore manifold runs/vae-001 --out manifold
    jaxgen explore scatter vae-fashion-mnist --out scatter
    jaxgen explore training runs/vae-001 --out training
    jaxgen explore ema runs/gan-001 --out ema

The model is a run directory, a .safetensors file or the name of a pretrained model; that of training and ema is a run.
Each command leaves pictures (PNG; GIF of interpolations and trainings), arrays.npz and numbers.json in its folder.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tyro

from jaxgen.cli.exit_status import exit_status, read
from jaxgen.cli.exploring.averages import Ema, ema
from jaxgen.cli.exploring.common import Options
from jaxgen.cli.exploring.completions import Complete, complete
from jaxgen.cli.exploring.planes import Manifold, Scatter, manifold, scatter
from jaxgen.cli.exploring.searches import Invert, Neighbours, invert, neighbours
from jaxgen.cli.exploring.trainings import Training, training
from jaxgen.cli.exploring.walks import Attribute, Interpolate, Truncate, attribute, interpolate, truncate

COMMANDS: dict[str, tuple[type[Options] | type[Training] | type[Ema], Callable[[Any], dict[str, Any]]]] = {
    "complete": (Complete, complete),
    "interpolate": (Interpolate, interpolate),
    "invert": (Invert, invert),
    "neighbours": (Neighbours, neighbours),
    "attribute": (Attribute, attribute),
    "truncate": (Truncate, truncate),
    "manifold": (Manifold, manifold),
    "scatter": (Scatter, scatter),
    "training": (Training, training),
    "ema": (Ema, ema),
}


def lines(numbers: Mapping[str, Any], indent: str = "") -> list[str]:
    """Numbers as lines of text, a pair being a mean and its standard error."""
    found = []
    for name, value in numbers.items():
        title = f"{indent}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            found += [title, *lines(value, indent + "  ")]
        elif isinstance(value, tuple):
            found.append(f"{title}: {value[0]:.4g}" + ("" if value[1] is None else f" +- {value[1]:.2g}"))
        else:
            found.append(f"{title}: {value:.4g}" if isinstance(value, float) else f"{title}: {value}")
    return found


def explore(options: Options | Training | Ema) -> dict[str, Any]:
    """Run the command of the options, print its numbers; returns them."""
    options.check()
    numbers = next(run for kind, run in COMMANDS.values() if kind is type(options))(options)
    print("\n".join([*lines(numbers), f"pictures: {options.out}"]))
    return numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns its exit status."""
    kinds: Any = {name: kind for name, (kind, _) in COMMANDS.items()}
    return exit_status(lambda: read(tyro.extras.subcommand_cli_from_dict, kinds, arguments, "jaxgen explore"), explore)
