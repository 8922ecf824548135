"""The doors of the tokenizer: encoding, codes, perceptual networks, measures, exports and the commands of a run."""

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax import export as jax_export
from PIL import Image
from safetensors.numpy import load_file

import jaxgen
from jaxgen import networks, perceptual
from jaxgen.cli import compare, encode, evaluate, explore, export, latent_data, plot, runs, sample, train
from jaxgen.cli.next_commands import next_commands
from jaxgen.cli.sweeping import results
from jaxgen.cli.sweeping import training as sweeping_training
from jaxgen.cli.sweeping.plan import Member
from jaxgen.cli.tokenizer_options import TokenizerOptions
from jaxgen.evaluation import curves, extractors, measures, records
from jaxgen.evaluation.evaluator import load_model
from jaxgen.evaluation.explanations import explain_score
from jaxgen.evaluation.subject import Settings, Subject
from jaxgen.trained import Trained
from jaxgen.training.run import Run, init_state

SMALL = ["--batch-size", "10", "--width", "4", "--factor", "4", "--discriminator", "none"]
BOTTLENECKS = {"fsq": ["--bottleneck", "fsq", "--levels", "3", "4"], "kl": ["--channels", "2"]}
CODES = 12


def draw(num: int, side: int = 8, channels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images with a bright bar each, whose place is its class."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, num)
    image = generator.integers(0, 120, (num, side, side, channels)).astype(np.uint8)
    for each, place in zip(image, label, strict=True):
        each[:, 2 * place : 2 * place + 2] += 120
    return image, label


def save(path: Path, side: int = 8, channels: int = 1, num: int = 30) -> str:
    """A data set with both splits; the name that options take."""
    (train_image, train_label), (image, label) = draw(num, side, channels), draw(40, side, channels, seed=1)
    np.savez(path, train_image=train_image, train_label=train_label, test_image=image, test_label=label)
    return f"npz:{path}"


def refused(run: Any, arguments: list[Any], capsys: Any, *said: str) -> None:
    """A command that ends with one line, which says all that."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    *before, error = error.splitlines()
    assert error.startswith("error: ")
    assert before in ([], [line for line in before if line.startswith("measuring ")]), before
    assert all(words in error for words in said), error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, and a run of each bottleneck."""
    place = tmp_path_factory.mktemp("tokenizers")
    name = save(place / "bars.npz")
    for bottleneck, words in BOTTLENECKS.items():
        every = ["--steps", "6", "--eval-every", "4", "--checkpoint-every", "2", "--sample-every", "6", "--keep", "9"]
        assert (
            train.main(["tokenizer", "--dataset", name, *SMALL, *words, *every, "--workdir", str(place / bottleneck)])
            == 0
        )
    return place


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Trained]:
    return {name: jaxgen.load(folder / name) for name in BOTTLENECKS}


def test_a_tokenizer_encodes_a_data_set(folder: Path, models: dict[str, Trained], tmp_path: Path) -> None:
    for name, model in models.items():
        out = tmp_path / f"{name}.npz"
        assert encode.main([str(folder / name), "--out", str(out)]) == 0
        image, label = draw(40, seed=1)
        with np.load(out) as found:
            assert (found["latents"].shape, found["latents"].dtype) == ((40, 2, 2, 2), np.float32)
            np.testing.assert_array_equal(found["labels"], label)
            # As they were settled on these very images.
            flat = found["latents"].astype(np.float64).reshape(-1, 2)
            np.testing.assert_allclose(flat.mean(axis=0), 0.0, atol=1e-5)
            np.testing.assert_allclose(flat.std(axis=0), 1.0, atol=1e-4)
            batch = {"image": image.astype(np.float32) / 255}
            variables = {"params": model.state.ema["params"], **model.state.ema["collections"]}
            hidden = model.spec.encoder.apply({"params": variables["params"]["encoder"]}, batch["image"], train=False)
            bottled = model.spec.bottleneck.apply({"params": variables["params"]["bottleneck"]}, hidden, train=False)
            raw = found["latents"] * found["latent_std"] + found["latent_mean"]
            np.testing.assert_allclose(raw, bottled.latents, atol=1e-5)
            assert (str(found["run"]), int(found["step"]), str(found["dataset"])) == (name, 6, "npz")
            held = load_model(folder / name, "newest", 0, Settings())
            assert str(found["weights_sha256"]) == held.sha256
            assert json.loads(str(found["identity"])) == held.run.config["identity"]
            assert ("codes" in found.files) == (name == "fsq")
            if name == "fsq":
                assert (found["codes"].shape, found["codes"].dtype) == ((40, 2, 2), np.int32)
                np.testing.assert_array_equal(found["codes"], bottled.codes)
        again = out.read_bytes()
        assert encode.main([str(folder / name), "--out", str(out)]) == 0
        assert out.read_bytes() == again, "no date is in it"


