"""What a VAE is and what training changes of it; and what a tuple in either means: one thing a stochastic layer."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import optax

from jaxgen import batches, losses, modules
from jaxgen.intervals import Count, NotNegative
from jaxgen.spec import Schedule, check_spec, names_in, shown

Batch = Mapping[str, Any]


def _layers(value: Any) -> tuple[Any, ...]:
    # An empty tuple is no field: it is refused as one.
    return value if isinstance(value, tuple) and value else (value,)


@dataclasses.dataclass(frozen=True)
class VAE:
    """What a VAE is: everything static about it. Build it once: a rebuilt spec is compiled again.

    For several stochastic layers, ``encoder``, ``decoder`` and ``latent_dim`` are tuples of one length, index 0 next to
    the data: encoder[l] maps z_l to q(z_{l+1} | z_l) with z_0 = x, decoder[l] maps z_{l+1} to the (mean [B, D_l],
    logvar [B, D_l]) of p(z_l | z_{l+1}), decoder[0] to the likelihood's parameters; the topmost z is N(0, I). With one
    layer, and without free bits and labels, it may have a learnt prior, p(z) = (1/K) sum_k q(z | u_k), whose KL is
    sampled under every objective.

    Args:
      encoder: network (x [B, ...], label=None, *, train) -> (mean [B, D], logvar [B, D]), or with a third array [B, D],
        the direction of a rank-one precision (see `losses.LatentGaussian`).
      decoder: network (z [B, D], label=None, *, train) -> likelihood parameters [B, ...].
      optimizer: optax transformation of encoder and decoder parameters together.
      latent_dim: number of latent dimensions D.
      likelihood: p(x | z), with ``log_prob``, ``mean`` and ``sample``.
      objective: log-weights [K, B] -> lower bound per example [B]; a `losses.Objective` may also say how its gradient
        is estimated. A plain function is given true importance weights.
      num_samples: latent samples per example in training, K.
      beta: weight of the KL of all layers, a number or a schedule of the step; ``state.hyperparams["beta"]``.
      free_bits: least KL that each latent dimension is charged for, in nats, a number or a schedule of the step;
        ``state.hyperparams["free_bits"]``. None for none, as objectives with path weights need.
      prior: network (train) -> pseudo-inputs u [K, ...], images whose posteriors are the prior's components, such as
        `networks.VampPrior`; its parameters are ``state.params["prior"]``. None for the standard normal.

    References:
      Tomczak & Welling 2018, "VAE with a VampPrior", equation 9.
    """

    encoder: Any
    decoder: Any
    optimizer: optax.GradientTransformation
    latent_dim: Count | tuple[Count, ...]
    likelihood: losses.Likelihood = losses.bernoulli
    objective: Callable[[jax.Array], jax.Array] = losses.elbo
    num_samples: Count = 1
    beta: NotNegative | Schedule = 1.0
    free_bits: NotNegative | Schedule | None = None
    prior: Any = None

    of_latents: ClassVar[bool] = False  # whether its images are latents, see `jaxgen.LatentVAE`

    def __post_init__(self) -> None:
        check_spec(self)
        lengths = {
            name: len(value) if isinstance(value := getattr(self, name), tuple) else None
            for name in ("encoder", "decoder", "latent_dim")
        }
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {'not a tuple' if n is None else n}" for name, n in lengths.items())
            raise ValueError(f"VAE.encoder, decoder and latent_dim must be tuples of one length, or none: got {listed}")
        if not all(callable(getattr(self.likelihood, name, None)) for name in ("log_prob", "mean", "sample")):
            names = names_in(losses, lambda name, value: name.islower() and hasattr(value, "log_prob"))
            raise TypeError(
                f"VAE.likelihood must have log_prob, mean and sample, got {shown(self.likelihood)}: use one of "
                f"jaxgen.losses: {names}"
            )
        if not callable(self.objective):
            names = names_in(losses, lambda _, value: isinstance(value, losses.Objective))
            raise TypeError(
                f"VAE.objective must be a function of log-weights [K, B], got {shown(self.objective)}: use one of "
                f"jaxgen.losses: {names}"
            )
        modules.check_conditional("VAE", {"encoder": self.encoders, "decoder": self.decoders})
        if self.free_bits is not None and getattr(self.objective, "path_weights", None) is not None:
            raise ValueError(
                "VAE.free_bits does not go with an objective that has path_weights (dreg): where a dimension's KL is "
                "replaced by a constant, its gradient would be biased; use iwae, elbo or stl"
            )
        self._check_prior()

    def _check_prior(self) -> None:
        if self.prior is None:
            return
        if not (hasattr(self.prior, "init") and hasattr(self.prior, "apply")):
            raise TypeError(
                f"VAE.prior must be None or a network of pseudo-inputs, got {type(self.prior).__name__}: e.g. "
                "jaxgen.networks.VampPrior(image_shape)"
            )
        modules.check_call("VAE.prior", self.prior, inputs=0)
        if len(self.latent_dims) > 1:
            raise ValueError(
                "VAE.prior: a learnt prior is for one stochastic layer, whose encoder takes pseudo-inputs, got "
                f"{len(self.latent_dims)} layers: leave it None"
            )
        if self.free_bits is not None:
            raise ValueError(
                "VAE.free_bits does not go with a learnt prior, whose KL is no sum over latent dimensions: leave out "
                "one of the two"
            )
        if modules.num_classes(*self.encoders, *self.decoders) is not None:
            raise ValueError(
                "VAE.prior: a learnt prior is for networks without labels, as pseudo-inputs have none: leave out "
                "num_classes, or the prior"
            )

    @property
    def encoders(self) -> tuple[Any, ...]:
        """The encoder of each stochastic layer, however it was given."""
        return _layers(self.encoder)

    @property
    def decoders(self) -> tuple[Any, ...]:
        """The decoder of each stochastic layer, however it was given."""
        return _layers(self.decoder)

    @property
    def latent_dims(self) -> tuple[int, ...]:
        """Number of latent dimensions of each stochastic layer, however it was given."""
        return _layers(self.latent_dim)

    @property
    def hyperparams(self) -> dict[str, float | Schedule | None]:
        """The spec's values of what ``state.hyperparams`` holds, numbers or schedules; None for what it does not."""
        return {"beta": self.beta, "free_bits": self.free_bits}


