"""Configs and files of weights that anybody may have written: one line that names the field, in no time and memory."""

import contextlib
import copy
import dataclasses
import json
import os
import re
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxgen
from jaxgen import losses, networks, plain, schedules, weights
from jaxgen.cli import sample, train
from jaxgen.cli.gan_options import GANOptions
from jaxgen.cli.parsing import FAMILIES, saved_options
from jaxgen.cli.vae_options import MLPVAEOptions, VAEOptions
from jaxgen.training import run as runs
from jaxgen.training.run import Run
from tests import models
from tests.test_weights import SPECS as MODELS
from tests.test_weights import saved_run

ADAM = {"optimizer": "adam", "learning_rate": 1e-3}
VAE = MLPVAEOptions(hidden=(16,)).spec((4, 4, 1))
PLAIN = plain.to_plain(VAE)
CONFIG: dict[str, Any] = {
    "format": 1,
    "identity": {
        "model": PLAIN,
        "data": {"name": "some", "image_shape": [4, 4, 1], "image_type": "uint8", "labels": False, "sha256": "00"},
        "batch_size": 16,
        "seed": 0,
    },
    "settings": {"family": "vae", "options": {"hidden": [16], "data_dir": "/somewhere", "seed": 3}},
    "versions": {"jax": jax.__version__},
}


def nested(kind: str, levels: int) -> Any:
    """A field's value that is a spec whose field is a spec, and so on."""
    value: Any = None
    for _ in range(levels):
        value = {
            "vae": {**PLAIN, "encoder": value or PLAIN["encoder"]},
            "prior": {**PLAIN, "prior": value},
            "gan": {"type": "GAN", "generator": value, "discriminator": value and 3, "latent_dim": 2},
            "module": {"type": "Conv", "features": 1, "kernel_size": [1, 1], "axis_name": value},
            "optimizer": {"optimizer": "adam", "learning_rate": value or 1e-3},
            "list": [value],
        }[kind]
    return value


