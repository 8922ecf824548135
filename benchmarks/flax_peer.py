"""A plain training script with Flax: a jitted step fed from the host, batch by batch.

What a user writes from Flax's examples: networks of Flax's own layers, a `TrainState` with Adam, images as floats in
the host's memory, a batch gathered there and sent with every step. ``host`` sends it with the call, ``prefetch`` two
batches ahead.
"""

import collections
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from benchmarks import families, jax_worker, protocol
from benchmarks.families import Family

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.2),
    "tanh": jnp.tanh,
}


class BatchState(TrainState):
    """A network with running statistics."""

    batch_stats: Any = None


class VAE(nn.Module):
    """A fully connected VAE."""

    family: Family

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        activation = ACTIVATIONS[self.family.activation]
        for size in self.family.hidden:
            x = activation(nn.Dense(size)(x))
        mean, logvar = nn.Dense(self.family.latent_dim)(x), nn.Dense(self.family.latent_dim)(x)
        x = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
        for size in self.family.hidden[::-1]:
            x = activation(nn.Dense(size)(x))
        return nn.Dense(self.family.num_pixels)(x), mean, logvar


class Generator(nn.Module):
    """Latents to images."""

    family: Family

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        family = self.family
        if family.kind == "gan":
            for size in family.hidden:
                x = ACTIVATIONS[family.activation](nn.Dense(size)(x))
            return nn.sigmoid(nn.Dense(family.num_pixels)(x))
        side, features = family.image_shape[0] >> family.halvings, family.width * 2 ** (family.halvings - 1)
        init, dtype = nn.initializers.normal(0.02), family.dtype
        x = nn.Dense(side * side * features, use_bias=False, kernel_init=init, dtype=dtype)(x)
        x = x.reshape(-1, side, side, features)
        x = nn.relu(nn.BatchNorm(use_running_average=False, dtype=dtype)(x))
        for _ in range(family.halvings - 1):
            features //= 2
            x = nn.ConvTranspose(features, (4, 4), (2, 2), use_bias=False, kernel_init=init, dtype=dtype)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False, dtype=dtype)(x))
        x = nn.ConvTranspose(family.image_shape[2], (4, 4), (2, 2), kernel_init=init, dtype=dtype)(x)
        return nn.sigmoid(x.astype(jnp.float32))


class Discriminator(nn.Module):
    """Images to logits."""

    family: Family

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        family = self.family
        if family.kind == "gan":
            for size in family.hidden:
                x = ACTIVATIONS[family.activation](nn.Dense(size)(x))
            return nn.Dense(1)(x)[:, 0]
        init, dtype = nn.initializers.normal(0.02), family.dtype
        x = 2.0 * x - 1.0
        for number in range(family.halvings):
            features = family.width * 2**number
            x = nn.Conv(features, (4, 4), (2, 2), use_bias=number == 0, kernel_init=init, dtype=dtype)(x)
            if number > 0:
                x = nn.BatchNorm(use_running_average=False, dtype=dtype)(x)
            x = nn.leaky_relu(x, 0.2)
        return nn.Dense(1, use_bias=False, kernel_init=init)(x.reshape(x.shape[0], -1).astype(jnp.float32))[:, 0]


def new_state(family: Family, network: nn.Module, *inputs: jax.Array) -> BatchState:
    """A network with fresh parameters and its optimizer."""
    variables = network.init(jax.random.key(0), *inputs)
    tx = optax.adam(family.learning_rate, b1=family.b1)
    stats = variables.get("batch_stats", {})
    return BatchState.create(apply_fn=network.apply, params=variables["params"], tx=tx, batch_stats=stats)


