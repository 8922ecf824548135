"""Evaluation of runs: measures that see collapse, records that say how they were made, one table for several runs."""

import dataclasses
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from jaxgen import GAN, data
from jaxgen.cli import evaluate, train
from jaxgen.cli.evaluating import Options, data_of
from jaxgen.cli.parsing import saved_options
from jaxgen.cli.progress import Bars
from jaxgen.evaluation import (
    costs,
    evaluator,
    extractors,
    measures,
    records,
    reference,
    report,
    sample_measures,
)
from jaxgen.evaluation.sample_measures import SAMPLE_MEASURES, Side, Sides
from jaxgen.evaluation.subject import Settings
from jaxgen.training.run import Run
from tests.pictures import words

NUM = 200
EXTRACTOR = "lenet_fashion_mnist"
QUICK = ["--importance-samples", "20", "--likelihood-images", "30", "--annealed-images", "2"]
QUICK += ["--annealed-temperatures", "5", "--annealed-chains", "2", "--kernel-subsets", "5"]


@pytest.fixture(scope="module")
def sides() -> Callable[[np.ndarray | None], Sides]:
    """Real images, and others in the model's place: as many real ones when None."""
    extractor = extractors.find(EXTRACTOR)
    train_images, test_images = (data.load(split=split)["image"] for split in ("train", "test"))

    def side(images: np.ndarray) -> Side:
        return Side(images, *extractors.extract(extractor, images))

    real, other = side(test_images[:NUM]), side(test_images[NUM : 2 * NUM])
    settings = Settings(kernel_subsets=5)

    def make(images: np.ndarray | None) -> Sides:
        fake = other if images is None else side(images)
        return Sides(real, fake, train_images[:1000], "training images", extractor, jax.random.key(0), settings)

    return make


@pytest.fixture(scope="module")
def calibration(sides: Callable[[np.ndarray | None], Sides]) -> dict[str, float]:
    return measured(sides(None))


def measured(sides: Sides) -> dict[str, float]:
    names = [name for name in SAMPLE_MEASURES if name not in ("stacked_modes", "parzen", "nearest")]
    return {number.metric: number.value for name in names for number in SAMPLE_MEASURES[name](sides)}


def caught_by(found: dict[str, float], real: dict[str, float]) -> set[str]:
    """Metrics that are far from what real images reach."""
    name = "LeNet-FashionMNIST"
    worse = {
        f"FD-{name}": found[f"FD-{name}"] > 10 * real[f"FD-{name}"],
        f"KD-{name}": found[f"KD-{name}"] > 10 * abs(real[f"KD-{name}"]),
        "SW-pixels": found["SW-pixels"] > 2 * real["SW-pixels"],
        "duplicates": found["duplicates"] > 0.05 > 10 * real["duplicates"],
    }
    for metric in (f"recall-{name}", f"coverage-{name}", f"classes-{name}", "diversity"):
        worse[metric] = found[metric] < 0.8 * real[metric]
    worse["diversity"] = found["diversity"] < 0.05 < 0.5 * real["diversity"]
    return {metric for metric, is_worse in worse.items() if is_worse}


@pytest.mark.slow
@pytest.mark.parametrize("distinct", [1, 10])
def test_a_generator_that_has_collapsed_is_caught(
    distinct: int, sides: Callable[[np.ndarray | None], Sides], calibration: dict[str, float]
) -> None:
    """One image, or ten, over and over, each of them real: at least three metrics must see it, and of ten too."""
    images = data.load(split="train")["image"][1000 : 1000 + distinct]
    found = caught_by(measured(sides(np.resize(images, (NUM, *images.shape[1:])))), calibration)
    assert len(found) >= 3, found
    assert {"diversity", "duplicates"} <= found


