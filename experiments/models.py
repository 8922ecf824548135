"""From the options of ``train.py`` to the specs that they describe."""

import math
from typing import TYPE_CHECKING, Any

import jax

from jaxgen import GAN, VAE, augmentation, losses, networks, schedules
from jaxgen.training.run import from_plain, optimizer

if TYPE_CHECKING:
    from experiments.options import GANOptions, VAEOptions

PENALTIES: dict[str, tuple[losses.Penalty, ...]] = {
    "none": (),
    "wgan_gp": (losses.GradientPenalty(),),
    "wgan_gp_one_sided": (losses.GradientPenalty(one_sided=True),),
    "r1": (losses.R1(),),
    "r2": (losses.R2(),),
    "r1_r2": (losses.R1(), losses.R2()),
    "dragan": (losses.DRAGAN(),),
}
ADAPTIVE_TARGET = 0.6  # Karras et al. 2020, section 3
LEAST_LEARNING_RATE = 1e-6  # that a divisor leads to, as in the code of Goodfellow et al. 2014


def _classes(conditional: bool, num_classes: int | None) -> int | None:
    if not conditional:
        return None
    if num_classes is None:
        raise ValueError("--conditional needs a data set with labels: this one has none")
    return num_classes


def _changing(initial: float, final: float | None, num_steps: int) -> Any:
    """A number, or a schedule where it changes."""
    if not num_steps or final is None or final == initial:
        return initial
    return schedules.Cosine(initial, final, num_steps)


def _vae_optimizer(options: "VAEOptions") -> Any:
    """Adam or RMSprop, with a learning rate in stages where there are boundaries; of a number that is Adam's own,
    nothing is said, so that the identity of older runs stays what it was."""
    boundaries, later = options.learning_rate_boundaries, options.later_learning_rates
    if len(boundaries) != len(later):
        raise ValueError(
            f"--later-learning-rates must be one for each of the {len(boundaries)} --learning-rate-boundaries, "
            f"got {later}"
        )
    rate: Any = options.learning_rate
    if boundaries:
        rate = schedules.Piecewise(boundaries, (rate, *later))
    if options.optimizer == "rmsprop":
        if options.b1 != 0.9:
            raise ValueError(f"--b1 is for adam, got {options.b1}: leave it out with --optimizer rmsprop")
        # As PyTorch has it, which adds epsilon to the root: under the root, where optax adds it, its square is as much.
        return optimizer("rmsprop", learning_rate=rate, decay=0.99, eps=options.epsilon**2)
    own = {"b1": (options.b1, 0.9), "eps": (options.epsilon, 1e-8)}
    changed = {name: value for name, (value, usual) in own.items() if value != usual}
    return optimizer("adam", learning_rate=rate, **changed)


def _sgd(options: "GANOptions", learning_rate: float) -> Any:
    """Gradient descent whose learning rate falls by a factor a step and whose momentum rises along a line."""
    if options.burn_in:
        raise ValueError("--burn-in is for adam: with --optimizer sgd use --learning-rate-divisor and --momentum-steps")
    rate: Any = learning_rate
    if options.learning_rate_divisor != 1.0:
        if not (options.learning_rate_divisor > 1.0 and learning_rate > LEAST_LEARNING_RATE):
            raise ValueError(
                f"--learning-rate-divisor must be at least 1, of learning rates above {LEAST_LEARNING_RATE:g}, got "
                f"{options.learning_rate_divisor} of {learning_rate}"
            )
        steps = math.log(learning_rate / LEAST_LEARNING_RATE) / math.log(options.learning_rate_divisor)
        rate = schedules.Exponential(learning_rate, LEAST_LEARNING_RATE, max(1, round(steps)))
    momentum: Any = options.momentum
    if options.final_momentum is not None:
        if options.momentum_steps < 1:
            raise ValueError("--final-momentum needs the --momentum-steps over which it is reached")
        momentum = schedules.Linear(momentum, options.final_momentum, options.momentum_steps)
    return optimizer("sgd", learning_rate=rate, momentum=momentum)


