"""Train a VAE or a GAN on images.

    uv run experiments/train.py vae
    uv run experiments/train.py gan --dataset mnist --workdir runs/mnist
    uv run experiments/train.py vae --workdir runs/vae-001 --resume --steps 20000

A run directory is left behind: config.json, metrics.jsonl, tensorboard/, checkpoints/ and samples/.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

import jaxgen
from experiments import topology
from experiments.command import exit_status
from experiments.options import FAMILIES, GANOptions, VAEOptions, parse
from experiments.watching import Dataset, Evaluation, Pictures
from jaxgen import data
from jaxgen.keys import named_key, step_key
from jaxgen.training import loop
from jaxgen.training.checkpoint import Checkpoints, shape_differences, summary
from jaxgen.training.monitor import Monitor
from jaxgen.training.run import Run, Spec, State, init_state, to_plain

# What belongs to one invocation of the command and not to the run.
NOT_SAVED = {"resume": False, "mesh": None, "coordinator": None, "num_processes": None, "process_id": None}


class Data(NamedTuple):
    """What a run learns from: this process's rows of the training split, and the whole test split."""

    train: Dataset
    test: Dataset
    num_examples: int  # of the training split, over all processes
    num_classes: int | None  # the largest label of both splits and one more; None without labels
    sha256: str


def load_data(options: VAEOptions | GANOptions, mesh: jax.sharding.Mesh | None) -> Data:
    """Load this process's share of the training split and the test split, binarised where that is asked for."""
    load = partial(
        data.load,
        options.dataset,
        data_dir=options.data_dir,
        manual_dir=options.manual_dir,
        image_size=options.image_size,
        color=options.color,
    )
    share = loop.Share(jax.process_index(), jax.process_count(), 1 if mesh is None else mesh.shape["data"])
    train, test = load(options.train_split, rows=share.rows), load(options.test_split)
    if train["image"].shape[1:] != test["image"].shape[1:]:
        raise ValueError(
            f"{options.dataset}: training images are {list(train['image'].shape[1:])}, test images "
            f"{list(test['image'].shape[1:])}: give one size for all (--image-size 64)"
        )
    num_examples = topology.total(len(train["image"]))
    first = share.rows(num_examples).start
    binarization = getattr(options, "binarization", "none")
    if binarization != "none":
        test["image"] = data.binarize_set(test["image"])
    if binarization == "static":
        train["image"] = data.binarize_set(train["image"], first)
    if options.batch_size > num_examples:
        raise ValueError(
            f"--batch-size {options.batch_size} is larger than {options.dataset} with its {num_examples} "
            f"training images: use at most {num_examples}"
        )
    num_classes = None
    if "label" in train:
        labels = [split["label"] for split in (train, test) if "label" in split and len(split["label"])]
        num_classes = topology.largest(1 + max(int(label.max()) for label in labels))
    return Data(train, test, num_examples, num_classes, f"{topology.total(data.fingerprint(train, first)):064x}")


