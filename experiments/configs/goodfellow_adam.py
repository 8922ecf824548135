"""The first GAN, on MNIST, with the networks and the judge of its paper, and with Adam and a moving average.

As goodfellow_mnist, which see, but for what the field learnt later and what takes minutes instead of hours: Adam with
a learning rate of 1e-3 and b1 of 0.5 for both networks, and samples of the generator's moving average (a ninth of the
steps so far, as ``ema_warmup`` has it, until its decay is 0.9999). The average blurs, and the Parzen windows of 2014
like blurred samples: part of the number is that, and not a better model. What was tried before, after 50 epochs at
most: a learning rate of 2e-4 with a decay of 0.999 reached 183.5 (the generator itself 6.9 where its average had
90.7), 2,000 more steps at 3e-5 made 167.1 of it, 4,000 more at 5e-4 with a decay of 0.9997 made 195.4. 10,000 training
images in place of samples have 234.6 on a fifth of the test images. A step takes 48 ms of a core of its own, 40 minutes
in all; the record's time is of a core shared with tests.

Published numbers: Parzen 225 +- 2. Reached: Parzen 215.77 after 100 of 100 epochs, in 73 min of training on AMD EPYC
(family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py goodfellow_adam
"""

from experiments.configs.goodfellow_mnist import EPOCH, GROUP, PAPER, PROTOCOL, PUBLISHED
from experiments.options import GANOptions
from experiments.reproduction import Reproduction
from experiments.reproduction_gan_measures import Parzen

options = GANOptions(
    dataset="mnist",
    train_split="train[:50000]",
    architecture="maxout",
    steps=100 * EPOCH,
    batch_size=100,
    latent_dim=100,
    generator_hidden=(1200, 1200),
    activation="relu",
    generator_initial_range=0.05,
    generator_learning_rate=1e-3,
    discriminator_learning_rate=1e-3,
    ema_decay=0.9999,
    ema_warmup=True,
    log_every=EPOCH,
    eval_every=50 * EPOCH,
    sample_every=10 * EPOCH,
    checkpoint_every=EPOCH,
    keep_every=5 * EPOCH,
)

reproduction = Reproduction(
    title="GAN, Adam and a moving average",
    group=GROUP,
    paper=PAPER,
    where="table 1",
    protocol=PROTOCOL + "Adam at 1e-3 with b1 0.5, a long moving average of the generator.",
    published=PUBLISHED,
    epoch=EPOCH,
    milestones=(5, 10, 20, 30, 40, 50, 75, 100),
    measure=Parzen(checkpoints="kept"),
)
