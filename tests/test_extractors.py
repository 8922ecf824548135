"""Feature extractors: the shipped classifiers, pieces and devices, Inception against PyTorch, and what is refused."""

import colorsys
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits

from experiments import convert_inception, train_classifier
from experiments.color import train_classifier as train_color_classifier
from jaxgen import data, networks
from jaxgen.evaluation import extractors
from jaxgen.evaluation.during_training import choose_extractor
from jaxgen.weights import read_arrays
from tests import torch_inception

PACKAGE = Path(extractors.__file__).parent
TORCH_PYTHON = os.environ.get("JAXGEN_TORCH_PYTHON") or (sys.executable if importlib.util.find_spec("torch") else None)


def some_images(num: int = 13, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, 28, 28, 1), np.uint8)


def sums(images: jax.Array) -> jax.Array:
    """A custom extractor that has a name of its own."""
    return jnp.sum(images, axis=(1, 2))


# -- The shipped classifiers ------------------------------------------------------------------------------------------


def test_the_fashion_lenet_tells_clothes_apart() -> None:
    """Protects: the shipped file, its loader, the scale of the images: a wrong one costs tens of percent."""
    test = data.load(split="test")
    made = extractors.extract(extractors.lenet("fashion_mnist"), test["image"])
    assert made.features.shape == (500, 64)
    assert made.features.dtype == np.float32
    assert made.probabilities is not None
    np.testing.assert_allclose(made.probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert np.mean(made.probabilities.argmax(axis=1) == test["label"]) > 0.87
    assert np.linalg.matrix_rank(np.cov(made.features.T)) == 64, "features that are of no use"


def test_the_mnist_lenet_tells_other_peoples_digits_apart() -> None:
    """Protects: that lenet_mnist is what it is called, judged by scikit-learn's 8 x 8 digits, enlarged and centred."""
    digits = load_digits()
    large = jax.image.resize(jnp.asarray(digits.images[:500] / 16.0), (500, 20, 20), "bilinear")
    images = np.asarray(jnp.pad(large, ((0, 0), (4, 4), (4, 4))))[..., None]
    made = extractors.extract(extractors.lenet("mnist"), np.clip(images, 0.0, 1.0))
    assert made.probabilities is not None
    assert np.mean(made.probabilities.argmax(axis=1) == digits.target[:500]) > 0.85
    assert np.linalg.matrix_rank(np.cov(made.features.T)) == 64, "features that are of no use"


@pytest.mark.parametrize(("name", "least"), [("mnist", 0.992), ("fashion_mnist", 0.915)])
def test_the_shipped_files_say_how_they_were_made(name: str, least: float) -> None:
    """Protects: accuracy and origin travel with the weights; the hash is the file's; together they stay small."""
    path = PACKAGE / f"lenet_{name}.safetensors"
    with safe_open(path, "numpy") as file:
        record = json.loads(file.metadata()["jaxgen"])
    assert record["dataset"] == name
    assert record["num_images"] == 60_000
    assert record["num_test_images"] == 10_000
    assert record["test_accuracy"] >= least
    assert f"{record['test_accuracy']:.2%}".replace("%", " %") in str(extractors.__doc__)
    command = next(line for line in str(extractors.__doc__).splitlines() if f"--dataset {name} " in line)
    assert f"--epochs {record['steps'] // (60_000 // record['batch_size'])} " in command
    assert f"--shift {record['shift']} " in command
    assert ("--flip " in command) == record["flip"]
    extractor = extractors.find(f"lenet_{name}")
    assert extractor.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_size < 350_000


def test_lenet_is_its_formula() -> None:
    """Protects: the order of the layers, and features taken after their activation; against NumPy's windows."""
    network = networks.LeNet(num_classes=3, channels=(2, 4), num_features=5)
    x = np.random.default_rng(0).random((2, 16, 20, 3)).astype(np.float32)
    params: Any = jax.jit(network.init)(jax.random.key(0), x)["params"]
    outputs: Any = jax.jit(network.apply)({"params": params}, x)
    features, logits = outputs
    y = x
    for name in ("conv_0", "conv_1"):
        windows = np.lib.stride_tricks.sliding_window_view(y, (5, 5), axis=(1, 2))
        y = np.einsum("bijckl,klco->bijo", windows, params[name]["kernel"]) + np.asarray(params[name]["bias"])
        y = np.maximum(y, 0.2 * y)
        batch, height, width, channels = y.shape
        y = y.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
    hidden = y.reshape(2, -1) @ np.asarray(params["features"]["kernel"])
    hidden = np.maximum(hidden, 0.2 * hidden)
    np.testing.assert_allclose(features, hidden, atol=1e-5)
    np.testing.assert_allclose(logits, hidden @ params["logits"]["kernel"], atol=1e-5)
    with pytest.raises(ValueError, match=r"multiples of 4 and at least 16, got \[1, 8, 28, 1\]"):
        network.init(jax.random.key(0), x[:1, :8].repeat(2, axis=2)[:, :, :28, :1])


@pytest.mark.slow
def test_training_a_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects: the same options give the same file to the bit; the accuracy is that of the half-precision weights."""
    some = data.load()
    np.savez(tmp_path / "some.npz", image=some["image"][:300, 4:24, 4:24], label=some["label"][:300])
    arguments = ["--dataset", f"npz:{tmp_path / 'some.npz'}", "--epochs", "4", "--batch-size", "50", "--flip"]
    files = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for file in files:
        assert train_classifier.main([*arguments, "--out", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    printed = capsys.readouterr().out
    with safe_open(files[0], "numpy") as file:
        record = json.loads(file.metadata()["jaxgen"])
    assert record["steps"] == 4 * (270 // 50)
    assert record["dataset"] == "npz"
    assert len(record["images_sha256"]) == 64
    assert f"test accuracy {record['test_accuracy']:.4f} of 30 images" in printed
    assert record["test_accuracy"] > 0.3
    arrays = load_file(files[0])
    assert all(array.dtype == np.float16 for array in arrays.values())
    assert arrays["features.kernel"].shape == (192, 64)


def test_a_classifier_cannot_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects: each mistake is one line that says what to do."""
    np.savez(tmp_path / "bare.npz", image=some_images())
    out = ["--out", str(tmp_path / "x.safetensors")]
    for arguments, message in (
        (["--dataset", f"npz:{tmp_path / 'bare.npz'}", *out], "has no labels"),
        (["--epochs", "0", *out], "--epochs must be at least 1, got 0"),
        (["--out", str(tmp_path / "x.npz")], "must end in .safetensors"),
        (["--learning-rate", "-1", *out], "--learning-rate must be above 0, got -1"),
    ):
        assert train_classifier.main(arguments) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


# -- The colour classifier --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stock() -> dict[str, jax.Array]:
    """What composed pictures are made of where there are no emoji: other people's digits, and clothes of the test."""
    digits = load_digits()
    large = jax.image.resize(jnp.asarray(digits.images[:500] / 16.0 * 255.0), (500, 20, 20), "bilinear")
    test = data.load(split="test")
    return jax.device_put(
        {
            "digits": np.asarray(jnp.pad(large, ((0, 0), (4, 4), (4, 4)))).astype(np.uint8),
            "digits_label": digits.target[:500],
            "clothes": test["image"][..., 0],
            "clothes_label": test["label"],
            "emoji": np.zeros((1, 64, 64, 4), np.uint8),
            "emoji_label": np.zeros(1, np.int32),
        }
    )


def test_the_color_lenet_answers_what_it_has_learnt(stock: dict[str, jax.Array]) -> None:
    """Protects: the shipped file, its scale and its colours; on pictures composed here, half of them spoilt."""
    arrays, record, sha256 = read_arrays(PACKAGE / "lenet_color.safetensors")
    params = unflatten_dict({name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}, sep=".")
    network, sizes = extractors.color_lenet(), train_color_classifier.tasks(9)
    found = train_color_classifier.accuracies(network, params, sizes, stock, jax.random.key(5), 1000)
    floors = {"texture": 0.5, "ground hue": 0.6, "object hue": 0.5, "done": 0.6, "shapes": 0.5, "clothes": 0.4}
    assert {name: share for name, share in found.items() if share < floors.get(name, 0.0)} == {}
    assert record["tasks"] == sizes
    assert extractors.find("lenet_color").sha256 == sha256
    assert (PACKAGE / "lenet_color.safetensors").stat().st_size < 350_000
    table = (PACKAGE.parents[1] / "docs" / "evaluation.md").read_text()
    for name, share in record["test_accuracy"].items():
        assert f"| {name} | {share:.1%} |".replace("%", " %") in table, "docs/evaluation.md has other accuracies"


@pytest.mark.slow
def test_the_color_lenet_takes_pictures_of_any_size(stock: dict[str, jax.Array]) -> None:
    """Protects: what is enlarged without change has nearly the same features; grey is three equal channels."""
    images, _ = train_color_classifier.compose(stock, jax.random.key(0), 8)
    extractor = extractors.lenet("color")
    made = extractors.extract(extractor, np.asarray(images))
    assert made.features.shape == (8, 64)
    assert made.probabilities is None
    larger = extractors.extract(extractor, np.asarray(images.repeat(2, axis=1).repeat(2, axis=2)))
    gap = np.linalg.norm(larger.features - made.features, axis=1) / np.linalg.norm(made.features, axis=1)
    assert gap.max() < 0.25, gap
    grey = np.asarray(images[..., :1])
    of_grey, of_three = (extractors.extract(extractor, each).features for each in (grey, grey.repeat(3, axis=-1)))
    np.testing.assert_allclose(of_grey, of_three, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"LeNet-Color takes images \[N, H, W, 3\], or grey ones"):
        extractors.extract(extractor, np.zeros((2, 8, 8, 2), np.float32))


@pytest.mark.parametrize(
    ("dataset", "shape", "name"),
    [
        ("folder:x", (64, 48, 3), "LeNet-Color"),
        ("cifar10", (32, 32, 3), "LeNet-Color"),
        ("folder:x", (64, 64, 1), "pixels"),
        ("npz:x", (8,), "pixels"),
        ("npz:x", (32, 32, 4), "pixels"),
        ("mnist", (28, 28, 1), "LeNet-MNIST"),
        ("fashion_mnist_small", (28, 28, 1), "LeNet-FashionMNIST"),
    ],
)
def test_what_auto_chooses(dataset: str, shape: tuple[int, ...], name: str) -> None:
    assert choose_extractor("auto", dataset, shape).name == name


@pytest.mark.slow
def test_composed_pictures_are_what_their_labels_say(stock: dict[str, jax.Array]) -> None:
    """Protects: labels in range, known where they should be; plain grounds of the hue that is their label."""
    pictures, labels = train_color_classifier.compose(stock, jax.random.key(1), 400)
    images, found = np.asarray(pictures), {name: np.asarray(label) for name, label in labels.items()}
    assert images.shape == (400, 32, 32, 3)
    assert 0.0 <= images.min() <= images.max() <= 1.0
    for name, num in train_color_classifier.tasks(9).items():
        assert found[name].min() >= (-1 if name == "object hue" else 0)
        assert found[name].max() < num
    assert np.all(found["object hue"][300:] == -1), "emoji have their own colours"
    assert np.all(found["object"][:100] < 10), "shapes come first"
    plain = (found["texture"] == 0) & (found["done"] == 0) & (found["ground hue"] < 12)
    for corner, hue in zip(images[plain][:, 0, 0], found["ground hue"][plain], strict=True):
        assert int(colorsys.rgb_to_hsv(*corner.tolist())[0] * 12 + 1e-4) % 12 == hue


def test_training_the_color_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects: that the script refuses what it cannot read, before anything is trained."""
    arguments = ["--emoji", str(tmp_path), "--out", str(tmp_path / "x.safetensors")]
    for more, message in (
        ([], "holds no emoji.json: unpack emoji-datasource-google there"),
        (["--batch-size", "6"], "--batch-size must be a multiple of 4, got 6"),
        (["--steps", "0"], "--steps must be at least 1"),
    ):
        assert train_color_classifier.main([*arguments, *more]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.slow
def test_the_color_classifier_is_made_by_one_command(tmp_path: Path, stock: dict[str, jax.Array]) -> None:
    """Protects: the same options give the same file to the bit; an emoji is on one side, with all its variations."""
    folder = tmp_path / "package" / "img" / "google" / "64"
    folder.mkdir(parents=True)
    listed = []
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 4), dtype=np.uint8)
        for name in (f"{i}.png", f"{i}-1.png"):
            Image.fromarray(pixels).save(folder / name)
        category = "Objects" if i % 2 else "Food & Drink"
        variations = {"1": {"image": f"{i}-1.png"}}
        listed.append({"unified": str(i), "image": f"{i}.png", "category": category, "skin_variations": variations})
    (tmp_path / "package" / "emoji.json").write_text(json.dumps(listed))
    for name in ("digits", "clothes"):
        images, labels = stock[name], stock[f"{name}_label"]
        np.savez(tmp_path / f"{name}.npz", train_image=images, train_label=labels, test_image=images, test_label=labels)
    arguments = ["--emoji", str(tmp_path / "package"), "--held-out", str(tmp_path / "held"), "--steps", "3"]
    arguments += [f"--{name}=npz:{tmp_path / name}.npz" for name in ("digits", "clothes")]
    files = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for file in files:
        assert train_color_classifier.main([*arguments, "--out", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    record = read_arrays(files[0]).record
    held = {path.stem for path in (tmp_path / "held").rglob("*.png")}
    assert 0 < len(held) < 40
    assert all((f"{name}-1" in held) == (name in held) for name in map(str, range(40)))
    assert record["num_images"]["emoji"] + len(held) == 80


# -- Names ------------------------------------------------------------------------------------------------------------


def test_names_of_metrics() -> None:
    """Protects: nothing but Inception's usual weights makes an FID."""
    names = {name: extractors.find(name).name for name in extractors.SHIPPED}
    assert names == {
        "pixels": "pixels",
        "lenet_mnist": "LeNet-MNIST",
        "lenet_fashion_mnist": "LeNet-FashionMNIST",
        "lenet_color": "LeNet-Color",
    }
    assert extractors.find("lenet_color").metric_name("FD") == "FD-LeNet-Color"
    assert extractors.pixels().metric_name("FD") == "FD-pixels"
    assert extractors.lenet("mnist").metric_name("KD") == "KD-LeNet-MNIST"
    assert extractors.custom("mine", sums).metric_name("FD") == "FD-mine"
    usual = extractors.Extractor("Inception", "", "none", sums, None)  # type: ignore[arg-type]
    assert [usual.metric_name(metric) for metric in ("FD", "KD", "precision")] == ["FID", "KID", "precision-Inception"]


def test_an_unknown_extractor() -> None:
    for text in ("lenet", "inception", "inception:", ""):
        with pytest.raises(
            ValueError, match="choose from pixels, lenet_mnist, lenet_fashion_mnist, lenet_color and in"
        ):
            extractors.find(text)
    with pytest.raises(ValueError, match="no LeNet of 'cifar10': choose from mnist, fashion_mnist, color"):
        extractors.lenet("cifar10")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        extractors.find("inception:/nowhere.safetensors")


def test_a_custom_extractor_must_be_told_from_others() -> None:
    """Protects: two different functions never stamp the same hash unnoticed."""
    one = extractors.custom("mine", sums)
    assert one.sha256 == extractors.custom("mine", sums).sha256
    assert one.sha256 != extractors.custom("mine", sums, identity="other weights").sha256
    assert extractors.custom("lambda", lambda x: x, identity="1").sha256 != one.sha256
    for function in (lambda x: x, jax.jit(sums), jax.tree_util.Partial(sums)):
        with pytest.raises(ValueError, match="give identity"):
            extractors.custom("mine", function)
    for name in ("", "pixels", "LeNet-MNIST", "Inception", "Inception-mine"):
        with pytest.raises(ValueError, match="a name of its own"):
            extractors.custom(name, sums)


# -- Pieces and devices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lenet", "custom"])
def test_the_same_numbers_for_any_pieces_and_devices(kind: str) -> None:
    """Protects: an image's features do not depend on what it is computed with, in which order, or on padding."""
    extractor = extractors.lenet("mnist") if kind == "lenet" else extractors.custom("sums", sums)
    images = some_images()
    expected = [
        np.asarray(output) for output in extractor.function(jnp.asarray(images / np.float32(255))) if output is not None
    ]
    for batch_size, devices in ((8, None), (8, jax.devices()[:1]), (5, None), (1000, None)):
        made = extractors.extract(extractor, images, batch_size, devices)
        np.testing.assert_allclose(made.features, expected[0], rtol=1e-5, atol=1e-5)
        assert (made.probabilities is None) == (kind == "custom")


def test_a_piece_is_split_over_the_devices() -> None:
    """Protects: all devices work; a batch size that they do not divide uses as many as do."""
    seen: list[tuple[int, ...]] = []

    def spy(images: jax.Array) -> jax.Array:
        jax.debug.inspect_array_sharding(images, callback=lambda s: seen.append(s.shard_shape(images.shape)))
        return sums(images)

    for batch_size, shape in ((16, (2, 28, 28, 1)), (12, (3, 28, 28, 1)), (5, (5, 28, 28, 1))):
        seen.clear()
        extractors.extract(extractors.custom("spy", spy, identity=str(batch_size)), some_images(30), batch_size)
        assert seen == [shape]


def test_one_program_for_all_pieces() -> None:
    """Protects: the last piece, and the next call, compile nothing."""
    traced = []

    def count(images: jax.Array) -> jax.Array:
        traced.append(images.shape)
        return sums(images)

    extractor = extractors.custom("count", count, identity="1")
    steps: list[tuple[int, int]] = []
    for _ in range(2):
        extractors.extract(extractor, some_images(20), 8, progress=lambda done, total: steps.append((done, total)))
    assert traced == [(8, 28, 28, 1)]
    assert steps == [(8, 20), (16, 20), (20, 20)] * 2


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32, np.float64, np.float16])
def test_types_of_images(dtype: Any) -> None:
    """Protects: 0..255, 0/1 and [0, 1] mean the same; vectors are taken as well."""
    binary = some_images() > 127
    images = binary.astype(dtype) * 255 if dtype == np.uint8 else binary.astype(dtype)
    made = extractors.extract(extractors.pixels(), images)
    np.testing.assert_array_equal(made.features, binary.reshape(13, -1))
    assert made.features.dtype == np.float32
    np.testing.assert_array_equal(extractors.extract(extractors.pixels(), images.reshape(13, -1))[0], made.features)


