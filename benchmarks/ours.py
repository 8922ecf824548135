"""jaxgen's own candidates: a jitted step, the loop of train.py, that loop unrolled, and several states at once."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxgen
from benchmarks import families, jax_worker, protocol
from benchmarks.families import Family
from jaxgen import data, losses, networks, parallel
from jaxgen.data import batch_feeds
from jaxgen.families import family_of
from jaxgen.keys import step_key
from jaxgen.networks import leaky_relu
from jaxgen.training import loop

ACTIVATIONS = {"relu": jax.nn.relu, "leaky_relu": leaky_relu, "tanh": jnp.tanh}
Run = Callable[[int], Any]


def build(family: Family) -> Any:
    """The family's spec."""
    optimizer = partial(optax.adam, family.learning_rate, b1=family.b1)
    shape, activation, dtype = family.image_shape, ACTIVATIONS[family.activation], family.dtype
    if family.kind == "vae":
        return jaxgen.VAE(
            networks.MLPEncoder(family.latent_dim, hidden=family.hidden, activation=activation, dtype=dtype),
            networks.MLPDecoder(shape, hidden=family.hidden[::-1], activation=activation, dtype=dtype),
            optimizer(),
            latent_dim=family.latent_dim,
        )
    if family.kind == "tokenizer":
        return tokenizer(family, optimizer)
    if family.kind == "gan":
        generator: Any = networks.MLPGenerator(shape, family.hidden, activation, dtype=dtype)
        discriminator: Any = networks.MLPDiscriminator(family.hidden, activation, dtype=dtype)
    elif family.kind == "resnet":
        generator = networks.ResNetGenerator(shape, width=family.width, normalization="batch", dtype=dtype)
        discriminator = networks.ResNetDiscriminator(width=family.width, normalization="spectral", dtype=dtype)
    else:
        generator = networks.DCGANGenerator(shape, width=family.width, dtype=dtype)
        discriminator = networks.DCGANDiscriminator(width=family.width, dtype=dtype)
    loss = losses.hinge if family.loss == "hinge" else losses.non_saturating
    return jaxgen.GAN(generator, discriminator, optimizer(), optimizer(), latent_dim=family.latent_dim, loss=loss)


