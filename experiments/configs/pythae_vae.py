"""DRAFT."""

from experiments.options import VAEOptions

EPOCH = 50_000 // 100  # steps

options = VAEOptions(
    dataset="binarized_mnist",
    test_split="validation",
    steps=500 * EPOCH,
    batch_size=100,
    latent_dim=40,
    hidden=(400,),
    activation="relu",
    learning_rate=1e-4,
    learning_rate_boundaries=(200 * EPOCH, 350 * EPOCH),
    later_learning_rates=(1e-4 * 10**-0.2, 1e-4 * 10**-0.4),
    log_every=5 * EPOCH,
    eval_every=5 * EPOCH,
    sample_every=500 * EPOCH,
    checkpoint_every=50 * EPOCH,
)
