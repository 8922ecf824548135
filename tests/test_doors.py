"""What people bring: pictures, arrays and vectors that were reported to train wrong. Each row asserts the value."""

import dataclasses
import io
import json
import shlex
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import data
from jaxgen.cli import parsing, runs, sample, train
from jaxgen.cli.main import main
from jaxgen.data import standardization
from jaxgen.data.images import MixedPicturesError, height_and_width
from jaxgen.training.run import Run
from jaxgen.training.run_data import DataChoice, load_data

TINY = ["--steps", "2", "--batch-size", "4", "--latent-dim", "2", "--log-every", "2"]


def write(path: Path, array: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def numbered(folder: Path, num: int = 20, suffix: str = "png", first: int = 0, side: int = 8) -> np.ndarray:
    """Grey pictures, each of one grey level: 10 times its number."""
    levels = (np.arange(first, first + num) * 10 % 256).astype(np.uint8)
    for i, level in enumerate(levels):
        write(folder / f"{i:02d}.{suffix}", np.full((side, side), level, np.uint8))
    return levels


def classes(folder: Path, names: str, num: int = 3, level: int = 40) -> None:
    """Pictures whose grey level says their class: a is 40, b is 80, ..."""
    for name in names:
        for i in range(num):
            write(folder / name / f"{i}.png", np.full((8, 8), level * (1 + ord(name) - ord("a")), np.uint8))


def levels_of(dataset: dict[str, np.ndarray]) -> list[int]:
    return dataset["image"].mean(axis=(1, 2, 3)).round().astype(int).tolist()


def npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path / "data.npz", **arrays)  # type: ignore[arg-type]
    return f"npz:{path / 'data.npz'}"


# -- Classes


def test_classes_are_numbered_by_the_training_split(tmp_path: Path) -> None:
    """A test folder without the third of four classes: the fourth was taken for it (ultralytics/ultralytics 13936)."""
    classes(tmp_path / "train", "abc")
    classes(tmp_path / "test", "bc")
    for split in ("train", "test"):
        source = data.open_source(f"folder:{tmp_path}", split)
        assert source.class_names == ("a", "b", "c")
        assert source.num_classes == 3
        loaded = data.load(f"folder:{tmp_path}", split)
        assert [40 * (1 + label) for label in loaded["label"].tolist()] == levels_of(loaded)


def test_a_class_that_training_has_not_is_refused(tmp_path: Path) -> None:
    classes(tmp_path / "train", "ab")
    classes(tmp_path / "test", "ad")
    with pytest.raises(ValueError, match=r"test/ has 1 class that train has not, such as 'd': train has a, b"):
        data.load(f"folder:{tmp_path}", "test")


def test_words_are_labels_numbered_by_training(tmp_path: Path) -> None:
    grey = np.full((4, 8, 8), 200, np.uint8)
    train_label, test_label = np.array(["boot", "bag", "coat", "bag"]), np.array(["coat", "coat", "bag", "coat"])
    dataset = npz(tmp_path, train_image=grey, train_label=train_label, test_image=grey, test_label=test_label)
    assert data.open_source(dataset).class_names == ("bag", "boot", "coat")
    assert data.load(dataset)["label"].tolist() == [1, 0, 2, 0]
    assert data.load(dataset, "test")["label"].tolist() == [2, 2, 0, 2]
    strange = npz(
        tmp_path, train_image=grey, train_label=train_label, test_image=grey, test_label=np.array(["hat"] * 4)
    )
    with pytest.raises(ValueError, match="1 class that train has not, such as 'hat': train has bag, boot, coat"):
        data.load(strange, "test")


@pytest.mark.parametrize(
    "label",
    [
        np.arange(20)[:, None] % 3,
        np.eye(3, dtype=np.int64)[np.arange(20) % 3],
        np.eye(3, dtype=np.float32)[np.arange(20) % 3],
        (np.arange(20) % 3).astype(np.float64),
        (np.arange(20) % 3).astype(">i4"),
    ],
    ids=["column", "one-hot", "one-hot floats", "floats", "big-endian"],
)
def test_labels_of_every_shape(label: np.ndarray, tmp_path: Path) -> None:
    """MedMNIST has columns, Keras one-hot rows."""
    dataset = npz(tmp_path, image=np.full((20, 8, 8), 200, np.uint8), label=label)
    expected = (np.arange(20) % 3).tolist()
    assert data.load(dataset, "all")["label"].tolist() == expected
    source = data.open_source(dataset, "all")
    assert source.read(np.arange(20))["label"].tolist() == expected
    assert source.num_classes == 3


