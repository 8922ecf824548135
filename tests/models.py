"""Small models for the tests: each family once, one of them with BatchNorm and dropout."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx

import jaxgen
from jaxgen import augmentation, losses, networks, schedules
from jaxgen.families import family_of

IMAGE_SHAPE = (4, 4, 1)
LATENT_DIM = 3


class BatchNormGenerator(nn.Module):
    """A generator whose statistics see the global batch through ``axis_name``."""

    axis_name: Any = None

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        x = nn.Dense(16, use_bias=False)(z)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x))
        return jax.nn.sigmoid(nn.Dense(16)(x)).reshape(-1, *IMAGE_SHAPE)


class BatchNormDiscriminator(nn.Module):
    """A discriminator with BatchNorm and dropout over the global batch."""

    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        x = nn.Dense(16, use_bias=False)(x.reshape(x.shape[0], -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x))
        x = networks.Dropout(0.3, self.axis_name)(x, train=train)
        return nn.Dense(1, use_bias=False)(x)[:, 0]  # a relativistic loss does not see the bias


class ConvGenerator(nn.Module):
    """A transposed convolution after BatchNorm over the global batch."""

    axis_name: Any = None

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        x = nn.Dense(2 * 2 * 8, use_bias=False)(z).reshape(-1, 2, 2, 8)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x))
        return jax.nn.sigmoid(nn.ConvTranspose(1, (4, 4), (2, 2))(x))


class ConvDiscriminator(nn.Module):
    """A convolution, BatchNorm and dropout over the global batch."""

    axis_name: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        x = nn.Conv(8, (4, 4), (2, 2), use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x)
        x = networks.Dropout(0.3, self.axis_name)(networks.leaky_relu(x), train=train)
        return nn.Dense(1, use_bias=False)(x.reshape(x.shape[0], -1))[:, 0]


def sgd() -> optax.GradientTransformation:
    """SGD with momentum, through which an N-fold gradient shows (Adam would hide it).

    At a rate of 0.05 round-off flips a ReLU now and then, which moves a statistic by 1e-4 in ten steps.
    """
    return optax.sgd(0.01, momentum=0.9)


def vae(**fields: Any) -> jaxgen.VAE:
    """A small MLP VAE."""
    fields = {"likelihood": losses.bernoulli, "optimizer": sgd(), **fields}
    return jaxgen.VAE(
        encoder=networks.MLPEncoder(LATENT_DIM, hidden=(16,)),
        decoder=networks.MLPDecoder(IMAGE_SHAPE, hidden=(16,)),
        latent_dim=LATENT_DIM,
        **fields,
    )


def gan(**fields: Any) -> jaxgen.GAN:
    """A small MLP GAN with dropout in its discriminator."""
    fields = {
        "generator": networks.MLPGenerator(IMAGE_SHAPE, hidden=(16,)),
        "discriminator": networks.MLPDiscriminator(hidden=(16,), dropout_rate=0.3),
        "generator_optimizer": sgd(),
        "discriminator_optimizer": sgd(),
        **fields,
    }
    return jaxgen.GAN(latent_dim=LATENT_DIM, **fields)


def batch_norm_gan(**fields: Any) -> jaxgen.GAN:
    """A small GAN with BatchNorm in both networks, dropout, the relativistic average loss and a moving average."""
    return gan(
        generator=BatchNormGenerator(),
        discriminator=BatchNormDiscriminator(),
        loss=losses.relativistic_average,
        ema_decay=0.9,
        **fields,
    )


def conv_gan(**fields: Any) -> jaxgen.GAN:
    """A small convolutional GAN with all that sees the global batch: BatchNorm, dropout, the relativistic average."""
    networks = {"generator": ConvGenerator(), "discriminator": ConvDiscriminator()}
    return gan(**networks, loss=losses.relativistic_average, ema_decay=0.9, **fields)


def dcgan() -> jaxgen.GAN:
    """The smallest conditional DCGAN, with all that looks at the global batch."""
    return gan(
        generator=networks.DCGANGenerator(IMAGE_SHAPE, width=4, num_classes=10),
        discriminator=networks.DCGANDiscriminator(width=4, num_classes=10, dropout_rate=0.3, minibatch_stddev=True),
        loss=losses.hinge,
        ema_decay=schedules.EMAWarmup(0.9),
    )


def resnet_gan() -> jaxgen.GAN:
    """A residual GAN with spectral normalisation, the relativistic loss and a scheduled R1."""
    return gan(
        generator=networks.ResNetGenerator(IMAGE_SHAPE, width=4),
        discriminator=networks.ResNetDiscriminator(width=4),
        loss=losses.relativistic,
        penalties=(losses.R1(),),
        penalty_weight=schedules.Cosine(1.0, 0.1, 5),
    )


def packed_gan() -> jaxgen.GAN:
    """Packs of two images, two updates a step, WGAN-GP and DRAGAN at every other step, adapted augmentation."""
    return gan(
        loss=losses.wasserstein,
        discriminator=networks.MLPDiscriminator(hidden=(16,)),
        penalties=(losses.GradientPenalty(), losses.DRAGAN()),
        penalty_weight=0.1,
        penalty_every=2,
        discriminator_steps=2,
        packing=2,
        augmentation=augmentation.DiffAugment(),
        augmentation_probability=0.5,
        augmentation_target=0.6,
    )


def maxout_gan() -> jaxgen.GAN:
    """PacGAN's networks for points: BatchNorm in a fully connected generator, maxout units without dropout, packs."""
    return gan(
        generator=networks.MLPGenerator(
            IMAGE_SHAPE, hidden=(16, 16), normalization="batch", initialization=("normal", 0.2)
        ),
        discriminator=networks.MaxoutDiscriminator((8, 8), 3, 0.0, 0.0, initialization=("normal", 0.2)),
        packing=2,
    )


