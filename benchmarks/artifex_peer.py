"""The MLP models under avitai-artifex's trainers, run under an interpreter that has it.

The networks have our layers, as NNX modules; losses and steps are the trainers', the optimizer is Optax's. ``step`` is
the trainer's step under `nnx.jit`, as its documentation has it, with batches on the device; ``staged`` its compiled
epoch (VAE only), of which a turn is as many as come next to the steps asked for.
"""

import importlib.metadata
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from artifex.generative_models.training.loops.staged import train_epoch_staged
from artifex.generative_models.training.trainers.gan_trainer import GANTrainer, GANTrainingConfig
from artifex.generative_models.training.trainers.vae_trainer import VAETrainer, VAETrainingConfig
from flax import nnx

from benchmarks import families, jax_worker, protocol
from benchmarks.families import Family

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "tanh": jnp.tanh,
}
BATCHES_AN_EPOCH = 40


class MLP(nnx.Module):
    """Fully connected layers with an activation after each but the last."""

    def __init__(self, family: Family, sizes: tuple[int, ...], rngs: nnx.Rngs) -> None:
        self.activation = ACTIVATIONS[family.activation]
        self.layers = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in itertools.pairwise(sizes)])

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


class VAE(nnx.Module):
    """What the VAE's trainer wants of a model."""

    def __init__(self, family: Family, rngs: nnx.Rngs) -> None:
        self.activation = ACTIVATIONS[family.activation]
        self.encoder = MLP(family, (family.num_pixels, *family.hidden), rngs)
        self.mean, self.logvar = (nnx.Linear(family.hidden[-1], family.latent_dim, rngs=rngs) for _ in range(2))
        self.decoder = MLP(family, (family.latent_dim, *family.hidden[::-1], family.num_pixels), rngs)
        self.rngs = rngs

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        h = self.activation(self.encoder(x))
        mean, logvar = self.mean(h), self.logvar(h)
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(self.rngs.noise(), mean.shape)
        return {"reconstructed": jax.nn.sigmoid(self.decoder(z)), "mean": mean, "log_var": logvar}


class Generator(nnx.Module):
    """Latents to images."""

    def __init__(self, family: Family, rngs: nnx.Rngs) -> None:
        self.layers = MLP(family, (family.latent_dim, *family.hidden, family.num_pixels), rngs)

    def __call__(self, z: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(self.layers(z))


def optimizer_of(family: Family, model: nnx.Module) -> nnx.Optimizer:
    """Adam."""
    return nnx.Optimizer(model, optax.adam(family.learning_rate, b1=family.b1), wrt=nnx.Param)


def device_batches(family: Family) -> list[jax.Array]:
    """Batches of floats on the device."""
    images = jax_worker.images(family).reshape(family.num_examples, -1)
    images = (images / 255.0).astype("float32")
    return [
        jax.device_put(images[start : start + family.batch_size])
        for start in range(0, 16 * family.batch_size, family.batch_size)
    ]


def vae_steps(family: Family) -> Callable[[int], Any]:
    """The VAE's trainer, step by step."""
    trainer = VAETrainer(VAETrainingConfig(kl_annealing="none"))
    model = VAE(family, nnx.Rngs(0, noise=1))
    optimizer, batches = optimizer_of(family, model), device_batches(family)
    step = nnx.jit(trainer.train_step, static_argnames="loss_type")

    def run(steps: int) -> Any:
        for number in range(steps):
            batch = {"image": batches[number % len(batches)]}
            loss, _ = step(model, optimizer, batch, step=number, loss_type="bce")
        return loss, nnx.state(model)

    return run


def vae_epochs(family: Family) -> Callable[[int], dict[str, Any]]:
    """The VAE's trainer, epoch by epoch."""
    loss_of = VAETrainer(VAETrainingConfig(kl_annealing="none")).create_loss_fn(loss_type="bce")
    model = VAE(family, nnx.Rngs(0, noise=1))
    optimizer = optimizer_of(family, model)
    images = jax_worker.images(family)[: BATCHES_AN_EPOCH * family.batch_size]
    images = jax.device_put((images.reshape(len(images), -1) / 255.0).astype("float32"))
    step = 0

    def take(steps: int) -> dict[str, Any]:
        nonlocal step
        epochs = max(1, round(steps / BATCHES_AN_EPOCH))
        start = time.perf_counter()
        for _ in range(epochs):
            step, _ = train_epoch_staged(
                model, optimizer, images, family.batch_size, jax.random.key(step), loss_of, step
            )
        jax.block_until_ready(nnx.state(model))
        return {"seconds": time.perf_counter() - start, "steps": epochs * BATCHES_AN_EPOCH}

    return take


def gan_steps(family: Family) -> Callable[[int], Any]:
    """The GAN's trainer: a discriminator's step and a generator's."""
    trainer = GANTrainer(GANTrainingConfig(loss_type="vanilla"))
    generator = Generator(family, nnx.Rngs(0))
    discriminator = MLP(family, (family.num_pixels, *family.hidden, 1), nnx.Rngs(1))
    optimizers, batches = [optimizer_of(family, each) for each in (generator, discriminator)], device_batches(family)
    discriminator_step, generator_step = nnx.jit(trainer.discriminator_step), nnx.jit(trainer.generator_step)
    draw = jax.jit(lambda key: jax.random.normal(key, (family.batch_size, family.latent_dim)))
    key = jax.random.key(0)

    def run(steps: int) -> Any:
        nonlocal key
        for number in range(steps):
            key, noise_key, penalty_key = jax.random.split(key, 3)
            z = draw(noise_key)
            real = batches[number % len(batches)]
            discriminator_step(generator, discriminator, optimizers[1], real, z, penalty_key)
            loss, _ = generator_step(generator, discriminator, optimizers[0], z)
        return loss, nnx.state(generator)

    return run


def main() -> None:
    """Answer each line of the input."""
    options = protocol.arguments().parse_args()
    family = families.read(options.family, options.changes)
    if options.variant == "staged":
        take: Callable[[int], Any] = vae_epochs(family)
    else:
        take = jax_worker.timed(vae_steps(family) if family.kind == "vae" else gan_steps(family))
    about = jax_worker.about(family)
    about["versions"]["avitai-artifex"] = importlib.metadata.version("avitai-artifex")
    protocol.serve(about, take, jax_worker.device_bytes)


if __name__ == "__main__":
    main()