@contextlib.contextmanager
def cheap() -> Iterator[None]:
    """Neither time nor memory."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 50e6
        assert time.perf_counter() - start < 5
    finally:
        tracemalloc.stop()


def one_line(error: BaseException, names: str, file: str) -> None:
    assert len(str(error)) <= 300, str(error)[:1000]
    assert "\n" not in str(error)
    assert names in str(error)
    assert file in str(error)


LONG = "x" * 1_000_000
# Put at a field: (path, value, what the error must name). Those of the model hold for both kinds of files.
MODEL: dict[str, tuple[str, Any, str]] = {
    **{
        f"{kind} in {field}, {levels}": (field, nested(kind, levels), "encoder" if kind == "list" else f"spec.{field}")
        for kind, field in (
            ("vae", "encoder"),
            ("vae", "latent_dim"),
            ("prior", "prior"),
            ("gan", "encoder"),
            ("module", "latent_dim"),
            ("module", "likelihood"),
            ("optimizer", "optimizer"),
            ("list", "encoder"),
        )
        for levels in (9, 40)
    },
    "whole number as text": ("encoder.latent_dim", "16", "spec.encoder.latent_dim must be int, got '16'"),
    "whole number as truth": ("encoder.latent_dim", True, "spec.encoder.latent_dim must be int, got True"),
    "whole number as fraction": ("encoder.latent_dim", 1.5, "spec.encoder.latent_dim must be int, got 1.5"),
    "whole number as infinity": ("encoder.latent_dim", float("inf"), "spec.encoder.latent_dim must be int, got inf"),
    "whole number as null": ("encoder.latent_dim", None, "spec.encoder.latent_dim must be int, got None"),
    "whole number as list": ("encoder.latent_dim", [1], "spec.encoder.latent_dim must be int, got [1]"),
    "huge number": ("encoder.latent_dim", 10**400, "spec.encoder.latent_dim must be int, got an integer of 1329 bits"),
    "huge size": ("encoder.latent_dim", 2**62, "MLPEncoder.latent_dim must be at most 2147483647"),
    "size below zero": ("encoder.latent_dim", -3, "MLPEncoder.latent_dim must be at least 1, got -3"),
    "size of a spec": ("latent_dim", -3, "VAE.latent_dim"),
    "number as object": ("beta", {}, "spec.beta"),
    "number as text": ("beta", "1", "spec.beta must be float or a function, got '1'"),
    "number as truth": ("beta", False, "spec.beta must be float or a function, got False"),
    "not a number": ("beta", float("nan"), "spec.beta must be float or a function, got nan"),
    "huge number for a fraction": ("beta", 10**400, "spec.beta must be float"),
    "module for a schedule": ("beta", {"type": "Bernoulli"}, "spec.beta must be float"),
    "learning rate as text": ("optimizer.learning_rate", "1", "spec.optimizer.learning_rate must be float"),
    "learning rate as list": ("optimizer.learning_rate", [1], "spec.optimizer.learning_rate must be float"),
    "name of an optimizer": ("optimizer.name", "sgd", "spec.optimizer.name must be float"),
    "optimizer of no name": ("optimizer.optimizer", None, "spec.optimizer.optimizer must be"),
    "optimizer of another name": ("optimizer.optimizer", "inject_hyperparams", "spec.optimizer.optimizer must be"),
    "optimizer's argument": ("optimizer.rate", 1, "spec.optimizer: fields do not fit optimizer adam"),
    "optimizer as text": ("optimizer", "adam", "spec.optimizer must be an optimizer, got 'adam'"),
    "list for an object": ("encoder", [], "VAE.encoder"),
    "number for an object": ("encoder", 3, "VAE.encoder"),
    "object for a list": ("encoder.hidden", {}, "at spec.encoder.hidden"),
    "text for a list": ("encoder.hidden", "12", "spec.encoder.hidden must be [int, ...], got '12'"),
    "wrong items": ("encoder.hidden", [1, "2"], "spec.encoder.hidden must be [int, ...], got [1, '2']"),
    "too many items": ("encoder.hidden", [1] * 100_000, "spec.encoder.hidden has too many values"),
    "long text": ("encoder.dtype", LONG[:500_000], "spec.encoder.dtype is a text of 500,000 letters"),
    "another type": ("encoder.dtype", "float33\nnonsense", "the VAE does not take images"),
    "long name of a field": (f"encoder.{LONG[:1000]}", 1, "spec.encoder has a name of more than 200 letters"),
    "unknown field": ("encoder.depth", 1, "spec.encoder.depth"),
    "field of flax": ("encoder.parent", None, "spec.encoder.parent"),
    "name of flax": ("encoder.name", "x", "spec.encoder.name"),
    "literal": ("encoder.covariance", "full", "spec.encoder.covariance must be 'diagonal' or 'rank_one', got 'full'"),
    "unknown type": ("encoder.type", "os.system", "unknown type 'os.system' at spec.encoder"),
    "type of a list": ("encoder.type", [], "unknown type [] at spec.encoder"),
    "very long text": ("encoder.dtype", LONG, "is too large: at most"),
    "long type": ("encoder.type", "y" * 9000, "at spec.encoder"),
    "unknown name": ("encoder.activation", {"named": "eval"}, "unknown name 'eval' at spec.encoder.activation"),
    "name of an object": ("encoder.activation", {"named": {}}, "unknown name {} at spec.encoder.activation"),
    "name of another kind": ("likelihood", {"named": "relu"}, "spec.likelihood must be Bernoulli or"),
    "function as text": ("encoder.activation", "relu", "spec.encoder.activation must be a function, got 'relu'"),
    "network of another kind": ("encoder", PLAIN["decoder"], "the VAE does not take images uint8[4, 4, 1]"),
}
# Of the whole model, under the name that it has in the file.
WHOLE: dict[str, tuple[Any, str]] = {
    "null": (None, " must be an object, got None"),
    "text": ("VAE", " must be an object, got 'VAE'"),
    "list": ([], " must be an object, got []"),
    "empty": ({}, "unknown type None at "),
    "a part": (
        PLAIN["encoder"],
        "or a tokenizer or a GAN of latents or a VAE of latents, got {",
    ),
    "a function": (
        {"named": "relu"},
        " or a tokenizer or a GAN of latents or a VAE of latents, got {'named': 'relu'}",
    ),
    "without fields": ({"type": "GAN"}, "fields do not fit GAN"),
}
# Of config.json alone.
FIELDS: dict[str, tuple[str, Any, str]] = {
    "format as truth": ("format", True, "config.format must be int"),
    "format as object": ("format", {"a": {}}, "config.format must be int"),
    "another format": ("format", 10**400, "config.format must be int"),
    "identity as list": ("identity", [], "identity must be an object, got []"),
    "no identity": ("identity", ..., "identity is missing"),
    "no model": ("identity.model", ..., "identity.model is missing"),
    "no data": ("identity.data", ..., "identity.data is missing"),
    "data as null": ("identity.data", None, "identity.data must be an object"),
    "no shape": ("identity.data.image_shape", ..., "identity.data.image_shape is missing"),
    "shape as number": ("identity.data.image_shape", 28, "identity.data.image_shape must be [int], got 28"),
    "shape of none": ("identity.data.image_shape", [], "identity.data.image_shape must be 1 to 4 sizes"),
    "shape of text": ("identity.data.image_shape", ["4"], "identity.data.image_shape must be [int]"),
    "shape of truths": ("identity.data.image_shape", [True], "identity.data.image_shape must be [int]"),
    "shape of five": ("identity.data.image_shape", [1] * 5, "identity.data.image_shape must be 1 to 4 sizes"),
    "shape below zero": ("identity.data.image_shape", [4, -4, 1], "identity.data.image_shape must be 1 to 4 sizes"),
    "absurd shape": ("identity.data.image_shape", [10**9] * 3, "identity.data.image_shape must be 1 to 4 sizes"),
    "type": ("identity.data.image_type", "object", "identity.data.image_type must be 'uint8' or 'bool' or 'float32'"),
    "labels": ("identity.data.labels", "no", "identity.data.labels must be bool, got 'no'"),
    "name of the data": ("identity.data.name", 3, "identity.data.name must be str"),
    "number of images": ("identity.data.num_examples", 0, "identity.data.num_examples must be at least 1"),
    "hash": ("identity.data.sha256", ..., "identity.data.sha256 is missing"),
    "seed": ("identity.seed", "0", "identity.seed must be int, got '0'"),
    "huge seed": ("identity.seed", 10**400, "identity.seed must be int"),
    "no seed": ("identity.seed", ..., "identity.seed is missing"),
    "batch size": ("identity.batch_size", -1, "identity.batch_size must be at least 1"),
    "sweep": ("identity.sweep", [], "identity.sweep must be an object"),
    "sweep over": ("identity.sweep", {"over": {"beta": "x"}, "seeds": 1}, "identity.sweep.over must be an object"),
    "sweep's seeds": ("identity.sweep", {"over": {}, "seeds": 0}, "identity.sweep.seeds must be at least 1"),
    "settings": ("settings", None, "settings must be an object"),
    "options": ("settings.options", [], "settings.options must be an object, got []"),
    "family": ("settings.family", 1, "settings.family must be str"),
    "versions": ("versions", [], "versions must be an object"),
    "long text": ("settings.options.dataset", LONG[:50_000], "config.settings.options.dataset is a text of 50,000"),
    "many values": ("settings.options.hidden", [0] * 200_000, "config.settings.options.hidden has too many values"),
    "deep": ("settings.options.hidden", nested("list", 40), "is nested too deeply: at most 32 levels"),
}
# As bytes.
TEXTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "Expecting value"),
    "null": (b"null", "config must be an object"),
    "list": (b"[]", "config must be an object"),
    "text": (b'"x"', "config must be an object"),
    "deep": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "config is nested too deeply"),
    "deep lists": (b"[" * 200_000, "config is nested too deeply"),
    "not UTF-8": (b'{"format": "\xff"}', "can't decode byte 0xff"),
    "twice": (json.dumps(CONFIG)[:-1].encode() + b', "format": 2}', "the name 'format' stands twice"),
    "digits": (b'{"format": ' + b"9" * 5000 + b"}", "digits"),
    "too large": (b" " * 1_000_001, "config is too large: at most 1,000,000 bytes"),
    "brackets": (b"[" + b"[]," * 300_000 + b"[]]", "config has too many values"),
    "zeros": (bytes(1000), "is not the config of a run"),
}
OPTIONS: dict[str, tuple[str, Any, str]] = {
    "no family": ("family", ..., "settings.family is missing"),
    "another family": ("family", "flow", "settings.family must be one of vae, gan, tokenizer, got 'flow'"),
    "no options": ("options", ..., "settings.options is missing"),
    "text for a number": ("options.batch_size", "16", "settings.options.batch_size must be int, got '16'"),
    "number for a path": ("options.data_dir", 3, "settings.options.data_dir must be path or null, got 3"),
    "path with a zero": ("options.workdir", ["a"], "settings.options.workdir must be"),
    "object": ("options.hidden", {"a": 1}, "settings.options.hidden must be [int, ...], got {'a': 1}"),
    "choice": ("options.likelihood", "normal", "settings.options.likelihood must be 'bernoulli' or"),
    "not a number": ("options.beta", float("nan"), "settings.options.beta must be float, got nan"),
    "null": ("options.dataset", None, "settings.options.dataset must be str, got None"),
}


def changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The config with another value at a field, or without the field."""
    config = copy.deepcopy(config)
    *parents, last = path.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return config


