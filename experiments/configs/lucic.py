"""Lucic et al. 2018, "Are GANs Created Equal?", table 2: the best of 100 random settings of every loss, on two sets.

Here the distance is FD-LeNet, on features of a classifier of these images, and the paper's is FID, on Inception's: the
numbers do not compare, their order does. The first setting is the default of the paper's code; in the others learning
rate, b1 and the penalty's weight are drawn from its wide ranges. Discriminator steps and BatchNorm are the defaults for
each loss, where the paper draws them too: they make another program. The penalties are of a discriminator without
BatchNorm, which the paper found better. Latents are normal, there uniform; a penalty is of the logit, DRAGAN's there of
the probability; an epoch is 60,000 images of the discriminator's updates.

A step of the minimax GAN takes 0.31 s of one core of an AMD EPYC virtual machine: a week for the 100 settings of one
loss.

    uv run experiments/reproduce.py lucic_mnist_minimax

MNIST: the minimax GAN. Published numbers: FID 9.8. Reached: FD-LeNet-MNIST 691.42 after 0.1 of 20 epochs, 2 of 100
settings, in 74 s of training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py lucic_mnist_non_saturating

MNIST: the non-saturating GAN. Published numbers: FID 6.8. Reached: FD-LeNet-MNIST 691.13 after 0.1 of 20 epochs, 2 of
100 settings, in 2 min of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py lucic_mnist_least_squares

MNIST: the least squares GAN. Published numbers: FID 7.8. Reached: FD-LeNet-MNIST 684.93 after 0.1 of 20 epochs, 2 of
100 settings, in 2 min of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py lucic_mnist_wgan_gp

MNIST: the WGAN with a gradient penalty. Published numbers: FID 20.3. Reached: FD-LeNet-MNIST 719.38 after 0.05 of 20
epochs, 1 of 100 settings, in 16 s of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py lucic_mnist_dragan

MNIST: DRAGAN. Published numbers: FID 7.6. Reached: FD-LeNet-MNIST 688.86 after 0.05 of 20 epochs, 1 of 100 settings, in
14 s of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py lucic_fashion_mnist_minimax

Fashion-MNIST: the minimax GAN. Published numbers: FID 29.6. Reached: FD-LeNet-FashionMNIST 475.92 after 0.05 of 20
epochs, 1 of 100 settings, in 37 s of training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py lucic_fashion_mnist_non_saturating

Fashion-MNIST: the non-saturating GAN. Published numbers: FID 26.5. Reached: FD-LeNet-FashionMNIST 476.11 after 0.05 of
20 epochs, 1 of 100 settings, in 41 s of training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py lucic_fashion_mnist_least_squares

Fashion-MNIST: the least squares GAN. Published numbers: FID 30.7. Reached: FD-LeNet-FashionMNIST 478.30 after 0.05 of
20 epochs, 1 of 100 settings, in 22 s of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py lucic_fashion_mnist_wgan_gp

Fashion-MNIST: the WGAN with a gradient penalty. Published numbers: FID 24.5. Reached: FD-LeNet-FashionMNIST 508.20
after 0.05 of 20 epochs, 1 of 100 settings, in 24 s of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py lucic_fashion_mnist_dragan

Fashion-MNIST: DRAGAN. Published numbers: FID 27.7. Reached: FD-LeNet-FashionMNIST 497.43 after 0.05 of 20 epochs, 1 of
100 settings, in 30 s of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.
"""

from typing import Any, Literal, NamedTuple

from experiments.reproduction.mode_measures import FeatureDistance
from experiments.reproduction.protocol import Published, Reproduction
from jaxgen.cli.gan_options import GANOptions, InfoGANOptions
from jaxgen.cli.sweeping.plan import Range, Search

Images = Literal["mnist", "fashion_mnist"]
TRAINING_IMAGES = 60_000
BATCH = 64
EPOCHS = 20
SETTINGS = 100
RATES = "generator_learning_rate+discriminator_learning_rate"