# -- What is refused --------------------------------------------------------------------------------------------------


def test_images_that_are_refused() -> None:
    """Protects: never a silent number of images that mean something else."""
    lenet, floats = extractors.lenet("mnist"), some_images() / np.float32(255)
    bad = floats.copy()
    bad[3, 2] = np.nan
    for extractor, images, message in (
        (
            lenet,
            np.zeros((4, 32, 32, 3), np.uint8),
            r"LeNet-MNIST takes images of shape \[28, 28, 1\], got \[32, 32, 3\]",
        ),
        (lenet, np.zeros((4, 784), np.uint8), r"use pixels or a custom extractor"),
        (lenet, floats[:0], r"at least one, got shape \[0, 28, 28, 1\]"),
        (lenet, bad, r"finite and in \[0, 1\], got values from nan to nan"),
        (lenet, floats * 2 - 1, r"finite and in \[0, 1\], got values from -1"),
        (lenet, (some_images() > 127).astype(np.uint8), "binary images must be bool"),
    ):
        with pytest.raises(ValueError, match=message):
            extractors.extract(extractor, images)
    with pytest.raises(TypeError, match="got int64: convert them"):
        extractors.extract(lenet, some_images().astype(np.int64))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        extractors.extract(lenet, floats, 0)


def test_features_that_are_refused() -> None:
    """Protects: a bad feature is named with its extractor and its image; a wrong shape before anything is computed."""
    images = some_images()
    images[9] = 0

    def inverse(images: jax.Array) -> jax.Array:
        return 1.0 / sums(images)

    with pytest.raises(FloatingPointError, match="inverse makes features that are not finite of image 9"):
        extractors.extract(extractors.custom("inverse", inverse, identity="1"), images, 4)
    for number, (function, message) in enumerate(
        (
            (
                lambda x: x,
                r"maps must make features \[B, D\], floating point, of 8 images, got float32\[8, 28, 28, 1\]",
            ),
            (lambda x: jnp.sum(x), r"got float32\[\]"),
            (lambda x: jnp.zeros((8, 3), jnp.int32), r"got int32\[8, 3\]"),
            (
                lambda x: (sums(x), sums(x)[:, 0]),
                r"must make logits \[B, K\], floating point, of 8 images, got float32\[8\]",
            ),
            (lambda x: {"features": sums(x)}, "must return features .* got dict"),
        )
    ):
        with pytest.raises(ValueError, match=message):
            extractors.extract(extractors.custom("maps", function, identity=str(number)), images, 8)


