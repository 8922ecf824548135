"""Convert the Inception v3 weights of the FID from PyTorch's file.

    uv run --with torch experiments/convert_inception.py pt_inception-2015-12-05-6726825d.pth inception.safetensors
    uv run experiments/convert_inception.py pt_inception.pth inception.safetensors --torch-python ~/torch/bin/python

The file is the one that the PyTorch implementations of the FID download. A .pth file is opened as plain weights, so
that it cannot run code; a .safetensors file with PyTorch's names needs no PyTorch. The evaluation then takes
inception:inception.safetensors, and says which file the weights came from.
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
from jaxgen.evaluation.extractors import weights_of
from jaxgen.networks import InceptionV3
from jaxgen.training import manifest
from jaxgen.weights import write_arrays


@dataclasses.dataclass(frozen=True)
class Options:
    """Convert the Inception v3 weights of the FID from PyTorch's file."""

    source: Annotated[Path, tyro.conf.Positional]
    """The .pth file of a state dictionary, or a .safetensors file of the same arrays."""
    target: Annotated[Path, tyro.conf.Positional]
    """The .safetensors file to write."""
    torch_python: Path = Path(sys.executable)
    """An interpreter that has PyTorch, for .pth files; this one when not given."""


def convert(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's weights as the network here has them: the same names, the axes of kernels and matrices in its order.

    What belongs to training alone is left out: counts of batches, and the auxiliary classifier.

    Raises:
      ValueError: they are no Inception's of 1,008 classes; the error names what is missing, too much or different.
    """
    kept = {
        name: array
        for name, array in weights.items()
        if not name.startswith("AuxLogits.") and not name.endswith(".num_batches_tracked")
    }
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}  # [O, I, kh, kw] -> [kh, kw, I, O]; [O, I] -> [I, O]
    turned = {name: np.ascontiguousarray(a.transpose(axes.get(a.ndim))) for name, a in kept.items()}
    wanted = weights_of(InceptionV3(), (299, 299, 3), "float32")
    wrong = manifest.array_differences(manifest.arrays(turned), wanted)
    if wrong:
        raise ValueError(
            f"these are not the weights of the FID's Inception (after transposing): {manifest.summary(wrong)}; those "
            "of ImageNet's 1,000 classes are another network's"
        )
    bad = [name for name, array in turned.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"weights are not finite: {manifest.summary(bad)}")
    return turned


def run(options: Options) -> Path:
    """Read, convert and write, whole or not at all; returns the file."""
    if options.target.suffix != ".safetensors":
        raise ValueError(f"the file to write must end in .safetensors, got {options.target}")
    sha256 = hashlib.sha256(options.source.read_bytes()).hexdigest()
    arrays = convert(read(options.source, options.torch_python))
    record = {"network": "InceptionV3", "source": options.source.name, "source_sha256": sha256}
    write_arrays(options.target, arrays, record)
    return options.target


main = command(Options, run, "convert_inception.py")


if __name__ == "__main__":
    sys.exit(main())