def write(folder: Path, config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of the model."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    state = models.init(VAE, jax.random.key(0))
    weights.save_weights(path, VAE, state, image_shape=(4, 4, 1), image_type="uint8", record={"loss": float("nan")})
    return path


@pytest.fixture(scope="module")
def arrays(file: Path) -> dict[str, np.ndarray]:
    return load_file(file)


@pytest.fixture(scope="module")
def described(file: Path) -> dict[str, Any]:
    return weights.read_arrays(file).record


def test_the_good_ones_load(file: Path, tmp_path: Path) -> None:
    assert weights.load_weights(file).spec == VAE
    run = Run.open(write(tmp_path, CONFIG))
    assert run.spec == VAE
    run.shapes()
    assert saved_options(run) == MLPVAEOptions(hidden=(16,), data_dir=Path("/somewhere"), seed=3)


@pytest.mark.parametrize("name", MODEL)
def test_models(name: str, tmp_path: Path, arrays: dict[str, np.ndarray], described: dict[str, Any]) -> None:
    field, value, names = MODEL[name]
    hostile = changed(PLAIN, field, value)
    with cheap(), pytest.raises(ValueError) as caught:  # noqa: PT011 - below
        Run.open(write(tmp_path, changed(CONFIG, "identity.model", hostile))).shapes()
    in_config = re.sub(r"\bspec\b", "model", names)
    # What is too large for any config is refused before the model is looked at.
    one_line(caught.value, "config" if "config.identity" in str(caught.value) else in_config, "config.json")
    path = tmp_path / "bad.safetensors"
    save_file(arrays, path, {"jaxgen": json.dumps({**described, "spec": hostile})})
    with cheap(), pytest.raises(ValueError) as caught:  # noqa: PT011
        jaxgen.load(path)
    one_line(caught.value, "spec" if "record.spec" in str(caught.value) else names, "bad.safetensors")


@pytest.mark.parametrize("name", WHOLE)
def test_whole_models(name: str, tmp_path: Path, arrays: dict[str, np.ndarray], described: dict[str, Any]) -> None:
    value, names = WHOLE[name]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Run.open(write(tmp_path, changed(CONFIG, "identity.model", value))).shapes()
    one_line(caught.value, names, "config.json")
    assert "model" in str(caught.value)
    save_file(arrays, tmp_path / "bad.safetensors", {"jaxgen": json.dumps({**described, "spec": value})})
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        weights.load_weights(tmp_path / "bad.safetensors")
    one_line(caught.value, names, "bad.safetensors")
    assert "spec" in str(caught.value)


@pytest.mark.parametrize("name", FIELDS)
def test_configs(name: str, tmp_path: Path) -> None:
    path, value, names = FIELDS[name]
    with cheap(), pytest.raises(ValueError, match="is not the config of a run") as caught:
        Run.open(write(tmp_path, changed(CONFIG, path, value)))
    one_line(caught.value, names, "config.json")


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str, tmp_path: Path) -> None:
    text, names = TEXTS[name]
    (tmp_path / "config.json").write_bytes(text)
    with cheap(), pytest.raises(ValueError, match="is not the config of a run") as caught:
        Run.open(tmp_path)
    one_line(caught.value, names, "config.json")


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str, tmp_path: Path) -> None:
    path, value, names = OPTIONS[name]
    run = Run.open(write(tmp_path, changed(CONFIG, f"settings.{path}", value)))
    with pytest.raises(ValueError, match="holds no options") as caught:
        saved_options(run)
    one_line(caught.value, names, "config.json")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"image_shape": [4, "4", 1]}, "image_shape must be [int], got [4, '4', 1]"),
        ({"image_shape": [2**40, 2**40, 1]}, "image_shape must be 1 to 4 sizes"),
        ({"image_shape": [4, 4, 3]}, "the VAE does not take images|does not hold the arrays"),
        ({"image_type": "float16"}, "image_type must be"),
        ({"floats": "bfloat16"}, "floats must be 'float32' or 'float16', got 'bfloat16'"),
        ({"floats": {}}, "floats must be"),
        ({"record": []}, "record must be an object, got []"),
        ({"arrays_sha256": None}, "arrays_sha256 must be str"),
        ({"format": {"a": [1] * 1000}}, "is of format {'a': [1, 1"),
        ({"record": {"a": nested("list", 40)}}, "is nested too deeply"),
        ({"record": {"a": "x" * 900_000}}, "record.record.a is a text of 900,000 letters"),
        ({"record": {"a": "x" * 1_000_000}}, "record is too large"),
    ],
)
def test_records(
    changes: dict[str, Any], names: str, tmp_path: Path, arrays: dict[str, np.ndarray], described: dict[str, Any]
) -> None:
    path = tmp_path / "bad.safetensors"
    save_file(arrays, path, {"jaxgen": json.dumps({**described, **changes})})
    with cheap(), pytest.raises(ValueError) as caught:  # noqa: PT011
        weights.load_weights(path)
    one_line(caught.value, next((n for n in names.split("|") if n in str(caught.value)), names), "bad.safetensors")