def test_real_images_are_not_caught(sides: Callable[[np.ndarray | None], Sides], calibration: dict[str, float]) -> None:
    others = data.load(split="train")["image"][1000 : 1000 + NUM]
    assert caught_by(measured(sides(others)), calibration) == set()
    name = "LeNet-FashionMNIST"
    assert calibration[f"precision-{name}"] > 0.7
    assert calibration[f"recall-{name}"] > 0.7
    assert calibration[f"classes-{name}"] == 10


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A VAE and a GAN of a few steps."""
    folder = tmp_path_factory.mktemp("runs")
    common = ["--steps", "3", "--checkpoint-every", "3", "--eval-every", "3", "--sample-every", "3"]
    vae = ["vae", *common, "--hidden", "8", "--latent-dim", "2", "--workdir", str(folder / "vae")]
    gan = ["gan", *common, "--generator-hidden", "8", "--discriminator-hidden", "8", "--workdir", str(folder / "gan")]
    assert train.main(vae) == 0
    assert train.main([*gan, "--extractor", "auto"]) == 0
    return [folder / "vae", folder / "gan"]


def test_a_light_version_runs_while_a_model_trains(runs: list[Path]) -> None:
    rows = [json.loads(line) for line in (runs[1] / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row}
    assert {
        "test_fd_lenet_fashionmnist",
        "test_precision_lenet_fashionmnist",
        "test_recall_lenet_fashionmnist",
    } <= names


@pytest.mark.slow
def test_evaluating_two_runs(runs: list[Path], tmp_path: Path) -> None:
    """The standard measures of both: all that apply, each with its protocol, and again the same."""
    out = tmp_path / "out"
    assert evaluate.main([*map(str, runs), "--out", str(out), "--num", "60", *QUICK]) == 0
    found = records.read(out / "records.json")
    check_what_is_measured(out, found, runs)
    check_how_it_was_made(found)
    names = ["--measures", "frechet", "kernel", "sliced_wasserstein", "elbo"]
    assert evaluate.main([str(runs[0]), "--out", str(tmp_path), "--num", "60", *names, *QUICK]) == 0
    again = records.read(tmp_path / "records.json")
    before = {record.protocol: record for record in found if record.model == str(runs[0])}
    assert again == [before[record.protocol] for record in again]
    assert len(again) == 6


def check_what_is_measured(out: Path, found: list[records.Record], runs: list[Path]) -> None:
    vae, gan = ({r.protocol.metric for r in found if r.model == str(run)} for run in runs)
    only_vae = {"ELBO", "KL", "reconstruction", "log-likelihood", "active-units"}
    only_vae |= {"reconstruction-MSE", "reconstruction-PSNR", "reconstruction-SSIM"}
    assert vae - gan == only_vae
    assert gan <= vae
    assert {"FD-LeNet-FashionMNIST", "Parzen", "SW-pixels", "nearest-SSIM"} <= gan
    table = (out / "table.txt").read_text()
    assert all(metric in table for metric in vae)
    for name, said in (
        ("measures", "real images in the model's place"),
        ("latents", " active"),
        ("samples", "below each the nearest of the"),
    ):
        assert said in words(out / f"{name}.png"), name
    assert {"records.json", "table.txt", "measures.png", "samples.png", "latents.png"} == {
        p.name for p in out.iterdir()
    }


def check_how_it_was_made(found: list[records.Record]) -> None:
    for record in found:
        protocol = record.protocol
        assert protocol.dataset == "fashion_mnist_small"
        assert protocol.split == "test"
        assert len(protocol.data_sha256) == 64
        assert record.checkpoint == 3
        assert dict(record.versions).keys() >= {"jax", "jaxgen"}
        of_features = "LeNet" in protocol.metric
        assert (protocol.extractor_sha256 is not None) == of_features
        if of_features:
            assert (protocol.num_real, protocol.num_generated) == (60, 60)
            assert record.calibration is not None
    assert len({record.model_sha256 for record in found}) == 2


@pytest.mark.slow
def test_annealed_likelihoods_of_both_kinds_are_on_one_scale(runs: list[Path], tmp_path: Path) -> None:
    assert evaluate.main([*map(str, runs), "--out", str(tmp_path), "--measures", "annealed", *QUICK]) == 0
    vae, vae_gap, gan, _ = records.read(tmp_path / "records.json")
    assert vae.protocol == gan.protocol
    assert vae_gap.protocol.metric == "AIS-gap"
    assert vae_gap.protocol.num_generated == 2
    assert vae.protocol.metric == "AIS-log-likelihood"
    assert dict(vae.protocol.parameters)["observation_noise"] == 0.1
    assert records.compare(vae, gan).standard_error is not None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--measures", "elbo"], "elbo cannot be made of .*gan: a GAN has no encoder"),
        (["--measures", "fid"], "--measures are standard, all, or some of frechet"),
        (["--num", "501"], "501 images cannot be compared: fashion_mnist_small has 500 test images"),
        (["--num", "1"], "--num must be at least 2"),
        (["--extractor", "lenet"], "there is no extractor 'lenet'"),
        (["--checkpoint", "7"], "no 7 checkpoint"),
        (["--observation-scale", "0"], r"observation_scale \(--observation-scale\) must be above 0"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], error: str, runs: list[Path], tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    assert evaluate.main([str(runs[1]), "--out", str(out), *arguments]) == 1
    printed = capsys.readouterr().err
    assert "error: " in printed
    assert re.search(error, printed), printed
    assert not out.exists()


def test_other_data_are_a_warning(runs: list[Path], tmp_path: Path) -> None:
    """The run's own images are known by their hash; evaluated on others, every number says so."""
    images = data.load(split="test")
    changed: Any = {f"{split}_{name}": array[::-1] for split in ("train", "test") for name, array in images.items()}
    np.savez(tmp_path / "other.npz", **changed)
    arguments = ["--dataset", f"npz:{tmp_path / 'other.npz'}", "--measures", "sliced_wasserstein", "--num", "50"]
    assert evaluate.main([str(runs[1]), "--out", str(tmp_path / "out"), *arguments]) == 0
    (record,) = records.read(tmp_path / "out" / "records.json")
    assert record.warnings == ("the data are not those that the run was trained on",)


