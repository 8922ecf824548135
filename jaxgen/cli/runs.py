"""How a run begins and goes on: its identity, its directory, its first state; and its whole way, of `jaxgen train`."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import data, platform
from jaxgen.cli.latent_data import as_latents
from jaxgen.cli.next_commands import saying_how_to_go_on
from jaxgen.cli.options import Options, check_data, check_encoding, nothing_to_resume
from jaxgen.cli.progress import Bars
from jaxgen.data.standardization import Standardization, of_plain
from jaxgen.evaluation.during_training import COLUMNS, Evaluation, Pictures, class_rows, extractor_of
from jaxgen.evaluation.measures import check_unseen
from jaxgen.families import family_of
from jaxgen.keys import named_key, step_key
from jaxgen.training import loop, machine, manifest, processes
from jaxgen.training.checkpoint import Checkpoints
from jaxgen.training.files import exclusive
from jaxgen.training.monitor import Monitor, read_rows
from jaxgen.training.population import check_memory
from jaxgen.training.run import Run, Spec, State, differences, init_state, to_plain
from jaxgen.training.run_data import Data, dataset_name, dataset_title, load_data
from jaxgen.training.session import Session, Start
from jaxgen.training.stopping import StopRequest

# What schedulers count their starts of a job with, and from which number on it is not the first.
RESTARTS = {"SLURM_RESTART_COUNT": 1, "AWS_BATCH_JOB_ATTEMPT": 2}


def identity(options: Options, spec: Spec, loaded: Data) -> dict[str, Any]:
    """What makes a run this run, as plain data. Paths are no part of it: the images themselves are, by a sample."""
    return {
        "model": to_plain(spec),
        "data": {
            "name": dataset_name(options.dataset),
            "split": options.train_split,
            "num_examples": loaded.num_examples,
            "image_shape": list(loaded.example["image"].shape[1:]),
            "image_type": str(loaded.example["image"].dtype),
            "labels": "label" in loaded.example,
            "binarization": options.data_choice().binarization,
            "sha256": loaded.sha256,
            **({} if loaded.standardization is None else {"standardized": loaded.standardization.plain()}),
            **({"flip": True} if options.flip else {}),  # where it is not, older runs say nothing of it
        },
        "batch_size": options.batch_size,
        "seed": options.seed,
    }


def settings_of(options: Options, loaded: Data) -> dict[str, Any]:
    """What a run's config keeps besides its identity: its options, and the names of its classes."""
    names = {} if loaded.class_names is None else {"class_names": list(loaded.class_names)}
    return {**options.settings(), **names}


def claim_next_free(parent: Path, family: str) -> Path:
    """Make the first of FAMILY-001, FAMILY-002, ... that does not exist, for this command alone."""
    number = 1
    while True:
        directory = parent / f"{family}-{number:03d}"
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return directory


def borrow_weights(state: State, source: Path, partial: bool = False, say: Callable[[str], object] = print) -> State:
    """Put another run's parameters, collections and moving average into a fresh state; partially, those that fit."""
    other = Run.open(source).restore("newest")
    learnt = [name for name in state._fields if name.endswith(("params", "collections", "ema"))]
    names = [name for name in learnt if name not in ("hyperparams", "perceptual_params")]
    if type(other) is not type(state):
        raise ValueError(f"{source} holds a {type(other).__name__}, wanted a {type(state).__name__}")
    saved, wanted = ({name: getattr(s, name) for name in names} for s in (other, state))
    differing = manifest.array_differences(manifest.arrays(saved), manifest.arrays(wanted))
    if not differing:
        return state._replace(**saved)
    if not partial:
        raise ValueError(
            f"the weights of {source} do not fit: {manifest.summary(differing)}: --partial takes those that do"
        )
    theirs, own = manifest.paths(saved), manifest.arrays(wanted)
    if saved.get("ema", ...) is None:  # a moving average begins with what it is of
        theirs |= {name.replace("generator_", "ema/", 1): leaf for name, leaf in theirs.items() if name[:3] == "gen"}
    fit = {name: leaf for name, leaf in theirs.items() if own.get(name) == manifest.describe(leaf)}
    if not fit:
        raise ValueError(f"none of the weights of {source} fits: {manifest.summary(differing)}")
    left = [line for line in differing if line.partition(": ")[0] not in fit]
    say(f"{len(fit)} arrays are from {source}, and {len(left)} are not: {manifest.summary(left)}")

    def choose(place: Any, leaf: Any) -> Any:
        return fit.get(jax.tree_util.keystr(place, simple=True, separator="/"), leaf)

    return state._replace(**jax.tree_util.tree_map_with_path(choose, wanted))


