"""Enlarging a small labelled set: the filter and the counts by hand, what each part may see, and resuming."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import augment
from experiments.augmentation import cell as cells
from experiments.augmentation import generated_images
from experiments.augmentation.cell import Cell, Family, Method, Options, methods
from jaxgen import data
from jaxgen.networks import LeNet
from tests.pictures import grids, words

# -- The filter and the enlarged set ----------------------------------------------------------------------------------


class Rigged:
    """A generator whose images are numbers, and a classifier that reads its probabilities from them.

    The image of a class is u in [0, 1): its own class has the probability u, the next one 1 - u.
    """

    def __init__(self, hopeless: tuple[int, ...] = ()) -> None:
        self.hopeless, self.labels = hopeless, []  # type: ignore[var-annotated]

    def sample(self, key: jax.Array, num: int, label: np.ndarray) -> np.ndarray:
        self.labels.append(label)
        u = np.array(jax.random.uniform(key, (num,)))
        u[np.isin(label, self.hopeless)] = 0.01
        return (label + u)[:, None, None, None]

    def classify(self, image: np.ndarray) -> np.ndarray:
        label, u = np.divmod(image[:, 0, 0, 0], 1.0)
        probabilities = np.zeros((len(image), 3))
        rows, label = np.arange(len(image)), label.astype(int)
        probabilities[rows, label], probabilities[rows, (label + 1) % 3] = u, 1 - u
        return probabilities


def test_what_is_kept_is_sure_of_its_own_class(key: jax.Array) -> None:
    """Protects: the probability of the class it was made for decides, not the likeliest's; the counts are true."""
    rigged = Rigged()
    found = generated_images.draw_confident(rigged.sample, rigged.classify, key, 200, 3, 0.3)
    assert np.bincount(found.label).tolist() == [200, 200, 200]
    classes, u = np.divmod(found.image[:, 0, 0, 0], 1.0)
    np.testing.assert_array_equal(classes, found.label)
    assert u.min() >= 0.3
    assert (u < 0.5).any(), "images that look more like another class, and are sure enough"
    classes, u = np.divmod(found.rejected_image[:, 0, 0, 0], 1.0)
    np.testing.assert_array_equal(classes, found.rejected_label)
    assert u.max() < 0.3
    drawn = np.bincount(np.concatenate(rigged.labels))
    np.testing.assert_array_equal(found.drawn, drawn)
    np.testing.assert_allclose(found.passed / found.drawn, 0.7, atol=0.1)
    assert len(np.unique(found.image)) == 600, "the same images twice"


def test_no_threshold_keeps_all_and_the_same_key_the_same(key: jax.Array) -> None:
    rigged = Rigged()
    found, again = (generated_images.draw_confident(rigged.sample, rigged.classify, key, 5, 3, 0.0) for _ in range(2))
    assert found.drawn.tolist() == found.passed.tolist() == [5, 5, 5]
    assert not len(found.rejected_image)
    np.testing.assert_array_equal(found.image, again.image)
    other = generated_images.draw_confident(rigged.sample, rigged.classify, jax.random.key(1), 5, 3, 0.0)
    assert not np.isin(other.image, found.image).any()


def test_a_class_that_does_not_pass_ends_the_drawing(key: jax.Array) -> None:
    """Protects: no endless loop; later rounds draw what is missing; nothing at all is an error."""
    rigged = Rigged(hopeless=(1,))
    found = generated_images.draw_confident(rigged.sample, rigged.classify, key, 50, 3, 0.5, most_draws=4)
    assert found.drawn.sum() == 4 * 3 * 50
    assert np.bincount(found.label, minlength=3).tolist() == [50, 0, 50]
    assert found.passed[1] == 0
    assert found.drawn[1] > max(found.drawn[0], found.drawn[2])
    assert set(rigged.labels[-1]) == {1}
    rigged = Rigged(hopeless=(0, 1, 2))
    with pytest.raises(ValueError, match=r"of 90 generated images none is of its class with a probability of 0.5"):
        generated_images.draw_confident(rigged.sample, rigged.classify, key, 10, 3, 0.5, most_draws=3)


