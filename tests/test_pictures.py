"""Every picture says what it shows, on it and in its file; the pixels of images in it are exact."""

import ast
import dataclasses
import itertools
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxgen
from experiments import corruptions, gaussians
from experiments.augmentation import cell as cells
from experiments.augmentation import results as augmentation_results
from experiments.augmentation.generated_images import Filtered
from jaxgen import data, metrics, networks
from jaxgen.cli import sample
from jaxgen.cli.comparing import charts
from jaxgen.cli.comparing import pictures as comparison
from jaxgen.cli.pictures import animate, show
from jaxgen.cli.sweeping import results as sweep_results
from jaxgen.evaluation import figures, report
from jaxgen.evaluation.during_training import Pictures, class_titles
from jaxgen.trained import Trained
from jaxgen.training.monitor import Monitor, image_grid, interleaved, titled_grid
from jaxgen.training.run_data import dataset_title
from tests import models
from tests.pictures import grids, words
from tests.test_architecture import ROOT, house
from tests.test_compare import record_of

HOSTILE = (
    "猫",
    "قطة",
    "emoji 👩‍👧",
    "two\nlines",
    "$x_1$ and $",
    "",
    "n" * 200,
    "кошка",
    "half \ud800",
    "नमस्ते",
    "\x00\u202e",
    "100%_$\\alpha$",
)

# Who writes pictures, and the test that finds their words in them.
WRITERS = {
    "jaxgen.training.monitor": "test_grids_of_a_run",
    "jaxgen.cli.sample": "test_samples_of_a_run",
    "jaxgen.evaluation.report": "test_pictures_of_an_evaluation",
    "jaxgen.cli.sweeping.results": "test_a_sweep_marks_the_best_and_what_is_not_told_apart_from_it",
    "jaxgen.cli.comparing.pictures": "test_pictures_of_a_comparison",
    "jaxgen.cli.pictures": "test_titled_columns_and_walks",
    "jaxgen.evaluation.curves": "tests/test_curves.py::test_the_log_of_a_gan_has_both_players_in_one_panel",
    "jaxgen.cli.exploring.planes": "tests/test_explore.py::test_where_held_out_images_lie",
    "jaxgen.cli.exploring.averages": "tests/test_averaging.py::test_a_run_leaves_averages_of_which_others_are_made",
    "jaxgen.cli.exploring.trainings": "tests/test_explore.py::test_an_animation_of_a_training",
    "experiments.gaussians": "test_gaussians",
    "experiments.corruptions": "test_corruptions",
    "experiments.augmentation.results": "test_gains",
    "experiments.augment": "test_generated_images_of_each_class",
}


# -- One room --------------------------------------------------------------------------------------------------------


def test_pictures_are_written_in_one_room() -> None:
    """Protects: a new picture comes with its title, and with a test of its words."""
    savers = {"save_picture", "save_image", "save_animation", "save_figure"}
    writers = set()
    for name, path in house().items():
        text = path.read_text()
        calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        called = {getattr(function, "attr", getattr(function, "id", "")) for function in calls}
        methods = {getattr(function, "attr", "") for function in calls}
        if name == "jaxgen.evaluation.figures":
            assert {"print_png", "save"} <= called
            continue
        assert not called & {"savefig", "print_png", "print_figure", "imsave", "imwrite"}, f"{name} writes pictures"
        if "from PIL import" in text and name != "benchmarks.streaming":  # which writes a data set
            assert "save" not in methods, f"{name} writes pictures with Pillow"
        writers |= {name} if called & savers else set()
    assert writers == set(WRITERS), "say in WRITERS which test finds the words of the pictures"
    for test in WRITERS.values():
        place, _, function = test.rpartition("::")
        text = (ROOT.parent / place).read_text() if place else Path(__file__).read_text()
        assert f"def {function}(" in text


