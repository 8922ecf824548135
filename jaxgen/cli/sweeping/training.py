"""The way of a sweep: one program trains all members, each of which has a run directory."""

import dataclasses
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen import data
from jaxgen.cli import runs
from jaxgen.cli.next_commands import saying_how_to_go_on
from jaxgen.cli.sweeping import results as sweep_results
from jaxgen.cli.sweeping.plan import Member, Plan, keys
from jaxgen.cli.sweeping.session import SweepSession, Watched
from jaxgen.data.standardization import of_plain
from jaxgen.evaluation.during_training import Evaluation, Pictures, extractor_of
from jaxgen.families import family_of, named_family
from jaxgen.keys import named_key
from jaxgen.training import loop, machine, population
from jaxgen.training.files import write_text
from jaxgen.training.monitor import Monitor
from jaxgen.training.run import Run
from jaxgen.training.run_data import Data, dataset_title
from jaxgen.training.session import Start
from jaxgen.training.stopping import StopRequest


def sweep(plan: Plan) -> Path:
    """Train as the plan says; returns the sweep's directory."""
    plan.check()
    with ExitStack() as held:
        run, unbegun = runs.find(plan.options, held)
        plan = dataclasses.replace(plan, options=runs.with_dtype(plan.options, run))
        options = plan.options
        known = None if run is None else of_plain(run.config["identity"]["data"].get("standardized"))
        loaded = runs.learnt(options, None, known)
        members = plan.members(loaded.example["image"].shape[1:], loaded.num_classes, loaded.unbounded)
        check(members, loaded)
        identity = sweep_identity(plan, loaded)
        if run is not None:
            run.check_identity(identity)
        training = build_loop(plan, members, loaded)
        state = jax.device_put(initial_state(members, loaded))
        fresh = Start(state, training.zero_totals(state), looked=True, saved=False)
        Pictures(members[0].spec, loaded.test, jax.random.key(0))  # refuses what cannot be shown
        run = create(plan, identity, loaded, unbegun, held) if run is None else run
        what = f"{len(members)} members of {plan.family} on {options.dataset}"
        print(f"{what}: {loaded.num_examples} images, {machine.described()}")
        for text in loaded.notes:
            print(text)
        print(f"sweep directory: {run.directory}")
        stop = held.enter_context(StopRequest())
        checkpoints = held.enter_context(
            run.checkpoints(
                keep=options.keep,
                keep_every=options.keep_every,
                asynchronous=options.checkpointing == "asynchronous",
            )
        )
        start = runs.starting_point(options, run, loaded, fresh, checkpoints, print)
        session = SweepSession(
            watch(plan, run, members, loaded, start, stop, held),
            cadence=options.cadence(),
            key=jax.random.key(options.seed),
            spec=members[0].spec,
            run=run,
            training=training,
            test=loaded.test_identity,
            checkpoints=checkpoints,
            stop=stop,
            start=start,
        )
        done, began = session.step, time.perf_counter()
        with saying_how_to_go_on(options, run, "sweep", f" --members {plan.how}" if plan.how else ""):
            session.train()
            if session.step > done:
                print(f"{session.step - done} steps of {len(members)} members: {time.perf_counter() - began:.0f} s")
            report(plan, run.directory, session.step, session.finish())
    return run.directory


def check(members: Sequence[Member], loaded: Data) -> None:
    """Refuse a population that cannot be trained, before any of it is made."""
    if isinstance(loaded.train, data.Source):
        raise ValueError(
            f"the members of a sweep share images held on the device, and these stream ({loaded.streams}): use "
            "--streaming never, fewer images, or a smaller --image-size"
        )
    specs, sizes = [member.spec for member in members], latent_sizes(members)
    population.check_members(specs, sizes)
    population.check_memory(specs[0], loaded.example, len(members), loaded.train, members[0].options.batch_size)


def latent_sizes(members: Sequence[Member]) -> list[int] | None:
    """Latent dimensions that each member uses; None where all use all."""
    sizes = [member.latent_size for member in members]
    return None if sizes[0] is None else [size for size in sizes if size is not None]


