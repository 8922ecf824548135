"""The options of a GAN, and the GAN that they describe."""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import jaxgen  # whose parts are imported when a model is built: a command line is read before anything slow is
from jaxgen.cli.latent_options import LatentOptions
from jaxgen.cli.options import OF_IMAGES, Activation, AveragedOptions, DType, Options, classes, network_dtype, option
from jaxgen.intervals import FLOAT32_MAX, Count, CountOrNone, Interval, NotNegative, Positive, Rate

Architecture = Literal["mlp", "maxout", "dcgan", "infogan", "resnet", "grid"]
PENALTIES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "none": lambda: (),
    "wgan_gp": lambda: (jaxgen.losses.GradientPenalty(),),
    "wgan_gp_one_sided": lambda: (jaxgen.losses.GradientPenalty(one_sided=True),),
    "r1": lambda: (jaxgen.losses.R1(),),
    "r2": lambda: (jaxgen.losses.R2(),),
    "r1_r2": lambda: (jaxgen.losses.R1(), jaxgen.losses.R2()),
    "dragan": lambda: (jaxgen.losses.DRAGAN(),),
}
Divisor = Annotated[float, Interval(1.0, FLOAT32_MAX)]
ADAPTIVE_TARGET = 0.6  # Karras et al. 2020, section 3
LEAST_LEARNING_RATE = 1e-6  # that a divisor leads to, as in the code of Goodfellow et al. 2014
_PENALTY: dict[str, Any] = {"needs": "a --penalty", "where": lambda o: o.penalty != "none"}
_ADAM: dict[str, Any] = {"needs": "--optimizer adam", "where": lambda o: o.optimizer == "adam"}
_SGD: dict[str, Any] = {"needs": "--optimizer sgd", "where": lambda o: o.optimizer == "sgd"}
_BURN_IN: dict[str, Any] = {"needs": "--burn-in", "where": lambda o: o.burn_in > 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GANOptions(LatentOptions, AveragedOptions):
    """Train a generative adversarial network."""

    family: ClassVar[str] = "gan"
    architectures: ClassVar[dict[str, type[Options]]] = {}

    steps: Count = option(30_000, "basics")
    """Number of steps in all."""
    batch_size: Count = option(64, "basics")
    """Number of real images in a batch, of all discriminator steps and packs together."""
    architecture: Architecture = option("mlp", "basics")
    """The networks; each kind has options of its own."""
    latent_dim: Count = option(64)
    """Number of latent dimensions."""
    conditional: bool = option(default=False)
    """Condition both networks on the label."""
    packing: Count = option(1)
    """Images that the discriminator judges together (PacGAN)."""
    augmentation: Literal["none", "diffaugment", "adaptive"] = option("none", **OF_IMAGES)
    """Augment what the discriminator sees."""
    dtype: DType = option("float32")
    """Compute type of networks, float32 where bfloat16 is no faster; auto: the faster."""
    loss: Literal[
        "minimax", "non_saturating", "least_squares", "wasserstein", "hinge", "relativistic", "relativistic_average"
    ] = option("non_saturating", "optimisation")
    """The adversarial loss."""
    penalty: Literal["none", "wgan_gp", "wgan_gp_one_sided", "r1", "r2", "r1_r2", "dragan"] = option(
        "none", "optimisation"
    )
    """Penalty of the discriminator's gradient."""
    penalty_weight: NotNegative = option(1.0, "optimisation", **_PENALTY)
    """Its weight (10 is usual for wgan_gp, 1 to 10 for r1)."""
    penalty_every: Count = option(1, "optimisation", **_PENALTY)
    """Steps between penalties, each then weighted as many times."""
    weight_clipping: Positive | None = option(None, "optimisation")
    """Bound of every discriminator parameter, for the Wasserstein loss of 2017 (0.01)."""
    discriminator_steps: Count = option(1, "optimisation")
    """Discriminator updates a step, each on its part of the batch."""
    optimizer: Literal["adam", "sgd"] = option("adam", "optimisation")
    """Adam, or stochastic gradient descent with momentum as in 2014."""
    generator_learning_rate: NotNegative = option(2e-4, "optimisation")
    """The learning rate for the generator."""
    discriminator_learning_rate: NotNegative = option(2e-4, "optimisation")
    """The learning rate for the discriminator."""
    learning_rate_divisor: Divisor = option(1.0, "optimisation", **_SGD)
    """What learning rates are divided by a step (1.000004 in 2014)."""
    momentum: Rate = option(0.5, "optimisation", **_SGD)
    """Sgd's momentum, for both."""
    final_momentum: Rate | None = option(None, "optimisation", **_SGD)
    """The momentum after --momentum-steps."""
    momentum_steps: CountOrNone = option(
        0, "optimisation", needs="--final-momentum", where=lambda o: o.final_momentum is not None
    )
    """Steps over which it goes there, along a line."""
    b1: Rate = option(0.5, "optimisation", **_ADAM)
    """Adam's decay of the first moment, for both."""
    b2: Rate = option(0.999, "optimisation", **_ADAM)
    """Adam's decay of the second moment, for both."""
    ema_decay: Rate | None = option(0.999, "optimisation")
    """Decay of the moving average of the generator, which samples; None for none."""
    ema_warmup: bool = option(
        default=False, topic="optimisation", needs="an --ema-decay", where=lambda o: o.ema_decay is not None
    )
    """Forget faster at first: (1 + t) / (10 + t)."""
    burn_in: CountOrNone = option(
        0,
        "optimisation",
        needs="--final-learning-rate-factor, --final-b2 or --final-penalty-weight",
        where=lambda o: (o.final_learning_rate_factor, o.final_b2, o.final_penalty_weight) != (1.0, None, None),
    )
    """Steps over which learning rates, b2 and the penalty's weight go to their final values, along a cosine."""
    final_learning_rate_factor: NotNegative = option(1.0, "optimisation", **_BURN_IN)
    """Learning rates after it, to those before."""
    final_b2: Rate | None = option(None, "optimisation", **_BURN_IN)
    """Adam's b2 after the burn-in."""
    final_penalty_weight: NotNegative | None = option(
        None,
        "optimisation",
        needs="--burn-in and a --penalty",
        where=lambda o: o.burn_in > 0 and o.penalty != "none",
    )
    """The penalty's weight after the burn-in."""

    def check(self) -> None:
        """Refuse numbers that make no sense, and a batch that does not make whole ones of the discriminator."""
        super().check()
        part = self.discriminator_steps * self.packing
        if part > 0 and self.batch_size % part:
            raise ValueError(
                f"--batch-size {self.batch_size} must be a multiple of --discriminator-steps times --packing, "
                f"{self.discriminator_steps} x {self.packing} = {part}: use {max(1, self.batch_size // part) * part}"
            )

    def networks(self, image_shape: tuple[int, ...], common: dict[str, Any]) -> tuple[Any, Any]:
        """The generator and the discriminator, for images of a shape."""
        raise NotImplementedError

    def spec(
        self, image_shape: tuple[int, ...], num_classes: int | None = None, unbounded: bool = False
    ) -> "jaxgen.GAN":
        common = {"num_classes": classes(self.conditional, num_classes), "dtype": network_dtype(self.dtype)}
        generator, discriminator = self.networks(image_shape, common)
        if self.augmentation != "none" and len(image_shape) != 3:
            raise ValueError(f"--augmentation is for images, this data set has examples of shape {list(image_shape)}")
        adaptive = self.augmentation == "adaptive"
        ema_decay: Any = self.ema_decay
        if self.ema_warmup and ema_decay is not None:
            ema_decay = jaxgen.schedules.EMAWarmup(ema_decay)
        return jaxgen.GAN(
            generator=generator,
            discriminator=discriminator,
            generator_optimizer=self._optimizer(self.generator_learning_rate),
            discriminator_optimizer=self._optimizer(self.discriminator_learning_rate),
            latent_dim=self.latent_dim,
            loss=jaxgen.plain.from_plain({"named": self.loss}),
            ema_decay=ema_decay,
            penalties=PENALTIES[self.penalty](),
            penalty_weight=self._changing(self.penalty_weight, self.final_penalty_weight),
            penalty_every=self.penalty_every,
            weight_clipping=self.weight_clipping,
            discriminator_steps=self.discriminator_steps,
            packing=self.packing,
            augmentation=None if self.augmentation == "none" else jaxgen.augmentation.DiffAugment(),
            augmentation_probability=0.0 if adaptive else 1.0,
            augmentation_target=ADAPTIVE_TARGET if adaptive else None,
            average_lengths=self.average_lengths,
        )

    def _changing(self, initial: float, final: float | None) -> Any:
        """A number, or a schedule where it changes over the burn-in."""
        if not self.burn_in or final is None or final == initial:
            return initial
        return jaxgen.schedules.Cosine(initial, final, self.burn_in)

    def _optimizer(self, learning_rate: float) -> Any:
        if self.optimizer == "sgd":
            return self._sgd(learning_rate)
        if self.learning_rate_divisor != 1.0 or self.final_momentum is not None or self.momentum_steps:
            raise ValueError(
                "--learning-rate-divisor, --final-momentum and --momentum-steps are for sgd: leave them out, or pass "
                "--optimizer sgd"
            )
        rate = self._changing(learning_rate, learning_rate * self.final_learning_rate_factor)
        return jaxgen.plain.optimizer("adam", learning_rate=rate, b1=self.b1, b2=self._changing(self.b2, self.final_b2))

    def _sgd(self, learning_rate: float) -> Any:
        """Gradient descent whose learning rate falls by a factor a step and whose momentum rises along a line."""
        if self.burn_in:
            raise ValueError(
                "--burn-in is for adam: with --optimizer sgd use --learning-rate-divisor and --momentum-steps"
            )
        rate: Any = learning_rate
        if self.learning_rate_divisor != 1.0:
            if not (self.learning_rate_divisor > 1.0 and learning_rate > LEAST_LEARNING_RATE):
                raise ValueError(
                    f"--learning-rate-divisor must be at least 1, of learning rates above {LEAST_LEARNING_RATE:g}, got "
                    f"{self.learning_rate_divisor} of {learning_rate}"
                )
            steps = math.log(learning_rate / LEAST_LEARNING_RATE) / math.log(self.learning_rate_divisor)
            rate = jaxgen.schedules.Exponential(learning_rate, LEAST_LEARNING_RATE, max(1, round(steps)))
        momentum: Any = self.momentum
        if self.final_momentum is not None:
            if self.momentum_steps < 1:
                raise ValueError("--final-momentum needs the --momentum-steps over which it is reached")
            momentum = jaxgen.schedules.Linear(momentum, self.final_momentum, self.momentum_steps)
        return jaxgen.plain.optimizer("sgd", learning_rate=rate, momentum=momentum)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FullyConnected(GANOptions):
    """What GANs with a fully connected generator have in common."""

    generator_hidden: tuple[Count, ...] = option((256, 512))
    """Sizes of the generator's hidden layers."""
    generator_batch_norm: bool = option(default=False)
    """Normalise the hidden layers of the generator over the batch."""
    unbounded: bool | None = option(None)
    """Make any numbers; when not given, where the data are not in [0, 1]."""
    activation: Activation = option("leaky_relu")
    """Activation of the hidden layers."""
    dropout_rate: Rate | None = option(None)
    """Share of the discriminator's units dropped in training: 0.5 when not given."""
    init_scale: Positive | None = option(None)
    """Standard deviation of the initial weights; by layer when not given."""
    generator_initial_range: Positive | None = option(None)
    """Draw the generator's weights uniformly from minus this to this (0.05 in 2014)."""

    def initialization(self) -> Any:
        """How weights begin; None for each layer's usual distribution."""
        return None if self.init_scale is None else ("normal", self.init_scale)

    def discriminator(self, dropout_rate: float, common: dict[str, Any]) -> Any:
        """The discriminator."""
        raise NotImplementedError

    def spec(
        self, image_shape: tuple[int, ...], num_classes: int | None = None, unbounded: bool = False
    ) -> "jaxgen.GAN":
        chosen = dataclasses.replace(self, unbounded=True) if unbounded and self.unbounded is None else self
        return super(_FullyConnected, chosen).spec(image_shape, num_classes)

    def networks(self, image_shape: tuple[int, ...], common: dict[str, Any]) -> tuple[Any, Any]:
        if self.init_scale is not None and self.generator_initial_range is not None:
            raise ValueError("--init-scale and --generator-initial-range both say how weights begin: give one")
        initial_range = self.generator_initial_range
        unbounded = self.dataset == "gaussians" if self.unbounded is None else self.unbounded
        generator = jaxgen.networks.MLPGenerator(
            image_shape,
            self.generator_hidden,
            jaxgen.plain.from_plain({"named": self.activation}),
            output_activation=None if unbounded else jaxgen.plain.from_plain({"named": "sigmoid"}),
            normalization="batch" if self.generator_batch_norm else None,
            initialization=self.initialization() if initial_range is None else ("uniform", initial_range),
            **common,
        )
        return generator, self.discriminator(0.5 if self.dropout_rate is None else self.dropout_rate, common)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLPGANOptions(_FullyConnected):
    """Train a generative adversarial network of fully connected networks."""

    init_scale: Positive | None = option(None)
    """Standard deviation of the generator's initial weights; by layer when not given."""
    discriminator_hidden: tuple[Count, ...] = option((256, 128))
    """Sizes of the discriminator's hidden layers."""

    def discriminator(self, dropout_rate: float, common: dict[str, Any]) -> Any:
        activation = jaxgen.plain.from_plain({"named": self.activation})
        return jaxgen.networks.MLPDiscriminator(self.discriminator_hidden, activation, dropout_rate, **common)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaxoutGANOptions(_FullyConnected):
    """Train the generative adversarial network of 2014: a fully connected generator, a maxout discriminator."""

    architecture: Architecture = option("maxout", "basics")
    maxout_hidden: tuple[Count, ...] = option((240, 240))
    """Numbers of units of the discriminator's hidden layers."""
    input_dropout_rate: Rate | None = option(None)
    """Share of the pixels that the discriminator drops in training: 0.2 when not given."""

    def discriminator(self, dropout_rate: float, common: dict[str, Any]) -> Any:
        return jaxgen.networks.MaxoutDiscriminator(
            self.maxout_hidden,
            dropout_rate=dropout_rate,
            input_dropout_rate=0.2 if self.input_dropout_rate is None else self.input_dropout_rate,
            initialization=self.initialization(),
            **common,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Convolutional(GANOptions):
    """What GANs of convolutions have in common."""

    learns: ClassVar[str] = "images"

    width: Count = option(64)
    """Channels next to the image."""

    def networks(self, image_shape: tuple[int, ...], common: dict[str, Any]) -> tuple[Any, Any]:
        if len(image_shape) != 3:
            raise ValueError(
                f"--architecture {self.architecture} makes images, this data set has examples of shape "
                f"{list(image_shape)}: use mlp"
            )
        return self.convolutional(image_shape, common)

    def convolutional(self, image_shape: tuple[int, ...], common: dict[str, Any]) -> tuple[Any, Any]:
        """The generator and the discriminator of images."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCGANOptions(_Convolutional):
    """Train a DCGAN."""

    architecture: Architecture = option("dcgan", "basics")
    discriminator_normalization: Literal["batch", "spectral", "none"] | None = option(None)
    """Normalisation in the discriminator: batch when not given."""
    minibatch_stddev: bool = option(default=False)
    """Show the discriminator the standard deviation over the batch."""
    dropout_rate: Rate | None = option(None)
    """Share of the discriminator's units dropped in training: 0 when not given."""

    def convolutional(self, image_shape: tuple[int, ...], common: dict[str, Any]) -> tuple[Any, Any]:
        discriminator = jaxgen.networks.DCGANDiscriminator(
            self.width,
            batch_norm=self.discriminator_normalization in (None, "batch"),
            spectral_norm=self.discriminator_normalization == "spectral",
            dropout_rate=self.dropout_rate or 0.0,
            minibatch_stddev=self.minibatch_stddev,
            **common,
        )
        return jaxgen.networks.DCGANGenerator(image_shape, self.width, **common), discriminator


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoGANOptions(_Convolutional):
    """Train a generative adversarial network of InfoGAN's networks."""

    architecture: Architecture = option("infogan", "basics")
    discriminator_normalization: Literal["batch", "spectral", "none"] | None = option(None)
    """Normalisation in the discriminator, batch or none: batch when not given."""

    def convolutional(self, image_shape: tuple[int, ...], common: dict[str, Any]) -> tuple[Any, Any]:
        if self.discriminator_normalization == "spectral":
            raise ValueError("--discriminator-normalization spectral is not for infogan: use batch or none")
        batch_norm = self.discriminator_normalization in (None, "batch")
        discriminator = jaxgen.networks.InfoGANDiscriminator(self.width, batch_norm=batch_norm, **common)
        return jaxgen.networks.InfoGANGenerator(image_shape, self.width, **common), discriminator


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetGANOptions(_Convolutional):
    """Train a generative adversarial network of residual networks."""

    architecture: Architecture = option("resnet", "basics")
    generator_normalization: Literal["batch", "none"] = option("batch")
    """Normalisation in the generator."""
    discriminator_normalization: Literal["batch", "spectral", "none"] | None = option(None)
    """Normalisation in the discriminator: spectral when not given."""

    def convolutional(self, image_shape: tuple[int, ...], common: dict[str, Any]) -> tuple[Any, Any]:
        if self.discriminator_normalization == "batch":
            raise ValueError("--discriminator-normalization batch is not for resnet: use spectral or none")
        generator_normalization: Any = None if self.generator_normalization == "none" else "batch"
        chosen: Any = {"none": None, None: "spectral"}.get(
            self.discriminator_normalization, self.discriminator_normalization
        )
        return (
            jaxgen.networks.ResNetGenerator(image_shape, self.width, normalization=generator_normalization, **common),
            jaxgen.networks.ResNetDiscriminator(self.width, normalization=chosen, **common),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridGANOptions(GANOptions):
    """Train a generative adversarial network of a tokenizer's latents, of residual networks at their size."""

    learns: ClassVar[str] = "latents"

    architecture: Architecture = option("grid", "basics")
    width: Count = option(64)
    """Channels of the generator, and of the discriminator at the size of the latents."""
    generator_blocks: Count = option(3)
    """Residual blocks of the generator."""
    discriminator_blocks: Count = option(1)
    """Residual blocks of the discriminator, at the size of the latents and at half of it."""
    attention: bool = option(default=False)
    """Attention between all places before the last block."""

    def networks(self, image_shape: tuple[int, ...], common: dict[str, Any]) -> tuple[Any, Any]:
        common = {**common, "attention": self.attention}
        return (
            jaxgen.networks.GridGenerator(image_shape, self.width, self.generator_blocks, **common),
            jaxgen.networks.GridDiscriminator(self.width, self.discriminator_blocks, **common),
        )


GANOptions.architectures.update(
    mlp=MLPGANOptions,
    maxout=MaxoutGANOptions,
    dcgan=DCGANOptions,
    infogan=InfoGANOptions,
    resnet=ResNetGANOptions,
    grid=GridGANOptions,
)
