"""Runs are measured by a command: its options, and what it leaves in a folder."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from jaxgen.cli.options import check_data, check_least, check_seed, checkpoint
from jaxgen.cli.parsing import saved_options
from jaxgen.cli.progress import Bars
from jaxgen.evaluation import measures, records, report
from jaxgen.evaluation.evaluator import GROUPS, Evaluator, Model, Reference, chosen, load_model, load_reference
from jaxgen.evaluation.subject import Settings
from jaxgen.training.run import Run
from jaxgen.training.run_data import DataChoice


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure trained runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The run directories that jaxgen train wrote."""
    out: Path | None = None
    """Folder of the results; the folder evaluation of the first run when not given."""
    measures: tuple[str, ...] = ("standard",)
    """Which measures to make, by name; standard are all that apply but annealed, which takes minutes an image where
    the decoder is convolutional and the machine a CPU; all are all that apply."""
    checkpoint: str = "newest"
    """newest, best, or the step of a checkpoint."""
    num: int | None = None
    """Number of real and of generated images that are compared; half of the test images when not given, at most 10,000,
    so that the other half shows what real images reach."""
    extractor: str = "auto"
    """What makes the features: lenet_mnist, lenet_fashion_mnist, pixels, inception:PATH; auto goes by the data."""
    dataset: str | None = None
    """Where the data are, if they are no longer where the run had them."""
    seed: int = 0
    """Seed of the evaluation: of samples, subsets and projections."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Settings)

    def check(self) -> None:
        """Refuse what makes no sense, before anything is read or written."""
        if not self.runs:
            raise ValueError("name at least one run directory")
        check_least(self, {"num": 2})
        check_seed(self.seed)
        checkpoint(self.checkpoint)
        unknown = [name for name in self.measures if name not in (*measures.MEASURES, *GROUPS)]
        if unknown or not self.measures:
            raise ValueError(
                f"--measures are {', '.join(GROUPS)}, or some of {', '.join(measures.MEASURES)}; got {self.measures}"
            )


def data_of(run: Run, options: Options) -> DataChoice:
    """The data of a run, from where they are now."""
    choice: DataChoice = saved_options(run).data_choice()
    choice = choice if options.dataset is None else dataclasses.replace(choice, dataset=options.dataset)
    check_data(choice.dataset, run.directory)
    return choice


def evaluate(options: Options) -> Path:
    """Measure every run; returns the folder of the results."""
    options.check()
    out = options.runs[0] / "evaluation" if options.out is None else options.out
    which = checkpoint(options.checkpoint)
    models = [load_model(directory, which, options.seed, options.settings) for directory in options.runs]
    choices = [data_of(model.run, options) for model in models]

    def wanted(model: Model, choice: DataChoice, classifies: bool = True) -> tuple[list[str], list[str]]:
        shape = tuple(model.run.config["identity"]["data"]["image_shape"])
        return chosen(options.measures, model.name, model.subject.spec, shape, choice.dataset, classifies)

    for model, choice in zip(models, choices, strict=True):
        wanted(model, choice)  # refuses what cannot be before data are read
    with Bars() as bars:
        references: dict[str, Reference] = {}
        plan = []
        for model, choice in zip(models, choices, strict=True):
            same = records.sha256_of([model.run.config["identity"]["data"], choice.test_split])
            if same not in references:
                references[same] = load_reference(model.run, choice, options.num, options.extractor, bars.begin)
            names, left_out = wanted(model, choice, references[same].real.probabilities is not None)
            plan.append((model, references[same], names))
            for line in left_out:
                bars.say(f"{model.name}: without {line}")
        evaluator, found = Evaluator(options.seed, options.settings, bars.begin), []
        for model, reference, names in plan:
            found += evaluator.measure(model, reference, names)
            # What is there is kept, should a later run take too long.
            records.write(out / "records.json", found)
        report.write(out, found, evaluator.samples, evaluator.latents)
        bars.say((out / "table.txt").read_text())
    return out