class Loss(NamedTuple):
    """A row of the paper's table: its numbers, the setting that its code tries first, and what is fixed here."""

    title: str
    fid: dict[str, float]
    usual: dict[str, float]
    options: dict[str, Any]


LOSSES = {
    "minimax": Loss("MM GAN", {"mnist": 9.8, "fashion_mnist": 29.6}, {RATES: 5e-5, "b1": 0.0}, {"loss": "minimax"}),
    "non_saturating": Loss(
        "NS GAN", {"mnist": 6.8, "fashion_mnist": 26.5}, {RATES: 5e-5, "b1": 0.0}, {"loss": "non_saturating"}
    ),
    "least_squares": Loss(
        "LSGAN", {"mnist": 7.8, "fashion_mnist": 30.7}, {RATES: 2e-4, "b1": 0.5}, {"loss": "least_squares"}
    ),
    "wgan_gp": Loss(
        "WGAN GP",
        {"mnist": 20.3, "fashion_mnist": 24.5},
        {RATES: 1e-4, "b1": 0.5, "penalty_weight": 10.0},
        {
            "loss": "wasserstein",
            "penalty": "wgan_gp",
            "penalty_weight": 10.0,
            "discriminator_normalization": "none",
            "discriminator_steps": 5,
        },
    ),
    "dragan": Loss(
        "DRAGAN",
        {"mnist": 7.6, "fashion_mnist": 27.7},
        {RATES: 1e-4, "b1": 0.5, "penalty_weight": 10.0},
        {
            "loss": "non_saturating",
            "penalty": "dragan",
            "penalty_weight": 10.0,
            "discriminator_normalization": "none",
        },
    ),
}


def protocol(name: str, images: Images) -> tuple[GANOptions, Reproduction]:
    """The paper's protocol for a loss and a data set."""
    loss = LOSSES[name]
    steps = loss.options.get("discriminator_steps", 1)
    epoch = TRAINING_IMAGES // (BATCH * steps)
    options = InfoGANOptions(
        dataset=images,
        steps=EPOCHS * epoch,
        batch_size=BATCH * steps,
        latent_dim=64,
        width=64,
        ema_decay=None,
        log_every=epoch,
        eval_every=EPOCHS * epoch,
        sample_every=EPOCHS * epoch,
        checkpoint_every=epoch,
        **loss.options,
    )
    over: dict[str, Any] = {RATES: Range(1e-5, 1e-2, log=True), "b1": Range(0.0, 1.0)}
    if options.penalty != "none":
        over["penalty_weight"] = Range(1e-1, 1e2, log=True)
    title = "Fashion-MNIST" if images == "fashion_mnist" else "MNIST"
    reproduction = Reproduction(
        title=f"{loss.title}, {title}",
        group="Lucic et al.: the best of random settings",
        paper="Lucic et al. 2018, Are GANs Created Equal? A Large-Scale Study",
        where="table 2",
        protocol=f"InfoGAN's networks, 64 latents, batches of {BATCH}, {EPOCHS} epochs, the best of {SETTINGS} random "
        "settings of learning rate, b1 and the penalty's weight; discriminator steps and BatchNorm are fixed for each "
        "loss. The paper's number is FID of 10,000 samples; ours is FD-LeNet of as many, another distance: only "
        "the order of the losses can be compared.",
        published=(Published("FID", loss.fid[images]),),
        epoch=epoch,
        milestones=(1, 2, 5, 10, EPOCHS),
        measure=FeatureDistance(),
        search=Search(over, SETTINGS, loss.usual),
    )
    return options, reproduction


VARIANTS = {
    **{f"lucic_mnist_{name}": protocol(name, "mnist") for name in LOSSES},
    **{f"lucic_fashion_mnist_{name}": protocol(name, "fashion_mnist") for name in LOSSES},
}
