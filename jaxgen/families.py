"""The table of model families: all that is to be known of one outside its own file. A new family is a file and a row.

`family_of` finds the row of a spec, and `add` adds one.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen import modules
from jaxgen.collapse import gan_warnings, tokenizer_warnings, vae_warnings
from jaxgen.gan import (
    GAN,
    GANState,
    gan_generate,
    gan_init,
    gan_kept,
    gan_restored,
    gan_sample,
    gan_step,
    gan_to_decode,
)
from jaxgen.keys import named_key, numbered_keys
from jaxgen.second_stage import (
    LatentGAN,
    LatentGANState,
    LatentVAE,
    LatentVAEState,
    latent_batch,
    latent_images,
    latent_init,
    latent_state,
    latent_step,
    without_tokenizer,
)
from jaxgen.tokenizer import (
    Tokenizer,
    TokenizerState,
    check_no_prior,
    tokenizer_codes,
    tokenizer_decode,
    tokenizer_decode_codes,
    tokenizer_encode,
    tokenizer_evaluate,
    tokenizer_frozen,
    tokenizer_init,
    tokenizer_kept,
    tokenizer_made,
    tokenizer_reconstruct,
    tokenizer_restored,
    tokenizer_settle,
    tokenizer_step,
    tokenizer_watch,
    tokenizer_without,
)
from jaxgen.vae import (
    VAE,
    VAEState,
    as_given,
    layers_of,
    vae_decode,
    vae_decode_noise,
    vae_encode,
    vae_encode_noise,
    vae_evaluate,
    vae_importance_sampling,
    vae_init,
    vae_latent_kl,
    vae_reconstruct,
    vae_sample,
    vae_step,
)
from jaxgen.vae.passes import evaluation, prior_latents
from jaxgen.vae.spec import check_standard_prior, named

Spec = Any  # a frozen dataclass of one of the families
State = Any  # a NamedTuple of arrays, of the same family
Networks = dict[str, tuple[Any, ...]]


def _nothing(*_: Any) -> None:
    """What a family without a likelihood, or whose latents need no check, has in its place."""


def _nothing_known(*_: Any) -> list[str]:
    """The warnings of a family of whose collapse nothing is known."""
    return []


def _noise_itself(spec: Spec, state: State, noise: jax.Array, key: jax.Array, numbers: jax.Array) -> jax.Array:
    """The latents [N, D] where the prior is the standard normal."""
    return noise


@dataclasses.dataclass(frozen=True)
class Family:
    """A row of the table. What a family has not got is None, and whoever would use it says so.

    Args:
      name: in commands, and in the names of keys: ``"gan"``.
      title: in sentences: ``"GAN"``.
      summary: how it works, in a sentence.
      spec: its spec's class, a frozen dataclass whose ``hyperparams`` are the fields that its state holds, by name; its
        optimizers' fields end in ``optimizer``.
      state: its state's class, a NamedTuple of arrays with ``step`` and ``hyperparams``.
      init: (spec, key [], batch) -> state.
      step: (spec, state, batch, key []) -> (state, metrics).
      networks: spec -> its networks by name, one for each stochastic layer.
      decoder: the name of those that make images of latents.
      in_use: the names of those that a trained model needs: the others only train it.
      latent_dims: spec -> the latent dimensions of each stochastic layer, next to the data first.
      parameters: (spec, state, latents [N, D], label) -> what the likelihood takes, or mean images, [N, ...]. D is the
        sum of ``latent_dims``, and the latents are standard normal noise of all layers where the prior is.
      decode: (spec, state, latents [N, D], label) -> mean images, [N, ...].
      kept: state -> what a file of weights holds of it: networks by name, their collections, ``hyperparams``, ``step``.
      restored: (spec, what was kept) -> state, its optimizers fresh.
      to_decode: (spec, state) -> the state with nothing in it that decoding does not need.
      sample: (spec, state, key [], num_samples, label) -> images [N, ...]; None where there is no prior.
      prior: (spec, state, noise [N, D], key [], numbers [N]) -> latents as ``decode`` takes them.
      check_noise: (spec, what) raises ValueError where latents are no standard normal noise, which ``what`` needs.
      likelihood: spec -> of images given ``parameters``, or None.
      encode: (spec, state, batch) -> latents [B, D] as ``decode`` takes them.
      posteriors: (spec, state, batch) -> (mean [B, D_l], logvar [B, D_l], ...) of each stochastic layer.
      to_encode: (spec, state) -> the state with nothing in it that encoding does not need.
      codes: (spec, state, batch) -> codes of images, int32 [B, h, w], where the spec's ``num_codes`` is not 0.
      decode_codes: (spec, state, codes [B, h, w]) -> images [B, ...], likewise.
      reconstruct: (spec, state, batch, key []) -> images [B, ...].
      evaluate: (spec, state, batch, key []) -> numbers [B] by name.
      score: the name of that among them by which the best is chosen, and whether more of it is better.
      watch: (spec, state, batches of a split) -> numbers of the whole split by name.
      settle: (spec, state, batches of a split) -> ``hyperparams`` that are measured and not learnt, by name; they are
        written into the state at each evaluation.
      importance_sampling: (spec, state, batch, key [], num_samples, chunk_size=100) -> `LikelihoodEstimate`.
      latent_kl: (spec, state, batch, key []) -> nats [B, D_l] of each stochastic layer.
      collapse: (spec, means of the training metrics since the log's last row by name, numbers of an evaluation of the
        state by name, steps done or None) -> what looks like collapse, a sentence each with remedies as options of
        ``jaxgen train``; of numbers that are not there it says nothing.
    """

    name: str
    title: str
    summary: str
    spec: type
    state: type
    init: Callable[..., State]
    step: Callable[..., tuple[State, dict[str, jax.Array]]]
    networks: Callable[[Spec], Networks]
    decoder: str
    in_use: tuple[str, ...]
    latent_dims: Callable[[Spec], tuple[int, ...]]
    parameters: Callable[..., jax.Array]
    decode: Callable[..., jax.Array]
    kept: Callable[[State], dict[str, Any]]
    restored: Callable[[Spec, dict[str, Any]], State]
    to_decode: Callable[[Spec, State], State]
    sample: Any = None
    prior: Callable[..., jax.Array] = _noise_itself
    check_noise: Callable[[Spec, str], None] = _nothing
    likelihood: Callable[[Spec], Any] = _nothing
    encode: Any = None
    posteriors: Any = None
    to_encode: Any = None
    codes: Any = None
    decode_codes: Any = None
    reconstruct: Any = None
    evaluate: Any = None
    score: tuple[str, bool] = ("elbo", True)
    watch: Any = None
    settle: Any = None
    importance_sampling: Any = None
    latent_kl: Any = None
    collapse: Callable[..., list[str]] = _nothing_known

    def num_classes(self, spec: Spec, *names: str) -> int | None:
        """Number of classes of the networks of these names, or of all; None of a model without labels."""
        networks = self.networks(spec)
        return modules.num_classes(*(network for name in names or networks for network in networks[name]))

    def standard_prior(self, spec: Spec) -> bool:
        """Whether the latents are standard normal noise: whether `check_noise` lets them pass."""
        try:
            self.check_noise(spec, "it")
        except ValueError:
            return False
        return True

    def noise(self, spec: Spec, key: jax.Array, numbers: jax.Array) -> jax.Array:
        """The standard normal noise of all layers that ``sample`` draws for images of some numbers, int [N].

        [N, D], the layer next to the data first.
        """
        layers = []
        for layer, size in enumerate(self.latent_dims(spec)):
            keys = numbered_keys(named_key(key, named(f"{self.name} sample", layer)), numbers)
            layers.append(jax.vmap(lambda k, size=size: jax.random.normal(k, (size,), jnp.float32))(keys))
        return jnp.concatenate(layers, axis=1)

    def observe(self, spec: Spec, state: State, z: jax.Array, label: Any, likelihood: Any) -> tuple[jax.Array, Any]:
        """(what a likelihood takes [N, ...], that likelihood): the one given, of mean images, or else the model's."""
        parameters, own = self.parameters(spec, state, z, label), self.likelihood(spec)
        if own is None or likelihood is None:
            return parameters, own if likelihood is None else likelihood
        return own.mean(parameters), likelihood


