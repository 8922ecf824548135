"""A step means the same wherever a JAX program puts it: same global batch, same key, same new state."""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxgen
from jaxgen import losses
from tests import models

STEPS = 10
DEVICES = 4
SEEDS = 8
# A new family is a new row.
SPECS: dict[str, Any] = {
    "vae": models.vae(num_samples=2),
    "gan": models.gan(),
    "conv_gan": models.conv_gan(),
    "batch_norm_gan": models.batch_norm_gan(),
    "nnx_gan": models.nnx_gan(),
    "dcgan": models.dcgan(),
    "resnet_gan": models.resnet_gan(),
    "packed_gan": models.packed_gan(),
    "maxout_gan": models.maxout_gan(),
    "infogan": models.infogan(),
    "conv_vae": models.conv_vae(),
    "dlgm": models.dlgm(),
    "iwae": models.dlgm(objective=losses.iwae, num_samples=3, free_bits=None),
    "dreg": models.vae(objective=losses.dreg, num_samples=3),
    "vamp": models.vamp_vae(),
    "tokenizer": models.tokenizer(),
    "vq_tokenizer": models.vq_tokenizer(),
    "kl_tokenizer": models.kl_tokenizer(),
    "latent_gan": models.latent_gan(),
    "latent_vae": models.latent_vae(),
}
IN_CI = ("vae", "gan")
FAMILIES = [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in SPECS]


def adam() -> Any:
    return optax.adam(2e-4, b1=0.5)


WITH_ADAM = {
    "vae": models.vae(optimizer=adam()),
    "gan": models.gan(generator_optimizer=adam(), discriminator_optimizer=adam()),
    "conv_gan": models.conv_gan(generator_optimizer=adam(), discriminator_optimizer=adam()),
}


def batches() -> dict[str, jax.Array]:
    """Ten global batches, stacked; only numeric leaves, as a caller's own jit or pmap needs them."""
    stacked = [models.batch(seed=i) for i in range(STEPS)]
    return {name: jnp.asarray(np.stack([b[name] for b in stacked])) for name in ("image", "label")}


def at(t: int) -> dict[str, jax.Array]:
    return {name: leaf[t] for name, leaf in batches().items()}


def split(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: leaf.reshape(DEVICES, -1, *leaf.shape[1:]) for name, leaf in batch.items()}


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:DEVICES])


def learnt(state: Any) -> dict[str, Any]:
    """What a step has learnt: parameters, statistics and moving averages, without the optimizers' momenta."""
    names = [name for name in state._fields if name != "hyperparams" and "optimizer" not in name]
    averages = {name: value for name, value in state.hyperparams.items() if name.endswith("_average")}
    return {**{name: getattr(state, name) for name in names}, **averages}


def looped(step: Callable[..., Any], prepare: Callable[..., Any] = lambda b: b) -> Callable[..., Any]:
    def run(state: Any, key: jax.Array) -> tuple[Any, Any]:
        for t in range(STEPS):
            state, metrics = step(state, prepare(at(t)), key)
        return state, metrics

    return run


def eager(step: Callable[..., Any]) -> Callable[..., Any]:
    def run(state: Any, key: jax.Array) -> tuple[Any, Any]:
        with jax.disable_jit():
            return looped(step)(state, key)

    return run


def donated(step: Callable[..., Any]) -> Callable[..., Any]:
    compiled = jax.jit(step, donate_argnums=0)
    return lambda state, key: looped(compiled)(jax.tree.map(jnp.copy, state), key)


def sharded(step: Callable[..., Any]) -> Callable[..., Any]:
    place = NamedSharding(mesh(), P("data"))
    return looped(jax.jit(step), lambda b: jax.device_put(b, place))


def scanned(step: Callable[..., Any]) -> Callable[..., Any]:
    def run(state: Any, key: jax.Array) -> tuple[Any, Any]:
        state, metrics = jax.jit(lambda s, bs: jax.lax.scan(lambda s, b: step(s, b, key), s, bs))(state, batches())
        return state, {name: values[-1] for name, values in metrics.items()}

    return run


