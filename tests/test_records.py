"""Records: a number carries how it was made, and is compared with its like only."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from jaxgen.evaluation import records
from jaxgen.evaluation.records import Protocol, ProtocolError, Record

PROTOCOL = Protocol(
    metric="FD-LeNet-MNIST",
    version=1,
    unit="features squared",
    better="lower",
    dataset="mnist",
    split="test",
    data_sha256="ab",
    binarization="none",
    num_real=1000,
    num_generated=1000,
    extractor_sha256="cd",
    resizing="none",
    parameters=(("groups", 10),),
)
RECORD = Record(
    value=3.0,
    standard_error=0.3,
    calibration=0.1,
    protocol=PROTOCOL,
    model="runs/gan-001",
    checkpoint=6000,
    model_sha256="ef",
    seed=0,
    versions=(("jax", "0.10.2"), ("jaxgen", "0.1.0")),
    warnings=(),
)
OTHERS: dict[str, Any] = {
    "metric": "FD-pixels",
    "version": 2,
    "unit": "nats",
    "better": "higher",
    "dataset": "fashion_mnist",
    "split": "train",
    "data_sha256": "00",
    "binarization": "static",
    "num_real": 500,
    "num_generated": 500,
    "extractor_sha256": None,
    "resizing": "bilinear",
    "parameters": (),
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Protocol)])
def test_every_difference_of_protocol_is_refused_by_name(field: str) -> None:
    other = dataclasses.replace(RECORD, protocol=dataclasses.replace(PROTOCOL, **{field: OTHERS[field]}))
    with pytest.raises(ProtocolError, match=f"{field} is ") as raised:
        records.compare(RECORD, other)
    assert repr(OTHERS[field]) in str(raised.value)
    assert repr(getattr(PROTOCOL, field)) in str(raised.value)


def test_all_differences_are_named_together() -> None:
    other = dataclasses.replace(RECORD, protocol=dataclasses.replace(PROTOCOL, num_real=7, split="train"))
    with pytest.raises(ProtocolError, match=r"split is 'test' and 'train'; num_real is 1000 and 7"):
        records.compare(RECORD, other)


def test_models_seeds_and_versions_may_differ() -> None:
    other = dataclasses.replace(
        RECORD, value=4.0, standard_error=0.4, model="b", checkpoint=1, model_sha256="x", seed=9, versions=()
    )
    compared = records.compare(RECORD, other)
    assert compared.difference == -1.0
    assert compared.standard_error == pytest.approx(0.5)
    assert compared.better == "undecided"
    far = dataclasses.replace(other, value=4.1)
    assert records.compare(RECORD, far).better == "first"
    assert records.compare(far, RECORD).better == "second"
    unknown = dataclasses.replace(far, standard_error=None)
    assert records.compare(RECORD, unknown)[1:] == (None, "undecided")


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    written = [RECORD, dataclasses.replace(RECORD, value=math.inf, standard_error=None, warnings=("why",))]
    records.write(path, written)
    assert records.read(path) == written
    assert json.loads(path.read_text())["records"][0]["protocol"]["num_real"] == 1000
    assert [file.name for file in tmp_path.iterdir()] == ["records.json"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "holds no records"),
        ("{}", "holds no records"),
        ('{"format": 2, "records": []}', "is of format 2, this jaxgen reads 1"),
        ('{"format": 1, "records": [{"value": 1}]}', "not the fields of a record"),
    ],
)
def test_other_files_are_refused(text: str, error: str, tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=error):
        records.read(path)


def test_a_number_that_is_none_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="FD-LeNet-MNIST is nan: a record of it needs a warning"):
        dataclasses.replace(RECORD, value=math.nan)
    with pytest.raises(ValueError, match="below 0"):
        dataclasses.replace(RECORD, standard_error=-1.0)
    with pytest.raises(ValueError, match="sorted pairs"):
        dataclasses.replace(PROTOCOL, parameters=(("b", 1), ("a", 2)))
    with pytest.raises(ValueError, match="better must be"):
        dataclasses.replace(PROTOCOL, better="more")