@pytest.mark.parametrize("label", [np.arange(20) + 0.5, np.ones((20, 3)), np.zeros((20, 2), np.int64)])
def test_what_is_no_label_is_refused(label: np.ndarray, tmp_path: Path) -> None:
    dataset = npz(tmp_path, image=np.full((20, 8, 8), 200, np.uint8), label=label)
    with pytest.raises(ValueError, match="labels must be one integer per image, got"):
        data.load(dataset, "all")


def test_a_table_of_labels_beside_the_pictures(tmp_path: Path) -> None:
    numbered(tmp_path, num=12)
    rows = [f"{i:02d}.png,{'2' if i % 2 else '10'}" for i in range(12)]
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
    source = data.open_source(f"folder:{tmp_path}", "all")
    assert source.class_names == ("2", "10"), "numbers are in the order of numbers"
    assert data.load(f"folder:{tmp_path}", "all")["label"].tolist() == [1, 0] * 6
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(rows[:-1]) + "\n")
    with pytest.raises(ValueError, match=r"no row for 1 picture, such as 11\.png"):
        data.load(f"folder:{tmp_path}", "all")
    (tmp_path / "labels.csv").write_text("file,hair,age\n00.png,1,2\n")
    with pytest.raises(ValueError, match=r"several columns of labels, hair, age: models take one"):
        data.load(f"folder:{tmp_path}", "all")
    (tmp_path / "labels.csv").write_text("price,amount\n1,2\n")
    assert "left out: 1 .csv file" in data.open_source(f"folder:{tmp_path}", "all").notes


def test_a_table_says_nothing_of_pictures_elsewhere(tmp_path: Path) -> None:
    """The table of train/ gave the pictures of test/ with the same names its labels."""
    for split in ("train", "test"):
        numbered(tmp_path / split, num=4)
    rows = "".join(f"{i:02d}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(4))
    (tmp_path / "train" / "labels.csv").write_text(f"file,label\n{rows}gone.png,cat\n")
    source = data.open_source(f"folder:{tmp_path}")
    assert source.read(np.arange(4))["label"].tolist() == [1, 0, 1, 0]
    assert source.notes == (
        "4 pictures of 2 classes (cat, dog); classes are those of train/labels.csv; left out: 1 row beside the pictures"
    )
    with pytest.raises(ValueError, match=r"no row for 4 pictures, such as test/00\.png"):
        data.load(f"folder:{tmp_path}", "test")
    (tmp_path / "train" / "labels.csv").unlink()
    lines = [f"{split}/{i:02d}.png,{split}" for split in ("train", "test") for i in range(4)]
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="1 class that train has not, such as 'test'"):
        data.load(f"folder:{tmp_path}", "test")
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join([*lines, "train/00.png,other"]) + "\n")
    with pytest.raises(ValueError, match=r"train/00\.png has the labels 'train' and 'other' in labels\.csv: keep one"):
        data.load(f"folder:{tmp_path}")


def test_names_of_classes_stay_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, level in (("food", 60), ("faces", 200)):
        for i in range(10):
            write(tmp_path / "data" / name / f"{i}.png", np.full((8, 8), level, np.uint8))
    run = tmp_path / "run"
    command = ["vae", "--conditional", "--dataset", f"folder:{tmp_path / 'data'}", *TINY, "--workdir", str(run)]
    assert train.main(command) == 0
    said = capsys.readouterr().out
    assert "18 pictures of 2 classes (faces, food); every tenth of 20 is held out" in said
    assert "classes of samples, row by row: faces, food" in said
    model = jaxgen.load(run)
    assert model.class_names == ("faces", "food")
    key = jax.random.key(0)
    np.testing.assert_array_equal(model.sample(key, 2, label="FOOD"), model.sample(key, 2, label=1))
    np.testing.assert_array_equal(model.sample(key, 2, label=["food", "faces"]), model.sample(key, 2, label=[1, 0]))
    with pytest.raises(ValueError, match="label must be one of faces, food, got 'boot'"):
        model.sample(key, 2, label="boot")
    by_name, by_number = tmp_path / "name.npz", tmp_path / "number.npz"
    assert sample.main([str(run), "--num", "3", "--label", "food", "--out", str(by_name)]) == 0
    assert sample.main([str(run), "--num", "3", "--label", "1", "--out", str(by_number)]) == 0
    assert np.load(by_name)["labels"].tolist() == [1, 1, 1]
    assert np.load(by_name)["class_names"].tolist() == ["faces", "food"]
    np.testing.assert_array_equal(np.load(by_name)["images"], np.load(by_number)["images"])
    assert data.open_source(f"npz:{by_name}", "all").class_names == ("faces", "food"), "samples are a data set"
    assert sample.main([str(run), "--num", "10", "--out", str(tmp_path / "pictures")]) == 0
    files = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert files == [f"{i:06d}_{'faces' if i < 8 else 'food'}.png" for i in range(10)]
    with Image.open(tmp_path / "pictures" / files[0]) as picture:
        assert picture.size == (8, 8)
    assert sample.main([str(run), "--out", str(tmp_path / "pictures")]) == 1
    assert "pictures exists: give --out a new folder" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if "pictures" in path.name) == ["pictures"]
    capsys.readouterr()
    assert sample.main([str(run), "--label", "boot"]) == 1
    assert "label must be one of faces, food, got 'boot'" in capsys.readouterr().err


