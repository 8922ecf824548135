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
from tqdm import tqdm

import jaxgen
from experiments.options import FAMILIES, GANOptions, VAEOptions, parse
from experiments.watching import Dataset, Evaluation, Pictures
from jaxgen import data
from jaxgen.keys import named_key, step_key
from jaxgen.training import loop
from jaxgen.training.checkpoint import Checkpoints, shape_differences, summary
from jaxgen.training.monitor import Monitor
from jaxgen.training.run import Run, Spec, State, init_state, to_plain


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
    train, test = load(options.train_split), load(options.test_split)
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
            "split": options.train_split,
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


def dynamic_binarization(key: jax.Array) -> loop.Transform:
    """Draw each batch's binary images anew at every step."""

    def transform(batch: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
        return {**batch, "image": data.binarize(batch["image"], step_key(key, "binarization", step))}

    return transform


def train(options: VAEOptions | GANOptions) -> Path:
    """Train as the options say; returns the run directory."""
    options.check()
    family = next(name for name, kind in FAMILIES.items() if isinstance(options, kind))
    directory = options.workdir or next_free(Path("runs"), family)
    run = Run.open(directory) if Run.exists(directory) else None
    if run is not None and not options.resume:
        raise FileExistsError(f"{directory} already holds a run: pass --resume to continue it, or another --workdir")
    train_set, test_set = load_data(options)
    spec: Any = options.spec(train_set["image"].shape[1:])
    run_identity = identity(options, spec, train_set)
    if run is not None:
        run.check_identity(run_identity)
    run_key = jax.random.key(options.seed)
    step_function = partial(jaxgen.gan_step if isinstance(spec, jaxgen.GAN) else jaxgen.vae_step, spec)
    dynamic = getattr(options, "binarization", "none") == "dynamic"
    training = loop.Loop(
        step_function, train_set, run_key, options.batch_size, dynamic_binarization(run_key) if dynamic else None
    )
    example = {name: array[: options.batch_size] for name, array in train_set.items()}
    state: Any = init_state(spec, named_key(run_key, "init"), example)
    if options.init_from is not None and (run is None or not run.steps()):
        state = borrow_weights(state, options.init_from)
    totals = training.zero_totals(state)

    device = jax.devices()[0]
    print(f"{family} on {options.dataset}: {len(train_set['image'])} images, {device.platform} ({device.device_kind})")
    print(f"run directory: {directory}")
    if run is None:
        saved = {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(options).items()}
        run = Run.create(directory, run_identity, {"family": family, "options": {**saved, "resume": False}})
    with run.checkpoints(keep=options.keep) as checkpoints:
        if options.resume and not checkpoints.steps():
            print("no completed checkpoint: starting at step 0")
        elif options.resume:
            print(f"resuming from step {checkpoints.find('newest')}")
            state, totals = checkpoints.restore(checkpoints.find("newest"), state, totals)
        start = int(state.step)
        if start >= options.steps:
            print(f"already trained for {start} steps of {options.steps}: nothing to do")
            return directory
        with Monitor(directory, start) as monitor:
            evaluation = Evaluation(spec, test_set, run_key)
            pictures = Pictures(spec, test_set, run_key)
            drive(options, run, training, state, totals, checkpoints, monitor, evaluation, pictures)
    return directory


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
