"""Augmentation that both players of a GAN see: differentiable by the images, random per example.

A discriminator that sees only augmented images, real and generated alike, cannot learn few real ones by heart; the
gradient reaches the generator through the augmentation.
"""

import dataclasses

import jax
import jax.numpy as jnp
import jax.typing

from jaxgen import intervals
from jaxgen.intervals import Finite, Share

# One uniform number each: whether each of five transformations is applied, then what it does.
_NUM_COINS, _NUM_AMOUNTS = 5, 7


def _per_example(values: jax.Array, like: jax.Array) -> jax.Array:
    """[B] -> [B, 1, 1, 1] of the images' type."""
    return values.astype(like.dtype)[:, None, None, None]


def _whole_number(uniform: jax.Array, num: int) -> jax.Array:
    """U(0, 1) to one of 0 ... num - 1, int32."""
    return jnp.floor(uniform * num).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class DiffAugment:
    """Random brightness, saturation, contrast, translation and cutout, in this order.

    Called as ``augment(images [B, H, W, C], keys [B], probability=1.0)``; returns images [B, H, W, C]. Each of the five
    is applied to each image with the given probability, independently.

    brightness: x + U(-1/4, 1/4);  saturation: m + U(0, 2) (x - m), m the mean over channels;
    contrast: m + U(1/2, 3/2) (x - m), m the mean over the image;
    translation: by whole pixels, up to a share of the size in each direction;
    cutout: a rectangle of a share of the size around a uniform centre

    The ranges are the paper's for images in [0, 1]: its images are in [-1, 1], where brightness moves by U(-1/2, 1/2),
    and what it pads and cuts out with zeros is mid-grey, 1/2 here. The result is not clipped. The saturation of a grey
    image (C = 1) is left alone by its formula.

    Args:
      color: whether brightness, saturation and contrast are among the transformations.
      translation: greatest shift as a share of the height and of the width, in [0, 1]; 0 for none.
      cutout: sides of the rectangle as shares of the height and of the width, in [0, 1]; 0 for none.
      fill: value outside of a shifted image and in a rectangle; 0.5 is the paper's, 0 the background of digits.

    References:
      Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training".
      Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", section 2 (the probability).
    """

    color: bool = True
    translation: Share = 0.125
    cutout: Share = 0.5
    fill: Finite = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.color, bool):
            raise TypeError(f"DiffAugment.color must be True or False, got {self.color!r}")
        intervals.check(self)

    def __call__(self, images: jax.Array, keys: jax.Array, probability: jax.typing.ArrayLike = 1.0) -> jax.Array:
        """Augment each image of [B, H, W, C], floats in [0, 1], by its own key of `jaxgen.keys.example_keys` [B].

        The probability of each transformation, in [0, 1], may be traced, [].
        """
        _check_arguments(images, keys, probability)
        draws = jax.vmap(lambda key: jax.random.uniform(key, (_NUM_COINS + _NUM_AMOUNTS,)))(keys).T
        # A transformation that is not applied gets the amount that does nothing: no image is selected.
        applied, amounts = draws[:_NUM_COINS] < probability, draws[_NUM_COINS:]
        if self.color:
            images = _color(images, applied[:3], amounts[:3])
        if self.translation > 0:
            images = _translate(images, applied[3], amounts[3:5], self.translation, self.fill)
        if self.cutout > 0:
            images = _cut_out(images, applied[4], amounts[5:7], self.cutout, self.fill)
        return images


def _check_arguments(images: jax.Array, keys: jax.Array, probability: jax.typing.ArrayLike) -> None:
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images must be floating point in [0, 1], got {images.dtype}: use jaxgen.batches.to_float")
    if images.ndim != 4:
        raise ValueError(f"images must be [B, H, W, C], got shape {list(images.shape)}")
    if keys.shape != images.shape[:1]:
        raise ValueError(
            f"keys must be one typed key per image, [{images.shape[0]}], got shape {list(keys.shape)}: make them with "
            "jaxgen.keys.example_keys"
        )
    if jnp.ndim(probability) != 0:
        raise ValueError(f"probability must be one number, got shape {list(jnp.shape(probability))}")
    if isinstance(probability, int | float) and not 0 <= probability <= 1:
        raise ValueError(f"probability must be in [0, 1], got {probability}")