# -- Folders


def oriented(path: Path, orientation: int) -> None:
    """A JPEG whose upright picture is 16 high and 8 wide, white above and left of the middle only."""
    upright = np.zeros((16, 8), np.uint8)
    upright[:8, :4] = 255
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transpositions that undo each orientation
    picture = Image.fromarray(upright)
    if orientation > 1:
        picture = picture.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=100, exif=exif)


def test_every_orientation_is_turned_upright(tmp_path: Path) -> None:
    """Phones store rotated pictures and say so in EXIF (mflux-community/mflux 495, kohya-ss/sd-scripts 1316)."""
    for orientation in range(1, 9):
        oriented(tmp_path / f"{orientation}.jpg", orientation)
    images = data.load(f"folder:{tmp_path}", "all")["image"][..., 0].astype(int)
    assert images.shape == (8, 16, 8)
    expected = np.zeros((16, 8), int)
    expected[:8, :4] = 255
    assert np.abs(images - expected).max() < 20
    assert "7 turned upright (EXIF)" in data.open_source(f"folder:{tmp_path}", "all").notes


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif", "PNG", "JPEG"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    levels = numbered(tmp_path, suffix=suffix)
    loaded = data.load(f"folder:{tmp_path}", "all", color="grey")
    np.testing.assert_allclose(loaded["image"].mean((1, 2, 3)), levels, atol=1)


def test_depths_and_modes(tmp_path: Path) -> None:
    write(tmp_path / "16.png", np.full((8, 8), 100 * 257, np.uint16))
    Image.fromarray(np.full((8, 8), 255, np.uint8)).convert("1").save(tmp_path / "1.png")
    Image.fromarray(np.full((8, 8), 100, np.uint8)).convert("P").save(tmp_path / "p.png")
    notes = data.open_source(f"folder:{tmp_path}", "all").notes
    assert "1 of 16 bits made 8 (divided by 257)" in notes
    assert levels_of(data.load(f"folder:{tmp_path}", "all")) == [255, 100, 100]
    Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).convert("CMYK").save(tmp_path / "c.jpg", quality=100)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    levels = dict(zip(["1", "16", "c", "clear", "p"], levels_of(data.load(f"folder:{tmp_path}", "all", color="rgb")),
                      strict=True))  # fmt: skip
    assert levels["clear"] == 255, "what is transparent is laid over white"
    assert abs(levels["c"] - 100) < 3
    notes = data.open_source(f"folder:{tmp_path}", "all", color="rgb").notes
    assert "1 CMYK made RGB" in notes
    assert "1 transparent laid over white" in notes
    assert "3 made RGB" in notes


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (10, 200))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert levels_of(data.load(f"folder:{tmp_path}", "all")) == [10]
    assert "1 of several frames, the first taken" in data.open_source(f"folder:{tmp_path}", "all").notes


