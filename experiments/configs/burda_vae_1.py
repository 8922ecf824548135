"""Burda et al. 2016, Table 1: the VAE of one stochastic layer, one sample an image (there VAE and IWAE are the same).

Published numbers: NLL-5000 86.76. Reached: NLL-5000 86.90 after 3280 of 3280 epochs, in 2 h 57 min of training on AMD
EPYC (family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py burda_vae_1
"""

import dataclasses

from experiments.options import VAEOptions
from experiments.reproduction import Published, Reproduction
from experiments.reproduction_measures import NegativeLogLikelihood

EPOCH = 60_000 // 20  # steps
STAGES = tuple((3 ** (i + 1) - 1) // 2 for i in range(8))  # their ends, in epochs: stage i has 3^i
RATES = tuple(1e-3 * 10 ** (-i / 7) for i in range(8))

options = VAEOptions(
    dataset="mnist",
    binarization="dynamic",
    steps=STAGES[-1] * EPOCH,
    batch_size=20,
    latent_dim=50,
    hidden=(200, 200),
    activation="tanh",
    objective="sampled_elbo",
    num_samples=1,
    learning_rate=RATES[0],
    learning_rate_boundaries=tuple(stage * EPOCH for stage in STAGES[:-1]),
    later_learning_rates=RATES[1:],
    epsilon=1e-4,
    log_every=EPOCH,
    eval_every=STAGES[-1] * EPOCH,
    sample_every=STAGES[-1] * EPOCH,
    checkpoint_every=10 * EPOCH,
)

reproduction = Reproduction(
    title="VAE = IWAE, one layer, k = 1",
    group="Importance weighted autoencoders on MNIST",
    paper='Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders"',
    where="Table 1",
    protocol="MNIST, its 60,000 training images binarised anew at every fetch; 200-200 tanh units under 50 latents, "
    "or, of two layers, 100 latents under 100-100 tanh units under 50; Adam (0.9, 0.999, 1e-4), batches of 20, eight "
    "stages of 3^i epochs at a learning rate of 1e-3 x 10^(-i/7), 3,280 epochs in all. NLL in nats of the 10,000 test "
    "images, binarised once, with 5,000 importance samples each (500 on the way there). Not the paper's: biases start "
    "at zero and weights at LeCun's normal (theirs: the data's marginals, Glorot's uniform); their code keeps 400 of "
    "the training images back.",
    published=(Published("NLL-5000", 86.76, within=0.3),),
    epoch=EPOCH,
    milestones=STAGES,
    measure=NegativeLogLikelihood(5000),
    on_the_way=NegativeLogLikelihood(500),
)
"""The other rows of the table are variants of this one."""


def variant(title: str, published: Published, **changes: object) -> tuple[VAEOptions, Reproduction]:
    """The options and the reproduction of another cell of the table."""
    changed = dataclasses.replace(options, **changes)  # type: ignore[arg-type]
    return changed, dataclasses.replace(reproduction, title=title, published=(published,))