def pmapped(step: Callable[..., Any]) -> Callable[..., Any]:
    step = jax.pmap(
        partial(step, axis_name="data"),
        axis_name="data",
        in_axes=(None, 0, None),
        out_axes=None,
        devices=jax.devices()[:DEVICES],
    )
    return looped(step, split)


def shard_mapped(step: Callable[..., Any]) -> Callable[..., Any]:
    step = jax.jit(
        jax.shard_map(partial(step, axis_name="data"), mesh=mesh(), in_specs=(P(), P("data"), P()), out_specs=P())
    )
    return looped(step)


def vmapped(step: Callable[..., Any]) -> Callable[..., Any]:
    step = jax.vmap(partial(step, axis_name="data"), axis_name="data", in_axes=(None, 0, None), out_axes=None)
    return looped(jax.jit(step), split)


REGIMES = {
    "eager": eager,
    "donated": donated,
    "sharded": sharded,
    "scan": scanned,
    "pmap": pmapped,
    "shard_map": shard_mapped,
    "vmap": vmapped,
}


def in_ci(family: str, regime: str) -> bool:
    """Not the eager regime with its many small programs; a learnt prior, and a codebook, where the batch is split over
    devices."""
    if family in ("vamp", "vq_tokenizer"):
        return regime == "shard_map"
    return family in IN_CI and regime != "eager"


@pytest.mark.parametrize(
    ("family", "regime"),
    [
        pytest.param(family, regime, marks=() if in_ci(family, regime) else pytest.mark.slow)
        for family in SPECS
        for regime in REGIMES
    ],
)
def test_every_regime_gives_the_same_state(family: str, regime: str, key: jax.Array) -> None:
    spec = SPECS[family]
    step = partial(models.step(spec), spec)
    state = models.init(spec, key)
    expected, expected_metrics = looped(step)(state, key)
    got, got_metrics = REGIMES[regime](step)(state, key)
    assert int(got.step) == STEPS
    chex.assert_trees_all_close(learnt(got), learnt(expected), atol=2e-5, rtol=0)
    chex.assert_trees_all_close(got_metrics, expected_metrics, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", [f if f == "vae" else pytest.param(f, marks=pytest.mark.slow) for f in WITH_ADAM])
@pytest.mark.parametrize(
    "regime", ["shard_map", *(pytest.param(r, marks=pytest.mark.slow) for r in REGIMES if r != "shard_map")]
)
def test_adam_amplifies_no_round_off(family: str, regime: str, key: jax.Array) -> None:
    spec = WITH_ADAM[family]
    step = partial(models.step(spec), spec)
    state = models.init(spec, key)

    def parameters(state: Any) -> np.ndarray:
        trees = [tree for name, tree in learnt(state).items() if "params" in name]
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(trees)])

    expected, got = (parameters(run(state, key)[0]) for run in (looped(step), REGIMES[regime](step)))
    assert np.linalg.norm(got - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("check_vma", [True, False])
def test_the_gradient_under_shard_map_is_not_n_times_too_large(check_vma: bool, key: jax.Array) -> None:
    """With its replication checks on, `shard_map` sums the gradient of replicated parameters by itself.

    An average after that would leave it N times too large, which Adam hides and plain SGD shows.
    """
    vae = models.vae(optimizer=optax.sgd(1.0))
    state, batch = models.init(vae, key), at(0)
    step = partial(jaxgen.vae_step, vae, axis_name="data")
    mapped = jax.shard_map(step, mesh=mesh(), in_specs=(P(), P("data"), P()), out_specs=P(), check_vma=check_vma)
    ours, alone = jax.jit(mapped)(state, batch, key)[0], jaxgen.vae_step(vae, state, batch, key)[0]
    moved = [jax.tree.map(jnp.subtract, s.params, state.params) for s in (ours, alone)]
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(moved[1]["decoder"]))
    chex.assert_trees_all_close(*moved, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_seeds_under_vmap_equal_separate_runs(family: str) -> None:
    spec = SPECS[family]
    step = partial(models.step(spec), spec)
    keys = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
    states = jax.vmap(lambda k: models.init(spec, k))(keys)
    members = jax.jit(jax.vmap(step, in_axes=(0, None, 0)))
    for t in range(STEPS):
        states, _ = members(states, at(t), keys)
    for member in range(SEEDS):
        alone, _ = looped(step)(models.init(spec, jax.random.key(member)), jax.random.key(member))
        got = jax.tree.map(lambda leaf, member=member: leaf[member], states)
        # Relative too: a codebook's sums are of a hundred vectors of length 1.
        chex.assert_trees_all_close(learnt(got), learnt(alone), atol=1e-5, rtol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_hyperparams_of_members_differ_and_can_be_differentiated(family: str, key: jax.Array) -> None:
    spec = SPECS[family]
    state = models.init(spec, key)
    masks = jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])

    def changed(mask: jax.Array) -> dict[str, Any]:
        if "latent_mask" not in state.hyperparams:  # a tokenizer has none
            return {"reconstruction_weight": mask[1]}
        held = state.hyperparams["latent_mask"]
        return {"latent_mask": (mask, *held[1:]) if isinstance(held, tuple) else mask}

    def run(mask: jax.Array) -> jax.Array:
        member = state._replace(hyperparams={**state.hyperparams, **changed(mask)})
        metrics = {}
        for t in range(2):
            member, metrics = models.step(spec)(spec, member, at(t), key)
        return metrics["loss" if "loss" in metrics else "discriminator_loss"]

    results = jax.vmap(run)(masks)
    np.testing.assert_allclose(results, [run(m) for m in masks], rtol=1e-5)
    assert results[0] != results[1]
    assert models.finite(jax.grad(run)(masks[1]))


