"""Data sets by name: what is loaded; what bad ones say is in test_input_safety.py."""

import gzip
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import data
from tests import models, tiny_tfds


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TFDS data_dir in which ``tiny_garments`` is prepared."""
    directory = tmp_path_factory.mktemp("tfds")
    tiny_tfds.prepare(directory)
    return directory


def write_pictures(directory: Path, *, num: int = 10, size: int = 8, mode: str = "L") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for i in range(num):
        pixels = np.full((size, size, len(mode)), 10 * i + 5, np.uint8)
        Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode=None).save(directory / f"{i:02d}.png")


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()) if path.suffix == ".gz" else header + array.tobytes())


def test_the_embedded_set() -> None:
    train, test = data.load(), data.load(split="test")
    assert train["image"].shape == (2000, 28, 28, 1)
    assert test["image"].shape == (500, 28, 28, 1)
    assert train["image"].dtype == np.uint8
    assert np.bincount(train["label"]).tolist() == [200] * 10
    assert np.bincount(test["label"]).tolist() == [50] * 10
    assert (Path(jaxgen.__file__).parent / "data" / "fashion_mnist_small.npz").stat().st_size < 1.5e6
    assert "MIT License" in (Path(jaxgen.__file__).parent / "data" / "fashion_mnist_small.LICENSE").read_text()


def test_tfds_reads_its_own_array_record(tfds_dir: Path) -> None:
    train = data.load("tiny_garments", "train", data_dir=tfds_dir)
    assert train["image"].shape == (30, 28, 28, 1)
    by_label = {int(picture[0, 0, 0]) for picture in train["image"]}
    assert by_label == {int(tiny_tfds.picture(i)[0, 0, 0]) for i in range(30)}
    for image in train["image"]:
        assert any((image == tiny_tfds.picture(i)).all() for i in range(30))
    some = data.load("tiny_garments", "train[:7]", data_dir=tfds_dir)
    np.testing.assert_array_equal(some["image"], train["image"][:7])
    resized = data.load("tiny_garments", "test", data_dir=tfds_dir, image_size=16, color="rgb")
    assert resized["image"].shape == (10, 16, 16, 3)


def test_tfds_sets_prepared_as_tfrecord_are_read_too(tmp_path: Path) -> None:
    """By TensorFlow, which then sees no GPU; in a process of its own, as nothing else here imports TensorFlow."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed: uv run --extra tensorflow pytest")
    program = f"""
from pathlib import Path
import numpy as np, tensorflow_datasets as tfds
from jaxgen import data
from tests import tiny_tfds
directory = Path({str(tmp_path)!r})
tiny_tfds.prepare(directory, file_format="tfrecord")
train = data.load("tiny_garments", "train", data_dir=directory)
assert train["image"].shape == (30, 28, 28, 1) and train["image"].dtype == np.uint8
expected = {{tiny_tfds.picture(i).tobytes() for i in range(30)}}
assert {{image.tobytes() for image in train["image"]}} == expected
assert sorted(train["label"]) == sorted(i % 10 for i in range(30))
import tensorflow as tf
assert tf.config.get_visible_devices("GPU") == []
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_preparation_extracts_into_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TFDS finds extracted files by name: in a shared folder, one set's files would become another's."""
    from jaxgen.data import tfds_sets

    folders: list[Path] = []

    class Builder:
        data_dir, url_infos = tmp_path, ()

        def download_and_prepare(self, download_config: Any) -> None:
            folders.append(Path(download_config.extract_dir))
            assert list(folders[-1].iterdir()) == []
            (folders[-1] / "GZIP.train-images-idx3-ubyte.gz").touch()

    monkeypatch.setattr(tfds_sets, "_tensorflow_installed", lambda: True)
    monkeypatch.setattr(tfds_sets, "_hide_accelerators_from_tensorflow", lambda: None)
    for name in ("mnist", "fashion_mnist"):
        tfds_sets._prepare(Builder(), name, tmp_path)
    assert len(set(folders)) == 2
    assert not any(folder.exists() for folder in folders)


