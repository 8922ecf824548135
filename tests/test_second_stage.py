"""A second stage: a GAN or a VAE of a tokenizer's latents is that model and the tokenizer, and nothing else."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import losses, networks, weights
from jaxgen.cli import evaluate, explore, export, latent_data, sample, train
from jaxgen.cli.parsing import parse
from jaxgen.evaluation import measures
from jaxgen.families import family_of
from jaxgen.plain import from_plain, to_plain
from jaxgen.second_stage import without_tokenizer
from jaxgen.trained import Trained
from jaxgen.training.run import Run
from tests import models
from tests.test_tokenizer_doors import SMALL, refused, save

SPECS: dict[str, Any] = {"gan": models.latent_gan(), "vae": models.latent_vae()}


@pytest.fixture(scope="module")
def spoilt() -> dict[str, Any]:
    """Tokenizers' states whose latents have a mean and a deviation, by the kind of their second stage."""
    found = {}
    for name, spec in SPECS.items():
        whole = dataclasses.replace(spec.tokenizer, ema_decay=0.5)
        state = models.init(whole, jax.random.key(3))
        size = spec.tokenizer.latent_shape[-1]
        state.hyperparams["latent_mean"] = 0.1 + 0.2 * jnp.arange(size)
        state.hyperparams["latent_std"] = 0.5 + 0.25 * jnp.arange(size)
        # The averages are what is used: let them differ from the parameters.
        state = state._replace(ema=jax.tree.map(lambda leaf: 1.5 * leaf, state.ema))
        found[name] = (whole, state)
    return found


def states(name: str, spoilt: dict[str, Any], key: jax.Array) -> tuple[Any, Any, Any]:
    """(the second stage, its first state, the frozen tokenizer's)."""
    spec, (whole, state) = SPECS[name], spoilt[name]
    bare, frozen = jaxgen.tokenizer_frozen(whole, state)
    assert bare == spec.tokenizer
    return spec, jaxgen.latent_init(spec, key, models.batch(), frozen), frozen


@pytest.mark.parametrize("name", SPECS)
def test_a_frozen_tokenizer_is_the_same_one(name: str, spoilt: dict[str, Any]) -> None:
    whole, state = spoilt[name]
    bare, frozen = jaxgen.tokenizer_frozen(whole, state)
    latents = jaxgen.tokenizer_encode(whole, state, models.batch())
    chex.assert_trees_all_equal(jaxgen.tokenizer_encode(bare, frozen, models.batch()), latents)
    images = jaxgen.tokenizer_decode(whole, state, latents)
    chex.assert_trees_all_equal(jaxgen.tokenizer_decode(bare, frozen, latents), images)
    assert jax.tree.leaves(frozen.optimizer_state) == []
    assert sum(leaf.size for leaf in jax.tree.leaves(frozen)) < sum(leaf.size for leaf in jax.tree.leaves(state)) / 2


@pytest.mark.parametrize("name", SPECS)
def test_a_step_is_that_of_the_model_on_latents(name: str, spoilt: dict[str, Any], key: jax.Array) -> None:
    spec, state, frozen = states(name, spoilt, key)
    batch = models.batch()
    label = {"label": batch["label"]} if name == "gan" else {}
    latents: Any = {"image": jaxgen.tokenizer_encode(spec.tokenizer, frozen, batch), **label}
    assert float(jnp.abs(latents["image"]).max()) > 1.0  # no images
    of_images = jaxgen.latent_step(spec, state, {"image": batch["image"], **label}, key)
    of_latents = jaxgen.latent_step(spec, state, latents, key)
    chex.assert_trees_all_close(of_images, of_latents, rtol=1e-5, atol=1e-6)
    step: Any = jaxgen.gan_step if name == "gan" else jaxgen.vae_step
    alone, metrics = jax.jit(lambda state, batch: step(spec, state, batch, key))(without_tokenizer(state), latents)
    chex.assert_trees_all_close((without_tokenizer(of_latents[0]), of_latents[1]), (alone, metrics), rtol=1e-6)
    chex.assert_trees_all_equal(of_latents[0].tokenizer, frozen)
    assert int(of_latents[0].step) == 1


