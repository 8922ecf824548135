"""The options of an image tokenizer, and the tokenizer that they describe."""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal

import jaxgen  # whose parts are imported when a model is built: a command line is read before anything slow is
from jaxgen.cli.gan_options import PENALTIES
from jaxgen.cli.options import AveragedOptions, DType, network_dtype, option
from jaxgen.intervals import INT32_MAX, Count, CountOrNone, Inside, Interval, NotNegative, Positive, Rate

Level = Annotated[int, Interval(2, INT32_MAX)]
Bits = Annotated[int, Interval(1, 18)]
_KL: dict[str, Any] = {"needs": "--bottleneck kl", "where": lambda o: o.bottleneck == "kl"}
_FSQ: dict[str, Any] = {"needs": "--bottleneck fsq", "where": lambda o: o.bottleneck == "fsq"}
_VQ: dict[str, Any] = {"needs": "--bottleneck vq", "where": lambda o: o.bottleneck == "vq"}
_LFQ: dict[str, Any] = {"needs": "--bottleneck lfq", "where": lambda o: o.bottleneck == "lfq"}
_AVERAGE: dict[str, Any] = {
    "needs": "--bottleneck vq --codebook average",
    "where": lambda o: o.bottleneck == "vq" and o.codebook == "average",
}
_PLAYS: dict[str, Any] = {"needs": "--discriminator patch", "where": lambda o: o.discriminator != "none"}
_NO_FILE = ("none", "discriminator")
_PENALTY: dict[str, Any] = {"needs": "a --penalty", "where": lambda o: o.penalty != "none"}
RECONSTRUCTIONS: dict[str, Any] = {
    "l1": lambda: jaxgen.losses.absolute_error,
    "l2": lambda: jaxgen.losses.squared_error,
    "bernoulli": lambda: jaxgen.losses.bernoulli,
    "gaussian_learned_variance": lambda: jaxgen.losses.gaussian_learned_variance(),
    "discretized_logistic": lambda: jaxgen.losses.discretized_logistic,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerOptions(AveragedOptions):
    """Train an image tokenizer: an autoencoder with a bottleneck, sharpened by a discriminator."""

    family: ClassVar[str] = "tokenizer"

    steps: Count = option(3000, "basics")
    """Number of steps in all."""
    batch_size: Count = option(64, "basics")
    """Number of images in a batch."""
    bottleneck: Literal["kl", "vq", "fsq", "lfq"] = option("kl")
    """What an image is written as: numbers (kl), or codes of a learnt book (vq), of a grid (fsq) or of bits (lfq)."""
    channels: Count = option(4, needs="--bottleneck kl or vq", where=lambda o: o.bottleneck in ("kl", "vq"))
    """Numbers at each place of the latent grid."""
    kl_weight: NotNegative = option(1e-4, **_KL)
    """Weight of the KL divergence, in nats of an image."""
    levels: tuple[Level, ...] = option((8, 5, 5, 5), **_FSQ)
    """Levels of each number; there are as many codes as their product."""
    codebook_size: Count = option(1024, **_VQ)
    """Number of codes."""
    codebook: Literal["average", "gradient"] = option("average", **_VQ)
    """Codes follow a moving average of what is near them, or the loss's gradient."""
    codebook_decay: Rate = option(0.99, **_AVERAGE)
    """Decay of that average."""
    restart_below: NotNegative | None = option(0.1, **_AVERAGE)
    """Restart a code, from an image of the batch, whose average count in a batch is below this; None for never."""
    bits: Bits = option(10, **_LFQ)
    """Bits of a code."""
    entropy_weight: NotNegative = option(0.1, **_LFQ)
    """Weight of the entropy term that makes codes certain and all of them used."""
    commitment: NotNegative = option(
        0.25, needs="--bottleneck vq or lfq", where=lambda o: o.bottleneck in ("vq", "lfq")
    )
    """Weight of the distance from the encoder's numbers to their code."""
    factor: Literal[1, 2, 4, 8, 16] = option(4)
    """By how much the latent grid is smaller than the image, each side."""
    width: Count = option(32)
    """Channels next to the image."""
    multipliers: tuple[Count, ...] = option(())
    """What each size multiplies them by, from the image down, one more than the halvings; 1 2 2 ... when not given."""
    blocks: Count = option(1)
    """Residual blocks of each size."""
    decoder_blocks: Count | None = option(None)
    """Those of the decoder, where it has others."""
    projection: bool = option(default=False)
    """One more convolution, 1 x 1, on either side of the latents, as in AutoencoderKL."""
    middle: Literal["none", "blocks", "attention"] = option("none")
    """What is done at the size of the latent grid: nothing, two residual blocks, or attention between them as well."""
    discriminator: Literal["patch", "none"] = option("patch")
    """What judges patches of images and reconstructions."""
    discriminator_width: Count = option(32, **_PLAYS)
    """Channels of its layer next to the image."""
    discriminator_layers: Count = option(2, **_PLAYS)
    """Its halvings; more of them make patches larger."""
    discriminator_normalization: Literal["none", "batch", "spectral", "group"] = option("none", **_PLAYS)
    """How its layers are normalised."""
    augmentation: Literal["none", "diffaugment"] = option("none", **_PLAYS)
    """Augment what the discriminator sees."""
    dtype: DType = option("float32")
    """Compute type of networks, float32 where bfloat16 is no faster; auto: the faster."""
    reconstruction: Literal["l1", "l2", "bernoulli", "gaussian_learned_variance", "discretized_logistic"] = option(
        "l1", "optimisation"
    )
    """Distance of a reconstruction from its image, a mean over its values."""
    reconstruction_weight: NotNegative = option(10.0, "optimisation")
    """Its weight."""
    perceptual: str = option("none", "optimisation")
    """Compare features as well: discriminator (its own layers), lenet_mnist, lenet_fashion_mnist, lenet_color,
    vgg:PATH, or none."""
    perceptual_weight: NotNegative = option(
        1.0, "optimisation", needs="a --perceptual network", where=lambda o: o.perceptual != "none"
    )
    """The weight of that."""
    loss: Literal["minimax", "non_saturating", "least_squares", "wasserstein", "hinge", "relativistic"] = option(
        "hinge", "optimisation", **_PLAYS
    )
    """The adversarial loss."""
    adversarial_weight: NotNegative = option(0.02, "optimisation", **_PLAYS)
    """Its weight (with --adaptive-weight 0.5 to 1 is usual)."""
    adversarial_start: CountOrNone = option(750, "optimisation", **_PLAYS)
    """The step at which the discriminator begins to play."""
    adaptive_weight: bool = option(default=False, topic="optimisation", **_PLAYS)
    """Multiply the weight so that both losses move the decoder's last layer alike."""
    penalty: Literal["none", "r1", "r2", "r1_r2"] = option("none", "optimisation", **_PLAYS)
    """Penalty of the discriminator's gradient."""
    penalty_weight: NotNegative = option(1.0, "optimisation", **_PENALTY)
    """Its weight."""
    penalty_every: Count = option(1, "optimisation", **_PENALTY)
    """Steps between penalties, each then weighted as many times."""
    lecam_weight: Positive | None = option(None, "optimisation", **_PLAYS)
    """Weight of LeCam's penalty, for few images (0.001); None for none."""
    equivariance_weight: NotNegative = option(0.0, "optimisation")
    """Weight of the distance between a moved latent's image and the moved image (EQ-VAE)."""
    equivariance_scale: Inside = option(
        0.5,
        "optimisation",
        needs="an --equivariance-weight above 0",
        where=lambda o: o.equivariance_weight > 0.0,
    )
    """How much smaller both are made for it; they are rotated as well."""
    learning_rate: NotNegative = option(1e-3, "optimisation")
    """The learning rate of encoder, bottleneck and decoder."""
    discriminator_learning_rate: NotNegative = option(1e-3, "optimisation", **_PLAYS)
    """The learning rate of the discriminator."""
    b1: Rate = option(0.9, "optimisation")
    """Adam's decay of the first moment, for both."""
    b2: Rate = option(0.99, "optimisation")
    """Adam's decay of the second moment, for both."""
    ema_decay: Rate | None = option(0.99, "optimisation")
    """Decay of the moving average of encoder, bottleneck and decoder, which are used; None for none."""

    def check(self) -> None:
        """Refuse numbers that make no sense, and a discriminator that would never play."""
        super().check()
        if self.discriminator != "none" and self.adversarial_start >= self.steps:
            raise ValueError(
                f"--adversarial-start {self.adversarial_start} is not before the last of --steps {self.steps}, so the "
                "discriminator would never play: start it earlier, or pass --discriminator none"
            )
        if self.perceptual == "discriminator" and self.discriminator == "none":
            raise ValueError("--perceptual discriminator needs one: leave out --discriminator none")

    def spec(
        self, image_shape: tuple[int, ...], num_classes: int | None = None, unbounded: bool = False
    ) -> "jaxgen.Tokenizer":
        if len(image_shape) != 3:
            raise ValueError(f"a tokenizer is for images, this data set has examples of shape {list(image_shape)}")
        *sides, channels = image_shape
        if any(side % self.factor for side in sides):
            nearest = "x".join(str(max(1, round(side / self.factor)) * self.factor) for side in sides)
            raise ValueError(
                f"--factor {self.factor} does not divide images of {sides[0]} x {sides[1]}: resize them "
                f"(--image-size {nearest}), or use another factor"
            )
        found = self._perceptual(image_shape)
        bottleneck = self._bottleneck()
        reconstruction = RECONSTRUCTIONS[self.reconstruction]()
        plays = self.discriminator != "none"
        halvings = int(math.log2(self.factor))
        multipliers = self.multipliers or (1, *(2,) * halvings)
        if len(multipliers) != halvings + 1:
            raise ValueError(
                f"--multipliers must be {halvings + 1} numbers, one for each size at --factor {self.factor}, got "
                f"{len(multipliers)}"
            )
        common: dict[str, Any] = {
            "width": self.width,
            "multipliers": multipliers,
            "projection": self.projection,
            "middle": None if self.middle == "none" else self.middle,
            "dtype": network_dtype(self.dtype),
        }
        made = channels * getattr(reconstruction, "parameters_per_value", 1)
        networks = jaxgen.networks
        rates = {"b1": self.b1, "b2": self.b2}
        normalization = None if self.discriminator_normalization == "none" else self.discriminator_normalization
        return jaxgen.Tokenizer(
            encoder=networks.AutoencoderEncoder(bottleneck.num_inputs, blocks=self.blocks, **common),
            bottleneck=bottleneck,
            decoder=networks.AutoencoderDecoder(made, blocks=self.decoder_blocks or self.blocks, **common),
            optimizer=jaxgen.plain.optimizer("adam", learning_rate=self.learning_rate, **rates),
            latent_shape=(*(side // self.factor for side in sides), bottleneck.num_latents),
            discriminator=networks.PatchDiscriminator(
                self.discriminator_width,
                self.discriminator_layers,
                normalization,
                dtype=network_dtype(self.dtype),
            )
            if plays
            else None,
            discriminator_optimizer=jaxgen.plain.optimizer(
                "adam", learning_rate=self.discriminator_learning_rate, **rates
            )
            if plays
            else None,
            reconstruction=reconstruction,
            reconstruction_weight=self.reconstruction_weight,
            perceptual=self.perceptual if self.perceptual == "discriminator" else found and found.network,
            perceptual_weight=self.perceptual_weight,
            perceptual_sha256=found and found.sha256,
            loss=jaxgen.plain.from_plain({"named": self.loss}),
            adversarial_weight=self.adversarial_weight,
            adversarial_start=self.adversarial_start if plays else 0,
            adaptive_weight=self.adaptive_weight,
            equivariance=jaxgen.losses.Equivariance(self.equivariance_scale) if self.equivariance_weight else None,
            equivariance_weight=self.equivariance_weight,
            ema_decay=self.ema_decay,
            average_lengths=self.average_lengths,
            lecam_weight=self.lecam_weight if plays else None,
            penalties=PENALTIES[self.penalty]() if plays else (),
            penalty_weight=self.penalty_weight,
            penalty_every=self.penalty_every,
            augmentation=jaxgen.augmentation.DiffAugment() if plays and self.augmentation != "none" else None,
        )

    def held(self, image_shape: tuple[int, ...]) -> dict[str, Any]:
        found = self._perceptual(image_shape)
        if found is None:
            return {}
        weights = {} if found.weights is None else {"perceptual_weights": found.weights}
        return {"perceptual_params": found.params, **weights}

    def _perceptual(self, image_shape: tuple[int, ...]) -> "jaxgen.perceptual.Found | None":
        """The network of a file whose features are compared."""
        if self.perceptual in _NO_FILE:
            return None
        try:
            return jaxgen.perceptual.find(self.perceptual, image_shape, network_dtype(self.dtype))
        except ValueError as error:
            raise ValueError(f"--perceptual {self.perceptual}: {error}") from error

    def _bottleneck(self) -> Any:
        networks = jaxgen.networks
        if self.bottleneck == "kl":
            return networks.KLBottleneck(self.channels, self.kl_weight)
        if self.bottleneck == "fsq":
            return networks.FSQBottleneck(self.levels)
        if self.bottleneck == "lfq":
            return networks.LFQBottleneck(self.bits, self.entropy_weight, commitment=self.commitment)
        averaged = self.codebook == "average"
        return networks.VQBottleneck(
            self.codebook_size,
            self.channels,
            self.commitment,
            decay=self.codebook_decay if averaged else None,
            restart_below=self.restart_below if averaged else None,
        )