def infogan() -> jaxgen.GAN:
    """The smallest of the networks on which Lucic et al. compared losses.

    With BatchNorm: without it four layers of weights of 0.02 leave of two latents' difference less than a last bit.
    """
    return gan(
        generator=networks.InfoGANGenerator(IMAGE_SHAPE, width=2),
        discriminator=networks.InfoGANDiscriminator(width=2),
        loss=losses.least_squares,
    )


def conv_vae() -> jaxgen.VAE:
    """A conditional convolutional VAE.

    Its likelihood is a gentle one: with a discretised logistic, whose gradients are ten times larger, ten steps gather
    round-off of 3.6e-5 under shard_map.
    """
    return jaxgen.VAE(
        encoder=networks.ConvEncoder(LATENT_DIM, width=4, num_classes=10),
        decoder=networks.ConvDecoder(IMAGE_SHAPE, width=4, num_classes=10),
        optimizer=sgd(),
        latent_dim=LATENT_DIM,
        likelihood=losses.continuous_bernoulli,
    )


def dlgm(**fields: Any) -> jaxgen.VAE:
    """Two stochastic layers with rank-one posteriors."""
    return jaxgen.VAE(
        encoder=(
            networks.MLPEncoder(LATENT_DIM, hidden=(16,), covariance="rank_one"),
            networks.MLPEncoder(2, hidden=(8,), covariance="rank_one"),
        ),
        decoder=(networks.MLPDecoder(IMAGE_SHAPE, hidden=(16,)), networks.MLPGaussian(LATENT_DIM, hidden=(8,))),
        latent_dim=(LATENT_DIM, 2),
        optimizer=sgd(),
        **{"free_bits": 0.1, "beta": schedules.Linear(0.0, 1.0, 5), **fields},
    )


def vamp_vae(**fields: Any) -> jaxgen.VAE:
    """A small MLP VAE of gated layers whose prior is a mixture of the posteriors of five pseudo-inputs."""
    return jaxgen.VAE(
        encoder=networks.MLPEncoder(LATENT_DIM, hidden=(16,), activation=nn.glu, logvar_bounds=(-6.0, 2.0)),
        decoder=networks.MLPDecoder(IMAGE_SHAPE, hidden=(16,), activation=nn.glu, initialization="he"),
        latent_dim=LATENT_DIM,
        prior=networks.VampPrior(IMAGE_SHAPE, 5, mean=0.5, std=0.2),
        **{"optimizer": sgd(), **fields},
    )


class Patches(nn.Module):
    """A discriminator of four patches of an image, with dropout over the global batch."""

    dropout_rate: float = 0.3
    axis_name: Any = None

    def setup(self) -> None:
        self.hidden = nn.Conv(8, (3, 3), (2, 2))
        self.dropout = networks.Dropout(self.dropout_rate, self.axis_name)
        self.output = nn.Conv(1, (1, 1))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        (hidden,) = self.features(x, train=train)
        return self.output(self.dropout(hidden, train=train))[..., 0]

    def features(self, x: jax.Array, *, train: bool) -> tuple[jax.Array]:
        return (nn.tanh(self.hidden(2.0 * x - 1.0)),)


