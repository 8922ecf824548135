"""Lin et al. 2018, PacGAN: how many modes a GAN finds, of 25 Gaussians on a grid and of the 1,000 of stacked MNIST.

Variants of ``pacgan`` have the published protocol, those of ``small`` small networks, which take minutes: points,
stacks, packs and what counts as a mode are the same, so the order of the methods can be compared, and their numbers
cannot. The paper has no row of R1; the number beside one is its plain GAN's.

    uv run experiments/reproduce.py pacgan_gaussians_plain

Table 1: 17.3 +- 0.8 modes of 25 after 400 epochs, over 10 runs. Published numbers: modes 17.3 +- 0.8. Reached: modes
8.00 +- 1.53 after 2 of 400 epochs, 3 of 10 seeds, in 7 min of training on AMD EPYC (family 25, model 17, stepping 1), 1
core.

Networks and numbers are those of the published code: a generator 2-400-400-400-400-2 with BatchNorm and ReLU, a
discriminator of three layers of 200 maxout units of 5 pieces, weights from N(0, 0.02^2), no dropout, Adam 1e-4 with b1
0.8, 100 packs a step. The code updates both networks at once, here the generator follows the discriminator; the running
averages of its BatchNorm forget by 0.95 a step, ours by 0.9; its packs are of 100,000 points for each place in a pack,
ours share 100,000. An epoch is 1,000 steps, as there, whatever the packing. A step takes about 25 ms of one core of an
AMD EPYC virtual machine: 28 hours for the 10 seeds. Seed 0 alone found 14 modes after 1 epoch and 12 after 3, with 9%
of the samples good: too early to tell from packing.

    uv run experiments/reproduce.py pacgan_gaussians_packing_2

The discriminator judges 2 points together: 23.8 +- 0.7 modes there. Published numbers: modes 23.8 +- 0.7. Reached:
modes 14.00 +- 1.00 after 0.5 of 400 epochs, 2 of 10 seeds, in 22 s of training on AMD EPYC (family 25, model 17,
stepping 1), 1 core. Seed 0 alone found 4 modes after 1 epoch and 12 after 3, with 2% of the samples good: too early to
tell from the plain GAN.

    uv run experiments/reproduce.py pacgan_gaussians_packing_4

The discriminator judges 4 points together. Published numbers: modes 24.8. Reached: modes 5.50 +- 0.50 after 0.5 of 400
epochs, 2 of 10 seeds, in 27 s of training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py pacgan_gaussians_r1

R1 of weight 0.1 instead of packing, as in ``gaussians.py``. Published numbers: modes 17.3 +- 0.8 (plain GAN of the
paper). Reached: modes 6.00 +- 1.00 after 0.5 of 400 epochs, 2 of 10 seeds, in 19 s of training on AMD EPYC (family 25,
model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py pacgan_stacked_plain

Table 3, after Srivastava et al. 2017, VEEGAN: 99 modes of 1,000 and a KL divergence of 3.40 nats for DCGAN after 50
epochs. Published numbers: modes 99; KL 3.4. Reached: modes 910.00 after 0.5 of 50 epochs, 1 of 10 seeds, in 3 min of
training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

128,000 stacks of three digits, 50 epochs of 2,000 steps of 64 packs, Adam 2e-4 with b1 0.5, 100 latents, 26,000 samples
whose channels a classifier reads, 10 seeds. Differences from the published code: two strided layers of 4 x 4 kernels at
either end instead of four of 5 x 5, so that the smallest image is 7 x 7 and not 2 x 2; normal latents, there uniform
ones; the generator moves once a step, there twice; stacks of the 60,000 training digits, there of all 70,000; another
classifier (jaxgen's LeNet) reads the channels. A step takes 160 ms of one core of an AMD EPYC virtual machine: 45 hours
for the 10 seeds.

    uv run experiments/reproduce.py pacgan_stacked_packing_2

The discriminator judges 2 images together: all 1,000 modes there, and a KL divergence of 0.06 nats. Published numbers:
modes 1000; KL 0.06. Reached: modes 826.00 after 0.5 of 50 epochs, 1 of 10 seeds, in 4 min of training on AMD EPYC
(family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py pacgan_stacked_r1

R1 of weight 2.5 and no BatchNorm in the discriminator: the 10 of Mescheder et al. 2018 is for images in [-1, 1], which
are in [0, 1] here. Published numbers: modes 99 (plain DCGAN of the paper); KL 3.4 (plain DCGAN of the paper). Reached:
modes 249.00 after 0.1 of 50 epochs, 1 of 10 seeds, in 52 s of training on AMD EPYC (family 25, model 17, stepping 1), 2
cores.

    uv run experiments/reproduce.py small_gaussians_plain

Two layers of 128 leaky rectifiers for either network, Adam 1e-3 with b1 0.5, the generator's moving average, 20 epochs
of 1,000 steps. Published numbers: modes 17.3 +- 0.8. Reached: modes 18.10 +- 0.87 after 20 of 20 epochs, 10 of 10
seeds, in 3 min of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py small_gaussians_packing_2

Published numbers: modes 23.8 +- 0.7. Reached: modes 24.90 +- 0.10 after 20 of 20 epochs, 10 of 10 seeds, in 4 min of
training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py small_gaussians_r1

Published numbers: modes 17.3 (plain GAN of the paper). Reached: modes 24.90 +- 0.10 after 20 of 20 epochs, 10 of 10
seeds, in 3 min of training on AMD EPYC (family 25, model 17, stepping 1), 2 cores.

    uv run experiments/reproduce.py small_stacked_plain

Two fully connected layers in either network (128-256 and 128-64 leaky rectifiers), Adam 1e-3 with b1 0.5, 2 epochs of
2,000 steps; the DCGAN of the published protocol takes 45 hours for its seeds and, here, finds most modes within half an
epoch. Published numbers: modes 99; KL 3.4. Reached: modes 433.50 +- 26.39 after 2 of 2 epochs, 10 of 10 seeds, in 10
min of training on AMD EPYC (family 25, model 17, stepping 1), 1 core. After one epoch packs find no more modes than it.

    uv run experiments/reproduce.py small_stacked_packing_2

Published numbers: modes 1000; KL 0.06. Reached: modes 664.50 +- 13.95 after 2 of 2 epochs, 10 of 10 seeds, in 26 min of
training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py small_stacked_r1

R1 of the weight that ``pacgan_stacked_r1`` has. Published numbers: modes 99 (plain DCGAN of the paper); KL 3.4 (plain
DCGAN of the paper). Reached: modes 931.60 +- 7.77 after 2 of 2 epochs, 10 of 10 seeds, in 5 min of training on AMD EPYC
(family 25, model 17, stepping 1), 1 core.
"""

