"""One stochastic layer on fixed binarised MNIST: 200-200 tanh units, 50 latents, Adam 1e-3, batches of 100."""

from experiments.options import VAEOptions

EPOCH = 500  # steps

options = VAEOptions(
    dataset="binarized_mnist",
    steps=20 * EPOCH,
    batch_size=100,
    eval_every=5 * EPOCH,
    log_every=EPOCH,
    checkpoint_every=5 * EPOCH,
    sample_every=20 * EPOCH,
    latent_dim=50,
    hidden=(200, 200),
    activation="tanh",
    learning_rate=1e-3,
    log_likelihood_samples=500,
)