def build_vae(options: "VAEOptions", image_shape: tuple[int, ...], num_classes: int | None) -> VAE:
    """The VAE of the options, for images of this shape and labels of so many classes (None: without labels)."""
    activation = from_plain({"named": options.activation})
    make: dict[str, Any] = {
        "gaussian": lambda: losses.gaussian(scale=options.scale),
        "gaussian_learned_variance": losses.gaussian_learned_variance,
        "discretized_logistic_mixture": lambda: losses.discretized_logistic_mixture(options.num_components),
    }
    likelihood: Any = make.get(options.likelihood, lambda: getattr(losses, options.likelihood))()
    shape = (*image_shape[:-1], image_shape[-1] * likelihood.parameters_per_value)
    output_activation = jax.nn.sigmoid if options.likelihood == "gaussian" else None
    common: dict[str, Any] = {"num_classes": _classes(options.conditional, num_classes), "dtype": options.dtype}
    dims = (options.latent_dim, *options.upper_latent_dims)
    mlp = {**common, "initialization": None if options.initialization == "lecun" else options.initialization}
    posterior = {**mlp, "covariance": options.covariance, "logvar_bounds": options.logvar_bounds}
    if options.architecture == "conv":
        if options.logvar_bounds is not None or options.initialization != "lecun":
            raise ValueError(
                "--logvar-bounds and --initialization are for fully connected networks: use --architecture mlp"
            )
        if options.covariance != "diagonal":
            raise ValueError("--covariance rank_one is for fully connected networks: use --architecture mlp")
        encoder: Any = networks.ConvEncoder(dims[0], options.width, **common)
        decoder: Any = networks.ConvDecoder(shape, options.width, output_activation=output_activation, **common)
    else:
        encoder = networks.MLPEncoder(dims[0], options.hidden, activation, **posterior)
        decoder = networks.MLPDecoder(shape, options.hidden[::-1], activation, output_activation, **mlp)
    latent_dim: Any = options.latent_dim
    if options.upper_latent_dims:
        hidden = options.upper_hidden
        upper = [networks.MLPEncoder(dim, hidden, activation, **posterior) for dim in dims[1:]]
        lower = [networks.MLPGaussian(dim, hidden[::-1], activation, **mlp) for dim in dims[:-1]]
        encoder, decoder, latent_dim = (encoder, *upper), (decoder, *lower), dims
    return VAE(
        encoder=encoder,
        decoder=decoder,
        optimizer=_vae_optimizer(options),
        latent_dim=latent_dim,
        likelihood=likelihood,
        objective=getattr(losses, options.objective),
        num_samples=options.num_samples,
        beta=schedules.Linear(0.0, options.beta, options.beta_warmup) if options.beta_warmup else options.beta,
        free_bits=options.free_bits,
        prior=_prior(options, image_shape),
    )


def _prior(options: "VAEOptions", image_shape: tuple[int, ...]) -> networks.VampPrior | None:
    if options.prior == "standard":
        return None
    # Images are in [0, 1]; vectors are anywhere.
    bounds = (0.0, 1.0) if len(image_shape) == 3 else None
    return networks.VampPrior(image_shape, options.num_pseudo_inputs, bounds=bounds)


