"""pythae's VampPrior of 500 pseudo-inputs on fixed binarised MNIST (Tomczak & Welling 2018).

Published numbers: NLL-5000 85.79. Reached: -ELBO 261.35 after 0.4 of 2000 epochs, in 15 s of training on AMD EPYC
(family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py pythae_vamp
"""

from experiments.options import VAEOptions
from experiments.reproduction import Published, Reproduction
from experiments.reproduction_measures import NegativeELBO, NegativeLogLikelihood

EPOCH = 50_000 // 100  # steps
MILESTONES = (200, 350, 500, 750, 1000)

options = VAEOptions(
    dataset="binarized_mnist",
    test_split="validation",
    steps=2000 * EPOCH,
    batch_size=100,
    latent_dim=40,
    hidden=(300, 300),
    activation="glu",
    initialization="he",
    logvar_bounds=(-6.0, 2.0),
    prior="vamp",
    num_pseudo_inputs=500,
    beta_warmup=100 * EPOCH,
    optimizer="rmsprop",
    learning_rate=1e-4,
    learning_rate_boundaries=tuple(epoch * EPOCH for epoch in MILESTONES),
    later_learning_rates=tuple(1e-4 * 10 ** (-0.2 * (i + 1)) for i in range(len(MILESTONES))),
    log_every=EPOCH,
    eval_every=10 * EPOCH,
    checkpoint_every=10 * EPOCH,
    sample_every=500 * EPOCH,
)

reproduction = Reproduction(
    title="VampPrior, 500 pseudo-inputs, 40 latents",
    group="pythae's models on fixed binarised MNIST",
    paper="Chadebec et al. 2022, pythae",
    where="the table of reproduced results in examples/scripts/reproducibility, after Tomczak & Welling 2018 (85.57)",
    protocol="VampPrior: two gated layers of 300 units on either side of 40 latents, log-variances clipped to [-6, 2], "
    "He's initial weights; RMSprop at 1e-4 and, from epochs 200, 350, 500, 750 and 1000, 10^-0.2 times the rate "
    "before; batches of 100, 2,000 epochs, the weight of the KL rising over the first 100, the model of the best epoch "
    "on the validation split; NLL in nats of the test split with 5,000 importance samples (the negative ELBO on the "
    "way). pythae's pseudo-inputs begin between 0 and 0.09 and share a bias; here they begin near 0.05 and have none, "
    "as in the code of the paper.",
    published=(Published("NLL-5000", 85.79, within=0.3),),
    epoch=EPOCH,
    milestones=(1, 3, 10, 100, 500, 2000),
    measure=NegativeLogLikelihood(5000, checkpoint="best"),
    on_the_way=NegativeELBO(),
)
