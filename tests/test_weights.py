"""A model as one file: what comes back is what samples, and what is not such a file is refused by name."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxgen
from jaxgen import networks, weights
from jaxgen.training.run import Run, optimizer, to_plain
from tests import models

OPTIMIZER = optimizer("adam", learning_rate=1e-3)


def portable(spec: Any) -> Any:
    """A spec of the tests with optimizers that have a name."""
    fields = [field.name for field in dataclasses.fields(spec) if field.name.endswith("optimizer")]
    return dataclasses.replace(spec, **dict.fromkeys(fields, OPTIMIZER))


SPECS = {
    "vae": lambda: portable(models.vae()),
    "dlgm": lambda: portable(models.dlgm()),
    "vamp": lambda: portable(models.vamp_vae()),
    "gan": lambda: portable(models.gan()),
    "dcgan": lambda: portable(models.dcgan()),  # conditional, BatchNorm, a moving average
    "tokenizer": lambda: portable(  # a codebook among its collections, a moving average
        models.tokenizer(bottleneck=networks.VQBottleneck(6, 2, decay=0.9), ema_decay=0.9, lecam_weight=0.1)
    ),
}
trained_states: dict[str, Any] = {}


def trained(name: str) -> tuple[Any, Any]:
    """A spec and a state in which nothing is as it was initialised, the moving average neither; made once."""
    if name not in trained_states:
        spec = SPECS[name]()
        state = models.init(spec, jax.random.key(0))
        random = np.random.default_rng(0)

        def moved(leaf: jax.Array) -> jax.Array:
            return leaf + jnp.asarray(0.01 * random.normal(size=leaf.shape), leaf.dtype)

        fields = [field for field in state._fields if field not in ("step", "hyperparams")]
        changed = {field: jax.tree.map(moved, getattr(state, field)) for field in fields}
        trained_states[name] = spec, state._replace(**changed, step=jnp.ones((), jnp.int32))
    return trained_states[name]


def saved_run(folder: Path, name: str) -> Run:
    """A run directory with a checkpoint and a row of its evaluation, as ``train.py`` leaves it."""
    spec, state = trained(name)
    data = {"name": "some", "image_shape": list(models.IMAGE_SHAPE), "image_type": "uint8", "labels": True}
    run = Run.create(folder, {"model": to_plain(spec), "data": data, "batch_size": 16, "seed": 3}, {})
    with run.checkpoints() as checkpoints:
        checkpoints.save(1, {"state": state}, notes={"config": run.config})
        checkpoints.wait()
    rows = [{"step": 1, "elbo": -3.0}, {"step": 1, "test_elbo": -2.0, "active_units": 1.0, "time_evaluation": 1.0}]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return run


def save(path: Path, name: str, **options: Any) -> None:
    spec, state = trained(name)
    weights.save_weights(path, spec, state, image_shape=models.IMAGE_SHAPE, image_type="uint8", **options)


def draw(spec: Any, state: Any) -> jax.Array:
    if isinstance(spec, jaxgen.Tokenizer):  # which draws nothing: what it makes of images
        return jaxgen.tokenizer_reconstruct(spec, state, models.batch(4))
    label = None if weights.num_classes(spec) is None else np.arange(4)
    sample: Any = jaxgen.gan_sample if isinstance(spec, jaxgen.GAN) else jaxgen.vae_sample
    return sample(spec, state, jax.random.key(2), 4, label)


def slow(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", ["dcgan", "vamp", "tokenizer", *slow("dlgm", "vae", "gan")])
def test_what_samples_comes_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    record = {"command": "train.py", "numbers": {"test_elbo": -1.5}}
    save(path, name, record=record)
    spec, state = trained(name)
    found: Any = weights.load_weights(path)
    assert found.spec == spec
    assert found[2:] == (models.IMAGE_SHAPE, "uint8", record)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.state, state)
    chex.assert_trees_all_equal(draw(spec, found.state), draw(spec, state))
    chex.assert_trees_all_equal(found.state.hyperparams, state.hyperparams)
    assert int(found.state.step) == 1
    if name not in ("vae", "tokenizer"):
        return
    # It can be trained on, from fresh optimizers.
    chex.assert_trees_all_equal(found.state.optimizer_state, spec.optimizer.init(state.params))
    onward, _ = models.step(spec)(spec, found.state, models.batch(), jax.random.key(1))
    assert models.finite(onward)


def test_the_stored_generator_is_the_moving_average(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", "dcgan")
    _, state = trained("dcgan")
    arrays = load_file(tmp_path / "model.safetensors")
    stored = arrays["generator/project/kernel"]
    np.testing.assert_array_equal(stored, state.ema["params"]["project"]["kernel"])
    assert np.any(stored != state.generator_params["project"]["kernel"])
    prefixes = {name.split("/")[0] for name in arrays}
    assert prefixes == {
        *("generator", "generator_collections", "discriminator", "discriminator_collections"),
        *("hyperparams", "step"),
    }


def test_half_precision_rounds_the_weights_and_nothing_else(tmp_path: Path) -> None:
    for dtype in ("float32", "float16"):
        save(tmp_path / f"{dtype}.safetensors", "dcgan", dtype=dtype)
    spec, state = trained("dcgan")
    half: Any = weights.load_weights(tmp_path / "float16.safetensors").state
    chex.assert_trees_all_equal_shapes_and_dtypes(half, state)
    chex.assert_trees_all_equal(half.hyperparams, state.hyperparams)
    kernel = state.ema["params"]["project"]["kernel"]
    np.testing.assert_array_equal(half.generator_params["project"]["kernel"], kernel.astype(jnp.float16))
    np.testing.assert_allclose(draw(spec, half), draw(spec, state), atol=1e-2)
    full = weights.load_weights(tmp_path / "float32.safetensors")
    # The rounded model, stored in full, is not rounded again.
    weights.save_weights(tmp_path / "again.safetensors", spec, half, **{k: getattr(full, k) for k in full._fields[2:4]})
    chex.assert_trees_all_equal(weights.load_weights(tmp_path / "again.safetensors").state, half)


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    spec, state = trained("vae")
    path = tmp_path / "model.safetensors"
    of: dict[str, Any] = {"image_shape": models.IMAGE_SHAPE, "image_type": "uint8"}
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        weights.save_weights(tmp_path / "model.npz", spec, state, **of)
    with pytest.raises(TypeError, match="state must be a GANState, got VAEState"):
        weights.save_weights(path, trained("gan")[0], state, **of)
    with pytest.raises(TypeError, match=r"no name for the config.*register"):
        weights.save_weights(path, models.vae(), state, **of)
    with pytest.raises(ValueError, match="float32 or float16, got 'bfloat16'"):
        weights.save_weights(path, spec, state, **{**of, "dtype": "bfloat16"})
    larger = dataclasses.replace(spec, encoder=networks.MLPEncoder(models.LATENT_DIM, hidden=(17,)))
    with pytest.raises(ValueError, match=r"not one of this spec and of images \[4, 4, 1\]: encoder/.*kernel: saved"):
        weights.save_weights(path, larger, state, **of)
    for value, error in ((1e6, "up to 1000000.0, which float16 does not hold: store float32"), (np.nan, "no use")):
        broken = jax.tree.map(lambda leaf, value=value: leaf.at[0].set(value), state.params["encoder"])
        with pytest.raises(ValueError, match=error):
            weights.save_weights(
                path, spec, state._replace(params={**state.params, "encoder": broken}), **of, dtype="float16"
            )
    with pytest.raises(TypeError, match="not JSON serializable"):
        weights.save_weights(path, spec, state, **of, record={"what": object()})
    assert not path.exists()


def test_files_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, "vae")
    arrays = load_file(path)
    contents = path.read_bytes()
    header = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")])
    described = json.loads(header["__metadata__"]["jaxgen"])

    def written(arrays: dict[str, np.ndarray], **fields: Any) -> Path:
        save_file(arrays, path, {"jaxgen": json.dumps({**described, **fields})})
        return path

    def refused(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            weights.load_weights(path)

    with pytest.raises(FileNotFoundError):
        weights.load_weights(tmp_path / "nothing.safetensors")
    path.write_bytes(contents[:-10])
    refused(r"model\.safetensors is no whole \.safetensors file")
    path.write_bytes(b"no safetensors at all")
    refused("is no whole")
    path.write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
    refused("damaged: its arrays do not have the hash")
    save_file(arrays, path, {"jaxgen": "{no json"})
    refused("is no whole")
    save_file(arrays, path)
    refused("holds no model of jaxgen's")
    written(arrays, format=2)
    refused("is of format 2, this jaxgen reads 1")
    written(arrays, spec={"type": "Unheard"})
    refused("no model that this jaxgen can make: unknown type 'Unheard'")
    written(arrays, image_shape=None)
    refused("no model that this jaxgen can make")
    some = sorted(arrays)[1]
    written({name: array for name, array in arrays.items() if name != some})
    refused(f"does not hold the arrays of its VAE: {some}: saved nothing, wanted float32")
    written({**arrays, "more": np.zeros(2, np.float32)})
    refused(r"more: saved float32\[2\], wanted nothing")
    written({**arrays, some: arrays[some].astype(np.float16)})
    refused(f"{some}: saved float16")
    written(arrays)
    assert weights.load_weights(path).spec == trained("vae")[0]


def test_without_safetensors_an_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "safetensors"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        save(tmp_path / "model.safetensors", "vae")
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        weights.load_weights(tmp_path / "model.safetensors")