def test_hidden_things_are_no_classes_and_no_pictures(tmp_path: Path) -> None:
    """Jupyter, macOS, Windows and git leave things behind (pytorch/vision 2831, tensorflow/tensorflow 46595)."""
    classes(tmp_path, "ab", num=10)
    classes(tmp_path / ".ipynb_checkpoints", "a")
    numbered(tmp_path / ".git", num=1)
    numbered(tmp_path / "__MACOSX", num=1)
    for name in (".DS_Store", "Thumbs.db", "._0.png", "README.md"):
        (tmp_path / "a" / name).write_bytes(b"\0\5\x16\7")
    source = data.open_source(f"folder:{tmp_path}", "all")
    assert (source.class_names, source.num_examples) == (("a", "b"), 20)
    assert source.notes.endswith("left out: 1 .md file, 3 hidden files, 3 hidden folders")


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    levels = numbered(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = data.open_source(f"folder:{tmp_path / 'data'}", "all")
    assert source.class_names == ("a",)
    assert levels_of(data.load(f"folder:{tmp_path / 'data'}", "all")) == levels.tolist()
    assert source.notes.endswith("left out: 1 broken link, 1 looping link")


@pytest.mark.parametrize(
    ("train_name", "test_name"), [("Train", "Test"), ("TRAINING", "val"), ("train", "Validation"), ("train", "valid")]
)
def test_splits_of_every_name(train_name: str, test_name: str, tmp_path: Path) -> None:
    """`Train/` and `Test/` were two classes, and test pictures were trained on."""
    numbered(tmp_path / train_name, num=12)
    numbered(tmp_path / test_name, num=3, first=20)
    assert levels_of(data.load(f"folder:{tmp_path}")) == [10 * i for i in range(12)]
    test = data.open_source(f"folder:{tmp_path}", "test")
    assert levels_of(data.load(f"folder:{tmp_path}", "test")) == [200, 210, 220]
    assert ("stands for the test split" in test.notes) == (test_name != "Test")
    assert test.class_names is None


def test_from_a_lone_train_some_are_held_out(tmp_path: Path) -> None:
    numbered(tmp_path / "train", num=20)
    assert levels_of(data.load(f"folder:{tmp_path}", "test")) == [90, 190]
    assert len(data.load(f"folder:{tmp_path}")["image"]) == 18


def test_what_lies_beside_splits_is_said(tmp_path: Path) -> None:
    numbered(tmp_path / "train", num=12)
    numbered(tmp_path / "test", num=3)
    numbered(tmp_path / "extra", num=5)
    assert data.open_source(f"folder:{tmp_path}").notes == "12 pictures; left out: 5 pictures beside the splits"
    numbered(tmp_path / "Train", num=2)
    with pytest.raises(ValueError, match=r"Train/ and train/ are one split: rename one"):
        data.load(f"folder:{tmp_path}")


def test_all_demands_come_at_once(tmp_path: Path) -> None:
    write(tmp_path / "0.png", np.full((8, 8), 90, np.uint8))
    write(tmp_path / "1.png", np.eye(9, dtype=np.uint8)[..., None] * np.array([9, 90, 200], np.uint8))
    (tmp_path / "2.png").write_text("text")
    with pytest.raises(MixedPicturesError) as caught:
        data.load(f"folder:{tmp_path}", "all")
    assert caught.value.options == ["--image-size", "8", "--color", "rgb"]
    assert "cannot read" in str(caught.value)
    assert "is [8, 8] pixels" in str(caught.value)
    assert "is grey" in str(caught.value)
    (tmp_path / "2.png").unlink()
    assert data.load(f"folder:{tmp_path}", "all", image_size=8, color="rgb")["image"].shape == (2, 8, 8, 3)


def test_the_demands_of_both_splits_come_at_once_with_the_command_that_meets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(12):
        write(tmp_path / "my data" / "train" / f"{i}.png", np.full((8, 8 + 2 * (i % 2)), i, np.uint8))
        write(tmp_path / "my data" / "test" / f"{i}.png", np.full((8, 8, 3), [9, 90, 200], np.uint8))
    (tmp_path / "my data" / "test" / "12.png").write_text("text")
    command = ["vae", "--dataset", "folder:my data", "--steps", "1", "--batch-size", "4", "--workdir", "run"]
    for broken in (True, False):
        assert train.main(command) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert ("cannot read" in line) == broken
        assert "my data/train/0.png is [8, 8] pixels, my data/train/1.png is [8, 10]" in line
        assert ("is grey, the split test is rgb" in line) or ("is rgb, my data/train/0.png is grey" in line)
        whole = shlex.join(["jaxgen", "train", *command, "--image-size", "8", "--color", "rgb"])
        assert line.endswith(f"; the whole command is: {whole}")
        (tmp_path / "my data" / "test" / "12.png").unlink(missing_ok=True)
    assert not (tmp_path / "run").exists()
    choice = DataChoice(dataset="folder:my data", image_size="8", color="rgb")
    assert load_data(choice, 4).num_examples == 12


def test_splits_of_one_size_each_are_taken_together_too(tmp_path: Path) -> None:
    numbered(tmp_path / "train", num=12, side=8)
    numbered(tmp_path / "test", num=3, side=9)
    with pytest.raises(
        MixedPicturesError, match=r"the split train is \[8, 8\] pixels, the split test is \[9, 9\]"
    ) as caught:
        load_data(DataChoice(dataset=f"folder:{tmp_path}"), 4)
    assert caught.value.options == ["--image-size", "8"]


def test_a_zip_of_pictures(tmp_path: Path) -> None:
    classes(tmp_path / "data", "ab", num=10)
    for around in ("", "photos/"):
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            for path in sorted((tmp_path / "data").rglob("*.png")):
                archive.write(path, f"{around}{path.relative_to(tmp_path / 'data')}")
            archive.writestr("__MACOSX/a/._0.png", b"\0\5")
        for name in ("folder", "zip"):
            source = data.open_source(f"{name}:{tmp_path / 'data.zip'}", "all")
            assert source.class_names == ("a", "b")
            loaded = data.load(f"{name}:{tmp_path / 'data.zip'}", "all")
            assert [40 * (1 + label) for label in loaded["label"].tolist()] == levels_of(loaded)
            assert "1 hidden file" in source.notes


# -- Arrays


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize(
    "names",
    [("images", "labels"), ("x", "y"), ("data", "target"), ("arr_0", "label"), ("Image", "Label")],
)
def test_names_of_arrays(names: tuple[str, str], tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {names[0]: IMAGES, names[1]: np.arange(20) % 3, "extra": np.ones(3)}
    dataset = npz(tmp_path, **arrays)
    loaded = data.load(dataset, "all")
    np.testing.assert_array_equal(loaded["image"][..., 0], IMAGES)
    assert loaded["label"].tolist() == (np.arange(20) % 3).tolist()
    assert "left out: array 'extra'" in data.open_source(dataset, "all").notes


@pytest.mark.parametrize("pattern", ["x_{}", "{}_x", "{}_images", "{}_image"])
def test_splits_in_names_of_arrays(pattern: str, tmp_path: Path) -> None:
    arrays = {pattern.format(split): IMAGES[i : i + 10] for split, i in (("train", 0), ("test", 5))}
    for split, i in (("train", 0), ("test", 5)):
        np.testing.assert_array_equal(data.load(npz(tmp_path, **arrays), split)["image"][..., 0], IMAGES[i : i + 10])


def test_one_array_in_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    for kind in ("npz", "npy"):
        np.testing.assert_array_equal(data.load(f"{kind}:{tmp_path / 'a.npy'}", "all")["image"][..., 0], IMAGES)
    source = data.open_source(f"npy:{tmp_path / 'a.npy'}", "all")
    np.testing.assert_array_equal(source.read(np.array([3, 1]))["image"][..., 0], IMAGES[[3, 1]])
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"not a readable \.npy file .*its data are of another size"):
        data.load(f"npy:{tmp_path / 'a.npy'}", "all")


@pytest.mark.parametrize("kind", ["i8", "u4", ">i2"])
def test_integers_of_every_width_in_range_are_bytes(kind: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(data.load(npz(tmp_path, image=IMAGES.astype(kind)), "all")["image"][..., 0], IMAGES)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    dataset = npz(tmp_path, image=IMAGES.astype(np.uint16) * 257)
    np.testing.assert_array_equal(data.load(dataset, "all")["image"][..., 0], IMAGES)
    assert "16 bits made 8" in data.open_source(dataset, "all").notes


def test_sixteen_bits_are_the_same_whole_and_by_rows(tmp_path: Path) -> None:
    """What part of a set is read, and in which order its bytes are, changes no value."""
    for order in ("<u2", ">u2"):
        dataset = npz(tmp_path, image=(IMAGES.astype(np.uint16) * 257).astype(order))
        source = data.open_source(dataset, "all")
        np.testing.assert_array_equal(source.read(np.arange(20))["image"], data.load(dataset, "all")["image"])
        assert "16 bits made 8" in source.notes
    with pytest.raises(ValueError, match=r"must span 0\.\.65535, got no value above 255: store uint8"):
        data.load(npz(tmp_path, image=IMAGES.astype(np.uint16)), "all")


def test_one_array_beside_splits_is_held_out_from(tmp_path: Path) -> None:
    """All of it was trained on, and tested on."""
    dataset = npz(tmp_path, image=IMAGES, train_image=IMAGES[:10], test_image=IMAGES[10:])
    train_images, test_images = (data.load(dataset, split)["image"] for split in ("train", "test"))
    np.testing.assert_array_equal(test_images[..., 0], IMAGES[9::10])
    assert len(train_images) == 18
    assert "left out: arrays 'train_image', 'test_image'" in data.open_source(dataset).notes


def test_channels_first_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[20, 3, 8, 8\], channels first: save images\.transpose\(0, 2, 3, 1\)"):
        data.load(npz(tmp_path, image=np.zeros((20, 3, 8, 8), np.uint8)))


@pytest.mark.parametrize(
    ("family", "channels"),
    [
        ("vae", 2),
        ("gan", 4),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("vae", 4), ("gan", 2), ("gan", 5))),
    ],
)
def test_any_number_of_channels_trains_and_is_shown(family: str, channels: int, tmp_path: Path) -> None:
    """They died at the first picture, after a thousand steps."""
    image = np.random.default_rng(0).integers(0, 256, (20, 8, 8, channels), dtype=np.uint8)
    command = [family, "--dataset", npz(tmp_path, image=image), *TINY, "--workdir", str(tmp_path / "run")]
    assert train.main(command) == 0
    with Image.open(tmp_path / "run" / "samples" / "samples_00000002.png") as picture:
        assert min(picture.size) > 100
    assert sample.main([str(tmp_path / "run"), "--out", str(tmp_path / "some.npz"), "--num", "3"]) == 0
    assert np.load(tmp_path / "some.npz")["images"].shape == (3, 8, 8, channels)


