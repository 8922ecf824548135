"""What `jaxgen.load` returns: the methods equal the pure functions, work in pieces, and refuse what does not fit."""

import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import data, losses, trained, weights
from jaxgen.trained import Trained
from tests import models
from tests.test_weights import SPECS, saved_run, slow

FEW: dict[str, Any] = {"num_restarts": 2, "num_steps": 5}
MASK = np.arange(16).reshape(4, 4) < 8


@pytest.fixture(scope="module")
def of() -> Any:
    """A model of each spec by its name."""
    made: dict[str, Trained] = {}

    def model(name: str) -> Trained:
        if name not in made:
            spec = SPECS[name]()
            made[name] = Trained(name, spec, models.init(spec, jax.random.key(0)), models.IMAGE_SHAPE, "uint8")
        return made[name]

    return model


def images(num: int) -> np.ndarray:
    return models.batch(num)["image"]


@pytest.mark.parametrize("name", ["dlgm", *slow("dcgan", "vae", "gan")])
def test_samples_are_those_of_the_pure_functions(name: str, of: Any, key: jax.Array) -> None:
    model = of(name)
    label = np.arange(5) if model.num_classes else None
    draw: Any = jaxgen.gan_sample if isinstance(model.spec, jaxgen.GAN) else jaxgen.vae_sample
    expected = draw(model.spec, model.state, key, 5, label)
    samples = model.sample(key, 5, label)
    np.testing.assert_allclose(samples, expected, atol=1e-6)
    noise = trained.prior_noise(model.spec, key, jnp.arange(5))
    assert noise.shape == (5, model.latent_dim)
    np.testing.assert_allclose(model.decode(noise, label), expected, atol=1e-6)


@pytest.mark.slow
def test_a_vae_of_several_layers_is_one_decoder(of: Any, key: jax.Array) -> None:
    model = of("dlgm")
    assert model.latent_dim == models.LATENT_DIM + 2
    z = model.encode(images(3))
    expected = jaxgen.vae_encode_noise(model.spec, model.state, {"image": images(3)})
    chex.assert_trees_all_equal(z, expected)
    batch = {"image": images(3)}
    chex.assert_trees_all_equal(
        model.reconstruct(images(3), key), jaxgen.vae_reconstruct(model.spec, model.state, batch, key)
    )
    chex.assert_trees_all_equal(
        model.log_likelihood(images(3), key, num_samples=20),
        jaxgen.vae_log_likelihood(model.spec, model.state, batch, key, 20, chunk_size=10),
    )