def test_encoding_goes_piece_by_piece_and_is_read_by_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of 4 images, the last one of 2, are those of one piece; rows can be read from the middle of the file."""
    assert encode.main([str(folder / "fsq"), "--split", "train", "--out", str(tmp_path / "whole.npz")]) == 0
    monkeypatch.setattr(latent_data, "VALUES", 4 * 64)
    assert encode.main([str(folder / "fsq"), "--split", "train", "--out", str(tmp_path / "pieces.npz")]) == 0
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "pieces.npz") as pieces:
        assert whole.files == pieces.files
        np.testing.assert_array_equal(whole["codes"], pieces["codes"])
        np.testing.assert_allclose(whole["latents"], pieces["latents"], atol=1e-5)
    with zipfile.ZipFile(tmp_path / "pieces.npz") as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
    assert list(tmp_path.glob(".*")) == [], "nothing is left beside it"


def test_a_vae_is_encoded_as_its_posterior_means(tmp_path: Path) -> None:
    name = save(tmp_path / "bars.npz")
    words = ["--hidden", "8", "--latent-dim", "3", "--steps", "2", "--batch-size", "10", "--workdir"]
    assert train.main(["vae", "--dataset", name, *words, str(tmp_path / "run")]) == 0
    assert encode.main([str(tmp_path / "run"), "--out", str(tmp_path / "z.npz")]) == 0
    model = jaxgen.load(tmp_path / "run")
    mean = jaxgen.vae_encode(model.spec, model.state, {"image": draw(40, seed=1)[0]})[0]
    with np.load(tmp_path / "z.npz") as found:
        np.testing.assert_allclose(found["latents"], mean, atol=1e-5)
        assert not found["latent_mean"].any()
        assert (found["latent_std"] == 1).all()
        assert "codes" not in found.files


def test_what_cannot_be_encoded_is_refused(folder: Path, tmp_path: Path, capsys: Any) -> None:
    fsq = folder / "fsq"
    refused(encode.main, [fsq, "--out", tmp_path / "z.png"], capsys, "--out must end in .npz")
    other = save(tmp_path / "large.npz", 12)
    said = "takes images [8, 8, 1]", "has [12, 12, 1]"
    refused(encode.main, [fsq, "--dataset", other, "--out", tmp_path / "z.npz"], capsys, *said)
    said = "was not evaluated before its step 2", "train on to an evaluation"
    refused(encode.main, [fsq, "--checkpoint", "2", "--out", tmp_path / "z.npz"], capsys, *said)
    refused(encode.main, [fsq, "--split", "valid", "--out", tmp_path / "z.npz"], capsys, "unknown split")
    refused(encode.main, [tmp_path, "--out", tmp_path / "z.npz"], capsys, "holds no run")
    words = ["--generator-hidden", "8", "--discriminator-hidden", "8", "--steps", "1", "--batch-size", "10"]
    name = save(tmp_path / "bars.npz")
    assert train.main(["gan", "--dataset", name, *words, "--workdir", str(tmp_path / "gan")]) == 0
    refused(encode.main, [tmp_path / "gan", "--out", tmp_path / "z.npz"], capsys, "a GAN, which has no encoder")
    assert not (tmp_path / "z.npz").exists()


def test_images_that_are_not_whole_leave_no_file(folder: Path, tmp_path: Path, capsys: Any) -> None:
    """The fault shows in the middle of the work."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, image in enumerate(draw(4)[0]):
        Image.fromarray(image[..., 0]).save(pictures / f"{number}.png")
    whole = (pictures / "3.png").read_bytes()
    (pictures / "3.png").write_bytes(whole[:-40])
    words = [folder / "fsq", "--dataset", f"folder:{pictures}", "--split", "all", "--out", tmp_path / "z.npz"]
    refused(encode.main, words, capsys, "3.png")
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}
    (pictures / "3.png").write_bytes(whole)
    assert encode.main(list(map(str, words))) == 0
    with np.load(tmp_path / "z.npz") as found:
        assert found["codes"].shape == (4, 2, 2)


