"""Flax's VAE example: a VAE of 784-500-20 units on binarised MNIST.

(to be filled with the measured curve)
"""

from experiments.options import VAEOptions

options = VAEOptions(
    dataset="binarized_mnist",
    steps=8190,  # 21 epochs of 390 batches
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