@pytest.mark.parametrize("missing", ["image_shape", "image_type", "floats", "record", "arrays_sha256"])
def test_records_that_lack_something(
    missing: str, tmp_path: Path, arrays: dict[str, np.ndarray], described: dict[str, Any]
) -> None:
    save_file(arrays, tmp_path / "bad.safetensors", {"jaxgen": json.dumps(changed(described, missing, ...))})
    with pytest.raises(ValueError, match=f"{missing} is missing") as caught:
        weights.load_weights(tmp_path / "bad.safetensors")
    one_line(caught.value, missing, "bad.safetensors")


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        header(b""),
        header(b"null"),
        header(b"[" * 100_000),
        header(b'{"a":' * 5000 + b"1" + b"}" * 5000),
        header(b'{"__metadata__": null}'),
        header(b'{"__metadata__": {"jaxgen": 3}}'),
        header(b'{"__metadata__": {"jaxgen": "[[[["}}'),
        header(json.dumps({"__metadata__": {"jaxgen": "[" * 100_000}}).encode()),
        header(json.dumps({"__metadata__": {"jaxgen": "[" + "[]," * 300_000 + "[]]"}}).encode()),
        header(b'{"__metadata__": {"jaxgen": "{}", "jaxgen": "{}"}}'),
        header(b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}') + bytes(4),
        header(b'{"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}') + bytes(4),
        header(b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}') + bytes(4),
        header(b" " * 4_000_001),
        struct.pack("<Q", 2**62) + b"{}",
    ],
    ids=range(17),
)
def test_headers(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with cheap(), pytest.raises(ValueError) as caught:  # noqa: PT011
        weights.load_weights(path)
    one_line(caught.value, "", "bad.safetensors")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_waited_for(make: Callable[[Path], None], tmp_path: Path) -> None:
    for name, read in (
        ("config.json", Run.open),
        ("model.safetensors", lambda f: weights.load_weights(f / "model.safetensors")),
    ):
        make(tmp_path / name)
        with pytest.raises(FileNotFoundError) as caught:
            read(tmp_path)
        one_line(caught.value, "", name)


def test_long_paths_leave_room_for_the_field(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40) / ("deep\n" * 20)
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"config\.json .*identity\.seed must be int, got '0'") as caught:
        Run.open(write(folder, changed(CONFIG, "identity.seed", "0")))
    one_line(caught.value, "identity.seed", "config.json")


