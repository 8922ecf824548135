"""A second stage: a GAN or a VAE of the latents of a tokenizer that is trained already, whose samples are images.

The tokenizer is a part of the spec and of the state, and does not change: one spec, one state, one file, one program
make images of noise.
"""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen import batches, modules
from jaxgen.adversary import Batch, Metrics
from jaxgen.gan import GAN, GANState, gan_init, gan_step
from jaxgen.keys import AxisName, named_key
from jaxgen.spec import check_state
from jaxgen.tokenizer import (
    Tokenizer,
    TokenizerState,
    tokenizer_decode,
    tokenizer_encode,
    tokenizer_frozen,
    tokenizer_init,
    tokenizer_nearest,
)
from jaxgen.vae import VAE, VAEState, vae_init, vae_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfLatents:
    """What a second stage is besides its GAN or VAE.

    Args:
      tokenizer: as `tokenizer_frozen` gives it; its latents [h, w, c] are what the networks are of.
      tokenizer_sha256: the hash of its state, by which another one is told apart; None where nobody asks.
      nearest: whether latents that are made are moved to those of the nearest codes before they are decoded.
    """

    tokenizer: Tokenizer
    tokenizer_sha256: str | None = None
    nearest: bool = False

    of_latents: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # the GAN's or VAE's
        kind, tokenizer = type(self).__name__, self.tokenizer
        if not isinstance(tokenizer, Tokenizer):
            raise TypeError(f"{kind}.tokenizer must be a Tokenizer, got {type(tokenizer).__name__}")
        if tokenizer.discriminator is not None or tokenizer.ema_decay is not None:
            raise ValueError(f"{kind}.tokenizer still has what only trains it: give what tokenizer_frozen returns")
        if self.nearest and not tokenizer.num_codes:
            raise ValueError(
                f"{kind}.nearest is for a tokenizer with codes, and {type(tokenizer.bottleneck).__name__} has none: "
                "leave it out"
            )

    @property
    def perceptual_sha256(self) -> str | None:
        """Of the network that the tokenizer was trained to please."""
        return self.tokenizer.perceptual_sha256


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentGAN(OfLatents, GAN):
    """A GAN of a tokenizer's latents [h, w, c].

    image = decode(G(z)),  z ~ N(0, I);  the discriminator sees G(z) and encode(image), of mean 0 and deviation 1

    Its arguments are a `GAN`'s, whose networks are of latents, and those of `OfLatents`.

    References:
      Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", section 3.2, on two stages.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentVAE(OfLatents, VAE):
    """A VAE of a tokenizer's latents [h, w, c].

    image = decode(E[x | z]),  z ~ p(z);  its likelihood and ELBO are those of latents x, of mean 0 and deviation 1

    Its arguments are a `VAE`'s, whose networks are of latents, and those of `OfLatents`.

    References:
      Dai & Wipf 2019, "Diagnosing and Enhancing VAE Models", section 4, on two stages.
    """


LatentModel = LatentGAN | LatentVAE


def _with_tokenizer(name: str, state: Any) -> Any:
    """The state of a family and the tokenizer's beside it."""
    fields = [*((field, Any) for field in state._fields), ("tokenizer", TokenizerState)]
    return NamedTuple(name, fields)


LatentGANState: Any = _with_tokenizer("LatentGANState", GANState)
LatentGANState.__doc__ = (
    """What training changes of a GAN of latents, see `GANState`, and the tokenizer, which stays."""
)
LatentVAEState: Any = _with_tokenizer("LatentVAEState", VAEState)
LatentVAEState.__doc__ = (
    """What training changes of a VAE of latents, see `VAEState`, and the tokenizer, which stays."""
)


def latent_state(spec: LatentModel, state: Any, tokenizer: TokenizerState) -> Any:
    """A GAN's or VAE's state with a tokenizer's beside it."""
    kind = LatentGANState if isinstance(spec, LatentGAN) else LatentVAEState
    return kind(**{name: getattr(state, name) for name in kind._fields[:-1]}, tokenizer=tokenizer)


def without_tokenizer(state: Any) -> Any:
    """The GANState or VAEState in the state of a second stage."""
    kind: Any = GANState if isinstance(state, LatentGANState) else VAEState
    return kind(**{name: getattr(state, name) for name in kind._fields})


def _are_latents(spec: LatentModel, batch: Batch) -> bool:
    image = batch["image"]
    shape = jnp.shape(image)[1:]
    return shape == tuple(spec.tokenizer.latent_shape) and jnp.issubdtype(image.dtype, jnp.floating)


