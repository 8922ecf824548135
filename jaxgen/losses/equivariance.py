"""Equivariance of a decoder: a moved latent has to decode to the moved image."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxgen import intervals
from jaxgen.intervals import Inside
from jaxgen.keys import named_key


def rotated(x: jax.Array, quarters: jax.Array) -> jax.Array:
    """Images or latents turned left by so many quarters, int32 [] from 0 to 3: [B, H, W, C] -> [B, H, W, C], H = W."""
    turns = [lambda x, k=k: jnp.rot90(x, k, axes=(1, 2)) for k in range(4)]
    return jax.lax.switch(quarters, turns, x)


def rescaled(x: jax.Array, height: int, width: int) -> jax.Array:
    """Images or latents of another size by linear interpolation, antialiased: [B, H, W, C] -> [B, height, width, C]."""
    return jax.image.resize(x, (x.shape[0], height, width, x.shape[3]), "linear")


@dataclasses.dataclass(frozen=True)
class Equivariance:
    """Moves latents and images alike, so that a decoder can be held to do the same with both.

    r(T x, D(T z)),  T a scaling of both by ``scale`` and a rotation by a quarter as often as a draw for the batch says

    Args:
      scale: how much smaller both become, in (0, 1); the latents' sides are rounded, at least 1.
      rotates: whether squares are rotated as well; what is not square is turned by half or not at all.

    Called as ``equivariance(latents [B, h, w, c], images [B, H, W, C], key [])``; returns (latents [B, h', w', c],
    images [B, H', W', C]), the sides in the proportion of the given ones.

    References:
      Kouzelis et al. 2025, "EQ-VAE: Equivariance Regularized Latent Space for Improved Generative Image Modeling",
      equation 6.
    """

    scale: Inside = 0.5
    rotates: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.rotates, bool):
            raise TypeError(f"Equivariance.rotates must be True or False, got {self.rotates!r}")
        intervals.check(self)

    def __call__(self, latents: jax.Array, images: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The moved latents and images."""
        sides = [max(1, round(side * self.scale)) for side in latents.shape[1:3]]
        factors = [big // small for big, small in zip(images.shape[1:3], latents.shape[1:3], strict=True)]
        moved = rescaled(latents, *sides), rescaled(images, *(f * s for f, s in zip(factors, sides, strict=True)))
        if not self.rotates:
            return moved
        square = sides[0] == sides[1] and moved[1].shape[1] == moved[1].shape[2]
        draw = jax.random.randint(named_key(key, "rotation"), (), 0, 4 if square else 2)
        return _turned(moved[0], draw, square), _turned(moved[1], draw, square)


def _turned(x: jax.Array, draw: jax.Array, square: bool) -> jax.Array:
    if square:
        return rotated(x, draw)
    return jnp.where(draw == 0, x, jnp.rot90(x, 2, axes=(1, 2)))