import dataclasses
from typing import Any

from experiments.reproduction.mode_measures import Modes, StackedModes
from experiments.reproduction.protocol import Published, Reproduction
from jaxgen.cli.gan_options import DCGANOptions, GANOptions, MaxoutGANOptions, MLPGANOptions

EPOCH = 1000  # steps
LAST = 400  # epochs
STACKED_EPOCH = 128_000 // 64  # steps, whatever the packing
STACKED_LAST = 50  # epochs

Variant = tuple[GANOptions, Reproduction]


def change(base: Variant, title: str, published: tuple[Published, ...], **changes: Any) -> Variant:
    """Another row of a table."""
    options, reproduction = base
    if "packing" in changes:
        changes["batch_size"] = changes["packing"] * options.batch_size
    return dataclasses.replace(options, **changes), dataclasses.replace(reproduction, title=title, published=published)


def modes(number: float, kl: float | None = None, within: tuple[float | None, float | None] = (None, None),
          **more: Any) -> tuple[Published, ...]:  # fmt: skip
    """A row's number of modes, and its KL divergence where there is one."""
    found = Published("modes", number, within=within[0], better="higher", **more)
    return (found,) if kl is None else (found, Published("KL", kl, within=within[1], **more))


GAUSSIANS = (
    MaxoutGANOptions(
        dataset="gaussians",
        steps=LAST * EPOCH,
        batch_size=100,
        latent_dim=2,
        generator_hidden=(400, 400, 400, 400),
        generator_batch_norm=True,
        activation="relu",
        maxout_hidden=(200, 200, 200),
        init_scale=0.02,
        dropout_rate=0.0,
        input_dropout_rate=0.0,
        generator_learning_rate=1e-4,
        discriminator_learning_rate=1e-4,
        b1=0.8,
        ema_decay=None,
        log_every=EPOCH,
        eval_every=LAST * EPOCH,
        sample_every=LAST * EPOCH,
        checkpoint_every=10 * EPOCH,
    ),
    Reproduction(
        title="plain",
        group="PacGAN: modes of 25 Gaussians",
        paper="Lin et al. 2018, PacGAN: The power of two samples in generative adversarial networks",
        where="table 1",
        protocol="100,000 fixed points, standard deviation 0.05; generator 2-400-400-400-400-2 with BatchNorm, maxout "
        "discriminator 200-200-200 of 5 pieces, Adam 1e-4 with b1 0.8, 100 packs a step, 400 epochs of 1,000 steps; "
        "2,500 samples, a mode counts with a sample within 3 standard deviations; mean of 10 seeds trained as one "
        "population.",
        published=modes(17.3, standard_error=0.8, within=(1.6, None)),
        epoch=EPOCH,
        milestones=(2, 5, 10, 20, 50, 100, 200, LAST),
        measure=Modes(),
        seeds=10,
    ),
)
SMALL_GAUSSIANS = (
    MLPGANOptions(
        dataset="gaussians",
        steps=20 * EPOCH,
        batch_size=100,
        latent_dim=2,
        generator_hidden=(128, 128),
        discriminator_hidden=(128, 128),
        dropout_rate=0.0,
        generator_learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
        b1=0.5,
        ema_decay=0.999,
        log_every=EPOCH,
        eval_every=20 * EPOCH,
        sample_every=20 * EPOCH,
        checkpoint_every=10 * EPOCH,
    ),
    dataclasses.replace(
        GAUSSIANS[1],
        title="plain, small networks",
        group="PacGAN: modes of 25 Gaussians, small networks",
        protocol="The points, the packs and the measure of PacGAN's protocol; 128-128 leaky rectifiers, Adam 1e-3 with "
        "b1 0.5, the generator's moving average, 20 epochs of 1,000 steps; mean of 10 seeds trained as one population. "
        "The paper's numbers are of its own protocol: the order of the methods is what is to be seen here.",
        published=modes(17.3, standard_error=0.8),
        milestones=(5, 10, 20),
    ),
)
STACKED = (
    DCGANOptions(
        dataset="stacked:mnist",
        steps=STACKED_LAST * STACKED_EPOCH,
        batch_size=64,
        latent_dim=100,
        width=64,
        generator_learning_rate=2e-4,
        discriminator_learning_rate=2e-4,
        b1=0.5,
        ema_decay=None,
        log_every=500,
        eval_every=STACKED_LAST * STACKED_EPOCH,
        sample_every=STACKED_EPOCH,
        checkpoint_every=STACKED_EPOCH,
    ),
    Reproduction(
        title="DCGAN",
        group="Stacked MNIST",
        paper="Srivastava et al. 2017, VEEGAN; Lin et al. 2018, PacGAN",
        where="table 3 of PacGAN",
        protocol="128,000 stacks of three digits, DCGAN, Adam 2e-4 with b1 0.5, 64 packs a step, 50 epochs of 2,000 "
        "steps; 26,000 samples whose channels a LeNet reads; mean of 10 seeds trained as one population.",
        published=modes(99.0, 3.40),
        epoch=STACKED_EPOCH,
        milestones=(1, 2, 5, 10, 20, STACKED_LAST),
        measure=StackedModes(),
        seeds=10,
    ),
)
SMALL_STACKED = (
    MLPGANOptions(
        dataset="stacked:mnist",
        steps=2 * STACKED_EPOCH,
        batch_size=64,
        latent_dim=100,
        generator_hidden=(128, 256),
        discriminator_hidden=(128, 64),
        dropout_rate=0.0,
        generator_learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
        b1=0.5,
        ema_decay=None,
        log_every=500,
        eval_every=2 * STACKED_EPOCH,
        sample_every=2 * STACKED_EPOCH,
        checkpoint_every=STACKED_EPOCH,
    ),
    dataclasses.replace(
        STACKED[1],
        title="plain, small networks",
        group="Stacked MNIST, small networks",
        protocol="The stacks, the packs and the measure of PacGAN's protocol; fully connected networks of 128-256 and "
        "128-64 leaky rectifiers, Adam 1e-3 with b1 0.5, 2 epochs of 2,000 steps; mean of 10 seeds trained as one "
        "population. The papers' numbers are of their own protocol: the order of the methods is what is to be seen "
        "here.",
        milestones=(1, 2),
    ),
)
GAN, DCGAN = "plain GAN of the paper", "plain DCGAN of the paper"
R1: dict[str, Any] = {"penalty": "r1", "penalty_weight": 0.1}
STACKED_R1: dict[str, Any] = {"penalty": "r1", "penalty_weight": 2.5}

