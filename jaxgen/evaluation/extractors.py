"""Images to the features that distributions of images are compared on.

A distance is comparable only with one on the same features, so each extractor has a name, which the distance carries
(FD-LeNet-MNIST, say), the hash of its weights, and its way of resizing. Only on Inception's usual weights is the
Frechet distance the FID.

The two LeNets have learnt all 60,000 training images each, and tell right 99.44 % of MNIST's 10,000 test images and
91.74 % of Fashion-MNIST's, with their weights in half precision as they are stored:

    uv run experiments/train_classifier.py --dataset mnist --epochs 6 --shift 2 --out digits.safetensors
    uv run experiments/train_classifier.py --dataset fashion_mnist --epochs 18 --shift 1 --flip --out wear.safetensors

The shipped files were made from the sets' original files in their order (``--dataset idx:DIR --name mnist``); TFDS
shuffles the images, so that from it these commands make other weights. That of colour pictures has learnt composed
ones, by experiments/color/train_classifier.py: docs/evaluation.md says from what, how well, and what it cannot see.
"""

import dataclasses
import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec
from jax.tree_util import Partial

from jaxgen.batches import check_images, to_float
from jaxgen.networks import InceptionV3, LeNet
from jaxgen.parallel import make_mesh
from jaxgen.training import manifest
from jaxgen.weights import read_arrays

_LENETS = {"mnist": "LeNet-MNIST", "fashion_mnist": "LeNet-FashionMNIST", "color": "LeNet-Color"}
SHIPPED = ("pixels", *(f"lenet_{name}" for name in _LENETS))  # what `find` finds without a file
COLOR_SIDE = 32  # pixels that the LeNet of colour pictures sees
_COLOR_ANSWERS = 78  # of its five tasks together
_INCEPTION = "Inception"
# Of pt_inception-2015-12-05-6726825d.pth, the weights that the PyTorch implementations of the FID share.
_USUAL_INCEPTION = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_INCEPTION_SIDE = 299
_USUAL_NAMES = {"FD": "FID", "KD": "KID"}

