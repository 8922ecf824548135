"""Published numbers, their records, and the table that is made of them."""

import dataclasses
import importlib
import json
import pkgutil
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import configs, reproduce
from experiments.configs import burda
from experiments.reproduction import protocol, report
from experiments.reproduction.protocol import Config, Published, Record, Reproduction, Row
from experiments.reproduction.vae_measures import NegativeELBO, NegativeLogLikelihood
from jaxgen.cli.sweeping.plan import Range, Search
from jaxgen.cli.vae_options import MLPVAEOptions
from jaxgen.training.run import Run
from jaxgen.training.stopping import Stopped

# Configs of our own results, which no paper has a number for.
RECIPES = {
    *("binarized_iwae", "binarized_two_layers", "binarized_vae", "conv_vae", "dcgan", "dcgan_64", "dcgan_conditional"),
    *("r3gan", "tokenizer_256", "tokenizer_fsq", "tokenizer_kl", "tokenizer_vq"),
    "latent_gan",
    "latent_vae",
}
CONFIGS = protocol.configs()


def test_every_config_is_a_reproduction_or_a_recipe() -> None:
    assert set(configs.FILES) == {*CONFIGS, *RECIPES}


def test_every_file_holds_the_names_of_the_table() -> None:
    """Protects: no file and no variant is forgotten, and no name is in two files."""
    assert {module.name for module in pkgutil.iter_modules(configs.__path__)} == set(configs.NAMES)
    assert len(configs.FILES) == sum(map(len, configs.NAMES.values())) + len(RECIPES)
    for file, names in configs.NAMES.items():
        module = importlib.import_module(f"experiments.configs.{file}")
        assert list(getattr(module, "VARIANTS", names)) == list(names)
        assert hasattr(module, "VARIANTS") or len(names) == 1