@pytest.mark.slow
def test_stock_sets_prepared_from_local_files_are_the_original_images(tmp_path: Path) -> None:
    """Both in one data_dir, as their files have the same names; compared with the files themselves."""
    originals = os.environ.get("JAXGEN_TEST_IDX")
    if originals is None or importlib.util.find_spec("tensorflow") is None:
        pytest.skip("set JAXGEN_TEST_IDX to a folder with mnist/ and fashion_mnist/, and run with --extra tensorflow")
    for name in ("mnist", "fashion_mnist"):
        directory = Path(originals) / name
        expected = data.load(f"idx:{directory}", "test")
        got = data.load(name, "test", data_dir=tmp_path, manual_dir=directory)
        pairs = [
            sorted((i.tobytes(), int(n)) for i, n in zip(d["image"], d["label"], strict=True)) for d in (expected, got)
        ]
        assert pairs[0] == pairs[1]


@pytest.mark.slow
def test_training_on_array_record_imports_no_tensorflow(tfds_dir: Path, tmp_path: Path) -> None:
    """In a process of its own: the whole of train.py on a prepared set, with a TensorFlow that must not be imported."""
    forbidden = tmp_path / "forbidden" / "tensorflow"
    forbidden.mkdir(parents=True)
    (forbidden / "__init__.py").write_text("raise AssertionError('TensorFlow was imported')")
    program = f"""
import sys
sys.path.insert(0, {str(forbidden.parent)!r})
from jaxgen.cli.train import main
status = main(["vae", "--dataset", "tiny_garments", "--data-dir", {str(tfds_dir)!r}, "--batch-size", "8",
               "--steps", "4", "--workdir", {str(tmp_path / "run")!r}])
assert "tensorflow" not in sys.modules
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "samples" / "samples_00000004.png").is_file()


@pytest.mark.parametrize("spec", [models.vae(), pytest.param(models.gan(), marks=pytest.mark.slow)])
def test_a_tfds_batch_with_string_ids_goes_straight_into_a_step(spec: Any, tfds_dir: Path, key: jax.Array) -> None:
    import tensorflow_datasets as tfds

    source = tfds.builder("tiny_garments", data_dir=tfds_dir).as_data_source("train")
    examples = source.__getitems__(range(8))
    batch = {name: np.stack([example[name] for example in examples]) for name in ("image", "label", "id")}
    batch["image"] = batch["image"][:, :4, :4]
    assert batch["id"].dtype.kind in "SO"
    state = models.init(spec, key)
    state, metrics = models.step(spec)(spec, state, batch, key)
    assert models.finite((state, metrics))


def test_an_unprepared_set_fails_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises((ConnectionError, ModuleNotFoundError), match=r"not prepared in .*--data-dir"):
        data.load("cifar10", data_dir=tmp_path)
    assert time.monotonic() - started < 5.0


def test_an_unreachable_host_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    from jaxgen.data import tfds_sets

    urls = ["http://127.0.0.1:9/some-images.gz"]  # the discard port: nobody listens there
    with pytest.raises(ConnectionError, match=r"some-images\.gz into a folder and pass it as --manual-dir"):
        tfds_sets._check_reachable("some", urls, tmp_path, None)
    (tmp_path / "some-images.gz").touch()
    tfds_sets._check_reachable("some", urls, tmp_path, tmp_path)  # the file is there: no network needed


def test_idx_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (7, 28, 28), dtype=np.uint8), np.arange(7, dtype=np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte", labels)
    train = data.load(f"idx:{tmp_path}")
    np.testing.assert_array_equal(train["image"][..., 0], images)
    np.testing.assert_array_equal(train["label"], labels)
    with pytest.raises(FileNotFoundError, match="t10k-images-idx3-ubyte"):
        data.load(f"idx:{tmp_path}", "test")
    cut = tmp_path / "train-labels-idx1-ubyte"
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not a complete idx file"):
        data.load(f"idx:{tmp_path}")


def test_npz_archives(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 5, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "one.npz", image=image, label=np.arange(20))
    train, test = (data.load(f"npz:{tmp_path / 'one.npz'}", split) for split in ("train", "test"))
    np.testing.assert_array_equal(test["image"], image[[9, 19]])  # every tenth is held out
    assert train["label"].tolist() == [i for i in range(20) if i % 10 != 9]
    np.savez(tmp_path / "two.npz", train_image=image[:15], valid_image=image[15:])
    assert len(data.load(f"npz:{tmp_path / 'two.npz'}", "valid")["image"]) == 5
    bits = image[..., 0] > 127
    np.savez(tmp_path / "bits.npz", image=bits)
    loaded = data.load(f"npz:{tmp_path / 'bits.npz'}", "all")
    assert loaded["image"].dtype == bool
    assert loaded["image"].shape == (20, 5, 5, 1)


def test_folders(tmp_path: Path) -> None:
    for i, name in enumerate(("boots", "coats")):
        write_pictures(tmp_path / "labelled" / name, num=10 + i)
    everything = data.load(f"folder:{tmp_path / 'labelled'}", "all")
    assert everything["image"].shape == (21, 8, 8, 1)
    assert everything["label"].tolist() == [0] * 10 + [1] * 11
    write_pictures(tmp_path / "split" / "train", num=4, mode="RGB")
    write_pictures(tmp_path / "split" / "test", num=3, mode="RGB")
    assert data.load(f"folder:{tmp_path / 'split'}", "test")["image"].shape == (3, 8, 8, 3)
    grey = data.load(f"folder:{tmp_path / 'split'}", "test", image_size=4, color="grey")
    assert grey["image"].shape == (3, 4, 4, 1)


def test_pictures_are_cropped_to_the_centre_and_laid_over_white(tmp_path: Path) -> None:
    wide = np.zeros((4, 12, 4), np.uint8)
    wide[:, 4:8] = (200, 100, 50, 255)  # the central square; the rest is transparent
    Image.fromarray(wide).save(tmp_path / "wide.png")
    images = data.load(f"folder:{tmp_path}", "all", image_size=4)["image"]
    np.testing.assert_array_equal(images[0], np.broadcast_to([200, 100, 50], (4, 4, 3)))
    images = data.load(f"folder:{tmp_path}", "all")["image"]
    np.testing.assert_array_equal(images[0][0, 0], [255, 255, 255])


def test_binarization(key: jax.Array) -> None:
    images = np.full((2000, 3, 3, 1), 64, np.uint8)
    drawn = data.binarize(images, key)
    assert drawn.dtype == bool
    np.testing.assert_allclose(np.asarray(drawn).mean(0), 64 / 255, atol=0.05)
    assert not np.array_equal(drawn, data.binarize(images, jax.random.key(1)))
    np.testing.assert_array_equal(drawn[:5], data.binarize(images[:5], key))
    fixed = data.binarize_set(np.concatenate([images] * 3))
    np.testing.assert_array_equal(fixed, data.binarize_set(np.concatenate([images] * 3)))
    assert fixed.shape == (6000, 3, 3, 1)
    assert not np.array_equal(fixed[:1000], fixed[4096:5096])


def test_fingerprint_tells_data_apart() -> None:
    image = np.zeros((2, 3), np.uint8)
    prints = {
        data.fingerprint({"image": image}),
        data.fingerprint({"image": image.reshape(3, 2)}),
        data.fingerprint({"image": image.astype(bool)}),
        data.fingerprint({"image": image + 1}),
        data.fingerprint({"label": image}),
    }
    assert len(prints) == 5
    assert data.fingerprint({"image": image[:, ::-1]}) == data.fingerprint({"image": image})


def test_labelled_subsets(key: jax.Array) -> None:
    """Protects: equally many of each class, fewer are some of more, seeds differ."""
    labels = np.random.default_rng(0).integers(0, 4, 200)
    few, many = (data.labelled_subset(labels, num, key) for num in (3, 20))
    assert np.bincount(labels[few]).tolist() == [3] * 4
    assert np.bincount(labels[many]).tolist() == [20] * 4
    assert set(few) <= set(many)
    assert set(data.labelled_subset(labels, 3, jax.random.key(1))) != set(few)
    with pytest.raises(ValueError, match=r"class \d has \d+ examples, 90 are wanted"):
        data.labelled_subset(labels, 90, key)