def tokenizer(family: Family, optimizer: Callable[[], Any]) -> jaxgen.Tokenizer:
    """A tokenizer's spec, whose discriminator plays from the first step on."""
    bottleneck = networks.FSQBottleneck(family.levels)
    plays = family.discriminator_width > 0
    height, width, channels = family.image_shape
    return jaxgen.Tokenizer(
        networks.AutoencoderEncoder(bottleneck.num_inputs, family.width, dtype=family.dtype),
        bottleneck,
        networks.AutoencoderDecoder(channels, family.width, dtype=family.dtype),
        optimizer(),
        (height // 4, width // 4, bottleneck.num_latents),
        networks.PatchDiscriminator(family.discriminator_width, 2, None, dtype=family.dtype) if plays else None,
        optimizer() if plays else None,
        reconstruction_weight=10.0,
        adversarial_weight=0.02,
    )


def step_of(spec: Any) -> Any:
    """The spec's step: (state, batch, key) -> (state, metrics)."""
    return partial(family_of(spec).step, spec)


def fresh_state(spec: Any, family: Family, key: jax.Array) -> Any:
    """A state at step 0."""
    batch = {"image": jnp.zeros((2, *family.image_shape), jnp.bool_ if family.binarized else jnp.uint8)}
    return family_of(spec).init(spec, key, batch)


def transform_of(family: Family) -> loop.Transform | None:
    """What is done to each batch on the device."""
    return binarized if family.binarized else None


def binarized(batch: dict[str, jax.Array], key: jax.Array, step: jax.Array) -> dict[str, jax.Array]:
    """Draw each batch's binary images anew at every step."""
    return {"image": data.binarize(batch["image"], step_key(key, "binarization", step))}


def jitted(family: Family) -> Run:
    """A jitted step, called from Python for every batch; the batches are on the device."""
    spec, key = build(family), jax.random.key(0)
    transform = transform_of(family)
    step = step_of(spec)

    def one(state: Any, batch: Any, key: jax.Array) -> Any:
        return step(state, transform(batch, key, state.step) if transform else batch, key)

    advance = jax.jit(one, donate_argnums=0)
    held = [jax.jit(lambda: fresh_state(spec, family, key))()]
    images = jax_worker.images(family)
    starts = range(0, min(16 * family.batch_size, len(images) - family.batch_size + 1), family.batch_size)
    batches = [{"image": jax.device_put(images[start : start + family.batch_size])} for start in starts]

    def run(steps: int) -> Any:
        for number in range(steps):
            held[0], metrics = advance(held[0], batches[number % len(batches)], key)
        return held[0], metrics

    return run


def fused(family: Family, num_devices: int = 1) -> Run:
    """The loop of train.py, over a data set on the device or split over several."""
    spec, key = build(family), jax.random.key(0)
    mesh = None if num_devices == 1 else parallel.make_mesh({"data": num_devices})
    dataset = {"image": jax_worker.images(family)}
    training = loop.Loop(step_of(spec), dataset, key, family.batch_size, transform_of(family), mesh)
    state = jax.jit(lambda: training.place(fresh_state(spec, family, key)))()
    held = [(state, training.zero_totals(state))]

    def run(steps: int) -> Any:
        held[0] = training.run(*held[0], steps)
        return held[0]

    return run


def unrolled(family: Family, factor: int) -> Run:
    """The same loop with several steps in its body; whole multiples of them are taken."""
    spec, key = build(family), jax.random.key(0)
    step, transform = step_of(spec), transform_of(family)

    def one(state: Any, dataset: Any, key: jax.Array) -> Any:
        batch = batch_feeds.batch_at(dataset, key, state.step, family.num_examples, family.batch_size)
        return step(state, transform(batch, key, state.step) if transform else batch, key)

    @jax.jit
    def advance(state: Any, sums: Any, dataset: Any, key: jax.Array, num_rounds: jax.Array) -> Any:
        def body(_: Any, carry: Any) -> Any:
            state, sums = carry
            for _ in range(factor):
                state, metrics = one(state, dataset, key)
                sums = jax.tree.map(jnp.add, sums, metrics)
            return state, sums

        return jax.lax.fori_loop(0, num_rounds, body, (state, sums))

    dataset = jax.device_put({"image": jax_worker.images(family)})
    state = jax.jit(lambda: fresh_state(spec, family, key))()
    sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(one, state, dataset, key)[1])
    held = [(state, sums)]

    def run(steps: int) -> Any:
        held[0] = advance(*held[0], dataset, key, jnp.asarray(steps // factor, jnp.int32))
        return held[0]

    return run


def members(family: Family, how: loop.Members, num_members: int) -> Run:
    """The loop of a population, each member with a key of its own; a step is one step of every member."""
    spec = build(family)
    keys = jax.vmap(jax.random.key)(jnp.arange(num_members))
    dataset = {"image": jax_worker.images(family)}
    training = loop.Loop(step_of(spec), dataset, keys, family.batch_size, transform_of(family), members=how)
    states = jax.jit(jax.vmap(lambda key: fresh_state(spec, family, key)))(keys)
    held = [(states, training.zero_totals(states))]

    def run(steps: int) -> Any:
        held[0] = training.run(*held[0], steps)
        return held[0]

    return run


def candidate(family: Family, variant: str) -> Run:
    """The candidate of a name such as ``jitted``, ``fused``, ``unrolled-4``, ``devices-2`` or ``together-8``."""
    name, _, number = variant.partition("-")
    if name == "jitted":
        return jitted(family)
    if name in ("fused", "devices"):
        return fused(family, int(number or 1))
    if name == "unrolled":
        return unrolled(family, int(number))
    assert name in ("together", "in_turn"), variant
    return members(family, "together" if name == "together" else "in_turn", int(number))


def main() -> None:
    """Answer each line of the input."""
    options = protocol.arguments().parse_args()
    family = families.read(options.family, options.changes)
    run = candidate(family, options.variant)
    jax_worker.serve(family, run, jaxgen=jaxgen.__version__)


if __name__ == "__main__":
    main()
