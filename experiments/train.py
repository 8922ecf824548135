"""Train a VAE or a GAN on images.

    uv run experiments/train.py vae
    uv run experiments/train.py gan --dataset mnist --workdir runs/mnist
    uv run experiments/train.py vae --workdir runs/vae-001 --resume --steps 20000

A run directory is left behind: config.json, metrics.jsonl, tensorboard/, checkpoints/ and samples/.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from tqdm import tqdm

import jaxgen
from experiments.options import FAMILIES, GANOptions, VAEOptions, load_config
from jaxgen import data, metrics
from jaxgen.keys import named_key, step_key
from jaxgen.training import loop
from jaxgen.training.checkpoint import Checkpoints, shape_differences, summary
from jaxgen.training.monitor import Monitor
from jaxgen.training.run import Run, Spec, State, init_state, to_plain

GRID = 64  # samples in a grid
PAIRS = 32  # images and their reconstructions in a grid
EVALUATION_BATCH = 500
Dataset = dict[str, np.ndarray]


def parse(arguments: Sequence[str]) -> VAEOptions | GANOptions:
    """Options of the command line: over those of the run to resume, or of the named configuration, or the defaults."""
    family = arguments[0] if arguments and arguments[0] in FAMILIES else None
    if family is None:
        usage = f"usage: train.py {{{','.join(FAMILIES)}}} [options]; train.py vae --help lists the options"
        if not arguments or arguments[0] in ("-h", "--help"):
            print(usage)
            raise SystemExit(0 if arguments else 2)
        raise ValueError(f"unknown family {arguments[0]!r}: {usage}")
    rest = list(arguments[1:])
    default: VAEOptions | GANOptions = FAMILIES[family]()
    named, workdir = _value_of(rest, "--config"), _value_of(rest, "--workdir")
    if named is not None:
        default = load_config(named, family)
    elif "--resume" in rest and workdir is not None and Run.exists(Path(workdir)):
        default = _saved_options(Run.open(Path(workdir)), family)
    return tyro.cli(FAMILIES[family], args=rest, default=default, prog=f"train.py {family}")


def _value_of(arguments: Sequence[str], flag: str) -> str | None:
    for i, argument in enumerate(arguments):
        if argument == flag:
            return arguments[i + 1] if i + 1 < len(arguments) else None
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None


def _saved_options(run: Run, family: str) -> VAEOptions | GANOptions:
    saved = run.config["settings"]
    if saved["family"] != family:
        raise ValueError(f"{run.directory} holds a {saved['family']}: train it as {saved['family']}, not as {family}")
    values: dict[str, Any] = {}
    for field in dataclasses.fields(FAMILIES[family]):
        value = saved["options"].get(field.name, field.default)
        is_path = field.name in ("data_dir", "manual_dir", "workdir", "init_from") and value is not None
        values[field.name] = Path(value) if is_path else tuple(value) if isinstance(value, list) else value
    return FAMILIES[family](**values)


def check(options: VAEOptions | GANOptions) -> None:
    """Refuse numbers that make no sense, before anything is read or written."""
    for name in (
        "steps",
        "batch_size",
        "log_every",
        "eval_every",
        "sample_every",
        "checkpoint_every",
        "keep",
    ):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    for name in ("hidden", "generator_hidden", "discriminator_hidden"):
        if any(size < 1 for size in getattr(options, name, ())):
            raise ValueError(f"--{name.replace('_', '-')} must be sizes of at least 1, got {getattr(options, name)}")
    if options.resume and options.workdir is None:
        raise ValueError("--resume needs the --workdir of the run to continue")
    if options.resume and options.init_from is not None:
        raise ValueError("--resume continues a run and --init-from begins one: pass only one of them")


def load_data(options: VAEOptions | GANOptions) -> tuple[Dataset, Dataset]:
    """The training and the test split, binarised where that is asked for."""
    load = partial(
        data.load,
        options.dataset,
        data_dir=options.data_dir,
        manual_dir=options.manual_dir,
        image_size=options.image_size,
        color=options.color,
    )
    train, test = load("train"), load("test")
    if train["image"].shape[1:] != test["image"].shape[1:]:
        raise ValueError(
            f"{options.dataset}: training images are {list(train['image'].shape[1:])}, test images "
            f"{list(test['image'].shape[1:])}: give one size for all (--image-size 64)"
        )
    binarization = getattr(options, "binarization", "none")
    if binarization != "none":
        test["image"] = data.binarize_set(test["image"])
    if binarization == "static":
        train["image"] = data.binarize_set(train["image"])
    if options.batch_size > len(train["image"]):
        raise ValueError(
            f"--batch-size {options.batch_size} is larger than {options.dataset} with its {len(train['image'])} "
            f"training images: use at most {len(train['image'])}"
        )
    return train, test


def identity(options: VAEOptions | GANOptions, spec: Spec, train: Dataset) -> dict[str, Any]:
    """What makes a run this run, as plain data. Paths are no part of it: the images themselves are."""
    kind, _, path = options.dataset.partition(":")
    return {
        "model": to_plain(spec),
        "data": {
            "name": kind if path else options.dataset,
            "image_shape": list(train["image"].shape[1:]),
            "image_type": str(train["image"].dtype),
            "labels": "label" in train,
            "binarization": getattr(options, "binarization", "none"),
            "sha256": data.fingerprint(train),
        },
        "batch_size": options.batch_size,
        "seed": options.seed,
    }


def next_free(parent: Path, family: str) -> Path:
    """The first of FAMILY-001, FAMILY-002, ... that does not exist."""
    number = 1
    while (parent / f"{family}-{number:03d}").exists():
        number += 1
    return parent / f"{family}-{number:03d}"


def borrow_weights(state: State, source: Path) -> State:
    """Put another run's parameters, collections and moving average into a fresh state."""
    other = Run.open(source).restore("newest")
    names = [
        name for name in state._fields if name.endswith(("params", "collections", "ema")) and name != "hyperparams"
    ]
    if type(other) is not type(state):
        raise ValueError(f"{source} holds a {type(other).__name__}, wanted a {type(state).__name__}")
    saved, wanted = ({name: getattr(s, name) for name in names} for s in (other, state))
    differences = shape_differences(saved, wanted)
    if differences:
        raise ValueError(f"the weights of {source} do not fit: {summary(differences)}")
    return state._replace(**saved)