def _kept_of_vae(state: VAEState) -> dict[str, Any]:
    collections = {f"{name}_collections": tree for name, tree in state.collections.items()}
    return {**state.params, **collections, "hyperparams": state.hyperparams, "step": state.step}


def _restored_vae(vae: VAE, kept: dict[str, Any]) -> VAEState:
    params, collections = (
        {name: kept[name + suffix] for name in ("encoder", "decoder", "prior") if name + suffix in kept}
        for suffix in ("", "_collections")
    )
    return VAEState(kept["step"], params, collections, vae.optimizer.init(params), kept["hyperparams"])


def _vae_to_decode(vae: VAE, state: VAEState) -> VAEState:
    params, collections = ({**trees, "encoder": None} for trees in (state.params, state.collections))
    return state._replace(params=params, collections=collections, optimizer_state=None)


def _vae_to_encode(vae: VAE, state: VAEState) -> VAEState:
    """The decoders above the first say what noise makes the latents."""
    above = as_given(vae, (None, *layers_of(vae, state.params["decoder"])[1:]))
    return state._replace(params={**state.params, "decoder": above}, optimizer_state=None)


def _decode_vae(vae: VAE, state: VAEState, z: jax.Array, label: jax.Array | None = None) -> jax.Array:
    if vae.prior is not None:
        return vae_decode(vae, state, z, label)
    return vae.likelihood.mean(vae_decode_noise(vae, state, z, label))