# -- Inception --------------------------------------------------------------------------------------------------------


def pytorch_weights() -> dict[str, np.ndarray]:
    """Weights by the formula, named and laid out as PyTorch's: without PyTorch."""
    weights = {}
    for name, described in extractors.weights_of(networks.InceptionV3(), (299, 299, 3), "float32").items():
        shape = tuple(json.loads(described.removeprefix("float32")))
        if len(shape) > 1:  # [kh, kw, I, O] -> [O, I, kh, kw]; [I, O] -> [O, I]
            shape = (shape[-1], shape[-2], *shape[:-2])
        weights[name] = torch_inception.weight(name, shape)
    return weights


@pytest.fixture(scope="module")
def torch_weights() -> dict[str, np.ndarray]:
    """Made once, as they are 24 million numbers."""
    return pytorch_weights()


# Of tests/torch_inception.py under PyTorch 2.13 on a CPU: every 300th feature and every 200th logit from number 200 on,
# and norms. The two images differ by about 0.02 in each.
GOLD_FEATURES = [
    [0.032290, 2.817105, 0.0, 3.873344, 0.080368, 0.141533, 0.533426],
    [0.034214, 2.791712, 0.0, 3.931612, 0.048069, 0.136294, 0.495023],
]
GOLD_LOGITS = [
    [-0.772686, -0.544772, -0.090492, -2.496240, 0.168773],
    [-0.725804, -0.547356, -0.090217, -2.465860, 0.216027],
]
GOLD_NORMS = [[57.023781, 56.217361], [41.125435, 40.551582]]


