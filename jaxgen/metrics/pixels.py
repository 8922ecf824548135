"""How alike two images are, pixel by pixel: for reconstructions, and for samples and their nearest training images.

Images are uint8, bool or floats in [0, 1]. Floats outside raise where the range matters and their values are known,
which they are not inside a caller's ``jit``.
"""

import jax
import jax.numpy as jnp

from jaxgen.batches import to_float
from jaxgen.metrics._neighbours import check_points, nearest

_WINDOW, _SIGMA = 11, 1.5  # pixels


def mean_squared_error(images: jax.Array, others: jax.Array) -> jax.Array:
    """Mean squared difference of each image to the other one of its number: float32 [N].

    MSE(x, y) = (1/D) sum_d (x_d - y_d)^2,  images x and others y of one shape [N, ...], uint8, bool or float
    """
    images, others = _pair(images, others)
    return jnp.mean(jnp.square(images - others), axis=tuple(range(1, images.ndim)))


def peak_signal_to_noise_ratio(images: jax.Array, others: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio of each image and the other one of its number, in decibels, float32 [N].

    PSNR(x, y) = -10 log10 MSE(x, y),  of a peak of 1; images x and others y of one shape [N, ...]

    It is infinite of identical images, and so would be an average over them: average the mean squared errors and take
    the ratio of that, or take the median.

    References:
      Huynh-Thu & Ghanbari 2008, "Scope of validity of PSNR in image/video quality assessment".
    """
    _check_range(images, others)
    return -10.0 * jnp.log10(mean_squared_error(images, others))


def structural_similarity(images: jax.Array, others: jax.Array) -> jax.Array:
    """Structural similarity (SSIM) of each image and the other one of its number, in [-1, 1]: 1 for the same image.

    SSIM(x, y) = mean of (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2))

    m, s^2 and s_xy are means, variances and covariance under a Gaussian window of 11 pixels and standard deviation 1.5
    around each pixel where it fits into the image; C1 = 0.01^2, C2 = 0.03^2. The mean is over these pixels and over the
    channels: float32 [N] of images x and others y, [N, H, W, C] with H, W >= 11. By dm_pix, in float64: in float32 the
    variances of bright, smooth images would be off by 1e-4. It is a metric and no loss: it has no gradient.

    References:
      Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", equation 13 and
      section III-C.
    """
    _check_range(images, others)
    images, others = _pair(images, others)
    if images.ndim != 4 or min(images.shape[1:3]) < _WINDOW:
        raise ValueError(
            f"images must be [N, H, W, C] with H, W >= {_WINDOW}, the size of the window, got {list(images.shape)}: "
            "structural similarity has no meaning for smaller ones"
        )
    with jax.enable_x64(True):
        return _similarities(images, others)


def nearest_neighbours(images: jax.Array, among: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The nearest of some images, such as those of the training set, to each image.

    j_i = argmin_j |x_i - y_j|,  x the images [N, ...], y those ``among`` which is searched [M, ...]

    Distances are compared in float64, a tile of them at a time: 10,000 images of 784 pixels among 60,000 take 0.1 GB
    besides the images.

    Returns:
      (Euclidean distances of the flattened images, float32 [N]; numbers of the nearest, int32 [N], of one of them where
      several are equally near). The distance of an image with NaN is infinite.

    References:
      Theis, van den Oord & Bethge 2016, "A note on the evaluation of generative models", section 3.3, on what nearest
      neighbours do not show.
    """
    check_points("images", images, 1)
    check_points("among", among, 1)
    if images.shape[1:] != among.shape[1:]:
        raise ValueError(
            f"images of one shape are needed, got {list(images.shape[1:])} and {list(among.shape[1:])}: resize them"
        )
    distances, numbers, _ = nearest(jnp.asarray(images), jnp.asarray(among))
    return distances, numbers


def _pair(images: jax.Array, others: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two equally large sets of images as float32 (float64 where that was given)."""
    if jnp.shape(images) != jnp.shape(others):
        raise ValueError(f"expected images of one shape, got {list(jnp.shape(images))} and {list(jnp.shape(others))}")
    check_points("images", images, 1)
    first, second = (
        each.astype(jnp.promote_types(each.dtype, jnp.float32)) for each in (to_float(images), to_float(others))
    )
    return first, second


def _check_range(*sets: jax.Array) -> None:
    """Refuse floats outside [0, 1], where their values are known."""
    for images in sets:
        if isinstance(images, jax.core.Tracer) or not jnp.issubdtype(images.dtype, jnp.floating) or images.size == 0:
            continue
        low, high = float(images.min()), float(images.max())
        if low < -1e-5 or high > 1 + 1e-5:  # beyond rounding
            raise ValueError(
                f"float images must be in [0, 1], got values from {low:g} to {high:g}: rescale or clip them, or pass "
                "0..255 as uint8"
            )


@jax.jit
def _similarities(images: jax.Array, others: jax.Array) -> jax.Array:
    try:
        import dm_pix
    except ImportError as error:
        raise ImportError("structural similarity needs the package dm_pix: pip install dm-pix") from error
    images, others = (jax.lax.stop_gradient(each).astype(jnp.float64) for each in (images, others))
    down, across = (_window(size) for size in images.shape[1:3])

    def blur(x: jax.Array) -> jax.Array:
        return jnp.einsum("nhwc,hi,wj->nijc", x, down, across, precision="highest")

    return dm_pix.ssim(images, others, filter_fn=blur).astype(jnp.float32)


def _window(size: int) -> jax.Array:
    """The means under a Gaussian window, wherever it fits into so many pixels, as a matrix: [size, size - 10]."""
    offsets = jnp.arange(size)[:, None] - jnp.arange(size - _WINDOW + 1)[None] - _WINDOW // 2
    weights = jnp.where(jnp.abs(offsets) <= _WINDOW // 2, jnp.exp(-0.5 * (offsets / _SIGMA) ** 2), 0.0)
    return weights / jnp.sum(weights, axis=0, keepdims=True)
