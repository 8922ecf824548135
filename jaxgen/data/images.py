"""Pictures of any size and mode to arrays of one shape, and the checks that every data set passes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxgen.data.limits import check_memory

Color = Literal["grey", "rgb"]
_GREY_MODES = {"1", "L", "LA"}
_RGB_MODES = {"RGB", "RGBA", "P", "CMYK", "YCbCr"}


def picture_color(picture: Any, name: str) -> Color:
    """Whether a PIL image is grey or colour.

    Args:
      picture: the PIL image.
      name: what to call it in the error.

    Returns:
      ``"grey"`` or ``"rgb"``.

    Raises:
      ValueError: it is of another mode, such as 16-bit grey.
    """
    if picture.mode in _GREY_MODES:
        return "grey"
    if picture.mode in _RGB_MODES:
        return "rgb"
    raise ValueError(
        f"{name}: pictures must be 8-bit grey or RGB, got mode {picture.mode}: convert it to PNG in L or RGB"
    )


def picture_to_array(picture: Any, image_size: int | None, color: Color) -> np.ndarray:
    """Crop the central square, resize it and convert its colours.

    Transparent pixels are laid over white. Without ``image_size`` nothing is cropped or resized.

    Args:
      picture: PIL image of an 8-bit mode.
      image_size: height and width of the result in pixels, H = W; None to keep the picture's.
      color: ``"grey"`` or ``"rgb"``.

    Returns:
      uint8 [H, W, 1] or [H, W, 3].
    """
    from PIL import Image

    if "A" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    picture = picture.convert({"grey": "L", "rgb": "RGB"}[color])
    if image_size is not None and picture.size != (image_size, image_size):
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
        picture = picture.resize((image_size, image_size), Image.Resampling.LANCZOS)
    array = np.asarray(picture, np.uint8)
    return array[..., None] if array.ndim == 2 else array


def different_shapes(name: str, first: Sequence[int], second: Sequence[int], num: int = 2) -> ValueError:
    """The error for a data set whose images are of so many shapes, such as these two."""
    return ValueError(
        f"{name}: images are of {num} different shapes, such as {list(first)} and {list(second)}: give one image size "
        "for all (--image-size 64)"
    )


def resize_images(images: Sequence[np.ndarray], image_size: int | None, color: Color | None, name: str) -> np.ndarray:
    """Bring arrays of images to one shape.

    Args:
      images: arrays [H, W, C] of uint8, of one or of many sizes; or one array [N, H, W, C].
      image_size: height and width wanted in pixels, or None to keep them.
      color: ``"grey"`` or ``"rgb"``, or None to keep what there is.
      name: what to call the data set in errors.

    Returns:
      One array, [N, H, W, C].

    Raises:
      ValueError: there are no images, the sizes or colours differ and nothing was said about them, only 8-bit images
        could be resized, or the result is larger than this machine's memory.
    """
    from PIL import Image

    if len(images) == 0:
        raise ValueError(f"{name}: no images")
    shapes = sorted({image.shape for image in images})
    channels = {"grey": 1, "rgb": 3}.get(color or "")
    same_size = len(shapes) == 1 and image_size in (None, shapes[0][0]) and image_size in (None, shapes[0][1])
    if same_size and len(shapes[0]) == 3 and channels in (None, shapes[0][2]):
        return np.stack(list(images))
    if len(shapes) > 1 and image_size is None:
        raise different_shapes(name, shapes[0], shapes[-1], len(shapes))
    if any(len(shape) != 3 or shape[2] not in (1, 3) for shape in shapes) or images[0].dtype != np.uint8:
        raise ValueError(
            f"{name}: only 8-bit grey or RGB images [H, W, 1 or 3] can be resized, got {images[0].dtype} "
            f"{list(shapes[0])}: leave out the image size and colour"
        )
    if color is None:
        color = "rgb" if shapes[0][2] == 3 else "grey"
    if image_size is not None:
        check_memory(len(images) * image_size**2 * (3 if color == "rgb" else 1), name)
    return np.stack(
        [picture_to_array(Image.fromarray(i[..., 0] if i.shape[2] == 1 else i), image_size, color) for i in images]
    )


def check_types(dataset: Mapping[str, np.ndarray], name: str) -> None:
    """Check what can be known of a data set without its values.

    Args:
      dataset: ``image`` [N, ...] and optionally ``label`` [N].
      name: what to call it in errors.

    Raises:
      ValueError: the arrays are empty, or of shapes or types that no data set has.
    """
    image, label = dataset["image"], dataset.get("label")
    if image.size == 0:
        raise ValueError(f"{name}: no images: got an array of shape {list(image.shape)}")
    if image.ndim not in (2, 3, 4):
        raise ValueError(f"{name}: images must be [N, H, W, C] or [N, D], got shape {list(image.shape)}")
    if image.dtype not in (np.uint8, np.bool_) and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"{name}: images must be uint8, bool or float, got {image.dtype}: convert them")
    if label is not None and not (np.issubdtype(label.dtype, np.integer) and label.shape == image.shape[:1]):
        raise ValueError(
            f"{name}: labels must be one integer per image, [{len(image)}], got {label.dtype} {list(label.shape)}"
        )


def check_dataset(dataset: dict[str, np.ndarray], name: str, *, whole: bool = True) -> dict[str, np.ndarray]:
    """Check a loaded data set once, so that a step can rely on it.

    Args:
      dataset: ``image`` [N, ...] and optionally ``label`` [N].
      name: what to call it in errors.
      whole: whether these are all examples, or so many that not all of them are black.

    Returns:
      The data set: images as uint8, bool or float32, [N, H, W, C] or [N, D]; labels as int32 [N].

    Raises:
      ValueError: it is empty; has NaN or floats outside [0, 1]; is 8-bit with no value above 1 (binary data must be
        bool); or its labels do not fit.
    """
    dataset = {key: np.asarray(array) for key, array in dataset.items()}
    check_types(dataset, name)
    image = dataset["image"]
    if image.ndim == 3:  # [N, H, W]: grey images without their channel axis
        image = image[..., None]
    if np.issubdtype(image.dtype, np.floating):
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            image = image.astype(np.float32, copy=False)
        if not np.isfinite(image).all():
            raise ValueError(f"{name}: images hold NaN or infinite values as float32: remove or repair those images")
        low, high = float(image.min()), float(image.max())
        if image.ndim == 4 and (low < 0 or high > 1):
            raise ValueError(
                f"{name}: float images must be in [0, 1], got values from {low:g} to {high:g}: rescale them, "
                "or store 0..255 as uint8"
            )
    if whole and image.dtype == np.uint8 and image.max() <= 1:
        raise ValueError(
            f"{name}: 8-bit images must span 0..255, got no value above {image.max()}: store binary images as bool"
        )
    if "label" not in dataset:
        return {"image": image}
    label = dataset["label"]
    low, high = int(label.min()), int(label.max())
    if low < 0 or high > np.iinfo(np.int32).max:
        raise ValueError(f"{name}: labels must be at least 0 and fit into int32, got {low} to {high}: renumber them")
    return {"image": image, "label": label.astype(np.int32)}