def test_a_picture_without_a_title_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a picture needs a title"):
        figures.titled(np.zeros((3, 3, 3), np.uint8), " \n")
    figure = figures.new_figure(3, 2)
    figure.subplots(1, 2)[0].set_title("one of two panels")
    with pytest.raises(ValueError, match=r"a\.png: a figure needs a title, or one over every panel"):
        figures.save_figure(tmp_path / "a.png", figure)
    figure.axes[1].set_title("the other")
    figures.save_figure(tmp_path / "a.png", figure)
    assert words(tmp_path / "a.png").startswith("one of two panels; the other\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_grids_are_drawn_without_matplotlib(tmp_path: Path) -> None:
    """It takes half a second to import, which a short training would notice."""
    program = f"""
import sys
from pathlib import Path
import numpy as np
from jaxgen.training.monitor import Monitor
with Monitor(Path({str(tmp_path)!r}), 0) as monitor:
    monitor.show(3, "samples", np.zeros((2, 4, 4, 1)))
assert "matplotlib" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert words(tmp_path / "samples" / "samples_00000003.png").startswith("samples, step 3")


# -- Words -----------------------------------------------------------------------------------------------------------


def test_names_of_any_kind_are_drawn(tmp_path: Path) -> None:
    """Protects: no warning of a missing glyph, no formula, no broken file; the file has each name in full."""
    names = [figures.named("class", number, HOSTILE) for number in range(len(HOSTILE) + 1)]
    assert names[0] == "class 0: 猫", "the font lacks it: the number says which it is"
    assert [names[i] for i in (1, 3, 5, 7, 10, 12)] == ["قطة", "two lines", "class 5", "кошка", "class 10", "class 12"]
    images = np.zeros((len(names), 4, 4, 1), np.float32)
    title = " ".join(HOSTILE)
    figures.save_picture(tmp_path / "grid.png", titled_grid(images, 1, title, title, names, [(title, 1)]))
    figure = figures.new_figure(12, 8)
    axes = figure.subplots()
    for name in HOSTILE:
        axes.plot([1, 2], label=f"run {name}")
    axes.set_title(title)
    axes.set_xticks(range(len(HOSTILE)), HOSTILE, rotation=90)
    axes.set_ylabel(title)
    axes.text(0, 1.5, names[0])
    axes.legend()
    figures.save_figure(tmp_path / "chart.png", figure)
    animate(tmp_path / "walk.gif", np.zeros((1, 2, 4, 4, 1)), title)
    for path in tmp_path.iterdir():
        said = words(path)
        assert all(figures.one_line(name) in said for name in HOSTILE), path
        assert "\x00" not in said
    assert "□: not in the font; the file's description has it." not in words(tmp_path / "grid.png")


def test_what_the_font_lacks_is_a_square() -> None:
    assert figures.drawable("a猫b\n\u202ec👨\u200d👩") == "a□b c□□"
    assert figures.drawable("Fréchet ≤ кошка قطة") == "Fréchet ≤ кошка قطة"
    assert figures.one_line("\x00a\tb\r\n\ud800") == "a b \ufffd"
    assert figures.shortened("n" * 200) == f"{'n' * 24}…{'n' * 23}"
    assert figures.shortened("short") == "short"


def test_what_the_font_has_is_known() -> None:
    """As the font's own table says."""
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    there = FT2Font(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf").get_charmap()
    some = [character for character in map(chr, range(0x21, 0x20000, 13)) if figures.one_line(character) == character]
    assert len(some) > 5000
    assert [
        c for c in some if (ord(c) in there) != (figures.drawable(f"{c}") == c) and unicodedata.category(c) != "Cf"
    ] == []


def test_words_fit_into_the_picture() -> None:
    """Protects: nothing is cut off at an edge, however long a name or narrow a grid."""
    long = " ".join(("run-" + "long-" * 40, *("words",) * 30))
    for columns in (1, 12):
        heads = [(long, 1)] * columns
        picture = titled_grid(np.zeros((columns, 28, 28, 1)), columns, long, long, [long], heads)
        pixels = picture.pixels
        border = np.concatenate(
            [pixels[:2].ravel(), pixels[-2:].ravel(), pixels[:, :2].ravel(), pixels[:, -2:].ravel()]
        )
        assert (border == 255).all()
        assert (pixels != 255).any()


def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    """No dates; and what is a chart's is as reproducible as a grid."""
    for name in ("a", "b"):
        figure = figures.new_figure(3, 2)
        figure.subplots().plot([1, 2])
        figure.suptitle("a chart")
        figures.save_figure(tmp_path / f"chart_{name}.png", figure)
        figures.save_picture(tmp_path / f"grid_{name}.png", titled_grid(np.zeros((1, 4, 4, 1)), 1, "a grid"))
        animate(tmp_path / f"walk_{name}.gif", np.zeros((1, 2, 4, 4, 3)), "a walk")
    for kind in ("chart_{}.png", "grid_{}.png", "walk_{}.gif"):
        one, other = ((tmp_path / kind.format(name)).read_bytes() for name in ("a", "b"))
        assert one == other
        assert b"matplotlib" not in one.lower()


# -- Images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "scale", "said"),
    [
        ((28, 28, 1), 2, ""),
        ((4, 4, 1), 14, ""),
        ((64, 64, 3), 1, ""),
        ((300, 200, 3), 1, ""),
        ((8, 40, 3), 3, ""),
        ((8, 8, 2), 7, "Of 2 channels the first is seen, as grey."),
        ((8, 8, 4), 7, "Of 4 channels the first three are seen, as colour."),
    ],
)
def test_images_are_exact_and_enlarged_by_whole_numbers(
    shape: tuple[int, int, int], scale: int, said: str, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    figures.save_picture(tmp_path / "a.png", titled_grid(images, 3, "a title", rows=["first", "second"]))
    (grid,) = grids(tmp_path / "a.png")
    padding = max(1, 4 // scale)
    expected = image_grid(images, 3, padding).repeat(scale, axis=0).repeat(scale, axis=1)
    np.testing.assert_array_equal(grid, expected)
    place = np.s_[padding * scale : (padding + shape[0]) * scale : scale, padding * scale :][:1]
    first = grid[place][:, padding * scale : (padding + shape[1]) * scale : scale]
    seen = images[0, ..., :3] if shape[2] > 2 else images[0, ..., :1].repeat(3, axis=-1)
    np.testing.assert_array_equal(first, seen)
    assert said in words(tmp_path / "a.png")
    assert "Rows, from above: first, second." in words(tmp_path / "a.png")


def test_rows_of_pairs_stay_pairs() -> None:
    """Protects: where the last row is not full, an image still stands above its own, under the name of its row."""
    first = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    found = interleaved(first, first + 100, columns=8).ravel().tolist()
    assert found == [*range(8), *range(100, 108), 8, 9, *[255] * 6, 108, 109, *[255] * 6]
    floats = interleaved(jnp.zeros((1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1)), columns=2)
    assert floats.ravel().tolist() == [0.0, 1.0, 0.0, 1.0]


def conditional_gan() -> Any:
    return models.gan(
        generator=networks.MLPGenerator(models.IMAGE_SHAPE, hidden=(4,), num_classes=3),
        discriminator=networks.MLPDiscriminator(hidden=(4,), num_classes=3),
        ema_decay=0.9,
    )


def test_grids_of_a_run(key: jax.Array, tmp_path: Path) -> None:
    """Samples and reconstructions that training leaves: of what, when, how drawn; the names of the rows."""
    image = np.random.default_rng(0).uniform(size=(10, *models.IMAGE_SHAPE)) < 0.5
    gan, vae = conditional_gan(), models.vae()
    batch = {"image": image.astype(np.float32), "label": np.arange(10, dtype=np.int32) % 3}
    state = jaxgen.gan_init(gan, key, batch)
    for name in ("gan", "vae"):
        (tmp_path / name).mkdir()
    with Monitor(tmp_path / "gan", 0) as monitor:
        made = Pictures(gan, batch, key, "trained on pets, seed 4", ("cat", "犬", ""))(state, 1200, monitor)
    (path,) = made
    said = words(path)
    assert said.startswith("Samples of a GAN trained on pets, seed 4, step 1,200\n")
    assert "Drawn at random from the prior, with averaged weights" in said
    assert "Rows, from above: cat, class 1: 犬, class 2." in said
    vae_state = jaxgen.vae_init(vae, key, {"image": image})
    with Monitor(tmp_path / "vae", 0) as monitor:
        samples, rebuilt = Pictures(vae, {"image": image}, key, "trained on dots")(vae_state, 7, monitor)
    said = words(samples)
    assert "with the weights of this step; each is the decoder's mean, the probability that a pixel is white." in said
    said = words(rebuilt)
    assert said.startswith("Test images and their reconstructions by a VAE trained on dots, step 7\nThe first 10 test")
    assert "Rows, from above: image, rebuilt." in said
    (grid,) = grids(rebuilt)
    assert grid.shape == (14 * (4 * 5 + 1), 14 * (8 * 5 + 1), 3)
    np.testing.assert_array_equal(grid[14 : 14 * 5 : 14, 14 : 14 * 5 : 14, 0], 255 * image[0, ..., 0])
    np.testing.assert_array_equal(grid[14 * 11 : 14 * 15 : 14, 14 : 14 * 5 : 14, 0], 255 * image[8, ..., 0])


def test_samples_of_a_run(key: jax.Array, tmp_path: Path) -> None:
    gan = conditional_gan()
    batch = {"image": np.zeros((3, *models.IMAGE_SHAPE), np.float32), "label": np.arange(3, dtype=np.int32)}
    state = jaxgen.gan_init(gan, key, batch)
    model = Trained("x", gan, state, models.IMAGE_SHAPE, "uint8", {"class_names": ["cat", "dog", "cow"]})
    options = sample.Options(tmp_path / "pets-001", num=20, out=tmp_path / "a.png", seed=5)
    images = np.random.default_rng(0).uniform(size=(20, *models.IMAGE_SHAPE)).astype(np.float32)
    labels = sample.choose_labels(model, options)
    figures.save_picture(options.out, sample.grid(model, options, images, labels))
    said = words(options.out)
    assert said.startswith(
        "20 samples of pets-001, a GAN, step 0\nDrawn at random from the prior, with averaged weights"
    )
    assert "Seed 5." in said
    assert "Rows, from above: cat, dog, cow." in said
    fewer = dataclasses.replace(options, num=9)
    assert "The first 2 of 3 classes." in sample.grid(model, fewer, images[:9], labels).description
    one = dataclasses.replace(options, num=1, label="dog")
    picture = sample.grid(model, one, images[:1], sample.choose_labels(model, one))
    assert picture.title == "1 sample of pets-001, a GAN, step 0: dog"
    sample.write_pictures(tmp_path / "folder", [images[:2]], ["cat", "dog"], sample.origin(model, options))
    path = tmp_path / "folder" / "000001_dog.png"
    assert words(path).startswith("Sample 1 of pets-001, a GAN, step 0: dog\n")
    with Image.open(path) as bare:  # for programs: nothing but the image
        np.testing.assert_array_equal(np.asarray(bare), image_grid(images[1:2], padding=0))


def test_data_are_called_by_their_file_or_folder() -> None:
    names = ("mnist", "folder:my/pets", "folder:my/pets/", "npz:/a/b/some.npz", "stacked:mnist", "stacked:idx:some")
    expected = ["mnist", "pets", "pets", "some.npz", "stacked mnist", "stacked some"]
    assert [dataset_title(name) for name in names] == expected


def test_the_rows_of_many_classes_are_named() -> None:
    assert class_titles(np.repeat(np.arange(3), 2), 2, None) == ["class 0", "class 1", "class 2"]
    assert class_titles(None, 2, ("cat",)) == []
    rows = [f"class {number}" for number in range(100)]
    picture = titled_grid(np.zeros((800, 28, 28, 1)), 8, "a hundred", rows=rows)
    assert "class 99." in picture.description
    assert len(picture.pixels) > 100 * 60


# -- Pictures of commands --------------------------------------------------------------------------------------------


def test_pictures_of_an_evaluation(tmp_path: Path) -> None:
    found = [
        record_of(model, metric, value, error, better=better, real=real)
        for model in ("runs/one", "runs/" + "long" * 60)
        for metric, value, error, better, real in (
            ("FD-LeNet-MNIST", 80.0, 1.0, "lower", 3.0),
            ("KL", 20.0, None, "neither", None),
            ("active-units", 5.0, None, "neither", None),
        )
    ]
    found[0] = dataclasses.replace(found[0], value=np.inf, warnings=("it is",))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 28, 28, 1), dtype=np.uint8)
    samples = {"runs/one": (images[:3] / np.float32(255.0), images, "training images")}
    report.write(tmp_path, found, samples, {"runs/one": [rng.exponential(size=8), rng.exponential(size=2)]})
    said = words(tmp_path / "measures.png")
    assert said.startswith("Measured on some_images, split test\nLegend: 1: one, 2: longlong")
    for text in (
        "long, real images in the model's place, two standard errors to either side.",
        "Fréchet distance (FD-LeNet-MNIST, lower is better). Across, in order: 1, 2. Up: unit.",
        "KL divergence (KL, neither end is better). Across, in order: 1, 2. Up: unit.",
        "On it: inf.",
    ):
        assert text in said, text
    said = words(tmp_path / "latents.png")
    for text in (
        "What each latent dimension tells of test images",
        "one. Across: latent dimension, the largest KL first. Up: KL to the prior, nats.",
        "nats in all, 5 of 8 active",
        "Active: the mean that the encoder gives it has a variance above 0.01 over the images.",
    ):
        assert text in said, text
    said = words(tmp_path / "samples.png")
    assert "runs/one: samples, and below each the nearest of the training images." in said
    assert "Rows, from above: sample, nearest." in said
    (grid,) = grids(tmp_path / "samples.png")
    np.testing.assert_array_equal(grid[4:60:2, 4:60:2, 0], images[0, ..., 0])
    np.testing.assert_array_equal(grid[64:120:2, 4:60:2, 0], images[0, ..., 0])


def sweep_rows(values: dict[float, list[float]], name: str) -> list[sweep_results.Row]:
    members = [
        {"setting": {"beta": beta}, "diverged": not np.isfinite(value), "scores": {name: value}}
        for beta, seeds in values.items()
        for value in seeds
    ]
    return sweep_results.summarize([{"beta": beta} for beta in values], members)


def test_a_sweep_marks_the_best_and_what_is_not_told_apart_from_it(tmp_path: Path) -> None:
    nan = float("nan")
    values = {0.5: [1.0, 1.2], 1.0: [5.0, 5.2], 2.0: [4.9, 5.1], 4.0: [nan, nan]}
    for name, first in (("test_elbo", 1.0), ("test_squared_error", 0.5)):  # higher is better, and lower
        best, ties = sweep_results.best_and_ties(sweep_rows(values, name), name)
        assert best is not None
        assert best["setting"] == {"beta": first}
        assert [row["setting"]["beta"] for row in ties] == ([2.0] if name == "test_elbo" else [])
    assert sweep_results.best_and_ties(sweep_rows(values, "active_units"), "active_units") == (None, [])
    single = {beta: seeds[:1] for beta, seeds in values.items()}
    best, ties = sweep_results.best_and_ties(sweep_rows(single, "test_elbo"), "test_elbo")
    assert best is not None
    assert ties == [], "of one seed there is nothing to judge by"
    sweep_results.draw({"": sweep_rows(values, "test_elbo")}, tmp_path / "sweep.png", of="VAE on pets, 9 steps")
    said = words(tmp_path / "sweep.png")
    for text in (
        "Scores by setting: VAE on pets, 9 steps",
        "ELBO of test images (test_elbo, higher is better). Across: beta.",
        "Up: nats.",
        "mean and standard error over 2 seeds, best mean, not told apart from it: within two standard errors of the",
        "not drawn, as every seed diverged: beta 4.",
    ):
        assert text in said, text
    sweep_results.draw({"": sweep_rows(single, "mystery")}, tmp_path / "one.png")
    said = words(tmp_path / "one.png")
    assert "mystery. Across: beta." in said
    assert "of one seed, so without errors" in said
    assert "best mean" not in said, "nobody knows which end is better"


def test_pictures_of_a_comparison(tmp_path: Path) -> None:
    """Files on white; what is in the page has its words in the page."""
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    picture = comparison.Picture(
        "completions",
        "My GAN",
        comparison.grid(images, 2),
        ("original", "guess"),
        "Mean squared error 0.1.",
        "2 rows: a test image, and a guess",
        28,
        ("one", "two"),
    )
    path = comparison.write(tmp_path, picture)
    assert path.name == "completions_my-gan.png"
    title, said = words(path).split("\n")
    assert title == "2 rows: a test image, and a guess"
    assert said == "Mean squared error 0.1. Columns: original, guess. Rows, from above: one, two."
    (grid,) = grids(path)
    np.testing.assert_array_equal(grid[::3, ::3], image_grid(images, 2))
    named = {comparison.write(tmp_path, picture._replace(model=name)).name for name in ("猫", "犬")}
    assert len(named) == 2, "one must not take the other's place"
    line = charts.Line("a", 0, [0.0, 1.0], [1.0, 2.0])
    drawn = charts.line_chart(charts.Chart("It learns", "", "minutes", "ELBO, nats", (line,), logarithmic=True))
    assert ">minutes</text>" in drawn
    assert ">ELBO, nats (logarithmic)</text>" in drawn
    assert comparison.glance("real images", images / np.float32(255.0)).alt == "4 real images"


def test_titled_columns_and_walks(tmp_path: Path) -> None:
    """completions.png, inversions.png, neighbours.png, attribute.png, truncated.png, interpolations.png and .gif."""
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    several = np.stack([images, images], axis=1)
    show(
        tmp_path / "a.png", [("image", images), ("drawn", several), ("drawn", images)], "Completions by a VAE", "Half."
    )
    assert words(tmp_path / "a.png") == "Completions by a VAE\nHalf. Columns: image, drawn."
    (grid,) = grids(tmp_path / "a.png")
    rows = np.stack([images] * 4, axis=1).reshape(12, 28, 28, 1)
    np.testing.assert_array_equal(grid[::4, ::4], image_grid(rows, 4, 1))
    names = ("a cat", "a dog", "a fox")
    show(tmp_path / "b.png", [("the whole prior", images), ("|z| <= 2", images)], "Truncated", rows=names)
    assert words(tmp_path / "b.png") == (
        "Truncated\nColumns: the whole prior, |z| <= 2. Rows, from above: a cat, a dog, a fox."
    )
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 28, 28, 1), dtype=np.uint8)
    animate(tmp_path / "c.gif", frames, "Walks of a GAN", "Along arcs.")
    assert words(tmp_path / "c.gif") == "Walks of a GAN. Along arcs."
    with Image.open(tmp_path / "c.gif") as animation:
        seen = []
        for number in range(4):
            animation.seek(number)
            seen.append(np.asarray(animation.convert("L")))
    top, left = ((side - grid) for side, grid in zip(seen[0].shape, (4 * 29 + 4, 8 * 29 + 4 - 0), strict=True))
    assert top > 0
    for number, picture in zip((0, 1, 2, 1), seen, strict=True):
        grid = image_grid(frames[:, number], 2, 1).repeat(4, 0).repeat(4, 1)[..., 0]
        places = np.lib.stride_tricks.sliding_window_view(picture, (1, grid.shape[1]))[:, :, 0]
        assert any((row == grid[4]).all() for row in itertools.chain.from_iterable(places)), left