# -- Sizes


def test_sizes_are_numbers_or_pairs() -> None:
    assert height_and_width(None) is None
    assert height_and_width(64) == height_and_width("64") == (64, 64)
    assert height_and_width("96x128") == height_and_width((96, 128)) == (96, 128)
    for size in ("96x", "x", "a", "1x2x3", "-4", "0x8"):
        with pytest.raises(ValueError, match="image size must be"):
            height_and_width(size)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_other_shapes_are_cropped_or_padded(fit: Any, tmp_path: Path) -> None:
    wide = np.full((16, 32), 100, np.uint8)
    wide[:, :8] = wide[:, 24:] = 0  # what a crop to the middle leaves out
    write(tmp_path / "a.png", wide)
    image = data.load(f"folder:{tmp_path}", "all", image_size=(32, 32), fit=fit)["image"][0, ..., 0]
    if fit == "crop":
        np.testing.assert_array_equal(image, 100)
    else:
        np.testing.assert_array_equal(image[:7], 255)
        np.testing.assert_array_equal(image[-7:], 255)
        np.testing.assert_array_equal(image[16, [2, 16, 29]], [0, 100, 0])
    tall = data.load(f"folder:{tmp_path}", "all", image_size="16x8", fit=fit)["image"][0, ..., 0]
    assert tall.shape == (16, 8)


