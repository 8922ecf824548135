"""Exported programs give the images of `gan_sample` and `vae_sample` in a process that has neither jaxgen nor Flax."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import export as jax_export

import jaxgen
from jaxgen import weights
from jaxgen.cli import export
from tests import models
from tests.test_weights import save, saved_run, trained

NAMES = ("dcgan", "dlgm")  # conditional; of two stochastic layers
SIZES = (1, 7)

# Runs where jaxgen and Flax cannot be imported: JAX alone.
OUTSIDE = """
import runpy, sys
from pathlib import Path
sys.modules["jaxgen"] = sys.modules["flax"] = sys.modules["experiments"] = None
import jax, jax.numpy as jnp, numpy as np
from jax import export
key = jax.random.key_data(jax.random.key(5))
images = {}
for folder in map(Path, sys.argv[2:]):
    program = export.deserialize(bytearray((folder / "sampler.jaxexport").read_bytes()))
    for size in SIZES:
        numbers = jnp.arange(size, dtype=jnp.int32)
        label = (numbers % 10,) if len(program.in_avals) == 3 else ()
        images[f"{folder.name} {size}"] = jax.jit(program.call)(key, numbers, *label)
np.savez(sys.argv[1], **images)
runpy.run_path(str(folder.with_name("dcgan") / "use.py"))
"""


def run(*arguments: Any) -> int:
    return export.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An export of each model."""
    scratch = tmp_path_factory.mktemp("exports")
    for name in NAMES:
        save(scratch / f"{name}.safetensors", name)
        assert run(scratch / f"{name}.safetensors", "--out", scratch / name, "--platforms", "cpu", "tpu") == 0
    return {name: scratch / name for name in NAMES}


def test_the_samples_are_the_same_without_jaxgen(folders: dict[str, Path], tmp_path: Path) -> None:
    program = OUTSIDE.replace("SIZES", str(SIZES))
    command = [sys.executable, "-W", "error", "-c", program, tmp_path / "images.npz", *folders.values()]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "images.npz")
    assert len(found.files) == len(NAMES) * len(SIZES)
    for name in NAMES:
        spec: Any
        spec, _ = trained(name)
        state: Any = weights.load_weights(folders[name].with_suffix(".safetensors")).state
        draw: Any = jaxgen.gan_sample if isinstance(spec, jaxgen.GAN) else jaxgen.vae_sample
        for size in SIZES:
            label = np.arange(size) % 10 if name == "dcgan" else None
            expected = draw(spec, state, jax.random.key(5), size, label)
            np.testing.assert_array_equal(found[f"{name} {size}"], expected)  # bit for bit
        assert np.ptp(found[f"{name} 7"], axis=0).max() > 1e-4  # they do differ
    assert done.stdout.startswith("(16, 4, 4, 1) float32")  # what use.py says
    assert len((folders["dcgan"] / "use.py").read_text().splitlines()) <= 14


def test_decoder_and_encoder_are_those_of_the_model(folders: dict[str, Path]) -> None:
    model = jaxgen.load(folders["dlgm"] / "parameters.safetensors")
    programs = {
        name: jax_export.deserialize(bytearray((folders["dlgm"] / f"{name}.jaxexport").read_bytes()))
        for name in ("encoder", "decoder")
    }
    images = models.batch(3)["image"].astype(np.float32) / 255
    z = programs["encoder"].call(images)
    assert set(z) == {"z"}
    np.testing.assert_allclose(z["z"], model.encode(images), atol=1e-5)
    np.testing.assert_allclose(programs["decoder"].call(z["z"]), model.decode(z["z"]), atol=1e-6)


