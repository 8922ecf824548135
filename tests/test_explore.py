"""Using a trained model from the command line: what is written, what is refused, and that the numbers are right."""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import weights
from jaxgen.cli import explore
from jaxgen.cli.exploring.completions import make_mask
from jaxgen.cli.exploring.planes import draw_points
from jaxgen.training.monitor import Monitor
from jaxgen.training.run import Run, optimizer
from tests import models
from tests.pictures import words

LABELS = models.batch(12, seed=1)["label"]  # of held-out images


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny GAN, a VAE, a conditional GAN, and images."""
    folder = tmp_path_factory.mktemp("explore")
    adam = optimizer("adam", learning_rate=1e-3)
    players: Any = {"generator_optimizer": adam, "discriminator_optimizer": adam}
    specs: dict[str, Any] = {
        "gan": models.gan(**players),
        "vae": models.vae(optimizer=adam),
        "conditional": dataclasses.replace(models.dcgan(), **players),
    }
    for name, spec in specs.items():
        state = models.init(spec, jax.random.key(0))
        path = folder / f"{name}.safetensors"
        weights.save_weights(path, spec, state, image_shape=models.IMAGE_SHAPE, image_type="uint8")
    batches = {"train": models.batch(40), "test": models.batch(12, seed=1)}
    arrays: Any = {f"{split}_{n}": batch[n] for split, batch in batches.items() for n in ("image", "label")}
    np.savez(folder / "images.npz", **arrays)
    return folder


def run(files: Path, out: Path, command: str, model: str, *arguments: str) -> tuple[dict[str, Any], Any]:
    """(numbers, arrays) of a command that succeeds."""
    common = [str(files / f"{model}.safetensors"), "--images", f"npz:{files / 'images.npz'}", "--out", str(out)]
    assert explore.main([command, *common, *arguments]) == 0
    with np.load(out / "arrays.npz") as arrays:
        return json.loads((out / "numbers.json").read_text()), dict(arrays)


@pytest.mark.parametrize("model", ["gan", pytest.param("vae", marks=pytest.mark.slow)])
def test_completions_keep_what_is_given_and_are_scored(model: str, files: Path, tmp_path: Path) -> None:
    numbers, arrays = run(
        files,
        tmp_path,
        "complete",
        model,
        "--num",
        "3",
        "--num-samples",
        "2",
        "--hide",
        "right",
        "--share",
        "0.25",
        "--temperatures",
        "20",
    )
    assert numbers["visible_pixels_kept"] is True
    assert arrays["mask"].tolist() == [[True, True, True, False]] * 4
    assert arrays["drawn"].shape == (3, 2, *models.IMAGE_SHAPE)
    np.testing.assert_array_equal(arrays["drawn"][:, 0, :, :3], arrays["images"][:, :, :3])
    assert not np.array_equal(arrays["drawn"][:, 0], arrays["drawn"][:, 1])
    error = np.square(arrays["drawn"][:, 0, :, 3] - arrays["images"][:, :, 3]).mean(axis=(1, 2))
    np.testing.assert_allclose(
        numbers["hidden_squared_error"]["one drawn completion"], [error.mean(), error.std(ddof=1) / 3**0.5], rtol=1e-5
    )
    assert numbers["less_than_nearest"]["nearest training image"] == [0.0, 0.0]
    assert words(tmp_path / "completions.png") == (
        f"{model}: held-out images completed, the right hidden (25% of the pixels)\n"
        "Columns: image, what is given, completed by the nearest training image, likeliest completion, drawn "
        f"completions. Rows, from above: {', '.join(f'class {n}' for n in dict.fromkeys(LABELS[[0, 4, 8]]))}."
    )


@pytest.mark.parametrize("hide", ["bottom", "top", "left", "right", "centre", "pixels"])
def test_masks_hide_what_they_say(hide: Any, key: jax.Array) -> None:
    mask = make_mask(hide, 0.5, (8, 10, 1), key)
    assert mask.shape == (8, 10)
    hidden: Any = {"bottom": np.s_[4:], "top": np.s_[:4], "left": np.s_[:, :5], "right": np.s_[:, 5:]}
    hidden["centre"] = np.s_[2:6, 2:7]
    if hide == "pixels":
        assert 20 < mask.sum() < 60
    else:
        assert not mask[hidden[hide]].any()
        assert (~mask).sum() == mask[hidden[hide]].size


def test_walks_are_pictures_that_move(files: Path, tmp_path: Path) -> None:
    """Between samples of a GAN, and between images of a VAE: the ends are those of the latents."""
    _, arrays = run(files, tmp_path / "a", "interpolate", "gan", "--num", "2", "--steps", "4", "--frames", "5")
    assert arrays["rows"].shape == (2, 4, *models.IMAGE_SHAPE)
    with Image.open(tmp_path / "a" / "interpolations.gif") as animation:
        assert getattr(animation, "n_frames") == 8  # there and back  # noqa: B009
        assert animation.info["comment"].startswith(b"gan: walks between latents drawn from the prior, along arcs.")
    assert words(tmp_path / "a" / "interpolations.png") == (
        "gan: walks between latents drawn from the prior, along arcs\n"
        "Over the columns: the share of the way. Columns: 0.00, 0.33, 0.67, 1.00."
    )
    numbers, arrays = run(files, tmp_path / "b", "interpolate", "vae", "--num", "2", "--between", "images", "--linear")
    assert numbers["path"] == "line"
    assert words(tmp_path / "b" / "interpolations.png").startswith(
        "vae: walks between the latents of held-out images, along lines\n"
    )
    assert arrays["start"].shape == (2, models.LATENT_DIM)


def test_inversions_neighbours_attributes_and_truncation(files: Path, tmp_path: Path) -> None:
    numbers, _ = run(files, tmp_path / "i", "invert", "gan", "--num", "3", "--num-restarts", "2", "--steps", "20")
    assert set(numbers) == {
        f"{name}, {starts}" for name in ("own samples", "held-out images") for starts in ("2 starts", "1 start")
    }
    assert words(tmp_path / "i" / "inversions.png") == (
        "gan: images, and what it makes of the latents found for them\n"
        "Columns: own sample, made of the latents found, held-out image."
    )
    numbers, arrays = run(files, tmp_path / "n", "neighbours", "gan", "--num", "8")
    assert numbers["training_images"] == 40
    train = models.batch(40)["image"] / 255.0
    distances = np.sqrt(np.square(arrays["samples"][:, None] - train[None]).sum(axis=(2, 3, 4)))
    np.testing.assert_allclose(arrays["distances"], distances.min(axis=1), rtol=1e-4)
    numbers, arrays = run(
        files, tmp_path / "t", "attribute", "vae", "--with-label", "1", "--without-label", "2", "--num", "1"
    )
    assert arrays["images"].shape[1:] == (7, *models.IMAGE_SHAPE)
    assert words(tmp_path / "n" / "neighbours.png").startswith(
        "gan: samples beside the training images that are nearest to them\n"
        "Of 8 samples; nearest by the distance of their pixels. "
        "Columns: closest samples, nearest training images, samples, from the closest to the farthest."
    )
    assert words(tmp_path / "t" / "attribute.png") == (
        "vae: from class 2 to class 1\n"
        "Over the columns: how far their latents are moved; at 0 not, at 1 from one class's mean to the other's. "
        "Columns: class 2, held out, 0.00, 0.25, 0.50, 0.75, 1.00, 1.25, 1.50. "
        "Rows, from above: class 2."
    )
    numbers, _ = run(files, tmp_path / "u", "truncate", "conditional", "--num", "2", "--thresholds", "1", "0.01")
    assert numbers["|z| <= 0.01"]["spread"] <= numbers["the whole prior"]["spread"]
    assert words(tmp_path / "u" / "truncated.png") == (
        "conditional: samples of ever smaller middles of the prior\nA row is one draw, squeezed until no latent z is "
        "larger than what stands over the column. Columns: the whole prior, |z| <= 1, |z| <= 0.01. "
        "Rows, from above: class 0, class 1."
    )


def test_the_plane_of_the_two_most_active_latents(files: Path, tmp_path: Path) -> None:
    """Quantiles of the prior across and upwards, the third latent at 0."""
    numbers, arrays = run(files, tmp_path, "manifold", "vae", "--num", "3")
    model = jaxgen.load(files / "vae.safetensors")
    held = models.batch(12, seed=1)
    (nats,) = model.family.latent_kl(model.spec, model.state, held, jax.random.key(1))
    i, j = numbers["dims"]
    assert [i, j] == np.argsort(-np.mean(nats, axis=0))[:2].tolist()
    across = [statistics.NormalDist().inv_cdf(share) for share in (1 / 6, 1 / 2, 5 / 6)]
    z = np.zeros((3, 3, models.LATENT_DIM))
    z[..., i], z[..., j] = np.array(across)[None, :], np.array(across[::-1])[:, None]
    np.testing.assert_allclose(arrays["latents"], z, atol=1e-6)
    decoded = np.asarray(model.decode(z.reshape(9, -1))).reshape(3, 3, *models.IMAGE_SHAPE)
    np.testing.assert_allclose(arrays["images"], decoded, atol=1e-6)
    assert words(tmp_path / "manifold.png") == (
        f"vae: images over latents {i} and {j}, the two that say most of held-out images, by their KL\n"
        f"Latent {i} across, latent {j} upwards, at quantiles of the standard normal prior. The other latents are 0. "
        "Columns: -0.97, 0.00, 0.97. Rows, from above: 0.97, 0.00, -0.97."
    )
    out = str(tmp_path / "gan")
    arguments = [str(files / "conditional.safetensors"), "--dims", "2", "0", "--num", "2", "--out", out, "--label", "1"]
    assert explore.main(["manifold", *arguments]) == 0
    assert words(tmp_path / "gan" / "manifold.png").startswith(
        "conditional: images over latents 2 and 0\nLatent 2 across, latent 0 upwards, at quantiles of the standard "
        "normal prior. The other latents are 0. Class: class 1. "
    )


def test_where_held_out_images_lie(files: Path, tmp_path: Path) -> None:
    numbers, arrays = run(files, tmp_path / "p", "scatter", "vae")
    model, held = jaxgen.load(files / "vae.safetensors"), models.batch(12, seed=1)
    means = np.asarray(model.encode(held["image"]))
    np.testing.assert_allclose(arrays["latents"], means, atol=1e-6)
    variances = np.linalg.eigvalsh(np.cov(means.T))[::-1]
    np.testing.assert_allclose(numbers["explained_share"], variances[:2] / variances.sum(), rtol=1e-4)
    np.testing.assert_allclose(arrays["points"].var(axis=0, ddof=1), variances[:2], rtol=1e-4)
    first, second = (f"{share:.0%}" for share in numbers["explained_share"])
    text = words(tmp_path / "p" / "scatter.png")
    assert text == (
        "vae: where 12 held-out images lie (posterior means)\nThe two principal components of 3 latents: "
        f"{sum(numbers['explained_share']):.0%} of their variance. "
        f"Across: principal component 1: {first} of the variance. "
        f"Up: principal component 2: {second} of the variance. Legend: class, "
        f"{', '.join(f'class {n}' for n in np.unique(held['label']))}."
    )
    label = int(held["label"][0])
    numbers, arrays = run(files, tmp_path / "d", "scatter", "vae", "--dims", "2", "0", "--label", str(label))
    np.testing.assert_allclose(arrays["points"], means[held["label"] == label][:, [2, 0]], atol=1e-6)
    assert set(arrays["label"]) == {label}
    assert "Latents 2 and 0 of 3. Across: latent 2. Up: latent 0." in words(tmp_path / "d" / "scatter.png")


@pytest.mark.parametrize("number", [0, 1, 100, 101])
def test_points_of_many_classes_and_of_none(number: int, tmp_path: Path) -> None:
    """Each class has a colour and a mark of its own as long as a legend can list them."""
    points = np.random.default_rng(0).normal(size=(202, 2))
    label = None if number == 0 else np.arange(202) % number
    names = [f"a class of the name {i}" for i in range(number)]
    draw_points(tmp_path / "points.png", points, label, names, "Title", "How", ["a", "b"])
    text = words(tmp_path / "points.png")
    assert text.startswith("Title\nHow")
    assert ("the images have no labels" in text) == (number == 0)
    assert text.count("a class of the name") == (number if number <= 100 else 0)
    assert ("number of the class, of 101 classes" in text) == (number == 101)


def test_an_animation_of_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every grid with its step, those of older runs without words and of other sizes too; what there is not is said."""
    data = {"name": "x", "sha256": "0", "image_shape": list(models.IMAGE_SHAPE), "image_type": "uint8", "labels": False}
    directory = tmp_path / "gan-001"
    identity: Any = {"model": {}, "data": data, "seed": 0, "batch_size": 4}
    Run.create(directory, identity, {"options": {"sample_every": 50}})
    command = ["training", str(directory), "--out", str(tmp_path / "out")]

    def said(*more: str) -> str:
        assert explore.main([*command, *more]) == 1
        return capsys.readouterr().err

    message = "has no grids of samples, and an animation needs two: train with a smaller --sample-every than 50"
    assert message in said()
    with Monitor(directory, 0) as monitor:
        monitor.show(50, "samples", np.zeros((4, 4, 4, 1)))
        assert "has 1 grid of samples, and an animation needs two" in said()
        for step in (1000, 1050, 1100):
            monitor.show(step, "samples", np.full((4, 4, 4, 1), step / 1100))
    Image.new("RGB", (30, 20), "red").save(directory / "samples" / "samples_00000100.png")  # of an older run
    (directory / "samples" / "notes.png").write_bytes(b"no picture")
    assert f"{directory} has no grids of reconstructions: use --pictures samples" in said(
        "--pictures", "reconstructions"
    )
    assert "--frames must be from 2 to 1000, got 1" in said("--frames", "1")
    assert "--frame-seconds must be in [0.02, 60], got 0.0" in said("--frame-seconds", "0")
    assert not (tmp_path / "out").exists()
    assert explore.main([*command, "--frames", "4"]) == 0
    assert json.loads((tmp_path / "out" / "numbers.json").read_text()) == {
        "frames": 4, "grids": 5, "first_step": 50, "last_step": 1100,
    }  # fmt: skip
    with np.load(tmp_path / "out" / "arrays.npz") as arrays, Image.open(tmp_path / "out" / "training.gif") as animation:
        steps = arrays["steps"].tolist()
        assert steps == [50, 100, 1050, 1100]
        listed = ", ".join(f"{step:,}" for step in steps)
        assert animation.info["comment"].decode() == (
            f"How gan-001 learnt: samples of the same latents at each step. Steps, in order: {listed}."
        )
        assert getattr(animation, "n_frames") == 4  # noqa: B009
        animation.seek(3)
        assert animation.info["duration"] == 200 + 2000  # the last one stays
    config = json.loads((directory / "config.json").read_text())
    config["identity"]["sweep"] = {"over": {}, "seeds": 2}
    (directory / "config.json").write_text(json.dumps(config))
    assert f"{directory} holds a sweep: name one of its members, such as {directory}/members/000" in said()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["complete", "gan", "--share", "1.5"], "--share must be in (0, 1), got 1.5"),
        (["complete", "gan", "--num", "0"], "--num must be at least 1, got 0"),
        (["complete", "gan", "--noise", "-1"], "--noise must be above 0, got -1"),
        (["truncate", "gan", "--label", "1"], "--label is for conditional models"),
        (["truncate", "gan", "--thresholds", "0"], "--thresholds must be above 0"),
        (["attribute", "gan", "--with-label", "77", "--without-label", "1"], "no training image has it"),
        (["attribute", "conditional", "--with-label", "0", "--without-label", "1"], "is conditional"),
        (["complete", "missing"], "no pretrained model"),
        (["manifold", "gan"], "as it is a GAN nothing says which two matter most: choose them, as with --dims 0 1"),
        (["manifold", "gan", "--num", "1"], "--num must be at least 2, got 1"),
        (["manifold", "gan", "--num", "1000000000"], "1,000,000,000,000,000,000 images to be made: its arrays need"),
        (
            ["manifold", "gan", "--num", "147"],
            "--num 147: images 56 pixels wide make a picture of 8232, and 8192 are the most: use at most 146",
        ),
        (["manifold", "gan", "--dims", "0", "3"], "has the latents 0 to 2, got 3"),
        (["manifold", "gan", "--dims", "1", "1"], "--dims must be two different latents, from 0 on, got 1 1"),
        (["manifold", "gan", "--dims", "0", "1"], "--images would have no effect"),
        (["manifold", "gan", "--label", "1", "--dims", "0", "1"], "--label is for conditional models"),
        (["scatter", "gan"], "is a GAN, which has no encoder that says where images lie: use jaxgen explore invert"),
        (["scatter", "vae", "--label", "77"], "label must be a class from 0 to"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_written(
    arguments: list[str], message: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, model, *rest = arguments
    if "--images" not in rest:
        rest += ["--images", f"npz:{files / 'images.npz'}"]
    status = explore.main([command, str(files / f"{model}.safetensors"), "--out", str(tmp_path / "out"), *rest])
    assert status == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
