"""A relativistic GAN with R1 and R2 of a tokenizer's latents: what ``jaxgen train gan --latents RUN`` begins from.

    jaxgen train tokenizer --config tokenizer_kl
    jaxgen train gan --latents runs/tokenizer-001

After 6,000 steps (``--steps 6000 --burn-in 6000 --dtype bfloat16``, one seed, 18 minutes on two cores of a Zen 4)
FD-LeNet of 1,000 samples 26.6, of 5,000 21.9: docs/second_stage.md.

Losses and penalties as of Huang et al. 2024, "The GAN is dead; long live the GAN!", networks without normalisation.
"""

from jaxgen.cli.gan_options import GridGANOptions

options = GridGANOptions(
    steps=8000,
    loss="relativistic",
    penalty="r1_r2",
    penalty_weight=0.5,
    b1=0.0,
    b2=0.99,
    generator_learning_rate=5e-4,
    discriminator_learning_rate=5e-4,
    final_learning_rate_factor=0.1,
    burn_in=8000,
    ema_warmup=True,
)
