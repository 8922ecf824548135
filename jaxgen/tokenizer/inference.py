"""What a trained tokenizer is asked: latents and codes of images, images of either, and what a split says of it."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen import batches, losses, metrics
from jaxgen.adversary import Batch, Metrics, as_float32
from jaxgen.keys import named_key
from jaxgen.tokenizer.spec import Pass, Tokenizer, TokenizerState, check_images, select

ACTIVE = 0.01  # variance of a channel above which it says something, as of active units
LEAST_VARIANCE = 1e-12  # of a latent channel that says something


def _trained(spec: Tokenizer, state: TokenizerState) -> Pass:
    """Encoder, bottleneck and decoder as they are used: by their moving averages where there are some."""
    params, collections = state.params, state.collections
    if state.ema is not None:
        averaged = state.ema["params"], state.ema["collections"]
        params, collections = averaged
    # Evaluation mode has no dropout and draws nothing: the networks' key is a formality here.
    return Pass(spec, params, collections, False, jax.random.key(0), None)


def _normalized(state: TokenizerState, latents: jax.Array) -> jax.Array:
    mean, deviation = (state.hyperparams[name][None, None, None] for name in ("latent_mean", "latent_std"))
    return (latents - mean) / deviation


def _check_latents(spec: Tokenizer, z: jax.Array) -> None:
    if z.ndim != 4 or z.shape[3] != spec.latent_shape[2]:
        raise ValueError(
            f"latents must be [N, h, w, {spec.latent_shape[2]}], such as {[1, *spec.latent_shape]}, got shape "
            f"{list(z.shape)}"
        )


@functools.partial(jax.jit, static_argnums=0)
def _encode(spec: Tokenizer, state: TokenizerState, batch: Batch) -> tuple[jax.Array, jax.Array | None]:
    images, _ = batches.read(batch)
    check_images(images)
    bottled, _ = _trained(spec, state).encode(images)
    return bottled.latents, bottled.codes


def tokenizer_encode(spec: Tokenizer, state: TokenizerState, batch: Batch) -> jax.Array:
    """The normalised latents [B, h, w, c] of images, quantised ones and of a KL bottleneck the means.

    (z - mean) / std, of each channel over the split on which they were measured, see `tokenizer_settle`
    """
    return _normalized(state, _encode(spec, state, select(batch))[0])


def tokenizer_codes(spec: Tokenizer, state: TokenizerState, batch: Batch) -> jax.Array:
    """The codes of images, int32 [B, h, w], from 0 to the number of codes less 1."""
    _check_codes(spec)
    codes = _encode(spec, state, select(batch))[1]
    assert codes is not None
    return codes


def _check_codes(spec: Tokenizer) -> None:
    if not spec.num_codes:
        raise TypeError(
            f"{type(spec.bottleneck).__name__} has no codes: use tokenizer_encode, or a tokenizer with FSQ, VQ or LFQ"
        )


@functools.partial(jax.jit, static_argnums=0)
def _made(spec: Tokenizer, state: TokenizerState, z: jax.Array) -> jax.Array:
    mean, deviation = (state.hyperparams[name][None, None, None] for name in ("latent_mean", "latent_std"))
    latents = z * deviation + mean
    return _trained(spec, state).decode(latents)[0]


def tokenizer_made(spec: Tokenizer, state: TokenizerState, z: jax.Array) -> jax.Array:
    """What the decoder makes [N, H, W, ...] of normalised latents z [N, h, w, c]: images, or likelihood parameters."""
    _check_latents(spec, z)
    return _made(spec, state, z)


def tokenizer_decode(spec: Tokenizer, state: TokenizerState, z: jax.Array) -> jax.Array:
    """The image [N, H, W, C] of normalised latents z [N, h, w, c], such as `tokenizer_encode` gives."""
    return spec.mean(tokenizer_made(spec, state, z))


@functools.partial(jax.jit, static_argnums=0)
def _decode_codes(spec: Tokenizer, state: TokenizerState, codes: jax.Array) -> jax.Array:
    network = _trained(spec, state)
    variables = {"params": network.params["bottleneck"], **network.collections["bottleneck"]}
    latents = spec.bottleneck.apply(variables, codes, method="embed")
    return spec.mean(network.decode(latents)[0])


def tokenizer_decode_codes(spec: Tokenizer, state: TokenizerState, codes: jax.Array) -> jax.Array:
    """The image [N, H, W, C] of codes, int [N, h, w], such as `tokenizer_codes` gives."""
    _check_codes(spec)
    codes = jnp.asarray(codes)
    if codes.ndim != 3:
        raise ValueError(f"codes must be [N, h, w], such as {[1, *spec.latent_shape[:2]]}, got {list(codes.shape)}")
    if not isinstance(codes, jax.core.Tracer) and not bool(((codes >= 0) & (codes < spec.num_codes)).all()):
        raise ValueError(
            f"codes must be from 0 to {spec.num_codes - 1}, got values from {int(codes.min())} to {int(codes.max())}: "
            "they are no codes of this tokenizer"
        )
    return _decode_codes(spec, state, codes)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _reconstruct(spec: Tokenizer, state: TokenizerState, batch: Batch, key: jax.Array, sampled: bool) -> jax.Array:
    network, (images, _) = _trained(spec, state), batches.read(batch)
    check_images(images)
    drawing = network._replace(key=named_key(key, "tokenizer reconstruct")) if sampled else network
    return spec.mean(network.decode(drawing.encode(images, draw=sampled)[0].latents)[0])


def tokenizer_reconstruct(
    spec: Tokenizer, state: TokenizerState, batch: Batch, key: jax.Array | None = None, *, sampled: bool = False
) -> jax.Array:
    """Images [B, H, W, C] encoded and decoded; ``sampled``: of a KL bottleneck from a draw, which needs a key."""
    if sampled and key is None:
        raise ValueError("sampled reconstructions need a key: pass jax.random.key(seed)")
    return _reconstruct(spec, state, select(batch), jax.random.key(0) if key is None else key, sampled)


def tokenizer_frozen(spec: Tokenizer, state: TokenizerState) -> tuple[Tokenizer, TokenizerState]:
    """The same tokenizer without what only trains it: its averages are its parameters, and it has no discriminator.

    It encodes and decodes images [B, H, W, C] to the same latents and back.
    """
    network = _trained(spec, state)
    like = {"params": state.params, "collections": state.collections}
    used: Any = {"params": network.params, "collections": network.collections}
    if state.ema is not None:
        used = jax.tree.map(lambda average, leaf: jnp.asarray(average, leaf.dtype), used, like)
    bare = dataclasses.replace(
        spec,
        discriminator=None,
        discriminator_optimizer=None,
        perceptual=None,
        equivariance=None,
        ema_decay=None,
        average_lengths=(),
        lecam_weight=None,
        penalties=(),
        augmentation=None,
        augmentation_target=None,
    )
    return bare, TokenizerState(
        step=state.step,
        **used,
        discriminator_params={},
        discriminator_collections={},
        discriminator_optimizer_state=None,
        optimizer_state=None,
        perceptual_params={},
        perceptual_weights=(),
        ema=None,
        hyperparams={name: state.hyperparams[name] for name in ("latent_mean", "latent_std")},
    )


def tokenizer_nearest(spec: Tokenizer, state: TokenizerState, z: jax.Array) -> jax.Array:
    """Normalised latents z [N, h, w, c] of any kind as those of the nearest codes, with the gradient of the former."""
    _check_codes(spec)
    _check_latents(spec, z)
    network = _trained(spec, state)
    variables = {"params": network.params["bottleneck"], **network.collections["bottleneck"]}
    mean, deviation = (state.hyperparams[name][None, None, None] for name in ("latent_mean", "latent_std"))
    return _normalized(state, spec.bottleneck.apply(variables, z * deviation + mean, method="nearest"))


class _OfImages(NamedTuple):
    """Moments of each latent channel over the places of images, and how often each code occurs.

    Args:
      places: number of places, float32 [].
      mean: [c].
      squares: sum of the squared differences from the mean, [c].
      counts: of codes, int32 [K]; K is 0 without codes.
    """

    places: jax.Array
    mean: jax.Array
    squares: jax.Array
    counts: jax.Array


@functools.partial(jax.jit, static_argnums=0)
def _of_batch(spec: Tokenizer, state: TokenizerState, batch: Batch) -> _OfImages:
    latents, codes = _encode(spec, state, batch)
    rows = latents.reshape(-1, latents.shape[-1])
    mean = jnp.mean(rows, axis=0)
    squares = jnp.sum(jnp.square(rows - mean[None]), axis=0)
    counts = jnp.bincount(jnp.zeros((0,), jnp.int32) if codes is None else codes.ravel(), length=spec.num_codes)
    return _OfImages(jnp.float32(len(rows)), mean, squares, counts)


@jax.jit
def _joined(a: _OfImages, b: _OfImages) -> _OfImages:
    """The same of the images of both (Chan et al. 1983): the differences are small where sums of squares are not."""
    places = a.places + b.places
    step = b.mean - a.mean
    squares = a.squares + b.squares + jnp.square(step) * a.places * b.places / places
    return _OfImages(places, a.mean + step * b.places / places, squares, a.counts + b.counts)


def _of_split(spec: Tokenizer, state: TokenizerState, split: Iterable[Batch]) -> _OfImages:
    found: _OfImages | None = None
    for batch in split:
        latest = _of_batch(spec, state, select(batch))
        found = latest if found is None else _joined(found, latest)
    if found is None:
        raise ValueError("a split must hold at least one batch of images, got none")
    return found


def tokenizer_settle(spec: Tokenizer, state: TokenizerState, split: Iterable[Batch]) -> dict[str, jax.Array]:
    """Mean and standard deviation of each latent channel over a split's images, to be kept in ``state.hyperparams``.

    ``split`` are batches, each ``image`` [B, H, W, C]. A channel that does not vary keeps the deviation 1. Returned are
    ``latent_mean`` and ``latent_std``, float32 [c], by which `tokenizer_encode` normalises and `tokenizer_decode`
    undoes it.
    """
    found = _of_split(spec, state, split)
    variance = found.squares / found.places
    deviation = jnp.where(variance > LEAST_VARIANCE, jnp.sqrt(variance), 1.0)
    return {"latent_mean": found.mean, "latent_std": deviation}


def tokenizer_watch(spec: Tokenizer, state: TokenizerState, split: Iterable[Batch]) -> dict[str, float]:
    """What only a whole split shows of latents: how many codes are used, or how many channels say something.

    ``codes_used``, the share of all codes that occur, and ``code_perplexity``, exp of the entropy of how often each
    does; of a bottleneck without codes ``active_channels``, whose means vary by more than 0.01. ``split`` are batches,
    each ``image`` [B, H, W, C].
    """
    found = _of_split(spec, state, split)
    if not spec.num_codes:
        return {"active_channels": float(jnp.sum(found.squares / found.places > ACTIVE))}
    usage = metrics.code_usage(found.counts.astype(jnp.float32))
    return {"codes_used": float(usage.share_used), "code_perplexity": float(usage.perplexity)}


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(spec: Tokenizer, state: TokenizerState, batch: Batch) -> Metrics:
    network, (images, _) = _trained(spec, state), batches.read(batch)
    check_images(images)
    bottled, _ = network.encode(images)
    made, _ = network.decode(bottled.latents)
    rebuilt = spec.mean(made)
    found = {
        "reconstruction": spec.distance(made, images),
        "squared_error": losses.squared_error(rebuilt, images),
        "absolute_error": losses.absolute_error(rebuilt, images),
        **bottled.numbers,
    }
    return as_float32(found)


def tokenizer_evaluate(spec: Tokenizer, state: TokenizerState, batch: Batch, key: jax.Array | None = None) -> Metrics:
    """What a tokenizer makes of images, float32 [B] each: nothing is drawn, and the key is not used.

    ``reconstruction``, the spec's distance; ``squared_error`` and ``absolute_error`` of the reconstructed images, means
    over their values; and the numbers of the bottleneck.
    """
    return _evaluate(spec, state, select(batch))