def test_constant_images_are_measured_with_a_warning(runs: list[Path]) -> None:
    """A generator of zero weights makes one image: the numbers are there, and each says so."""
    options = Options(runs=(str(runs[1]),))
    with Bars() as bars:
        model = evaluator.load_model(runs[1], "newest", 0, options.settings)
        zeros = jax.tree.map(np.zeros_like, model.subject.state)
        model = model._replace(subject=dataclasses.replace(model.subject, state=zeros))
        against = reference.load_reference(model.run, data_of(model.run, options), 60, "auto", bars.begin)
        names = ["frechet", "precision_recall", "diversity", "duplicates"]
        found = evaluator.Evaluator(0, options.settings, bars.begin).measure(model, against, names)
    assert {record.warnings[-1] for record in found} == {"all generated images are the same"}
    values = {record.protocol.metric: record.value for record in found}
    assert values["diversity"] == 0.0
    assert values["duplicates"] == 1.0
    assert values["recall-LeNet-FashionMNIST"] == 0.0


def record_of(model: str, value: float, error: float | None, **fields: Any) -> records.Record:
    protocol: dict[str, Any] = {"metric": "FD-pixels", "version": 1, "unit": "u", "better": "lower", "dataset": "d"}
    protocol |= {
        "split": "test",
        "data_sha256": "",
        "binarization": "none",
        "num_real": 5,
        "num_generated": 5,
        **fields,
    }
    return records.Record(value, error, 0.5, records.Protocol(**protocol), model, 1, "", 0, ())


def test_the_table_marks_what_is_better_and_parts_what_is_not_comparable() -> None:
    found = [record_of("a", 1.0, 0.1), record_of("b", 2.0, 0.1), record_of("c", 3.0, 0.1, num_real=6)]
    lines = report.table(found).splitlines()
    assert "1.00 +- 0.10*" in lines[2]
    assert "2.00 +- 0.10 " in lines[2]
    assert "3.00" not in lines[2]
    assert "3.00 +- 0.10 " in lines[3]
    close = [record_of("a", 1.0, 0.1), record_of("b", 1.1, 0.1)]
    assert "*" not in report.table(close).splitlines()[2]


def test_runs_without_labels_or_encoder_say_why() -> None:
    gan = object.__new__(GAN)
    assert measures.why_not("elbo", gan, (28, 28, 1), "mnist", True) == "a GAN has no encoder"
    assert measures.why_not("classes", gan, (28, 28, 1), "mnist", False) == "the extractor does not classify"
    assert "stacked" in str(measures.why_not("stacked_modes", gan, (28, 28, 1), "mnist", True))
    assert measures.why_not("stacked_modes", gan, (28, 28, 3), "stacked:mnist", True) is None
    with pytest.raises(ValueError, match="there is no measure 'fid'"):
        measures.why_not("fid", gan, (28, 28, 1), "mnist", True)


def test_a_run_s_options_come_back(runs: list[Path]) -> None:
    assert saved_options(Run.open(runs[0])).steps == 3