def build_gan(options: "GANOptions", image_shape: tuple[int, ...], num_classes: int | None) -> GAN:
    """The GAN of the options, for images of this shape and labels of so many classes (None: without labels)."""
    generator, discriminator = _gan_networks(options, image_shape, _classes(options.conditional, num_classes))
    if options.augmentation != "none" and len(image_shape) != 3:
        raise ValueError(f"--augmentation is for images, this data set has examples of shape {list(image_shape)}")
    b2 = _changing(options.b2, options.final_b2, options.burn_in)

    def build_optimizer(learning_rate: float) -> Any:
        if options.optimizer == "sgd":
            return _sgd(options, learning_rate)
        if options.learning_rate_divisor != 1.0 or options.final_momentum is not None or options.momentum_steps:
            raise ValueError(
                "--learning-rate-divisor, --final-momentum and --momentum-steps are for sgd: leave them out, or pass "
                "--optimizer sgd"
            )
        rate = _changing(learning_rate, learning_rate * options.final_learning_rate_factor, options.burn_in)
        return optimizer("adam", learning_rate=rate, b1=options.b1, b2=b2)

    adaptive = options.augmentation == "adaptive"
    ema_decay: Any = options.ema_decay
    if options.ema_warmup and ema_decay is not None:
        ema_decay = schedules.EMAWarmup(ema_decay)
    return GAN(
        generator=generator,
        discriminator=discriminator,
        generator_optimizer=build_optimizer(options.generator_learning_rate),
        discriminator_optimizer=build_optimizer(options.discriminator_learning_rate),
        latent_dim=options.latent_dim,
        loss=from_plain({"named": options.loss}),
        ema_decay=ema_decay,
        penalties=PENALTIES[options.penalty],
        penalty_weight=_changing(options.penalty_weight, options.final_penalty_weight, options.burn_in),
        penalty_every=options.penalty_every,
        weight_clipping=options.weight_clipping,
        discriminator_steps=options.discriminator_steps,
        packing=options.packing,
        augmentation=None if options.augmentation == "none" else augmentation.DiffAugment(),
        augmentation_probability=0.0 if adaptive else 1.0,
        augmentation_target=ADAPTIVE_TARGET if adaptive else None,
    )


def _gan_networks(options: "GANOptions", image_shape: tuple[int, ...], num_classes: int | None) -> tuple[Any, Any]:
    common: dict[str, Any] = {"num_classes": num_classes, "dtype": options.dtype}
    normalization = options.discriminator_normalization
    if options.architecture in ("mlp", "maxout"):
        activation = from_plain({"named": options.activation})
        dropout_rate = 0.5 if options.dropout_rate is None else options.dropout_rate
        if options.init_scale is not None and options.generator_initial_range is not None:
            raise ValueError("--init-scale and --generator-initial-range both say how weights begin: give one")
        initialization: Any = None if options.init_scale is None else ("normal", options.init_scale)
        initial_range = options.generator_initial_range
        unbounded = options.dataset == "gaussians" if options.unbounded is None else options.unbounded
        generator = networks.MLPGenerator(
            image_shape,
            options.generator_hidden,
            activation,
            output_activation=None if unbounded else jax.nn.sigmoid,
            normalization="batch" if options.generator_batch_norm else None,
            initialization=initialization if initial_range is None else ("uniform", initial_range),
            **common,
        )
        if options.architecture == "maxout":
            input_rate = 0.2 if options.input_dropout_rate is None else options.input_dropout_rate
            return generator, networks.MaxoutDiscriminator(
                options.maxout_hidden,
                dropout_rate=dropout_rate,
                input_dropout_rate=input_rate,
                initialization=initialization,
                **common,
            )
        discriminator = networks.MLPDiscriminator(options.discriminator_hidden, activation, dropout_rate, **common)
        return generator, discriminator
    if len(image_shape) != 3:
        raise ValueError(
            f"--architecture {options.architecture} makes images, this data set has examples of shape "
            f"{list(image_shape)}: use mlp"
        )
    if options.architecture == "dcgan":
        return (
            networks.DCGANGenerator(image_shape, options.width, **common),
            networks.DCGANDiscriminator(
                options.width,
                batch_norm=normalization in (None, "batch"),
                spectral_norm=normalization == "spectral",
                dropout_rate=options.dropout_rate or 0.0,
                minibatch_stddev=options.minibatch_stddev,
                **common,
            ),
        )
    if options.architecture == "infogan":
        if normalization == "spectral":
            raise ValueError("--discriminator-normalization spectral is not for infogan: use batch or none")
        return (
            networks.InfoGANGenerator(image_shape, options.width, **common),
            networks.InfoGANDiscriminator(options.width, batch_norm=normalization in (None, "batch"), **common),
        )
    generator_normalization: Any = None if options.generator_normalization == "none" else "batch"
    chosen: Any = {"none": None, None: "spectral"}.get(normalization, normalization)
    return (
        networks.ResNetGenerator(image_shape, options.width, normalization=generator_normalization, **common),
        networks.ResNetDiscriminator(options.width, normalization=chosen, **common),
    )
