"""Pictures of any size and mode to arrays of one shape, and the checks that every data set passes."""

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from jaxgen.data.limits import MAX_PIXELS, check_memory, check_pixels

Color = Literal["grey", "rgb"]
Fit = Literal["crop", "pad"]
Size = int | tuple[int, int]  # of an image in pixels: its sides, or its height and width
_GREY_MODES = {"1", "L", "LA"}
_RGB_MODES = {"RGB", "RGBA", "PA", "CMYK", "YCbCr"}
_DEEP = 65_535 // 255  # what a value of 16 bits is divided by
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "Png",
    b"\xff\xd8\xff": "Jpeg",
    b"GIF8": "Gif",
    b"BM": "Bmp",
    b"II*\0": "Tiff",
    b"MM\0*": "Tiff",
    b"RIFF": "WebP",
}
_ORIENTATION = 0x0112  # EXIF's tag


class Look(NamedTuple):
    """What the header of a picture says.

    Args:
      size: (height, width) in pixels, as it is seen.
      color: whether it is grey.
      made: what is made of it when it is read, in words.
    """

    size: tuple[int, int]
    color: Color
    made: tuple[str, ...]


class MixedPicturesError(ValueError):
    """Pictures that cannot be taken together as they are: one error says all that hinders them.

    Args:
      name: what to call the data set.
      broken: what is said of each picture that cannot be read.
      sizes: a picture of each size (height, width) that there is; empty where one is asked for.
      colors: a picture of each kind, grey and RGB, that there is; empty where one is asked for.

    ``options`` are those of the command that take the pictures together.
    """

    def __init__(
        self, name: str, broken: list[str], sizes: Mapping[tuple[int, int], str], colors: Mapping[Color, str]
    ) -> None:
        self.name, self.broken, self.sizes, self.colors = name, broken, sizes, colors
        self.options: list[str] = []
        problems = []
        if broken:
            others = f" (nor {len(broken) - 1:,} others)" if len(broken) > 1 else ""
            problems.append(f"{broken[0]}{others}: replace or remove {'them' if others else 'it'}")
        if len(sizes) > 1:
            side = min(64, *(side for size in sizes for side in size))
            self.options += ["--image-size", str(side)]
            (one, first), (other, second), *more = sizes.items()
            kinds = f" (and there are {len(more)} more sizes)" * bool(more)
            problems.append(
                f"{first} is {list(one)} pixels, {second} is {list(other)}{kinds}: give one size for all (--image-size "
                f"{side})"
            )
        if len(colors) > 1:
            self.options += ["--color", "rgb"]
            (one_color, first), (other_color, second) = colors.items()
            problems.append(
                f"{first} is {one_color}, {second} is {other_color}: say which to make of all (--color grey or --color "
                "rgb)"
            )
        super().__init__(f"{name}: {'; '.join(problems)}")


def spoken(num: int, what: str) -> str:
    """A number of things: 1 picture, 2 pictures, 3 classes, 4 pictures beside the splits."""
    thing, beside, where = what.partition(" beside ")
    return f"{num:,} {thing}{'' if num == 1 else 'es' if thing.endswith('s') else 's'}{beside}{where}"


def height_and_width(size: Size | str | None) -> tuple[int, int] | None:
    """A size as a pair: 64 and ``"64"`` are (64, 64), ``"96x128"`` is 96 high and 128 wide; None stays None."""
    if size is None:
        return None
    if isinstance(size, str):
        parts = size.lower().split("x")
        if not (1 <= len(parts) <= 2 and all(part.strip().isdecimal() for part in parts)):
            raise ValueError(f"image size must be a number of pixels, or HEIGHTxWIDTH such as 96x128, got {size!r}")
        size = (int(parts[0]), int(parts[-1]))
    height, width = (size, size) if isinstance(size, int) else size
    largest = math.isqrt(MAX_PIXELS)
    for side in (height, width):
        if not 1 <= side <= largest:
            raise ValueError(f"image size must be at least 1 pixel and at most {largest}, got {side}")
    return height, width