def vae_training(family: Family, image: jax.Array) -> tuple[Any, Callable[..., Any]]:
    """A state, and a step: (state, images, key) -> (state, loss)."""

    @jax.jit
    def step(state: TrainState, images: jax.Array, key: jax.Array) -> Any:
        def loss_of(params: Any) -> jax.Array:
            logits, mean, logvar = state.apply_fn({"params": params}, images, key)
            bce = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, images), axis=-1)
            kl = -0.5 * jnp.sum(1 + logvar - mean**2 - jnp.exp(logvar), axis=-1)
            return jnp.mean(bce) + jnp.mean(kl)

        loss, gradient = jax.value_and_grad(loss_of)(state.params)
        return state.apply_gradients(grads=gradient), loss

    return new_state(family, VAE(family), image, jax.random.key(0)), step


def gan_training(family: Family, image: jax.Array) -> tuple[Any, Callable[..., Any]]:
    """A pair of states, and a step: (states, images, key) -> (states, loss)."""

    def apply(state: BatchState, params: Any, stats: Any, inputs: jax.Array) -> Any:
        variables = {"params": params, **({"batch_stats": stats} if stats else {})}
        outputs, updated = state.apply_fn(variables, inputs, mutable=["batch_stats"])
        return outputs, updated.get("batch_stats", {})

    @jax.jit
    def step(states: tuple[BatchState, BatchState], images: jax.Array, key: jax.Array) -> Any:
        generator, discriminator = states
        z = jax.random.normal(key, (family.batch_size, family.latent_dim))

        def discriminator_loss(params: Any) -> Any:
            fakes, _ = apply(generator, generator.params, generator.batch_stats, z)
            real, stats = apply(discriminator, params, discriminator.batch_stats, images)
            fake, stats = apply(discriminator, params, stats, fakes)
            return jnp.mean(nn.softplus(-real)) + jnp.mean(nn.softplus(fake)), stats

        (loss, stats), gradient = jax.value_and_grad(discriminator_loss, has_aux=True)(discriminator.params)
        discriminator = discriminator.apply_gradients(grads=gradient, batch_stats=stats)

        def generator_loss(params: Any) -> Any:
            fakes, stats = apply(generator, params, generator.batch_stats, z)
            fake, _ = apply(discriminator, discriminator.params, discriminator.batch_stats, fakes)
            return jnp.mean(nn.softplus(-fake)), stats

        (_, stats), gradient = jax.value_and_grad(generator_loss, has_aux=True)(generator.params)
        return (generator.apply_gradients(grads=gradient, batch_stats=stats), discriminator), loss

    z = jnp.zeros((1, family.latent_dim))
    states = new_state(family, Generator(family), z), new_state(family, Discriminator(family), image)
    return states, step


def batches(family: Family) -> Iterator[np.ndarray]:
    """Shuffled batches of floats in the host's memory, for ever."""
    images = jax_worker.images(family).astype(np.float32) / 255.0
    if family.kind != "dcgan":
        images = images.reshape(len(images), -1)
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(len(images))
        for start in range(0, len(images) - family.batch_size + 1, family.batch_size):
            batch = images[order[start : start + family.batch_size]]
            if family.binarized:
                batch = (generator.random(batch.shape, np.float32) < batch).astype(np.float32)
            yield batch


def prefetched(source: Iterator[np.ndarray]) -> Iterator[jax.Array]:
    """The same batches, two of them on their way to the device."""
    waiting: collections.deque[jax.Array] = collections.deque()
    for batch in source:
        waiting.append(jax.device_put(batch))
        if len(waiting) > 2:
            yield waiting.popleft()


def main() -> None:
    """Answer each line of the input."""
    options = protocol.arguments().parse_args()
    family = families.read(options.family, options.changes)
    image = jnp.zeros((1, *(family.image_shape if family.kind == "dcgan" else (family.num_pixels,))))
    state, step = (vae_training if family.kind == "vae" else gan_training)(family, image)
    source: Iterator[Any] = batches(family)
    if options.variant == "prefetch":
        source = prefetched(source)
    key = jax.random.key(1)

    def run(steps: int) -> Any:
        nonlocal state, key
        for _ in range(steps):
            key, noise_key = jax.random.split(key)
            state, loss = step(state, next(source), noise_key)
        return state, loss

    jax_worker.serve(family, run)


if __name__ == "__main__":
    main()
