"""What the commands of explore have in common: options, the model, its images, and the files that they leave."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import numpy as np
import tyro

import jaxgen
from jaxgen import data
from jaxgen.cli.options import check_data, checkpoint
from jaxgen.cli.parsing import saved_options
from jaxgen.cli.pictures import SIDE
from jaxgen.data.limits import check_memory
from jaxgen.evaluation.figures import named
from jaxgen.intervals import Count, Interval, Seed
from jaxgen.trained import Trained, class_number
from jaxgen.training.files import replacing, write_text
from jaxgen.training.run import Run
from jaxgen.training.run_data import load_data

Images = dict[str, np.ndarray]
Steps = Annotated[int, Interval(1, 100_000)]  # of a search, all in one program that says nothing meanwhile


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every command."""

    done: ClassVar[str] = "to be made"  # with images
    model: Annotated[str, tyro.conf.Positional]
    """A run directory, a .safetensors file, or the name of a pretrained model."""
    out: Path
    """Folder of the results."""
    num: Count = 8
    """Number of images, or rows of them."""
    images: str | None = None
    """Where the images come from: as --dataset of jaxgen train (fashion_mnist_small, a TFDS name, folder:PATH,
    npz:PATH, idx:DIR); the data of the run when not given, or fashion_mnist_small where there is no run."""
    checkpoint: str = "newest"
    """Of a run: newest, best, or the step of a checkpoint."""
    label: str | None = None
    """Class of the samples of a conditional model; all in turn when not given."""
    seed: Seed = 0
    """Seed of all that is drawn."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is loaded."""
        checkpoint(self.checkpoint)

    @property
    def draws(self) -> bool:
        """Whether latents are drawn, or sought by how likely they are: for which the model needs a prior."""
        return False

    @property
    def made(self) -> int:
        """How many images are made and held, about."""
        return self.num

    @property
    def key(self) -> jax.Array:
        """The key of all that is drawn."""
        return jax.random.key(self.seed)


def load_model(options: Options) -> Trained:
    """The model that is asked for."""
    model = jaxgen.load(options.model, checkpoint(options.checkpoint))
    if options.draws and model.family.sample is None:
        raise ValueError(
            f"{options.model} is a {model.family.title}, which has no prior, and this needs one: train a second stage "
            "on its latents; explore interpolate --between images, attribute and scatter do without"
        )
    if len(model.image_shape) != 3:
        raise ValueError(f"{options.model} makes vectors {list(model.image_shape)}: pictures need images")
    if options.label is not None and model.num_classes is None:
        raise ValueError(f"--label is for conditional models: {options.model} has learnt no classes")
    # Each as floats, twice, and in a picture.
    what = f"{options.made:,} images {options.done}"
    check_memory(options.made * (8 * math.prod(model.image_shape) + 6 * SIDE**2), what)
    print(f"{model.name}: {what}", flush=True)
    return model


def load_images(model: Trained, options: Options) -> tuple[Images, Images]:
    """(training images, held-out images) of the model's shape and type, with labels where there are some."""
    if options.images is None and Path(options.model).is_dir():
        saved = saved_options(Run.open(Path(options.model)))
        check_data(saved.dataset, Path(options.model), "--images")
        loaded = load_data(saved.data_choice(), saved.batch_size)
        return loaded.known(), loaded.test
    name = options.images or "fashion_mnist_small"
    *size, channels = model.image_shape
    color: Any = "grey" if channels == 1 else "rgb"
    sets = [data.load(name, split, image_size=(size[0], size[1]), color=color) for split in ("train", "test")]
    for images in sets:
        if images["image"].shape[1:] != model.image_shape:
            raise ValueError(
                f"{options.model} has learnt images {list(model.image_shape)}, {name} has "
                f"{list(images['image'].shape[1:])}: give images that are as large"
            )
        if model.image_type == "bool" and images["image"].dtype != np.bool_:
            images["image"] = data.binarize_set(images["image"])
    return sets[0], sets[1]


def class_names_of(model: Trained, options: Options) -> tuple[str, ...] | None:
    """Names of the classes of the images that `load_images` gives, from 0 on; None where nobody knows them."""
    if options.images is None and Path(options.model).is_dir():
        return model.class_names
    return data.open_source(options.images or "fashion_mnist_small", "test").class_names or model.class_names


def labels_of(model: Trained, images: Images) -> np.ndarray | None:
    """The labels that the model needs to know of images."""
    if model.num_classes is None:
        return None
    if "label" not in images:
        raise ValueError(f"{model.name} is conditional, and the images have no labels: put them into folders by class")
    return images["label"]


def drawn_labels(model: Trained, options: Options, num: int) -> np.ndarray | None:
    """Labels of samples: the one that is asked for, or all in turn."""
    if model.num_classes is None:
        return None
    if options.label is None:
        return np.arange(num, dtype=np.int32) % model.num_classes
    return np.full(num, class_number(options.label, model.class_names, model.num_classes))


def row_names(labels: np.ndarray | None, names: Sequence[str] | None) -> list[str]:
    """What rows of a picture are called, of whose images these are the labels [N]; nothing without labels."""
    return [] if labels is None else [named("class", int(label), names) for label in labels]


def spread(images: Images, num: int) -> Images:
    """So many examples, spread over all."""
    places = data.spread(len(images["image"]), num)
    return {name: array[places] for name, array in images.items()}


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """(what a function of arrays gives, the seconds that it took, compilation included)."""
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return result, time.perf_counter() - start


def write_results(out: Path, arrays: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
    """Write the arrays and the numbers, each file whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "arrays.npz") as partial:
        written: Any = {name: np.asarray(array) for name, array in arrays.items()}
        np.savez_compressed(partial, **written)
    write_text(out / "numbers.json", json.dumps(numbers, indent=2) + "\n")
