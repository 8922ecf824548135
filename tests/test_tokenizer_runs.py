"""Tokenizers as they are trained by a command: options, a run and its resumption, pictures, warnings, mistakes."""

import json
import math
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest

import jaxgen
from jaxgen import data, losses, networks
from jaxgen.batches import to_float
from jaxgen.cli import sample, train
from jaxgen.cli.tokenizer_options import TokenizerOptions
from jaxgen.evaluation.during_training import Pictures
from jaxgen.families import family_of
from jaxgen.plain import from_plain, to_plain
from jaxgen.tokenizer import LARGEST_WEIGHT, tokenizer_settle
from jaxgen.training.run import Run
from tests import models
from tests.pictures import words

TINY = [
    *("tokenizer", "--width", "4", "--factor", "2", "--batch-size", "8"),
    *("--discriminator-width", "4", "--discriminator-layers", "1", "--adversarial-start", "3"),
    *("--log-every", "4", "--eval-every", "6", "--sample-every", "6", "--checkpoint-every", "6"),
]
RICH = [
    *("--bottleneck", "vq", "--channels", "3", "--codebook-size", "8", "--penalty", "r1", "--lecam-weight", "0.001"),
    *("--adaptive-weight", "--equivariance-weight", "0.25", "--ema-decay", "0.5", "--perceptual", "discriminator"),
]


