"""What users run: every program compiled as the commands compile, against the same operation by operation.

``pytest --as-users-run`` runs these tests alone, in processes with the XLA_FLAGS that `compile_rightly` leaves, and no
other run has them; flags of one's own count, so that another setting can be tried.
"""

import os
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxgen
from jaxgen import augmentation, latents, losses, metrics, networks, platform, schedules
from jaxgen.families import family_of
from tests import computed, models, test_compiler

ROOT = Path(__file__).parents[1]
STEPS, MEMBERS = 20, 5
# Of one step from one state: round-off goes through both networks.
AFTER_ONE = 2e-5
LATENTS = 20
IMAGES = (28, 28, 1)
# Some thousand pieces of memory short of what a process may have; each small program takes one or two.
MANY_MAPS = 40_000


def vae(**fields: Any) -> jaxgen.VAE:
    """784-500-20, with an activation that has no bend at which round-off decides."""
    likelihood = fields.get("likelihood", losses.bernoulli)
    shape = (*IMAGES[:2], likelihood.parameters_per_value)
    return jaxgen.VAE(
        **{
            "encoder": networks.MLPEncoder(LATENTS, hidden=(500,), activation=nn.gelu),
            "decoder": networks.MLPDecoder(shape, hidden=(500,), activation=nn.gelu),
            "optimizer": models.sgd(),
            "latent_dim": LATENTS,
            **fields,
        }
    )


def gan(**fields: Any) -> jaxgen.GAN:
    """Two layers of 256 in each network."""
    return jaxgen.GAN(
        **{
            "generator": networks.MLPGenerator(IMAGES, hidden=(256, 256), activation=nn.gelu),
            "discriminator": networks.MLPDiscriminator(hidden=(256, 256), activation=nn.gelu),
            "generator_optimizer": models.sgd(),
            "discriminator_optimizer": models.sgd(),
            "latent_dim": LATENTS,
            **fields,
        }
    )


def two_layers(**fields: Any) -> jaxgen.VAE:
    return vae(
        **{
            "encoder": (
                networks.MLPEncoder(LATENTS, hidden=(200,), activation=nn.tanh, covariance="rank_one"),
                networks.MLPEncoder(10, hidden=(100,), activation=nn.tanh, covariance="rank_one"),
            ),
            "decoder": (
                networks.MLPDecoder(IMAGES, hidden=(200,), activation=nn.tanh),
                networks.MLPGaussian(LATENTS, hidden=(100,), activation=nn.tanh),
            ),
            "latent_dim": (LATENTS, 10),
            "free_bits": 0.1,
            "beta": schedules.Linear(0.0, 1.0, 5),
            **fields,
        }
    )


def tokenizer(**fields: Any) -> jaxgen.Tokenizer:
    """A width of 8 in groups of two channels and more: of one alone, GroupNorm takes off the bias before it."""
    bottleneck = fields.get("bottleneck", networks.FSQBottleneck((8, 5, 5, 5)))
    sizes: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "groups": 4}
    return jaxgen.Tokenizer(
        **{
            "encoder": networks.AutoencoderEncoder(bottleneck.num_inputs, **sizes),
            "bottleneck": bottleneck,
            "decoder": networks.AutoencoderDecoder(1, **sizes),
            "optimizer": models.sgd(),
            "latent_shape": (14, 14, bottleneck.num_latents),
            "discriminator": networks.PatchDiscriminator(8, 2, "group"),
            "discriminator_optimizer": models.sgd(),
            **fields,
        }
    )