def test_commands_say_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved_run(tmp_path, "vae")
    hostile = changed(CONFIG, "identity.model.encoder", nested("vae", 20))
    for config, command in (
        (hostile, lambda: sample.main([str(tmp_path), "--out", str(tmp_path / "a.png")])),
        (changed(CONFIG, "identity.data", ...), lambda: sample.main([str(tmp_path), "--out", str(tmp_path / "a.png")])),
        (
            changed(CONFIG, "settings.options.hidden", "16"),
            lambda: train.main(["vae", "--resume", "--workdir", str(tmp_path)]),
        ),
    ):
        write(tmp_path, config)
        assert command() == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert len(error) <= 310
        assert "config.json" in error


@dataclasses.dataclass(frozen=True)
class Decay:
    """A user's schedule, whose hints cannot be read."""

    rate: "Unheard"  # type: ignore[name-defined] # noqa: F821

    def __call__(self, step: jax.Array) -> jax.Array:
        return step * self.rate


class Wide(networks.MLPEncoder):
    """A user's network."""

    inner: networks.MLPEncoder | None = None


def test_a_class_may_have_another_name_than_its_own() -> None:
    runs.register("my.decay", Decay)
    runs.register("my.encoder", Wide)
    spec = dataclasses.replace(VAE, beta=Decay(0.5), encoder=Wide(16, inner=networks.MLPEncoder(16)))
    described = runs.to_plain(spec)
    assert (described["beta"], described["encoder"]["type"]) == ({"type": "my.decay", "rate": 0.5}, "my.encoder")
    assert runs.from_plain(json.loads(json.dumps(described))) == spec
    with pytest.raises(ValueError, match=r"spec\.encoder\.inner must be MLPEncoder or null, got 3"):
        runs.from_plain(changed(described, "encoder.inner", 3))
    with pytest.raises(TypeError, match="no name for the config"):
        runs.to_plain(Decay)