class Evaluation:
    """Measures a state on the test split: the ELBO of a VAE, a sample distance of a GAN."""

    def __init__(self, spec: Spec, test: Dataset, key: jax.Array) -> None:
        self._spec = spec
        self._test = test
        self._key = named_key(key, "evaluation")

    def __call__(self, state: Any) -> tuple[dict[str, float], float]:
        """(metrics by name, score: higher is better)."""
        if isinstance(self._spec, jaxgen.VAE):
            return self._elbo(self._spec, state)
        return self._distance(self._spec, state)

    def _elbo(self, vae: jaxgen.VAE, state: Any) -> tuple[dict[str, float], float]:
        sums: dict[str, float] = {}
        num = len(self._test["image"])
        for i in range(0, num, EVALUATION_BATCH):
            batch = {name: array[i : i + EVALUATION_BATCH] for name, array in self._test.items()}
            key = jax.random.fold_in(self._key, i)
            for name, values in jaxgen.vae_evaluate(vae, state, batch, key).items():
                sums[name] = sums.get(name, 0.0) + float(jnp.sum(values))
        means = {f"test_{name}": value / num for name, value in sums.items()}
        return means, means["test_elbo"]

    def _distance(self, gan: jaxgen.GAN, state: Any) -> tuple[dict[str, float], float]:
        real = self._test["image"]
        pieces = [
            jaxgen.gan_sample(gan, state, jax.random.fold_in(self._key, i), min(EVALUATION_BATCH, len(real) - i))
            for i in range(0, len(real), EVALUATION_BATCH)
        ]
        distance = float(_sliced_wasserstein(real, jnp.concatenate(pieces), named_key(self._key, "projections")))
        return {"test_sliced_wasserstein": distance}, -distance


_sliced_wasserstein = jax.jit(metrics.sliced_wasserstein_distance)


class Pictures:
    """Grids from the same latents and the same test images every time."""

    def __init__(self, spec: Spec, test: Dataset, key: jax.Array) -> None:
        self._spec = spec
        self._key = named_key(key, "pictures")
        self._images = {name: array[:PAIRS] for name, array in test.items()}

    def __call__(self, state: Any, step: int, monitor: Monitor) -> list[Path]:
        """Write the grids of a state; none for data that are not images."""
        if self._images["image"].ndim != 4:
            return []
        if isinstance(self._spec, jaxgen.GAN):
            samples = jaxgen.gan_sample(self._spec, state, self._key, GRID)
            return [monitor.show(step, "samples", np.asarray(samples))]
        samples = jaxgen.vae_sample(self._spec, state, self._key, GRID)
        originals = jaxgen.batches.to_float(self._images["image"])
        rebuilt = jaxgen.vae_reconstruct(self._spec, state, self._images, self._key)
        columns = 8  # a row of originals above a row of their reconstructions
        rows = [part[i : i + columns] for i in range(0, len(originals), columns) for part in (originals, rebuilt)]
        return [
            monitor.show(step, "samples", np.asarray(samples)),
            monitor.show(step, "reconstructions", np.concatenate(rows), columns),
        ]


