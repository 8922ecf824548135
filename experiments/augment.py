"""Measure what generated images add to a small labelled set: the gain in test accuracy, with error bars.

    uv run experiments/augment.py --dataset fashion_mnist --out augmentation

A class-conditional GAN and VAE learn from a few labelled images of each class, a classifier that has learnt from the
same images keeps the generated ones of whose class it is sure, and another classifier learns from both. It is compared
with classifiers that learn from the labelled images alone, as they are (none) and shifted and mirrored by chance
(ordinary). All classifiers take equally many steps; those of one seed share their labelled images and initialisation,
so that gains are paired. What is done already is not done again: the same command goes on after a kill, and more
--labels, --seeds, --families, --thresholds, --shares and --alone add to what there is.

The script chooses nothing by the test labels. To choose settings, measure with --measure-on training and other seeds
(--first-seed).

Reached on Fashion-MNIST with the defaults: gains over ordinary augmentation of 0.01, -0.96 and -1.59 points by the GAN
and of 0.55, -0.85 and -1.35 by the VAE, at 10, 50 and 200 labels a class (docs/augmentation.md); 48 minutes of
processor time.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.augmentation import classifier
from experiments.augmentation.cell import Cell, Dataset, Options, Record, held_out, methods, train_and_measure
from experiments.augmentation.results import draw, find, seeds, summarize, table
from jaxgen import data
from jaxgen.cli.exit_status import command
from jaxgen.cli.options import flag
from jaxgen.evaluation.figures import save_picture
from jaxgen.plain import to_plain
from jaxgen.training import machine, manifest
from jaxgen.training.files import exclusive, write_text
from jaxgen.untrusted import differences


def fingerprint(dataset: Dataset) -> str:
    """What tells a split from others, by some of its examples."""
    places = data.spread(len(dataset["label"]), data.LOOKED_AT)
    return f"{data.fingerprint({name: array[places] for name, array in dataset.items()}, places):064x}"


def identity(options: Options, training: Dataset, test: Dataset, num_classes: int) -> dict[str, Any]:
    """What all numbers of a folder have in common, as plain data."""
    shape = training["image"].shape[1:]
    names = ("measure_on", "generated", "most_draws", "steps", "batch_size", "learning_rate", "shift", "gan_steps",
             "vae_steps", "generator_batch_size")  # fmt: skip
    return {
        "dataset": options.title,
        "sha256": fingerprint(training),
        "test_sha256": fingerprint(test),
        **{name: getattr(options, name) for name in names},
        "flip": options.mirrors,
        "gan": to_plain(options.spec("gan", shape, num_classes)),
        "vae": to_plain(options.spec("vae", shape, num_classes)),
        "versions": machine.versions(),
    }


def read(path: Path, wanted: dict[str, Any]) -> list[Record]:
    """The records that there are already; those of other settings are an error."""
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    # Through JSON, where tuples are lists.
    changed = differences(found["settings"], json.loads(json.dumps(wanted)))
    if changed:
        raise ValueError(f"{path} holds results of other settings ({manifest.summary(changed)}): use another --out")
    return found["runs"]


def load(options: Options) -> tuple[Dataset, Dataset, int]:
    """(training split, test split, number of classes)."""
    training, test = (classifier.load(options, split) for split in (options.train_split, options.test_split))
    classifier.check_fit(options, training["image"])
    num_classes = int(training["label"].max()) + 1
    if test["label"].max() >= num_classes:
        raise ValueError(f"{options.dataset}: the test split has classes that the training split lacks")
    fewest = num_classes * min(options.labels)
    for name in ("batch_size", "generator_batch_size"):
        if getattr(options, name) > fewest:
            raise ValueError(
                f"{flag(name)} {getattr(options, name)} is larger than the smallest labelled set, "
                f"{min(options.labels)} of {num_classes} classes: use at most {fewest}"
            )
    counts = np.bincount(training["label"], minlength=num_classes)
    if counts.min() < max(options.labels):
        raise ValueError(
            f"{options.dataset}: class {int(counts.argmin())} has {counts.min()} training images, --labels asks for "
            f"{max(options.labels)}"
        )
    return training, test, num_classes


def class_names(options: Options) -> tuple[str, ...] | None:
    """The names of the classes from 0 on; None where nobody knows."""
    places: Any = {"data_dir": options.data_dir, "manual_dir": options.manual_dir}
    return data.open_source(options.dataset, options.train_split, **places).class_names


def run(options: Options) -> Path:
    """Train what is missing, measure, and write the tables and the pictures; returns the folder."""
    options.check()
    training, test, num_classes = load(options)
    settings = identity(options, training, test, num_classes)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.json"
    with exclusive(options.out):
        runs = read(path, settings)
        wanted = [(labels, seed, method) for labels in options.labels for seed in seeds(options)
                  for method in methods(options)]  # fmt: skip
        missing = [each for each in wanted if find(runs, *each) is None]
        interval = 0.2 if sys.stderr.isatty() else 10.0
        bar = tqdm(missing, total=len(wanted), initial=len(wanted) - len(missing), unit="run", mininterval=interval)
        cell: Cell | None = None
        place = None
        for labels, seed, method in bar:
            bar.set_postfix_str(f"{labels} labels, seed {seed}, {method.name}", refresh=False)
            if cell is None or place != (labels, seed):
                cell, place = Cell(options, training, num_classes, labels, seed), (labels, seed)
                measured_on = held_out(options, training, test, cell)
            runs.append(train_and_measure(cell, seed, method, measured_on))
            write(path, {"settings": settings, "runs": runs})
            shown = seed == options.first_seed and method.threshold == max(options.thresholds)
            if shown and method.family is not None and method.threshold is not None:
                picture = cell.picture(method.family, method.threshold, class_names(options))
                save_picture(options.out / f"samples_{method.family}_{labels}.png", picture)
        summary = summarize(options, runs)
        write(path, {"settings": settings, "runs": runs, "summary": summary})
        text = table(options, summary)
        write_text(options.out / "table.txt", text)
        draw(options, summary, options.out / "gain.png")
    print(text)
    missed = [run for run in runs if sum(run.get("missing_of_class", ()))]
    if missed:
        most = max(max(run["missing_of_class"]) / run["generated_per_class"] for run in missed)
        print(f"{len(missed)} of {len(runs)} classifiers had classes short of generated images, by up to {most:.0%}")
    return options.out


def write(path: Path, results: dict[str, Any]) -> None:
    """Write the results, whole or not at all."""
    write_text(path, json.dumps(results, indent=1) + "\n")


main = command(Options, run, "augment.py")


if __name__ == "__main__":
    sys.exit(main())
