"""State dictionaries of PyTorch as NumPy arrays, read so that a file cannot run code."""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

# Runs where PyTorch is, and needs nothing else there.
_READ = """
import sys
import numpy, torch
weights = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
wrong = [name for name, tensor in weights.items() if not isinstance(tensor, torch.Tensor)]
if wrong:
    sys.exit(f"it is no state dictionary: {wrong[:6]} are no tensors")
numpy.savez(sys.argv[2], **{name: tensor.numpy() for name, tensor in weights.items()})
"""


def read(source: Path, torch_python: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by PyTorch's names, as PyTorch lays them out."""
    if source.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(source)
        except SafetensorError as error:
            raise ValueError(f"{source} is no whole .safetensors file: {error}") from error
    with tempfile.TemporaryDirectory() as scratch:
        arrays = Path(scratch) / "arrays.npz"
        command = [str(torch_python), "-c", _READ, str(source), str(arrays)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing"]
            hint = ": name one that has PyTorch with --torch-python" if "No module named" in said[-1] else ""
            raise ValueError(f"{source} could not be read by {torch_python}, which said {said[-1]!r}{hint}")
        with np.load(arrays) as archive:
            return dict(archive)