def test_a_trained_tokenizer_has_codes(models: dict[str, Trained], key: jax.Array) -> None:
    model, image = models["fsq"], draw(5, seed=2)[0]
    assert repr(model) == "Trained('fsq': tokenizer, images [8, 8, 1], 8 latents, 12 codes)"
    codes = model.codes(image)
    assert (codes.shape, codes.dtype) == ((5, 2, 2), jnp.int32)
    assert 0 <= int(codes.min()) <= int(codes.max()) < CODES
    rebuilt = model.reconstruct(image, key)
    np.testing.assert_allclose(model.decode_codes(codes), rebuilt, atol=1e-6)
    # A code is a place on the grid of 3 x 4 levels, the first number's first; the latents say the same.
    levels = np.asarray(model.encode(image)).reshape(5, 2, 2, 2) * np.asarray(model.state.hyperparams["latent_std"])
    levels = levels + np.asarray(model.state.hyperparams["latent_mean"])
    alike = np.asarray(codes).ravel()[:, None] == np.asarray(codes).ravel()
    same = np.abs(levels.reshape(-1, 1, 2) - levels.reshape(1, -1, 2)).max(axis=2) < 1e-4
    np.testing.assert_array_equal(alike, same)
    for given, error, said in (
        (np.full((1, 2, 2), CODES), ValueError, "has the codes 0 to 11, got codes from 12 to 12"),
        (np.zeros((1, 2, 2)), TypeError, "codes must be integers, got float64"),
        (np.zeros((1, 4), int), ValueError, r"expected codes \[N, 2, 2\], at least one image's, got shape \[1, 4\]"),
    ):
        with pytest.raises(error, match=said):
            model.decode_codes(given)


def test_flat_latents_are_decoded_and_walked_between(models: dict[str, Trained], key: jax.Array) -> None:
    for model in models.values():
        image = draw(4, seed=2)[0]
        z = model.encode(image)
        assert z.shape == (4, 8)
        rebuilt = model.reconstruct(image, key)
        # Grids of one code have no spread, which group normalisation divides by: round-off shows.
        np.testing.assert_allclose(model.decode(z), rebuilt, atol=0.02)
        np.testing.assert_array_equal(model.decode(z.reshape(4, 2, 2, 2)), model.decode(z))
        walk = model.interpolate(z[:2], z[2:], 3, linear=True)
        assert walk.shape == (2, 3, 8, 8, 1)
        np.testing.assert_allclose(walk[:, 1], model.decode((z[:2] + z[2:]) / 2), atol=0.02)


def test_what_a_tokenizer_lacks_is_said(models: dict[str, Trained], key: jax.Array) -> None:
    image = draw(2)[0]
    kl = models["kl"]
    assert repr(kl) == "Trained('kl': tokenizer, images [8, 8, 1], 8 latents)"
    second = "train a second stage on its latents"
    for call, error, said in (
        (lambda: kl.codes(image), TypeError, "kl is a tokenizer without codes, .* use encode and decode"),
        (lambda: kl.decode_codes(np.zeros((1, 2, 2), int)), TypeError, "use encode and decode"),
        (lambda: jaxgen.load("vae-fashion-mnist").codes(image), TypeError, "a VAE, whose images have no codes"),
        (lambda: kl.sample(key, 2), TypeError, f"has no prior to draw from: {second}"),
        (lambda: kl.invert(image, key), ValueError, f"a tokenizer has none: {second}"),
        (lambda: kl.complete(image, np.arange(64).reshape(8, 8) < 32, key), ValueError, second),
    ):
        with pytest.raises(error, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)