class VAEState(NamedTuple):
    """Everything that training changes, arrays only.

    Args:
      step: number of steps done, int32 [].
      params: ``{"encoder": ..., "decoder": ...}``, tuples of trees where the spec has tuples of networks, and ``prior``
        where that is learnt.
      collections: mutable collections of the networks, likewise.
      optimizer_state: of ``vae.optimizer``.
      hyperparams: ``beta`` [], ``free_bits`` [] where it is given, and ``latent_mask`` [D] (a tuple where the spec has
        tuples), float32.
    """

    step: jax.Array
    params: dict[str, Any]
    collections: dict[str, Any]
    optimizer_state: Any
    hyperparams: dict[str, Any]


def layers_of(vae: VAE, value: Any) -> tuple[Any, ...]:
    """What a part of the state, or of an answer, holds for each stochastic layer; the spec's own has `VAE.encoders`."""
    return value if isinstance(vae.latent_dim, tuple) else (value,)


def as_given(vae: VAE, layers: Any) -> Any:
    """The inverse of `layers_of`: the form in which the caller sees one thing a layer."""
    return tuple(layers) if isinstance(vae.latent_dim, tuple) else layers[0]


def named(name: str, layer: int) -> str:
    """A key's name for a stochastic layer."""
    return f"{name} {layer}" if layer else name


def check_standard_prior(vae: VAE, what: str) -> None:
    """Raise ValueError where the prior is learnt, and latents are therefore no standard normal noise."""
    if vae.prior is not None:
        raise ValueError(
            f"{what} needs a VAE whose latents have a standard normal prior, this one's is learnt "
            f"({type(vae.prior).__name__}): use vae_encode, vae_decode, vae_sample and vae_importance_sampling"
        )


def check_labels(vae: VAE, label: Any) -> None:
    """Refuse concrete labels that a network has no class for."""
    modules.check_label_range(label, *vae.encoders, *vae.decoders)


def select(vae: VAE, batch: Batch) -> Batch:
    """What a compiled function uses of a batch; a concrete label out of range is refused here, outside of it."""
    batch = batches.select(batch)
    check_labels(vae, batch.get("label"))
    return batch