@pytest.mark.parametrize(
    "kind",
    [
        "vae",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gan", "gan --architecture dcgan --width 4")),
        pytest.param("vae --architecture conv --width 4", marks=pytest.mark.slow),
    ],
)
def test_pictures_need_not_be_square(kind: str, tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / "data" / f"{i}.png", np.full((20, 40, 3), 10 * i, np.uint8))
    command = ["--dataset", f"folder:{tmp_path / 'data'}", "--image-size", "16x32", *TINY]
    assert train.main([*kind.split(), *command, "--workdir", str(tmp_path / "run")]) == 0
    assert jaxgen.load(tmp_path / "run").image_shape == (16, 32, 3)


def test_flipped_images_are_mirrored_by_chance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = {"image": jax.numpy.arange(400, dtype=np.float32).reshape(100, 1, 4, 1)}
    done = np.asarray(runs.mirrored(batch, jax.random.key(0), jax.numpy.int32(3))["image"])
    straight = (done == batch["image"]).all((1, 2, 3))
    turned = (done == batch["image"][:, :, ::-1]).all((1, 2, 3))
    assert (straight ^ turned).all()
    assert 30 < turned.sum() < 70
    images = npz(tmp_path, image=np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8))
    command = ["vae", "--dataset", images, *TINY, "--workdir", str(tmp_path / "run")]
    assert train.main([*command, "--flip"]) == 0
    assert train.main([*command, "--resume", "--no-flip", "--steps", "4"]) == 1, "it would be another run, unsaid"
    assert "flip" in capsys.readouterr().err
    points = npz(tmp_path, image=np.random.default_rng(0).uniform(size=(20, 6)).astype(np.float32))
    options = parsing.parse(["vae", "--dataset", points, "--flip", *TINY])
    with pytest.raises(ValueError, match="--flip is for images"):
        runs.train(options)


# -- Vectors


