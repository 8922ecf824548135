"""What a DCGAN's discriminator has learnt without labels: linear classifiers of its features, of 1,000 labelled digits.

Radford et al. 2016, sections 5.1 and 5.2: all activations of the discriminator, max-pooled to 4 x 4, and a linear
L2-SVM on top, its regularisation chosen on 10,000 validation images, its labels 100 of each class. Published is an
error of 22.48 % on SVHN; here are the digits of MNIST, on which the paper says nothing of the kind, so that its number
stands beside as context. What is to be seen here is whether the features are better than the pixels, and than those of
the same network before it has learnt.

Published numbers: error 22.48 (of SVHN). Reached: error 6.09 after 5 of 5 epochs, in 3 min of training on AMD EPYC
(family 25, model 17, stepping 1), 1 core.

    uv run experiments/reproduce.py radford_features
    uv run jaxgen explore interpolate runs/reproductions/radford_features --out walk

The second makes walks between latents (section 6.1), as a picture and a film; samples are in the run's folder samples.
The network is smaller than the paper's: 28 x 28 pixels and 32 channels make two layers and 1,536 features, where the
paper has three layers of 32 x 32 pixels; it learns for 5 epochs, not 200, at 2e-4, not 5e-4. As in the code published
for SVHN, the statistics of BatchNorm are set on real training images alone before the features are taken.

Reached after 5 epochs, with seed 0: an error of 6.09 +- 0.11 % (over 5 draws of labels), of pixels 12.55 +- 0.13 %, of
the network's first weights 7.07 +- 0.18 %. After one epoch it was 9.52 +- 0.10 %: features that have learnt a little
are worse than those that have not.
"""

from experiments.reproduction.gan_measures import LinearFeatures
from experiments.reproduction.protocol import Published, Reproduction
from jaxgen.cli.gan_options import DCGANOptions

EPOCH = 50_000 // 64  # steps

options = DCGANOptions(
    dataset="mnist",
    train_split="train[:50000]",
    steps=5 * EPOCH,
    batch_size=64,
    width=32,
    latent_dim=100,
    ema_warmup=True,
    log_every=EPOCH // 11,
    eval_every=5 * EPOCH,
    sample_every=EPOCH,
    checkpoint_every=EPOCH,
)

reproduction = Reproduction(
    title="DCGAN's features, MNIST, 1,000 labels",
    group="Linear classifiers on a discriminator's features",
    paper="Radford, Metz & Chintala 2016, Unsupervised Representation Learning with Deep Convolutional Generative "
    "Adversarial Networks",
    where="section 5.2, table 2",
    protocol="A DCGAN learns 50,000 digits without labels. All activations of its discriminator, max-pooled to 4 x 4, "
    "go into linear L2-SVMs of 100 labelled images of each class (5 draws), C chosen on the 10,000 validation images; "
    "error of the 10,000 test images in per cent. The paper's number is of SVHN, which is another and harder set: "
    "context, no target. Beside it the same SVMs on the pixels, and on the features of the network's first weights.",
    published=(Published("error", 22.48, source="of SVHN"),),
    epoch=EPOCH,
    milestones=(1, 5),
    measure=LinearFeatures(draws=5),
)