VARIANTS = {
    "pacgan_gaussians_plain": GAUSSIANS,
    "pacgan_gaussians_packing_2": change(
        GAUSSIANS, "packs of 2", modes(23.8, standard_error=0.7, within=(1.4, None)), packing=2
    ),
    "pacgan_gaussians_packing_4": change(GAUSSIANS, "packs of 4", modes(24.8, within=(0.4, None)), packing=4),
    "pacgan_gaussians_r1": change(GAUSSIANS, "R1, not in the paper", modes(17.3, standard_error=0.8, source=GAN), **R1),
    "pacgan_stacked_plain": STACKED,
    "pacgan_stacked_packing_2": change(
        STACKED, "DCGAN, packs of 2", modes(1000.0, 0.06, within=(10.0, 0.02)), packing=2
    ),
    "pacgan_stacked_r1": change(
        STACKED,
        "DCGAN with R1, not in the paper",
        modes(99.0, 3.40, source=DCGAN),
        discriminator_normalization="none",
        **STACKED_R1,
    ),
    "small_gaussians_plain": SMALL_GAUSSIANS,
    "small_gaussians_packing_2": change(
        SMALL_GAUSSIANS, "packs of 2, small networks", modes(23.8, standard_error=0.7), packing=2
    ),
    "small_gaussians_r1": change(
        SMALL_GAUSSIANS, "R1, not in the paper, small networks", modes(17.3, source=GAN), **R1
    ),
    "small_stacked_plain": SMALL_STACKED,
    "small_stacked_packing_2": change(SMALL_STACKED, "packs of 2, small networks", modes(1000.0, 0.06), packing=2),
    "small_stacked_r1": change(SMALL_STACKED, "R1, small networks", modes(99.0, 3.40, source=DCGAN), **STACKED_R1),
}