def test_images_are_measured_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two folders, or a folder and what was kept of another, whose features are the same numbers."""
    rng = np.random.default_rng(0)
    for folder, level in (("near", 122), ("far", 200), ("real", 120)):
        for i in range(60):
            pixels = np.clip(rng.normal(level, 40, (8, 8)), 0, 255).astype(np.uint8)
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    near, far, real = (f"folder:{tmp_path / name}" for name in ("near", "far", "real"))
    kept = tmp_path / "kept.npz"
    command = [near, far, "--reference", real, "--save-statistics", str(kept), "--out", str(tmp_path / "out")]
    assert evaluate.main(command) == 0
    found = {(r.model, r.protocol.metric): r for r in records.read(tmp_path / "out" / "records.json")}
    assert found[far, "FD-pixels"].value > 3 * found[near, "FD-pixels"].value
    assert found[far, "SW-pixels"].value > 2 * found[near, "SW-pixels"].value
    assert found[near, "FD-pixels"].protocol.num_real == 20
    assert not [metric for _, metric in found if metric in ("ELBO", "log-likelihood")]
    assert evaluate.main([near, "--reference", str(kept), "--out", str(tmp_path / "again")]) == 0
    again = {r.protocol.metric: r.value for r in records.read(tmp_path / "again" / "records.json")}
    assert {metric: found[near, metric].value for metric in again} == again
    assert {"FD-pixels", "KD-pixels", "recall-pixels"} <= set(again)
    assert "SW-pixels" not in again
    said = capsys.readouterr()
    assert "without sliced_wasserstein: statistics hold no images" in said.out + said.err
    for arguments, message in (
        ([near], "are images: say with --reference what they are held against"),
        ([near, "--reference", "validation"], "--reference must be test, train, a data set such as folder:PATH"),
        ([near, "--reference", str(kept), "--extractor", "lenet_mnist"], "takes images [28, 28, 1]"),
        ([near, "--reference", str(kept), "--num", "5"], "--num is that of the statistics which --reference names"),
        ([near, "--reference", str(kept), "--save-statistics", "again.npz"], "--reference names kept statistics"),
        ([near, "--reference", real, "--save-statistics", "again.txt"], "must end in .npz"),
        ([near, "--reference", real, "--dataset", real], "--dataset is for runs, and these are images"),
        ([near, "--reference", real, "--checkpoint", "best"], "--checkpoint is for runs, and these are images"),
    ):
        assert evaluate.main([*arguments, "--out", str(tmp_path / "bad")]) == 1
        assert message in capsys.readouterr().err
    kept.write_bytes(kept.read_bytes()[:-100])
    assert evaluate.main([near, "--reference", str(kept), "--out", str(tmp_path / "bad")]) == 1
    assert "holds no statistics" in capsys.readouterr().err


@pytest.mark.slow
def test_of_few_images_what_needs_more_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "few.npz", image=np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8))
    run = tmp_path / "run"
    command = ["vae", "--dataset", f"npz:{tmp_path / 'few.npz'}", "--steps", "1", "--batch-size", "4", "--hidden", "8"]
    assert train.main([*command, "--workdir", str(run)]) == 0
    assert evaluate.main([str(run)]) == 0
    said = capsys.readouterr()
    assert "without frechet: real: 1 points are too few, at least 20 are needed" in said.out + said.err
    found = {record.protocol.metric for record in records.read(run / "evaluation" / "records.json")}
    assert {"ELBO", "log-likelihood", "SW-pixels", "nearest-MSE"} <= found
    assert evaluate.main([str(run), "--measures", "frechet"]) == 1
    assert "at least 20 are needed" in capsys.readouterr().err
    assert evaluate.main([str(run), "--reference", "train", "--out", str(tmp_path / "train")]) == 0
    splits = {r.protocol.metric: r.protocol.split for r in records.read(tmp_path / "train" / "records.json")}
    assert (splits["SW-pixels"], splits["ELBO"]) == ("train", "test"), "a record says what it is of"


def test_a_run_against_other_images_keeps_its_classes_and_its_tests(runs: list[Path], tmp_path: Path) -> None:
    """Labels of other data, numbered otherwise, were those that a conditional model drew for."""
    run = Run.open(runs[1])
    for name, num in (("x", 30), ("y", 2)):
        for i in range(num):
            (tmp_path / "other" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((28, 28), 8 * i, np.uint8)).save(tmp_path / "other" / name / f"{i}.png")
    choice = saved_options(run).data_choice()
    with Bars() as bars:
        own = reference.load_reference(run, choice, 24, "auto", bars.begin)
        other = reference.load_reference(run, choice, 10, "auto", bars.begin, f"folder:{tmp_path / 'other'}")
        reference.save_statistics(tmp_path / "kept.npz", own)
        kept = reference.load_reference(run, choice, None, "auto", bars.begin, str(tmp_path / "kept.npz"))
    assert own.labels is not None
    for each, num in ((other, 10), (kept, 24)):
        labels = own.test["label"]
        np.testing.assert_array_equal(each.labels, labels[data.spread(len(labels), num)])
        assert each.tested == own.tested
        np.testing.assert_array_equal(each.test["image"], own.test["image"])
    assert other.compared.dataset == "folder"
    assert kept.compared == own.compared
    np.testing.assert_array_equal(kept.real.features, own.real.features)
    command = [str(runs[0]), "--reference", str(tmp_path / "kept.npz"), "--out", str(tmp_path / "out")]
    assert evaluate.main([*command, "--measures", "frechet", "elbo"]) == 0
    found = {record.protocol.metric for record in records.read(tmp_path / "out" / "records.json")}
    assert len(found) > 2


# -- What it costs ----------------------------------------------------------------------------------------------------


def test_multiplications_are_counted() -> None:
    """A product, a convolution of either kind, a loop, and one of two branches: against what each is by hand."""
    x, w = jax.ShapeDtypeStruct((3, 5), np.float32), jax.ShapeDtypeStruct((5, 7), np.float32)
    assert costs.multiplications(lambda x, w: x @ w, x, w) == 3 * 5 * 7
    assert costs.multiplications(jax.jit(lambda x, w: jax.nn.relu(x @ w) @ w.T), x, w) == 2 * 3 * 5 * 7
    images, kernel = jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32), jax.ShapeDtypeStruct((4, 4, 3, 6), np.float32)

    def convolution(x: jax.Array, k: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert costs.multiplications(convolution, images, kernel) == (2 * 4 * 4 * 6) * 4 * 4 * 3

    def loop(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=4)[0]

    def branch(x: jax.Array) -> jax.Array:
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x, x)

    square = jax.ShapeDtypeStruct((5, 5), np.float32)
    assert costs.multiplications(loop, square) == 4 * 125
    assert costs.multiplications(branch, square) == 2 * 125


def test_what_would_take_minutes_is_made_of_fewer_images(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is asked for by name; where hardly any are left it is left out, and says what to give."""
    vae = evaluator.load_model(runs[0], "newest", 0, Settings()).subject
    decoding = costs.of_decoding(vae)
    assert decoding == 2 * 8 + 8 * 784, "a decoder of 2 latents and 8 hidden units"
    assert costs.likelihood_images(vae) == 1000
    assert costs.tested_images(vae, 10_000) == 10_000
    monkeypatch.setattr(costs, "LIKELIHOOD", 500 * 100 * decoding)
    monkeypatch.setattr(costs, "TESTED", 2 * 100 * decoding)
    assert costs.likelihood_images(vae) == 64
    assert costs.tested_images(vae, 10_000) == 64
    given = dataclasses.replace(vae, settings=Settings(likelihood_images=300))
    assert costs.likelihood_images(given) == 300
    monkeypatch.setattr(costs, "LIKELIHOOD", 500 * 5 * decoding)
    with pytest.raises(ValueError, match=r"500 importance samples of 1000 images .* --likelihood-images 4"):
        costs.likelihood_images(vae)