@pytest.mark.parametrize("file", configs.NAMES)
def test_a_configuration_imports_one_file(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects: the others are left alone; but a recipe may be a change of another one."""

    def imported() -> set[str]:
        return {name for name in sys.modules if name.startswith("experiments.configs.")}

    for name in imported():
        monkeypatch.delitem(sys.modules, name)
    for name in configs.NAMES[file]:
        configs.load(name)
    others = {name.rpartition(".")[2] for name in imported()} - {file}
    assert others <= (RECIPES if file in RECIPES else set())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_reproduction_has_a_record_that_is_of_it(name: str) -> None:
    record = Record.read(protocol.RECORDS / f"{name}.json")
    assert CONFIGS[name].differences(record) == []
    assert record.name == name
    assert record.rows
    assert len(record.data_sha256) == 64
    for row in record.rows:
        assert 1 <= report.members(row) <= CONFIGS[name].reproduction.members
        assert len({len(values) for values in row.values.values()}) == 1
        assert all(np.isfinite(value) for values in row.values.values() for value in values)


def docstring(name: str) -> str:
    """What the docstring of its file says of a config: all of it, or from its command to that of the next one."""
    text = importlib.import_module(configs.FILES[name]).__doc__ or ""
    _, *parts = re.split(r"^(?=    uv run experiments/reproduce\.py )", text, flags=re.MULTILINE)
    (part,) = [part for part in parts if part.splitlines()[0].endswith(f"/reproduce.py {name}")]
    return text if len(parts) == 1 else part


@pytest.mark.parametrize("name", CONFIGS)
def test_a_docstring_says_what_is_published_and_what_its_record_says(name: str) -> None:
    config = CONFIGS[name]
    words = " ".join(docstring(name).split())
    record = Record.read(protocol.RECORDS / f"{name}.json")
    assert report.docstring_line(config, record) in words
    for number in config.reproduction.published:
        assert f"{number.value:g}" in words
    assert record.command in words


def test_the_table_is_what_the_records_say() -> None:
    found = report.published(CONFIGS)
    assert report.PATH.read_text() == report.render(found)


def test_every_record_is_of_a_config() -> None:
    assert {path.stem for path in protocol.RECORDS.glob("*.json")} == set(CONFIGS)


def test_the_stages_of_burda_are_those_of_the_paper() -> None:
    assert burda.STAGES == (1, 4, 13, 40, 121, 364, 1093, 3280)
    np.testing.assert_allclose(burda.RATES[-1], 1e-4, rtol=1e-9)
    spec = burda.VARIANTS["burda_vae_1"][0].spec((28, 28, 1))
    (rate,) = [value for name, value in spec.optimizer.arguments if name == "learning_rate"]
    np.testing.assert_allclose(rate(3 * 3000), 1e-3 * 10 ** (-1 / 7), rtol=1e-6)
    np.testing.assert_allclose(rate(1092 * 3000), 1e-3 * 10 ** (-6 / 7), rtol=1e-6)
    np.testing.assert_allclose(rate(1093 * 3000), 1e-4, rtol=1e-6)


@pytest.mark.parametrize(
    ("published", "value", "counts"),
    [
        (Published("NLL", 86.76, within=0.3), 87.05, True),
        (Published("NLL", 86.76, within=0.3), 87.07, False),
        (Published("NLL", 86.76, within=0.3), 80.0, True),
        (Published("modes", 23.8, within=1.0, better="higher"), 22.7, False),
        (Published("modes", 23.8, within=1.0, better="higher"), 25.0, True),
        (Published("NLL", 86.76), 86.76, None),
    ],
)
def test_what_counts_as_a_published_number(published: Published, value: float, counts: bool | None) -> None:
    assert published.reached_by(value) is counts


OPTIONS = MLPVAEOptions(
    dataset="fashion_mnist_small",
    binarization="dynamic",
    batch_size=100,
    latent_dim=4,
    hidden=(16,),
    log_every=10,
    eval_every=1000,
    sample_every=1000,
    checkpoint_every=1000,
)
SMALL = Reproduction(
    title="a small VAE",
    paper="Nobody 2026",
    where="Table 0",
    protocol="Ten steps an epoch.",
    group="Nothing",
    published=(Published("NLL-20", 300.0, within=1.0), Published("-ELBO", 200.0, epoch=1)),
    epoch=10,
    milestones=(1, 2, 4),
    measure=NegativeLogLikelihood(20),
    on_the_way=NegativeELBO(),
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Config:
    """A reproduction that takes a second."""
    config = Config("small", OPTIONS, SMALL)
    monkeypatch.setattr(protocol, "configs", lambda: {"small": config})
    return config


def options(directory: Path, **changes: object) -> reproduce.Options:
    """The command's options for the small reproduction."""
    return reproduce.Options(name="small", workdir=directory / "run", **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_slices_make_the_record_of_an_unbroken_run(small: Config, tmp_path: Path) -> None:
    whole = reproduce.reproduce(options(tmp_path / "whole"))
    first = reproduce.reproduce(options(tmp_path / "sliced", until=1))
    assert [row.epoch for row in first.rows] == [1]
    sliced = reproduce.reproduce(options(tmp_path / "sliced"))
    assert [row.epoch for row in whole.rows] == [1, 2, 4]
    assert [row.values for row in sliced.rows] == [row.values for row in whole.rows]
    assert [list(row.values) for row in whole.rows] == [["-ELBO", "KL"]] * 2 + [["-ELBO", "KL", "NLL-20"]]
    assert whole.rows[-1].values["NLL-20"][0] < whole.rows[-1].values["-ELBO"][0]
    assert Record.read(tmp_path / "sliced" / "run" / "record.json") == sliced
    assert small.differences(sliced) == []


@pytest.mark.slow
def test_seeds_are_trained_as_one_population(small: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    several = small._replace(reproduction=dataclasses.replace(SMALL, seeds=2))
    monkeypatch.setattr(protocol, "configs", lambda: {"small": several})
    record = reproduce.reproduce(options(tmp_path, until=1))
    values = record.rows[0].values["-ELBO"]
    assert len(values) == 2
    assert values[0] != values[1]
    what = several.reproduction
    assert what.error_of(record.rows[0], "-ELBO") == pytest.approx(abs(values[0] - values[1]) / 2)
    first = reproduce.reproduce(options(tmp_path / "first", until=1, members=1))
    assert first.rows[0].values["-ELBO"] == values[:1]


def test_a_milestone_that_was_passed_is_left_out(
    small: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reproduce.reproduce(options(tmp_path, until=2))
    (tmp_path / "run" / "record.json").unlink()
    record = reproduce.reproduce(options(tmp_path, until=2))
    assert [row.epoch for row in record.rows] == [2]
    assert "past epoch 1" in capsys.readouterr().out


def test_a_record_of_another_config_is_refused(small: Config, tmp_path: Path) -> None:
    record = Record("small", small.identity(), "", [], {}, "")
    record.identity["options"]["latent_dim"] = 5
    record.write(tmp_path / "run" / "record.json")
    with pytest.raises(ValueError, match=r"latent_dim: 5 in the record, 4 in the config"):
        reproduce.reproduce(options(tmp_path))


def test_an_option_that_is_newer_than_a_record_had_its_default(small: Config) -> None:
    record = Record("small", small.identity(), "", [], {}, "")
    del record.identity["options"]["free_bits"]
    assert small.differences(record) == []
    del record.identity["options"]["latent_dim"]  # 4 here, 16 by default
    assert small.differences(record) == ["options.latent_dim: 16 in the record, 4 in the config"]


def test_time_that_is_up_stops_before_the_next_slice(small: Config, tmp_path: Path) -> None:
    with pytest.raises(Stopped) as stopped:
        reproduce.reproduce(options(tmp_path, minutes=1e-9))
    assert stopped.value.status == 128 + signal.SIGTERM
    assert not Run.exists(tmp_path / "run")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"name": "x"}')
    with pytest.raises(ValueError, match=r"record\.json is not the record of a reproduction"):
        Record.read(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of"),
        (["--list", "--results"], "give one of"),
        (["nothing"], "unknown reproduction 'nothing': the nearest are small"),
        (["small", "--until", "5"], "small ends after 4 epochs"),
        (["small", "--minutes", "0"], "--minutes must be in (0, 100000], got 0"),
        (["small", "--members", "2"], "--members 2: small trains 1, give at most as many"),
    ],
)
def test_what_cannot_be_done_is_said(
    small: Config, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_pause_is_no_training(tmp_path: Path) -> None:
    rows = [
        {"step": 10, "time_steps_per_second": 5.0},
        {"step": 10, "test_elbo": 1.0},
        {"step": 30, "time_steps_per_second": 0.001},
        {"step": 50, "time_steps_per_second": 10.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert protocol.seconds_at_median_speed(tmp_path) == pytest.approx(50 / 5.0)
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 60, "time_st')  # cut short by a kill
    assert protocol.seconds_at_median_speed(tmp_path) == pytest.approx(50 / 5.0)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match="has no log of its speed"):
        protocol.seconds_at_median_speed(tmp_path)


def test_the_table_of_a_record(small: Config) -> None:
    rows = [
        Row(2, {"-ELBO": [210.0], "KL": [3.0]}, 90.0, 1.0, "a machine"),
        Row(1, {"-ELBO": [250.123], "KL": [2.0]}, 45.0, 1.0, "a machine"),
    ]
    record = Record("small", small.identity(), "", rows, {}, "uv run experiments/reproduce.py small")
    text = report.render([(small, record)])
    assert "| a small VAE | NLL-20 | 300 (within 1) | (-ELBO 210.00) | on the way | 2 of 4 epochs | 2 min |" in text
    assert "| a small VAE | -ELBO | 200 | 250.12 |  | 1 of 1 epochs | 45 s |" in text
    assert "| -ELBO after epoch | 1 | 2 |" in text
    assert "| a small VAE | 250.12 | 210.00 |" in text
    assert "    uv run experiments/reproduce.py small\n" in text
    done = [*rows, Row(4, {"-ELBO": [200.0], "KL": [3.0], "NLL-20": [300.9]}, 5400.0, 1.0, "a machine")]
    text = report.render([(small, dataclasses.replace(record, rows=done))])
    assert "| a small VAE | NLL-20 | 300 (within 1) | 300.90 | yes | 4 of 4 epochs | 1 h 30 min |" in text
    missed = [*rows, Row(4, {"-ELBO": [200.0], "KL": [3.0], "NLL-20": [301.1]}, 5400.0, 1.0, "a machine")]
    text = report.render([(small, dataclasses.replace(record, rows=missed))])
    assert "301.10 | **no** |" in text


def test_curves_of_different_metrics_stand_apart(small: Config) -> None:
    def record(metric: str) -> Record:
        return Record("small", small.identity(), "", [Row(e, {metric: [e]}, 1.0, 1.0, "") for e in (1.0, 2.0)], {}, "")

    text = report.render([(small, record("-ELBO")), (small, record("other"))])
    assert (
        "| -ELBO after epoch | 1 | 2 |\n|---|---|---|\n| a small VAE | 1.00 | 2.00 |\n\n| other after epoch |" in text
    )


def test_the_mean_over_seeds_has_its_error() -> None:
    row = Row(1, {"NLL": [1.0, 2.0, 3.0]}, 1.0, 1.0, "")
    assert protocol.reached(SMALL, row, "NLL") == "2.00 +- 0.58"
    assert protocol.reached(SMALL, Row(1, {"NLL": [1.0]}, 1.0, 1.0, ""), "NLL") == "1.00"


SEARCH = dataclasses.replace(
    SMALL, search=Search({"learning_rate": Range(1e-4, 1e-2, log=True)}, 3, {"learning_rate": 1e-3})
)


def test_of_settings_the_best_one_counts() -> None:
    row = Row(1, {"NLL-20": [3.0, 1.0]}, 1.0, 1.0, "", diverged=1)
    assert protocol.reached(SEARCH, row, "NLL-20") == "1.00"
    higher = dataclasses.replace(SEARCH, published=(Published("modes", 1.0, better="higher"),))
    assert protocol.reached(higher, Row(1, {"modes": [3.0, 1.0]}, 1.0, 1.0, ""), "modes") == "3.00"
    config = Config("small", OPTIONS, SEARCH)
    assert report.after(config, 4, row) == "1 of 4 epochs, 3 of 3 settings, 1 diverged"
    assert not report.is_whole(config, SMALL.published[0], row)
    assert report.is_whole(config, SMALL.published[0], row._replace(epoch=4))
    assert not report.is_whole(config, SMALL.published[0], row._replace(epoch=4, diverged=0))


def test_settings_are_trained_as_one_population(small: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    searching = small._replace(reproduction=SEARCH)
    monkeypatch.setattr(protocol, "configs", lambda: {"small": searching})
    record = reproduce.reproduce(options(tmp_path, until=1, members=2))
    values = record.rows[0].values["-ELBO"]
    assert len(values) == 2
    usual = small._replace(reproduction=SMALL)
    monkeypatch.setattr(protocol, "configs", lambda: {"small": usual})
    alone = reproduce.reproduce(options(tmp_path / "alone", until=1))
    # The usual setting, 1e-3, is the options' own; the other one is drawn.
    np.testing.assert_allclose(values[0], alone.rows[0].values["-ELBO"][0], rtol=1e-5)
    assert abs(values[1] - values[0]) > 1e-3
    assert searching.differences(record) == []
    assert usual.differences(record) != []