def correlated(num: int = 2000, dims: int = 10) -> np.ndarray:
    """Columns far from [0, 1], of scales from 0.1 to 1,000."""
    rng = np.random.default_rng(0)
    scale = np.array([1, 10, 100, 1000, 0.1, 5, 50, 3, 7, 20])[:dims]
    mean = np.array([1e3, -50, 7e3, 1e4, 3, 0, -200, 9, 4, 1])[:dims]
    return (rng.normal(size=(num, dims)) @ rng.normal(size=(dims, dims)) * scale + mean).astype(np.float32)


def test_standard_units_and_back() -> None:
    vectors = correlated()
    vectors[:, 3] = 7  # a feature that never changes
    found = standardization.measured(vectors)
    np.testing.assert_allclose(found(vectors).mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(found(vectors).std(0), [1, 1, 1, 0, *[1] * 6], atol=1e-3)
    np.testing.assert_allclose(found.undo(found(vectors)), vectors, rtol=1e-4, atol=1e-2)
    again = standardization.of_plain(json.loads(json.dumps(found.plain())))
    assert again is not None
    np.testing.assert_array_equal(again.mean, found.mean)
    np.testing.assert_array_equal(again.scale, found.scale)
    assert standardization.of_plain(None) is None


def test_vectors_are_trained_in_standard_units_and_sampled_in_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A GAN's sigmoid could not reach them, and nothing was said."""
    vectors = correlated(200)
    dataset = npz(tmp_path, image=vectors)
    for family in (["gan"], ["vae", "--likelihood", "gaussian"]):
        run = tmp_path / family[0]
        assert train.main([*family, "--dataset", dataset, *TINY, "--workdir", str(run)]) == 0
        assert "brought to mean 0 and deviation 1" in capsys.readouterr().out
        held = Run.open(run).config["identity"]["data"]["standardized"]
        np.testing.assert_allclose(held["mean"], data.load(dataset)["image"].mean(0), rtol=1e-4)
        assert sample.main([str(run), "--num", "50", "--out", str(tmp_path / "some.npz")]) == 0
        drawn = np.load(tmp_path / "some.npz")["images"]
        model = jaxgen.load(run)
        far = np.abs(drawn - vectors.mean(0)) / vectors.std(0)
        assert far.max() < 10, "in the units of the data"
        assert (
            train.main([*family, "--dataset", dataset, *TINY, "--workdir", str(run), "--resume", "--steps", "3"]) == 0
        )
        if family[0] == "vae":
            rebuilt = np.asarray(model.reconstruct(vectors[:5], jax.random.key(0)))
            assert np.abs((rebuilt - vectors[:5]) / vectors.std(0)).max() < 10
            ours = model.log_likelihood(vectors[:5], jax.random.key(0), num_samples=50)
            bare = dataclasses.replace(model, record={})
            units = model.standardization
            assert units is not None
            theirs = bare.log_likelihood(units(vectors[:5]), jax.random.key(0), num_samples=50)
            np.testing.assert_allclose(ours, theirs - units.log_scale, rtol=1e-5)
    assert sample.main([str(run), "--out", str(tmp_path / "a.png")]) == 1
    assert "makes vectors, which are no pictures" in capsys.readouterr().err


def test_a_bernoulli_of_vectors_anywhere_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = npz(tmp_path, image=correlated(50))
    assert train.main(["vae", "--dataset", dataset, *TINY, "--workdir", str(tmp_path / "run")]) == 1
    assert "--likelihood bernoulli is for values in [0, 1], and these data are not: pass --likelihood gaussian" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_one_number_out_of_range_makes_vectors_unbounded(tmp_path: Path) -> None:
    """Wherever it lies; and where they stream, it is refused when it is met."""
    vectors = np.full((5000, 4), 0.5, np.float32)
    vectors[:, 0] = np.linspace(0, 1, 5000)
    assert not load_data(DataChoice(dataset=npz(tmp_path, image=vectors)), 4).unbounded
    vectors[7, 1] = 50  # not one of those looked at first
    choice = DataChoice(dataset=npz(tmp_path, image=vectors))
    loaded = load_data(choice, 4)
    assert loaded.unbounded
    assert loaded.standardization is not None
    assert isinstance(loaded.train, dict)
    np.testing.assert_allclose(loaded.standardization.undo(loaded.train["image"])[7, 1], 50, rtol=1e-5)
    streamed = load_data(dataclasses.replace(choice, streaming="always"), 4).train
    assert isinstance(streamed, data.Source)
    streamed.read(np.arange(5))
    with pytest.raises(ValueError, match=r"vectors are not all in \[0, 1\], .*: pass --streaming never"):
        streamed.read(np.arange(10))


def test_what_vectors_cannot_be_is_refused(tmp_path: Path) -> None:
    dataset = npz(tmp_path, image=correlated(50))
    with pytest.raises(ValueError, match=r"--binarization static is for values in \[0, 1\]"):
        load_data(DataChoice(dataset=dataset, binarization="static"), 4)
    with pytest.raises(ValueError, match="has vectors of 10 features, the run's had 3"):
        load_data(DataChoice(dataset=dataset), 4, standardized=standardization.measured(np.eye(3, dtype=np.float32)))
    for wrong in ({"mean": [1.0]}, {"mean": ["x"], "scale": [1.0]}, {"mean": [1.0], "scale": [0.0]}, [3]):
        with pytest.raises(ValueError, match="standardized"):
            standardization.of_plain(wrong)


def test_records_of_anybody_are_checked() -> None:
    model = jaxgen.load("dcgan-fashion-mnist-conditional")
    assert dataclasses.replace(model, record={"data": "my own"}).standardization is None
    with pytest.raises(ValueError, match="class_names must be"):
        _ = dataclasses.replace(model, record={"class_names": [1, 2]}).class_names
    scaled = {"data": {"standardized": {"mean": [1.0], "scale": [1.0]}}}
    with pytest.raises(ValueError, match=r"makes vectors \[28, 28, 1\], scaled as \[1\]"):
        _ = dataclasses.replace(model, record=scaled).standardization


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["vae", "--likelihood", "gaussian"],
        [
            "gan",
            "--steps",
            "10000",
            "--loss",
            "relativistic",
            "--penalty",
            "r1",
            "--penalty-weight",
            "0.1",
            "--dropout-rate",
            "0",
            "--b1",
            "0",
        ],
    ],
    ids=["vae", "gan"],
)
def test_vectors_are_learnt(command: list[str], tmp_path: Path) -> None:
    """Means within a tenth of a deviation, deviations within a tenth."""
    vectors = correlated()
    run = tmp_path / "run"
    assert train.main([*command, "--dataset", npz(tmp_path, image=vectors), "--workdir", str(run)]) == 0
    drawn = np.asarray(jaxgen.load(run).sample(jax.random.key(0), 5000))
    assert (np.abs(drawn.mean(0) - vectors.mean(0)) / vectors.std(0)).max() < 0.1
    assert np.abs(drawn.std(0) / vectors.std(0) - 1).max() < 0.1
    assert main(["evaluate", str(run), "--num", "100"]) == 0
    assert len(json.loads((run / "evaluation" / "records.json").read_text())) > 0