def test_gaussians(tmp_path: Path) -> None:
    options = gaussians.Options(steps=300, seeds=2, num_samples=50)
    points = np.random.default_rng(0).normal(size=(2, 50, 2))
    found = {name: (np.array([7, 25]), np.array([0.5, 1.0]), points) for name in ("plain", "R1")}
    gaussians.draw(tmp_path / "g.png", found, options)
    said = words(tmp_path / "g.png")
    for text in (
        "GANs on 25 Gaussians after 300 steps, averaged weights",
        "50 real points, 50 generated points",
        "good: within three standard deviations of a mode",
        "7 of 25 modes, 50% good. Up: plain second coordinate.",
        "25 of 25 modes, 100% good. Across: first coordinate seed 1.",
    ):
        assert text in said, text


def test_few_steps_on_gaussians_are_said_to_be_too_few(tmp_path: Path) -> None:
    """Points scattered evenly find most modes by chance: 20.7 of 25 by the formula, counted here."""
    options = gaussians.Options(steps=300)
    modes, good = gaussians.by_chance(options.num_samples)
    points = np.random.default_rng(0).uniform(-gaussians.EXTENT, gaussians.EXTENT, (20, options.num_samples, 2))
    counted = [metrics.mode_coverage(jnp.asarray(each), metrics.gaussian_grid(), gaussians.SCALE) for each in points]
    assert modes == pytest.approx(np.mean([float(each[0]) for each in counted]), abs=1.0)
    assert good == pytest.approx(np.mean([float(each[1]) for each in counted]), abs=0.002)
    found = {name: (np.array([19.0]), np.array([share]), points[:1]) for name, share in (("plain", 0.02), ("R1", 0.3))}
    short = gaussians.too_short(found, options)
    assert short is not None
    assert short.startswith("too short to tell (plain): fewer than 10% of the samples are good, and points scattered")
    assert "find 20.7 modes with 2% good; take more --steps than 300" in short
    assert gaussians.too_short({"R1": found["R1"]}, options) is None
    gaussians.draw(tmp_path / "g.png", found, dataclasses.replace(options, seeds=1))
    assert "too short to tell (plain)" in words(tmp_path / "g.png")