def open_picture(file: BinaryIO) -> Any:
    """A PIL image of which only the header is read.

    By the class of its format: `PIL.Image.open` warns of large pictures by a limit of its own, and warnings cannot be
    silenced in one thread alone. `check_pixels` decides.
    """
    start = file.read(32)
    file.seek(0)
    kind = next((kind for signature, kind in _SIGNATURES.items() if start.startswith(signature)), "")
    if kind == "WebP":
        check_pixels(*_webp_size(start))  # its decoder takes the memory at once
    if not kind or (kind == "WebP" and start[8:12] != b"WEBP"):
        raise ValueError("not a PNG, JPEG, WebP, TIFF, BMP or GIF picture")
    picture = getattr(importlib.import_module(f"PIL.{kind}ImagePlugin"), f"{kind}ImageFile")(file)
    check_pixels(picture.width, picture.height)
    return picture


def _webp_size(start: bytes) -> tuple[int, int]:
    """Width and height in the header of a WebP file."""
    if start[12:16] == b"VP8X":
        return 1 + int.from_bytes(start[24:27], "little"), 1 + int.from_bytes(start[27:30], "little")
    if start[12:16] == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(start[26:28], "little") & 0x3FFF, int.from_bytes(start[28:30], "little") & 0x3FFF


def _is_deep(picture: Any) -> bool:
    """Whether its values are of 16 bits."""
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")


