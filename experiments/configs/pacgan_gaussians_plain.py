"""Mode counting of PacGAN, the plain GAN: 25 Gaussians on a grid.

Published (Lin et al. 2018, table 1): 17.3 +- 0.8 modes of 25 after 400 epochs, over 10 runs.

Published numbers: modes 17.3 +- 0.8. Reached: modes 8.00 +- 1.53 after 2 of 400 epochs, 3 of 10 seeds, in 7 min of
training on AMD EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py pacgan_gaussians_plain

Networks and numbers are those of the published code: a generator 2-400-400-400-400-2 with BatchNorm and ReLU, a
discriminator of three layers of 200 maxout units of 5 pieces, weights from N(0, 0.02^2), no dropout, Adam 1e-4 with b1
0.8, 100 packs a step. The code updates both networks at once, here the generator follows the discriminator; the running
averages of its BatchNorm forget by 0.95 a step, ours by 0.9; its packs are of 100,000 points for each place in a pack,
ours share 100,000. An epoch is 1,000 steps, as there, whatever the packing.

A step takes about 25 ms of one core of an AMD EPYC virtual machine: 28 hours for the 10 seeds. Seed
0 alone found 14 modes after 1 epoch and 12 after 3, with 9% of the samples good: too early to tell from packing.
"""

import dataclasses

from experiments.options import GANOptions
from experiments.reproduction import Published, Reproduction
from experiments.reproduction_mode_measures import Modes

EPOCH = 1000  # steps
LAST = 400  # epochs

options = GANOptions(
    dataset="gaussians",
    architecture="maxout",
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
)

reproduction = Reproduction(
    title="plain",
    group="PacGAN: modes of 25 Gaussians",
    paper="Lin et al. 2018, PacGAN: The power of two samples in generative adversarial networks",
    where="table 1",
    protocol="100,000 fixed points, standard deviation 0.05; generator 2-400-400-400-400-2 with BatchNorm, maxout "
    "discriminator 200-200-200 of 5 pieces, Adam 1e-4 with b1 0.8, 100 packs a step, 400 epochs of 1,000 steps; 2,500 "
    "samples, a mode counts with a sample within 3 standard deviations; mean of 10 seeds trained as one population.",
    published=(Published("modes", 17.3, standard_error=0.8, within=1.6, better="higher"),),
    epoch=EPOCH,
    milestones=(2, 5, 10, 20, 50, 100, 200, LAST),
    measure=Modes(),
    seeds=10,
)


def packed(packing: int, published: Published) -> tuple[GANOptions, Reproduction]:
    """The same with packs of so many points."""
    changed = dataclasses.replace(options, packing=packing, batch_size=packing * options.batch_size)
    return changed, dataclasses.replace(reproduction, title=f"packs of {packing}", published=(published,))
