"""DRAFT."""

from experiments.options import VAEOptions

EPOCH = 60_000 // 20  # steps
ENDS = tuple((3 ** (i + 1) - 1) // 2 * EPOCH for i in range(8))
RATES = tuple(1e-3 * 10 ** (-i / 7) for i in range(8))

options = VAEOptions(
    dataset="mnist",
    binarization="dynamic",
    steps=ENDS[-1],
    batch_size=20,
    latent_dim=50,
    hidden=(200, 200),
    activation="tanh",
    objective="sampled_elbo",
    num_samples=1,
    learning_rate=RATES[0],
    learning_rate_boundaries=ENDS[:-1],
    later_learning_rates=RATES[1:],
    epsilon=1e-4,
    log_every=EPOCH,
    eval_every=10_000 * EPOCH,
    sample_every=10_000 * EPOCH,
    checkpoint_every=20 * EPOCH,
)
