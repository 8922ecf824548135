"""The first GAN, on MNIST, with the networks, the optimiser and the judge of its paper.

Goodfellow et al. 2014, table 1: a Parzen window log-likelihood of 225 +- 2 nats. As in the code published with it
(mnist.yaml and parzen_ll.py): 100 Gaussian latents, 1200 and 1200 rectifiers, 784 sigmoids, weights from
U(-0.05, 0.05); two layers of 240 maxout units of five pieces, weights from U(-0.005, 0.005), a fifth of the pixels and
half of the units dropped; the non-saturating loss, the discriminator's halved there and its learning rate halved here;
gradient descent in batches of 100 of the first 50,000 images, learning rate 0.1 divided by 1.000004 at every step,
momentum from 0.5 to 0.7 over 250 epochs; the generator's last weights, not an average, make the samples.

Published numbers: Parzen 225 +- 2. Reached: Parzen 27.95 after 5 of 250 epochs, in 2 min of training on AMD EPYC
(family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py goodfellow_mnist

Where it differs: the generator's last biases begin at 0, in the paper's code at the logits of the mean pixels; the
momentum rises at every step, not every epoch; the generator meets the discriminator after its update, not before; the
code has no last epoch and the paper names none: here it ends with the rise of the momentum, after epoch 250. TFDS keeps
the images in an order of its own, so that its first 50,000 are others than those of MNIST's files. Of the checkpoints
that are kept (of every 25 epochs, and the last two) the one likeliest for the validation images is judged on the test
images.

Theis et al. 2016, section 3.2, show how little the number says: a blurred generator gets a higher one.
"""

from experiments.options import GANOptions
from experiments.reproduction import Published, Reproduction
from experiments.reproduction_gan_measures import Parzen

EPOCH = 500  # steps

options = GANOptions(
    dataset="mnist",
    train_split="train[:50000]",
    architecture="maxout",
    steps=250 * EPOCH,
    batch_size=100,
    latent_dim=100,
    generator_hidden=(1200, 1200),
    activation="relu",
    generator_initial_range=0.05,
    optimizer="sgd",
    generator_learning_rate=0.1,
    discriminator_learning_rate=0.05,
    learning_rate_divisor=1.000004,
    momentum=0.5,
    final_momentum=0.7,
    momentum_steps=250 * EPOCH,
    ema_decay=None,
    log_every=EPOCH,
    eval_every=25 * EPOCH,
    sample_every=25 * EPOCH,
    checkpoint_every=5 * EPOCH,
    keep_every=25 * EPOCH,
)

GROUP = "The first GAN: Parzen windows on MNIST"
PAPER = "Goodfellow et al. 2014, Generative Adversarial Nets"
PROTOCOL = (
    "The networks of 2014 (generator 100-1200-1200-784, maxout discriminator with dropout), the first 50,000 images. "
    "Gaussian windows around 10,000 samples, their width the best of ten for 1,000 validation images, mean "
    "log-likelihood in nats of the 10,000 test images; of the checkpoints so far the one likeliest for the validation "
    "images. "
)
PUBLISHED = (Published("Parzen", 225.0, standard_error=2.0, within=10.0, better="higher"),)

reproduction = Reproduction(
    title="GAN, gradient descent as in the paper",
    group=GROUP,
    paper=PAPER,
    where="table 1",
    protocol=PROTOCOL + "Gradient descent with momentum as in the paper's code, the generator's last weights.",
    published=PUBLISHED,
    epoch=EPOCH,
    milestones=(5, 25, 50, 75, 100, 125, 150, 175, 200, 225, 250),
    measure=Parzen(checkpoints="kept"),
)