def identity(options: VAEOptions | GANOptions, spec: Spec, loaded: Data) -> dict[str, Any]:
    """What makes a run this run, as plain data. Paths are no part of it: the images themselves are."""
    kind, _, path = options.dataset.partition(":")
    return {
        "model": to_plain(spec),
        "data": {
            "name": kind if path else options.dataset,
            "split": options.train_split,
            "image_shape": list(loaded.train["image"].shape[1:]),
            "image_type": str(loaded.train["image"].dtype),
            "labels": "label" in loaded.train,
            "binarization": getattr(options, "binarization", "none"),
            "sha256": loaded.sha256,
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
    topology.connect(options)
    mesh = topology.build_mesh(options.mesh)
    family = next(name for name, kind in FAMILIES.items() if isinstance(options, kind))
    directory = options.workdir or next_free(Path("runs"), family)
    run = Run.open(directory) if Run.exists(directory) else None
    if run is not None and not options.resume:
        raise FileExistsError(f"{directory} already holds a run: pass --resume to continue it, or another --workdir")
    loaded = load_data(options, mesh)
    spec: Any = options.spec(loaded.train["image"].shape[1:], loaded.num_classes)
    run_identity = identity(options, spec, loaded)
    if run is not None:
        run.check_identity(run_identity)
    training = build_loop(options, spec, loaded, mesh)
    state = initial_state(options, spec, loaded, training, None if run is None else run.steps())
    totals = training.zero_totals(state)

    device, say = jax.devices()[0], print if topology.is_primary() else lambda *_: None
    where = f"{device.platform} ({device.device_kind})" + (f", mesh {dict(mesh.shape)}" if mesh is not None else "")
    say(f"{family} on {options.dataset}: {loaded.num_examples} images, {where}")
    say(f"run directory: {directory}")
    run = create_together(run, directory, run_identity, family, options)
    with run.checkpoints(keep=options.keep) as checkpoints:
        if options.resume and not checkpoints.steps():
            say("no completed checkpoint: starting at step 0")
        elif options.resume:
            say(f"resuming from step {checkpoints.find('newest')}")
            state, totals = checkpoints.restore(checkpoints.find("newest"), state, totals)
        start = int(state.step)
        if start >= options.steps:
            say(f"already trained for {start} steps of {options.steps}: nothing to do")
            return directory
        run_key = jax.random.key(options.seed)
        evaluation = Evaluation(spec, loaded.test, run_key, getattr(options, "log_likelihood_samples", None))
        pictures = Pictures(spec, loaded.test, run_key)
        with Monitor(directory, start) if topology.is_primary() else nullcontext() as monitor:
            drive(options, run, training, state, totals, checkpoints, monitor, evaluation, pictures, mesh)
    return directory


def build_loop(options: VAEOptions | GANOptions, spec: Any, loaded: Data, mesh: jax.sharding.Mesh | None) -> loop.Loop:
    """The compiled loop of a run."""
    key = jax.random.key(options.seed)
    step: Any = partial(jaxgen.gan_step if isinstance(spec, jaxgen.GAN) else jaxgen.vae_step, spec)
    dynamic = getattr(options, "binarization", "none") == "dynamic"
    transform = dynamic_binarization(key) if dynamic else None
    return loop.Loop(step, loaded.train, key, options.batch_size, transform, mesh, loaded.num_examples)


def initial_state(
    options: VAEOptions | GANOptions, spec: Spec, loaded: Data, training: loop.Loop, steps: list[int] | None
) -> Any:
    """A fresh state in its place on the mesh, with borrowed weights where they are asked for and still matter."""
    example = {name: np.zeros((1, *array.shape[1:]), array.dtype) for name, array in loaded.train.items()}
    key = named_key(jax.random.key(options.seed), "init")
    state = init_state(spec, key, example)
    if options.init_from is not None and not steps:
        state = borrow_weights(state, options.init_from)
    return jax.jit(training.place)(jax.device_get(state))


def create_together(
    run: Run | None, directory: Path, run_identity: dict[str, Any], family: str, options: VAEOptions | GANOptions
) -> Run:
    """The run, made by one process after all have looked, and opened by the others after it is made."""
    topology.wait_for_all("looked for a run")
    if run is None and topology.is_primary():
        saved = {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(options).items()}
        Run.create(directory, run_identity, {"family": family, "options": {**saved, **NOT_SAVED}})
    topology.wait_for_all("made a run")
    return Run.open(directory)


def drive(
    options: VAEOptions | GANOptions,
    run: Run,
    training: loop.Loop,
    state: Any,
    totals: loop.Totals,
    checkpoints: Checkpoints,
    monitor: Monitor | None,
    evaluation: Evaluation,
    pictures: Pictures,
    mesh: jax.sharding.Mesh | None,
) -> None:
    """Run the loop from stop to stop: log, evaluate, show, save. Without a monitor, only compute along."""
    step, last = int(state.step), options.steps
    cadences = (options.log_every, options.eval_every, options.sample_every, options.checkpoint_every)
    zero = jax.device_get(training.zero_totals(state))
    best = checkpoints.best_score()
    since, since_step = time.perf_counter(), step
    quiet, interval = monitor is None, 0.2 if sys.stderr.isatty() else 10.0
    with tqdm(total=last, initial=step, unit=" steps", mininterval=interval, disable=quiet) as bar:
        while step < last:
            stop = loop.next_stop(step, last, cadences)
            state, totals = training.run(state, totals, stop - step)
            jax.block_until_ready(state)
            bar.update(stop - step)
            step = stop
            if step % options.log_every == 0:
                row, totals = loop.means(totals), training.place_totals(zero)
                now = time.perf_counter()
                speed = (step - since_step) / (now - since)
                since, since_step = now, step
                if monitor is not None:
                    monitor.write(step, {**row, "time_steps_per_second": speed})
                bar.set_postfix({name: f"{value:.4g}" for name, value in row.items()}, refresh=False)
            score = None
            whole = topology.local_copy(state, mesh) if _looks(options, step) else None
            if step % options.eval_every == 0 or step == last:
                measured, score = evaluation(whole)
                score = topology.agree(score)
                if step % options.eval_every == 0 and monitor is not None:
                    monitor.write(step, measured)
                listed = "  ".join(f"{name} {value:.4f}" for name, value in measured.items())
                if monitor is not None:
                    bar.write(f"step {step}: {listed}")
            if (step % options.sample_every == 0 or step == last) and monitor is not None:
                written = pictures(whole, step, monitor)
            is_best = score is not None and (best is None or score > best)
            best = score if is_best else best
            if step % options.checkpoint_every == 0 or step == last or is_best:
                checkpoints.save(step, state, totals, run.config, score)
    for path in written if monitor is not None else ():
        print(f"picture: {path}")


def _looks(options: VAEOptions | GANOptions, step: int) -> bool:
    """Whether somebody evaluates or shows the state of this step."""
    return step % options.eval_every == 0 or step % options.sample_every == 0 or step == options.steps


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns its exit status."""
    return exit_status(lambda: train(parse(sys.argv[1:] if arguments is None else arguments)))


if __name__ == "__main__":
    sys.exit(main())