@pytest.mark.slow
def test_learning_rate_can_be_differentiated_through_unrolled_steps(key: jax.Array) -> None:
    vae = models.vae(optimizer=optax.inject_hyperparams(optax.sgd)(learning_rate=0.01))
    state = models.init(vae, key)

    def loss_after(learning_rate: jax.Array) -> jax.Array:
        optimizer_state = state.optimizer_state._replace(hyperparams={"learning_rate": learning_rate})
        member = state._replace(optimizer_state=optimizer_state)
        for t in range(3):
            member, metrics = jaxgen.vae_step(vae, member, at(t), key)
        return metrics["loss"]

    rate = jnp.float32(0.01)
    slope = (loss_after(rate + 1e-3) - loss_after(rate - 1e-3)) / 2e-3
    np.testing.assert_allclose(jax.grad(loss_after)(rate), slope, rtol=2e-2)


@pytest.mark.slow
def test_members_of_a_population_have_their_own_learning_rates_and_betas(key: jax.Array) -> None:
    vae = models.vae(optimizer=optax.inject_hyperparams(optax.adam)(learning_rate=1e-3))

    def train(learning_rate: jax.Array, beta: jax.Array) -> Any:
        state = models.init(vae, key)
        held = {**state.optimizer_state.hyperparams, "learning_rate": learning_rate}
        state = state._replace(
            optimizer_state=state.optimizer_state._replace(hyperparams=held),
            hyperparams={**state.hyperparams, "beta": beta},
        )
        return looped(partial(jaxgen.vae_step, vae))(state, key)[0]

    rates, betas = jnp.array([1e-3, 1e-2, 1e-2]), jnp.array([1.0, 1.0, 4.0])
    members = jax.jit(jax.vmap(train))(rates, betas)
    for member in range(3):
        got = jax.tree.map(lambda leaf, member=member: leaf[member], members)
        chex.assert_trees_all_close(learnt(got), learnt(train(rates[member], betas[member])), atol=1e-5, rtol=0)
    kernels = members.params["decoder"]["output"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1], atol=1e-4)
    assert not np.allclose(kernels[1], kernels[2], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_trace_for_many_calls(family: str, key: jax.Array) -> None:
    spec = SPECS[family]
    traces = 0

    def counted(state: Any, batch: Any, key: jax.Array) -> Any:
        nonlocal traces
        traces += 1
        return models.step(spec)(spec, state, batch, key)

    step = jax.jit(counted)
    state = models.init(spec, key)
    for t in range(100):
        state, _ = step(state, at(t % STEPS), key)
    assert traces == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_lower_for_every_platform(family: str, key: jax.Array) -> None:
    """On any machine: the step, gradients included, as StableHLO for CPU, GPU and TPU."""
    spec = SPECS[family]
    state = models.init(spec, key)
    step = jax.jit(partial(models.step(spec), spec))
    for platform in ("cpu", "cuda", "tpu"):
        exported = jax.export.export(step, platforms=[platform])(state, at(0), key)
        assert exported.platforms == (platform,)
        assert "stablehlo.dot_general" in exported.mlir_module()


def test_explicit_meshes_work_under_shard_map_and_are_refused_elsewhere(key: jax.Array) -> None:
    explicit = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:DEVICES])
    vae = SPECS["vae"]
    state = models.init(vae, key)
    batch = jax.device_put(at(0), NamedSharding(explicit, P("data")))
    with pytest.raises(ValueError, match="explicit mesh axis 'data', a step needs automatic ones"):
        jaxgen.vae_step(vae, state, batch, key)
    step = partial(jaxgen.vae_step, vae, axis_name="data")
    mapped = jax.shard_map(step, mesh=explicit, in_specs=(P(), P("data"), P()), out_specs=P())
    expected, _ = jaxgen.vae_step(vae, state, at(0), key)
    chex.assert_trees_all_close(learnt(jax.jit(mapped)(state, batch, key)[0]), learnt(expected), atol=2e-5, rtol=0)


