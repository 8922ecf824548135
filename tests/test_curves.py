"""What runs have logged, drawn: at the end of a training, and by jaxgen plot. Words are read of the files."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxgen import collapse
from jaxgen.cli import plot
from jaxgen.cli.main import main
from jaxgen.evaluation import curves
from jaxgen.training.run import Run
from jaxgen.training.session import Session
from tests import models
from tests.pictures import words

Rows = list[dict[str, Any]]
VAE_ROWS: Rows = [
    {"step": 100, "elbo": -99.5, "kl": 2.0, "loss": 99.5, "reconstruction": -97.5, "time_steps_per_second": 1.0},
    *({"step": step, "elbo": -9.5, "kl": 2.0, "loss": 9.5, "reconstruction": -7.5} for step in range(200, 1100, 100)),
    {"step": 1000, "test_elbo": -11.5, "test_kl": 2.5, "test_reconstruction": -9.0, "active_units": 3.0},
    {"step": 1000, "warning": "the posterior has collapsed: try a warm-up"},
]  # fmt: skip
GAN_ROWS: Rows = [
    {"step": 10, "generator_loss": 0.7, "discriminator_loss": 1.25, "real_logit": 1.0, "fake_logit": -1.0},
    {"step": 20, "generator_loss": 0.8, "discriminator_loss": "nan", "real_logit": 1.5, "fake_logit": "-inf"},
    {"step": 20, "test_sliced_wasserstein": 0.125, "test_fd_lenet_mnist": 30.0, "test_precision_lenet_mnist": 0.5,
     "test_recall_lenet_mnist": 0.25, "sample_diversity": 0.75, "test_of_my_own": 4.0},
]  # fmt: skip


def make_run(directory: Path, rows: Rows | None) -> Path:
    """A run directory with a log, and nothing else."""
    data = {"image_shape": list(models.IMAGE_SHAPE), "image_type": "uint8", "labels": False}
    Run.create(directory, {"model": {}, "data": data, "seed": 0}, {})
    if rows is not None:
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def drawn(out: Path, *arguments: Any) -> str:
    """What jaxgen plot writes into a picture."""
    assert plot.main([*map(str, arguments), "--out", str(out)]) == 0
    return words(out)


def test_the_log_of_a_vae_is_a_panel_for_the_elbo_and_each_part(tmp_path: Path) -> None:
    text = drawn(tmp_path / "out.png", make_run(tmp_path / "vae-001", VAE_ROWS))
    title, *panels = text.split("\n")
    assert title == (
        "Log of vae-001, 1,000 steps 1 warning, the last at step 1,000: the posterior has collapsed: try a warm-up"
    )
    assert panels[0] == (
        "ELBO, the evidence lower bound higher is better; first steps outside. Across: step. Up: nats. "
        "Legend: training images (-9.5), test images (-11.5)."
    )
    assert [panel.partition(",")[0].partition(" ")[0] for panel in panels] == ["ELBO", "Reconstruction", "KL", "Active"]
    assert "KL divergence, taken from it at 0 the latents say nothing. Across: step. Up: nats." in panels[2]
    assert "loss" not in text  # which is the ELBO upside down
    objective = [row if "loss" not in row else {**row, "loss": 3.0} for row in VAE_ROWS]
    text = drawn(tmp_path / "out.png", make_run(tmp_path / "iwae", objective))
    assert "Training loss lower is better. Across: step. Up: loss. Legend: training images (3)." in text


def test_the_log_of_a_gan_has_both_players_in_one_panel(tmp_path: Path) -> None:
    title, *panels = drawn(tmp_path / "out.png", make_run(tmp_path / "gan-001", GAN_ROWS)).split("\n")
    assert title == "Log of gan-001, 20 steps"
    assert panels == [
        "Losses of both players they need not fall, neither may vanish; not finite: 1. Across: step. "
        "Up: loss. Legend: generator (0.8), discriminator (nan).",
        "What the discriminator says far apart: it tells them apart; not finite: 1. Across: step. Up: logit. "
        "Legend: real images (1.5), generated images (-inf).",
        "Sliced Wasserstein distance lower is better. Across: step. Up: share of the pixels' range. "
        "Legend: samples to test images (0.125).",
        "Fréchet distance lenet_mnist; lower is better. Across: step. Up: features squared. "
        "Legend: samples to test images (30).",
        "Precision and recall lenet_mnist; higher is better. Across: step. Up: share. "
        "Legend: precision (0.5), recall (0.25).",
        "Diversity of samples 1: as diverse as test images. Across: step. Up: share of the data's. "
        "Legend: samples (0.75).",
        "test_of_my_own. Across: step. Up: value. Legend: test images (4).",
    ]


def test_runs_of_both_families_are_colours_in_the_panels_that_they_have(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a" / "one", VAE_ROWS), make_run(tmp_path / "b" / "one", GAN_ROWS)]
    text = drawn(tmp_path / "out.png", *runs)
    assert text.startswith("Logs of 2 runs, up to 1,000 steps\n")
    assert f"Legend: {runs[0]}, {runs[1]}." in text  # by their paths, as both folders have one name
    assert "Legend: training images, test images." in text
    assert "Legend: generator, discriminator." in text
    text = drawn(tmp_path / "out.png", *runs, "--labels", "A", "B", "--steps-per-epoch", "10")
    assert "Legend: A, B." in text
    assert "Across: epoch." in text
    short = make_run(tmp_path / "short", [{"step": s, "elbo": -400.0 - s} for s in (10, 20)])  # all before the tenth
    text = drawn(tmp_path / "out.png", short, runs[0], "--metric", "elbo")
    assert "ELBO of training images (elbo) higher is better. Across: step. Up: nats. Legend: short (-420), " in text
    many = [make_run(tmp_path / f"{i:02d}", GAN_ROWS[:1]) for i in range(12)]
    text = drawn(tmp_path / "out.png", *many, "--metric", "generator_loss", "real_logit")
    assert "loss of the generator (generator_loss). Across: step. Up: loss. Legend: 00 (0.7), 01 (0.7), " in text
    assert len({tuple(np.round(color, 6)) for color in curves._colors(12)}) == 12


def test_what_cannot_be_drawn_is_refused_in_a_line(tmp_path: Path, capsys: Any) -> None:
    whole = make_run(tmp_path / "whole", GAN_ROWS)
    for rows, message in (
        (None, "metrics.jsonl is not there: train the run for at least --log-every steps"),
        ([], "metrics.jsonl holds no numbers yet: train"),
        ([{"step": 3, "warning": "words", "time_steps_per_second": 2.0}], "metrics.jsonl holds no numbers yet: train"),
    ):
        run = make_run(tmp_path / str(len(list(tmp_path.iterdir()))), rows)
        assert plot.main([str(whole), str(run), "--out", str(tmp_path / "out.png")]) == 1
        assert message in capsys.readouterr().err
    other = make_run(tmp_path / "words", [{"step": 3, "elbo": "much"}])
    assert plot.main([str(other), "--out", str(tmp_path / "out.png")]) == 1
    assert "metrics.jsonl: elbo of step 3 is no number: 'much'" in capsys.readouterr().err
    for arguments, message in (
        (["--lowest", "1"], "--lowest is the end of the axis of a metric: name it with --metric"),
        (["--metric", "elbo"], f"{whole} has no metric 'elbo': use one of discriminator_loss, fake_logit, "),
    ):
        assert plot.main([str(whole), *arguments, "--out", str(tmp_path / "out.png")]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_a_training_leaves_its_curves_and_never_ends_for_them(
    tmp_path: Path, with_curves: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    images = models.batch(20)["image"]
    np.savez(tmp_path / "images.npz", train_image=images, test_image=images)
    common = ["train", "vae", "--dataset", f"npz:{tmp_path / 'images.npz'}", "--hidden", "4", "--latent-dim", "2"]
    common += ["--batch-size", "10", "--log-every", "2", "--workdir", str(tmp_path / "run")]
    picture = tmp_path / "run" / "curves.png"
    monkeypatch.setattr(collapse, "FIRST_OF_KL", 4)  # so that there are warnings
    assert main([*common, "--steps", "4"]) == 0
    assert f"picture: {picture}" in capsys.readouterr().out
    assert words(picture).startswith("Log of run, 4 steps 1 warning, the last at step 4: the posterior has collapsed")
    assert "\nELBO, the evidence lower bound higher is better. Across: step. Up: nats. Legend: training" in words(
        picture
    )
    assert main([*common, "--steps", "6", "--resume"]) == 0  # of the whole log
    assert words(picture).startswith("Log of run, 6 steps 2 warnings, the last at step 6: ")
    out, log = capsys.readouterr().out, curves.read_log(tmp_path / "run")
    assert log.curves["elbo"][0] == [2, 4, 6]
    assert out.splitlines()[-1] == f"jaxgen plot {tmp_path / 'run'}"
    before = picture.read_bytes()

    def fail(directory: Path) -> Path:
        raise RuntimeError("no font\nto be found")

    monkeypatch.setattr(curves, "draw_run", fail)
    assert main([*common, "--steps", "8", "--resume"]) == 0
    said = capsys.readouterr()
    assert "curves.png was not drawn: no font to be found\n" in said.err
    assert f"picture: {picture}" not in said.out
    assert picture.read_bytes() == before
    assert Run.open(tmp_path / "run").steps()[-1] == 8


def test_a_run_that_ends_before_its_first_row_has_no_curves_and_says_nothing(tmp_path: Path, with_curves: None) -> None:
    run = Run.open(make_run(tmp_path / "run", []))
    session: Any = SimpleNamespace(monitor=object(), run=run, bar=None)  # which nothing can be written to
    assert Session.draw(session) == []
    assert not (tmp_path / "run" / "curves.png").exists()