ADVERSARIAL = {name: value for name, value in vars(losses).items() if isinstance(value, losses.AdversarialLoss)}
OBJECTIVES = {name: value for name, value in vars(losses).items() if isinstance(value, losses.Objective)}
PENALTIES = {
    "two_sided": (losses.GradientPenalty(),),
    "one_sided": (losses.GradientPenalty(one_sided=True),),
    "r1": (losses.R1(),),
    "r2": (losses.R2(),),
    "dragan": (losses.DRAGAN(),),
}
LIKELIHOODS = {
    "continuous_bernoulli": losses.continuous_bernoulli,
    "gaussian": losses.gaussian(scale=0.5),
    "gaussian_learned_variance": losses.gaussian_learned_variance(logvar_range=(-4.0, 4.0)),
    "discretized_logistic": losses.discretized_logistic,
    "discretized_logistic_mixture": losses.discretized_logistic_mixture(5),
}
SPECS: dict[str, Callable[[], Any]] = {
    **{f"gan-{name}": partial(gan, loss=loss) for name, loss in ADVERSARIAL.items()},
    **{
        f"gan-{name}": partial(gan, loss=losses.wasserstein, penalties=penalties)
        for name, penalties in PENALTIES.items()
    },
    "gan-clipped": partial(gan, loss=losses.wasserstein, weight_clipping=0.05, discriminator_steps=2),
    "gan-packed": partial(gan, packing=2, penalties=(losses.R1(),), penalty_every=2, ema_decay=0.9),
    "gan-augmented": partial(
        gan, augmentation=augmentation.DiffAugment(), augmentation_probability=0.5, augmentation_target=0.6
    ),
    "gan-nnx": lambda: models.nnx_gan(),
    "gan-maxout": partial(
        gan,
        generator=networks.MLPGenerator(IMAGES, hidden=(400, 400), activation=nn.gelu, normalization="batch"),
        discriminator=networks.MaxoutDiscriminator((200, 200), 5, 0.3, 0.2),
    ),
    "gan-dcgan": partial(
        gan,
        generator=networks.DCGANGenerator(IMAGES, width=32, num_classes=10),
        discriminator=networks.DCGANDiscriminator(width=32, num_classes=10, dropout_rate=0.3, minibatch_stddev=True),
        ema_decay=schedules.EMAWarmup(0.9),
    ),
    "gan-infogan": partial(
        gan,
        generator=networks.InfoGANGenerator(IMAGES, width=32),
        discriminator=networks.InfoGANDiscriminator(width=32),
        loss=losses.least_squares,
    ),
    "gan-resnet": partial(
        gan,
        generator=networks.ResNetGenerator((8, 8, 3), width=32),
        discriminator=networks.ResNetDiscriminator(width=32),
        loss=losses.hinge,
    ),
    "gan-grid": partial(
        gan,
        generator=networks.GridGenerator((7, 7, 4), width=32, blocks=1, attention=True),
        discriminator=networks.GridDiscriminator(width=32, blocks=1),
        loss=losses.relativistic,
    ),
    **{f"vae-{name}": partial(vae, objective=each, num_samples=3) for name, each in OBJECTIVES.items()},
    **{f"vae-{name}": partial(vae, likelihood=each) for name, each in LIKELIHOODS.items()},
    "vae-two_layers": two_layers,
    "vae-two_layers_iwae": partial(two_layers, objective=losses.iwae, num_samples=5, free_bits=None, beta=1.0),
    "vae-vamp": partial(vae, prior=networks.VampPrior(IMAGES, 50, mean=0.5, std=0.2)),
    "vae-convolutional": partial(
        vae,
        encoder=networks.ConvEncoder(LATENTS, width=32, num_classes=10),
        decoder=networks.ConvDecoder(IMAGES, width=32, num_classes=10),
    ),
    "tokenizer-fsq": partial(tokenizer, perceptual="discriminator", adaptive_weight=True, ema_decay=0.9),
    "tokenizer-vq": partial(
        tokenizer,
        bottleneck=networks.VQBottleneck(64, 8, decay=0.9),
        equivariance=losses.Equivariance(),
        lecam_weight=0.1,
        penalties=(losses.R1(),),
        adversarial_start=2,
    ),
    "tokenizer-kl": partial(tokenizer, bottleneck=networks.KLBottleneck(4), loss=losses.non_saturating),
}
# Biases that a loss does not see, of whose gradients round-off alone is left: it looks at differences of logits; and a
# mean that BatchNorm takes off.
BLIND = {"gan-relativistic_average": "['output']['bias']", "gan-resnet": "['second']['bias']"}
CASES = [
    pytest.param(name, size, id=f"{name}-{size}")
    for name in computed.PROGRAMS
    for size in (computed.SIZES if name.startswith("losses.") else ("usual",))
]


@pytest.fixture(autouse=True)
def _forget_many_programs() -> Iterator[None]:
    """A process may map only so many pieces of memory, and operation by operation there are thousands of programs."""
    yield
    with Path("/proc/self/maps").open() as maps:
        if sum(1 for _ in maps) > MANY_MAPS:
            jax.clear_caches()


@pytest.mark.as_users_run
@pytest.mark.parametrize(("name", "size"), CASES)
def test_a_function_is_compiled_rightly(name: str, size: str) -> None:
    error, where = computed.error_of(computed.PROGRAMS[name](computed.SIZES[size]))
    assert error <= computed.TOLERANCE, where


def shape_of(spec: Any) -> tuple[int, ...]:
    network = spec.generator if isinstance(spec, jaxgen.GAN) else spec.decoder
    return getattr(network, "image_shape", models.IMAGE_SHAPE if isinstance(spec, jaxgen.GAN) else IMAGES)