def test_interpolation_goes_from_one_end_to_the_other(of: Any) -> None:
    model = of("dcgan")
    start, end = np.eye(2, model.latent_dim), np.eye(2, model.latent_dim, 1)
    for linear in (False, True):
        way = model.interpolate(start, end, 3, label=[3, 4], linear=linear)
        assert way.shape == (2, 3, *models.IMAGE_SHAPE)
        middle = (start + end) / (2 if linear else np.sqrt(2))
        latents = np.stack([start, middle, end], axis=1).reshape(6, -1)
        np.testing.assert_allclose(
            way.reshape(6, *models.IMAGE_SHAPE), model.decode(latents, [3] * 3 + [4] * 3), atol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae", "gan"])
def test_inversion_and_completion(name: str, of: Any, key: jax.Array) -> None:
    model = of(name)
    found = model.invert(images(3), key, **FEW)
    assert found.latents.shape == (3, model.latent_dim)
    np.testing.assert_allclose(found.images, model.decode(found.latents), atol=1e-5)
    if name == "vae":  # what is hidden plays no part, not through the encoder either
        hidden = np.where(MASK[..., None], images(3), 255 - images(3))
        masked = [model.invert(shown, key, mask=MASK, **FEW) for shown in (images(3), hidden)]
        chex.assert_trees_all_equal(*masked)
    completed = model.complete(images(3), MASK, key, num_samples=2, num_temperatures=5, num_leapfrog=2)
    assert completed.images.shape == (3, 2, *models.IMAGE_SHAPE)
    visible = np.broadcast_to(MASK[..., None], completed.images.shape)
    known = np.broadcast_to(jaxgen.batches.to_float(images(3))[:, None], completed.images.shape)
    np.testing.assert_allclose(np.asarray(completed.images)[visible], known[visible], atol=1e-7)
    if name == "gan":
        noise = losses.gaussian(scale=0.1)
        settings: dict[str, Any] = {"num_chains": 2, "num_temperatures": 5, "num_leapfrog": 2}
        expected = jaxgen.gan_log_likelihood(model.spec, model.state, {"image": images(3)}, key, noise, **settings)
        got = model.log_likelihood(images(3), key, likelihood=noise, **settings)
        chex.assert_trees_all_equal(got, expected.log_likelihood)


def test_many_images_are_taken_in_pieces(of: Any, key: jax.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of two: the memory of a piece does not grow with the number of images, and no image is lost or moved."""
    whole = of("vae")
    expected = whole.sample(key, 5), whole.encode(images(5))
    sizes: list[int] = []
    pure = trained._sample

    def counted(*args: Any) -> jax.Array:
        sizes.append(len(args[3]))
        return pure(*args)

    monkeypatch.setattr(trained, "_PIECE", 2)
    monkeypatch.setattr(trained, "_ROWS", 4)
    monkeypatch.setattr(trained, "_sample", counted)
    np.testing.assert_allclose(whole.sample(key, 5), expected[0], atol=1e-6)
    assert sizes == [2, 2, 2]  # one program
    np.testing.assert_allclose(whole.encode(images(5)), expected[1], atol=1e-6)
    assert whole.reconstruct(images(5), key).shape == (5, *models.IMAGE_SHAPE)
    programs: Any = trained._invert
    before = programs._cache_size()
    same = np.repeat(images(1), 3, axis=0)
    for model in (whole, dataclasses.replace(whole)):
        options: dict[str, Any] = {"likelihood": losses.gaussian(scale=0.2), "num_restarts": 2, "num_steps": 1}
        found = model.invert(same, key, mask=np.repeat(MASK[None], 3, axis=0), **options)
        assert found.restarts.shape == (3, 2)
    assert programs._cache_size() == before + 1  # for both pieces, both calls and both objects
    assert not np.array_equal(found.restarts[0], found.restarts[2])  # each piece draws anew


def test_what_does_not_fit_is_refused(of: Any, key: jax.Array) -> None:
    vae, gan, conditional = of("vae"), of("gan"), of("dcgan")
    x = images(2)
    bernoulli, large = losses.bernoulli, np.zeros((2, 8, 8, 1))
    for error, match, call in [
        (
            ValueError,
            r"learnt images of shape \[4, 4, 1\], got \[8, 8, 1\]",
            lambda: vae.encode(large),
        ),
        (ValueError, r"got one image: pass images\[None\]", lambda: vae.encode(x[0])),
        (ValueError, r"in \[0, 1\], got values from 4 to 248", lambda: vae.encode(x.astype(np.float32).round())),
        (ValueError, "finite", lambda: vae.encode(np.full((1, 4, 4, 1), np.nan))),
        (TypeError, "got int64: convert them", lambda: vae.encode(x.astype(np.int64))),
        (ValueError, "no value above 1", lambda: vae.encode((x > 128).astype(np.uint8))),
        (ValueError, "at least one", lambda: vae.encode(x[:0])),
        (ValueError, r"latents must be \[N, 3\]", lambda: vae.decode(np.zeros((2, 4)))),
        (ValueError, "at least one", lambda: vae.decode(np.zeros((0, 3)))),
        (ValueError, "num must be at least 2", lambda: vae.interpolate(np.zeros((1, 3)), np.ones((1, 3)), 1)),
        (ValueError, "num_samples must be at least 1", lambda: vae.sample(key, 0)),
        (TypeError, "key must be a typed JAX key", lambda: vae.sample(jax.random.PRNGKey(0), 1)),
        (ValueError, "vae has learnt no classes: leave label out", lambda: vae.sample(key, 1, 0)),
        (ValueError, "dcgan is conditional: pass label, a class from 0 to 9", lambda: conditional.sample(key, 1)),
        (ValueError, "classes 0 to 9, got labels from 10 to 10", lambda: conditional.sample(key, 2, 10)),
        (ValueError, r"one per image, \[2\]", lambda: conditional.sample(key, 2, [1, 2, 3])),
        (TypeError, "labels must be integers", lambda: conditional.sample(key, 2, 0.5)),
        (TypeError, "gan is a GAN, which has no encoder: use invert", lambda: gan.encode(x)),
        (ValueError, r"noise around them: pass likelihood=", lambda: gan.log_likelihood(x, key)),
        (TypeError, "num_chains: of annealed chains", lambda: vae.log_likelihood(x, key, num_chains=2)),
        (
            TypeError,
            "whose parameters are mean images",
            lambda: gan.log_likelihood(x, key, likelihood=bernoulli),
        ),
        (ValueError, "no visible pixel", lambda: gan.complete(x, np.zeros((4, 4), bool), key)),
        (ValueError, "mask", lambda: gan.complete(x, np.ones((5, 4), bool), key)),
        (TypeError, "mask", lambda: gan.invert(x, key, mask=np.ones((4, 4)))),
    ]:
        with pytest.raises(error, match=match):
            call()
    # One class for all of them is enough.
    chex.assert_trees_all_equal(conditional.sample(key, 2, 7), conditional.sample(key, 2, np.array([7, 7])))


def test_a_run_and_its_file_are_the_same_model(tmp_path: Path, key: jax.Array) -> None:
    folder = tmp_path / "some-run"
    saved_run(folder, "vae")
    run = jaxgen.load(folder)
    assert (run.image_shape, run.image_type, run.num_classes) == (models.IMAGE_SHAPE, "uint8", None)
    assert repr(run) == "Trained('some-run': VAE, images [4, 4, 1], 3 latents)"
    file = tmp_path / "some.safetensors"
    weights.save_weights(file, run.spec, run.state, image_shape=run.image_shape, image_type=run.image_type)
    loaded = jaxgen.load(str(file))
    assert loaded.name == "some"
    chex.assert_trees_all_equal(loaded.sample(key, 3), run.sample(key, 3))
    with pytest.raises(FileNotFoundError, match="no 7 checkpoint"):
        jaxgen.load(folder, 7)
    with pytest.raises(ValueError, match="holds one state: checkpoint='best' is for run directories"):
        jaxgen.load(file, "best")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        jaxgen.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'vae-of-nothing' is no run directory.*vae-fashion-mnist"):
        jaxgen.load("vae-of-nothing")


def test_the_pretrained_models_are_there(key: jax.Array) -> None:
    names = trained.pretrained()
    assert names == (
        *("dcgan-fashion-mnist", "dcgan-fashion-mnist-conditional", "gan-fashion-mnist"),
        *("tokenizer-fashion-mnist", "vae-fashion-mnist"),
    )
    sizes = [path.stat().st_size for path in trained._PRETRAINED.glob("*.safetensors")]
    assert sum(sizes) < 5_500_000
    for name in names:
        model = jaxgen.load(name)
        assert model.image_shape == (28, 28, 1)
        assert {"command", "hardware", "steps", "seed", "numbers"} <= model.record.keys()
        if model.family.sample is None:
            images = data.load()["image"][:64]
            again = model.decode(model.encode(images))
            assert float(jnp.mean(jnp.square(again - images / 255.0))) < 0.006  # PSNR above 22 dB
            assert len(np.unique(np.asarray(model.codes(images)))) > 300
            continue
        label = np.arange(4) if model.num_classes else None
        samples = model.sample(key, 4, label)
        assert samples.shape == (4, 28, 28, 1)
        # Clothes, not noise: mostly black borders, something bright inside.
        assert float(jnp.mean(samples[:, :, :2])) < 0.1
        assert float(jnp.min(jnp.max(samples, axis=(1, 2, 3)))) > 0.3