@pytest.mark.parametrize("name", SPECS)
def test_what_it_makes_is_decoded(name: str, spoilt: dict[str, Any], key: jax.Array) -> None:
    spec, state, frozen = states(name, spoilt, key)
    family = family_of(spec)
    label = jnp.arange(5) if name == "gan" else None
    z = jax.random.normal(key, (5, models.LATENT_DIM))
    if name == "gan":
        made = jaxgen.gan_generate(spec, without_tokenizer(state), z, label)
        made = jaxgen.tokenizer_nearest(spec.tokenizer, frozen, made)
    else:
        made = spec.likelihood.mean(jaxgen.vae_decode(spec, without_tokenizer(state), z))
    images = jaxgen.tokenizer_decode(spec.tokenizer, frozen, made)
    np.testing.assert_allclose(family.decode(spec, state, z, label), images, rtol=1e-6)
    samples = family.sample(spec, state, key, 5, label)
    assert samples.shape == (5, *models.IMAGE_SHAPE)
    noise = family.noise(spec, key, jnp.arange(5))
    np.testing.assert_allclose(samples, family.decode(spec, state, noise, label), rtol=1e-6)
    # Every image has a gradient, through rounded codes too.
    slope = jax.grad(lambda z: jnp.sum(jnp.square(family.decode(spec, state, z, label))))(z)
    assert np.isfinite(slope).all()
    assert (np.abs(slope).max(axis=1) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_several_at_once_are_each_alone(name: str, spoilt: dict[str, Any], key: jax.Array) -> None:
    spec, _, frozen = states(name, spoilt, key)
    batch = {n: a for n, a in models.batch().items() if n == "image" or (n == "label" and name == "gan")}
    batch = jax.tree.map(jnp.asarray, batch)

    def trained(key: jax.Array) -> Any:
        state = jaxgen.latent_init(spec, key, batch, frozen)
        for _ in range(3):
            state, metrics = jaxgen.latent_step(spec, state, batch, key)
        return state, metrics

    keys = jax.random.split(key, 3)
    alone = [trained(each) for each in keys]
    chex.assert_trees_all_close(
        jax.vmap(trained)(keys), jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone), rtol=2e-4, atol=2e-5
    )


