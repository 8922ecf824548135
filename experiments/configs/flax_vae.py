"""The curve of Flax's VAE example: 784-500-20 units, ReLU, Adam 1e-3, batches of 128, fixed binarised MNIST.

Published (google/flax, pull request 1361): test -ELBO of 119.7 nats after epoch 1, 103.6 after 10, 101.5 after 21.

Published numbers: -ELBO 119.7 after 1 epochs; -ELBO 103.6 after 10 epochs; -ELBO 101.5 after 21 epochs. Reached: -ELBO
101.38 +- 0.05 after 21 of 21 epochs, 5 of 5 seeds, in 16 min of training on AMD EPYC (family 25, model 17, stepping
1), 1 core.

    uv run experiments/reproduce.py flax_vae

An epoch is 390 batches: the last 80 of the 50,000 images wait for another one. The set is prepared on first use, which
needs ``uv run --extra tensorflow ...`` once; without a network, ``--manual-dir`` with the three .amat files.
"""

from experiments.reproduction.protocol import Published, Reproduction
from experiments.reproduction.vae_measures import NegativeELBO
from jaxgen.cli.vae_options import MLPVAEOptions

EPOCH = 390  # steps

options = MLPVAEOptions(
    dataset="binarized_mnist",
    steps=21 * EPOCH,
    batch_size=128,
    eval_every=21 * EPOCH,
    log_every=78,
    checkpoint_every=1950,
    sample_every=1950,
    latent_dim=20,
    hidden=(500,),
    activation="relu",
    learning_rate=1e-3,
)

reproduction = Reproduction(
    title="VAE, 20 latents",
    group="Flax's VAE example",
    paper="Flax's VAE example",
    where="the log in pull request 1361 of google/flax",
    protocol="Fixed binarised MNIST, 784-500-20 units, ReLU, Adam 1e-3, batches of 128; -ELBO in nats on the test "
    "split with one latent sample an image, mean of 5 seeds trained as one population.",
    published=(
        Published("-ELBO", 119.7, epoch=1, within=1.0),
        Published("-ELBO", 103.6, epoch=10, within=1.0),
        Published("-ELBO", 101.5, epoch=21, within=1.0),
    ),
    epoch=EPOCH,
    milestones=(1, 10, 21),
    measure=NegativeELBO(),
    seeds=5,
)