def _encode_vae(vae: VAE, state: VAEState, batch: Any) -> jax.Array:
    return vae_encode_noise(vae, state, batch) if vae.prior is None else vae_encode(vae, state, batch)[0]


def _prior_of_vae(vae: VAE, state: VAEState, noise: jax.Array, key: jax.Array, numbers: jax.Array) -> jax.Array:
    return noise if vae.prior is None else prior_latents(evaluation(vae, state), noise, key, numbers)


def _as_grid(spec: Tokenizer, z: jax.Array) -> jax.Array:
    return z.reshape(-1, *spec.latent_shape)


def _sampled(spec: Spec, state: State, key: jax.Array, num_samples: int, label: Any = None) -> jax.Array:
    """Images [N, ...] of the prior, each depending on the key and its number alone."""
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    family, numbers = family_of(spec), jnp.arange(num_samples, dtype=jnp.int32)
    z = family.prior(spec, state, family.noise(spec, key, numbers), key, numbers)
    return family.decode(spec, state, z, label)


def _of_latents(row: Family, name: str, title: str, spec: type, state: Any) -> Family:
    """The row of a second stage: a family of a tokenizer's latents, whose images are those of its decoder."""

    def inside(function: Any) -> Any:
        """A function of (spec, state, batch, ...) there, of images: they are encoded first."""
        if function is None:
            return None
        return lambda spec, state, batch, *rest: function(
            spec, without_tokenizer(state), latent_batch(spec, state, batch), *rest
        )

    def decode(spec: Any, state: Any, z: jax.Array, label: Any = None) -> jax.Array:
        return latent_images(spec, state, row.decode(spec, without_tokenizer(state), z, label))

    def reduced(of_row: Any, without: str) -> Any:
        return lambda spec, state: latent_state(
            spec,
            of_row(spec, without_tokenizer(state)),
            tokenizer_without(without)(spec.tokenizer, state.tokenizer),
        )

    def reconstruct(spec: Any, state: Any, batch: Any, key: jax.Array) -> jax.Array:
        return latent_images(spec, state, inside(row.reconstruct)(spec, state, batch, key))

    def restored(spec: Any, kept: dict[str, Any]) -> Any:
        tokenizer = tokenizer_restored(spec.tokenizer, kept["tokenizer"])
        return latent_state(spec, row.restored(spec, kept), tokenizer_frozen(spec.tokenizer, tokenizer)[1])

    return dataclasses.replace(
        row,
        name=name,
        title=title,
        summary=f"{row.summary} Its images are the latents of a tokenizer, which decodes what it makes.",
        spec=spec,
        state=state,
        init=latent_init,
        step=latent_step,
        parameters=decode,
        decode=decode,
        kept=lambda state: {
            **row.kept(without_tokenizer(state)),
            "tokenizer": tokenizer_kept(state.tokenizer),
        },
        restored=restored,
        to_decode=reduced(row.to_decode, "encoder"),
        sample=_sampled,
        prior=lambda spec, state, *rest: row.prior(spec, without_tokenizer(state), *rest),
        likelihood=_nothing,  # of images
        encode=inside(row.encode),
        posteriors=inside(row.posteriors),
        to_encode=None if row.to_encode is None else reduced(row.to_encode, "decoder"),
        reconstruct=None if row.reconstruct is None else reconstruct,
        evaluate=inside(row.evaluate),
        importance_sampling=None,  # nor of what is measured of images by their likelihood
        latent_kl=None,
    )