def test_misplaced_calls_are_refused(key: jax.Array) -> None:
    vae, gan = models.vae(), models.gan()
    state = models.init(vae, key)
    with pytest.raises(ValueError, match="axis_name='data' is no mapped axis here"):
        jaxgen.vae_step(vae, state, at(0), key, axis_name="data")
    step = partial(jaxgen.vae_step, vae, axis_name="batch")
    mapped = jax.shard_map(step, mesh=mesh(), in_specs=(P(), P("data"), P()), out_specs=P())
    with pytest.raises(ValueError, match=r"axis_name='batch' is no mapped axis here, the mesh has \('data',\)"):
        mapped(state, at(0), key)
    with pytest.raises(TypeError, match="must be a GANState, got VAEState"):
        jaxgen.gan_step(gan, state, at(0), key)
    wider = jaxgen.VAE(
        jaxgen.networks.MLPEncoder(models.LATENT_DIM, hidden=(32,)), vae.decoder, vae.optimizer, models.LATENT_DIM
    )
    with pytest.raises(Exception, match=r'"kernel".*\(16, 16\).*\(16, 32\)|"kernel".*\(16, 32\).*\(16, 16\)'):
        jaxgen.vae_step(wider, state, at(0), key)


def test_batch_statistics_without_an_axis_are_refused(key: jax.Array) -> None:
    from flax import linen as nn

    class Blind(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, label: Any = None, *, train: bool) -> jax.Array:
            x = nn.BatchNorm(use_running_average=not train)(x.reshape(x.shape[0], -1))
            return nn.Dense(1)(x)[:, 0]

    gan = models.gan(discriminator=Blind())
    state = models.init(gan, key)
    jaxgen.gan_step(gan, state, models.batch(), key)  # on one device there is nothing to see
    with pytest.raises(ValueError, match="no field 'axis_name'"):
        pmapped(partial(jaxgen.gan_step, gan))(state, key)
