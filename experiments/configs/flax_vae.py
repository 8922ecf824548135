"""The curve of Flax's VAE example: 784-500-20 units, ReLU, Adam 1e-3, batches of 128, fixed binarised MNIST.

Published (google/flax, pull request 1361): test -ELBO of 119.7 nats after epoch 1, 103.6 after 10, 101.5 after 21.

Reached (seed 0, one latent sample an image, the whole test set):

    epoch            1      5     10     15     21
    -ELBO, nats  120.17 105.96 103.15 101.96 101.20

(another order of the examples: 119.61 after epoch 1, 101.43 after 21) in 101 s on one core of an Intel Xeon (Sapphire
Rapids) virtual machine, jax 0.10.2, from the set as an .npz file, by

    uv run experiments/train.py vae --config flax_vae

An epoch is 390 batches: the last 80 of the 50,000 images wait for another one. The set is prepared on first use, which
needs ``uv run --extra tensorflow ...`` once; without a network, ``--manual-dir`` with the three .amat files.
"""

from experiments.options import VAEOptions

options = VAEOptions(
    dataset="binarized_mnist",
    steps=21 * 390,
    batch_size=128,
    eval_every=390,
    log_every=78,
    checkpoint_every=1950,
    sample_every=1950,
    latent_dim=20,
    hidden=(500,),
    activation="relu",
    learning_rate=1e-3,
)