def test_draws_that_are_refused(key: jax.Array) -> None:
    rigged = Rigged()
    for arguments, message in (
        ((0, 3, 0.5), "per_class must be at least 1, got 0"),
        ((5, 3, 1.5), r"threshold must be a probability in \[0, 1\], got 1.5"),
        ((5, 2, 0.5), r"classify must return probabilities \[10, 2\], got \[10, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            generated_images.draw_confident(rigged.sample, rigged.classify, key, *arguments)


@pytest.mark.parametrize(
    ("labels", "share", "least", "expected"),
    [(10, 0.5, 400, (40, 400)), (200, 0.5, 400, (2, 400)), (50, 0.25, 400, (24, 400)), (200, 0.75, 400, (1, 600))],
)
def test_repeats_and_generated_images(labels: int, share: float, least: int, expected: tuple[int, int]) -> None:
    """Protects: every labelled image is as frequent as any other, and the share is the one that was asked for."""
    repeats, generated = generated_images.generated_per_class(labels, share, least)
    assert (repeats, generated) == expected
    assert generated / (generated + repeats * labels) == share
    with pytest.raises(ValueError, match="inside"):
        generated_images.generated_per_class(labels, 1.0, least)


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.bool_])
def test_an_enlarged_set_by_hand(kind: Any) -> None:
    """Protects: counts of each class, labelled images in place of missing ones, labels that belong, one scale."""
    image = np.array([0, 1, 2, 3])[:, None, None, None]
    real = {"image": (image * 85 if kind == np.uint8 else image / 3).astype(kind), "label": np.array([0, 0, 1, 1])}
    made = np.array([0.5, 0.61, 0.9], np.float32)[:, None, None, None]
    none = np.zeros((0, 1, 1, 1), np.float32)
    counts = np.ones(2, int)
    generated = generated_images.Filtered(
        made, np.array([0, 0, 1], np.int32), none, np.zeros(0, np.int32), counts, counts
    )
    joined = generated_images.enlarge(real, generated, repeats=2, per_class=2)
    assert joined["label"].tolist() == [0] * 6 + [1] * 6
    assert joined["image"].dtype == (np.uint8 if kind == np.uint8 else np.float32)
    values = joined["image"][:, 0, 0, 0] / (255 if kind == np.uint8 else 1)
    first, second, third = (0, 0, 1 / 3, 1 / 3, 0.5, 0.61), (2 / 3, 2 / 3, 2 / 3, 1, 1, 0.9), (0, 0, 1, 1, 0.5, 0.61)
    expected = (third, (1, 1, 1, 1, 1, 0.9)) if kind == np.bool_ else (first, second)
    for number, numbers in enumerate(expected):
        np.testing.assert_allclose(np.sort(values[6 * number :][:6]), np.sort(numbers), atol=0.002)


# -- The experiment ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of small images: 60 to train on and 30 to test on."""
    some = data.load()
    chosen = np.concatenate([np.flatnonzero(some["label"] == number)[:30] for number in (0, 1, 8)])
    image, label = some["image"][chosen, 6:22, 6:22], np.repeat(np.arange(3), 30)
    path = tmp_path_factory.mktemp("images") / "fashion.npz"
    train = np.arange(90) % 3 > 0
    arrays: dict[str, Any] = {}
    for name, there in (("train", train), ("test", ~train)):
        arrays |= {f"{name}_image": image[there], f"{name}_label": label[there]}
    np.savez(path, **arrays)
    return path


