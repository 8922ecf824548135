"""The first GAN, on MNIST, with the networks and the judge of its paper, and with Adam and a moving average.

As goodfellow_mnist, which see, but for what the field learnt later and what takes minutes instead of hours: Adam with a
learning rate of 2e-4 and b1 of 0.5 for both networks, and samples of the generator's moving average (decay 0.999). The
average blurs, and the Parzen windows of 2014 like blurred samples: part of the number is that, and not a better model.

    uv run experiments/reproduce.py goodfellow_adam

Reached with seed 0 on one core of an AMD EPYC, 20 steps a second when it is free: 129.9 nats after epoch 10, 151.2 +-
1.6 after epoch 15 (7,500 steps), and rising. After 3,342 steps the moving average had 90.7, the generator's own
weights 6.9.
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
