"""The typed options of ``train.py``."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args, get_type_hints

import tyro

from experiments import configs, models
from jaxgen import GAN, VAE, data
from jaxgen.plain import check, one_line
from jaxgen.training.run import Run

FLOAT32_MAX = 3.4028234e38

Activation = Literal["elu", "gelu", "glu", "leaky_relu", "relu", "silu", "softplus", "tanh"]
DType = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every family."""

    config: str | None = None
    """Start from a named configuration of experiments/configs; other options override it."""
    dataset: str = "fashion_mnist_small"
    """fashion_mnist_small (embedded), the TFDS name of an image set, folder:PATH, npz:PATH or idx:DIR; or stacked: and
    one of them, for colour images of three random grey ones, with 1,000 classes; or gaussians, points of 25 Gaussians
    on a grid."""
    data_dir: Path | None = None
    """Where TFDS keeps prepared sets; its own default when not given."""
    manual_dir: Path | None = None
    """Folder with the original files of a TFDS set, used instead of the network."""
    image_size: int | None = None
    """Crop and resize images to this many pixels; keep their size when not given."""
    color: Literal["grey", "rgb"] | None = None
    """Make all images grey or RGB; keep them as they are when not given."""
    train_split: str = "train"
    """The split to train on, or a slice of one, such as train[:90%] or train[:50000]."""
    test_split: str = "test"
    """The split to evaluate on."""
    streaming: Literal["auto", "always", "never"] = "auto"
    """Read the training images as the run needs them instead of loading all: where they do not fit the memory of the
    device or the machine (auto), always or never. The run is the same either way."""
    seed: int = 0
    """The run's seed: it fixes initialisation, the order of the data and all noise."""
    steps: int
    """Number of steps in all."""
    batch_size: int
    """Number of images in a batch."""
    log_every: int = 100
    """Steps between rows of the log."""
    eval_every: int = 1000
    """Steps between evaluations on the test split."""
    extractor: str = "none"
    """At each evaluation also measure the Frechet distance, precision and recall of 1,000 samples on the features of
    lenet_mnist, lenet_fashion_mnist, pixels or inception:PATH; auto goes by the data. evaluate.py measures more."""
    sample_every: int = 1000
    """Steps between grids of samples."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    keep: int = 2
    """How many of the newest checkpoints to keep, besides the best."""
    keep_every: int | None = None
    """Keep for good the checkpoints whose step is a multiple of this."""
    checkpointing: Literal["asynchronous", "synchronous"] = "asynchronous"
    """Write checkpoints while the training goes on, or wait for each."""
    skip_bad_steps: int = 0
    """Leave out steps that make numbers that are not finite, and give up after so many; 0 stops at the first."""
    mesh: str | None = None
    """Devices by axis, such as data=8 or data=4,model=2: the batch is split over data, the state over model."""
    coordinator: str | None = None
    """HOST:PORT of process 0, to train in several processes; found by itself on TPU pods and under SLURM."""
    num_processes: int | None = None
    """Number of processes, with --coordinator."""
    process_id: int | None = None
    """Number of this process, from 0, with --coordinator."""
    workdir: Path | None = None
    """The run directory; the next free runs/FAMILY-NNN when not given."""
    resume: bool = False
    """Continue the run in --workdir from its newest checkpoint."""
    init_from: Path | None = None
    """Start from the weights of another run's newest checkpoint."""

    def check(self) -> None:
        """Refuse numbers that make no sense, before anything is read or written."""
        counts = ("steps", "batch_size", "log_every", "eval_every", "sample_every", "checkpoint_every", "keep")
        for name in (*counts, "keep_every", "log_likelihood_samples", "num_pseudo_inputs"):
            value = getattr(self, name, None)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        sizes = ("hidden", "upper_hidden", "upper_latent_dims", "generator_hidden", "discriminator_hidden")
        for name in (*sizes, "maxout_hidden"):
            if any(size < 1 for size in getattr(self, name, ())):
                raise ValueError(f"--{name.replace('_', '-')} must be sizes of at least 1, got {getattr(self, name)}")
        for name, value in vars(self).items():
            numbers = [x for x in (value if isinstance(value, tuple) else (value,)) if isinstance(x, float)]
            if any(math.isnan(x) or (abs(x) > FLOAT32_MAX and name != "logvar_bounds") for x in numbers):
                raise ValueError(f"--{name.replace('_', '-')} must be finite, in float32 too, got {value}")
        if self.skip_bad_steps < 0:
            raise ValueError(f"--skip-bad-steps must be at least 0, got {self.skip_bad_steps}")
        given = [self.coordinator, self.num_processes, self.process_id]
        if any(value is None for value in given) and any(value is not None for value in given):
            raise ValueError("--coordinator, --num-processes and --process-id go together: pass all of them or none")
        if self.resume and self.workdir is None:
            raise ValueError("--resume needs the --workdir of the run to continue")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEOptions(Options):
    """Train a variational autoencoder."""

    steps: int = 6000
    """Number of steps in all."""
    batch_size: int = 128
    """Number of images in a batch."""
    architecture: Literal["mlp", "conv"] = "mlp"
    """Fully connected networks, or convolutions (the DCGAN's)."""
    latent_dim: int = 16
    """Number of latent dimensions."""
    hidden: tuple[int, ...] = (128, 128)
    """Sizes of the encoder's hidden layers; the decoder has them in reverse."""
    activation: Activation = "leaky_relu"
    """Activation of the hidden layers; glu for gated ones, of two linear maps each."""
    initialization: Literal["lecun", "he", "pytorch"] = "lecun"
    """Variance of the initial weights of fully connected networks: 1 (lecun), 2 (he) or 1/3 (pytorch, uniform ones)
    over the number of inputs."""
    logvar_bounds: tuple[float, float] | None = None
    """What the encoder's log-variances are clipped to, of fully connected networks."""
    prior: Literal["standard", "vamp"] = "standard"
    """The prior of the latents: the standard normal, or a mixture of the posteriors of learnt pseudo-inputs."""
    num_pseudo_inputs: int = 500
    """Components of the prior vamp."""
    width: int = 64
    """Channels next to the image, of convolutional networks."""
    upper_latent_dims: tuple[int, ...] = ()
    """Latent dimensions of further stochastic layers, from below (a deep latent Gaussian model)."""
    upper_hidden: tuple[int, ...] = (100, 100)
    """Sizes of the hidden layers between stochastic layers."""
    covariance: Literal["diagonal", "rank_one"] = "diagonal"
    """Posterior covariance of every stochastic layer of fully connected networks."""
    conditional: bool = False
    """Condition encoder and decoder on the label."""
    likelihood: Literal[
        "bernoulli",
        "continuous_bernoulli",
        "gaussian",
        "gaussian_learned_variance",
        "discretized_logistic",
        "discretized_logistic_mixture",
    ] = "bernoulli"
    """What the decoder's output means."""
    scale: float = 0.1
    """Standard deviation of the Gaussian likelihood."""
    num_components: int = 5
    """Components of the mixture of discretised logistics."""
    objective: Literal["elbo", "sampled_elbo", "iwae", "stl", "dreg"] = "elbo"
    """What is maximised; iwae and dreg want --num-samples above 1."""
    beta: float = 1.0
    """Weight of the KL divergence."""
    beta_warmup: int = 0
    """Steps over which the weight of the KL divergence rises from 0."""
    free_bits: float | None = None
    """Nats of KL divergence that each latent dimension has for free."""
    num_samples: int = 1
    """Latent samples per image in training."""
    log_likelihood_samples: int | None = None
    """At each evaluation also estimate log p(x) of the test split, by so many importance samples per image."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """Adam, or RMSprop with a decay of 0.99."""
    learning_rate: float = 1e-3
    """The optimizer's learning rate."""
    learning_rate_boundaries: tuple[int, ...] = ()
    """Steps at which the learning rate changes, to those of --later-learning-rates."""
    later_learning_rates: tuple[float, ...] = ()
    """The learning rate from each of the boundaries on."""
    b1: float = 0.9
    """Adam's decay of the first moment; RMSprop has none."""
    epsilon: float = 1e-8
    """What is added to the root of the second moment."""
    binarization: data.Binarization = "none"
    """Binarise images once (static) or anew at every step (dynamic)."""
    dtype: DType = "float32"
    """Compute type of the networks; parameters stay float32."""

    def spec(self, image_shape: tuple[int, ...], num_classes: int | None = None) -> VAE:
        """The VAE for images of this shape, and labels of so many classes."""
        return models.build_vae(self, image_shape, num_classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GANOptions(Options):
    """Train a generative adversarial network."""

    steps: int = 30_000
    """Number of steps in all."""
    batch_size: int = 64
    """Number of real images in a batch; with several discriminator steps or packing, of all of them together."""
    architecture: Literal["mlp", "maxout", "dcgan", "infogan", "resnet"] = "mlp"
    """Fully connected networks, the maxout discriminator of 2014, DCGAN, InfoGAN's or residual networks."""
    latent_dim: int = 64
    """Number of latent dimensions."""
    generator_hidden: tuple[int, ...] = (256, 512)
    """Sizes of a fully connected generator's hidden layers."""
    discriminator_hidden: tuple[int, ...] = (256, 128)
    """Sizes of a fully connected discriminator's hidden layers."""
    maxout_hidden: tuple[int, ...] = (240, 240)
    """Numbers of units of a maxout discriminator's hidden layers."""
    generator_batch_norm: bool = False
    """Normalise the hidden layers of a fully connected generator over the batch."""
    init_scale: float | None = None
    """Standard deviation of the initial weights of a fully connected generator and of a maxout discriminator; each
    layer's usual distribution when not given."""
    unbounded: bool | None = None
    """Let a fully connected generator make any numbers instead of numbers in [0, 1]; only for gaussians when not
    given."""
    activation: Activation = "leaky_relu"
    """Activation of the hidden layers of fully connected networks."""
    generator_initial_range: float | None = None
    """Draw a fully connected generator's weights uniformly from minus this to this (0.05 in 2014); from LeCun's normal
    distribution when not given."""
    width: int = 64
    """Channels next to the image, of convolutional networks."""
    generator_normalization: Literal["batch", "none"] = "batch"
    """Normalisation in a residual generator; a DCGAN's and InfoGAN's is always batch."""
    discriminator_normalization: Literal["batch", "spectral", "none"] | None = None
    """Normalisation in a convolutional discriminator: batch for dcgan and infogan and spectral for resnet when not
    given."""
    minibatch_stddev: bool = False
    """Show a DCGAN's discriminator the standard deviation over the batch."""
    dropout_rate: float | None = None
    """Share of the discriminator's units dropped in training: 0.5 for mlp and maxout, 0 for the others when not given.
    On a few thousand images it is what keeps the discriminator from learning them by heart, and the generator from
    dropping whole classes."""
    input_dropout_rate: float | None = None
    """Share of the pixels that a maxout discriminator drops in training: 0.2 when not given."""
    conditional: bool = False
    """Condition both networks on the label."""
    loss: Literal[
        "minimax", "non_saturating", "least_squares", "wasserstein", "hinge", "relativistic", "relativistic_average"
    ] = "non_saturating"
    """The adversarial loss."""
    penalty: Literal["none", "wgan_gp", "wgan_gp_one_sided", "r1", "r2", "r1_r2", "dragan"] = "none"
    """Penalty of the discriminator's gradient."""
    penalty_weight: float = 1.0
    """Weight of the penalty (10 is usual for wgan_gp, 1 to 10 for r1)."""
    penalty_every: int = 1
    """Steps between penalties, each then weighted as many times."""
    weight_clipping: float | None = None
    """Bound of every discriminator parameter, for the Wasserstein loss of 2017 (0.01)."""
    discriminator_steps: int = 1
    """Discriminator updates a step, each on its part of the batch."""
    packing: int = 1
    """Images that the discriminator judges together (PacGAN)."""
    augmentation: Literal["none", "diffaugment", "adaptive"] = "none"
    """Augment what the discriminator sees: always, or as much as keeps it from overfitting."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, or stochastic gradient descent with momentum as in 2014."""
    generator_learning_rate: float = 2e-4
    """The learning rate for the generator."""
    discriminator_learning_rate: float = 2e-4
    """The learning rate for the discriminator."""
    learning_rate_divisor: float = 1.0
    """What sgd's learning rates are divided by at every step, down to 1e-6 (1.000004 in 2014)."""
    momentum: float = 0.5
    """Sgd's momentum, for both."""
    final_momentum: float | None = None
    """The momentum after --momentum-steps; as before when not given."""
    momentum_steps: int = 0
    """Steps over which the momentum goes to its final value, along a line."""
    b1: float = 0.5
    """Adam's decay of the first moment, for both."""
    b2: float = 0.999
    """Adam's decay of the second moment, for both."""
    ema_decay: float | None = 0.999
    """Decay of the moving average of the generator, which makes the samples; None for no average."""
    ema_warmup: bool = False
    """Let the average forget faster at first: (1 + t) / (10 + t) where that is below the decay."""
    burn_in: int = 0
    """Steps over which the learning rates, b2 and the penalty's weight go to their final values, along a cosine."""
    final_learning_rate_factor: float = 1.0
    """The learning rates after the burn-in, as a share of those before."""
    final_b2: float | None = None
    """Adam's b2 after the burn-in; as before when not given."""
    final_penalty_weight: float | None = None
    """The penalty's weight after the burn-in; as before when not given."""
    dtype: DType = "float32"
    """Compute type of the networks; parameters stay float32."""

    def check(self) -> None:
        """Refuse numbers that make no sense, and a batch that does not make whole ones of the discriminator."""
        super().check()
        part = self.discriminator_steps * self.packing
        if part > 0 and self.batch_size % part:
            raise ValueError(
                f"--batch-size {self.batch_size} must be a multiple of --discriminator-steps times --packing, "
                f"{self.discriminator_steps} x {self.packing} = {part}: use {max(1, self.batch_size // part) * part}"
            )

    def spec(self, image_shape: tuple[int, ...], num_classes: int | None = None) -> GAN:
        """The GAN for images of this shape, and labels of so many classes."""
        return models.build_gan(self, image_shape, num_classes)


class _Saved(TypedDict):
    family: Literal["vae", "gan"]
    options: dict


FAMILIES: dict[str, type[VAEOptions] | type[GANOptions]] = {"vae": VAEOptions, "gan": GANOptions}


def load_config(name: str, family: str) -> VAEOptions | GANOptions:
    """The options of a named configuration.

    Args:
      name: one of experiments/configs.
      family: ``"vae"`` or ``"gan"``.

    Returns:
      Its options.

    Raises:
      ValueError: there is none of that name for the family; the error lists the nearest ones.
    """
    if name not in configs.FILES:
        raise ValueError(f"unknown configuration {name!r} for {family}: the nearest are {configs.nearest(name)}")
    options, _ = configs.load(name)
    if not isinstance(options, FAMILIES[family]):
        raise ValueError(f"unknown configuration {name!r} for {family}: it is one of the other family")
    return dataclasses.replace(options, config=name)


def parse(arguments: Sequence[str], program: str = "train.py") -> VAEOptions | GANOptions:
    """Options of the command line: over those of the run to resume, or of the named configuration, or the defaults."""
    family = arguments[0] if arguments and arguments[0] in FAMILIES else None
    if family is None:
        usage = f"usage: {program} {{{','.join(FAMILIES)}}} [options]; {program} vae --help lists the options"
        if not arguments or arguments[0] in ("-h", "--help"):
            print(usage)
            raise SystemExit(0 if arguments else 2)
        raise ValueError(f"unknown family {arguments[0]!r}: {usage}")
    rest = list(arguments[1:])
    default: VAEOptions | GANOptions = FAMILIES[family]()
    named, workdir = value_of(rest, "--config"), value_of(rest, "--workdir")
    if named is not None:
        default = load_config(named, family)
    elif "--resume" in rest and workdir is not None and Run.exists(Path(workdir)):
        default = saved_options(run := Run.open(Path(workdir)))
        if not isinstance(default, FAMILIES[family]):
            saved = run.config["settings"]["family"]
            raise ValueError(f"{run.directory} holds a {saved}: train it as {saved}, not as {family}")
    return tyro.cli(FAMILIES[family], args=rest, default=default, prog=f"{program} {family}")


def value_of(arguments: Sequence[str], flag: str) -> str | None:
    """What follows a flag on the command line, as ``--flag VALUE`` or ``--flag=VALUE``; None where it is missing."""
    for i, argument in enumerate(arguments):
        if argument == flag:
            return arguments[i + 1] if i + 1 < len(arguments) else None
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None


def saved_options(run: Run) -> VAEOptions | GANOptions:
    """The options that a run was trained with; a ValueError of one line names what does not fit."""
    saved = run.config["settings"]
    try:
        check(saved, _Saved, "settings")
        kind = FAMILIES[saved["family"]]
        values: dict[str, Any] = {}
        for name, hint in get_type_hints(kind).items():
            if name in saved["options"]:  # older runs lack options of today
                value = saved["options"][name]
                is_path = Path in get_args(hint) and isinstance(value, str)
                values[name] = Path(value) if is_path else tuple(value) if isinstance(value, list) else value
                check(values[name], hint, f"settings.options.{name}", value)
        return kind(**values)
    except ValueError as error:
        raise ValueError(one_line(run.directory / "config.json", f"holds no options: {error}")) from error