def _orientation(picture: Any) -> int:
    """How a camera was held: 1 upright, to 8; a PNG is not decoded to find out."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1
    return picture.getexif().get(_ORIENTATION, 1)


def look_at(picture: Any) -> Look:
    """What there is to know of a PIL image before its pixels are read; a ValueError where it cannot be taken."""
    made = []
    if _is_deep(picture) or picture.mode in _GREY_MODES:
        color: Color = "grey"
    elif picture.mode == "P":
        palette = np.frombuffer(bytes(picture.getpalette() or ()), np.uint8).reshape(-1, 3)
        color = "grey" if (palette == palette[:, :1]).all() else "rgb"
    elif picture.mode in _RGB_MODES:
        color = "rgb"
    else:
        raise ValueError(f"pictures must be grey or RGB, got mode {picture.mode}: convert it to PNG in L or RGB")
    height, width = picture.height, picture.width
    if (orientation := _orientation(picture)) in range(2, 9):
        made.append("turned upright (EXIF)")
        height, width = (width, height) if orientation >= 5 else (height, width)
    if _is_deep(picture):
        made.append(f"of 16 bits made 8 (divided by {_DEEP})")
    if picture.mode == "CMYK":
        made.append("CMYK made RGB")
    if "A" in picture.mode or "transparency" in picture.info:
        made.append("transparent laid over white")
    if getattr(picture, "n_frames", 1) > 1:
        made.append("of several frames, the first taken")
    return Look((height, width), color, tuple(made))


def picture_to_array(picture: Any, size: tuple[int, int] | None, color: Color, fit: Fit = "crop") -> np.ndarray:
    """Turn a picture upright, crop or pad it to a shape, resize it and convert its colours.

    Transparent pixels are laid over white. Without a size nothing is cropped, padded or resized.

    Args:
      picture: PIL image that `look_at` takes.
      size: height and width of the result in pixels; None to keep the picture's.
      color: ``"grey"`` or ``"rgb"``.
      fit: whether the largest part in the middle of the shape that is wanted is cut out, or white is put around it.

    Returns:
      uint8 [H, W, 1] or [H, W, 3].
    """
    from PIL import Image, ImageOps

    if _orientation(picture) in range(2, 9):
        picture = ImageOps.exif_transpose(picture)
    if _is_deep(picture):
        values = (np.asarray(picture).astype(np.uint32) + _DEEP // 2) // _DEEP
        picture = Image.fromarray(values.astype(np.uint8))
    if "A" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    picture = picture.convert({"grey": "L", "rgb": "RGB"}[color])
    if size is not None and picture.size != size[::-1]:
        if fit == "crop":
            # The largest part of the wanted shape: as wide, or as high, as the picture.
            width = min(picture.width, round(picture.height * size[1] / size[0]) or 1)
            height = min(picture.height, round(picture.width * size[0] / size[1]) or 1)
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            picture = picture.crop((left, top, left + width, top + height))
            picture = picture.resize(size[::-1], Image.Resampling.LANCZOS)
        else:
            picture = ImageOps.pad(picture, size[::-1], Image.Resampling.LANCZOS, "white")
    array = np.asarray(picture, np.uint8)
    return array[..., None] if array.ndim == 2 else array


def different_shapes(name: str, first: Sequence[int], second: Sequence[int], num: int = 2) -> ValueError:
    """The error for a data set whose images are of so many shapes, such as these two."""
    return ValueError(
        f"{name}: images are of {num} different shapes, such as {list(first)} and {list(second)}: give one image size "
        "for all (--image-size 64)"
    )


def resize_images(
    images: Sequence[np.ndarray], size: tuple[int, int] | None, color: Color | None, name: str, fit: Fit = "crop"
) -> np.ndarray:
    """Bring arrays of images to one shape.

    Args:
      images: arrays [H, W, C] of uint8, of one or of many sizes; or one array [N, H, W, C].
      size: (height, width) wanted in pixels, or None to keep them.
      color: ``"grey"`` or ``"rgb"``, or None to keep what there is.
      name: what to call the data set in errors.
      fit: see `picture_to_array`.

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
    same_size = len(shapes) == 1 and size in (None, shapes[0][:2])
    if same_size and len(shapes[0]) == 3 and channels in (None, shapes[0][2]):
        return np.stack(list(images))
    if len(shapes) > 1 and size is None:
        raise different_shapes(name, shapes[0], shapes[-1], len(shapes))
    if any(len(shape) != 3 or shape[2] not in (1, 3) for shape in shapes) or images[0].dtype != np.uint8:
        raise ValueError(
            f"{name}: only 8-bit grey or RGB images [H, W, 1 or 3] can be resized, got {images[0].dtype} "
            f"{list(shapes[0])}: leave out the image size and colour"
        )
    if color is None:
        color = "rgb" if shapes[0][2] == 3 else "grey"
    if size is not None:
        check_memory(len(images) * size[0] * size[1] * (3 if color == "rgb" else 1), name)
    return np.stack(
        [picture_to_array(Image.fromarray(i[..., 0] if i.shape[2] == 1 else i), size, color, fit) for i in images]
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
    if image.ndim == 4 and image.shape[1] in (1, 3, 4) and min(image.shape[2:]) > 4:
        raise ValueError(
            f"{name}: images must be [N, H, W, C], got {list(image.shape)}, channels first: save "
            "images.transpose(0, 2, 3, 1)"
        )
    if image.dtype.kind not in "biuf":
        raise ValueError(f"{name}: images must be uint8, bool or float, got {image.dtype}: convert them")
    if label is None:
        return
    one_each = label.shape[:1] == image.shape[:1] and label.ndim <= 2
    if not (one_each and (label.dtype.kind in "biuf" or (label.dtype.kind == "U" and label.ndim == 1))):
        raise ValueError(
            f"{name}: labels must be one integer per image, [{len(image)}], got {label.dtype} {list(label.shape)}"
        )


def _to_bytes(image: np.ndarray, name: str, whole: bool) -> np.ndarray:
    """Integers as 8 bits: those of 16 divided by 257, others where they are in 0..255."""
    low, high = int(image.min()), int(image.max())
    if image.dtype.newbyteorder("=") == np.uint16:
        if whole and high <= 255:
            raise ValueError(f"{name}: images of 16 bits must span 0..65535, got no value above {high}: store uint8")
        return ((image.astype(np.uint32) + _DEEP // 2) // _DEEP).astype(np.uint8)
    if low < 0 or high > 255:
        raise ValueError(
            f"{name}: images must be uint8, bool or float, got {image.dtype} with values from {low} to {high}: convert "
            "them"
        )
    return image.astype(np.uint8)


def _to_numbers(label: np.ndarray, name: str) -> np.ndarray:
    """Labels as one integer each: from a column, from one-hot rows, from floats that are whole."""
    if label.ndim == 2 and label.shape[1] > 1:
        if not (np.isin(label, (0, 1)).all() and (label.sum(1) == 1).all()):
            raise ValueError(
                f"{name}: labels must be one integer per image, got {list(label.shape)} that is not one-hot: keep one"
            )
        return label.argmax(1)
    label = label.reshape(len(label))
    if np.issubdtype(label.dtype, np.floating) and not (np.isfinite(label).all() and (label == np.round(label)).all()):
        raise ValueError(f"{name}: labels must be one integer per image, got {label.dtype} such as {label[:3]}")
    return label


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
    if np.issubdtype(image.dtype, np.integer) and image.dtype != np.uint8:
        image = _to_bytes(image, name, whole)
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
    label = _to_numbers(dataset["label"], name)
    low, high = int(label.min()), int(label.max())
    if low < 0 or high > np.iinfo(np.int32).max:
        raise ValueError(f"{name}: labels must be at least 0 and fit into int32, got {low} to {high}: renumber them")
    return {"image": image, "label": label.astype(np.int32)}
