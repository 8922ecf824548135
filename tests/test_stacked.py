"""Stacked digits: a data set of 1,000 modes."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxgen import data
from tests.test_data import write_idx


def digits(num: int = 40) -> dict[str, np.ndarray]:
    """Grey images that show by their brightness which they are and of which class."""
    label = np.arange(num, dtype=np.int32) % 10
    image = np.broadcast_to((np.arange(num) + 100).astype(np.uint8)[:, None, None, None], (num, 4, 5, 1))
    return {"image": np.array(image), "label": label}


def test_three_digits_make_a_stack_by_hand() -> None:
    grey = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
    stacks = data.stack_channels({"image": grey, "label": np.array([1, 2, 3, 9, 0, 4])})
    assert stacks["label"].tolist() == [123, 904]
    assert (stacks["image"].shape, stacks["image"].dtype, stacks["label"].dtype) == ((2, 2, 2, 3), np.uint8, np.int32)
    for stack in range(2):
        for channel in range(3):
            np.testing.assert_array_equal(stacks["image"][stack, ..., channel], grey[3 * stack + channel, ..., 0])


def test_a_stacked_source_reads_by_place() -> None:
    """A stack depends on its place alone: in any order, in pieces, and again."""
    source = data.stacked(data.in_memory(digits()), 5000)
    assert (source.num_examples, source.image_shape, source.num_classes) == (5000, (4, 5, 3), 1000)
    everything = source.read(np.arange(5000))
    some = np.array([4999, 3, 3, 4096])
    for name, array in source.read(some).items():
        np.testing.assert_array_equal(array, everything[name][some])
    numbers = everything["image"][:, 0, 0].astype(int) - 100
    assert (everything["image"] == everything["image"][:, :1, :1]).all()
    np.testing.assert_array_equal(everything["label"], (numbers % 10) @ [100, 10, 1])
    assert source.read(np.arange(0))["image"].shape == (0, 4, 5, 3)


def test_digits_are_drawn_evenly_and_independently(key: jax.Array) -> None:
    """Chi-squared by hand: of 27,000 draws of 30, and of pairs of channels, within 6 standard deviations."""
    drawn = data.draw_stacks(key, np.arange(9000), 30)
    counts = np.bincount(drawn.reshape(-1), minlength=30)
    assert counts.size == 30
    assert abs(np.sum((counts - 900) ** 2 / 900) - 29) < 6 * np.sqrt(2 * 29)
    for first, second in ((0, 1), (1, 2), (0, 2)):
        counts = np.bincount(30 * drawn[:, first] + drawn[:, second], minlength=900)
        assert abs(np.sum((counts - 10) ** 2 / 10) - 899) < 6 * np.sqrt(2 * 899)
    assert (data.draw_stacks(jax.random.key(1), np.arange(9000), 30) != drawn).mean() > 0.9


def test_a_stacked_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """128,000 stacks for training and 26,000 for testing, of each split's own images; loaded and opened the same."""
    for split, num in (("train", 128_000), ("test", 26_000)):
        assert data.open_source("stacked:fashion_mnist_small", split).num_examples == num
    monkeypatch.setattr(data, "TRAINING_STACKS", 8192)
    monkeypatch.setattr(data, "TEST_STACKS", 4096)
    small = tmp_path / "idx"
    small.mkdir()
    for prefix, num in (("train", 40), ("t10k", 20)):
        images = digits(num)["image"][..., 0] + (0 if prefix == "train" else 60)
        write_idx(small / f"{prefix}-images-idx3-ubyte", images)
        write_idx(small / f"{prefix}-labels-idx1-ubyte", digits(num)["label"].astype(np.uint8))
    name = f"stacked:idx:{small}"
    train, test = data.load(name), data.load(name, "test")
    assert (train["image"].shape, test["image"].shape) == ((8192, 4, 5, 3), (4096, 4, 5, 3))
    assert train["image"].max() < 140
    assert test["image"].min() >= 160
    assert np.unique(train["label"]).size > 990
    source = data.open_source(name, "test")
    some = np.arange(0, 4096, 100)
    np.testing.assert_array_equal(source.read(some)["image"], test["image"][some])
    part = data.load(name, rows=lambda num: slice(num // 2, num // 2 + 10))
    np.testing.assert_array_equal(part["label"], train["label"][4096:4106])
    resized = data.load(name, "test", image_size=8, rows=lambda num: slice(3))
    assert resized["image"].shape == (3, 8, 8, 3)


def test_the_embedded_set_is_stacked_always_alike() -> None:
    """A gold value: what depends on it are runs and numbers of other people."""
    stacks: Any = data.open_source("stacked:fashion_mnist_small").read(np.arange(5))
    grey = data.load()
    drawn = data.draw_stacks(jax.random.key(0), np.arange(5), 2000)
    np.testing.assert_array_equal(stacks["image"][..., 1], grey["image"][drawn[:, 1], ..., 0])
    assert stacks["label"].tolist() == [587, 123, 40, 688, 352]


def test_what_cannot_be_stacked_is_refused() -> None:
    grey = digits()
    with pytest.raises(ValueError, match=r"got \[4, 5, 3\] with labels: make colour images grey \(--color grey\)"):
        data.stacked(data.in_memory({**grey, "image": grey["image"].repeat(3, axis=-1)}), 10)
    with pytest.raises(ValueError, match="without labels"):
        data.stacked(data.in_memory({"image": grey["image"]}), 10)
    with pytest.raises(ValueError, match="of 10 classes, got labels up to 10"):
        data.stacked(data.in_memory({**grey, "label": grey["label"] + 1}), 10)
    with pytest.raises(ValueError, match=r"got \[40, 4, 5, 1\] and labels \[40\]"):
        data.stack_channels(grey)
    with pytest.raises(ValueError, match="labels 0 to 9, got 1 to 10"):
        data.stack_channels({"image": grey["image"][:30], "label": grey["label"][:30] + 1})
    with pytest.raises(ValueError, match="name the data set to stack after the colon"):
        data.load("stacked:")
    with pytest.raises(ValueError, match="with labels, got"):
        data.load("stacked:stacked:fashion_mnist_small")
