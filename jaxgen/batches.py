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
    raise TypeError(
        f"images must be uint8 (0..255), bool (0/1) or floating point in [0, 1], got {images.dtype}: convert them"
    )


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