@pytest.mark.slow
def test_inception_without_pytorch(torch_weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Protects: network, converter, loader and resizing, by numbers that PyTorch computed from the same formulas."""
    # What a file of PyTorch's has besides.
    more: dict[str, np.ndarray] = {
        "AuxLogits.fc.bias": np.zeros(1, np.float32),
        "Mixed_7a.num_batches_tracked": np.zeros(1, np.int64),
    }
    save_file({**torch_weights, **more}, tmp_path / "torch.safetensors")
    target = tmp_path / "converted.safetensors"
    assert convert_inception.main([str(tmp_path / "torch.safetensors"), str(target)]) == 0
    extractor = extractors.inception(target)
    features, logits = map(np.asarray, jax.jit(extractor.function)(torch_inception.images()))
    np.testing.assert_allclose(features[:, 200::300], GOLD_FEATURES, atol=2e-5)
    np.testing.assert_allclose(logits[:, 200::200], GOLD_LOGITS, atol=2e-5)
    np.testing.assert_allclose([np.linalg.norm(array, axis=1) for array in (features, logits)], GOLD_NORMS, rtol=1e-5)
    # Other weights than the usual ones make no FID.
    assert extractor.name == f"Inception-{extractor.sha256[:8]}"
    assert extractor.metric_name("FD") == f"FD-{extractor.name}"
    record = {"network": "InceptionV3", "source_sha256": extractors._USUAL_INCEPTION}
    save_file(load_file(target), tmp_path / "usual.safetensors", {"jaxgen": json.dumps(record)})
    assert extractors.inception(tmp_path / "usual.safetensors").metric_name("FD") == "FID"
    # A grey image is one of three equal channels.
    grey = torch_inception.images(1)[..., :1]
    one, three = (extractors.extract(extractor, images, 1).features for images in (grey, grey.repeat(3, axis=3)))
    np.testing.assert_allclose(one, three, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(
    TORCH_PYTHON is None, reason="no PyTorch here: name an interpreter that has it, JAXGEN_TORCH_PYTHON"
)
def test_inception_against_pytorch(tmp_path: Path) -> None:
    """Protects: the whole way from a .pth file and 32 x 32 images to features, by PyTorch's own computation."""
    python, weights, outputs = str(TORCH_PYTHON), tmp_path / "weights.pth", tmp_path / "outputs.npz"
    subprocess.run([python, torch_inception.__file__, str(weights), str(outputs)], check=True)
    target = tmp_path / "converted.safetensors"
    assert convert_inception.main([str(weights), str(target), "--torch-python", python]) == 0
    extractor = extractors.find(f"inception:{target}")
    made = extractors.extract(extractor, torch_inception.images())
    with np.load(outputs) as archive:
        features, logits = archive["features"], archive["logits"]
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    for found, expected in ((made.features, features), (made.probabilities, probabilities)):
        # A random network makes nearly the same of any image: the error is small even beside what tells two apart.
        error, apart = np.linalg.norm(found - expected), np.linalg.norm(expected[0] - expected[1])
        assert error < 1e-3 * apart
        assert error < 1e-5 * np.linalg.norm(expected)


def test_a_file_that_is_no_inception(tmp_path: Path) -> None:
    """Protects: what is missing, too much or of another shape is named; nothing is loaded in part."""
    path = tmp_path / "some.safetensors"
    path.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match=r"no whole \.safetensors file"):
        extractors.inception(path)
    metadata = {"jaxgen": json.dumps({"network": "InceptionV3"})}
    save_file({"fc.weight": np.zeros((2048, 1000), np.float32), "other": np.zeros(1, np.float32)}, path, metadata)
    with pytest.raises(
        ValueError, match=r"Conv2d_1a_3x3.bn.bias: saved nothing, wanted float32\[32\]; .* and 467 more"
    ):
        extractors.inception(path)
    lenet = PACKAGE / "lenet_mnist.safetensors"
    with pytest.raises(ValueError, match=r"not hold the weights of InceptionV3.*write it with experiments/convert_i"):
        extractors.inception(lenet)