def _select(spec: LatentModel, batch: Batch) -> Batch:
    """What a compiled function uses of a batch, checked as far as it is concrete."""
    batch = batches.select(batch)
    batch["image"] = batch["image"] if hasattr(batch["image"], "dtype") else jnp.asarray(batch["image"])
    batches.check_concrete(batch, latents=_are_latents(spec, batch))
    return batch


def _latents(spec: LatentModel, tokenizer: TokenizerState, batch: Batch) -> Batch:
    """The batch with latents in its images' place."""
    if _are_latents(spec, batch):
        return batch
    image = jax.lax.stop_gradient(tokenizer_encode(spec.tokenizer, tokenizer, {"image": batch["image"]}))
    if image.shape[1:] != tuple(spec.tokenizer.latent_shape):
        raise ValueError(
            f"images of shape {list(jnp.shape(batch['image'])[1:])} have latents {list(image.shape[1:])}, and this "
            f"{type(spec).__name__} is of latents {list(spec.tokenizer.latent_shape)}: resize the images"
        )
    return {**batch, "image": image}


def latent_init(spec: LatentModel, key: jax.Array, batch: Batch, tokenizer: TokenizerState | None = None) -> Any:
    """The state at step 0, from the shapes and types of an example batch of images, ``image`` [B, H, W, C].

    ``tokenizer`` is the state that `tokenizer_frozen` gives; without it the tokenizer is an untrained one.
    """
    batch = batches.select(batch)
    init: Any = gan_init if isinstance(spec, LatentGAN) else vae_init
    if tokenizer is None:
        first = tokenizer_init(spec.tokenizer, named_key(key, "latent tokenizer"), {"image": batch["image"]})
        tokenizer = tokenizer_frozen(spec.tokenizer, first)[1]
    zeros = jnp.zeros((jnp.shape(batch["image"])[0], *spec.tokenizer.latent_shape))
    return latent_state(spec, init(spec, key, {**batch, "image": zeros}), tokenizer)


@functools.partial(jax.jit, static_argnums=0, static_argnames="axis_name")
def _step(spec: LatentModel, state: Any, batch: Batch, key: jax.Array, axis_name: AxisName) -> tuple[Any, Metrics]:
    step: Any = gan_step if isinstance(spec, LatentGAN) else vae_step
    changed, metrics = step(spec, without_tokenizer(state), _latents(spec, state.tokenizer, batch), key, axis_name)
    return latent_state(spec, changed, state.tokenizer), metrics


def latent_step(
    spec: LatentModel, state: Any, batch: Batch, key: jax.Array, axis_name: AxisName = None
) -> tuple[Any, Metrics]:
    """One training step of a GAN or a VAE of latents, compiled: `gan_step` or `vae_step`, the tokenizer left alone.

    Args:
      spec: the spec (static).
      state: the state.
      batch: ``image``: latents [B, h, w, c] as `tokenizer_encode` gives them, or images [B, H, W, C], which are encoded
        first, at every step; optionally ``label`` int [B].
      key: the run's typed key, []; the same at every step or a fresh one.
      axis_name: mapped axis or axes over which the global batch is split.

    Returns:
      (new state, metrics of the GAN or VAE: float32 [] averaged over the axis).
    """
    check_state(state, LatentGANState if isinstance(spec, LatentGAN) else LatentVAEState)
    batch = _select(spec, batch)
    own = (spec.generator, spec.discriminator) if isinstance(spec, LatentGAN) else (*spec.encoders, *spec.decoders)
    modules.check_label_range(batch.get("label"), *own)
    return _step(spec, state, batch, key, axis_name=axis_name)


def latent_batch(spec: LatentModel, state: Any, batch: Batch) -> Batch:
    """A batch whose images [B, H, W, C] are encoded: ``image`` are latents [B, h, w, c]."""
    return _latents(spec, state.tokenizer, _select(spec, batch))


def latent_images(spec: LatentModel, state: Any, latents: jax.Array) -> jax.Array:
    """The images [N, H, W, C] of latents [N, h, w, c], through the nearest codes where the spec says so."""
    latents = latents.reshape(latents.shape[0], *spec.tokenizer.latent_shape)
    if spec.nearest:
        latents = tokenizer_nearest(spec.tokenizer, state.tokenizer, latents)
    return tokenizer_decode(spec.tokenizer, state.tokenizer, latents)


def latent_model(
    spec: GAN | VAE, tokenizer: Tokenizer, tokenizer_sha256: str | None = None, nearest: bool = False
) -> LatentModel:
    """A GAN or VAE of arrays of a tokenizer's ``latent_shape`` [h, w, c], made one of its latents."""
    fields: dict[str, Any] = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    fields |= {"tokenizer": tokenizer, "tokenizer_sha256": tokenizer_sha256, "nearest": nearest}
    return LatentGAN(**fields) if isinstance(spec, GAN) else LatentVAE(**fields)
