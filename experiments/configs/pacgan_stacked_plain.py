"""Stacked MNIST, the plain DCGAN: how many of 1,000 modes it finds.

Published (Srivastava et al. 2017, VEEGAN, and Lin et al. 2018, table 3): 99 modes of 1,000 and a KL divergence of 3.40
nats for DCGAN after 50 epochs.

Published numbers: modes 99; KL 3.4. Reached: modes 910.00 after 0.5 of 50 epochs, 1 of 10 seeds, in 3 min of training
on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py pacgan_stacked_plain

128,000 stacks of three digits, 50 epochs of 2,000 steps of 64 packs, Adam 2e-4 with b1 0.5, 100 latents, 26,000 samples
whose channels a classifier reads, 10 seeds. Differences from the published code: two strided layers of 4 x 4 kernels at
either end instead of four of 5 x 5, so that the smallest image is 7 x 7 and not 2 x 2; normal latents, there uniform
ones; the generator moves once a step, there twice; stacks of the 60,000 training digits, there of all 70,000; another
classifier (jaxgen's LeNet) reads the channels.

A step takes 160 ms of one core of an AMD EPYC virtual machine: 45 hours for the 10 seeds.
"""

from experiments.options import GANOptions
from experiments.reproduction import Published, Reproduction
from experiments.reproduction_mode_measures import StackedModes

EPOCH = 128_000 // 64  # steps, whatever the packing
LAST = 50  # epochs

options = GANOptions(
    dataset="stacked:mnist",
    architecture="dcgan",
    steps=LAST * EPOCH,
    batch_size=64,
    latent_dim=100,
    width=64,
    generator_learning_rate=2e-4,
    discriminator_learning_rate=2e-4,
    b1=0.5,
    ema_decay=None,
    log_every=500,
    eval_every=LAST * EPOCH,
    sample_every=EPOCH,
    checkpoint_every=EPOCH,
)

reproduction = Reproduction(
    title="DCGAN",
    group="Stacked MNIST",
    paper="Srivastava et al. 2017, VEEGAN; Lin et al. 2018, PacGAN",
    where="table 3 of PacGAN",
    protocol="128,000 stacks of three digits, DCGAN, Adam 2e-4 with b1 0.5, 64 packs a step, 50 epochs of 2,000 steps; "
    "26,000 samples whose channels a LeNet reads; mean of 10 seeds trained as one population.",
    published=(
        Published("modes", 99.0, better="higher"),
        Published("KL", 3.40),
    ),
    epoch=EPOCH,
    milestones=(1, 2, 5, 10, 20, LAST),
    measure=StackedModes(),
    seeds=10,
)
