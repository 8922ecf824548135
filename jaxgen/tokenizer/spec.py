"""What a tokenizer is, what training changes of it, and its pass through encoder, bottleneck and decoder."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import optax

from jaxgen import batches, losses, modules
from jaxgen.adversary import Augmentation, Batch, adversary_hyperparams, check_adversary
from jaxgen.intervals import Count, CountOrNone, Inside, NotNegative, Positive, Rate, RelativeLength, Share
from jaxgen.keys import AxisName, named_key
from jaxgen.spec import LATER, Schedule, check_spec, names_in, shown

PARTS = ("encoder", "bottleneck", "decoder")


class Bottled(Protocol):
    """What a bottleneck makes of images, see `jaxgen.networks.Bottled`."""

    @property
    def latents(self) -> jax.Array: ...
    @property
    def codes(self) -> jax.Array | None: ...
    @property
    def loss(self) -> jax.Array: ...
    @property
    def numbers(self) -> dict[str, jax.Array]: ...


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """What a tokenizer is: everything static about it. Build it once: a rebuilt spec is compiled again.

    Args:
      encoder: network (x [B, H, W, C], *, train) -> [B, h, w, P], what the bottleneck takes.
      bottleneck: network ([B, h, w, P], *, train) -> `networks.Bottled`, such as `networks.FSQBottleneck`.
      decoder: network (z [B, h, w, c], *, train) -> images or likelihood parameters [B, H, W, ...]; its last layer is
        its parameter ``output/kernel``.
      optimizer: optax transformation of the parameters of all three.
      latent_shape: shape (h, w, c) of an image's latents, of the images that it is trained on.
      discriminator: network (x [B, H, W, C], *, train) -> logits [B], or [B, i, j] of patches; None for none.
      discriminator_optimizer: optax transformation of its parameters.
      reconstruction: (what the decoder makes, images) -> distance [B], or a likelihood, whose distance is -log p(x | z)
        over the number of values.
      reconstruction_weight: weight of that distance.
      perceptual: network with a method ``features(x, *, train) -> maps``, whose parameters `tokenizer_init` is given;
        ``"discriminator"`` for the discriminator's own; None for no perceptual distance.
      perceptual_weight: weight of `losses.feature_distance` between those of images and reconstructions.
      perceptual_sha256: of the file that the network's parameters come from, so that it measures nothing later.
      loss: pair of adversarial losses.
      adversarial_weight: weight of the adversarial loss, or a schedule (``state.hyperparams["adversarial_weight"]``).
      adversarial_start: first step at which the discriminator plays; before it costs nothing.
      adaptive_weight: multiply that weight by |grad r| / (|grad g| + 1e-4), at most 1e4, the norms of the gradients of
        reconstruction (with its perceptual part) and adversarial loss at the decoder's last layer.
      equivariance: `losses.Equivariance`, by which a scaled or rotated latent has to decode to such an image; None.
      equivariance_weight: its weight.
      ema_decay: decay per step of the moving average of encoder, bottleneck and decoder, or a schedule; None for none.
      average_lengths: relative lengths of further averages of them, kept in ``state.averages``, as in `jaxgen.GAN`.
      lecam_weight: weight of `losses.lecam_penalty`, or a schedule; None for none.
      penalties, penalty_weight, penalty_every, weight_clipping: of the discriminator, as in `jaxgen.GAN`.
      augmentation, augmentation_probability, augmentation_target: likewise.

    References:
      Esser et al. 2021, equations 4 to 7. Tseng et al. 2021 (LeCam). Kouzelis et al. 2025, "EQ-VAE".
    """

    encoder: Any
    bottleneck: Any
    decoder: Any
    optimizer: optax.GradientTransformation
    latent_shape: tuple[Count, ...]
    discriminator: Any = None
    discriminator_optimizer: optax.GradientTransformation | None = None
    reconstruction: losses.Likelihood | Callable[[jax.Array, jax.Array], jax.Array] = losses.absolute_error
    reconstruction_weight: NotNegative | Schedule = 1.0
    perceptual: Any = None
    perceptual_weight: NotNegative | Schedule = 1.0
    perceptual_sha256: str | None = None
    loss: losses.AdversarialLoss = losses.hinge
    adversarial_weight: NotNegative | Schedule = 1.0
    adversarial_start: CountOrNone = 0
    adaptive_weight: bool = False
    equivariance: losses.Equivariance | None = None
    equivariance_weight: NotNegative | Schedule = 1.0
    ema_decay: Rate | Schedule | None = None
    lecam_weight: NotNegative | Schedule | None = None
    penalties: tuple[losses.Penalty, ...] = ()
    penalty_weight: NotNegative | Schedule = 1.0
    penalty_every: Count = 1
    weight_clipping: Positive | Schedule | None = None
    augmentation: Augmentation | None = None
    augmentation_probability: Share | Schedule = 1.0
    augmentation_target: Inside | None = None
    average_lengths: tuple[RelativeLength, ...] = dataclasses.field(default=(), metadata=LATER)

    discriminator_steps: ClassVar[int] = 1
    packing: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_spec(self)
        check_adversary(self)
        if (self.discriminator is None) != (self.discriminator_optimizer is None):
            raise ValueError(
                "Tokenizer.discriminator and discriminator_optimizer go together: give both, or neither for an "
                "autoencoder without a discriminator"
            )
        if len(self.latent_shape) != 3:
            raise ValueError(f"Tokenizer.latent_shape must be (h, w, c), got {self.latent_shape!r}")
        if not (callable(self.reconstruction) or self.likelihood):
            names = names_in(losses, lambda name, value: name.endswith("_error") or hasattr(value, "log_prob"))
            raise TypeError(
                f"Tokenizer.reconstruction must be a distance or a likelihood, got {shown(self.reconstruction)}: use "
                f"one of jaxgen.losses: {names}"
            )
        self._check_perceptual()
        if self.discriminator is None and (self.lecam_weight is not None or self.penalties or self.augmentation):
            raise ValueError(
                "Tokenizer.lecam_weight, penalties and augmentation are for a discriminator: give one, or leave them "
                "out"
            )

    def _check_perceptual(self) -> None:
        if self.perceptual == "discriminator":
            network = self.discriminator
        elif self.perceptual is None or hasattr(self.perceptual, "features"):
            return
        else:
            network = self.perceptual
        if not hasattr(network, "features"):
            raise TypeError(
                f"Tokenizer.perceptual must be 'discriminator' or a network with a method features, got "
                f"{shown(network)}: e.g. jaxgen.networks.LeNet(10), or networks.PatchDiscriminator() as discriminator"
            )

    @property
    def likelihood(self) -> losses.Likelihood | None:
        """The reconstruction where it is a likelihood."""
        return self.reconstruction if hasattr(self.reconstruction, "log_prob") else None  # type: ignore[return-value]

    @property
    def num_codes(self) -> int:
        """Number of codes of the bottleneck, 0 where it has none."""
        return self.bottleneck.num_codes or 0

    @property
    def hyperparams(self) -> dict[str, float | Schedule | None]:
        """The spec's values of what ``state.hyperparams`` holds, numbers or schedules; None for what it does not."""
        plays = self.discriminator is not None
        return {
            "reconstruction_weight": self.reconstruction_weight,
            "perceptual_weight": None if self.perceptual is None else self.perceptual_weight,
            "equivariance_weight": None if self.equivariance is None else self.equivariance_weight,
            "adversarial_weight": self.adversarial_weight if plays else None,
            "lecam_weight": self.lecam_weight,
            "ema_decay": self.ema_decay,
            **(adversary_hyperparams(self) if plays else {}),
        }

    def distance(self, made: jax.Array, images: jax.Array) -> jax.Array:
        """The reconstruction's distance [B] of what the decoder makes [B, H, W, ...] from images [B, H, W, C]."""
        if self.likelihood is not None:
            return -self.likelihood.log_prob(made, images) / math.prod(images.shape[1:])
        distance: Any = self.reconstruction
        return distance(made, images)

    def mean(self, made: jax.Array) -> jax.Array:
        """The images [B, H, W, C] of what the decoder makes."""
        return made if self.likelihood is None else self.likelihood.mean(made)


