"""The options of a VAE, and the VAE that they describe."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import jaxgen  # whose parts are imported when a model is built: a command line is read before anything slow is
from jaxgen import intervals
from jaxgen.cli.latent_options import LatentOptions
from jaxgen.cli.options import OF_IMAGES, Activation, DType, Options, classes, network_dtype, option
from jaxgen.intervals import Count, CountOrNone, Finite, Interval, NotNegative, Positive, Rate

Epsilon = Annotated[float, Interval(0.0, 1.0, "(]")]
_LIKELIHOODS: dict[str, Any] = {
    "gaussian": lambda options: jaxgen.losses.gaussian(scale=options.scale),
    "gaussian_learned_variance": lambda options: jaxgen.losses.gaussian_learned_variance(),
    "discretized_logistic_mixture": lambda options: jaxgen.losses.discretized_logistic_mixture(options.num_components),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEOptions(LatentOptions):
    """Train a variational autoencoder."""

    family: ClassVar[str] = "vae"
    architectures: ClassVar[dict[str, type[Options]]] = {}

    steps: Count = option(6000, "basics")
    """Number of steps in all."""
    batch_size: Count = option(128, "basics")
    """Number of images in a batch."""
    architecture: Literal["mlp", "conv"] = option("mlp", "basics")
    """Fully connected, or convolutions (the DCGAN's); each has options of its own."""
    binarization: Literal["none", "static", "dynamic"] = option("none", "data", **OF_IMAGES)
    """Binarise images once (static) or anew at every step (dynamic)."""
    latent_dim: Count = option(16)
    """Number of latent dimensions."""
    conditional: bool = option(default=False)
    """Condition encoder and decoder on the label."""
    prior: Literal["standard", "vamp"] = option("standard")
    """The standard normal, or a mixture of the posteriors of learnt pseudo-inputs."""
    num_pseudo_inputs: Count = option(500, needs="--prior vamp", where=lambda o: o.prior == "vamp")
    """Components of the prior vamp."""
    upper_latent_dims: tuple[Count, ...] = option(())
    """Latent dimensions of further stochastic layers, from below (a deep latent Gaussian model)."""
    upper_hidden: tuple[Count, ...] = option(
        (100, 100), needs="--upper-latent-dims", where=lambda o: bool(o.upper_latent_dims)
    )
    """Sizes of the hidden layers between stochastic layers."""
    likelihood: Literal[
        "bernoulli",
        "continuous_bernoulli",
        "gaussian",
        "gaussian_learned_variance",
        "discretized_logistic",
        "discretized_logistic_mixture",
    ] = option("bernoulli")
    """What the decoder's output means."""
    scale: Positive = option(0.1, needs="--likelihood gaussian", where=lambda o: o.likelihood == "gaussian")
    """Standard deviation of the Gaussian likelihood."""
    num_components: Count = option(
        5,
        needs="--likelihood discretized_logistic_mixture",
        where=lambda o: o.likelihood == "discretized_logistic_mixture",
    )
    """Components of the mixture of discretised logistics."""
    dtype: DType = option("float32")
    """Compute type of networks, float32 where bfloat16 is no faster; auto: the faster."""
    objective: Literal["elbo", "sampled_elbo", "iwae", "stl", "dreg"] = option("elbo", "optimisation")
    """What is maximised; iwae and dreg want --num-samples above 1."""
    beta: NotNegative = option(1.0, "optimisation")
    """Weight of the KL divergence."""
    beta_warmup: CountOrNone = option(0, "optimisation")
    """Steps over which the weight of the KL divergence rises from 0."""
    free_bits: NotNegative | None = option(None, "optimisation")
    """Nats of KL divergence that each latent dimension has for free."""
    num_samples: Count = option(1, "optimisation")
    """Latent samples per image in training."""
    optimizer: Literal["adam", "rmsprop"] = option("adam", "optimisation")
    """Adam, or RMSprop with a decay of 0.99."""
    learning_rate: NotNegative = option(1e-3, "optimisation")
    """The optimizer's learning rate."""
    learning_rate_boundaries: tuple[Count, ...] = option((), "optimisation")
    """Steps at which the learning rate changes, to those of --later-learning-rates."""
    later_learning_rates: tuple[NotNegative, ...] = option((), "optimisation")
    """The learning rate from each of the boundaries on."""
    b1: Rate = option(0.9, "optimisation", needs="--optimizer adam", where=lambda o: o.optimizer == "adam")
    """Adam's decay of the first moment."""
    epsilon: Epsilon = option(1e-8, "optimisation")
    """What is added to the root of the second moment."""
    log_likelihood_samples: Count | None = option(None, "training", **OF_IMAGES)
    """At each evaluation also estimate log p(x), by so many importance samples per image."""

    def networks(
        self, image_shape: tuple[int, ...], shape: tuple[int, ...], output: Any, common: dict[str, Any]
    ) -> tuple[Any, Any]:
        """The encoder of images and the decoder of likelihood parameters of a shape, which ends in ``output``."""
        raise NotImplementedError

    def spec(
        self, image_shape: tuple[int, ...], num_classes: int | None = None, unbounded: bool = False
    ) -> "jaxgen.VAE":
        if unbounded and not self.likelihood.startswith("gaussian"):
            raise ValueError(
                f"--likelihood {self.likelihood} is for values in [0, 1], and these data are not: pass --likelihood "
                "gaussian (and its --scale), or gaussian_learned_variance"
            )
        likelihood = _LIKELIHOODS.get(self.likelihood, lambda options: getattr(jaxgen.losses, options.likelihood))(self)
        shape = (*image_shape[:-1], image_shape[-1] * likelihood.parameters_per_value)
        common = {"num_classes": classes(self.conditional, num_classes), "dtype": network_dtype(self.dtype)}
        # What bounds a Gaussian's mean; the other likelihoods take logits.
        bounds_mean = self.likelihood == "gaussian" and not unbounded
        output = jaxgen.plain.from_plain({"named": "sigmoid"}) if bounds_mean else None
        encoder, decoder = self.networks(image_shape, shape, output, common)
        latent_dim: Any = self.latent_dim
        if self.upper_latent_dims:
            latent_dim = (self.latent_dim, *self.upper_latent_dims)
            upper, lower = self.upper_networks(latent_dim, common)
            encoder, decoder = (encoder, *upper), (decoder, *lower)
        # Images are in [0, 1]; vectors and latents are anywhere.
        bounds = (0.0, 1.0) if len(image_shape) == 3 and not unbounded else None
        prior = (
            jaxgen.networks.VampPrior(image_shape, self.num_pseudo_inputs, bounds=bounds)
            if self.prior == "vamp"
            else None
        )
        return jaxgen.VAE(
            encoder=encoder,
            decoder=decoder,
            optimizer=self._optimizer(),
            latent_dim=latent_dim,
            likelihood=likelihood,
            objective=getattr(jaxgen.losses, self.objective),
            num_samples=self.num_samples,
            beta=jaxgen.schedules.Linear(0.0, self.beta, self.beta_warmup) if self.beta_warmup else self.beta,
            free_bits=self.free_bits,
            prior=prior,
        )

    def upper_networks(self, dims: tuple[int, ...], common: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        """The encoders above the first, and the decoders above the first."""
        activation, hidden = self.activation_function(), self.upper_hidden
        mlp = {**common, **self.mlp()}
        posterior = {**mlp, **self.posterior()}
        upper = [jaxgen.networks.MLPEncoder(dim, hidden, activation, **posterior) for dim in dims[1:]]
        lower = [jaxgen.networks.MLPGaussian(dim, hidden[::-1], activation, **mlp) for dim in dims[:-1]]
        return upper, lower

    def activation_function(self) -> Any:
        """That of fully connected networks."""
        return jaxgen.plain.from_plain({"named": self.activation})  # type: ignore[attr-defined]

    def mlp(self) -> dict[str, Any]:
        """What fully connected networks are built with."""
        return {}

    def posterior(self) -> dict[str, Any]:
        """What fully connected encoders are built with besides."""
        return {}

    def _optimizer(self) -> Any:
        """Adam or RMSprop, with a learning rate in stages where there are boundaries; of a number that is Adam's own,
        nothing is said, so that the identity of older runs stays what it was."""
        boundaries, later = self.learning_rate_boundaries, self.later_learning_rates
        if len(boundaries) != len(later):
            raise ValueError(
                f"--later-learning-rates must be one for each of the {len(boundaries)} --learning-rate-boundaries, "
                f"got {later}"
            )
        rate: Any = self.learning_rate
        if boundaries:
            rate = jaxgen.schedules.Piecewise(boundaries, (rate, *later))
        if self.optimizer == "rmsprop":
            if self.b1 != 0.9:
                raise ValueError(f"--b1 is for adam, got {self.b1}: leave it out with --optimizer rmsprop")
            # As PyTorch has it, which adds epsilon to the root: under it, where optax adds it, its square is as much.
            return jaxgen.plain.optimizer("rmsprop", learning_rate=rate, decay=0.99, eps=self.epsilon**2)
        own = {"b1": (self.b1, 0.9), "eps": (self.epsilon, 1e-8)}
        changed = {name: value for name, (value, usual) in own.items() if value != usual}
        return jaxgen.plain.optimizer("adam", learning_rate=rate, **changed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLPVAEOptions(VAEOptions):
    """Train a variational autoencoder of fully connected networks."""

    hidden: tuple[Count, ...] = option((128, 128))
    """Sizes of the encoder's hidden layers; the decoder has them in reverse."""
    activation: Activation = option("leaky_relu")
    """Activation of the hidden layers; glu for gated ones, of two linear maps each."""
    initialization: Literal["lecun", "he", "pytorch"] = option("lecun")
    """Variance of the initial weights: 1 (lecun), 2 (he) or 1/3 (pytorch, uniform) over the number of inputs."""
    logvar_bounds: tuple[Finite, Finite] | None = option(None)
    """What the encoder's log-variances are clipped to."""
    covariance: Literal["diagonal", "rank_one"] = option("diagonal")
    """Posterior covariance of every stochastic layer."""

    def check(self) -> None:
        """Refuse numbers that make no sense, and bounds in the wrong order."""
        super().check()
        intervals.check_order(self.logvar_bounds, "--logvar-bounds")

    def mlp(self) -> dict[str, Any]:
        return {"initialization": None if self.initialization == "lecun" else self.initialization}

    def posterior(self) -> dict[str, Any]:
        return {"covariance": self.covariance, "logvar_bounds": self.logvar_bounds}

    def networks(
        self, image_shape: tuple[int, ...], shape: tuple[int, ...], output: Any, common: dict[str, Any]
    ) -> tuple[Any, Any]:
        activation, mlp = self.activation_function(), {**common, **self.mlp()}
        encoder = jaxgen.networks.MLPEncoder(self.latent_dim, self.hidden, activation, **mlp, **self.posterior())
        return encoder, jaxgen.networks.MLPDecoder(shape, self.hidden[::-1], activation, output, **mlp)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvVAEOptions(VAEOptions):
    """Train a variational autoencoder of convolutions."""

    learns: ClassVar[str] = "images"

    architecture: Literal["mlp", "conv"] = option("conv", "basics")
    width: Count = option(64)
    """Channels next to the image."""
    activation: Activation = option(
        "leaky_relu", needs="--upper-latent-dims", where=lambda o: bool(o.upper_latent_dims)
    )
    """Activation of the hidden layers between stochastic layers."""

    def networks(
        self, image_shape: tuple[int, ...], shape: tuple[int, ...], output: Any, common: dict[str, Any]
    ) -> tuple[Any, Any]:
        encoder = jaxgen.networks.ConvEncoder(self.latent_dim, self.width, **common)
        return encoder, jaxgen.networks.ConvDecoder(shape, self.width, output_activation=output, **common)


VAEOptions.architectures.update(mlp=MLPVAEOptions, conv=ConvVAEOptions)