def dynamic_binarization(key: jax.Array) -> loop.Transform:
    """Draw each batch's binary images anew at every step."""

    def transform(batch: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
        return {**batch, "image": data.binarize(batch["image"], step_key(key, "binarization", step))}

    return transform


def open_run(options: VAEOptions | GANOptions, family: str, run_identity: dict[str, Any]) -> Run:
    """The run to continue, checked to be the same one; or a new one."""
    directory = options.workdir or next_free(Path("runs"), family)
    if options.resume and Run.exists(directory):
        run = Run.open(directory)
        run.check_identity(run_identity)
        return run
    saved = {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(options).items()}
    return Run.create(directory, run_identity, {"family": family, "options": {**saved, "resume": False}})


def train(options: VAEOptions | GANOptions) -> Path:
    """Train as the options say; returns the run directory."""
    check(options)
    family = next(name for name, kind in FAMILIES.items() if isinstance(options, kind))
    device = jax.devices()[0]
    if options.workdir is not None and Run.exists(options.workdir) and not options.resume:
        Run.create(options.workdir, {}, {})  # raises: say so before any data are read
    train_set, test_set = load_data(options)
    spec: Any = options.spec(train_set["image"].shape[1:])
    run_key = jax.random.key(options.seed)
    step_function = partial(jaxgen.gan_step if isinstance(spec, jaxgen.GAN) else jaxgen.vae_step, spec)
    dynamic = getattr(options, "binarization", "none") == "dynamic"
    training = loop.Loop(
        step_function,
        train_set,
        run_key,
        options.batch_size,
        dynamic_binarization(run_key) if dynamic else None,
    )
    example = {name: array[: options.batch_size] for name, array in train_set.items()}
    state = init_state(spec, named_key(run_key, "init"), example)
    if options.init_from is not None:
        state = borrow_weights(state, options.init_from)
    totals = training.zero_totals(state)

    run = open_run(options, family, identity(options, spec, train_set))
    print(f"{family} on {options.dataset}: {len(train_set['image'])} images, {device.platform} ({device.device_kind})")
    print(f"run directory: {run.directory}")
    with run.checkpoints(keep=options.keep) as checkpoints:
        if options.resume:
            state, totals = resume(checkpoints, state, totals)
        start = int(state.step)
        if start >= options.steps:
            print(f"already trained for {start} steps of {options.steps}: nothing to do")
            return run.directory
        with Monitor(run.directory, start) as monitor:
            evaluation = Evaluation(spec, test_set, run_key)
            pictures = Pictures(spec, test_set, run_key)
            drive(options, run, training, state, totals, checkpoints, monitor, evaluation, pictures)
    return run.directory


def resume(checkpoints: Checkpoints, state: State, totals: loop.Totals) -> tuple[Any, Any]:
    """The newest checkpoint's state; the fresh one, saying so, when none was completed."""
    if not checkpoints.steps():
        print("no completed checkpoint: starting at step 0")
        return state, totals
    step = checkpoints.find("newest")
    print(f"resuming from step {step}")
    return checkpoints.restore(step, state, totals)


def drive(
    options: VAEOptions | GANOptions,
    run: Run,
    training: loop.Loop,
    state: Any,
    totals: loop.Totals,
    checkpoints: Checkpoints,
    monitor: Monitor,
    evaluation: Evaluation,
    pictures: Callable[[Any, int, Monitor], list[Path]],
) -> None:
    """Run the loop from stop to stop: log, evaluate, show, save."""
    step, last = int(state.step), options.steps
    cadences = (options.log_every, options.eval_every, options.sample_every, options.checkpoint_every)
    zero = jax.device_get(training.zero_totals(state))
    best = checkpoints.best_score()
    since, since_step = time.perf_counter(), step
    interactive = sys.stderr.isatty()
    with tqdm(total=last, initial=step, unit=" steps", mininterval=0.2 if interactive else 10.0) as bar:
        while step < last:
            stop = loop.next_stop(step, last, cadences)
            state, totals = training.run(state, totals, stop - step)
            jax.block_until_ready(state)
            bar.update(stop - step)
            step = stop
            if step % options.log_every == 0:
                row = loop.means(totals)
                totals = jax.device_put(zero)
                now = time.perf_counter()
                speed = (step - since_step) / (now - since)
                since, since_step = now, step
                monitor.write(step, {**row, "time_steps_per_second": speed})
                bar.set_postfix({name: f"{value:.4g}" for name, value in row.items()}, refresh=False)
            score = None
            if step % options.eval_every == 0 or step == last:
                measured, score = evaluation(state)
                if step % options.eval_every == 0:
                    monitor.write(step, measured)
                listed = "  ".join(f"{name} {value:.4f}" for name, value in measured.items())
                bar.write(f"step {step}: {listed}")
            if step % options.sample_every == 0 or step == last:
                written = pictures(state, step, monitor)
            is_best = score is not None and (best is None or score > best)
            best = score if is_best else best
            if step % options.checkpoint_every == 0 or step == last or is_best:
                checkpoints.save(step, state, totals, run.config, score)
    for path in written:
        print(f"picture: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns its exit status."""
    try:
        train(parse(sys.argv[1:] if arguments is None else arguments))
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