# -- Perceptual networks ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def perceptual_run(folder: Path) -> Path:
    """A run whose reconstructions are compared by the features of LeNet-MNIST as well."""
    name = save(folder / "mnist_bars.npz", 28, num=20)
    words = ["--perceptual", "lenet_mnist", "--perceptual-weight", "0.5", "--bottleneck", "fsq", "--levels", "3", "4"]
    every = ["--steps", "2", "--eval-every", "2", "--log-every", "1", "--workdir", str(folder / "perceptual")]
    assert train.main(["tokenizer", "--dataset", name, *SMALL, *words, *every]) == 0
    return folder / "perceptual"


def test_a_perceptual_network_is_that_of_its_file(perceptual_run: Path, capsys: Any) -> None:
    """Protects: its parameters, the hash by which it is known again, and a resumed run that still has them."""
    run = Run.open(perceptual_run)
    kept = load_file(Path(extractors.__file__).parent / "lenet_mnist.safetensors")
    for step in (2, 3):
        state: Any = run.restore(step)
        held = {name: np.asarray(leaf, np.float16) for name, leaf in flatten(state.perceptual_params).items()}
        assert held.keys() == kept.keys()
        assert all((held[name] == kept[name]).all() for name in kept)
        assert [weights.tolist() for weights in state.perceptual_weights] == [[1.0] * 24, [1.0] * 48]
        if step == 2:
            resume = ["tokenizer", "--workdir", str(perceptual_run), "--resume", "--steps", "3"]
            assert train.main(resume) == 0
    assert run.spec.perceptual == networks.LeNet()
    assert run.spec.perceptual_weight == 0.5
    assert run.spec.perceptual_sha256 == extractors.lenet("mnist").sha256
    rows = [json.loads(line) for line in (perceptual_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row.get("perceptual", 0.0) > 0.0] == [1, 2, 3]
    other = ["tokenizer", "--workdir", perceptual_run, "--resume", "--steps", "4", "--perceptual", "none"]
    refused(train.main, other, capsys, "holds another run", "model.perceptual")


def flatten(params: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(params, sep=".")


def test_the_weights_of_the_distance_are_used(perceptual_run: Path) -> None:
    """Against NumPy: features of unit length, weighed channel by channel."""
    run = Run.open(perceptual_run)
    state: Any = run.restore(2)
    batch = {"image": draw(3, 28, seed=3)[0]}
    made = jnp.asarray(draw(3, 28, seed=4)[0], jnp.float32) / 255
    weights = tuple(np.linspace(0.0, 2.0, num).astype(np.float32) for num in (24, 48))

    def maps(images: Any) -> Any:
        found = run.spec.perceptual.apply({"params": state.perceptual_params}, images, method="features")
        return [np.asarray(each, np.float64) for each in found]

    for given, expected_weights in ((state.perceptual_weights, [1.0, 1.0]), (weights, weights)):
        expected = 0.0
        for a, b, w in zip(maps(made), maps(batch["image"] / np.float32(255)), expected_weights, strict=True):
            u, v = (x / np.sqrt((x**2).sum(axis=-1, keepdims=True) + 1e-10) for x in (a, b))
            expected += (w * (u - v) ** 2).sum(axis=-1).mean()
        _, found = jaxgen.fidelity_loss(run.spec, made, state._replace(perceptual_weights=given), batch)
        np.testing.assert_allclose(found["perceptual"], expected, rtol=1e-4)


def options(**fields: Any) -> TokenizerOptions:
    return TokenizerOptions(width=4, discriminator="none", **fields)


def test_a_perceptual_network_of_a_vgg_file(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tuple(jnp.full(num, 0.5) for num in (64, 128, 256, 512, 512))
    file = perceptual.Perceptual({"conv_1_1": {"kernel": jnp.ones(2)}}, weights, "abc")
    files = {Path("there/vgg.safetensors"): file}
    monkeypatch.setattr(perceptual, "vgg16", files.__getitem__)
    given = options(perceptual="vgg:there/vgg.safetensors", dtype="bfloat16")
    spec: Any = given.spec((16, 16, 3))
    assert (spec.perceptual, spec.perceptual_sha256) == (networks.VGG16("bfloat16"), "abc")
    held = given.held((16, 16, 3))
    assert held["perceptual_params"] is file.params
    assert held["perceptual_weights"] is weights
    assert given.settings()["paths"]["perceptual"] == f"vgg:{Path.cwd()}/there/vgg.safetensors"
    assert options(perceptual="discriminator", bottleneck="kl").held((16, 16, 3)) == {}
    played = TokenizerOptions(width=4, perceptual="discriminator").spec((8, 8, 1))
    assert (played.perceptual, played.perceptual_sha256) == ("discriminator", None)
    color = options(perceptual="lenet_color").spec((32, 32, 3))
    assert color.perceptual_sha256 == extractors.lenet("color").sha256
    assert color.perceptual == extractors.color_lenet()


def test_perceptual_networks_that_do_not_fit_are_refused(folder: Path, capsys: Any) -> None:
    """In one line, before anything is trained or a run is made."""
    begin = [
        "tokenizer",
        "--dataset",
        f"npz:{folder / 'bars.npz'}",
        *SMALL,
        "--workdir",
        folder / "new",
        "--perceptual",
    ]
    for name, *said in (
        ("lenet_mnist", "--perceptual lenet_mnist: ", "takes images [28, 28, 1], these are [8, 8, 1]"),
        ("lenet_color", "takes images [32, 32, 3], these are [8, 8, 1]"),
        ("vgg:nowhere", "vgg takes images of at least 16 x 16 in 1 or 3 channels, these are [8, 8, 1]"),
        ("lenet", "there is no perceptual network 'lenet': choose from none, discriminator, lenet_mnist"),
        ("vgg:", "there is no perceptual network 'vgg:'"),
        ("discriminator", "--perceptual discriminator needs one"),
    ):
        refused(train.main, [*begin, name], capsys, *said)
    begin[2] = save(folder / "larger.npz", 16)
    refused(train.main, [*begin, "vgg:nowhere"], capsys, "nowhere is no file")
    refused(train.main, [*begin, f"vgg:{folder / 'bars.npz'}"], capsys, "is no whole .safetensors file")
    assert not (folder / "new").exists()


def test_members_of_a_sweep_have_the_network_of_the_file() -> None:
    given = options(perceptual="lenet_mnist", bottleneck="kl", batch_size=4)
    specs = [dataclasses.replace(given, learning_rate=rate).spec((28, 28, 1)) for rate in (1e-3, 1e-4)]
    members = [Member({}, given, spec) for spec in specs]
    loaded = SimpleNamespace(example={"image": np.zeros((1, 28, 28, 1), np.uint8)})
    state: Any = sweeping_training.initial_state(members, loaded)  # type: ignore[arg-type]
    kept = flatten(given.held((28, 28, 1))["perceptual_params"])
    for name, leaf in flatten(state.perceptual_params).items():
        assert leaf.shape == (2, *kept[name].shape)
        np.testing.assert_array_equal(leaf, np.stack([kept[name]] * 2))


def test_borrowed_weights_leave_the_perceptual_network_alone(perceptual_run: Path, key: jax.Array) -> None:
    """Protects: what is compared is what the new run's spec says, and no difference of it hinders borrowing."""
    theirs: Any = Run.open(perceptual_run).restore()
    spec: Any = dataclasses.replace(Run.open(perceptual_run).spec, perceptual=None, perceptual_sha256=None)
    fresh: Any = init_state(spec, key, {"image": np.zeros((1, 28, 28, 1), np.uint8)})
    borrowed = runs.borrow_weights(fresh, perceptual_run)
    chex.assert_trees_all_equal(borrowed.params, theirs.params)
    assert borrowed.perceptual_params == {}


# -- Evaluation -------------------------------------------------------------------------------------------------------


def evaluated(run: Path, *words: str) -> dict[str, records.Record]:
    assert evaluate.main([str(run), "--out", str(run / "evaluation"), *words]) == 0
    return {record.protocol.metric: record for record in records.read(run / "evaluation" / "records.json")}


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The distance of two sets of features [N, D], by its definition."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    one, other = np.cov(a.T), np.cov(b.T)
    roots = np.sqrt(np.linalg.eigvals(one @ other).astype(np.complex128)).real.sum()
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(one + other) - 2.0 * roots)


def test_a_tokenizer_is_evaluated(folder: Path, models: dict[str, Trained], key: jax.Array, capsys: Any) -> None:
    """All that applies, with nothing but the run's name: reconstructions, their distance, the use of codes."""
    found = evaluated(folder / "fsq")
    reconstructions = {"reconstruction-MSE", "reconstruction-PSNR", "rFD-pixels"}
    assert found.keys() == {*reconstructions, "codes-used", "code-perplexity", "bits-per-pixel"}
    assert "without elbo: a tokenizer has no ELBO" in (said := capsys.readouterr().out)
    assert "without frechet: a tokenizer has no prior" in said
    image = draw(40, seed=1)[0]
    codes = np.asarray(models["fsq"].codes(image))
    shares = np.bincount(codes.ravel(), minlength=CODES) / codes.size
    assert found["codes-used"].value == pytest.approx((shares > 0).mean())
    assert found["code-perplexity"].value == pytest.approx(np.exp(-sum(p * np.log(p) for p in shares if p)), rel=1e-5)
    assert found["bits-per-pixel"].value == pytest.approx(4 * np.log2(12) / 64)
    assert found["codes-used"].warnings == (), "40 images of 4 places are enough for 12 codes"
    compared = image[::2]
    rebuilt = np.asarray(models["fsq"].reconstruct(compared, key)).clip(0, 1)
    distance = found["rFD-pixels"]
    assert distance.value == pytest.approx(frechet(compared / 255, rebuilt), rel=0.02)
    assert distance.calibration == pytest.approx(frechet(compared / 255, image[1::2] / 255), rel=0.02)
    protocol = distance.protocol
    assert (protocol.num_real, protocol.num_generated, protocol.split, protocol.better) == (20, 20, "test", "lower")
    assert protocol.extractor_sha256 == extractors.pixels().sha256


def test_latents_without_codes_are_evaluated(folder: Path, models: dict[str, Trained], key: jax.Array) -> None:
    found = evaluated(folder / "kl", "--measures", "codes")
    assert found.keys() == {"active-channels", "sampled-MSE"}
    model, batch = models["kl"], {"image": draw(40, seed=1)[0]}
    raw = np.asarray(model.encode(batch["image"])).reshape(-1, 2) * np.asarray(model.state.hyperparams["latent_std"])
    assert found["active-channels"].value == (raw.var(axis=0) > 0.01).sum()
    drawn = [
        jaxgen.tokenizer_reconstruct(model.spec, model.state, batch, each, sampled=True).clip(0, 1)
        for each in jax.random.split(key, 4)
    ]
    mean = jaxgen.tokenizer_reconstruct(model.spec, model.state, batch).clip(0, 1)
    expected = np.mean([np.square(each - mean).mean() for each in drawn])
    assert found["sampled-MSE"].value == pytest.approx(expected, rel=0.25)


def test_few_places_for_many_codes_are_warned_of(models: dict[str, Trained], key: jax.Array) -> None:
    model = models["fsq"]
    subject = Subject(model.spec, model.state, key, Settings())
    numbers = measures.MODEL_MEASURES["codes"](subject, {"image": draw(11)[0]}, lambda *_: None)
    assert numbers[0].warnings == ("44 places in all for 12 codes: more images would use more",)
    assert numbers[2].warnings == ()


def test_no_judge_that_was_trained_against(perceptual_run: Path, capsys: Any) -> None:
    """Protects: a distance of the very features that the loss was of is no measure."""
    words = ["--measures", "reconstruction_distance", "codes", "--num", "20"]
    said = "was trained to match the features of LeNet-MNIST", "use another --extractor"
    run = [perceptual_run, "--out", perceptual_run / "evaluation"]
    refused(evaluate.main, [*run, *words, "--extractor", "lenet_mnist"], capsys, *said)
    found = evaluated(perceptual_run, "--measures", "standard", "--num", "20", "--extractor", "lenet_mnist")
    assert "without reconstruction_distance: the model was trained to match" in capsys.readouterr().out
    assert "rFD-LeNet-MNIST" not in found
    assert "reconstruction-SSIM" in found
    wear = evaluated(perceptual_run, *words, "--extractor", "lenet_fashion_mnist")
    assert wear["rFD-LeNet-FashionMNIST"].protocol.extractor_sha256 == extractors.lenet("fashion_mnist").sha256
    begin = ["tokenizer", "--dataset", f"npz:{perceptual_run.parent / 'mnist_bars.npz'}", *SMALL, "--workdir"]
    begin += [str(perceptual_run.parent / "blind"), "--perceptual", "lenet_mnist", "--extractor", "auto"]
    refused(train.main, begin, capsys, *said)


def test_what_cannot_be_measured_of_a_tokenizer_is_said(folder: Path, models: dict[str, Trained], capsys: Any) -> None:
    for measure, why in (
        ("elbo", "a tokenizer has no ELBO"),
        ("log_likelihood", "a tokenizer has no prior, and so no likelihood"),
        ("active_units", "a tokenizer has no units of one posterior (codes counts its channels)"),
        ("frechet", "a tokenizer has no prior"),
        ("annealed", "it is for latents with a standard normal prior"),
    ):
        assert measures.why_not(measure, models["kl"].spec, (8, 8, 1), "bars", False) == why
    vae = jaxgen.load("vae-fashion-mnist").spec
    assert measures.why_not("codes", vae, (28, 28, 1), "bars", False) == "a VAE has no codes"
    why_not = measures.why_not("reconstruction_distance", vae, (28, 28, 1), "bars", False)
    assert why_not == "the samples of a VAE are measured: frechet"
    gan = jaxgen.load("dcgan-fashion-mnist").spec
    for measure in ("codes", "reconstruction_distance", "elbo"):
        assert measures.why_not(measure, gan, (28, 28, 1), "bars", False) == "a GAN has no encoder"
    said = "elbo cannot be made of", "a tokenizer has no ELBO: leave it out of --measures"
    refused(evaluate.main, [folder / "kl", "--measures", "elbo"], capsys, *said)


# -- Export, explore, compare, plot -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fsq", "kl"])
def test_a_tokenizer_is_exported(name: str, folder: Path, models: dict[str, Trained], tmp_path: Path) -> None:
    """Encoder, decoder and reconstructor of any number of images, and no sampler; where jaxgen is not installed."""
    out = tmp_path / "exported"
    assert export.main([str(folder / name), "--out", str(out), "--platforms", "cpu", "cuda", "tpu"]) == 0
    programs = {file.stem: jax_export.deserialize(bytearray(file.read_bytes())) for file in out.glob("*.jaxexport")}
    assert programs.keys() == {"encoder", "decoder", "reconstructor", *(["code_decoder"] if name == "fsq" else [])}
    assert all(program.platforms == ("cpu", "cuda", "tpu") for program in programs.values())
    model, image = models[name], draw(3, seed=5)[0].astype(np.float32) / 255
    found = programs["encoder"].call(image)
    np.testing.assert_allclose(found["z"], np.asarray(model.encode(image)).reshape(3, 2, 2, 2), atol=1e-5)
    rebuilt = model.reconstruct(image, jax.random.key(0))
    np.testing.assert_allclose(programs["reconstructor"].call(image), rebuilt, atol=1e-5)
    np.testing.assert_allclose(programs["decoder"].call(found["z"]), model.decode(found["z"]), atol=1e-5)
    assert found.keys() == {"z", *(["codes"] if name == "fsq" else [])}
    if name == "fsq":
        np.testing.assert_array_equal(found["codes"], model.codes(image))
        np.testing.assert_allclose(programs["code_decoder"].call(found["codes"]), rebuilt, atol=1e-5)
    described = json.loads((out / "manifest.json").read_text())["programs"]
    assert described["encoder"]["outputs"][0]["shape"] == ["N", 2, 2, 2]
    alone = "import sys, runpy; sys.modules['jaxgen'] = sys.modules['flax'] = None; runpy.run_path('use.py')"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=False, cwd=out)
    assert done.stdout.startswith("(16, 2, 2, 2) (16, 8, 8, 1) float32"), done.stderr


def test_a_tokenizer_is_explored(folder: Path, models: dict[str, Trained], tmp_path: Path, capsys: Any) -> None:
    kl = str(folder / "kl")
    words = ["--between", "images", "--num", "2", "--steps", "3", "--frames", "2", "--linear"]
    assert explore.main(["interpolate", kl, *words, "--out", str(tmp_path / "walks")]) == 0
    with np.load(tmp_path / "walks" / "arrays.npz") as arrays:
        ends = models["kl"].decode(arrays["start"])
        np.testing.assert_allclose(arrays["rows"][:, 0], ends.clip(0, 1), atol=1e-4)
    assert explore.main(["scatter", kl, "--num", "9", "--out", str(tmp_path / "scatter")]) == 0
    assert "posterior" not in words_of(tmp_path / "scatter" / "scatter.png")
    said = "is a tokenizer, which has no prior, and this needs one", "interpolate --between images"
    for command in ("interpolate", "complete", "invert", "neighbours", "truncate", "manifold"):
        refused(explore.main, [command, kl, "--out", tmp_path / command], capsys, *said)
        assert not (tmp_path / command).exists()
    refused(explore.main, ["training", kl, "--out", tmp_path / "film"], capsys, "use --pictures reconstructions")


def words_of(path: Path) -> str:
    """What a picture says of itself."""
    with Image.open(path) as file:
        return str(file.info)


def test_drawing_from_a_tokenizer_is_refused(folder: Path, capsys: Any) -> None:
    refused(sample.main, [folder / "kl"], capsys, "no prior to draw from: train a second stage", "jaxgen encode")


def test_what_to_do_next_with_a_tokenizer(folder: Path) -> None:
    run = folder / "fsq"
    assert [line.split()[1] for line in next_commands(run)] == ["encode", "evaluate", "compare", "plot"]
    assert next_commands(run)[0] == f"jaxgen encode {run} --split train --out latents.npz"


def test_tokenizers_are_compared(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page"
    runs_of_both = [str(folder / name) for name in ("fsq", "kl")]
    assert compare.main(["--runs", *runs_of_both, "--measures", "codes", "reconstructions", "--out", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "Two tokenizers, trained on the same 30 grey images" in page
    assert "<dt>codes</dt><dd>12</dd>" in page
    assert "<dt>latents</dt><dd>8 (2 x 2 x 2)</dd>" in page
    assert "no prior" in page, "in the place of the seconds of samples"
    kinds = {path.name.partition("_")[0] for path in (out / "pictures").iterdir()}
    assert kinds == {"reconstructions", "interpolations", "glance"}
    assert not (out / "pictures" / "glance_fsq.png").exists()
    found = {(record.model, record.protocol.metric) for record in records.read(out / "records.json")}
    assert {("fsq", "codes-used"), ("kl", "active-channels"), ("kl", "rebuilt-MSE")} <= found
    assert not any(metric == "completion-MSE" for _, metric in found)


def test_what_models_are_counted_as() -> None:
    counted = compare._counted
    assert counted(["GAN", "GAN", "VAE"]) == "Two GANs and one VAE"
    assert counted(["VAE"]) == "No GANs and one VAE"
    assert counted(["tokenizer"]) == "One tokenizer"
    assert counted(["tokenizer", "GAN", "tokenizer"]) == "One GAN and two tokenizers"


def test_the_numbers_of_a_tokenizer_are_called_what_they_are(folder: Path) -> None:
    """Protects: no reconstruction of a tokenizer is called a part of an ELBO, of which more would be better."""
    for beside, better in ((("test_elbo",), "higher"), (("test_codes_used",), "lower")):
        assert explain_score("test_reconstruction", beside).better == better
        rows: Any = [
            {"setting": {"width": w}, "seeds": 1, "scores": {n: {"mean": w, "standard_error": None} for n in names}}
            for names in [("test_reconstruction", *beside)]
            for w in (1.0, 2.0)
        ]
        best, _ = results.best_and_ties(rows, "test_reconstruction")
        assert best is rows[better == "higher"]
    log = curves.read_log(folder / "fsq")
    shown = {panel.title: panel for panel in curves.panels([log])}
    assert shown["Distance of reconstructions"].note == "lower is better"
    assert "Codes used" in shown
    assert not any("ELBO" in title for title in shown)
    assert plot.main([str(folder / "fsq"), str(folder / "kl"), "--out", str(folder / "plot.png")]) == 0
    alone = curves.panels([log], ["test_reconstruction"])
    assert [panel.title for panel in alone] == ["distance of reconstructions (test_reconstruction)"]