def _color(images: jax.Array, applied: jax.Array, amounts: jax.Array) -> jax.Array:
    """Brightness, saturation and contrast; coins and amounts are [3, B]."""
    images = images + _per_example(jnp.where(applied[0], 0.5 * amounts[0] - 0.25, 0.0), images)
    # mean + factor (x - mean) as x + (factor - 1) (x - mean): the identity to the last bit where the factor is 1.
    saturation = _per_example(jnp.where(applied[1], 2.0 * amounts[1] - 1.0, 0.0), images)
    # The mean over channels as the mean of their rotations: ten times faster on the CPU than reducing so short an axis.
    channels = images.shape[3]
    grey = sum(jnp.roll(images, shift, axis=3) for shift in range(channels)) / channels
    images = images + saturation * (images - grey)
    contrast = _per_example(jnp.where(applied[2], amounts[2] - 0.5, 0.0), images)
    return images + contrast * (images - jnp.mean(images, axis=(1, 2, 3), keepdims=True))


def _translate(images: jax.Array, applied: jax.Array, amounts: jax.Array, share: float, fill: float) -> jax.Array:
    """Shift by whole pixels; the coins are [B], the amounts [2, B].

    A dynamic slice per example: of gathers, one-hot products and masked static shifts it is the fastest on the CPU,
    alone and in a loop, forwards and backwards.
    """
    size = images.shape[1:3]
    reach = [int(length * share + 0.5) for length in size]
    padded = jnp.pad(images, ((0, 0), *((r, r) for r in reach), (0, 0)), constant_values=fill)
    # Where the slice of the padded image begins: at the reach, the image is where it was.
    start = [jnp.where(applied, _whole_number(amount, 2 * r + 1), r) for amount, r in zip(amounts, reach, strict=True)]

    def window(image: jax.Array, top: jax.Array, left: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (top, left, 0), images.shape[1:])

    return jax.vmap(window)(padded, *start)


def _cut_out(images: jax.Array, applied: jax.Array, amounts: jax.Array, share: float, fill: float) -> jax.Array:
    """Fill a rectangle, clipped at the border; the coins are [B], the amounts [2, B]."""

    def inside(length: int, amount: jax.Array) -> jax.Array:
        side = int(length * share + 0.5)
        # An even side has its centre between two pixels: one place more.
        first = _whole_number(amount, length + 1 - side % 2) - side // 2
        place = jnp.arange(length)[None]
        return (first[:, None] <= place) & (place < first[:, None] + side)

    rows, columns = (inside(length, amount) for length, amount in zip(images.shape[1:3], amounts, strict=True))
    cut = applied[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return jnp.where(cut[..., None], jnp.asarray(fill, images.dtype), images)


def adapt_probability(
    probability: jax.Array,
    real_logits_sign_mean: jax.Array,
    images: int,
    target: float = 0.6,
    ramp: int = 500_000,
) -> jax.Array:
    """Move the probability of augmentation towards where the discriminator overfits as much as wanted.

    p <- clip(p + sign(r - target) images / ramp, 0, 1),  r = E[sign(D(real))]

    r is 0 for a discriminator that does not know real images and 1 for one that never doubts them.

    Args:
      probability: p, probability of each transformation so far, [].
      real_logits_sign_mean: r, mean sign of the logits of real images over the global batch, [].
      images: number of real images shown since the last adaptation.
      target: the r wanted.
      ramp: number of images in which p may go from 0 to 1.

    References:
      Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", section 3, equation 1.
    """
    for name, number in (("images", images), ("ramp", ramp)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if not -1 <= target <= 1:
        raise ValueError(f"target must be in [-1, 1], as the mean of a sign is, got {target}")
    moved = probability + jnp.sign(real_logits_sign_mean - target) * (images / ramp)
    return jnp.clip(moved, 0.0, 1.0).astype(jnp.float32)