def test_wide_pixels_are_compared_at_fewer_images() -> None:
    """What compares each with each on more than 1,024 values, and on features that are pixels; on others all are."""
    names = [name for name in SAMPLE_MEASURES if sample_measures.takes(name, 5000, 12_288, 12_288) == 1000]
    assert names == ["frechet", "kernel", "precision_recall", "duplicates", "parzen"]
    assert sample_measures.takes("frechet", 5000, 0, 12_288) == 5000, "features of an extractor"
    assert sample_measures.takes("parzen", 5000, 0, 784) == 5000
    assert sample_measures.takes("parzen", 600, 0, 12_288) == 600


def test_fewer_images_are_said(runs: list[Path], monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    """In a line, and in the record; by name it is made of all."""
    monkeypatch.setattr(sample_measures, "WIDE", 700)
    monkeypatch.setattr(sample_measures, "SOME", 30)
    for more, num in (([], 30), (["--measures", "frechet"], 60)):
        command = [str(runs[1]), "--out", str(tmp_path / str(num)), "--num", "60", "--extractor", "pixels", *more]
        assert evaluate.main(command) == 0
        found = {r.protocol.metric: r.protocol for r in records.read(tmp_path / str(num) / "records.json")}
        assert (found["FD-pixels"].num_real, found["FD-pixels"].num_generated) == (num, num)
        said = capsys.readouterr()
        line = "frechet: of 30 of 60 images; of all where it is asked for by name (--measures)"
        assert (line in said.out + said.err) == (num == 30)


def test_fewer_known_images_are_said(runs: list[Path], monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    """Neighbours are sought among fewer of them, and a line says so; by name among all."""
    monkeypatch.setattr(sample_measures, "WIDE", 700)
    monkeypatch.setattr(sample_measures, "KNOWN", 40)
    for more in ([], ["--measures", "nearest"]):
        out = tmp_path / str(len(more))
        assert evaluate.main([str(runs[1]), "--out", str(out), "--num", "60", "--extractor", "pixels", *more]) == 0
        found = {r.protocol.metric: r for r in records.read(out / "records.json")}
        num = found["nearest-MSE"].protocol.num_real
        assert (num > 40) if more else (num == 40)
        said = capsys.readouterr()
        assert ("nearest: among 40 of " in said.out + said.err) == (not more)
        assert "-reduce" in dict(found["nearest-MSE"].versions)["xla_flags"]


def test_how_long_it_takes_is_said_at_first(runs: list[Path], tmp_path: Path, capsys: Any) -> None:
    """One line where nobody watches, before anything else; and no more where it is quick."""
    command = [str(runs[1]), "--out", str(tmp_path), "--num", "60", "--measures", "sliced_wasserstein"]
    assert evaluate.main(command) == 0
    first, *rest = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert first == f"measuring {runs[1]}: about a few seconds"
    assert not rest


def test_what_is_left_is_said_as_it_goes(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """A plan of 20 s of which a half is done in no time: less than the other half is left, and it is said again."""
    monkeypatch.setattr("jaxgen.cli.progress.SELDOM", 0.05)
    monkeypatch.setattr("jaxgen.cli.progress.OFTEN", 0.01)
    with Bars() as bars:
        bars.plan({"one": 100.0, "two": 100.0}, "measuring x")
        bars.begin("one")(1, 1)
        two = bars.begin("two")
        two(1, 2)
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "measuring x: about 3 min"
    assert "75% done, about a few seconds left: two" in lines


@pytest.mark.slow
def test_two_runs_of_600_color_pictures_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their features are those of colour pictures, and nothing takes long: 590 s went by in silence."""
    rng = np.random.default_rng(0)
    hues, places = rng.integers(0, 256, (600, 1, 1, 3)), np.linspace(0, 255, 32)[None, :, None, None]
    images = np.clip(hues + places * rng.uniform(-0.5, 0.5, (600, 1, 1, 1)) + 0 * np.zeros((1, 32, 32, 3)), 0, 255)
    np.savez(tmp_path / "pictures.npz", image=images.astype(np.uint8))
    common = ["--dataset", f"npz:{tmp_path / 'pictures.npz'}", "--steps", "2", "--batch-size", "16"]
    runs = [str(tmp_path / name) for name in ("gan", "vae")]
    gan = ["gan", "--architecture", "dcgan", "--width", "8", *common]
    assert train.main([*gan, "--workdir", runs[0]]) == 0
    assert train.main(["vae", "--architecture", "conv", "--width", "8", *common, "--workdir", runs[1]]) == 0
    capsys.readouterr()
    began = time.process_time()
    assert evaluate.main([*runs, "--out", str(tmp_path / "out")]) == 0
    assert time.process_time() - began < 240
    assert capsys.readouterr().err.startswith(f"measuring {runs[0]}, {runs[1]}: about ")
    found = {(r.model, r.protocol.metric): r.protocol for r in records.read(tmp_path / "out" / "records.json")}
    for run in runs:
        assert found[run, "FD-LeNet-Color"].resizing == "bilinear to 32x32, half-pixel centres, antialiased"
    assert (runs[1], "log-likelihood") in found
