"""Numbers that say how they were made, and are compared only with those made in the same way."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.training.files import write_text

FORMAT = 1
Parameter = bool | int | float | str


class ProtocolError(ValueError):
    """Two records were made in different ways: their values say nothing of each other."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a number is made: all that two of them must share to be compared.

    Args:
      metric: its name, with the extractor's where there is one, such as ``"FD-LeNet-MNIST"``.
      version: of the metric's definition in this library: it rises when a value may change.
      unit: what it is measured in, such as ``"nats"``.
      better: ``"lower"``, ``"higher"``, or ``"neither"``.
      dataset: name of the data.
      split: the split of it that the model is held against.
      data_sha256: of the images that it is held against.
      binarization: how they were made binary; ``"none"``.
      num_real: number of real images.
      num_generated: number of generated ones; 0 where none are needed.
      extractor_sha256: of the feature extractor's weights; None without one.
      resizing: what it does to images before they are seen; None without one.
      parameters: other choices of the metric by name, as sorted pairs.
    """

    metric: str
    version: int
    unit: str
    better: str
    dataset: str
    split: str
    data_sha256: str
    binarization: str
    num_real: int
    num_generated: int
    extractor_sha256: str | None = None
    resizing: str | None = None
    parameters: tuple[tuple[str, Parameter], ...] = ()

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher", "neither"):
            raise ValueError(f"better must be 'lower', 'higher' or 'neither', got {self.better!r}")
        if list(self.parameters) != sorted(self.parameters):
            raise ValueError(f"parameters must be sorted pairs, got {self.parameters}: use tuple(sorted(...))")


@dataclasses.dataclass(frozen=True)
class Record:
    """A number, how it was made, and what made it.

    Args:
      value: the number; infinite or not a number only with a warning that says why.
      standard_error: the standard deviation of its own randomness; None where it is not known.
      calibration: the same metric of real images in place of the generated ones, at the same sizes; None where that
        has no meaning.
      protocol: how it was made.
      model: what it was made of, such as the name of a run.
      checkpoint: the step of the model's checkpoint.
      model_sha256: of its parameters.
      seed: of the evaluation's own randomness.
      versions: of the libraries, by name, as sorted pairs.
      warnings: what is to be known before the number is believed, in words.

    Raises:
      ValueError: the value is not finite and no warning says why, or the standard error is negative.
    """

    value: float
    standard_error: float | None
    calibration: float | None
    protocol: Protocol
    model: str
    checkpoint: int
    model_sha256: str
    seed: int
    versions: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) and not self.warnings:
            raise ValueError(f"{self.protocol.metric} is {self.value}: a record of it needs a warning that says why")
        if self.standard_error is not None and self.standard_error < 0:
            raise ValueError(f"the standard error of {self.protocol.metric} is {self.standard_error}, below 0")


class Comparison(NamedTuple):
    """What two records say of each other.

    Args:
      difference: first value minus second.
      standard_error: of the difference, the two taken as independent; None where one of theirs is not known.
      better: ``"first"`` or ``"second"`` where they are more than two standard errors apart, ``"undecided"`` where
        they are not, there is no error to judge by, or the metric has no better end.
    """

    difference: float
    standard_error: float | None
    better: str


def mean_and_error(values: Any) -> tuple[float, float | None]:
    """(mean, its standard error with N - 1 degrees of freedom) of independent numbers [N]; no error, None, of one."""
    values = np.asarray(values, np.float64)
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(values.mean()), error


def sha256_of(plain: Any) -> str:
    """Tell plain data apart.

    Args:
      plain: plain data.

    Returns:
      The SHA-256 of them as JSON with sorted names.
    """
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def protocol_differences(first: Protocol, second: Protocol) -> list[str]:
    """Where two protocols differ, in words.

    Args:
      first: a protocol.
      second: another.

    Returns:
      One line for each field that differs, with both values.
    """
    fields = [
        (field.name, getattr(first, field.name), getattr(second, field.name)) for field in dataclasses.fields(first)
    ]
    return [f"{name} is {one!r} and {other!r}" for name, one, other in fields if one != other]


def compare(first: Record, second: Record) -> Comparison:
    """Compare two numbers that were made in the same way.

    Args:
      first: a record.
      second: another, of the same protocol.

    Returns:
      Their difference, its standard error, and which is better.

    Raises:
      ProtocolError: their protocols differ; the error names each field with both values.
    """
    differing = protocol_differences(first.protocol, second.protocol)
    if differing:
        raise ProtocolError(
            f"{first.protocol.metric} of {first.model} and {second.protocol.metric} of {second.model} cannot be "
            f"compared: {'; '.join(differing)}: evaluate both in the same way"
        )
    difference = first.value - second.value
    if first.standard_error is None or second.standard_error is None:
        return Comparison(difference, None, "undecided")
    error = math.hypot(first.standard_error, second.standard_error)
    if first.protocol.better == "neither" or not abs(difference) > 2.0 * error:
        return Comparison(difference, error, "undecided")
    return Comparison(
        difference, error, "first" if (difference > 0) == (first.protocol.better == "higher") else "second"
    )


def to_plain(record: Record) -> dict[str, Any]:
    """A record as plain data for JSON.

    Args:
      record: the record.

    Returns:
      Its fields; numbers that are not finite as strings, which JSON has no numbers for.
    """
    plain = dataclasses.asdict(record)
    if not math.isfinite(record.value):
        plain["value"] = str(record.value)
    plain["protocol"]["parameters"] = dict(record.protocol.parameters)
    plain["versions"] = dict(record.versions)
    return plain


def from_plain(plain: Mapping[str, Any]) -> Record:
    """The record that `to_plain` described.

    Args:
      plain: plain data.

    Returns:
      An equal record.

    Raises:
      ValueError: the data are not those of a record.
    """
    try:
        protocol = dict(plain["protocol"])
        protocol["parameters"] = tuple(sorted(protocol["parameters"].items()))
        fields = {
            **plain,
            "value": float(plain["value"]),
            "protocol": Protocol(**protocol),
            "versions": tuple(sorted(plain["versions"].items())),
            "warnings": tuple(plain["warnings"]),
        }
        return Record(**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"these are not the fields of a record ({error!r}): evaluate again") from error


def write(path: Path, records: Sequence[Record]) -> None:
    """Write records to a JSON file, whole or not at all.

    Args:
      path: the file.
      records: the records.
    """
    contents = {"format": FORMAT, "records": [to_plain(record) for record in records]}
    write_text(path, json.dumps(contents, indent=2, allow_nan=False) + "\n")


def read(path: Path) -> list[Record]:
    """Read records back.

    Args:
      path: a file of `write`.

    Returns:
      The records.

    Raises:
      ValueError: it is not such a file, or of another format.
      OSError: it cannot be read.
    """
    try:
        contents = json.loads(path.read_text())
        found, plain = contents["format"], contents["records"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no records ({error}): jaxgen evaluate writes such files") from error
    if found != FORMAT:
        raise ValueError(f"{path} is of format {found}, this jaxgen reads {FORMAT}: use the jaxgen that wrote it")
    return [from_plain(record) for record in plain]