# -- A folder as people have it


def mixed(folder: Path, num: int) -> None:
    """Pictures of many sizes and formats, some rotated, with what lies around."""
    rng = np.random.default_rng(0)
    for split, share in (("Train", 8), ("valid", 1), ("test", 1)):
        for i in range(num * share // 10):
            kind = ("png", "jpg", "webp", "bmp", "gif", "tif")[i % 6]
            height, width = rng.integers(12, 40, 2)
            array = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            path = folder / split / ("cat", "dog")[i % 2] / f"{i:04d}.{kind}"
            if kind == "jpg":
                exif = Image.Exif()
                exif[0x0112] = 1 + i % 8
                write(path, array, exif=exif)
            else:
                write(path, array[..., 0] if i % 5 == 0 else array)
    numbered(folder / "Train" / ".ipynb_checkpoints", num=3)
    (folder / "Train" / "cat" / ".DS_Store").write_bytes(b"\0")
    (folder / "Train" / "notes.txt").write_text("notes")
    (folder / "Train" / "dog" / "gone.png").symlink_to(folder / "nowhere.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["gan", "--architecture", "dcgan"], ["vae", "--architecture", "conv"]], ids=["dcgan", "conv"]
)
def test_two_thousand_mixed_pictures_train_by_one_command(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed(tmp_path / "data", 2000)
    rest = ["--dataset", f"folder:{tmp_path / 'data'}", "--image-size", "16", "--color", "rgb", "--width", "4"]
    assert train.main([*command, *rest, *TINY, "--conditional", "--workdir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "train: 1,600 pictures of 2 classes (cat, dog)" in said
    assert "turned upright (EXIF)" in said
    assert "left out: 1 .txt file, 1 broken link, 1 hidden file, 1 hidden folder" in said


def test_a_picture_is_opened_by_what_it_is_not_by_its_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(buffer, "TIFF")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert levels_of(data.load(f"folder:{tmp_path}", "all")) == [90]
