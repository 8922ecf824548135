"""Convert the weights of VGG16, and those of the perceptual distance LPIPS, from PyTorch's files.

    uv run experiments/pytorch/convert_vgg.py vgg16.safetensors converted.safetensors
    uv run --with torch experiments/pytorch/convert_vgg.py vgg16-397923af.pth vgg16.safetensors --lpips vgg.pth

The first file is torchvision's (features.0.weight and so on; its classifier is left out), the second the package
lpips's, of version 0.1 (lin0.model.1.weight and so on). Each is a .pth file, which is opened as plain weights, so that
it cannot run code, or a .safetensors file of the same arrays, which needs no PyTorch. `jaxgen.perceptual.vgg16` reads
what is written. The weights have licences of their own.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from experiments.pytorch.reading import read
from jaxgen.cli.exit_status import command
from jaxgen.perceptual import DISTANCE, arrays_of_vgg16
from jaxgen.training import manifest
from jaxgen.weights import write_arrays

# Where torchvision's sequence of layers has the convolutions of each group.
_PLACES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


@dataclasses.dataclass(frozen=True)
class Options:
    """Convert the weights of VGG16, and those of the perceptual distance LPIPS, from PyTorch's files."""

    source: Annotated[Path, tyro.conf.Positional]
    """torchvision's .pth file of VGG16, or a .safetensors file of the same arrays."""
    target: Annotated[Path, tyro.conf.Positional]
    """The .safetensors file to write."""
    lpips: Path | None = None
    """The .pth file of the distance's weights, or a .safetensors file of the same arrays; without it all are one."""
    torch_python: Path = Path(sys.executable)
    """An interpreter that has PyTorch, for .pth files; this one when not given."""


def convert(weights: Mapping[str, np.ndarray], lpips: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """PyTorch's weights by the names of the network here, the axes of kernels in its order.

    Raises:
      ValueError: they are not VGG16's, or not the distance's; the error names what is missing, too much or different.
    """
    names = {f"features.{place}": f"conv_{group}_{number}" for group, places in enumerate(_PLACES, 1)
             for number, place in enumerate(places, 1)}  # fmt: skip
    turned: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        layer, _, kind = name.rpartition(".")
        if layer in names and kind == "weight" and array.ndim == 4:
            turned[f"{names[layer]}.kernel"] = np.ascontiguousarray(array.transpose(2, 3, 1, 0))
        elif not name.startswith("classifier."):
            turned[f"{names.get(layer, layer)}.{kind}"] = array
    for name, array in (lpips or {}).items():
        number = name.removeprefix("lin").removesuffix(".model.1.weight")
        known = number.isdecimal() and array.ndim == 4 and array.shape[0] == array.shape[2] == array.shape[3] == 1
        turned[f"{DISTANCE}.{number}" if known else name] = array.reshape(-1) if known else array
    wrong = manifest.array_differences(manifest.arrays(turned), arrays_of_vgg16(weights=lpips is not None))
    if wrong:
        raise ValueError(
            f"these are not the weights of VGG16{' and of LPIPS on it' if lpips is not None else ''} (after renaming): "
            f"{manifest.summary(wrong)}; those with BatchNorm are another network's"
        )
    bad = [name for name, array in turned.items() if not np.isfinite(array).all()]
    bad += [f"{name} (negative)" for name, array in turned.items() if name.startswith(DISTANCE) and (array < 0).any()]
    if bad:
        raise ValueError(f"weights are not finite, or negative where a distance's are: {manifest.summary(bad)}")
    return turned


def run(options: Options) -> Path:
    """Read, convert and write, whole or not at all; returns the file."""
    if options.target.suffix != ".safetensors":
        raise ValueError(f"the file to write must end in .safetensors, got {options.target}")
    record = {"network": "VGG16"}
    given = {"source": options.source} | ({} if options.lpips is None else {"lpips": options.lpips})
    for name, path in given.items():
        record |= {name: path.name, f"{name}_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    write_arrays(options.target, convert(*(read(path, options.torch_python) for path in given.values())), record)
    return options.target


main = command(Options, run, "convert_vgg.py")


if __name__ == "__main__":
    sys.exit(main())
