"""What chips could do at most."""

from typing import NamedTuple


class Peak(NamedTuple):
    """What a chip could do at most, by its maker.

    Args:
      flops: operations a second of dense matrix products, by precision.
      source: where it is written.
    """

    flops: dict[str, float]
    source: str


_HOPPER = Peak(
    {"bfloat16": 989.4e12, "TF32": 494.7e12, "float32": 66.9e12},
    "NVIDIA H100 Tensor Core GPU Architecture, table of the SXM5 board, without sparsity; the H200's are the same",
)
_AMPERE = Peak(
    {"bfloat16": 312e12, "TF32": 156e12, "float32": 19.5e12},
    "NVIDIA A100 Tensor Core GPU Architecture, without sparsity",
)
_CLOUD = "Google Cloud TPU documentation, system architecture"
PEAKS = {
    "NVIDIA H100 80GB HBM3": _HOPPER,
    "NVIDIA H200": _HOPPER,
    "NVIDIA A100-SXM4-40GB": _AMPERE,
    "NVIDIA A100-SXM4-80GB": _AMPERE,
    "TPU v4": Peak({"bfloat16": 275e12}, _CLOUD),
    "TPU v5 lite": Peak({"bfloat16": 197e12}, _CLOUD),
    "TPU v5": Peak({"bfloat16": 459e12}, _CLOUD),
    "TPU v6 lite": Peak({"bfloat16": 918e12}, _CLOUD),
}


def peak_flops(kind: str, precision: str) -> float | None:
    """Operations a second that a chip could do at most; None for an unknown one."""
    return PEAKS[kind].flops.get(precision) if kind in PEAKS else None