_GAN, _VAE, _TOKENIZER = (
    Family(
        name="gan",
        title="GAN",
        summary="A generator learns to make images that a discriminator cannot tell from real ones.",
        spec=GAN,
        state=GANState,
        init=gan_init,
        step=gan_step,
        networks=lambda gan: {"generator": (gan.generator,), "discriminator": (gan.discriminator,)},
        decoder="generator",
        in_use=("generator",),
        latent_dims=lambda gan: (gan.latent_dim,),
        parameters=gan_generate,
        decode=gan_generate,
        kept=gan_kept,
        restored=gan_restored,
        to_decode=gan_to_decode,
        sample=gan_sample,
        collapse=gan_warnings,
    ),
    Family(
        name="vae",
        title="VAE",
        summary=(
            "An encoder writes each image as a few numbers, a decoder reads them back; random numbers make new images."
        ),
        spec=VAE,
        state=VAEState,
        init=vae_init,
        step=vae_step,
        networks=lambda vae: {"encoder": vae.encoders, "decoder": vae.decoders},
        decoder="decoder",
        in_use=("encoder", "decoder"),
        latent_dims=lambda vae: vae.latent_dims,
        parameters=vae_decode_noise,
        decode=_decode_vae,
        kept=_kept_of_vae,
        restored=_restored_vae,
        to_decode=_vae_to_decode,
        sample=vae_sample,
        prior=_prior_of_vae,
        check_noise=check_standard_prior,
        likelihood=lambda vae: vae.likelihood,
        encode=_encode_vae,
        posteriors=lambda vae, state, batch: layers_of(vae, vae_encode(vae, state, batch)),
        to_encode=_vae_to_encode,
        reconstruct=vae_reconstruct,
        evaluate=vae_evaluate,
        importance_sampling=vae_importance_sampling,
        latent_kl=lambda vae, state, batch, key: layers_of(vae, vae_latent_kl(vae, state, batch, key)),
        collapse=vae_warnings,
    ),
    Family(
        name="tokenizer",
        title="tokenizer",
        summary=(
            "An encoder writes each image as a small grid of numbers or codes, a decoder reads it back, and a "
            "discriminator sees to it that the result is as sharp as an image."
        ),
        spec=Tokenizer,
        state=TokenizerState,
        init=tokenizer_init,
        step=tokenizer_step,
        networks=lambda spec: {
            "encoder": (spec.encoder,),
            "bottleneck": (spec.bottleneck,),
            "decoder": (spec.decoder,),
            **({} if spec.discriminator is None else {"discriminator": (spec.discriminator,)}),
        },
        decoder="decoder",
        in_use=("encoder", "bottleneck", "decoder"),
        latent_dims=lambda spec: (math.prod(spec.latent_shape),),
        parameters=lambda spec, state, z, label=None: tokenizer_made(spec, state, _as_grid(spec, z)),
        decode=lambda spec, state, z, label=None: tokenizer_decode(spec, state, _as_grid(spec, z)),
        kept=tokenizer_kept,
        restored=tokenizer_restored,
        to_decode=tokenizer_without("encoder"),
        check_noise=check_no_prior,
        likelihood=lambda spec: spec.likelihood,
        encode=lambda spec, state, batch: tokenizer_encode(spec, state, batch).reshape(batch["image"].shape[0], -1),
        to_encode=tokenizer_without("decoder"),
        codes=tokenizer_codes,
        decode_codes=tokenizer_decode_codes,
        reconstruct=tokenizer_reconstruct,
        evaluate=tokenizer_evaluate,
        score=("squared_error", False),
        watch=tokenizer_watch,
        settle=tokenizer_settle,
        collapse=tokenizer_warnings,
    ),
)
_TABLE = (
    _GAN,
    _VAE,
    _TOKENIZER,
    _of_latents(_GAN, "latent_gan", "GAN of latents", LatentGAN, LatentGANState),
    _of_latents(_VAE, "latent_vae", "VAE of latents", LatentVAE, LatentVAEState),
)
_families: dict[str, Family] = {family.name: family for family in _TABLE}


def add(family: Family) -> None:
    """Add a family's row to the table: its spec is then saved, restored, trained, measured and used as others are."""
    if _families.setdefault(family.name, family) != family:
        raise ValueError(f"there is a family of the name {family.name!r} already: choose another")


def families() -> tuple[Family, ...]:
    """The rows of the table."""
    return tuple(_families.values())


def named_family(name: str) -> Family:
    """The row of a name, such as ``"gan"``; the error lists those that there are."""
    if name not in _families:
        raise ValueError(f"unknown family {name!r}: use one of {', '.join(_families)}")
    return _families[name]


def family_of(spec: Spec) -> Family:
    """The row of a spec, by its class."""
    rows = {family.spec: family for family in _families.values()}
    for kind in type(spec).__mro__:
        if kind in rows:
            return rows[kind]
    titles = " or a ".join(family.title for family in _families.values())
    raise TypeError(f"expected the spec of a {titles}, got {type(spec).__name__}: add its family to jaxgen.families")
