"""Distances between images and their reconstructions, one value per example, each a mean over an image's values."""

import jax
import jax.numpy as jnp

from jaxgen.losses._checks import check_float, check_same_shape


def _mean_event(values: jax.Array) -> jax.Array:
    return jnp.mean(values.reshape(values.shape[0], -1), axis=1)


def _check(reconstructions: jax.Array, images: jax.Array) -> None:
    check_float("reconstructions", reconstructions)
    check_float("images", images)
    check_same_shape(reconstructions=reconstructions, images=images)


def absolute_error(reconstructions: jax.Array, images: jax.Array) -> jax.Array:
    """Mean absolute error of reconstructions of images, in units of their range: [B, ...], [B, ...] -> [B].

    (1/n) sum_i |y_i - x_i|
    """
    _check(reconstructions, images)
    return _mean_event(jnp.abs(reconstructions - images))


def squared_error(reconstructions: jax.Array, images: jax.Array) -> jax.Array:
    """Mean squared error of reconstructions of images, in units of their range squared: [B, ...], [B, ...] -> [B].

    (1/n) sum_i (y_i - x_i)^2
    """
    _check(reconstructions, images)
    return _mean_event(jnp.square(reconstructions - images))