SPECS: dict[str, Callable[[], Any]] = {
    **MODELS,
    "options of a gan": lambda: GANOptions(penalty="r1_r2", augmentation="adaptive").spec((32, 32, 3)),
    "options of a dlgm": lambda: VAEOptions(upper_latent_dims=(5,), beta_warmup=3).spec((28, 28, 1)),
    "schedules": lambda: dataclasses.replace(
        VAE,
        beta=schedules.Piecewise((1, 2), (0.0, 0.5, 1.0)),
        optimizer=runs.optimizer("adam", learning_rate=schedules.Cosine(1.0, 0.0, 5)),
        likelihood=losses.DiscretizedLogisticMixture(3),
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_plain_data_stay_as_they_are(name: str) -> None:
    spec = SPECS[name]()
    described = runs.to_plain(spec)
    rebuilt = runs.from_plain(json.loads(json.dumps(described)))
    assert rebuilt == spec
    assert runs.to_plain(rebuilt) == described


@pytest.mark.parametrize("family", FAMILIES)
def test_all_options_are_read_back(family: str, tmp_path: Path) -> None:
    options = FAMILIES[family]()
    values = {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(options).items()}
    config = changed(CONFIG, "settings", {"family": family, "options": values})
    assert saved_options(Run.open(write(tmp_path, config))) == options


def test_what_could_not_be_read_is_not_written() -> None:
    deep: Any = networks.Conv(1, (1, 1))
    for _ in range(10):
        deep = networks.Conv(1, (1, 1), axis_name=deep)
    with pytest.raises(ValueError, match="is nested too deeply: at most 10 levels"):
        runs.to_plain(deep)
    with pytest.raises(ValueError, match=r"spec\.use_bias must be bool, got 1"):
        runs.to_plain(networks.Conv(1, (1, 1), use_bias=1))  # type: ignore[arg-type]
