"""The five models that jaxgen compare trains: equal decoders, equal latents, equal batches."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from jaxgen.cli.gan_options import DCGANOptions, MLPGANOptions
from jaxgen.cli.options import Options
from jaxgen.cli.vae_options import ConvVAEOptions, MLPVAEOptions
from jaxgen.networks.dcgan import num_halvings
from jaxgen.training.run import Spec, init_state

LATENTS = 32  # of every model, all stochastic layers together
UPPER_LATENTS = 8  # of these, in the upper layer of the DLGM
WIDTH = 32  # channels next to the image, of the convolutional decoders: they set the size of all
NARROW = 128  # units next to the latents, of the fully connected decoders
# On the 2,000 embedded images: chosen so that five models take about nine minutes on two cores.
STEPS = {"gan": 14_000, "dcgan": 3500, "vae": 7000, "conv-vae": 2500, "dlgm": 7000}
TITLES = {"gan": "GAN", "dcgan": "DCGAN", "vae": "VAE", "conv-vae": "Convolutional VAE", "dlgm": "DLGM"}
# Of both GANs. After 14,000 steps the Frechet distance of the fully connected one was 77; at 2e-4, the default of
# jaxgen train, it was 220 after 12,000.
GAN_RATE = 5e-4
LOOKS = 10  # evaluations of each while it trains
MOST_PIXELS = 1024  # whose Frechet distance is measured while training: it takes their cube
LEAST_UNITS = 8  # of a fully connected decoder's layer next to the image


def num_parameters(tree: Any) -> int:
    """How many numbers a tree of parameters, or of their shapes, holds."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def decoder_parameters(spec: Spec, state: Any) -> int:
    """Parameters of what makes images from latents: a GAN's generator, all layers of a VAE's decoder."""
    return num_parameters(state.params["decoder"] if hasattr(state, "params") else state.generator_params)


def all_parameters(state: Any) -> int:
    """Parameters of everything that is trained: with the discriminator, or the encoder."""
    if hasattr(state, "params"):
        return num_parameters(state.params) + num_parameters(getattr(state, "discriminator_params", ()))
    return num_parameters(state.generator_params) + num_parameters(state.discriminator_params)


def _size_of(options: Options, image_shape: tuple[int, ...]) -> int:
    """Parameters of the decoder that options describe, without making any."""
    spec = options.spec(image_shape)
    example = {"image": jax.ShapeDtypeStruct((1, *image_shape), "float32")}
    state = jax.eval_shape(lambda batch: init_state(spec, jax.random.key(0), batch), example)
    return decoder_parameters(spec, state)


def _units(options: MLPGANOptions | MLPVAEOptions, image_shape: tuple[int, ...], target: int) -> Options:
    """The same options with as many units next to the image as make the decoder's size: it is linear in them."""

    def of(units: int) -> Options:
        if isinstance(options, MLPGANOptions):
            return dataclasses.replace(options, generator_hidden=(NARROW, units))
        return dataclasses.replace(options, hidden=(units, NARROW))  # an encoder's; the decoder has them in reverse

    one, two = _size_of(of(1), image_shape), _size_of(of(2), image_shape)
    units = round(1 + (target - one) / (two - one))
    if units < LEAST_UNITS:
        raise ValueError(
            f"no fully connected decoder of images {list(image_shape)} is as small as the convolutional one of "
            f"{target} parameters: make the images smaller (--image-size 32)"
        )
    return of(units)


def plan(image_shape: tuple[int, ...], scale: float = 1.0, **common: Any) -> dict[str, Options]:
    """The options of the five models by name: decoders of equal size, 32 latents, batches of 64.

    Args:
      image_shape: shape of an image, (H, W, C).
      scale: factor of the numbers of steps.
      **common: options of all five, such as ``dataset`` and ``seed``.

    Returns:
      Options of ``jaxgen train`` by name: gan, dcgan, vae, conv-vae, dlgm.

    Raises:
      ValueError: convolutional networks cannot make images of this shape, or the sizes cannot be made equal.
    """
    num_halvings(image_shape)  # refuses what a DCGAN cannot make
    fast: dict[str, Any] = {"generator_learning_rate": GAN_RATE, "discriminator_learning_rate": GAN_RATE}
    gan = MLPGANOptions(latent_dim=LATENTS, ema_warmup=True, **fast)
    dcgan = DCGANOptions(latent_dim=LATENTS, ema_warmup=True, width=WIDTH, augmentation="diffaugment", **fast)
    target = _size_of(dcgan, image_shape)
    lower = LATENTS - UPPER_LATENTS
    models: dict[str, Options] = {
        "gan": _units(gan, image_shape, target),
        "dcgan": dcgan,
        "vae": _units(MLPVAEOptions(latent_dim=LATENTS), image_shape, target),
        "conv-vae": ConvVAEOptions(width=WIDTH, latent_dim=LATENTS),
        "dlgm": _units(MLPVAEOptions(latent_dim=lower, upper_latent_dims=(UPPER_LATENTS,)), image_shape, target),
    }
    common["extractor"] = "auto" if math.prod(image_shape) <= MOST_PIXELS else "none"
    return {name: _with_steps(options, name, scale, common) for name, options in models.items()}


def _with_steps(options: Options, name: str, scale: float, common: dict[str, Any]) -> Options:
    steps = max(1, round(STEPS[name] * scale))
    every = max(1, steps // LOOKS)
    cadences: dict[str, Any] = {
        "log_every": max(1, steps // (3 * LOOKS)),
        "eval_every": every,
        "checkpoint_every": every,
        "sample_every": steps,
        "batch_size": 64,
    }
    return dataclasses.replace(options, steps=steps, **cadences, **common)
