"""Pixel metrics against scikit-image and NumPy in float64."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio
from skimage.metrics import structural_similarity as skimage_similarity

from jaxgen import data, metrics


def oracle(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """SSIM by scikit-image, in float64."""
    parameters: dict[str, Any] = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1,
    }
    pairs = zip(images.astype(np.float64), others.astype(np.float64), strict=True)
    return np.array([skimage_similarity(x, y, channel_axis=-1, **parameters) for x, y in pairs])


@pytest.mark.parametrize("shape", [(28, 28, 1), (28, 28, 3), (64, 64, 1), (64, 64, 3), (11, 30, 1)])
def test_structural_similarity_is_scikit_images(shape: tuple[int, ...]) -> None:
    """Noise; bright images of little contrast, whose variances cancel in float32 (by 1e-4); and slopes."""
    draws = np.random.default_rng(0)
    noise = draws.uniform(size=(2, *shape))
    bright = np.clip(0.95 + 0.01 * draws.normal(size=noise.shape), 0, 1)
    slope = np.broadcast_to(1 - 0.1 * np.linspace(0, 1, shape[1])[:, None], noise.shape)
    images: Any = np.concatenate([noise, bright, slope]).astype(np.float32)
    change = np.concatenate([0.1 * draws.normal(size=(4, *shape)), -0.03 * slope])
    others: Any = np.clip(images + change, 0, 1).astype(np.float32)
    similarities = jax.jit(metrics.structural_similarity)(images, others)
    assert (similarities.shape, similarities.dtype) == ((6,), jnp.float32)
    np.testing.assert_allclose(similarities, oracle(images, others), atol=1e-6)
    np.testing.assert_array_equal(metrics.structural_similarity(images, others), similarities)
    np.testing.assert_allclose(metrics.structural_similarity(images, images), 1.0, atol=1e-6)


def test_structural_similarity_takes_every_kind_of_image() -> None:
    images: Any = data.load()["image"][:4]
    others = images[::-1]
    expected = oracle(images / 255, others / 255)
    np.testing.assert_allclose(metrics.structural_similarity(images, jnp.asarray(others)), expected, atol=1e-6)
    images, others = images > 127, others > 127
    expected = oracle(images * 1.0, others * 1.0)
    np.testing.assert_allclose(metrics.structural_similarity(images, others), expected, atol=1e-6)


def test_structural_similarity_without_dm_pix_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dm_pix", None)
    jax.clear_caches()
    with pytest.raises(ImportError, match="pip install dm-pix"):
        metrics.structural_similarity(jnp.zeros((1, 28, 28, 1)), jnp.zeros((1, 28, 28, 1)))


def test_errors_and_ratios_by_hand_and_by_scikit_image(key: jax.Array) -> None:
    """Half of the pixels off by 0.2: MSE 0.02, PSNR 16.99 dB."""
    images = jnp.full((2, 4, 2, 1), 0.5)
    others = images.at[0, :2].add(0.2).at[1].add(-0.1)
    np.testing.assert_allclose(metrics.mean_squared_error(images, others), [0.02, 0.01], rtol=1e-5)
    np.testing.assert_allclose(jax.jit(metrics.peak_signal_to_noise_ratio)(images, others), [16.9897, 20.0], rtol=1e-5)
    images, others = jax.random.uniform(key, (2, 3, 9, 7, 3))
    expected = [peak_signal_noise_ratio(x, y, data_range=1) for x, y in zip(*np.asarray((images, others)), strict=True)]
    np.testing.assert_allclose(metrics.peak_signal_to_noise_ratio(images, others), expected, rtol=1e-5)


def test_uint8_wraps_nowhere_and_identical_images_are_infinitely_alike() -> None:
    black, white = jnp.zeros((1, 3), jnp.uint8), jnp.full((1, 3), 255, jnp.uint8)
    for first, second in ((black, white), (white, black)):
        np.testing.assert_allclose(metrics.mean_squared_error(first, second), [1.0])
        np.testing.assert_allclose(metrics.peak_signal_to_noise_ratio(first, second), [0.0], atol=1e-6)
    np.testing.assert_array_equal(metrics.mean_squared_error(white, white), [0.0])
    np.testing.assert_array_equal(metrics.peak_signal_to_noise_ratio(white, white), [np.inf])
    np.testing.assert_allclose(metrics.mean_squared_error(white, jnp.ones((1, 3), bool)), [0.0])


def nearest_by_hand(images: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, among = (each.reshape(len(each), -1).astype(np.float64) for each in (images, among))
    distances = np.linalg.norm(images[:, None] - among[None], axis=2)
    return distances.min(1), distances.argmin(1)


@pytest.mark.parametrize("sizes", [(3, 70), (40, 7)])
def test_nearest_neighbours_over_tiles(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 16 x 16 that do not divide the sets."""
    monkeypatch.setattr("jaxgen.metrics._neighbours._ROWS", 16)
    monkeypatch.setattr("jaxgen.metrics._neighbours._COLUMNS", 16)
    jax.clear_caches()
    draws = np.random.default_rng(1)
    images, among = (jnp.asarray(draws.uniform(size=(num, 5, 4, 1)), jnp.float32) for num in sizes)
    distances, numbers = metrics.nearest_neighbours(images, among)
    expected = nearest_by_hand(np.asarray(images), np.asarray(among))
    np.testing.assert_allclose(distances, expected[0], rtol=1e-6)
    np.testing.assert_array_equal(numbers, expected[1])
    assert (distances.dtype, numbers.dtype) == (jnp.float32, jnp.int32)
    again = jax.jit(metrics.nearest_neighbours)(images, among)
    np.testing.assert_array_equal(again[1], numbers)
    jax.clear_caches()


