"""Populations: members equal separate runs, a sweep goes on where it was, and every mistake has a name."""

import dataclasses
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import data, losses, metrics, schedules
from jaxgen.cli import plot, sample, sweep, train
from jaxgen.cli.sweeping import plan as sweep_plan
from jaxgen.cli.sweeping import results as sweep_results
from jaxgen.cli.sweeping import session as sweep_session
from jaxgen.training import loop, population
from jaxgen.training.run import Run, init_state, optimizer
from tests import models
from tests.pictures import grids, words

KEYS = jax.vmap(jax.random.key)(np.arange(3))


def vae(**fields: Any) -> jaxgen.VAE:
    return models.vae(**{"optimizer": optimizer("adam", learning_rate=1e-2), **fields})


def gan(**fields: Any) -> jaxgen.GAN:
    optimizers = {f"{name}_optimizer": optimizer("adam", learning_rate=1e-3) for name in ("generator", "discriminator")}
    return models.gan(**{**optimizers, "ema_decay": 0.9, **fields})


def tokenizer(**fields: Any) -> jaxgen.Tokenizer:
    optimizers = dict.fromkeys(("optimizer", "discriminator_optimizer"), optimizer("adam", learning_rate=1e-3))
    return models.tokenizer(
        **{**optimizers, "ema_decay": 0.9, "lecam_weight": 0.1, "adversarial_weight": 0.5, **fields}
    )


POPULATIONS: dict[str, list[Any]] = {
    "vae": [vae(), vae(beta=2.0), vae(beta=0.5, optimizer=optimizer("adam", learning_rate=3e-3))],
    "gan": [gan(), gan(ema_decay=0.5), gan(discriminator_optimizer=optimizer("adam", learning_rate=3e-3))],
    "tokenizer": [
        tokenizer(),
        tokenizer(lecam_weight=0.2, reconstruction_weight=3.0),
        tokenizer(adversarial_weight=0.1, ema_decay=0.5, optimizer=optimizer("adam", learning_rate=3e-3)),
    ],
}


def make_loop(spec: Any, keys: jax.Array, **options: Any) -> loop.Loop:
    dataset = {"image": models.batch(40)["image"]}
    return loop.Loop(partial(models.step(spec), spec), dataset, keys, 16, **options)