def test_the_manifest_tells_what_is_there(folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["platforms"] == ["cpu", "tpu"]
        assert {path.name for path in folder.iterdir()} == {
            *("manifest.json", "use.py", "parameters.safetensors"),
            *(program["file"] for program in manifest["programs"].values()),
        }
        assert set(manifest["programs"]) == {"sampler", "decoder", *(["encoder"] if name == "dlgm" else [])}
        for described in [manifest["parameters"], *manifest["programs"].values()]:
            contents = (folder / described["file"]).read_bytes()
            assert hashlib.sha256(contents).hexdigest() == described["sha256"]
        for described in manifest["programs"].values():
            program = jax_export.deserialize(bytearray((folder / described["file"]).read_bytes()))
            assert program.platforms == ("cpu", "tpu")
            for arrays, avals in (("inputs", program.in_avals), ("outputs", program.out_avals)):
                said = [(list(map(str, array["shape"])), array["dtype"]) for array in described[arrays]]
                # A dictionary's outputs are in the order of their names.
                assert sorted(said) == sorted((list(map(str, aval.shape)), str(aval.dtype)) for aval in avals)


def test_programs_hold_the_weights_they_use_and_no_others(folders: dict[str, Path]) -> None:
    """Discriminators and encoders stay behind: with them, samplers would be several times larger."""
    model = jaxgen.load(folders["dcgan"] / "parameters.safetensors")
    state: Any = model.state
    traced = jax.make_jaxpr(export.programs_of(model)["decoder"].function)(
        np.zeros((1, 3), np.float32), np.zeros(1, int)
    )
    used = [state.ema, state.hyperparams, state.step]
    assert len(traced.consts) == len(jax.tree.leaves(used)) < len(jax.tree.leaves(state))


def test_a_run_as_one_file_says_how_it_was_made(tmp_path: Path, key: jax.Array) -> None:
    saved_run(tmp_path / "run", "vae")
    out = tmp_path / "model.safetensors"
    assert run(tmp_path / "run", "--out", out, "--dtype", "float16", "--notes", "hardware", "two cores") == 0
    model = jaxgen.load(out)
    assert model.record["numbers"] == {"test_elbo": -2.0, "active_units": 1.0}
    assert {name: model.record[name] for name in ("steps", "seed", "hardware")} == {
        "steps": 1,
        "seed": 3,
        "hardware": "two cores",
    }
    # What was said of a model goes on with it.
    assert run(out, "--out", tmp_path / "again.safetensors") == 0
    assert jaxgen.load(tmp_path / "again.safetensors").record == model.record
    np.testing.assert_allclose(model.sample(key, 4), jaxgen.load(tmp_path / "run").sample(key, 4), atol=1e-2)


def test_what_cannot_be_is_refused(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = folders["dcgan"] / "parameters.safetensors"
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "precious.txt").write_text("mine")
    for arguments, error in [
        ((model, "--out", tmp_path / "x", "--platforms", "cpu", "abacus"), "choose from cpu, cuda, rocm, tpu"),
        ((model, "--out", tmp_path / "x", "--platforms", "cpu", "cpu"), "one is named twice"),
        ((model, "--out", tmp_path / "x", "--checkpoint", "last"), "--checkpoint must be newest, best or a step"),
        ((model, "--out", taken), "exists and is no export"),
        (("no-such-model", "--out", tmp_path / "x"), "the pretrained ones are"),
    ]:
        assert run(*arguments) == 1
        assert error in capsys.readouterr().err
    assert (taken / "precious.txt").read_text() == "mine"

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "flatbuffers" else find_spec(name))
    assert run(model, "--out", tmp_path / "x") == 1
    assert "pip install flatbuffers" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_export_is_replaced_whole_or_not_at_all(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = folders["dcgan"] / "parameters.safetensors"
    out = tmp_path / "export"
    out.mkdir()
    assert run(model, "--out", out, "--platforms", "cpu") == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    written = export.exported

    def fails(program: Any, platforms: Any) -> Any:
        if "z" in [array.name for array in program.inputs]:
            raise OSError("the disk is full")
        return written(program, platforms)

    monkeypatch.setattr(export, "exported", fails)
    assert run(model, "--out", out, "--platforms", "tpu") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    monkeypatch.setattr(export, "exported", written)
    assert run(model, "--out", out, "--platforms", "tpu") == 0
    assert json.loads((out / "manifest.json").read_text())["platforms"] == ["tpu"]
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_every_platform_is_one_that_jax_can_lower_for() -> None:
    for platform in export.PLATFORMS:
        text = jax_export.export(jax.jit(lambda x: x + 1), platforms=[platform])(np.ones(1, np.float32))
        assert text.platforms == (platform,)
