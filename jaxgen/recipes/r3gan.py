"""A small relativistic GAN with R1 and R2 in the manner of R3GAN, for one's own colour images at 64 x 64.

    jaxgen train gan --config r3gan --dataset folder:PATH

Huang et al. 2024, "The GAN is dead; long live the GAN!": the paired relativistic loss, R1 and R2 of one weight, a
discriminator without normalisation, Adam with b1 = 0, and a burn-in along a cosine of learning rate, b2 and weight of
the penalties. The networks are DCGAN's, a tenth of the time of residual ones of half the width (``--architecture
resnet --generator-normalization none``).

Reached with seed 0 on 3,408 emoji in 23 minutes on one core of an Intel Xeon (Sapphire Rapids) virtual machine:
docs/results.md, beside the other two.
"""

import dataclasses

from jaxgen.recipes import dcgan_64

options = dataclasses.replace(
    dcgan_64.options,
    steps=2580,
    discriminator_normalization="none",
    loss="relativistic",
    penalty="r1_r2",
    penalty_weight=10.0,
    final_penalty_weight=1.0,
    b1=0.0,
    b2=0.9,
    final_b2=0.99,
    generator_learning_rate=4e-4,
    discriminator_learning_rate=4e-4,
    final_learning_rate_factor=0.5,
    burn_in=1200,
)
