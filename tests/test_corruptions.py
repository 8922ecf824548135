"""Corruptions of real images, each by itself, and that the distances rise along them."""

import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from experiments import corruptions
from jaxgen import data, metrics
from jaxgen.evaluation import extractors
from tests.pictures import words

Curves = dict[str, list[dict[str, float]]]


def test_blur_is_scipys_inside_and_keeps_a_constant() -> None:
    images = np.random.default_rng(0).uniform(size=(3, 32, 30, 2)).astype(np.float32)
    expected = gaussian_filter1d(gaussian_filter1d(images.astype(np.float64), 1.5, axis=1), 1.5, axis=2)
    blurred = corruptions.blur(jnp.asarray(images), 1.5)
    np.testing.assert_allclose(blurred[:, 8:-8, 8:-8], expected[:, 8:-8, 8:-8], atol=1e-4)
    np.testing.assert_allclose(corruptions.blur(jnp.full((1, 8, 8, 1), 128, jnp.uint8), 2.0), 128 / 255, rtol=1e-6)
    np.testing.assert_array_equal(corruptions.blur(jnp.asarray(images), 0.0), images)


def test_noise_has_its_scale_and_stays_in_range(key: jax.Array) -> None:
    """The same noise at every level, another one on every image."""
    grey = jnp.full((50, 16, 16, 1), 0.5)
    weak, strong = (np.asarray(corruptions.add_noise(grey, key, scale)) - 0.5 for scale in (0.05, 0.1))
    np.testing.assert_allclose(weak.std(), 0.05, rtol=0.02)
    np.testing.assert_allclose(2 * weak, strong, atol=1e-5)
    assert len(np.unique(weak[:, 0, 0, 0])) == 50
    white = corruptions.add_noise(jnp.ones((2, 9, 9, 1), bool), key, 1.0)
    assert (float(white.min()), float(white.max())) == (0.0, 1.0)
    np.testing.assert_array_equal(corruptions.add_noise(grey, key, 0.0), grey)


def test_occlusion_covers_a_square_that_lies_inside(key: jax.Array) -> None:
    white = jnp.ones((40, 20, 20, 1))
    np.testing.assert_array_equal(corruptions.occlude(white, key, 0.0), white)
    for share, side in ((0.3, 6), (1.0, 20)):
        covered = np.asarray(corruptions.occlude(white, key, share))[..., 0] == 0.5
        assert (covered.any(axis=2).sum(axis=1) == side).all()
        assert (covered.sum(axis=(1, 2)) == side**2).all()
    small, large = (np.asarray(corruptions.occlude(white, key, share)) == 0.5 for share in (0.3, 0.6))
    assert len(np.unique(small.argmax(axis=1)[:, :, 0].max(axis=1))) > 5
    assert (small & ~large).sum() == 0


def test_copies_and_classes_by_hand(key: jax.Array) -> None:
    images, labels = np.arange(10)[:, None], np.arange(10) % 5
    assert corruptions.fewer_classes(images, labels, 2)[:, 0].tolist() == [0, 1, 5, 6]
    assert sorted(corruptions.duplicate(images, key, 10)[:, 0].tolist()) == list(range(10))
    few, fewer = (corruptions.duplicate(images, key, num)[:, 0] for num in (4, 2))
    assert sorted(np.unique(few, return_counts=True)[1].tolist()) == [2, 2, 3, 3]
    assert np.unique(fewer, return_counts=True)[1].tolist() == [5, 5]
    assert set(fewer.tolist()) <= set(few.tolist())


def test_swirls_mixtures_and_hues_by_hand() -> None:
    """Nothing of each is nothing; the middle pixel of a swirl stays; a third of a turn passes the channels on."""
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 9, 9, 3)).astype(np.float32))
    for function in (corruptions.swirl, corruptions.mix, corruptions.turn_hue):
        np.testing.assert_allclose(function(images, 0.0), images, atol=1e-6)
    quarter = corruptions.swirl(images, np.pi / 2)
    np.testing.assert_allclose(quarter[:, 4, 4], images[:, 4, 4], atol=1e-5)
    assert float(jnp.abs(quarter - images)[:, 3:6, 3:6].mean()) > 0.1
    assert float(jnp.abs(quarter - images)[:, 0, 0].max()) < 0.25, "corners hardly move"
    np.testing.assert_allclose(corruptions.mix(images, 1.0), images[np.array([3, 0, 1, 2])], atol=1e-6)
    np.testing.assert_allclose(corruptions.turn_hue(images, 1 / 3)[..., 1], images[..., 0], atol=1e-5)
    grey = jnp.full((1, 4, 4, 3), 0.3)
    np.testing.assert_allclose(corruptions.turn_hue(grey, 0.4), grey, atol=1e-6)