def drawn(num: int = 40, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, *(shape or (8, 8, 1))), dtype=np.uint8)


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images and labels."""
    path = tmp_path_factory.mktemp("data") / "some.npz"
    np.savez(path, image=drawn(), label=np.arange(40) % 3)
    return f"npz:{path}"


def rows(directory: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time_")} for row in found]


def test_a_resumed_run_is_the_uninterrupted_run(npz: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """12 steps equal 6 and 6 more, bit for bit: state, what is measured and kept in it, log and pictures."""
    common = [*TINY, *RICH, "--dataset", npz]
    assert train.main([*common, "--steps", "12", "--workdir", str(tmp_path / "whole")]) == 0
    assert train.main([*common, "--steps", "6", "--workdir", str(tmp_path / "parts")]) == 0
    assert train.main(["tokenizer", "--resume", "--steps", "12", "--workdir", str(tmp_path / "parts")]) == 0
    assert "resuming from step 6" in capsys.readouterr().out
    runs = [Run.open(tmp_path / name) for name in ("whole", "parts")]
    states = [run.restore(12) for run in runs]
    chex.assert_trees_all_equal(*states)
    assert rows(runs[0].directory) == rows(runs[1].directory)
    pictures = [{path.name: path.read_bytes() for path in (run.directory / "samples").iterdir()} for run in runs]
    assert pictures[0] == pictures[1]
    assert set(pictures[0]) == {"reconstructions_00000006.png", "reconstructions_00000012.png"}

    state: Any
    spec, state = runs[0].spec, states[0]
    test = data.load(npz, split="test")
    measured = tokenizer_settle(spec, state, [test])
    for name, value in measured.items():
        np.testing.assert_allclose(state.hyperparams[name], value, rtol=1e-4, atol=1e-5)
    log = rows(runs[0].directory)
    assert [row["step"] for row in log] == [4, 6, 8, 12, 12]
    assert set(log[1]) - {"step"} == {
        *("test_reconstruction", "test_squared_error", "test_absolute_error", "test_commitment"),
        *("test_codes_used", "test_code_perplexity"),
    }
    training = {"loss", "perceptual", "commitment", "equivariance", "adaptive_weight", "lecam", "penalty", "real_logit"}
    assert training < set(log[0])
    model: Any = jaxgen.load(runs[0].directory)
    rebuilt = np.asarray(model.reconstruct(test["image"], jax.random.key(0)))
    np.testing.assert_allclose(
        log[-1]["test_squared_error"], np.square(rebuilt - test["image"] / 255).mean(), rtol=1e-4
    )
    with Run.open(runs[0].directory).checkpoints(read_only=True) as checkpoints:
        errors = {row["step"]: row["test_squared_error"] for row in log if "test_squared_error" in row}
        assert checkpoints.best_step() == min(errors, key=lambda step: errors[step])

    assert sample.main([str(runs[0].directory), "--out", str(tmp_path / "new.png")]) == 1
    assert "holds a tokenizer, which has no prior to draw from" in capsys.readouterr().err
    assert not (tmp_path / "new.png").exists()


@pytest.mark.parametrize("bottleneck", ["fsq", pytest.param("kl", marks=pytest.mark.slow)])
def test_without_a_discriminator(bottleneck: str, npz: str, tmp_path: Path) -> None:
    arguments = [
        *("tokenizer", "--width", "4", "--factor", "4", "--bottleneck", bottleneck, "--discriminator", "none"),
        *("--batch-size", "8", "--steps", "3", "--reconstruction", "bernoulli", "--extractor", "pixels"),
        *("--log-every", "1", "--dataset", npz, "--workdir", str(tmp_path / "run")),
    ]
    assert train.main([*arguments, *(["--levels", "3", "4"] if bottleneck == "fsq" else [])]) == 0
    log = rows(tmp_path / "run")
    assert set(log[0]) == {"step", "loss", "reconstruction", *(["kl"] if bottleneck == "kl" else [])}
    assert log[-1]["test_rfd_pixels"] > 0
    assert ("test_codes_used" in log[-1]) == (bottleneck == "fsq")
    assert ("test_active_channels" in log[-1]) == (bottleneck == "kl")


def test_options_make_a_spec() -> None:
    options = TokenizerOptions(
        bottleneck="lfq", bits=5, factor=8, width=6, reconstruction="gaussian_learned_variance", penalty="r1_r2"
    )
    spec = options.spec((32, 48, 3))
    assert spec.latent_shape == (4, 6, 5)
    assert spec.num_codes == 32
    assert spec.encoder.multipliers == (1, 2, 2, 2)
    assert spec.decoder.channels == 6, "a mean and a variance of each value"
    assert spec.penalties == (losses.R1(), losses.R2())
    assert spec.perceptual is None
    assert from_plain(json.loads(json.dumps(to_plain(spec)))) == spec
    features = TokenizerOptions(perceptual="discriminator", perceptual_weight=0.3).spec((28, 28, 1))
    assert (features.perceptual, features.perceptual_weight) == ("discriminator", 0.3)
    alone = TokenizerOptions(discriminator="none", lecam_weight=0.1, penalty="r1", augmentation="diffaugment")
    spec = alone.spec((28, 28, 1))
    assert (spec.discriminator, spec.discriminator_optimizer, spec.lecam_weight, spec.penalties) == (
        None,
        None,
        None,
        (),
    )
    made: dict[str, tuple[TokenizerOptions, Any]] = {
        "kl": (TokenizerOptions(channels=3, kl_weight=0.5), networks.KLBottleneck(3, 0.5)),
        "fsq": (TokenizerOptions(bottleneck="fsq", levels=(4, 3)), networks.FSQBottleneck((4, 3))),
        "a moving average": (
            TokenizerOptions(bottleneck="vq", codebook_size=9, codebook_decay=0.5),
            networks.VQBottleneck(9, 4, decay=0.5, restart_below=0.1),
        ),
        "a parameter": (
            TokenizerOptions(bottleneck="vq", codebook="gradient", commitment=0.5),
            networks.VQBottleneck(1024, 4, 0.5),
        ),
        "lfq": (
            TokenizerOptions(bottleneck="lfq", bits=4, entropy_weight=0.2),
            networks.LFQBottleneck(4, 0.2, commitment=0.25),
        ),
    }
    for name, (options, bottleneck) in made.items():
        spec = options.spec((28, 28, 1))
        assert spec.bottleneck == bottleneck, name
        assert spec.encoder.features == bottleneck.num_inputs, name
        assert spec.latent_shape == (7, 7, bottleneck.num_latents), name


BAD: dict[str, tuple[list[str], str]] = {
    "a factor that does not divide": (["--factor", "16"], "--factor 16 does not divide images of 8 x 8"),
    "a start that never comes": (
        ["--adversarial-start", "12"],
        "--adversarial-start 12 is not before the last of --steps 12, so the discriminator would never play: start it "
        "earlier, or pass --discriminator none",
    ),
    "features of no discriminator": (
        ["--perceptual", "discriminator", "--discriminator", "none"],
        "--perceptual discriminator needs one: leave out --discriminator none",
    ),
    "labels": (["--conditional"], "--conditional"),
    "one level": (["--bottleneck", "fsq", "--levels", "1", "5"], "--levels must be"),
    "too many bits": (["--bottleneck", "lfq", "--bits", "19"], "--bits must be"),
    "of another bottleneck": (["--bottleneck", "fsq", "--kl-weight", "1"], "--kl-weight would have no effect"),
    "of a codebook by gradient": (
        ["--bottleneck", "vq", "--codebook", "gradient", "--codebook-decay", "0.9"],
        "--codebook-decay would have no effect: it is for --bottleneck vq --codebook average",
    ),
    "of a discriminator": (["--discriminator", "none", "--lecam-weight", "1"], "--lecam-weight would have no effect"),
    "a weight below zero": (["--adversarial-weight", "-1"], "--adversarial-weight must be at least 0"),
    "images too small for patches": (
        ["--discriminator-layers", "2"],
        "takes images [B, H, W, C] of at least 12 pixels a side",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_options_that_make_no_sense_are_refused(
    name: str, npz: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, message = BAD[name]
    given = {option for option in more if option.startswith("--")}
    if "none" in more:
        given |= {"--discriminator-width", "--discriminator-layers", "--adversarial-start"}
    options = TINY[1:]
    pairs = [options[i : i + 2] for i in range(0, len(options), 2)]
    kept = [word for pair in pairs if pair[0] not in given for word in pair]
    workdir = tmp_path / "run"
    status = train.main(["tokenizer", *kept, *more, "--steps", "12", "--dataset", npz, "--workdir", str(workdir)])
    assert status in (1, 2)
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1, said
    assert not workdir.exists()


def test_vectors_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "vectors.npz", image=np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32))
    for dataset, shape in ((f"npz:{tmp_path / 'vectors.npz'}", "[5]"), ("gaussians", "[2]")):
        assert train.main([*TINY, "--steps", "12", "--dataset", dataset, "--workdir", str(tmp_path / "run")]) == 1
        said = capsys.readouterr().err.strip()
        assert f"a tokenizer is for images, this data set has examples of shape {shape}" in said
        assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


class Kept:
    """What is shown, in place of a `Monitor`."""

    def show(self, step: int, name: str, images: np.ndarray, columns: int, **said: Any) -> Path:
        self.name, self.images, self.columns, self.said = name, images, columns, said
        return Path(name)


@pytest.mark.parametrize("num", [16, 11])
def test_pictures_show_what_differs(num: int, key: jax.Array) -> None:
    spec = models.tokenizer()
    state, batch = models.init(spec, key), models.batch(num)
    kept: Any = Kept()
    assert Pictures(spec, batch, key, "trained on noise")(state, 3, kept) == [Path("reconstructions")]
    assert kept.columns == 8
    assert kept.said["rows"] == ["image", "rebuilt", "difference"] * 2
    assert kept.said["title"] == "Test images and their reconstructions by a tokenizer trained on noise, step 3"
    assert "how far apart they are, 4 times as bright" in kept.said["note"]
    originals = np.asarray(to_float(batch["image"]))
    rebuilt = np.asarray(jaxgen.tokenizer_reconstruct(spec, state, batch))
    shown = kept.images.reshape(-1, 8, *models.IMAGE_SHAPE)
    np.testing.assert_allclose(shown[0], originals[:8], atol=1e-6)
    np.testing.assert_allclose(shown[1], rebuilt[:8], atol=1e-6)
    np.testing.assert_allclose(shown[2], np.minimum(4 * np.abs(rebuilt - originals), 1)[:8], atol=1e-5)
    np.testing.assert_allclose(shown[3][: num - 8], originals[8:], atol=1e-6)


def test_a_picture_of_a_run_says_what_it_shows(npz: str, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    assert train.main([*TINY, "--steps", "4", "--dataset", npz, "--workdir", str(workdir)]) == 0
    said = words(workdir / "samples" / "reconstructions_00000004.png")
    assert said.startswith("Test images and their reconstructions by a tokenizer trained on some.npz, seed 0, step 4\n")
    assert "below each, what the model makes of it: encoded, then decoded. Below that, how far apart they are" in said


VQ = models.vq_tokenizer(bottleneck=networks.VQBottleneck(1024, 3))
HEALTHY_ROW = {"real_logit": 1.2, "fake_logit": -0.9, "adaptive_weight": 3.0, "loss": 0.1}
HEALTHY = {"test_codes_used": 0.9, "test_code_perplexity": 500.0, "test_squared_error": 0.01}


def warned(spec: Any, row: dict[str, float], measured: dict[str, float], step: int | None = 5000) -> list[str]:
    return family_of(spec).collapse(spec, row, measured, step)


def test_healthy_tokenizers_are_passed_over() -> None:
    assert warned(VQ, HEALTHY_ROW, HEALTHY) == []
    assert warned(models.kl_tokenizer(), {"loss": 1.0}, {"test_active_channels": 2.0, "test_kl": 9.0}) == []
    for spec in (VQ, models.tokenizer(), models.kl_tokenizer()):
        assert warned(spec, {}, {}, None) == []
        nothing = dict.fromkeys((*HEALTHY, "test_active_channels"), math.nan)
        assert warned(spec, dict.fromkeys(HEALTHY_ROW, math.nan), nothing) == []


def test_dead_codes_are_noticed() -> None:
    (text,) = warned(VQ, HEALTHY_ROW, {"test_codes_used": 0.11})
    assert text.startswith("most codes are dead: 11% of 1024 occur in the test images (below 50%)")
    assert text.endswith("try --codebook average, --restart-below 1, a smaller --codebook-size or --bottleneck fsq")
    assert warned(VQ, HEALTHY_ROW, {"test_codes_used": 0.51}) == []
    assert warned(VQ, HEALTHY_ROW, {"test_codes_used": 0.11}, 499) == [], "it is young"
    assert len(warned(VQ, HEALTHY_ROW, {"test_codes_used": 0.11}, 500)) == 1
    averaged = models.tokenizer(bottleneck=networks.VQBottleneck(8, 3, decay=0.9, restart_below=1.0))
    (text,) = warned(averaged, {}, {"test_codes_used": 0.2})
    assert text.endswith("try a smaller --codebook-size or --bottleneck fsq")
    (text,) = warned(models.tokenizer(), {}, {"test_codes_used": 0.2})
    assert text.endswith("try fewer --levels or --bits")


def test_channels_that_say_nothing_are_noticed() -> None:
    spec = models.kl_tokenizer()
    (text,) = warned(spec, {}, {"test_active_channels": 1.0})
    assert text.startswith("only 1 of 2 latent channels vary from image to image")
    assert "--kl-weight" in text
    assert warned(spec, {}, {"test_active_channels": 1.0}, 499) == []


def test_a_discriminator_that_has_won_is_noticed() -> None:
    row = {**HEALTHY_ROW, "real_logit": 12.0, "fake_logit": -11.0}
    (text,) = warned(VQ, row, HEALTHY)
    assert text.startswith("the discriminator has won: at its mean logits, 12 for images and -11 for reconstructions")
    assert "--lecam-weight 0.001" in text
    assert warned(VQ, row, HEALTHY, VQ.adversarial_start + 100) == [], "it has just begun"
    assert len(warned(VQ, row, HEALTHY, VQ.adversarial_start + 101)) == 1


def test_an_adaptive_weight_at_its_bound_is_noticed() -> None:
    row = {**HEALTHY_ROW, "adaptive_weight": LARGEST_WEIGHT}
    (text,) = warned(VQ, row, HEALTHY)
    assert text.startswith("the adaptive weight is at its bound, 1e+04")
    assert warned(VQ, {**row, "adaptive_weight": 0.5 * LARGEST_WEIGHT}, HEALTHY) == []
    assert warned(VQ, row, HEALTHY, 50) == []