@pytest.mark.parametrize(
    "family", ["gan", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vae", "tokenizer"))]
)
def test_members_are_the_runs_of_their_own_specs(family: str) -> None:
    """From the first state on, bit for bit, though one program trains them and theirs were compiled one by one."""
    specs = POPULATIONS[family]
    states = population.init(specs, KEYS, models.batch())
    training = make_loop(specs[0], KEYS, members="in_turn")
    trained, _ = training.run(states, training.zero_totals(states), 5)
    for m in (1, 2):
        state = init_state(specs[m], KEYS[m], models.batch())
        chex.assert_trees_all_equal(population.member(states, m), state)
    single = make_loop(specs[2], KEYS[2])
    chex.assert_trees_all_equal(population.member(trained, 2), single.run(state, single.zero_totals(state), 5)[0])


def test_masked_latents_are_not_used() -> None:
    specs: list[Any] = [vae(), gan()]
    sizes = [1, 2, 3]
    for spec in specs:
        states = population.init([spec] * 3, KEYS, models.batch(), sizes)
        np.testing.assert_array_equal(states.hyperparams["latent_mask"], [[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    z = jax.random.normal(jax.random.key(0), (4, 3))
    state = population.member(states, 1)
    moved = jaxgen.gan_generate(gan(), state, z.at[:, 2].add(5.0))
    np.testing.assert_array_equal(moved, jaxgen.gan_generate(gan(), state, z))
    assert not np.array_equal(moved, jaxgen.gan_generate(gan(), state, z.at[:, 1].add(5.0)))


def test_what_an_encoder_says_of_masked_latents_is_nothing() -> None:
    """They do not count as active units, whatever their initialisation makes of them."""
    state = population.member(population.init([vae()], KEYS[:1], models.batch(), [1]), 0)
    mean, logvar = jaxgen.vae_encode(vae(), state, models.batch())
    assert not np.any(mean[:, 1:])
    assert not np.any(logvar[:, 1:])
    assert int(metrics.active_units(100 * mean)) == 1
    deep = models.dlgm()
    states = population.init([deep], KEYS[:1], models.batch(), [2])
    assert [mask.tolist() for mask in states.hyperparams["latent_mask"]] == [[[1, 1, 0]], [[1, 1]]]


@pytest.mark.parametrize("num_steps", [1, 7])
def test_a_member_that_diverges_stays_where_it_was_last_finite(num_steps: int) -> None:
    """The others do not notice, and chunks of any length leave it at the same step."""
    specs = [vae(), vae(optimizer=optimizer("adam", learning_rate=1e30)), vae(beta=2.0)]
    states = population.init(specs, KEYS, models.batch())
    training = make_loop(specs[0], KEYS)
    state, totals, alive = states, training.zero_totals(states), np.ones(3, bool)
    for length in [num_steps] * (12 // num_steps) + [12 % num_steps] * (12 % num_steps > 0):
        state, totals, alive = population.advance(training, state, totals, alive, length)
    assert alive.tolist() == [True, False, True]
    assert models.finite((state, totals))
    assert state.step.tolist() == [12, 1, 12]
    assert totals.steps.tolist() == [12, 1, 12]
    for m in (0, 2):
        single = make_loop(specs[m], KEYS[m])
        start = init_state(specs[m], KEYS[m], models.batch())
        expected = single.run(start, single.zero_totals(start), 12)
        chex.assert_trees_all_equal((population.member(state, m), population.member(totals, m)), expected)


def test_dynamic_values_are_what_a_state_holds() -> None:
    spec = gan(weight_clipping=0.1, penalties=(losses.R1(),))
    assert population.dynamic_values(spec) == {
        "ema_decay": 0.9,
        "penalty_weight": 1.0,
        "weight_clipping": 0.1,
        "generator_optimizer.learning_rate": 1e-3,
        "discriminator_optimizer.learning_rate": 1e-3,
    }
    changed = population.with_values(spec, {"ema_decay": 0.5, "generator_optimizer.learning_rate": 0.1})
    faster = optimizer("adam", learning_rate=0.1)
    assert changed == dataclasses.replace(spec, ema_decay=0.5, generator_optimizer=faster)
    assert population.static_differences(spec, changed) == []
    assert "beta" not in population.dynamic_values(vae(beta=schedules.Linear(0.0, 1.0, 5)))


BAD_MEMBERS: dict[str, tuple[list[Any], list[int] | None, str]] = {
    "no member": ([], None, "at least one member"),
    "a static field": (
        [vae(), vae(num_samples=2)],
        None,
        "members 0 and 1 differ in num_samples.* members may differ in",
    ),
    "a field that one lacks": ([vae(), vae(free_bits=0.1)], None, "differ in free_bits"),
    "a schedule": ([vae(), vae(beta=schedules.Linear(0.0, 1.0, 5))], None, "differ in beta"),
    "two families": ([vae(), gan()], None, "differ in type"),
    "optimizers without names": ([models.vae(), models.vae()], None, "differ in optimizer"),
    "a size above the model's": ([vae(), vae()], [2, 4], "from 1 to the model's latent_dim, 3, got 4"),
    "no latents": ([vae()], [0], "from 1 to the model's latent_dim, 3, got 0"),
    "too few sizes": ([vae(), vae()], [2], "a latent size a member, 2, got 1"),
}


@pytest.mark.parametrize("name", BAD_MEMBERS)
def test_what_is_no_population_is_refused(name: str) -> None:
    specs, sizes, message = BAD_MEMBERS[name]
    with pytest.raises(ValueError, match=message):
        population.init(specs, KEYS[: len(specs)], models.batch(), sizes)


def test_a_population_has_a_key_a_member_and_fits_the_memory() -> None:
    with pytest.raises(ValueError, match=r"a key a member, \[2\], got keys of shape \[3\]"):
        population.init([vae(), vae()], KEYS, models.batch())
    dataset = {"image": models.batch(40)["image"]}
    population.check_memory(vae(), models.batch(), 1000, dataset)
    with pytest.raises(ValueError, match=r"population of 1000000000 members needs at least .* GB .*train at most \d+"):
        population.check_memory(vae(), models.batch(), 10**9, dataset)


# The command.

TINY = {
    "vae": ["vae", "--hidden", "16", "--latent-dim", "3", "--batch-size", "32"],
    "gan": ["gan", "--generator-hidden", "16", "--discriminator-hidden", "16", "--latent-dim", "3", "--penalty", "r1"],
    "tokenizer": [
        *("tokenizer", "--width", "2", "--bottleneck", "vq", "--codebook-size", "16", "--batch-size", "8"),
        *("--discriminator-width", "2", "--adversarial-start", "5"),
    ],
}
OVER = {"vae": "learning_rate=1e-3,1e-2", "gan": "penalty_weight=1,5", "tokenizer": "adversarial_weight=0.1,1"}
LAST = {
    "vae": ["--learning-rate", "1e-2", "--seed", "1"],
    "gan": ["--penalty-weight", "5", "--seed", "1"],
    "tokenizer": ["--adversarial-weight", "1", "--seed", "1"],
}
CADENCES = [
    "--steps",
    "20",
    "--log-every",
    "7",
    "--eval-every",
    "10",
    "--sample-every",
    "20",
    "--checkpoint-every",
    "10",
]


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "some.npz"
    some = data.load()
    np.savez(path, image=some["image"][::20], label=some["label"][::20])
    return f"npz:{path}"


def rows(directory: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: v for name, v in row.items() if not name.startswith("time_")} for row in lines]


def pictures(directory: Path) -> dict[str, list[bytes]]:
    """The images of each picture: a member's title has its setting, too."""
    return {path.name: [grid.tobytes() for grid in grids(path)] for path in (directory / "samples").iterdir()}


def assert_the_same_run(member: Path, single: Path) -> None:
    """State, log, images and identity, bit for bit."""
    chex.assert_trees_all_equal(Run.open(member).restore(20), Run.open(single).restore(20))
    assert rows(member) == rows(single)
    assert pictures(member) == pictures(single)
    assert Run.open(member).config["identity"] == Run.open(single).config["identity"]


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_members_of_all_families_are_runs_that_train_goes_on_with(family: str, npz: str, tmp_path: Path) -> None:
    common = [*TINY[family], *CADENCES, "--dataset", npz]
    swept, single = tmp_path / "swept", tmp_path / "single"
    assert sweep.main([*common, "--over", OVER[family], "--seeds", "2", "--workdir", str(swept)]) == 0
    assert train.main([*common, *LAST[family], "--workdir", str(single)]) == 0
    member = swept / "members" / "003"
    assert_the_same_run(member, single)
    assert train.main([family, "--workdir", str(member), "--resume", "--steps", "24"]) == 0
    assert train.main([family, "--workdir", str(single), "--resume", "--steps", "24"]) == 0
    chex.assert_trees_all_equal(Run.open(member).restore(24), Run.open(single).restore(24))


@pytest.fixture(scope="module")
def whole(npz: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A sweep over latent sizes in which one setting diverges, and its command without the workdir."""
    workdir = tmp_path_factory.mktemp("sweeps") / "whole"
    over = ["--over", "latent_dim=2,3", "--over", "learning-rate=1e-3,1e30", "--seeds", "2"]
    command = [*TINY["vae"][:3], *TINY["vae"][5:], *CADENCES, "--dataset", npz, *over]
    assert sweep.main([*command, "--workdir", str(workdir)]) == 0
    return command, workdir


def test_a_member_is_the_run_that_train_makes(whole: tuple[list[str], Path], tmp_path: Path) -> None:
    """In a sweep where others diverge, and where it uses all latents."""
    command, workdir = whole
    options = [*command[: command.index("--over")], "--latent-dim", "3", "--seed", "1"]
    assert train.main([*options, "--workdir", str(tmp_path / "single")]) == 0
    assert_the_same_run(workdir / "members" / "005", tmp_path / "single")
    name = Path("samples") / "samples_00000020.png"
    setting = "latent_dim=3 learning_rate=0.001 seed=1"
    said, expected = words(workdir / "members" / "005" / name), words(tmp_path / "single" / name)
    assert said.replace(setting, "seed 1") == expected


def test_a_sweep_leaves_its_answer(whole: tuple[list[str], Path], tmp_path: Path, capsys: Any) -> None:
    found = json.loads((whole[1] / "results.json").read_text())
    assert [row["setting"] for row in found["settings"]] == [
        {"latent_dim": size, "learning_rate": rate} for size in (2, 3) for rate in (1e-3, 1e30)
    ]
    assert [(row["seeds"], row["diverged"]) for row in found["settings"]] == [(2, 0), (0, 2)] * 2
    assert [member["finite_steps"] for member in found["members"]] == [20, 20, 1, 1] * 2
    scores = [member["scores"]["test_elbo"] for member in found["members"][:2]]
    first = found["settings"][0]["scores"]
    np.testing.assert_allclose(first["test_elbo"]["mean"], np.mean(scores))
    np.testing.assert_allclose(first["test_elbo"]["standard_error"], abs(scores[0] - scores[1]) / 2)
    assert {"active_units", "test_squared_error", "test_sliced_wasserstein", "test_kl"} <= set(first)
    assert first["active_units"]["mean"] <= 2
    assert "ELBO of test images (test_elbo, higher is better). Across: " in words(whole[1] / "sweep.png")
    out = tmp_path / "chosen.png"
    assert plot.main([str(whole[1]), "--metric", "test_elbo", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert min(picture.size) > 200
    for arguments, message in (
        ([str(whole[1]), "--scores", "fid"], "no score 'fid': use one of active_units, "),
        ([str(tmp_path)], "expected config.json in it"),
        ([str(whole[1]), "--out", "answer.pdf"], "--out must end in .png, got answer.pdf"),
        ([], "name at least one run directory"),
    ):
        assert plot.main(arguments) == 1
        assert message in capsys.readouterr().err
    assert not [row for row in rows(whole[1] / "members" / "002") if row["step"] > 1]
    assert Run.open(whole[1] / "members" / "002").steps() == [1]
    out = tmp_path / "drawn.npz"
    assert sample.main([str(whole[1] / "members" / "004"), "--num", "5", "--out", str(out)]) == 0
    assert np.load(out)["images"].shape == (5, 28, 28, 1)


def test_a_sweep_that_is_stopped_goes_on_as_if_it_had_not_been(
    whole: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    command, expected = whole
    workdir = tmp_path / "parts"
    advance = sweep_session.SweepSession.advance

    def advance_or_fail(self: sweep_session.SweepSession) -> None:
        self.chunk_limit = 1
        advance(self)
        if self.step == 13:
            raise RuntimeError("something else is broken")

    with monkeypatch.context() as patch:
        patch.setattr(sweep_session.SweepSession, "advance", advance_or_fail)
        with pytest.raises(RuntimeError, match="something else"):
            sweep.main([*command, "--workdir", str(workdir)])
    capsys.readouterr()
    assert sweep.main(["vae", "--workdir", str(workdir), "--resume"]) == 0
    assert "resuming from step 13" in capsys.readouterr().out
    assert (workdir / "results.json").read_text() == (expected / "results.json").read_text()
    assert (workdir / "sweep.png").read_bytes() == (expected / "sweep.png").read_bytes()
    for number in ("000", "003", "006"):
        mine, others = (path / "members" / number for path in (workdir, expected))
        chex.assert_trees_all_equal(Run.open(mine).restore(), Run.open(others).restore())
        assert rows(mine) == rows(others)
    assert sweep.main(["vae", "--workdir", str(workdir), "--resume", "--seeds", "3"]) == 1
    assert "sweep.seeds was 2, now 3" in capsys.readouterr().err
    assert train.main(["vae", "--workdir", str(workdir), "--resume"]) == 1
    assert "holds another run" in capsys.readouterr().err
    assert sample.main([str(workdir), "--out", str(tmp_path / "none.png")]) == 1
    assert "holds a sweep: open one of its members" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_members_together_are_close_to_members_in_turn(family: str, npz: str, tmp_path: Path) -> None:
    common = [*TINY[family], *CADENCES, "--dataset", npz, "--over", OVER[family], "--seeds", "2"]
    for how in ("in_turn", "together"):
        assert sweep.main([*common, "--members", how, "--workdir", str(tmp_path / how)]) == 0
    for number in range(4):
        member = f"members/{number:03d}"
        states = [Run.open(tmp_path / how / member).restore(20) for how in ("in_turn", "together")]
        chex.assert_trees_all_close(*states, atol=1e-4)


@pytest.mark.slow
def test_when_every_member_diverges_the_sweep_says_so(npz: str, tmp_path: Path, capsys: Any) -> None:
    command = [*TINY["vae"], *CADENCES, "--dataset", npz, "--over", "learning_rate=1e30", "--seeds", "1"]
    assert sweep.main([*command, "--workdir", str(tmp_path / "run")]) == 1
    assert (
        "every member has diverged, the last of them learning_rate=1e+30 seed=0 after step 1" in capsys.readouterr().err
    )


def test_scores_of_one_seed_have_no_error(tmp_path: Path) -> None:
    members = [{"setting": {"beta": 1.0}, "diverged": False, "scores": {"a": 2.0}}]
    [row] = sweep_results.summarize([{"beta": 1.0}], members)
    assert row["scores"] == {"a": {"mean": 2.0, "standard_error": None}}
    assert "| 2 |" in sweep_results.table([row])
    sweep_results.draw({"": [row]}, tmp_path / "one.png")
    assert "of one seed, so without errors" in words(tmp_path / "one.png")


BAD_SWEEPS: dict[str, tuple[str, str]] = {
    "unknown family": ("vea --over beta=1", "unknown family 'vea': usage: jaxgen sweep"),
    "unknown field": (
        "vae --over learning_rte=1e-3",
        "no such option; did you mean learning_rate. --over may vary beta, free_bits, latent_dim, learning_rate here",
    ),
    "static field": ("vae --over batch_size=64,128", "batch_size: static .* --over may vary beta, free_bits"),
    "left out of the model where it is the usual one": ("vae --over b1=0.5,0.9", "b1: static with these options"),
    "static number": ("gan --over dropout_rate=0.1,0.5", "dropout_rate: static .* may vary b1, b2, .*latent_dim"),
    "no part": ("gan --over penalty_weight=1,10", "penalty_weight: static .* plays no part"),
    "scheduled": ("vae --beta-warmup 10 --over beta=1,2", "beta: static .* is scheduled"),
    "seeds as a field": ("vae --over seed=0,1", "seeds are given by --seeds"),
    "no number": ("vae --over beta=1,two", "beta: expected finite numbers with commas between them, got 'two'"),
    "not a number": ("vae --over beta=nan", "expected finite numbers .* got 'nan'"),
    "negative rate": ("vae --over learning_rate=-1", "--over learning_rate must be at least 0, got -1"),
    "negative beta": ("vae --over beta=1,-1", "--over beta must be at least 0, got -1"),
    "b1 of 1": ("gan --over b1=1", r"--over b1 must be in \[0, 1\), got 1"),
    "half a latent": ("vae --over latent_dim=2.5", "expected whole numbers of at least 1, got '2.5'"),
    "too many latents": ("vae --latent-dim 4 --over latent_dim=2,8", "to the model's latent_dim, 4, got 8"),
    "twice an axis": ("vae --over beta=1 --over beta=2", "beta is there twice: put all its values into one list"),
    "twice a value": ("vae --over beta=1,1", "1 is there twice; for repetitions use --seeds"),
    "an empty list": ("vae --over beta=", "must be like learning_rate=1e-3,3e-4, got 'beta='"),
    "no list": ("vae --over beta", "must be like learning_rate=1e-3,3e-4, got 'beta'"),
    "nothing": ("vae --over", "must be like learning_rate=1e-3,3e-4, got ''"),
    "no seeds": ("vae --over beta=1 --seeds 0", "--seeds must be at least 1, got 0"),
    "seeds that are no number": ("vae --seeds many", "--seeds must be a whole number, got 'many'"),
    "no way to compute": ("vae --members apart", "--members must be together or in_turn, got 'apart'"),
    "a mesh": ("vae --over beta=1,2 --mesh data=2", "--mesh is not for sweeps"),
    "bad steps": ("vae --over beta=1,2 --skip-bad-steps 3", "--skip-bad-steps is not for sweeps"),
    "a stream": ("vae --over beta=1,2 --streaming always", "share images held on the device, and these stream"),
    "too many": (
        "vae --hidden 3000 3000 --over beta=1,2 --seeds 10000",
        "a population of 20000 members needs at least",
    ),
}


@pytest.mark.parametrize("name", BAD_SWEEPS)
def test_bad_sweeps_get_one_clear_line_and_leave_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD_SWEEPS[name]
    assert sweep.main(arguments.split()) == (2 if name == "unknown family" else 1)
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_plan_of_a_command() -> None:
    plan = sweep_plan.parse_plan(["gan", "--over", "latent-dim=4,16", "--over=b1=0.0,0.5", "--seeds=2", "--seed", "7"])
    chosen: Any = plan.options
    assert chosen.latent_dim == 16  # the model has the largest, the masks do the rest
    assert plan.seeds == 2
    members = plan.members((28, 28, 1), None)
    assert [str(member) for member in members[:3]] == [
        "latent_dim=4 b1=0 seed=7",
        "latent_dim=4 b1=0 seed=8",
        "latent_dim=4 b1=0.5 seed=7",
    ]
    assert [member.latent_size for member in members] == [4, 4, 4, 4, 16, 16, 16, 16]
    options: Any = plan.options
    expected = dataclasses.replace(options, b1=0.5, seed=8).spec((28, 28, 1))
    assert members[3].spec == expected
    assert jnp.array_equal(jax.random.key_data(sweep_plan.keys(members)[1]), jax.random.key_data(jax.random.key(8)))