def coarse(images: jax.Array) -> jax.Array:
    """16 features: the mean of each of 4 x 2 blocks, and the mean size of the horizontal gradient there."""
    blocks = images[:, :28, :28, 0].reshape(-1, 4, 7, 2, 14).mean(axis=(2, 4)).reshape(-1, 8)
    edges = jnp.abs(images[:, :, 1:, 0] - images[:, :, :-1, 0])[:, :, :26].reshape(-1, 4, 7, 2, 13).mean(axis=(2, 4))
    return jnp.concatenate([blocks, edges.reshape(-1, 8)], axis=1)


@pytest.fixture(
    scope="module",
    params=[pytest.param(2, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow)],
    ids=["some levels", "all levels"],
)
def curves(request: pytest.FixtureRequest) -> Iterator[Curves]:
    """The distances along all corruptions of the embedded set, 196 images on either side, on 16 features."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            corruptions, "LEVELS", {name: levels[:: request.param] for name, levels in corruptions.LEVELS.items()}
        )
        fewer_subsets = functools.partial(metrics.kernel_distance, num_subsets=20)
        patch.setattr(metrics, "kernel_distance", fewer_subsets)  # most of the time
        dataset = data.load()
        extractor = extractors.custom("coarse", coarse)
        yield corruptions.measure(
            dataset["image"], dataset["label"], 1000, extractor, jax.random.key(0), say=lambda line: None
        )


def test_real_images_are_near_real_ones(curves: Curves) -> None:
    """Level 0 is the other half as it is: the unbiased distance is within its error of 0, everything is covered."""
    assert list(curves) == list(corruptions.LEVELS)
    for rows in curves.values():
        first = rows[0]
        assert abs(first["kernel_distance"]) < 3 * first["kernel_distance_standard_error"]
        assert first["frechet_distance"] < 0.2 * rows[-1]["frechet_distance"]
        assert min(first["precision"], first["recall"], first["density"], first["coverage"]) > 0.8


def test_distances_rise_along_every_corruption(curves: Curves) -> None:
    """The Frechet distance at every level; the kernel distance, unbiased and noisy, by more than minus its error."""
    for name, rows in curves.items():
        frechet = [row["frechet_distance"] for row in rows]
        assert all(after > before for before, after in itertools.pairwise(frechet)), (name, frechet)
        kernel = [row["kernel_distance"] for row in rows]
        errors = [row["kernel_distance_standard_error"] for row in rows[1:]]
        steps = zip(itertools.pairwise(kernel), errors, strict=True)
        assert all(after > before - error for (before, after), error in steps), (name, kernel)
        assert kernel[-1] > kernel[len(kernel) // 2] > kernel[0], (name, kernel)


def test_recall_falls_where_images_are_missing_and_precision_does_not(curves: Curves) -> None:
    for name in ("missing classes", "copies"):
        first, last = curves[name][0], curves[name][-1]
        assert last["recall"] < 0.7 * first["recall"], name
        assert last["coverage"] < 0.7 * first["coverage"], name
        assert last["precision"] > 0.9 * first["precision"], name


@pytest.mark.slow
def test_the_command_writes_numbers_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(corruptions, "LEVELS", {"blur": (0.0, 1.0), "missing classes": (0.0, 0.5)})
    monkeypatch.setattr(extractors, "find", lambda text: extractors.custom(text, coarse))
    out = tmp_path / "curves.png"
    assert corruptions.main(["--num-images", "60", "--out", str(out), "--extractor", "coarse"]) == 0
    record: Any = json.loads(out.with_suffix(".json").read_text())
    assert {name: [row["level"] for row in rows] for name, rows in record["curves"].items()} == {
        "blur": [0.0, 1.0],
        "missing classes": [0.0, 0.5],
    }
    assert record["curves"]["blur"][0]["num_images"] == 60
    assert "fashion_mnist_small, coarse, 60 images on either side" in words(out)
    assert corruptions.main(["--out", "curves.jpg"]) == 1
    assert corruptions.main(["--num-images", "3"]) == 1
    assert "--num-images must be at least 20" in capsys.readouterr().err


@pytest.mark.slow
def test_without_labels_no_class_is_missing(key: jax.Array) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28, 1), dtype=np.uint8)
    short = {"noise": (0.0,), "missing classes": (0.0,)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruptions, "LEVELS", short)
        found = corruptions.measure(images, None, 25, extractors.custom("coarse", coarse), key, say=lambda line: None)
    assert list(found) == ["noise"]
    with pytest.raises(ValueError, match="images are left without 80% of the classes"):
        corruptions.corrupt(images, np.arange(60) % 5, 20, "missing classes", 0.8, key)