def initial_state(members: Sequence[Member], loaded: Data) -> Any:
    """The members' fresh states, [M, ...]."""
    init_keys = jax.vmap(partial(named_key, name="init"))(keys(members))
    state = population.init([member.spec for member in members], init_keys, loaded.example, latent_sizes(members))
    held = members[0].options.held(loaded.example["image"].shape[1:])  # of one spec's static fields: alike in all
    return state._replace(**jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], len(members), axis=0), held))


def build_loop(plan: Plan, members: Sequence[Member], loaded: Data) -> loop.Loop:
    """The compiled loop of all members."""
    spec: Any = members[0].spec
    step: Any = partial(family_of(spec).step, spec)
    return loop.Loop(
        step, loaded.train, keys(members), plan.options.batch_size, runs.transform_of(plan.options), members=plan.how
    )


def sweep_identity(plan: Plan, loaded: Data) -> dict[str, Any]:
    """What makes a sweep this sweep, as plain data."""
    spec = plan.options.model(loaded.example["image"].shape[1:], loaded.num_classes, loaded.unbounded)
    return {**runs.identity(plan.options, spec, loaded), "sweep": plan.identity()}


def create(plan: Plan, identity: dict[str, Any], loaded: Data, unbegun: Run | None, held: ExitStack) -> Run:
    """Make the sweep's directory, and hold it."""
    directory = runs.claim(plan.options.workdir, "sweep", held, unbegun)
    settings = runs.settings_of(plan.options, loaded)
    run = Run.create(directory, identity, settings, anew=unbegun is not None)
    for config in (directory / "members").glob("*/config.json") if unbegun is not None else ():
        config.unlink()
    return run


def watch(
    plan: Plan,
    run: Run,
    members: Sequence[Member],
    loaded: Data,
    start: Start,
    stop: StopRequest,
    held: ExitStack,
) -> list[Watched]:
    """Make or open each member's run directory, with what watches it."""
    step = int(np.max(start.state.step))
    watched = []
    extractor = extractor_of(plan.options.extractor, plan.options.dataset, loaded.test["image"].shape[1:])
    for number, member in enumerate(members):
        identity = runs.identity(member.options, member.spec, loaded)
        directory = run.directory / "members" / f"{number:03d}"
        if Run.exists(directory):
            own = Run.open(directory)
            own.check_identity(identity)
        else:
            own = Run.create(
                directory, identity, {**runs.settings_of(member.options, loaded), "setting": member.setting}
            )
        monitor = held.enter_context(Monitor(directory, step if start.looked else step - 1))
        runs.note(monitor, own, start)
        key = jax.random.key(member.options.seed)
        samples = getattr(plan.options, "log_likelihood_samples", None)
        evaluation = Evaluation(members[0].spec, loaded.test, key, samples, stop.check, extractor)
        trained = f"trained on {dataset_title(plan.options.dataset)}, {member}"
        pictures = Pictures(members[0].spec, loaded.test, key, trained, loaded.class_names)
        watched.append(Watched(member, own, monitor, evaluation, pictures))
    return watched


def report(plan: Plan, directory: Path, steps: int, members: list[dict[str, Any]]) -> None:
    """Write what was found, and print it."""
    rows = sweep_results.summarize(plan.settings(), members)
    found = {"steps": steps, "settings": rows, "members": members}
    write_text(directory / "results.json", json.dumps(found, indent=2) + "\n")
    title = named_family(plan.family).title
    of = f"{title} on {dataset_title(plan.options.dataset)}, {steps:,} steps"
    sweep_results.draw({"": rows}, directory / "sweep.png", of=of)
    diverged = [f"{m['member']} (finite for {m['finite_steps']} steps)" for m in members if m["diverged"]]
    if diverged:
        print(f"diverged and left out of the means: members {', '.join(diverged)}")
    print(f"mean +- standard error over the seeds of each setting, after {steps} steps:")
    print(sweep_results.table(rows))
    print(f"picture: {directory / 'sweep.png'}")