class TokenizerState(NamedTuple):
    """Everything that training changes, and what it is measured by; arrays only.

    Args:
      step: number of steps done, int32 [].
      params: ``{"encoder": ..., "bottleneck": ..., "decoder": ...}``.
      collections: mutable collections of the three, likewise: a codebook that is a moving average is one.
      discriminator_params: the discriminator's parameters; empty without one, as are the next two.
      discriminator_collections: its mutable collections.
      discriminator_optimizer_state: of ``tokenizer.discriminator_optimizer``.
      optimizer_state: of ``tokenizer.optimizer``.
      perceptual_params: of the network whose features are compared, which does not change; empty without one.
      perceptual_weights: of the distance of its features, a vector [C] for each map; ones where nobody has learnt any.
      ema: float32 averages, ``{"params": ..., "collections": ...}``, or None.
      hyperparams: float32: ``latent_mean`` and ``latent_std`` [c], by which latents are normalised; the weights that
        the spec has, each []; ``real_logit_average`` and ``fake_logit_average`` [] with LeCam's penalty.
      averages: like ``ema``, one for each of ``spec.average_lengths``.
    """

    step: jax.Array
    params: dict[str, Any]
    collections: dict[str, Any]
    discriminator_params: Any
    discriminator_collections: modules.Collections
    discriminator_optimizer_state: Any
    optimizer_state: Any
    perceptual_params: Any
    perceptual_weights: tuple[jax.Array, ...]
    ema: Any
    hyperparams: dict[str, jax.Array]
    averages: tuple[Any, ...] = ()