def tokenizer(**fields: Any) -> jaxgen.Tokenizer:
    """A small tokenizer: nine codes of two channels at each of four places, and a discriminator with dropout."""
    bottleneck = fields.get("bottleneck", networks.FSQBottleneck((3, 3)))
    values = getattr(fields.get("reconstruction"), "parameters_per_value", 1)
    sizes: dict[str, Any] = {"width": 4, "multipliers": (1, 2), "groups": 2}
    fields = {
        "encoder": networks.AutoencoderEncoder(bottleneck.num_inputs, **sizes),
        "bottleneck": bottleneck,
        "decoder": networks.AutoencoderDecoder(values * IMAGE_SHAPE[-1], **sizes),
        "optimizer": sgd(),
        "latent_shape": (2, 2, bottleneck.num_latents),
        "discriminator": networks.MLPDiscriminator(hidden=(16,), dropout_rate=0.3),
        "discriminator_optimizer": sgd(),
        "adversarial_weight": schedules.Linear(0.0, 0.5, 5),
        **fields,
    }
    return jaxgen.Tokenizer(**fields)


def vq_tokenizer(**fields: Any) -> jaxgen.Tokenizer:
    """A tokenizer with all that sees the global batch, or that one step has and another has not."""
    fields = {
        "bottleneck": networks.VQBottleneck(8, 3, decay=0.9, restart_below=0.5),
        "discriminator": Patches(),
        "reconstruction": losses.squared_error,
        "perceptual": "discriminator",
        "loss": losses.non_saturating,
        "adversarial_weight": 0.5,
        "adversarial_start": 3,
        "adaptive_weight": True,
        "equivariance": losses.Equivariance(),
        "equivariance_weight": 0.5,
        "ema_decay": 0.9,
        "lecam_weight": 0.1,
        "penalties": (losses.R1(),),
        "penalty_weight": 0.1,
        **fields,
    }
    return tokenizer(**fields)


def kl_tokenizer(**fields: Any) -> jaxgen.Tokenizer:
    """A tokenizer of latents that are drawn, with a likelihood, attention and no discriminator."""
    sizes: dict[str, Any] = {"width": 4, "multipliers": (1, 2), "groups": 2, "middle": "attention"}
    fields = {
        "encoder": networks.AutoencoderEncoder(4, **sizes),
        "bottleneck": networks.KLBottleneck(2, weight=0.01),
        "decoder": networks.AutoencoderDecoder(2, **sizes),
        "discriminator": None,
        "discriminator_optimizer": None,
        "reconstruction": losses.gaussian_learned_variance(),
        **fields,
    }
    return tokenizer(**fields)


def latent_gan(**fields: Any) -> Any:
    """A GAN of a tokenizer's latents, of all that a network of grids may have."""
    fields = {
        "generator": networks.GridGenerator((2, 2, 2), width=4, blocks=1, attention=True, num_classes=10),
        "discriminator": networks.GridDiscriminator(width=4, blocks=1, num_classes=10),
        "loss": losses.relativistic,
        "penalties": (losses.R1(), losses.R2()),
        "penalty_weight": 0.1,
        "ema_decay": 0.9,
        **fields,
    }
    bare = tokenizer(discriminator=None, discriminator_optimizer=None, adversarial_weight=1.0)
    return jaxgen.latent_model(gan(**fields), bare, nearest=True)


def latent_vae() -> Any:
    """A VAE of a tokenizer's latents."""
    return jaxgen.latent_model(
        jaxgen.VAE(
            encoder=networks.MLPEncoder(LATENT_DIM, hidden=(16,)),
            decoder=networks.MLPDecoder((2, 2, 2), hidden=(16,)),
            latent_dim=LATENT_DIM,
            likelihood=losses.gaussian(scale=0.5),
            optimizer=sgd(),
        ),
        kl_tokenizer(),
    )


class NNXGenerator(nnx.Module):
    """An NNX generator with BatchNorm over the global batch."""

    def __init__(self, latent_dim: int, *, axis_name: Any = None, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(latent_dim, 16, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.9, axis_name=axis_name, rngs=rngs)
        self.output = nnx.Linear(16, 16, rngs=rngs)

    def __call__(self, z: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        x = nnx.relu(self.norm(self.hidden(z), use_running_average=not train))
        return jax.nn.sigmoid(self.output(x)).reshape(-1, *IMAGE_SHAPE)


def nnx_gan() -> jaxgen.GAN:
    """A GAN whose generator is an NNX module."""
    return gan(generator=networks.from_nnx(NNXGenerator, LATENT_DIM))


def batch(size: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch as TFDS yields it: uint8 images, labels, string ids."""
    generator = np.random.default_rng(seed)
    return {
        "image": generator.integers(0, 256, (size, *IMAGE_SHAPE), dtype=np.uint8),
        "label": generator.integers(0, 10, size),
        "id": np.array([f"image-{i}" for i in range(size)]),
    }


def init(spec: Any, key: jax.Array) -> Any:
    """A fresh state of a spec of any family."""
    return family_of(spec).init(spec, key, batch())


def step(spec: Any) -> Any:
    """The step of a spec of any family."""
    return family_of(spec).step


def finite(tree: Any) -> bool:
    """Whether every number of a tree is finite."""
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))