def batches(spec: Any) -> dict[str, jax.Array]:
    """For each step, a batch of 64 for the fully connected, of 16 for the others."""
    shape = shape_of(spec)
    shape = (*shape[:2], 1) if isinstance(spec, jaxgen.VAE) else shape
    num = 16 if has_bends(spec) else 64
    drawn = np.random.default_rng(0)
    return {
        "image": jnp.asarray(drawn.integers(0, 256, (STEPS, num, *shape), dtype=np.uint8)),
        "label": jnp.asarray(drawn.integers(0, 10, (STEPS, num))),
    }


def at(tree: Any, t: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[t], tree)


def stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def begin(spec: Any, key: jax.Array, batch: Any) -> Any:
    state = family_of(spec).init(spec, key, batch)
    return state._replace(**{name: computed.spread(getattr(state, name)) for name in state._fields if "params" in name})


def compared(found: tuple[Any, Any], expected: tuple[Any, Any], blind: str = "") -> tuple[float, str]:
    """The worst of (state, metrics), without leaves of an ending: a state's fields are groups of their own."""
    parts = [{**state._asdict(), "value": numbers} for state, numbers in (found, expected)]
    errors = computed.errors(*parts)
    return computed.worst({name: error for name, error in errors.items() if not (blind and name.endswith(blind))})


def has_bends(spec: Any) -> bool:
    """Whether its activations are not smooth, as those of convolutional networks."""
    return hasattr(spec.generator if isinstance(spec, jaxgen.GAN) else spec.decoder, "width")