def test_nearest_neighbours_that_are_nearly_equal_are_told_apart() -> None:
    """Far from the origin, 1e-4 apart, where |x|^2 - 2 x.y + |y|^2 in float32 is all rounding."""
    draws = np.random.default_rng(2)
    points = jnp.asarray(7.0 + 1e-4 * draws.normal(size=(60, 300)), jnp.float32)
    images, among = points[:20], jnp.concatenate([points[20:], points[:2]])
    distances, numbers = metrics.nearest_neighbours(images, among)
    expected = nearest_by_hand(np.asarray(images), np.asarray(among))
    np.testing.assert_array_equal(numbers, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-6)
    assert distances[:2].tolist() == [0.0, 0.0]  # the copies, exactly


def test_nearest_neighbours_of_8_bit_images() -> None:
    images: Any = data.load()["image"][:30]
    noisy: Any = np.clip(images + np.random.default_rng(3).normal(0, 5, images.shape), 0, 255).astype(np.uint8)
    distances, numbers = metrics.nearest_neighbours(noisy, images)
    assert numbers.tolist() == list(range(30))
    np.testing.assert_allclose(distances, nearest_by_hand(noisy / 255, images / 255)[0], rtol=1e-5)
    assert np.isinf(metrics.nearest_neighbours(jnp.full((1, 28, 28, 1), jnp.nan), images)[0]).all()


def test_bad_images_are_refused() -> None:
    images = jnp.zeros((2, 28, 28, 1))
    for metric in (metrics.mean_squared_error, metrics.peak_signal_to_noise_ratio, metrics.structural_similarity):
        with pytest.raises(ValueError, match="one shape, got"):
            metric(images, images[:1])
        with pytest.raises(TypeError, match="int32"):
            metric(images, jnp.zeros(images.shape, jnp.int32))
    for metric in (metrics.peak_signal_to_noise_ratio, metrics.structural_similarity):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\], got values from 0 to 255"):
            metric(images, images.at[0, 0].set(255.0))
    with pytest.raises(ValueError, match=r"H, W >= 11.*got \[2, 10, 28, 1\]"):
        metrics.structural_similarity(images[:, :10], images[:, :10])
    with pytest.raises(ValueError, match="H, W >= 11"):
        metrics.structural_similarity(images[..., 0], images[..., 0])
    with pytest.raises(ValueError, match="N >= 1"):
        metrics.mean_squared_error(images[0, 0, 0, 0], images[0, 0, 0, 0])
    with pytest.raises(ValueError, match="images of one shape are needed"):
        metrics.nearest_neighbours(images, images[:, :14])
    with pytest.raises(ValueError, match=r"among must be \[N, ...\] with N >= 1, got shape \[0, 28, 28, 1\]"):
        metrics.nearest_neighbours(images, images[:0])
