"""The comparison: equal decoders, statements that follow from numbers, errors before any training, and the page."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxgen import data
from jaxgen.cli import compare
from jaxgen.cli.comparing import charts, choices, page
from jaxgen.cli.comparing.charts import Chart, Line
from jaxgen.cli.comparing.costs import Cost
from jaxgen.cli.comparing.curves import logged_seconds, read_log
from jaxgen.cli.comparing.models import LATENTS, _size_of, _with_steps, plan
from jaxgen.cli.comparing.page import REAL, Model, Report
from jaxgen.cli.comparing.pictures import KINDS, Picture, glance, grid
from jaxgen.cli.gan_options import GANOptions
from jaxgen.evaluation.records import Protocol, Record
from jaxgen.training.run import Run, to_plain
from tests.pictures import words

NAMES = ("DCGAN", "VAE", 'a <b>bold</b> model & its "name"')


def record_of(
    model: str, metric: str, value: float, error: float | None = 0.01, better: str = "lower", real: float | None = 0.02
) -> Record:
    protocol = Protocol(metric, 1, "unit", better, "some_images", "test", "ab" * 32, "none", 250, 250)
    return Record(value, error, real, protocol, model, 7, "cd" * 32, 0, (("jax", "0"),))


def cost_of(**fields: Any) -> Cost:
    return Cost(**{**Cost(1000, 2000, 100, 64, 60.0, 10_000_000, 0.5)._asdict(), **fields})


@pytest.fixture(scope="module")
def report() -> Report:
    """A page's worth of made-up numbers, with real images in its pictures."""
    images = data.load(split="test")["image"][:16]
    hidden = np.zeros(images.shape[:3], np.bool_)
    hidden[8:, 14:] = True
    heads = {"completions": ("original", "seen", *("guess",) * 6)}
    pictures = [
        Picture(kind, name, grid(images, 8, hidden), heads.get(kind, ()), f"{kind} of {name}", f"{kind} of {name}", 28)
        for kind in KINDS
        for name in NAMES
    ]
    pictures.append(glance(REAL, images / np.float32(255.0)))
    found = [
        record_of(name, metric, value + number, better=better)
        for number, name in enumerate(NAMES)
        for metric, value, better in (
            ("FD-LeNet-FashionMNIST", 80.0, "lower"),
            ("recall-LeNet-FashionMNIST", 0.3, "higher"),
            ("completion-MSE", 0.04, "lower"),
            ("a metric without words", 1.0, "neither"),
        )
    ]
    found.append(record_of("VAE", "log-likelihood", -230.0, better="higher"))
    costs = {name: cost_of(training_seconds=60.0 * (number + 1)) for number, name in enumerate(NAMES)}
    lines = tuple(Line(name, number, [0.0, 1.0, 2.0], [9.0, 5.0, 4.0 - number]) for number, name in enumerate(NAMES))
    return Report(
        title="Three generative models of some_images",
        lead="Made up for a test.",
        models=tuple(Model(name, "What it is.", (("latents", "32"),)) for name in NAMES),
        families=("By Fréchet distance the VAEs are ahead.",),
        choices=tuple(choices.choices(found, costs, ["VAE"], {"DCGAN": 1.5})),
        cautions=("Look at the neighbours.",),
        pictures=tuple(pictures),
        completion_note="To beat: 0.05.",
        curves=(Chart("They learn", "While training.", "minutes", "distance", lines, logarithmic=True),),
        records=tuple(found),
        costs=costs,
        notes=("On a machine.",),
    )


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def test_the_page_needs_nothing_but_itself(report: Report) -> None:
    """No script, no address to load from, every picture inside and described, every link of the contents somewhere."""
    text = page.page(report)
    tags = Tags(text).found
    assert not {"script", "iframe", "object"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    assert not re.search(r"https?://|@import|url\(", text)
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) == len(KINDS) * len(NAMES) + 1
    assert all(i["alt"] and str(i["src"]).startswith("data:image/png;base64,") for i in images)
    anchors = {attributes["id"] for tag, attributes in tags if tag == "section"}
    links = {str(attributes["href"])[1:] for tag, attributes in tags if tag == "a"}
    assert links == anchors
    assert len(links) == 5 + len(KINDS)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    assert "prefers-color-scheme: dark" in text
    assert "<b>bold" not in text  # names are text