def test_a_vae_of_latents_encodes_and_rebuilds_images(spoilt: dict[str, Any], key: jax.Array) -> None:
    spec, state, frozen = states("vae", spoilt, key)
    family, batch = family_of(spec), {"image": jnp.asarray(models.batch()["image"])}
    latents = {"image": jaxgen.tokenizer_encode(spec.tokenizer, frozen, batch)}
    inside = without_tokenizer(state)

    @jax.jit  # whose batch is not looked at: latents are no images
    def own(latents: Any) -> Any:
        return (
            jaxgen.vae_encode_noise(spec, inside, latents),
            jaxgen.vae_reconstruct(spec, inside, latents, key),
            jaxgen.vae_evaluate(spec, inside, latents, key)["elbo"],
        )

    encoded, rebuilt, elbo = own(latents)
    np.testing.assert_allclose(family.encode(spec, state, batch), encoded, rtol=1e-5, atol=1e-6)
    images = jaxgen.tokenizer_decode(spec.tokenizer, frozen, rebuilt)
    np.testing.assert_allclose(family.reconstruct(spec, state, batch, key), images, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(family.evaluate(spec, state, batch, key)["elbo"], elbo, rtol=1e-5)
    # An ELBO of latents is none of images, beside whose it would be read.
    for measure in ("elbo", "log_likelihood"):
        why = measures.why_not(measure, spec, models.IMAGE_SHAPE, "bars", classifies=False)
        assert why is not None
        assert "VAE of latents has no" in why


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("dtype", ["float16", pytest.param("float32", marks=pytest.mark.slow)])
def test_one_file_holds_both(name: str, dtype: Any, spoilt: dict[str, Any], key: jax.Array, tmp_path: Path) -> None:
    spec, state, frozen = states(name, spoilt, key)
    described: Any = {"image_shape": models.IMAGE_SHAPE, "image_type": "uint8", "dtype": dtype}
    plain = dataclasses.replace(
        spec, **{f: jaxgen.plain.optimizer("adam", learning_rate=0.1) for f in optimizers(spec)}
    )
    bare = dataclasses.replace(spec.tokenizer, optimizer=jaxgen.plain.optimizer("adam", learning_rate=0.1))
    plain = dataclasses.replace(plain, tokenizer=bare, tokenizer_sha256="0" * 64)
    assert from_plain(to_plain(plain)) == plain
    weights.save_weights(tmp_path / "both.safetensors", plain, state, **described)
    model = jaxgen.load(tmp_path / "both.safetensors")
    assert model.spec == plain
    label = 3 if name == "gan" else None
    expected = Trained("itself", plain, state, models.IMAGE_SHAPE, "uint8").sample(key, 4, label)
    np.testing.assert_allclose(model.sample(key, 4, label), expected, atol=1e-6 if dtype == "float32" else 0.02)
    for each in ("latent_mean", "latent_std"):  # exact in any case
        np.testing.assert_array_equal(model.state.tokenizer.hyperparams[each], frozen.hyperparams[each])


def optimizers(spec: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(spec) if field.name.endswith("optimizer")]


def test_latents_are_moved_to_the_nearest_codes(key: jax.Array) -> None:
    fsq, lfq = networks.FSQBottleneck((4, 3)), networks.LFQBottleneck(3)
    z = jnp.array([[[[0.1, 0.7], [-3.0, 3.0]]]])
    np.testing.assert_array_equal(fsq.nearest(z)[0, 0], [[0.0, 1.0], [-1.0, 1.0]])
    np.testing.assert_array_equal(fsq.nearest(jnp.array([[[[0.9, 0.0]]]]))[0, 0, 0], [0.5, 0.0])  # of -1, -.5, 0, .5
    np.testing.assert_array_equal(lfq.nearest(jnp.array([[[[0.1, -2.0, 0.0]]]]))[0, 0, 0], [1.0, -1.0, -1.0])
    vq = networks.VQBottleneck(5, 3)
    variables = vq.init({"params": key, "dropout": key}, jnp.zeros((1, 1, 1, 3)), train=False)
    kinds: list[Any] = [(fsq, {}), (lfq, {}), (vq, variables)]
    for bottleneck, given in kinds:
        codes = jnp.arange(bottleneck.num_codes or 0)[None, None]
        latents: Any = bottleneck.apply(given, codes, method="embed")
        apart = 0.1 * jax.random.uniform(key, latents.shape, minval=-1.0)
        np.testing.assert_allclose(bottleneck.apply(given, latents + apart, method="nearest"), latents, atol=1e-6)
    slope = jax.grad(lambda z: jnp.sum(fsq.nearest(z)))(z)
    np.testing.assert_array_equal(slope, jnp.ones_like(z))
    with pytest.raises(ValueError, match="KLBottleneck has no codes that latents could be near to"):
        networks.KLBottleneck(2).nearest(z)


def test_what_makes_no_second_stage_is_refused(spoilt: dict[str, Any], key: jax.Array) -> None:
    spec, state, _ = states("gan", spoilt, key)
    with pytest.raises(ValueError, match="still has what only trains it: give what tokenizer_frozen returns"):
        dataclasses.replace(spec, tokenizer=models.tokenizer())
    with pytest.raises(TypeError, match=r"LatentGAN\.tokenizer must be a Tokenizer, got GAN"):
        dataclasses.replace(spec, tokenizer=models.gan())
    with pytest.raises(ValueError, match="nearest is for a tokenizer with codes, and KLBottleneck has none"):
        dataclasses.replace(models.latent_vae(), nearest=True)
    wrong = np.zeros((4, 8, 8, 1), np.uint8)
    with pytest.raises(ValueError, match=r"of shape \[8, 8, 1\] have latents \[4, 4, 2\], .* of latents \[2, 2, 2\]"):
        jaxgen.latent_step(spec, state, {"image": wrong, "label": np.zeros(4, np.int32)}, key)
    nan = {"image": np.full((4, 2, 2, 2), np.nan, np.float32), "label": np.zeros(4, np.int32)}
    with pytest.raises(ValueError, match="images must be finite, got values from nan"):
        jaxgen.latent_step(spec, state, nan, key)
    with pytest.raises(TypeError, match="state must be a LatentGANState, got GANState"):
        jaxgen.latent_step(spec, without_tokenizer(state), {"image": wrong}, key)
    with pytest.raises(ValueError, match=r"labels must be from 0 to 9, got values from 10 to 10"):
        jaxgen.latent_step(spec, state, {"image": models.batch()["image"], "label": np.full(16, 10)}, key)
    with pytest.raises(ValueError, match=r"image_shape must be .h, w, c., got .2, 2."):
        networks.GridGenerator((2, 2))
    assert spec.perceptual_sha256 is None
    assert losses.relativistic == spec.loss


TINY = ["--steps", "6", "--eval-every", "3", "--sample-every", "6", "--checkpoint-every", "2", "--batch-size", "10"]
SECOND = ["--width", "4", "--generator-blocks", "1", "--latent-dim", "4", "--burn-in", "6"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, a tokenizer of it, and a GAN of its latents."""
    place = tmp_path_factory.mktemp("stages")
    name = save(place / "bars.npz")
    words = ["--dataset", name, *TINY, *SMALL, "--channels", "2"]
    assert train.main(["tokenizer", *words, "--workdir", str(place / "kl")]) == 0
    given = ["--latents", str(place / "kl"), *TINY, *SECOND, "--conditional"]
    assert train.main(["gan", *given, "--workdir", str(place / "gan")]) == 0
    return place


def test_a_run_learns_latents_and_shows_images(folder: Path, tmp_path: Path, capsys: Any) -> None:
    run = Run.open(folder / "gan")
    assert run.config["identity"]["data"]["image_shape"] == [8, 8, 1]
    assert run.config["settings"]["options"]["config"] == "latent_gan"
    assert run.config["settings"]["options"]["dataset"].startswith("npz:")  # the tokenizer's
    model = jaxgen.load(folder / "gan")
    assert repr(model) == "Trained('gan': GAN of latents, images [8, 8, 1], 4 latents, 3 classes)"
    assert model.state.tokenizer.hyperparams["latent_std"].shape == (2,)
    kl = jaxgen.load(folder / "kl")
    frozen = jaxgen.tokenizer_frozen(kl.spec, kl.state)[1]
    chex.assert_trees_all_equal(model.state.tokenizer, frozen)
    assert (folder / "gan" / "samples" / "samples_00000006.png").is_file()
    rows = [json.loads(line) for line in (folder / "gan" / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows if "test_sliced_wasserstein" in row} == {3, 6}
    # Gone on with in two sessions, it is the run that was never stopped.
    words = ["--latents", str(folder / "kl"), *TINY, *SECOND, "--conditional", "--workdir", str(tmp_path / "again")]
    assert train.main(["gan", *words, "--steps", "3", "--burn-in", "6"]) == 0
    assert train.main(["gan", "--workdir", str(tmp_path / "again"), "--resume", "--steps", "6"]) == 0
    chex.assert_trees_all_equal(Run.open(tmp_path / "again").restore(6), run.restore(6))
    # The image through its programs and its one file.
    assert export.main([str(folder / "gan"), "--out", str(tmp_path / "exported")]) == 0
    again = jaxgen.load(tmp_path / "exported" / "parameters.safetensors")
    key = jax.random.key(0)
    np.testing.assert_array_equal(again.sample(key, 3, 1), model.sample(key, 3, 1))
    assert sample.main([str(folder / "gan"), "--out", str(tmp_path / "samples.png")]) == 0
    capsys.readouterr()
    assert evaluate.main([str(folder / "gan"), "--measures", "diversity", "--extractor", "pixels"]) == 0


@pytest.mark.slow
def test_a_second_stage_completes_images(folder: Path, tmp_path: Path) -> None:
    words = ["complete", str(folder / "gan"), "--out", str(tmp_path / "completed.png")]
    assert explore.main(words) == 0
    assert list(tmp_path.glob("completed*"))


@pytest.mark.slow
def test_a_vae_of_latents_is_trained(folder: Path, tmp_path: Path) -> None:
    words = ["--latents", str(folder / "kl"), *TINY, "--hidden", "8", "--latent-dim", "3"]
    assert train.main(["vae", *words, "--workdir", str(tmp_path / "vae")]) == 0
    model = jaxgen.load(tmp_path / "vae")
    images = np.load(folder / "bars.npz")["test_image"][:4]
    assert model.reconstruct(images, jax.random.key(0)).shape == (4, 8, 8, 1)
    assert model.encode(images).shape == (4, 3)


def test_bad_input_is_refused_in_one_line(folder: Path, tmp_path: Path, capsys: Any) -> None:
    kl = str(folder / "kl")
    name = save(tmp_path / "other.npz", side=12)
    place = ["--workdir", str(tmp_path / "run")]
    refused(
        train.main, ["gan", "--latents", folder / "gan", *place], capsys, "holds a GAN of latents: give the run of a"
    )
    wrong = "takes images [8, 8, 1], npz:", "has [12, 12, 1]: bring them to that size"
    refused(train.main, ["gan", "--latents", kl, "--dataset", name, *TINY, *place], capsys, *wrong)
    refused(train.main, ["gan", "--latents", kl, "--codes", "nearest", *TINY, *place], capsys, "has none: leave it out")
    shipped = ["gan", "--latents", "tokenizer-fashion-mnist", *TINY, *place]
    refused(train.main, shipped, capsys, "has 1,000 codes", "--codes continuous", "or --codes nearest")
    refused(train.main, ["gan", "--architecture", "grid", *place], capsys, "--architecture grid is for latents")
    model = jaxgen.load(folder / "kl")
    nothing = {"latent_mean": jnp.zeros(2), "latent_std": jnp.ones(2)}
    state = model.state._replace(hyperparams={**model.state.hyperparams, **nothing})
    described: Any = {"image_shape": (8, 8, 1), "image_type": "uint8"}
    weights.save_weights(tmp_path / "new.safetensors", model.spec, state, **described)
    unsettled = ["gan", "--latents", tmp_path / "new.safetensors", "--dataset", f"npz:{folder}/bars.npz", *TINY, *place]
    refused(train.main, unsettled, capsys, "was not evaluated before its step 6 was saved")
    assert not (tmp_path / "run").exists()
    for words, said in (
        (["--flip"], "--flip would have no effect: it is for images, not --latents"),
        (["--architecture", "dcgan"], "--latents would have no effect: it is for --architecture grid or mlp"),
    ):
        assert train.main(["gan", "--latents", kl, *words, *place]) == 2
        assert said in capsys.readouterr().err
    # The data are the tokenizer's with every architecture, unless others are named; a packaged name is no path.
    for words in ([], ["--architecture", "mlp"], ["--architecture", "grid"]):
        assert parse(["gan", "--latents", kl, *words]).dataset == f"npz:{folder}/bars.npz"
        assert parse(["gan", "--latents", kl, *words, "--dataset", name]).dataset == name
    assert parse(["gan", "--latents", "kl"]).settings()["options"]["latents"] == "kl"
    assert "latents" not in parse(["gan", "--latents", "tokenizer-fashion-mnist"]).settings().get("paths", {})
    with pytest.raises(ValueError, match="--latents is for --architecture grid or mlp: what this begins from"):
        dataclasses.replace(parse(["gan", "--architecture", "dcgan"]), latents=kl).check()
    # Another tokenizer than the one trained with.
    other = ["tokenizer", "--dataset", f"npz:{folder}/bars.npz", *TINY, *SMALL, "--channels", "2", "--seed", "1"]
    assert train.main([*other, "--workdir", str(tmp_path / "kl2")]) == 0
    again = ["gan", "--workdir", folder / "gan", "--resume", "--latents", tmp_path / "kl2"]
    refused(train.main, again, capsys, "tokenizer_sha256")
    # One that went on is another one, in the same process, too.
    before = latent_data.first_stage(str(tmp_path / "kl2"))
    assert latent_data.first_stage(str(tmp_path / "kl2")) is before
    assert train.main(["tokenizer", "--workdir", str(tmp_path / "kl2"), "--resume", "--steps", "8"]) == 0
    assert latent_data.first_stage(str(tmp_path / "kl2")).sha256 != before.sha256
