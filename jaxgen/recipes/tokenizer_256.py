"""A tokenizer of pictures of 256 x 256 of one's own, for a GPU: the networks of Stable Diffusion's AutoencoderKL.

    jaxgen train tokenizer --config tokenizer_256 --dataset folder:my/pictures --perceptual vgg:vgg16.safetensors

Latents are 32 x 32 x 4. The recipe is that of Esser et al. 2021 and Rombach et al. 2022: hinge loss, adaptive weight,
the discriminator from step 50,000 on. Nobody has run it here: no number is claimed.
"""

from jaxgen.cli.tokenizer_options import TokenizerOptions

options = TokenizerOptions(
    image_size=256,
    color="rgb",
    steps=250_000,
    batch_size=12,
    bottleneck="kl",
    channels=4,
    kl_weight=1e-6,
    factor=8,
    width=128,
    multipliers=(1, 2, 4, 4),
    blocks=2,
    decoder_blocks=3,
    middle="attention",
    projection=True,
    discriminator_width=64,
    discriminator_layers=3,
    discriminator_normalization="batch",
    dtype="auto",
    reconstruction_weight=1.0,
    adversarial_weight=0.5,
    adversarial_start=50_000,
    adaptive_weight=True,
    learning_rate=4.5e-6 * 12,
    discriminator_learning_rate=4.5e-6 * 12,
    b1=0.5,
    b2=0.9,
    ema_decay=0.999,
    flip=True,
)