def test_weights_that_are_not_converted(
    torch_weights: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects: a file of other weights is refused by name and shape, and nothing is written."""
    source, target = tmp_path / "source.safetensors", tmp_path / "target.safetensors"
    other = {name: array for name, array in torch_weights.items() if not name.startswith("Mixed_7c.branch_pool")}
    other["fc.weight"] = np.zeros((1000, 2048), np.float32)
    other["fc.bias"] = np.full(1008, np.nan, np.float32)
    with pytest.raises(
        ValueError, match=r"fc.weight: saved float32\[2048, 1000\], wanted float32\[2048, 1008\]"
    ) as raised:
        convert_inception.convert(other)
    assert "Mixed_7c.branch_pool.conv.weight: saved nothing, wanted float32[1, 1, 2048, 192]" in str(raised.value)
    with pytest.raises(ValueError, match=r"not finite: fc.bias"):
        convert_inception.convert({**torch_weights, "fc.bias": other["fc.bias"]})
    save_file({"fc.bias": other["fc.bias"]}, source)
    (tmp_path / "broken.pth").write_bytes(b"no archive")
    for arguments, message in (
        ([source, target], "not the weights of the FID's Inception"),
        ([source, tmp_path / "target.npz"], "must end in .safetensors"),
        ([tmp_path / "missing.pth", target], "missing.pth"),
        ([tmp_path / "broken.pth", target, "--torch-python", tmp_path / "nowhere"], "nowhere"),
    ):
        assert convert_inception.main(list(map(str, arguments))) == 1
        assert message in capsys.readouterr().err
    assert not target.exists()


def test_resizing() -> None:
    """Protects: half-pixel centres, edges repeated, no antialiasing, up and down; against the formula."""
    image = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    for side in (299, 80, 23):
        places = np.clip((np.arange(side) + 0.5) * 32 / side - 0.5, 0, 31)
        low = np.minimum(places.astype(int), 30)
        rows = image[low] + (places - low)[:, None] * (image[low + 1] - image[low])
        expected = rows[:, low] + (places - low)[None] * (rows[:, low + 1] - rows[:, low])
        made = extractors._resize(jnp.asarray(image)[None, :, :, None], side)[0, :, :, 0]
        np.testing.assert_allclose(made, expected, atol=1e-5)
