"""What can be done with the latents of a trained decoder: interpolate, invert, complete; written once for any decoder.

A decoder is a function of standard normal latents: ``decode(z [N, D], label)`` gives the parameters of a likelihood,
[N, ...], where ``label`` is int [N], or None for a model without labels. Under the Gaussian noise that is the default
these are mean images, so that both families fit:

    functools.partial(jaxgen.gan_generate, gan, state)
    functools.partial(jaxgen.vae_decode, vae, state)
    functools.partial(jaxgen.vae_decode_noise, vae, state)  # any depth, with likelihood=vae.likelihood

All are plain functions of arrays: compile them by a ``jax.jit`` of your own, or they are compiled at each call.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.typing
import optax

from jaxgen import batches, losses, metrics
from jaxgen.keys import example_keys, named_key

Decoder = Callable[[jax.Array, jax.Array | None], jax.Array]
Batch = Mapping[str, Any]

INVERSION_NOISE = losses.gaussian(scale=0.1)
# What a decoder gets wrong is alike in neighbouring pixels, and half an image of independent ones would say too much of
# the rest: with a GAN, hidden halves are a fifth better guessed than with 0.1.
COMPLETION_NOISE = losses.gaussian(scale=0.3)
_PARALLEL = 1.0 - 1e-6  # cosine of the angle under which two directions count as one
_SHORT = 1e-12  # length of a latent without a direction


def _check_ends(start: jax.Array, end: jax.Array, weights: jax.Array) -> None:
    if jnp.shape(start) != jnp.shape(end) or jnp.ndim(start) < 1:
        raise ValueError(
            f"start and end must be latents [..., D] of one shape, got {list(jnp.shape(start))} and "
            f"{list(jnp.shape(end))}"
        )
    if jnp.ndim(weights) != 1:
        raise ValueError(f"weights must be [T], e.g. jnp.linspace(0, 1, 9), got shape {list(jnp.shape(weights))}")


def _mix(first: jax.Array, start: jax.Array, second: jax.Array, end: jax.Array) -> jax.Array:
    """first * start + second * end, of weights [..., T] and ends [..., D]."""
    return first[..., None] * start[..., None, :] + second[..., None] * end[..., None, :]


def linear_interpolation(start: jax.Array, end: jax.Array, weights: jax.Array) -> jax.Array:
    """Points [..., T, D] on the straight line between latents, ``start`` and ``end`` [..., D].

    z_t = (1 - t) start + t end,  ``weights`` t [T], 0 at the start and 1 at the end

    In many dimensions its middle is nearer to the origin than samples of a normal distribution ever are.
    """
    _check_ends(start, end, weights)
    weights = jnp.broadcast_to(weights, (*start.shape[:-1], *weights.shape))
    return _mix(1.0 - weights, start, weights, end)


def spherical_interpolation(start: jax.Array, end: jax.Array, weights: jax.Array) -> jax.Array:
    """Points [..., T, D] on the arc between latents, ``start`` and ``end`` [..., D].

    z_t = (sin((1 - t) a) start + sin(t a) end) / sin(a),  a the angle between start and end, ``weights`` t [T]

    Between latents of about one length all points have about that length, as samples of a normal distribution do. Where
    the latents lie in one direction, or in opposite ones, between which there is no one arc, the line is taken.

    References:
      Shoemake 1985, "Animating Rotation with Quaternion Curves"; White 2016, "Sampling Generative Networks",
      section 2.1.
    """
    _check_ends(start, end, weights)
    first_length, second_length = (optax.safe_norm(each, _SHORT, axis=-1) for each in (start, end))
    cosine = jnp.sum(start * end, axis=-1) / (first_length * second_length)
    line = (jnp.abs(cosine) > _PARALLEL) | (jnp.minimum(first_length, second_length) <= _SHORT)
    # Chosen before the arc cosine, which has no gradient where directions are parallel.
    angle = jnp.arccos(jnp.where(line, 0.0, cosine))[..., None]
    line = line[..., None]
    weights = jnp.broadcast_to(weights, (*start.shape[:-1], *weights.shape))
    first = jnp.where(line, 1.0 - weights, jnp.sin((1.0 - weights) * angle) / jnp.sin(angle))
    second = jnp.where(line, weights, jnp.sin(weights * angle) / jnp.sin(angle))
    return _mix(first, start, second, end)


def truncated_normal(key: jax.Array, num_samples: int, latent_dim: int, threshold: float | jax.Array) -> jax.Array:
    """Latents [N, D] from the middle of the prior: likelier images, and less varied ones.

    z_d ~ N(0, 1) given |z_d| <= threshold,  threshold [] above 0; N = num_samples, D = latent_dim

    Latent i depends on the key and on i alone.

    References:
      Brock, Donahue & Simonyan 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", section 3.1.
    """
    for name, size in (("num_samples", num_samples), ("latent_dim", latent_dim)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    if not isinstance(threshold, jax.core.Tracer) and not threshold > 0:
        raise ValueError(f"threshold must be above 0, got {threshold}")
    keys = example_keys(named_key(key, "truncated latents"), num_samples)
    return jax.vmap(lambda k: jax.random.truncated_normal(k, -threshold, threshold, (latent_dim,)))(keys)


def attribute_direction(latents_with: jax.typing.ArrayLike, latents_without: jax.typing.ArrayLike) -> jax.Array:
    """The direction [D] of an attribute: from the mean latent of images without it to that of images with it.

    v = mean_n z_n(with) - mean_m z_m(without);  z + v has the attribute,  z - v does not

    ``latents_with`` are [N, D] and ``latents_without`` [M, D].

    References:
      Radford, Metz & Chintala 2016, "Unsupervised Representation Learning with Deep Convolutional Generative
      Adversarial Networks", section 6.3.2; Larsen et al. 2016, "Autoencoding beyond pixels using a learned
      similarity metric", section 4.2.
    """
    shapes = [list(jnp.shape(each)) for each in (latents_with, latents_without)]
    if any(len(shape) != 2 or shape[0] < 1 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"latents must be [N, D] and [M, D] with N, M >= 1, got shapes {shapes[0]} and {shapes[1]}")
    return jnp.mean(latents_with, axis=0) - jnp.mean(latents_without, axis=0)


def read_mask(mask: Any, image_shape: tuple[int, ...]) -> jax.Array:
    """A mask, bool, True where a pixel is visible, as one of every image, [B, H, W] or [B, D], checked.

    It is given as that or for all images, [H, W] or [D]; ``image_shape`` is that of the batch, (B, H, W, C) or (B, D).
    """
    if getattr(mask, "dtype", None) != jnp.bool_:
        raise TypeError(
            f"a mask must be a bool array, True where a pixel is visible, got {getattr(mask, 'dtype', type(mask))}: "
            "compare, e.g. mask > 0"
        )
    pixels = image_shape[1:3] if len(image_shape) == 4 else image_shape[1:]
    if mask.shape not in (pixels, (image_shape[0], *pixels)):
        raise ValueError(
            f"a mask of images {list(image_shape)} must be {list(pixels)} or {[image_shape[0], *pixels]}, got "
            f"{list(mask.shape)}"
        )
    if not isinstance(mask, jax.core.Tracer):
        with jax.ensure_compile_time_eval():
            empty = ~jnp.any(jnp.asarray(mask).reshape(-1, math.prod(pixels)), axis=1)
            first = int(jnp.argmax(empty)) if bool(jnp.any(empty)) else None
        if first is not None:
            which = f"image {first}" if mask.ndim > len(pixels) else "the mask"
            raise ValueError(f"{which} has no visible pixel: True marks what is visible; to draw images, use a sampler")
    return jnp.broadcast_to(jnp.asarray(mask), (image_shape[0], *pixels))


def keep_visible(images: jax.typing.ArrayLike, mask: jax.typing.ArrayLike, others: jax.Array) -> jax.Array:
    """Images where they are visible, bit for bit, and others where they are not.

    y = m x + (1 - m) x'

    Args:
      images: [B, H, W, C] or [B, D].
      mask: bool, True where a pixel is visible, [H, W], [B, H, W], [D] or [B, D].
      others: what is put where it is not, one an image [B, ...] or several [B, S, ...]: the shape of the result.
    """
    images = batches.to_float(images)
    mask = read_mask(mask, images.shape)
    if others.shape not in (images.shape, (images.shape[0], *others.shape[1:2], *images.shape[1:])):
        raise ValueError(
            f"what completes images {list(images.shape)} must be of their shape, or [{images.shape[0]}, S, ...], got "
            f"{list(others.shape)}"
        )
    if images.ndim == 4:
        mask = mask[..., None]
    if others.ndim > images.ndim:
        images, mask = images[:, None], mask[:, None]
    return jnp.where(mask, images, others)


def _log_prob_of_pixels(likelihood: losses.Likelihood, parameters: jax.Array, images: jax.Array) -> jax.Array:
    """log p of each pixel, [N, H, W] or [N, D]: its pixels are handed to the likelihood as so many images.

    A likelihood whose pixels are independent of each other gives their terms that way; the channels of a pixel stay
    together.
    """
    each = getattr(likelihood, "parameters_per_value", 1)
    num, pixels = images.shape[0], images.shape[1:-1] if images.ndim == 4 else images.shape[1:]
    if images.ndim == 4:
        parameters, values = (array.reshape(-1, array.shape[-1]) for array in (parameters, images))
    else:
        parameters = jnp.swapaxes(parameters.reshape(num, each, -1), 1, 2).reshape(-1, each)
        values = images.reshape(-1, 1)
    return likelihood.log_prob(parameters, values).reshape(num, *pixels)


def _log_likelihood(decode: Decoder, likelihood: losses.Likelihood, z: jax.Array, of: Batch) -> jax.Array:
    """log p(visible pixels | z), [N]."""
    parameters = decode(z, of.get("label"))
    if "mask" not in of:
        return likelihood.log_prob(parameters, of["image"])
    pixels = _log_prob_of_pixels(likelihood, parameters, of["image"])
    return jnp.sum(jnp.where(of["mask"], pixels, 0.0).reshape(z.shape[0], -1), axis=1)


def _log_prior(z: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum(jnp.square(z), axis=-1) - 0.5 * z.shape[-1] * math.log(2.0 * math.pi)


def _known(batch: Batch, mask: Any) -> dict[str, jax.Array]:
    """What is known of each image: its pixels, the visible ones, its label."""
    images, label = batches.read(batch)
    known = {"image": images}
    if mask is not None:
        known["mask"] = read_mask(mask, images.shape)
    if label is not None:
        known["label"] = label
    return known


class Inversion(NamedTuple):
    """The latents of images, found by optimisation.

    Args:
      latents: of the best start of each image, [B, D].
      images: mean images of these latents, [B, ...].
      log_posterior: log p(x | z) + prior_weight log N(z; 0, I) in nats, up to log p(x), [B].
      restarts: the same of every start, [B, R]: where the largest are alike, another start would hardly find more.
    """

    latents: jax.Array
    images: jax.Array
    log_posterior: jax.Array
    restarts: jax.Array


def _adam(num_steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(0.1, num_steps))


def _climb(
    objective: Callable[[jax.Array], jax.Array],
    z: jax.Array,
    optimizer: optax.GradientTransformationExtraArgs,
    num_steps: int,
) -> tuple[jax.Array, jax.Array]:
    """(the highest point on the way from z [D] up an objective, its height)."""

    def loss(z: jax.Array) -> jax.Array:
        return -objective(z)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        z, state, best, least = carry
        value, gradient = jax.value_and_grad(loss)(z)
        better = value < least
        best, least = jnp.where(better, z, best), jnp.where(better, value, least)
        updates, state = optimizer.update(gradient, state, z, value=value, grad=gradient, value_fn=loss)
        return (optax.apply_updates(z, updates), state, best, least), None

    start = (z, optimizer.init(z), z, jnp.full((), jnp.inf))
    (z, _, best, least), _ = jax.lax.scan(step, start, None, length=num_steps)
    value = loss(z)
    better = value < least
    return jnp.where(better, z, best), -jnp.where(better, value, least)


def invert(
    decode: Decoder,
    batch: Batch,
    key: jax.Array,
    latent_dim: int,
    *,
    mask: Any = None,
    start: jax.Array | None = None,
    likelihood: losses.Likelihood = INVERSION_NOISE,
    prior_weight: float | jax.Array = 1.0,
    num_restarts: int = 8,
    num_steps: int = 300,
    optimizer: optax.GradientTransformation | None = None,
) -> Inversion:
    """Project images into the latent space: the latents under which they are likeliest.

    z* = argmax_z log p(x | z) + prior_weight log N(z; 0, I)

    With a weight of 1 it is the mode of the posterior p(z | x), with 0 the best fit. The best of several starts, which
    climb side by side, wins: a generator's landscape has many summits. Each start remembers the highest point of its
    way, so that more steps are never worse.

    Args:
      decode: (z [N, D], label [N] or None) -> parameters of the likelihood [N, ...]; differentiable in z, pure.
      batch: ``image`` [B, H, W, C] or [B, D], ``label`` [B] for a conditional model.
      key: typed key, []; the starts of image i depend on the key and on i alone.
      latent_dim: number of latent dimensions D.
      mask: bool, True where a pixel is visible, [H, W] or [B, H, W] ([D] or [B, D] of vectors): the others play no
        part; None where all are.
      start: where the first start of each image begins, such as an encoder's means, [B, D]; the others, and without it
        all of them, are drawn from N(0, I).
      likelihood: p(x | parameters), its pixels independent of each other where there is a mask; the standard deviation
        of the Gaussian one is in units of the image.
      prior_weight: weight of the prior, at least 0, [].
      num_restarts, num_steps: starts of each image R, and steps of each.
      optimizer: optax transformation, which may look for its step size along a line (``optax.lbfgs()``); Adam from a
        rate of 0.1 along a cosine when None.

    References:
      Zhu et al. 2016, "Generative Visual Manipulation on the Natural Image Manifold", section 3.1; Lipton & Tripathi
      2017, "Precise Recovery of Latent Vectors from Generative Adversarial Networks".
    """
    known = _known(batch, mask)
    num = known["image"].shape[0]
    sizes = {"latent_dim": latent_dim, "num_restarts": num_restarts, "num_steps": num_steps}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    if start is not None and start.shape != (num, latent_dim):
        raise ValueError(f"start must be one latent an image, {[num, latent_dim]}, got shape {list(start.shape)}")
    climber = optax.with_extra_args_support(_adam(num_steps) if optimizer is None else optimizer)

    def draw(example_key: jax.Array) -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(example_key, jnp.arange(num_restarts))
        return jax.vmap(lambda k: jax.random.normal(k, (latent_dim,)))(keys)

    starts = jax.vmap(draw)(example_keys(named_key(key, "inversion"), num))
    if start is not None:
        starts = starts.at[:, 0].set(start)

    def climb(of: dict[str, jax.Array], z: jax.Array) -> tuple[jax.Array, jax.Array]:
        alone = jax.tree.map(lambda leaf: leaf[None], of)

        def objective(z: jax.Array) -> jax.Array:
            return _log_likelihood(decode, likelihood, z[None], alone)[0] + prior_weight * _log_prior(z)

        return _climb(objective, z, climber, num_steps)

    ends, heights = jax.vmap(jax.vmap(climb, in_axes=(None, 0)))(known, starts)
    best = jnp.argmax(heights, axis=1)
    latents = jnp.take_along_axis(ends, best[:, None, None], axis=1)[:, 0]
    images = likelihood.mean(decode(latents, known.get("label")))
    return Inversion(latents, images, jnp.max(heights, axis=1), heights)


class Completion(NamedTuple):
    """Completed images, S of each.

    Args:
      images: the visible pixels as they were given, the others made, [B, S, ...].
      latents: that the others were made of, [B, S, D].
      log_posterior: log p(visible pixels | z) + log N(z; 0, I) in nats, [B, S].
      acceptance: share of the chains' trajectories that were accepted, [B]; None of completions by optimisation.
    """

    images: jax.Array
    latents: jax.Array
    log_posterior: jax.Array
    acceptance: jax.Array | None


def _decode_each(decode: Decoder, latents: jax.Array, label: jax.Array | None) -> jax.Array:
    """Decode [B, S, D] to [B, S, ...]."""
    num, samples, size = latents.shape
    label = None if label is None else jnp.repeat(label, samples, total_repeat_length=num * samples)
    parameters = decode(latents.reshape(-1, size), label)
    return parameters.reshape(num, samples, *parameters.shape[1:])


def complete(
    decode: Decoder,
    batch: Batch,
    mask: Any,
    key: jax.Array,
    latent_dim: int,
    *,
    num_samples: int | None = None,
    likelihood: losses.Likelihood = COMPLETION_NOISE,
    chains_per_sample: int = 4,
    num_temperatures: int = 300,
    num_leapfrog: int = 10,
    chunk_size: int | None = None,
    **optimization: Any,
) -> Completion:
    """Complete images of which only a part is visible: once, or in several ways that the visible part allows.

    x_hidden = E[x | z]_hidden,  z = argmax_z p(z | x_visible)  or  z ~ p(z | x_visible)

    By optimisation it is the single likeliest latent's image. Drawn, the completions of one image differ as far as the
    posterior leaves them free: annealed chains run from the prior to the posterior (`metrics.annealed_samples`), and
    of ``chains_per_sample`` times as many as are asked for, completions are taken without replacement by their
    importance weights. The mean over the completions is then the better guess of each pixel, a single one the more
    plausible image.

    Args:
      decode: (z [N, D], label [N] or None) -> parameters of the likelihood [N, ...]; differentiable in z, pure.
      batch: ``image`` [B, H, W, C] or [B, D], of which the hidden pixels are not looked at; ``label`` [B] for a
        conditional model.
      mask: bool, True where a pixel is visible, [H, W] or [B, H, W] ([D] or [B, D] of vectors).
      key: typed key, [].
      latent_dim: number of latent dimensions D.
      num_samples: completions of each image S; None for one by optimisation.
      likelihood: p(x | parameters), its pixels independent of each other given these.
      chains_per_sample: chains that are run for each completion that is kept.
      num_temperatures: steps from the prior to the posterior.
      num_leapfrog: gradients of a step.
      chunk_size: images at a time of the chains, which bounds the memory; None for all of them.
      **optimization: of `invert`, without samples: ``start``, ``prior_weight``, ``num_restarts``, ``num_steps``,
        ``optimizer``.

    References:
      Yeh et al. 2017, "Semantic Image Inpainting with Deep Generative Models" (optimisation); Rezende, Mohamed &
      Wierstra 2014, section 6.3, on the imputation of missing pixels; Neal 2001, "Annealed Importance Sampling".
    """
    known = _known(batch, mask)
    if num_samples is None:
        mode = invert(decode, batch, key, latent_dim, mask=known["mask"], likelihood=likelihood, **optimization)
        images = keep_visible(known["image"], known["mask"], mode.images)
        height = _log_likelihood(decode, likelihood, mode.latents, known) + _log_prior(mode.latents)
        return Completion(images[:, None], mode.latents[:, None], height[:, None], None)
    if optimization:
        raise TypeError(f"{', '.join(optimization)}: of the optimiser, which num_samples={num_samples} does not use")
    for name, size in (("num_samples", num_samples), ("chains_per_sample", chains_per_sample)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    chains = metrics.annealed_samples(
        functools.partial(_log_likelihood, decode, likelihood),
        known,
        latent_dim,
        named_key(key, "completion chains"),
        num_chains=num_samples * chains_per_sample,
        num_temperatures=num_temperatures,
        num_leapfrog=num_leapfrog,
        chunk_size=chunk_size,
    )
    # The largest of log-weights with Gumbel noise are a draw without replacement in proportion to the weights.
    keys = example_keys(named_key(key, "completion choice"), known["image"].shape[0])
    noise = jax.vmap(lambda k: jax.random.gumbel(k, chains.log_weights.shape[1:]))(keys)
    _, chosen = jax.lax.top_k(chains.log_weights + noise, num_samples)
    latents = jnp.take_along_axis(chains.latents, chosen[..., None], axis=1)
    log_likelihood = jnp.take_along_axis(chains.log_likelihood, chosen, axis=1)
    images = likelihood.mean(_decode_each(decode, latents, known.get("label")))
    return Completion(
        images=keep_visible(known["image"], known["mask"], images),
        latents=latents,
        log_posterior=log_likelihood + _log_prior(latents),
        acceptance=chains.acceptance,
    )