def dynamic_binarization(batch: dict[str, jax.Array], key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
    """Draw each batch's binary images anew at every step."""
    return {**batch, "image": data.binarize(batch["image"], step_key(key, "binarization", step))}


def mirrored(batch: dict[str, jax.Array], key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
    """Mirror every second image of a batch left to right, by chance."""
    image = batch["image"]
    coins = jax.random.bernoulli(step_key(key, "flip", step), shape=(image.shape[0], 1, 1, 1))
    return {**batch, "image": jnp.where(coins, image[:, :, ::-1], image)}


def transform_of(options: Options) -> Any:
    """What is done to every batch at its step, as (batch, key, step) -> batch; None for nothing."""
    transforms = [mirrored] * options.flip
    if options.data_choice().binarization == "dynamic":
        transforms.append(dynamic_binarization)

    def transform(batch: dict[str, jax.Array], key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
        for each in transforms:
            batch = each(batch, key, step)
        return batch

    return transform if transforms else None


def train(options: Options) -> Path:
    """Train as the options say; returns the run directory."""
    options.check()
    processes.connect(options.coordinator, options.num_processes, options.process_id)
    mesh = processes.build_mesh(options.mesh)
    with ExitStack() as held:
        run, unbegun = find(options, held)
        options = with_dtype(options, run)
        known = None if run is None else of_plain(run.config["identity"]["data"].get("standardized"))
        loaded = learnt(options, mesh, known)
        spec: Any = options.model(loaded.example["image"].shape[1:], loaded.num_classes, loaded.unbounded)
        run_identity = identity(options, spec, loaded)
        extractor = extractor_of(options.extractor, options.dataset, loaded.test["image"].shape[1:])
        if extractor is not None:
            check_unseen(spec, extractor)
        if run is not None:
            run.check_identity(run_identity)
        key = jax.random.key(options.seed)
        trained = f"trained on {dataset_title(options.dataset)}, seed {options.seed}"
        pictures = Pictures(spec, loaded.test, key, trained, loaded.class_names)
        held_images = {} if isinstance(loaded.train, data.Source) else loaded.train
        check_memory(spec, loaded.example, 1, held_images, options.batch_size)
        training = build_loop(options, spec, loaded, mesh)
        held.callback(training.close)
        state = initial_state(options, spec, loaded, training, None if run is None else run.steps())
        totals = training.zero_totals(state)
        say = print if processes.is_primary() else lambda *_: None
        where = machine.described() + (f", mesh {dict(mesh.shape)}" if mesh is not None else "")
        say(f"{options.family} on {options.dataset}: {loaded.num_examples} images, {where}")
        for text in loaded.notes:
            say(text)
        if loaded.streams is not None:
            say(f"streaming the training images from where they are: {loaded.streams}")
        run = create_together(run, unbegun, run_identity, settings_of(options, loaded), options, held)
        say(f"run directory: {run.directory}")
        stop = held.enter_context(StopRequest())
        checkpoints = held.enter_context(
            run.checkpoints(
                keep=options.keep,
                keep_every=options.keep_every,
                asynchronous=options.checkpointing == "asynchronous",
            )
        )
        start = starting_point(options, run, loaded, Start(state, totals, looked=True, saved=False), checkpoints, say)
        step = int(start.state.step)
        if step >= options.steps and start.looked:
            say(f"already trained for {step} steps of {options.steps}: nothing to do")
            return run.directory
        monitor = None
        if processes.is_primary():
            monitor = held.enter_context(Monitor(run.directory, step if start.looked else step - 1))
            note(monitor, run, start)
        # Several processes evaluate together, or not at all.
        between = stop.check if jax.process_count() == 1 else lambda: None
        samples = getattr(options, "log_likelihood_samples", None)
        session = Session(
            cadence=options.cadence(),
            key=key,
            spec=spec,
            run=run,
            training=training,
            test=loaded.test_identity,
            checkpoints=checkpoints,
            monitor=monitor,
            evaluation=Evaluation(spec, loaded.test, key, samples, between, extractor),
            pictures=pictures,
            mesh=mesh,
            stop=stop,
            start=start,
        )
        with saying_how_to_go_on(options, run):
            for picture in session.train():
                say(f"picture: {picture}")
        rows = class_rows(spec)
        if rows is not None and loaded.class_names is not None:
            say(f"classes of samples, row by row: {', '.join(loaded.class_names[row] for row in rows[::COLUMNS])}")
    return run.directory


def learnt(options: Any, mesh: jax.sharding.Mesh | None, known: Standardization | None) -> Data:
    """The data as they are learnt: images, or their latents where the options say so."""
    first = getattr(options, "first_stage", lambda: None)()
    loaded = load_data(options.data_choice(), options.batch_size, mesh, known)
    if first is None:
        return loaded
    blocks = 1 if mesh is None else mesh.shape["data"]
    with Bars() as bars:
        progress = bars.begin(f"latents of {loaded.num_examples:,} images")
        return as_latents(loaded, first, options.dataset, blocks, progress)


def with_dtype(options: Any, run: Run | None) -> Any:
    """The options with the compute type that they mean here; a run goes on with that which it was begun with."""
    begun = None if run is None else run.config["settings"].get("options", {}).get("dtype")
    wanted, meant = options.dtype, platform.computed_dtype(options.dtype)
    if begun is not None and (wanted == "auto" or begun in (wanted, meant)):
        meant = begun
    elif wanted == "bfloat16" and meant == "float32" and processes.is_primary():
        print("--dtype bfloat16: this processor has no products of bfloat16, so that networks compute in float32")
    return dataclasses.replace(options, dtype=meant)


def find(options: Options, held: ExitStack) -> tuple[Run | None, Run | None]:
    """(the run to go on with, one of which nothing has been trained and which is begun anew): whichever there is in the
    --workdir, held; an error where that is not what was meant."""
    check_encoding(options.workdir or Path())
    if options.workdir is None or not Run.exists(options.workdir):
        if options.workdir is not None and options.resume and not (options.requeue or is_restarted()):
            raise nothing_to_resume(options.workdir)
        return None, None
    run = Run.open(options.workdir)
    if processes.is_primary():
        held.enter_context(run.lock())
    if not options.goes_on:
        if not run.began():
            return None, run
        raise FileExistsError(
            f"{run.directory} already holds a run: pass --resume to continue it, or another --workdir"
        )
    check_data(options.dataset, run.directory)
    return run, None


def is_restarted() -> bool:
    """Whether a scheduler says that it started the same command before."""
    counts = {name: os.environ.get(name, "") for name in RESTARTS}
    return any(counts[name].isdecimal() and int(counts[name]) >= least for name, least in RESTARTS.items())


def starting_point(options: Options, run: Run, loaded: Data, fresh: Start, checkpoints: Checkpoints, say: Any) -> Start:
    """Where a session begins: at the newest whole checkpoint, or afresh."""
    if not checkpoints.steps():
        # The folder is made before the first step.
        gone = not checkpoints.was_there and any(log.stat().st_size for log in run.directory.rglob("metrics.jsonl"))
        step = checkpoints.newest_saved()
        if gone or step is not None:
            what = "its checkpoints" if step is None else f"its checkpoint of step {step}"
            raise FileNotFoundError(
                f"{run.directory} was trained, and {what} cannot be found: put {checkpoints.directory} back from a "
                "copy, or start again in another --workdir"
            )
        if options.goes_on:
            say("no completed checkpoint: starting at step 0")
        return fresh
    restored = checkpoints.restore_newest({"state": fresh.state, "totals": fresh.totals})
    for reason in restored.damaged.values():
        say(f"warning: {reason}")
    saved = checkpoints.newest_saved()
    if saved is not None and saved > max((restored.step, *restored.damaged)):
        say(f"warning: checkpoint {saved} was saved in {checkpoints.directory} and is not there")
    run.check_identity(restored.manifest["config"]["identity"], f"checkpoint {restored.step}")
    say(f"resuming from step {restored.step}")
    made = {name: restored.manifest[name] for name in ("versions", "topology")}
    changed = differences(made, {"versions": machine.versions(), "topology": machine.topology()})
    if changed:
        say(f"the run goes on, but its bits may be others from here: {manifest.summary(changed)}")
    warnings = []
    # Runs of earlier versions do not say what they were evaluated on.
    others = differences(restored.manifest.get("test", loaded.test_identity), loaded.test_identity, "test images")
    if others:
        warnings.append(
            f"what is measured from here is measured on other test images, and the best is sought anew: "
            f"{manifest.summary(others)}"
        )
    for text in warnings:
        say(f"warning: {text}")
    looked = restored.manifest["looked"]
    return Start(restored.items["state"], restored.items["totals"], looked, looked, tuple(warnings))


def note(monitor: Monitor, run: Run, start: Start) -> None:
    """Keep in the log what was said of the start; a session that ended before its first checkpoint did so, too."""
    step = int(np.max(start.state.step))
    rows = read_rows(run.directory / "metrics.jsonl", step)
    for text in start.warnings:
        if {"step": step, "warning": text} not in rows:
            monitor.write(step, {"warning": text})


def build_loop(options: Options, spec: Any, loaded: Data, mesh: jax.sharding.Mesh | None) -> loop.Loop:
    """The compiled loop of a run."""
    if options.flip and len(loaded.example["image"].shape) != 4:
        raise ValueError(f"--flip is for images, {options.dataset} has examples of another shape: leave it out")
    key = jax.random.key(options.seed)
    step: Any = partial(family_of(spec).step, spec)
    sentinel: Any = "skip" if options.skip_bad_steps else "watch"
    return loop.Loop(
        step, loaded.train, key, options.batch_size, transform_of(options), mesh, loaded.num_examples, sentinel
    )


def initial_state(options: Options, spec: Spec, loaded: Data, training: loop.Loop, steps: list[int] | None) -> Any:
    """A fresh state in its place on the mesh, with borrowed weights where they are asked for and still matter."""
    key = named_key(jax.random.key(options.seed), "init")
    state = init_state(spec, key, loaded.example)
    if options.init_from is not None and not steps:
        say: Any = print if processes.is_primary() else lambda _: None
        state = borrow_weights(state, options.init_from, options.partial, say)
    state = state._replace(**options.held(loaded.example["image"].shape[1:]))
    if not bool(jax.jit(loop.all_finite)(state)):
        raise ValueError("the run would begin with numbers that are not finite: give smaller ones as options")
    return jax.jit(training.place)(jax.device_get(state))


def create_together(
    run: Run | None,
    unbegun: Run | None,
    run_identity: dict[str, Any],
    settings: dict[str, Any],
    options: Options,
    held: ExitStack,
) -> Run:
    """The run, made and held by one process after all have looked, and opened by the others after it is made."""
    processes.wait_for_all("looked for a run")
    if run is not None:
        return run
    directory = options.workdir
    if processes.is_primary():
        directory = claim(directory, options.family, held, unbegun)
        Run.create(directory, run_identity, settings, anew=unbegun is not None)
    return Run.open(Path(processes.agree_on_text(str(directory))))


def claim(directory: Path | None, name: str, held: ExitStack, unbegun: Run | None = None) -> Path:
    """Make and hold the directory of a new run, or take that of one that has not begun and is held; where an error ends
    the command before anything is trained, what was made goes."""
    made = directory is None or not directory.exists()
    if directory is None:
        directory = claim_next_free(Path("runs"), name)
    directory.mkdir(parents=True, exist_ok=True)
    if unbegun is None:
        held.enter_context(exclusive(directory))
    else:
        print(f"{directory} holds a run that ended before its first checkpoint: it begins again")
    theirs = {path.name for path in directory.iterdir()}  # what was there is never touched

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        log = directory / "metrics.jsonl"
        began = (directory / "checkpoints").is_dir() and any((directory / "checkpoints").iterdir())
        if kind is None or began or (log.is_file() and log.stat().st_size) or (directory / "bad_step").exists():
            return
        for name in {"config.json", "metrics.jsonl"} - theirs:
            (directory / name).unlink(missing_ok=True)
        for name in {"checkpoints", "tensorboard", "members"} - theirs:
            shutil.rmtree(directory / name, ignore_errors=True)
        if made and {path.name for path in directory.iterdir()} == {".lock"}:
            shutil.rmtree(directory)

    held.push(leave)
    return directory