def test_every_record_is_in_the_table_with_its_protocol(report: Report) -> None:
    tags = Tags(page.page(report)).found
    assert sum(tag == "details" for tag, _ in tags) == len({r.protocol for r in report.records})
    assert sum(tag == "td" for tag, _ in tags) == 5 * (len(NAMES) + 1) + 6 * len(NAMES)


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Run by the test in a copy of the page, which has no script of its own: it tells the frame around it what it sees.
LOOK = """<script>addEventListener("load", () => {
  const root = document.documentElement, wide = [...document.querySelectorAll("body *")].filter(
    e => !e.closest(".scroll table, svg") && e.getBoundingClientRect().right > innerWidth + 1);
  parent.postMessage(JSON.stringify({
    scroll: root.scrollWidth, inner: innerWidth, wide: wide.map(e => e.tagName + "." + e.className),
    images: [...document.images].map(i => i.complete && i.naturalWidth > 0 && i.getBoundingClientRect().width > 100),
    charts: [...document.querySelectorAll("svg")].map(s => s.getBoundingClientRect().height > 50),
    requests: performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:")),
  }), "*");
});</script>"""
# A browser's window is never as narrow as a phone; a frame is.
FRAME = """<!doctype html><body style="margin: 0">
<script>addEventListener("message", e => { document.documentElement.dataset.seen = e.data; });</script>
<iframe src="report.html" style="border: 0; width: WIDTHpx; height: HEIGHTpx"></iframe></body>"""
HEIGHT = 2400


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_in_a_browser(width: int, report: Report, tmp_path: Path) -> None:
    """At a phone's width and at a desk's: pictures load, nothing is wider than the page, no network is asked."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser here: looked for {', '.join(BROWSERS)}")
    text = page.page(report).replace("</body>", f"{LOOK}</body>")
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    frame, shot = tmp_path / "frame.html", tmp_path / "shot.png"
    frame.write_text(FRAME.replace("WIDTH", str(width)).replace("HEIGHT", str(HEIGHT)))
    command = [browser, "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--no-sandbox"] * (os.geteuid() == 0)
    command += [f"--user-data-dir={tmp_path / 'user'}", f"--window-size={max(width, 600)},{HEIGHT}"]

    def run(*arguments: str) -> str:
        done = [*command, *arguments, frame.as_uri()]
        return subprocess.run(done, capture_output=True, text=True, check=True, timeout=120).stdout

    dumped = re.search(r'data-seen="([^"]*)"', run("--dump-dom"))
    assert dumped is not None
    seen = json.loads(dumped[1].replace("&quot;", '"'))
    assert seen["inner"] == width
    assert seen["scroll"] <= width, seen["wide"]
    assert seen["wide"] == []
    assert len(seen["images"]) == len(KINDS) * len(NAMES) + 1
    assert all(seen["images"])
    assert seen["charts"]
    assert all(seen["charts"])
    assert seen["requests"] == []
    run(f"--screenshot={shot}")
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("L"), np.float32)[:, :width]
    # Pictures and letters: a page that did not render is of one colour.
    assert pixels.std() > 10
    assert np.unique(pixels).size > 50


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_the_decoders_are_of_equal_size(shape: tuple[int, ...]) -> None:
    """Within two per cent, and with as many latents."""
    models: dict[str, Any] = plan(shape, dataset="some", seed=3)
    sizes = [_size_of(options, shape) for options in models.values()]
    assert max(sizes) < 1.02 * min(sizes)
    for options in models.values():
        assert options.latent_dim + sum(getattr(options, "upper_latent_dims", ())) == LATENTS
        assert options.batch_size == 64
        assert (options.dataset, options.seed) == ("some", 3)
    assert len(models["dlgm"].upper_latent_dims) == 1
    few = _with_steps(models["vae"], "vae", 1e-6, {})
    assert few.steps == few.eval_every == few.log_every == 1


def test_what_to_choose_follows_from_the_numbers() -> None:
    """The best and all that are not told apart from it; swapped numbers swap the answer."""
    costs = {name: cost_of(sampling_seconds=s) for name, s in (("a", 1.0), ("b", 1.05), ("c", 4.0))}
    values = {"a": 80.0, "b": 80.5, "c": 95.0}

    def chosen(signs: float, error: float | None = 1.0, better: str = "lower") -> choices.Choice:
        found = [record_of(name, "FD-LeNet", signs * v, error, better) for name, v in values.items()]
        return choices.choices(found, costs, ["c"], {"a": 2.0, "b": 3.0})[0]

    assert chosen(1.0).models == ("a", "b")
    assert "not told apart" in chosen(1.0).because
    assert "next 95.0 ± 1.0 (c)" in chosen(1.0).because
    assert chosen(1.0, 0.1).models == ("a",)
    assert chosen(-1.0).models == ("c",)
    assert chosen(1.0, better="higher").models == ("c",)
    assert chosen(1.0, None).models == ("a", "b", "c")  # nothing to judge by
    made = {c.wish: c for c in choices.choices([], costs, ["c"], {"a": 2.0, "b": 3.0})}
    assert made["The latents of your own images"].models == ("c",)
    assert "3 s an image" in made["The latents of your own images"].because
    assert made["Many samples quickly"].models == ("a", "b")
    assert "4.0 times" in made["Many samples quickly"].because
    likely = [record_of("c", "log-likelihood", -2.0, better="higher")]
    (first, *_) = choices.choices(likely, costs, ["c"], {"a": 2.0, "b": 3.0})
    assert first.models == ("c",)
    assert "none for a and b" in first.because


def test_families_and_cautions_follow_from_the_numbers() -> None:
    found = [record_of("g", "FD-x", 80.0, 1.0), record_of("v", "FD-x", 90.0, 1.0), record_of("w", "FD-x", 99.0, 1.0)]
    is_gan = {"g": True, "v": False, "w": False}
    assert choices.families(found, is_gan) == ["By Fréchet distance the GANs are ahead (g 80.0 ± 1.0, v 90.0 ± 1.0)."]
    flipped = choices.families(found, {name: not gan for name, gan in is_gan.items()})
    assert "the VAEs are ahead" in flipped[0]
    near, far = record_of("g", "nearest-MSE", 0.010, 0.001), record_of("v", "nearest-MSE", 0.019, 0.001)
    assert [text.partition(":")[0] for text in choices.cautions([near, far])] == ["g"]
    little, enough = (record_of(name, "recall-x", v, real=0.9) for name, v in (("g", 0.2), ("v", 0.25)))
    assert [text.partition(":")[0] for text in choices.cautions([little, enough])] == ["g"]


def test_precision_is_not_counted_without_recall() -> None:
    """One convincing image over and over is not what a person asks for."""
    found = [record_of(name, "precision-x", p, better="higher") for name, p in (("a", 1.0), ("b", 0.8))]
    found += [record_of(name, "recall-x", r, better="higher", real=0.9) for name, r in (("a", 0.01), ("b", 0.3))]
    costs = {"a": cost_of(), "b": cost_of()}
    made = {choice.wish: choice for choice in choices.choices(found, costs, [], {})}
    convincing = made["Few samples out of place"]
    assert convincing.models == ("b",)
    assert "too little recall to count for a" in convincing.because


def test_training_time_is_read_from_the_log(tmp_path: Path) -> None:
    rows = [{"step": 10, "time_steps_per_second": 5.0}, {"step": 10, "test_elbo": -1.0}]
    rows.append({"step": 30, "time_steps_per_second": 20.0})
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert logged_seconds(tmp_path) == pytest.approx(3.0)
    assert logged_seconds(tmp_path / "none") is None
    np.testing.assert_allclose(read_log(tmp_path).minutes([0, 10, 20, 30, 40]), np.asarray([0, 2, 2.5, 3, 4]) / 60)


def test_ticks_are_round_and_inside() -> None:
    assert charts.ticks(0.0, 10.0) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    np.testing.assert_allclose(charts.ticks(-251.0, -243.0), [-250.0, -248.0, -246.0, -244.0])
    assert charts.logarithmic_ticks(40.0, 600.0) == [50.0, 100.0, 200.0, 500.0]
    with pytest.raises(ValueError, match="no number to draw"):
        charts.line_chart(Chart("t", "", "x", "y", (Line("a", 0, [1.0], [float("nan")]),)))


def fake_run(directory: Path, **changes: Any) -> Path:
    """A run directory without a checkpoint."""
    spec = GANOptions().spec((28, 28, 1))
    images = {"image_shape": [28, 28, 1], "image_type": "uint8", "labels": True}
    identity: dict[str, Any] = {"name": "fashion_mnist_small", **images, "sha256": "00", **changes}
    Run.create(directory, {"model": to_plain(spec), "data": identity, "seed": 0}, {"family": "gan"})
    return directory


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--out", "{tmp}/else"], "holds something else: give a new folder"),
        (["--out", "{tmp}/else/file"], "is a file: give a folder"),
        (["--out", "{tmp}/other"], "holds another comparison: dataset was 'mnist', now 'fashion_mnist_small'"),
        (["--runs", "{tmp}/a", "{tmp}/b"], "are of different data \\(sha256 was '00', now '11'\\)"),
        (["--runs", "{tmp}/a"], "a has no checkpoint yet: train it first"),
        (["--runs", "{tmp}/a", "{tmp}/vectors"], "is of vectors \\[20\\]: a comparison shows images"),
        (["--runs", "{tmp}/a", "{tmp}/else"], "else holds no run"),
        (["--runs", "{tmp}/a", "{tmp}/b/../a"], "a is there twice"),
        (["--runs", "{tmp}/a", "--scale", "2"], "--scale: for training"),
        (["--scale", "0"], r"--scale must be in \(0, 1000\], got 0"),
        (["--measures", "fid"], "--measures are standard, all, or some of"),
        (["--image-size", "30"], "multiples of 4"),
        (["--measures", "elbo"], "elbo cannot be made of GAN: a GAN has no encoder"),
        (["--num", "501"], "501 images cannot be compared"),
        (["--num", "19"], "19 images are too few to tell models apart by: give --num 20 or more"),
        (["--dataset", "npz:{tmp}/none.npz"], "none.npz"),
    ],
)
def test_what_cannot_be_is_refused_before_any_training(
    arguments: list[str], error: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(compare, "train", lambda options: pytest.fail("it trained"))
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    mark = dataclasses.replace(compare.Options(), dataset="mnist").mark()
    (tmp_path / "other" / "comparison.json").write_text(json.dumps(mark))
    fake_run(tmp_path / "a")
    fake_run(tmp_path / "b", sha256="11")
    fake_run(tmp_path / "vectors", image_shape=[20])
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    out = [] if "--out" in filled else ["--out", str(tmp_path / "out")]
    assert compare.main([*out, *filled]) == 1
    printed = capsys.readouterr().err
    assert re.search(error, printed), printed
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "else" / "file").read_text() == "mine"


@pytest.mark.slow
def test_the_whole_command(tmp_path: Path, capsys: Any) -> None:
    """Five models of a few steps, then again without training, then two of the runs taken as they are."""
    some = data.load()
    np.savez(tmp_path / "some.npz", image=some["image"][::2], label=some["label"][::2])
    out = tmp_path / "out"
    arguments = ["--dataset", f"npz:{tmp_path / 'some.npz'}", "--scale", "0.001", "--measures", "frechet", "nearest"]
    assert compare.main(["--out", str(out), *arguments]) == 0
    names = {path.name for path in out.iterdir()}
    assert {"report.html", "records.json", "pictures", "evaluation", "runs", "comparison.json"} <= names
    written = list((out / "pictures").glob("*.png"))
    assert len(written) == 5 * len(KINDS) + 6
    assert all(words(path) for path in written)
    text = (out / "report.html").read_text()
    assert "Five generative models of npz" in text
    assert "Convolutional VAE" in text
    capsys.readouterr()
    assert compare.main(["--out", str(out), *arguments]) == 0
    assert capsys.readouterr().out.count("nothing to do") == 5
    runs = [str(out / "runs" / name) for name in ("gan", "dlgm")]
    assert compare.main(["--out", str(tmp_path / "two"), "--measures", "frechet", "--runs", *runs]) == 0
    assert "Two generative models" in (tmp_path / "two" / "report.html").read_text()
