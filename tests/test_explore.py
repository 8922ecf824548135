"""Using a trained model from the command line: what is written, what is refused, and that the numbers are right."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from jaxgen import weights
from jaxgen.cli import explore
from jaxgen.cli.exploring.completions import make_mask
from jaxgen.training.run import optimizer
from tests import models


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
    with Image.open(tmp_path / "completions.png") as picture:
        assert picture.size[1] > 3 * 4


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
    numbers, arrays = run(files, tmp_path / "b", "interpolate", "vae", "--num", "2", "--between", "images", "--linear")
    assert numbers["path"] == "line"
    assert arrays["start"].shape == (2, models.LATENT_DIM)


def test_inversions_neighbours_attributes_and_truncation(files: Path, tmp_path: Path) -> None:
    numbers, _ = run(files, tmp_path / "i", "invert", "gan", "--num", "3", "--num-restarts", "2", "--steps", "20")
    assert set(numbers) == {
        f"{name}, {starts}" for name in ("own samples", "held-out images") for starts in ("2 starts", "1 start")
    }
    numbers, arrays = run(files, tmp_path / "n", "neighbours", "gan", "--num", "8")
    assert numbers["training_images"] == 40
    train = models.batch(40)["image"] / 255.0
    distances = np.sqrt(np.square(arrays["samples"][:, None] - train[None]).sum(axis=(2, 3, 4)))
    np.testing.assert_allclose(arrays["distances"], distances.min(axis=1), rtol=1e-4)
    numbers, arrays = run(
        files, tmp_path / "t", "attribute", "vae", "--with-label", "1", "--without-label", "2", "--num", "1"
    )
    assert arrays["images"].shape[1:] == (7, *models.IMAGE_SHAPE)
    numbers, _ = run(files, tmp_path / "u", "truncate", "conditional", "--num", "2", "--thresholds", "1", "0.01")
    assert numbers["|z| <= 0.01"]["spread"] <= numbers["the whole prior"]["spread"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["complete", "gan", "--share", "1.5"], "--share must lie between 0 and 1, got 1.5"),
        (["complete", "gan", "--num", "0"], "--num must be at least 1, got 0"),
        (["complete", "gan", "--noise", "-1"], "--noise must be above 0, got -1"),
        (["truncate", "gan", "--label", "1"], "--label is for conditional models"),
        (["truncate", "gan", "--thresholds", "0"], "--thresholds must be above 0"),
        (["attribute", "gan", "--with-label", "77", "--without-label", "1"], "no training image has it"),
        (["attribute", "conditional", "--with-label", "0", "--without-label", "1"], "is conditional"),
        (["complete", "missing"], "no pretrained model"),
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