Outputs = tuple[jax.Array, jax.Array | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Extractor:
    """A function from images to features, and what identifies it.

    Args:
      name: what numbers made with it are called by, e.g. ``"LeNet-MNIST"``.
      sha256: of the file of its weights; of its name where there is no file.
      resizing: what happens to the size and the range of the images, in words; ``"none"`` for nothing.
      function: floats in [0, 1], [B, H, W, C] -> (features [B, D], logits [B, K] or None); JAX can trace it.
      image_shape: shape of the images that it takes, (H, W, C); None for any.
      batch_size: how many images it is given at once where the caller does not say.
    """

    name: str
    sha256: str
    resizing: str
    function: Callable[[jax.Array], Outputs]
    image_shape: tuple[int, ...] | None
    batch_size: int = 256

    def metric_name(self, metric: str) -> str:
        """What a metric on these features is called: ``"FD"`` is FD-LeNet-MNIST, and FID on Inception's alone.

        Args:
          metric: short name of the metric, e.g. ``"FD"`` for the Frechet and ``"KD"`` for the kernel distance.

        Returns:
          The metric's full name.
        """
        usual = _USUAL_NAMES.get(metric) if self.name == _INCEPTION else None
        return usual or f"{metric}-{self.name}"


class Features(NamedTuple):
    """What an extractor makes of a set of images.

    Args:
      features: float32 [N, D].
      probabilities: of the classes, float32 [N, K]; None of an extractor that does not classify.
    """

    features: np.ndarray
    probabilities: np.ndarray | None


def _flatten(images: jax.Array) -> Outputs:
    return images.reshape(images.shape[0], -1), None


def pixels() -> Extractor:
    """The images themselves, flattened, of any shape, as the extractor called pixels."""
    return Extractor("pixels", _text_sha256("jaxgen.evaluation.extractors.pixels"), "none", _flatten, None)


def lenet(name: Literal["mnist", "fashion_mnist", "color"]) -> Extractor:
    """A small classifier, of grey images of 28 x 28 pixels or of colour pictures, and its 64 features.

    They are those before its last layer. That of colour pictures is for images that no other has learnt: of any size,
    they are resized to 32 x 32, and grey ones repeated to three channels. The classes are its own, so it gives none.

    Args:
      name: the data set that it has learnt; ``"color"`` are composed pictures, see above.

    Returns:
      The extractor called LeNet-MNIST or LeNet-FashionMNIST, for images [B, 28, 28, 1], or LeNet-Color, for images
      [B, H, W, 1] and [B, H, W, 3].

    Raises:
      ValueError: there is none of that name.
    """
    _, weights, shape, sha256 = lenet_weights(name)
    if name == "color":
        resizing = f"bilinear to {COLOR_SIDE}x{COLOR_SIDE}, half-pixel centres, antialiased"
        return Extractor(_LENETS[name], sha256, resizing, Partial(_apply_color_lenet, weights), None)
    return Extractor(_LENETS[name], sha256, "none", Partial(_apply_lenet, weights), shape)


class Classifier(NamedTuple):
    """A small classifier with what it has learnt.

    Args:
      network: called with images [B, H, W, C].
      params: its parameters.
      image_shape: shape of an image that it takes, (H, W, C).
      sha256: of the file.
    """

    network: LeNet
    params: Any
    image_shape: tuple[int, ...]
    sha256: str


def lenet_weights(name: str) -> Classifier:
    """The network of an extractor of `lenet` by the ``name`` of what it has learnt, with arrays of any shapes."""
    if name not in _LENETS:
        raise ValueError(f"there is no LeNet of {name!r}: choose from {', '.join(_LENETS)}")
    path = Path(__file__).parent / f"lenet_{name}.safetensors"
    network, shape = (color_lenet(), (COLOR_SIDE, COLOR_SIDE, 3)) if name == "color" else (LeNet(), (28, 28, 1))
    weights, _, sha256 = _read(path, network, shape, "float16")
    return Classifier(network, weights, shape, sha256)


def inception(path: str | Path) -> Extractor:
    """Inception v3 with the weights of a file, and its 2,048 features.

    Grey images are repeated to three channels. Images are resized as by PyTorch's ``interpolate``, and as in the
    PyTorch implementations of the FID; TensorFlow's original differs in the places of the pixels.

    Args:
      path: a file that ``experiments/convert_inception.py`` has written.

    Returns:
      The extractor for images [B, H, W, 1] and [B, H, W, 3]. It is called Inception, and the Frechet distance FID,
      where the file was made from the usual weights; else Inception- and the start of its hash.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not such a file, or damaged; the error names what is missing, too much or of another shape.
    """
    side = _INCEPTION_SIDE
    weights, record, sha256 = _read(Path(path), InceptionV3(), (side, side, 3), "float32")
    usual = record.get("source_sha256") == _USUAL_INCEPTION
    return Extractor(
        name=_INCEPTION if usual else f"{_INCEPTION}-{sha256[:8]}",
        sha256=sha256,
        resizing=f"bilinear to {side}x{side}, half-pixel centres, no antialiasing, [0, 1] -> [-1, 1]",
        function=Partial(_apply_inception, weights),
        image_shape=None,
        batch_size=32,
    )


def custom(name: str, function: Callable[[jax.Array], Any], identity: str = "") -> Extractor:
    """Any function as an extractor.

    Args:
      name: what numbers made with it are called by.
      function: floats in [0, 1], [B, H, W, C] (or [B, D], of vectors) -> features [B, D], or (features [B, D],
        logits [B, K]); JAX can trace it (`jax.pure_callback` lets it call other programs).
      identity: what tells it from others, such as the hash of its weights. A function without weights at the top level
        of a module that has a name can do without: its full name is taken.

    Returns:
      The extractor for images of any shape.

    Raises:
      ValueError: the name is empty or another extractor's, or the function has no name that tells it from others and
        no identity is given.
    """
    taken = ("pixels", *_LENETS.values())
    if not name or name in taken or name.startswith(_INCEPTION):
        raise ValueError(
            f"a custom extractor needs a name of its own, got {name!r}: none of {', '.join(taken)}, and none that "
            f"begins with {_INCEPTION}"
        )
    full_name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    if not identity and (not inspect.isfunction(function) or "<" in full_name or full_name.startswith("__main__.")):
        raise ValueError(
            f"{name}: {function!r} may differ from one time to the next under the same name: give identity, such as "
            "the hash of its weights"
        )
    return Extractor(name, _text_sha256(f"{full_name} {identity}"), "none", _Custom(name, function), None)


def find(text: str) -> Extractor:
    """The extractor that an option of a command names.

    Args:
      text: ``"pixels"``, ``"lenet_mnist"``, ``"lenet_fashion_mnist"``, ``"lenet_color"``, or ``"inception:PATH"``.

    Returns:
      The extractor.

    Raises:
      ValueError: there is none of that name, or the file at PATH is no Inception.
      FileNotFoundError: there is no file at PATH.
    """
    if text == "pixels":
        return pixels()
    if text == "lenet_mnist":
        return lenet("mnist")
    if text == "lenet_fashion_mnist":
        return lenet("fashion_mnist")
    if text == "lenet_color":
        return lenet("color")
    kind, _, path = text.partition(":")
    if kind == "inception" and path:
        return inception(Path(path).expanduser())
    raise ValueError(f"there is no extractor {text!r}: choose from {', '.join(SHIPPED)} and inception:PATH")


def extract(
    extractor: Extractor,
    images: np.ndarray,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """The features of a set of images, a piece at a time.

    Each piece is split over the devices, as many of them as divide its size.

    Args:
      extractor: what makes features of images.
      images: uint8, bool or floats in [0, 1], [N, H, W, C], or [N, D] for extractors that take vectors.
      batch_size: number of images in a piece; the extractor's own when None.
      devices: where to compute; all devices of this process when None.
      progress: called after every piece with the numbers of images done and of all.

    Returns:
      Features float32 [N, D] and, of a classifier, probabilities float32 [N, K].

    Raises:
      TypeError: the images are of another type.
      ValueError: there are no images, their values or their shape are not what the extractor takes, what it makes of
        them has another shape than features have, or the batch size is not positive.
      FloatingPointError: a feature is not finite; the error names the first such image.
    """
    images = np.asarray(images)
    _check_images(extractor, images)
    num_images = len(images)
    wanted = extractor.batch_size if batch_size is None else batch_size
    if wanted < 1:
        raise ValueError(f"batch_size must be at least 1, got {wanted}")
    devices = jax.local_devices() if devices is None else devices
    num_devices = math.gcd(wanted, len(devices))
    size = min(wanted, math.ceil(num_images / num_devices) * num_devices)
    mesh = make_mesh({"data": num_devices}, devices)
    split, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    function = extractor.function
    # Weights are an argument of the program, not constants of it: once for all pieces on every device.
    function = jax.device_put(function if isinstance(function, Partial) else Partial(function), everywhere)

    pieces = []
    for start in range(0, num_images, size):
        piece = images[start : start + size]
        count = len(piece)
        if count < size:  # one program for all pieces: the last is filled up
            piece = np.concatenate([piece, np.repeat(piece[-1:], size - count, axis=0)])
        if np.issubdtype(piece.dtype, np.floating):
            piece = piece.astype(np.float32)
        outputs = jax.device_get(_features(extractor.name, function, jax.device_put(piece, split)))
        outputs = jax.tree.map(lambda output, count=count: output[:count], outputs)
        _check_finite(extractor, outputs, start)
        pieces.append(outputs)
        if progress is not None:
            progress(start + count, num_images)
    features, probabilities = zip(*pieces, strict=True)
    return Features(np.concatenate(features), None if probabilities[0] is None else np.concatenate(probabilities))


@partial(jax.jit, static_argnums=0)
def _features(name: str, function: Partial, images: jax.Array) -> Outputs:
    """Features and probabilities of a piece, in float32 products also where a device would rather round."""
    with jax.default_matmul_precision("highest"):
        features, logits = function(to_float(images))
    for kind, output in (("features [B, D]", features), ("logits [B, K]", logits)):
        if output is not None and not (
            output.ndim == 2 and output.shape[0] == images.shape[0] and jnp.issubdtype(output.dtype, jnp.floating)
        ):
            raise ValueError(
                f"{name} must make {kind}, floating point, of {images.shape[0]} images, got {manifest.describe(output)}"
            )
    probabilities = None if logits is None else jax.nn.softmax(logits.astype(jnp.float32), axis=1)
    return features.astype(jnp.float32), probabilities


def _check_images(extractor: Extractor, images: np.ndarray) -> None:
    check_images(images, bounded=images.ndim != 2)
    if extractor.image_shape is not None and images.shape[1:] != extractor.image_shape:
        raise ValueError(
            f"{extractor.name} takes images of shape {list(extractor.image_shape)}, got {list(images.shape[1:])}: "
            "load the data in that size and colour, or use pixels or a custom extractor"
        )


def _check_finite(extractor: Extractor, outputs: Outputs, start: int) -> None:
    for name, output in zip(("features", "probabilities"), outputs, strict=True):
        finite = True if output is None else np.isfinite(output).all(axis=1)
        if not np.all(finite):
            raise FloatingPointError(
                f"{extractor.name} makes {name} that are not finite of image {start + int(np.argmin(finite))}: look "
                "at that image, and at the extractor's weights"
            )


def _network_outputs(network: nn.Module, weights: Any, images: jax.Array) -> Outputs:
    outputs: Any = network.apply({"params": weights}, images)
    return outputs


def color_lenet(num_classes: int = _COLOR_ANSWERS) -> LeNet:
    """The network of the extractor LeNet-Color, for images [B, 32, 32, 3], with logits of so many answers in all."""
    return LeNet(num_classes, channels=(32, 64))


def _apply_lenet(weights: Any, images: jax.Array) -> Outputs:
    return _network_outputs(LeNet(), weights, images)


def _resize(images: jax.Array, side: int, antialias: bool = False) -> jax.Array:
    """Bilinear, half-pixel centres, no antialiasing if not said: [B, H, W, C] -> [B, side, side, C]."""
    return jax.image.resize(images, (images.shape[0], side, side, images.shape[3]), "bilinear", antialias=antialias)


def _in_color(name: str, images: jax.Array, side: int, antialias: bool = False) -> jax.Array:
    """Images [B, H, W, 1] or [B, H, W, 3] as the network of a name takes them, [B, side, side, 3]."""
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"{name} takes images [N, H, W, 3], or grey ones [N, H, W, 1], got {list(images.shape)}")
    images = _resize(images, side, antialias)
    return jnp.broadcast_to(images, (*images.shape[:3], 3))


def _apply_color_lenet(weights: Any, images: jax.Array) -> Outputs:
    features, _ = _network_outputs(color_lenet(), weights, _in_color(_LENETS["color"], images, COLOR_SIDE, True))
    return features, None


def _apply_inception(weights: Any, images: jax.Array) -> Outputs:
    return _network_outputs(InceptionV3(), weights, _in_color(_INCEPTION, images, _INCEPTION_SIDE))


@dataclasses.dataclass(frozen=True)
class _Custom:
    """A user's function, made to return a pair; equal where the functions are, so that programs are found again."""

    name: str
    function: Callable[[jax.Array], Any]

    def __call__(self, images: jax.Array) -> Outputs:
        made = self.function(images)
        features, logits = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not (isinstance(features, jax.Array) and (logits is None or isinstance(logits, jax.Array))):
            raise ValueError(
                f"{self.name} must return features [B, D], or (features [B, D], logits [B, K]), as JAX arrays, got "
                f"{type(made).__name__}"
            )
        return features, logits


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(
    path: Path, network: nn.Module, image_shape: tuple[int, ...], dtype: str
) -> tuple[Any, Mapping[str, Any], str]:
    """Weights of a network, the record that was stored with them, and the hash of the file."""
    arrays, record, sha256 = read_arrays(path)
    wrong = manifest.array_differences(manifest.arrays(arrays), weights_of(network, image_shape, dtype))
    if record.get("network") != type(network).__name__ or wrong:
        found = manifest.summary(wrong) if wrong else "nothing in it says so"
        script = "convert_inception.py" if isinstance(network, InceptionV3) else "train_classifier.py"
        raise ValueError(
            f"{path} does not hold the weights of {type(network).__name__} ({found}): write it with "
            f"experiments/{script}"
        )
    weights = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}
    return traverse_util.unflatten_dict(weights, sep="."), record, sha256


def weights_of(network: nn.Module, image_shape: tuple[int, ...], dtype: str) -> dict[str, str]:
    """The arrays that a file of a network's weights holds.

    Args:
      network: a network that is called with images.
      image_shape: shape of an image, (H, W, C).
      dtype: type that they are stored in, e.g. ``"float16"``.

    Returns:
      Type and shape of each by its dotted name, such as ``float16[64, 10]`` of ``logits.kernel``.
    """
    shapes = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    stored = traverse_util.flatten_dict(shapes["params"], sep=".")
    return {name: f"{dtype}{list(leaf.shape)}" for name, leaf in stored.items()}