def step_errors(spec: Any, key: jax.Array, blind: str = "") -> dict[str, list[tuple[float, str]]]:
    """How far off each way to compile a step is, at five of twenty steps, of the same step operation by operation.

    All steps as a scan, each from the state that the scan itself had there; the five under vmap; and the first alone.
    """
    step = partial(models.step(spec), spec)
    given = batches(spec)
    start = begin(spec, key, at(given, 0))

    def scanned(state: Any) -> Any:
        def body(state: Any, batch: Any) -> tuple[Any, Any]:
            new, numbers = step(state, batch, key)
            return new, (state, new, numbers)

        return jax.lax.scan(body, state, given)[1]

    before, after, numbers = jax.jit(scanned)(start)
    times = list(range(0, STEPS, STEPS // MEMBERS))
    together = jax.jit(jax.vmap(step))(
        stacked([at(before, t) for t in times]), stacked([at(given, t) for t in times]), stacked([key] * MEMBERS)
    )
    found: dict[str, list[tuple[float, str]]] = {"one": [], "vmap": [], "scan": []}
    for member, t in enumerate(times):
        state, batch = at(before, t), at(given, t)
        with jax.disable_jit():
            expected = step(state, batch, key)
        if t == 0:
            found["one"].append(compared(jax.jit(step)(state, batch, key), expected, blind))
        found["vmap"].append(compared(at(together, member), expected, blind))
        found["scan"].append(compared((at(after, t), at(numbers, t)), expected, blind))
    return found


def worst_of(errors: list[tuple[float, str]], bends: bool) -> tuple[float, str]:
    """The largest error of several steps; with bends, at one of which round-off may decide, the second largest."""
    ordered = sorted(errors, key=lambda error: -np.nan_to_num(error[0], nan=np.inf))
    return ordered[min(1, len(ordered) - 1) if bends else 0]


@pytest.mark.as_users_run
@pytest.mark.parametrize("name", SPECS)
def test_a_step_is_compiled_rightly(name: str, key: jax.Array) -> None:
    spec = SPECS[name]()
    for way, errors in step_errors(spec, key, BLIND.get(name, "")).items():
        error, where = worst_of(errors, has_bends(spec))
        assert error <= AFTER_ONE, f"{way}: {error:.2g} at {where}; {errors}"


def public(module: ModuleType) -> set[str]:
    """What a module offers: by its ``__all__``, or what it defines itself."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    return {f"{module.__name__.rpartition('.')[2]}.{name}" for name in names}


def test_every_public_function_is_in_the_table() -> None:
    offered = set[str]().union(*map(public, (losses, metrics, networks, latents, augmentation)))
    listed = {name for name in computed.PROGRAMS if not name.startswith("platform.")}
    assert set(computed.SAME_AS.values()) <= listed
    assert offered == listed | computed.NOTHING_COMPUTED | set(computed.SAME_AS)
    assert not listed & computed.NOTHING_COMPUTED


def test_a_step_is_taken_with_every_loss_penalty_objective_likelihood_and_network() -> None:
    """Losses and objectives are so by how `SPECS` is made."""
    used = [value for make in SPECS.values() for value in vars(make()).values()]
    types = {type(part) for value in used for part in (value if isinstance(value, tuple) else (value,))}
    parts = ("Generator", "Discriminator", "Encoder", "Decoder", "Gaussian", "Prior")
    made = {getattr(networks, name) for name in networks.__all__ if name.endswith(parts)}
    assert {*made, networks.FromNNX, *typing.get_args(losses.Penalty), *typing.get_args(losses.Likelihood)} <= types


def planted() -> float:
    """A share that a compiled program gets wrong, and no other."""
    return 0.0 if jax.config.jax_disable_jit else 1e-3  # type: ignore[attr-defined]


@pytest.mark.parametrize("bends", [False, True])
@pytest.mark.parametrize("wrong", ["one value", "gradient"])
def test_a_function_that_is_compiled_wrongly_is_found(wrong: str, bends: bool) -> None:
    def squares(x: jax.Array) -> jax.Array:
        sums = jnp.sum(jnp.square(x), axis=-1)
        if wrong == "one value":
            return sums.at[3].multiply(1.0 + planted())
        return sums + planted() * jnp.sum(x - jax.lax.stop_gradient(x), axis=-1)

    program = computed.Program(squares, (computed.normal(64, 50),), gradient=wrong == "gradient", bends=bends)
    error, where = computed.error_of(program)
    assert error > 2.0 * computed.TOLERANCE
    assert where == ("gradient[0]" if wrong == "gradient" else "value")


def _wrong_generator_loss(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    return (1.0 + planted()) * losses.non_saturating_generator_loss(real_logits, fake_logits)


@pytest.mark.slow
def test_a_step_that_is_compiled_wrongly_is_found(key: jax.Array) -> None:
    def found(generator_loss: Callable[..., jax.Array]) -> dict[str, list[tuple[float, str]]]:
        loss = losses.AdversarialLoss(generator_loss, losses.binary_discriminator_loss)
        return step_errors(models.gan(loss=loss), key)

    right, wrong = found(losses.non_saturating_generator_loss), found(_wrong_generator_loss)
    assert all(error <= AFTER_ONE for errors in right.values() for error, _ in errors)
    assert all(error > 10.0 * AFTER_ONE for errors in wrong.values() for error, _ in errors)
    assert wrong["one"][0][1].startswith(("generator_optimizer_state", "value['generator_loss']"))


@pytest.mark.slow
def test_what_this_jaxlib_compiles_wrongly_is_found() -> None:
    """With YNNPACK's sums, as where nobody has set what the commands set."""
    environment = {**os.environ, "XLA_FLAGS": f"{platform.RIGHT.partition('=')[0]}=+reduce"}
    arguments = ["--as-users-run", "-k", "platform", "-n", "0", "-q", "-p", "no:cacheprovider", __file__]
    command = [sys.executable, "-m", "pytest", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    wrong = test_compiler.WRONG[test_compiler.VERSION]
    failed = [
        name
        for name in platform.CANARIES
        if f"FAILED tests/{Path(__file__).name}::test_a_function_is_compiled_rightly[platform.{name}-usual]"
        in done.stdout
    ]
    assert failed == wrong, done.stdout
    assert done.returncode == (1 if wrong else 0)


@pytest.mark.as_users_run
@pytest.mark.parametrize("how", ["once", "five members", "in a scan", "by the gradient's norm"])
@pytest.mark.parametrize("make", [networks.DCGANDiscriminator, networks.ResNetDiscriminator], ids=lambda m: m.__name__)
def test_bfloat16_is_compiled_at_all_and_near_float32(
    make: Callable[..., Any], how: str, monkeypatch: pytest.MonkeyPatch, key: jax.Array
) -> None:
    """Some products of bfloat16 operands end the process at these settings, and at no others."""
    monkeypatch.setattr(platform, "multiplies_bfloat16", lambda: True)
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(16, 32, 32, 3)), jnp.float32)
    variables = make(width=32).init(key, images, train=False)

    def gradient(dtype: str, variables: Any) -> Any:
        def logits(variables: Any, images: jax.Array) -> jax.Array:
            return jnp.sum(jnp.tanh(make(width=32, dtype=dtype).apply(variables, images, train=False)))

        def penalty(variables: Any) -> jax.Array:
            return jnp.mean(jnp.square(jax.grad(logits, 1)(variables, images)))

        of = penalty if how == "by the gradient's norm" else lambda variables: logits(variables, images)
        return jax.grad(of)(variables)["params"]

    def computed_by(dtype: str) -> Any:
        if how == "five members":
            many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 5), variables)
            return jax.tree.map(lambda leaf: leaf[3], jax.jit(jax.vmap(partial(gradient, dtype)))(many))
        if how == "in a scan":
            return jax.jit(lambda v: jax.lax.scan(lambda v, _: (v, gradient(dtype, v)), v, length=2)[1])(variables)
        return jax.jit(partial(gradient, dtype))(variables)

    flat = [
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(computed_by(d))]) for d in ("float32", "bfloat16")
    ]
    assert 0.0 < np.linalg.norm(flat[1] - flat[0]) < 0.05 * np.linalg.norm(flat[0])
