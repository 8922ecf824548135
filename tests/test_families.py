"""A new family is one file and one row: a toy one trains, resumes, is saved, drawn from, measured and used."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import families, modules, networks
from jaxgen.batches import to_float
from jaxgen.evaluation import extractors, measures
from jaxgen.evaluation.during_training import Evaluation, Pictures, class_rows
from jaxgen.evaluation.subject import Settings, Subject
from jaxgen.keys import example_keys, named_key, step_key
from jaxgen.plain import init_state, optimizer, spec_from_plain, to_plain
from jaxgen.training import loop, population, sentinel
from jaxgen.training.monitor import Monitor
from jaxgen.training.run import Run
from jaxgen.training.session import Cadence, Session, Start
from jaxgen.training.stopping import StopRequest
from jaxgen.weights import load_weights, save_weights


@dataclasses.dataclass(frozen=True)
class Moments:
    """Matches the mean and the spread of each pixel: a generator trained by moments."""

    painter: Any
    optimizer: Any
    noise_dim: int = 3

    @property
    def hyperparams(self) -> dict[str, Any]:
        """Its fields that the state holds: none."""
        return {}


class MomentsState(NamedTuple):
    step: Any
    params: Any
    optimizer_state: Any
    hyperparams: dict[str, Any]


def moments_init(spec: Moments, key: jax.Array, batch: Any) -> MomentsState:
    params, _ = modules.initialize(spec.painter, key, jnp.zeros((1, spec.noise_dim)))
    hyperparams = {"latent_mask": jnp.ones(spec.noise_dim)}
    return MomentsState(jnp.zeros((), jnp.int32), params, spec.optimizer.init(params), hyperparams)


def paint(spec: Moments, params: Any, z: jax.Array) -> jax.Array:
    return modules.apply(spec.painter, params, {}, z, train=False, key=jax.random.key(0))[0]


@functools.partial(jax.jit, static_argnums=0)
def moments_step(spec: Moments, state: MomentsState, batch: Any, key: jax.Array) -> Any:
    images = to_float(batch["image"])

    def loss(params: Any) -> jax.Array:
        z = jax.random.normal(step_key(key, "moments step", state.step), (len(images), spec.noise_dim))
        made = paint(spec, params, z)
        return jnp.mean(jnp.square(made.mean(0) - images.mean(0)) + jnp.square(made.std(0) - images.std(0)))

    value, gradient = jax.value_and_grad(loss)(state.params)
    updates, optimizer_state = spec.optimizer.update(gradient, state.optimizer_state, state.params)
    params = jax.tree.map(jnp.add, state.params, updates)
    return state._replace(step=state.step + 1, params=params, optimizer_state=optimizer_state), {"loss": value}


def moments_sample(spec: Moments, state: MomentsState, key: jax.Array, num_samples: int, label: Any = None) -> Any:
    keys = example_keys(named_key(key, "moments sample"), num_samples)
    return paint(spec, state.params, jax.vmap(lambda key: jax.random.normal(key, (spec.noise_dim,)))(keys))


ROW = families.Family(
    name="moments",
    title="moment matcher",
    summary="A painter learns the moments of the pixels.",
    spec=Moments,
    state=MomentsState,
    init=moments_init,
    step=moments_step,
    networks=lambda spec: {"painter": (spec.painter,)},
    decoder="painter",
    in_use=("painter",),
    latent_dims=lambda spec: (spec.noise_dim,),
    parameters=lambda spec, state, z, label=None: paint(spec, state.params, z),
    decode=lambda spec, state, z, label=None: paint(spec, state.params, z),
    kept=lambda state: {"painter": state.params, "hyperparams": state.hyperparams, "step": state.step},
    restored=lambda spec, kept: MomentsState(
        kept["step"], kept["painter"], spec.optimizer.init(kept["painter"]), kept["hyperparams"]
    ),
    to_decode=lambda spec, state: state._replace(optimizer_state=None),
    sample=moments_sample,
)
SPEC = Moments(networks.MLPGenerator((8, 8, 1), hidden=(16,)), optimizer("adam", learning_rate=1e-2))


@pytest.fixture(autouse=True)
def _with_the_row() -> Iterator[None]:
    families.add(ROW)
    yield
    del families._families["moments"]


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)}


def train(run: Run, images: dict[str, np.ndarray], steps: int) -> list[Path]:
    """As ``train.py`` does, from the newest checkpoint on."""
    key = jax.random.key(0)
    training = loop.Loop(functools.partial(families.family_of(SPEC).step, SPEC), images, key, 20)
    state = jax.jit(training.place)(jax.device_get(init_state(SPEC, named_key(key, "init"), images)))
    cadence = Cadence(steps, log_every=5, eval_every=10, sample_every=10, checkpoint_every=10)
    start = Start(state, training.zero_totals(state), looked=True, saved=False)
    with run.checkpoints() as checkpoints, Monitor(run.directory, 0) as monitor, StopRequest() as stop:
        if checkpoints.steps():
            found = checkpoints.restore_newest({"state": state, "totals": start.totals})
            start = Start(found.items["state"], found.items["totals"], looked=True, saved=True)
        session = Session(
            cadence=cadence,
            key=key,
            spec=SPEC,
            run=run,
            training=training,
            test={"sha256": "the same"},
            checkpoints=checkpoints,
            monitor=monitor,
            evaluation=Evaluation(SPEC, images, key, extractor=extractors.pixels()),
            pictures=Pictures(SPEC, images, key),
            mesh=None,
            stop=stop,
            start=start,
        )
        return session.train()


def test_it_trains_resumes_is_saved_and_is_used(images: dict[str, np.ndarray], tmp_path: Path) -> None:
    data = {"image_shape": [8, 8, 1], "image_type": "uint8", "labels": False, "name": "noise", "sha256": "0"}
    identity = {"model": to_plain(SPEC), "data": data, "batch_size": 20, "seed": 0}
    runs = [Run.create(tmp_path / name, identity, {}) for name in ("whole", "resumed")]
    names = [picture.name for picture in train(runs[0], images, 20)]
    assert names == ["samples_00000020.png", "curves.png"], "it has nothing to reconstruct with"
    train(runs[1], images, 10)
    train(Run.open(runs[1].directory), images, 20)
    states = [Run.open(run.directory).restore() for run in runs]
    chex.assert_trees_all_equal(*states)
    row = (runs[0].directory / "metrics.jsonl").read_text()
    assert "test_sliced_wasserstein" in row
    assert "test_fd_pixels" in row
    assert Run.open(runs[0].directory).spec == SPEC
    model: Any = jaxgen.load(runs[0].directory)
    assert repr(model) == "Trained('whole': moment matcher, images [8, 8, 1], 3 latents)"
    key = jax.random.key(1)
    np.testing.assert_allclose(model.sample(key, 4), moments_sample(SPEC, states[0], key, 4), atol=1e-6)
    assert model.decode(jnp.zeros((2, 3))).shape == (2, 8, 8, 1)
    inverted = model.invert(images["image"][:1], key, num_steps=2, num_restarts=2)
    assert inverted.images.shape == (1, 8, 8, 1)
    likely = model.log_likelihood(
        images["image"][:1], key, likelihood=jaxgen.losses.gaussian(scale=0.3), num_chains=2, num_temperatures=4
    )
    assert np.isfinite(likely).all()
    with pytest.raises(TypeError, match="whole is a moment matcher, which has no encoder: use invert"):
        model.encode(images["image"])
    save_weights(tmp_path / "it.safetensors", SPEC, states[0], image_shape=(8, 8, 1), image_type="uint8")
    loaded = load_weights(tmp_path / "it.safetensors")
    chex.assert_trees_all_equal(loaded.state.params, states[0].params)


def test_it_is_measured_and_watched(images: dict[str, np.ndarray], key: jax.Array) -> None:
    state = init_state(SPEC, key, images)
    assert class_rows(SPEC) is None
    assert measures.why_not("elbo", SPEC, (8, 8, 1), "noise", False) == "a moment matcher has no encoder"
    assert measures.why_not("nearest", SPEC, (8, 8, 1), "noise", False) is None
    subject = Subject(SPEC, state, key, Settings())
    assert subject.sample(3, None, False, lambda *_: None).shape == (3, 8, 8, 1)
    assert families.family_of(SPEC).collapse(SPEC, {}, {"sample_diversity": 0.0}, 9) == [], (
        "nothing is known of its collapse"
    )
    batch = {"image": images["image"][:20]}
    assert set(sentinel.gradients(SPEC, state, batch, key)) == {"params"}
    states = population.init([SPEC, SPEC], jax.vmap(jax.random.key)(jnp.arange(2)), batch, [1, 2])
    assert states.hyperparams["latent_mask"].sum() == 3


def test_the_table(key: jax.Array) -> None:
    assert [family.name for family in families.families()] == [
        *("gan", "vae", "tokenizer", "latent_gan", "latent_vae", "moments")
    ]
    assert families.named_family("gan").spec is jaxgen.GAN
    with pytest.raises(ValueError, match=r"unknown family 'flow': use one of gan, .*, latent_vae, moments"):
        families.named_family("flow")
    with pytest.raises(ValueError, match="a family of the name 'moments' already"):
        families.add(dataclasses.replace(ROW, title="another"))
    with pytest.raises(TypeError, match=r"spec of a GAN or a VAE or a tokenizer or .* or a moment matcher, got int"):
        families.family_of(3)
    with pytest.raises(ValueError, match=r"spec must be a GAN or a VAE or a tokenizer or .* or a moment matcher"):
        spec_from_plain(3)
