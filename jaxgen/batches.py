"""What a batch is: a mapping with ``image`` and optionally ``label``, as TFDS yields it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.typing


def select(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a step uses of a batch, ``image`` [B, ...] and ``label`` [B], not the rest (TFDS's string ids)."""
    if not isinstance(batch, Mapping):
        raise TypeError(f"a batch must be a mapping with 'image', got {type(batch).__name__}: pass {{'image': images}}")
    if "image" not in batch:
        raise KeyError(f"a batch must have an 'image', got the keys {sorted(batch)}")
    return {name: batch[name] for name in ("image", "label") if batch.get(name) is not None}


def to_float(images: jax.typing.ArrayLike) -> jax.Array:
    """Scale images of any shape to floats: uint8 0..255 to [0, 1], bool to 0 and 1, floats as they are."""
    images = jnp.asarray(images)
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255.0
    if images.dtype == jnp.bool_:
        return images.astype(jnp.float32)
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    raise _not_images(images)


def _not_images(images: Any) -> TypeError:
    return TypeError(
        f"images must be uint8 (0..255), bool (0/1) or floating point in [0, 1], got {images.dtype}: convert them"
    )


def concrete_parts(array: Any) -> list[Any]:
    """What this process holds of an array of any shape, each part once, on the host; nothing of a traced one."""
    if isinstance(array, jax.core.Tracer):
        return []
    if not isinstance(array, jax.Array):
        return [array]
    # Read on the host: a computation on the device would wait for the steps queued there.
    return jax.device_get(list({repr(shard.index): shard.data for shard in array.addressable_shards}.values()))


def _check_values(parts: list[Any], bounded: bool) -> None:
    """Refuse values that no images have, in parts [...] of one array."""
    if jnp.issubdtype(parts[0].dtype, jnp.floating):
        largest = float(jnp.finfo(jax.dtypes.canonicalize_dtype(parts[0].dtype)).max)
        for part in parts:
            low, high = float(part.min()), float(part.max())
            finite = -largest <= low and high <= largest  # no comparison with NaN is true
            wanted = "finite and in [0, 1]" if bounded else "finite"
            remedy = "rescale them, or give 0..255 as uint8" if finite else "repair those images, or leave them out"
            if not finite or (bounded and not (low >= 0 and high <= 1)):
                raise ValueError(f"images must be {wanted}, got values from {low:g} to {high:g}: {remedy}")
    elif parts[0].dtype == jnp.uint8 and max(part.max() for part in parts) == 1:
        raise ValueError("images of 8 bits with no value above 1: binary images must be bool, grey ones 0..255")


def check_images(images: Any, bounded: bool = True) -> None:
    """Refuse arrays that are no images, before anything is computed from them.

    Args:
      images: a NumPy array, what should be [N, H, W, C] or [N, D]: uint8 (0..255), bool or floats in [0, 1].
      bounded: whether floats must be in [0, 1]; vectors that are no images may be anywhere, but finite.
    """
    if images.dtype not in (jnp.uint8, jnp.bool_) and not jnp.issubdtype(images.dtype, jnp.floating):
        raise _not_images(images)
    if images.ndim < 2 or images.size == 0:
        raise ValueError(f"expected images [N, H, W, C] or [N, D], at least one, got shape {list(images.shape)}")
    _check_values([images], bounded)


def check_concrete(batch: Mapping[str, Any], latents: bool = False) -> None:
    """Refuse a batch whose concrete ``image``, [B, H, W, C] or [B, D], is out of range, not finite or channels first.

    Traced images are not looked at, nor are any under ``jax.debug_nans`` or ``jax.debug_infs``. Where the images are
    ``latents`` [B, h, w, c], they may be of any finite size.
    """
    config: Any = jax.config
    if config.jax_debug_nans or config.jax_debug_infs:  # they look for the operation at fault
        return
    images = batch["image"]
    images = images if hasattr(images, "dtype") else jnp.asarray(images)
    parts = [part for part in concrete_parts(images) if part.size]
    if not parts:
        return
    shape = images.shape
    if not latents and len(shape) == 4 and shape[3] > 4 and (shape[1] == 3 or (shape[1] == 1 and shape[2] == shape[3])):
        raise ValueError(
            f"images must be [B, H, W, C], got shape {list(shape)}, channels first: give images.transpose(0, 2, 3, 1)"
        )
    _check_values(parts, bounded=len(shape) == 4 and not latents)


def _check_sharding(images: jax.Array) -> None:
    """Refuse images that are sharded over an explicit mesh axis: networks leave sharding to the partitioner."""
    sharding = jax.typeof(images).sharding
    axis_types = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True))
    used = [name for entry in sharding.spec if entry for name in ((entry,) if isinstance(entry, str) else entry)]
    explicit = [name for name in used if axis_types.get(name) == jax.sharding.AxisType.Explicit]
    if explicit:
        raise ValueError(
            f"images are sharded over the explicit mesh axis {explicit[0]!r}, a step needs automatic ones: make "
            "the mesh with axis_types=(jax.sharding.AxisType.Auto,), or map the step over it with jax.shard_map"
        )


def read(batch: Mapping[str, Any]) -> tuple[jax.Array, jax.Array | None]:
    """Images as floats [B, H, W, C] or [B, D], and labels int [B] or None, of a batch, checked."""
    batch = select(batch)
    images = to_float(batch["image"])
    _check_sharding(images)
    if images.ndim < 2 or images.shape[0] == 0:
        raise ValueError(f"images must be [B, H, W, C] or [B, D] with B >= 1, got shape {list(images.shape)}")
    return images, read_label(batch.get("label"), images.shape[0])


def read_label(label: jax.typing.ArrayLike | None, num: int) -> jax.Array | None:
    """Labels as an array, one per image: integers [N] for the number of images ``num``, or None, checked."""
    if label is None:
        return None
    label = jnp.asarray(label)
    if not jnp.issubdtype(label.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, got {label.dtype}")
    if label.shape != (num,):
        raise ValueError(f"labels must be one per image, [{num}], got shape {list(label.shape)}")
    return label