def test_corruptions(tmp_path: Path) -> None:
    numbers = {"frechet_distance": 1.0, "kernel_distance": 0.1, "kernel_distance_standard_error": 0.01}
    row = {"num_images": 9, **numbers, **dict.fromkeys(corruptions.SHARES, 0.5)}
    curves = {name: [{"level": level, **row} for level in levels] for name, levels in corruptions.LEVELS.items()}
    corruptions.draw(curves, "pets, pixels, 9 images on either side", tmp_path / "c.png")
    said = words(tmp_path / "c.png")
    for text in (
        "Real images against images that are damaged more and more: pets, pixels, 9 images on either side",
        "blur (standard deviation in pixels): 0, 0.5, 1, 1.5, 2",
        "Fréchet distance (lower is better). Across: level of the damage: 0 is none. Up: features squared,",
        "recall (share of real ones among the images).",
    ):
        assert text in said, text


@pytest.fixture
def options() -> cells.Options:
    return cells.Options(labels=(4, 8), seeds=2, families=("vae",), thresholds=(0.5,), shares=(0.5,))


def test_gains(options: cells.Options, tmp_path: Path) -> None:
    runs = [
        {"labels": labels, "seed": seed, "method": dataclasses.asdict(method), "accuracy": 0.5 + 0.1 * seed}
        for labels in options.labels
        for seed in range(2)
        for method in cells.methods(options)
    ]
    augmentation_results.draw(options, augmentation_results.summarize(options, runs), tmp_path / "gain.png")
    said = words(tmp_path / "gain.png")
    for text in (
        "fashion_mnist_small: mean and standard error",
        "Accuracy of a classifier (higher is better). Across: labelled images of each class (logarithmic).",
        "Up: accuracy on test images, %.",
        "Up: paired gain in accuracy, percentage points.",
        "ordinary + VAE (50%, p >= 0.5), over ordinary",
        "share of generated images, and p, the least probability of its class by which one is kept",
    ):
        assert text in said, text


def test_generated_images_of_each_class(options: cells.Options, tmp_path: Path) -> None:
    training = data.load()
    cell = cells.Cell(options, training, 10, 4, 0)
    images, labels = training["image"][:40] / np.float32(255.0), training["label"][:40]
    filtered: Callable[..., Filtered] = Filtered
    zeros = np.zeros(10, np.int64)
    cell._filtered["vae", 0.5] = 4, filtered(images, labels, images[:9], labels[:9], zeros, zeros)
    names = data.open_source().class_names
    figures.save_picture(tmp_path / "a.png", cell.picture("vae", 0.5, names))
    said = words(tmp_path / "a.png")
    assert "fashion_mnist_small, 4 labels a class: what the VAE makes for each class" in said
    assert "a probability of 0.5 or more" in said
    assert "Columns: labelled images, generated and kept, generated and rejected." in said
    assert "Rows, from above: T-shirt/top, Trouser," in said
    (grid,) = grids(tmp_path / "a.png")
    kept = images[labels == 3][0, ..., 0]
    left = 8 * 60 + 4 + 14 + 4
    shown = grid[3 * 60 + 4 : 3 * 60 + 60 : 2, left : left + 56 : 2, 0]
    np.testing.assert_array_equal(shown, np.round(255 * kept))