class Pass(NamedTuple):
    """Encoder, bottleneck and decoder as a step or a trained model sees them."""

    spec: Tokenizer
    params: dict[str, Any]
    collections: dict[str, Any]
    train: bool
    key: jax.Array
    axis_name: AxisName

    def _apply(self, name: str, x: jax.Array, train: bool) -> tuple[Any, modules.Collections]:
        network = modules.bind_axis(getattr(self.spec, name), self.collections[name], self.axis_name)
        key = named_key(self.key, f"tokenizer {name}")
        return modules.apply(network, self.params[name], self.collections[name], x, train=train, key=key)

    def encode(self, images: jax.Array, draw: bool = False) -> tuple[Bottled, dict[str, Any]]:
        """What the bottleneck makes of images [B, H, W, C], drawn as in training if asked for, and the collections."""
        hidden, encoder = self._apply("encoder", images, self.train)
        bottled, bottleneck = self._apply("bottleneck", hidden, self.train or draw)
        return bottled, {"encoder": encoder, "bottleneck": bottleneck}

    def decode(self, latents: jax.Array) -> tuple[jax.Array, modules.Collections]:
        """What the decoder makes of latents [B, h, w, c], and its collections after the pass."""
        return self._apply("decoder", latents, self.train)


def check_images(images: jax.Array) -> None:
    """Raise ValueError unless images are [B, H, W, C]."""
    if images.ndim != 4:
        raise ValueError(f"a tokenizer takes images [B, H, W, C], got shape {list(images.shape)}")


def select(batch: Batch) -> Batch:
    """What a compiled function uses of a batch: images [B, H, W, C], checked as far as they are concrete."""
    batch = batches.select(batch)
    batches.check_concrete(batch)
    return {"image": batch["image"]}


def check_no_prior(spec: Tokenizer, what: str) -> None:
    """Raise ValueError, which names ``what`` needs a prior: a tokenizer has none."""
    raise ValueError(
        f"{what} needs latents with a prior, and a tokenizer has none: train a second stage on its latents"
    )