@pytest.fixture
def options(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """A run of seconds, with a small classifier."""
    monkeypatch.setattr(cells, "LeNet", functools.partial(LeNet, channels=(2, 3), num_features=5))
    return Options(
        dataset=f"npz:{images}",
        labels=(4,),
        seeds=2,
        families=("vae",),
        thresholds=(0.2,),
        generated=8,
        steps=12,
        batch_size=8,
        generator_batch_size=8,
        gan_steps=5,
        vae_steps=5,
        out=tmp_path / "out",
    )


@pytest.mark.slow
def test_an_experiment_goes_on_after_a_kill(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects: what is done is not done again, the rest comes out as without the kill, and all files are there."""
    whole = dataclasses.replace(options, out=tmp_path / "whole")
    augment.run(whole)
    measure, done = augment.train_and_measure, []

    def dies_once(cell: Cell, seed: int, method: Method, measured_on: Any) -> Any:
        done.append((cell.labels, seed, method))
        if len(done) == 3:
            raise KeyboardInterrupt
        return measure(cell, seed, method, measured_on)

    monkeypatch.setattr(augment, "train_and_measure", dies_once)
    with pytest.raises(KeyboardInterrupt):
        augment.run(options)
    assert done[2] == (4, 0, methods(options)[2])
    augment.run(options)
    assert done[3] == done[2]
    assert len(done) == len(set(done)) + 1 == 2 * 3 + 1, "done twice, or not at all"
    found, expected = (json.loads((each.out / "results.json").read_text()) for each in (options, whole))
    for results in (found, expected):
        for record in results["runs"]:
            assert record.pop("time_seconds") >= 0
    assert found == expected
    text = (options.out / "table.txt").read_text()
    assert text in capsys.readouterr().out
    assert "| ordinary + VAE (50%, p >= 0.2), over ordinary | " in text
    picture = options.out / "samples_vae_4.png"
    assert "Columns: labelled images, generated and kept, generated and rejected." in words(picture)
    (grid,) = grids(picture)
    assert grid.shape == (4 * (3 * 18 + 2), 4 * (3 * (8 * 18 + 2) + 2 * 4), 3)
    assert (options.out / "gain.png").stat().st_size > 10_000
    # With other settings the numbers would not be comparable.
    with pytest.raises(ValueError, match=r"other settings \(steps was 12, now 13\): use another --out"):
        augment.run(dataclasses.replace(options, steps=13))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vae", "gan"])
def test_nothing_but_the_labelled_images_is_learnt_from(options: Options, family: Family) -> None:
    """Protects: generator, filter and classifier of a cell do not change with any other image, to the bit."""
    options = dataclasses.replace(options, families=(family,))
    training, test, num_classes = augment.load(options)
    cell = Cell(options, training, num_classes, 4, seed=0)
    others = np.setdiff1d(np.arange(60), cell.chosen)
    assert len(others) == 60 - 3 * 4
    changed = {**training, "image": training["image"].copy()}
    changed["image"][others] = 0
    twin = Cell(options, changed, num_classes, 4, seed=0)
    for method in methods(options):
        for one, other in zip(*map(jax.tree.leaves, (cell.params(method), twin.params(method))), strict=True):
            np.testing.assert_array_equal(one, other)
    elsewhere = augment.held_out(dataclasses.replace(options, measure_on="training"), training, test, cell)
    np.testing.assert_array_equal(elsewhere["image"], training["image"][others])
    assert augment.held_out(options, training, test, cell) is test


def test_gains_are_paired(options: Options) -> None:
    """Protects: the gain's error is that of the differences, over each method's own base; by hand."""
    options = dataclasses.replace(options, alone=True)
    accuracies = {"none": (0.5, 0.7), "ordinary": (0.6, 0.8), "VAE": (0.5, 0.74), "ordinary + VAE": (0.58, 0.82)}
    runs = [
        {"labels": 4, "seed": seed, "method": dataclasses.asdict(method), "accuracy": accuracy, "share_kept": 0.25}
        for method in methods(options)
        for seed, accuracy in enumerate(accuracies[method.name.partition(" (")[0]])
    ]
    rows = {row["method"].partition(" (")[0]: row for row in augment.summarize(options, runs)}
    np.testing.assert_allclose(list(rows["none"]["accuracy"].values()), [0.6, 0.1])
    expected: dict[str, dict[str, Any]] = {
        "none": {},
        "ordinary": {"none": [0.1, 0.0]},
        "VAE": {"none": [0.02, 0.02]},
        "ordinary + VAE": {"none": [0.1, 0.02], "ordinary": [0.0, 0.02]},
    }
    for name, row in rows.items():
        assert row["gains"].keys() == expected[name].keys()
        for base, gain in row["gains"].items():
            np.testing.assert_allclose(list(gain.values()), expected[name][base], atol=1e-12)
    text = augment.table(options, list(rows.values()))
    assert "| VAE (50%, p >= 0.2), over none | +2.00 +- 2.00 |" in text
    assert "| ordinary + VAE (50%, p >= 0.2), over ordinary | +0.00 +- 2.00 |" in text
    assert "| none | 60.00 +- 10.00 |" in text
    assert "| VAE (50%, p >= 0.2) | 25% |" in text


def test_what_an_experiment_refuses(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects: each mistake is one line that says what to do, before anything is trained or written."""
    np.savez(tmp_path / "bare.npz", image=np.random.default_rng(0).integers(0, 256, (30, 16, 16, 1), np.uint8))
    set_of_three = ["--dataset", f"npz:{images}"]
    for arguments, message in (
        (["--seeds", "1"], "--seeds must be from 2 to 10000, got 1"),
        (["--labels", "0"], "--labels must be sizes of at least 1"),
        (["--thresholds", "1.2"], "--thresholds must be in [0, 1], got"),
        (["--shares", "1.0"], "--shares must be in (0, 1), got"),
        (["--labels", "5", "5"], "--labels must be one or more different values"),
        (["--dataset", f"npz:{tmp_path / 'bare.npz'}"], "has no labels"),
        ([*set_of_three, "--labels", "4"], "--batch-size 32 is larger than the smallest labelled set, 4 of 3 classes"),
        ([*set_of_three, "--labels", "30"], "has 20 training images, --labels asks for 30"),
        (["--gan-config", "vanished"], "unknown configuration 'vanished' for gan"),
    ):
        status = 2 if "unknown configuration" in message else 1
        assert augment.main([*arguments, "--out", str(tmp_path / "out")]) == status
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_which_sets_are_mirrored() -> None:
    """Protects: digits are never mirrored unless it is asked for."""
    assert Options(dataset="fashion_mnist").mirrors
    assert not Options(dataset="mnist").mirrors
    assert not Options(dataset="fashion_mnist", flip="no").mirrors
    assert Options(dataset="mnist", flip="yes").mirrors
