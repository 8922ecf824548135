"""Warnings of collapse, in words: what was seen, what it means, and what to try.

A warning is a pure function of one evaluation and of the log's last row, so that a resumed run says what an
uninterrupted one says. docs/collapse.md has the measurements behind each threshold.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from jaxgen import losses
from jaxgen.gan import GAN
from jaxgen.tokenizer import LARGEST_WEIGHT, Tokenizer
from jaxgen.vae import VAE

SATURATION = 0.02  # of an undecided discriminator's loss
GAN_DIVERSITY = 0.05  # of the data's
VAE_DIVERSITY = 0.01
KL = 0.2  # nats
ACTIVE_UNITS = 3  # of a layer, or a quarter of it where that is fewer
EARLY = 1000  # steps before which a VAE's upper layers are not awake, and its samples all alike
FIRST_OF_GAN = 100  # step before which no healthy run was looked at
FIRST_OF_KL = 50
REMEMBERED = 0.05  # of the untrained generator in a moving average, above which its samples may be all alike
_UNDECIDED = (0.0, 0.5)  # outputs of an undecided discriminator: 1/2 is least squares', 0 the other losses'
_FOREVER = 2**31 - 1  # a step by which every schedule has ended
_DIFFERENCES = (losses.relativistic_discriminator_loss, losses.relativistic_average_discriminator_loss)


def _share_left(loss: losses.PairLoss, real_logit: float, fake_logit: float) -> float | None:
    """A loss at two logits over the least of an undecided discriminator's; None for one that says nothing of it."""

    def at(real: float, fake: float) -> float:
        return float(loss(jnp.asarray([real], jnp.float32), jnp.asarray([fake], jnp.float32))[0])

    undecided = min(at(output, output) for output in _UNDECIDED)
    return at(real_logit, fake_logit) / undecided if undecided > 0.0 else None


def saturation(gan: GAN | Tokenizer, row: Mapping[str, float]) -> float | None:
    """What is left of an undecided discriminator's loss at the mean logits: 1 at equilibrium, 0 when it has won.

    loss(real_logit, fake_logit) / min_c loss(c, c),  the logits those of a row of means of the training metrics

    Logits of the hinge loss, which is flat where healthy discriminators are, are read as log-odds, by the binary
    cross-entropy; so are those of relativistic losses, which fix only their difference: half of it on either side.
    None for a loss that says nothing of it (Wasserstein's is a distance), or a row without logits.
    """
    if not {"real_logit", "fake_logit"} <= set(row):
        return None
    loss, real, fake = gan.loss.discriminator, row["real_logit"], row["fake_logit"]
    if loss in _DIFFERENCES:
        real, fake = (real - fake) / 2.0, (fake - real) / 2.0
    if loss in (*_DIFFERENCES, losses.hinge_discriminator_loss):
        loss = losses.binary_discriminator_loss
    return _share_left(loss, real, fake)


def _try(*remedies: str | None) -> str:
    """A list of remedies in words."""
    given = [remedy for remedy in remedies if remedy is not None]
    return "try " + (", ".join(given[:-1]) + " or " if len(given) > 1 else "") + given[-1]


def _recipes(gan: GAN) -> list[str]:
    """The named configurations for colour pictures whose losses and networks the spec has not got; docs/results.md."""
    *size, channels = getattr(gan.generator, "image_shape", (1,))
    if len(size) != 2 or channels != 3:
        return []
    like_r3gan = gan.loss.discriminator in _DIFFERENCES and bool(gan.penalties)
    like_dcgan_64 = gan.loss is losses.hinge and getattr(gan.discriminator, "spectral_norm", False)
    at = "" if size == [64, 64] else f" --image-size {'x'.join(map(str, size))}"
    return [
        f"--config {name}{at}"
        for name, has in (("r3gan", like_r3gan), ("dcgan_64", like_r3gan or like_dcgan_64))
        if not has
    ]


def _gan_remedies(gan: GAN) -> str:
    """What weakens a discriminator or shows it collapse, of what the spec has not got yet and could have."""
    if recipes := _recipes(gan):
        return f"begin again with {' or '.join(recipes)}, made for colour pictures such as one's own"
    makes_images = len(getattr(gan.generator, "image_shape", (1, 1, 1))) == 3
    return _try(
        "a higher --penalty-weight" if gan.penalties else "--penalty r1",
        "--augmentation diffaugment" if gan.augmentation is None and makes_images else None,
        None if gan.packing > 1 else "--packing 2",
        "a higher --dropout-rate",
        "a lower --discriminator-learning-rate",
    )


def _remembered(gan: GAN, step: int) -> float:
    """The share of the untrained generator in its moving average after so many steps; of a schedule, none is left."""
    return 0.0 if gan.ema_decay is None or callable(gan.ema_decay) else gan.ema_decay**step


def gan_warnings(gan: GAN, row: Mapping[str, float], measured: Mapping[str, float], step: int | None) -> list[str]:
    """What looks like collapse of a GAN, see `jaxgen.families.Family`: a sentence each, with remedies."""
    if step is not None and step < FIRST_OF_GAN:
        return []
    warnings = []
    left = saturation(gan, row)
    if left is not None and left < SATURATION:
        warnings.append(
            f"the discriminator has won: at its mean logits, {row['real_logit']:.3g} for real and "
            f"{row['fake_logit']:.3g} for generated images, {left:.2g} of an undecided one's loss is left (below "
            f"{SATURATION:g}), so the generator learns little from it; {_gan_remedies(gan)}"
        )
    diversity = measured.get("sample_diversity")
    untrained = 0.0 if step is None else _remembered(gan, step)
    if diversity is None or not diversity < GAN_DIVERSITY:
        return warnings
    if untrained > REMEMBERED:
        warnings.append(
            f"the samples look alike, sample_diversity is {diversity:.2g}, but they are of a moving average, "
            f"{untrained:.0%} of which is still the untrained generator: go on, or begin again with --ema-warmup"
        )
    else:
        warnings.append(
            f"the samples are nearly copies of each other: sample_diversity is {diversity:.2g} (below "
            f"{GAN_DIVERSITY:g}; test images have 1), the mark of mode collapse; {_gan_remedies(gan)}"
        )
    return warnings


def _free_bits(vae: VAE) -> str | None:
    if getattr(vae.objective, "path_weights", None) is not None:
        return None  # the spec refuses them
    return "--free-bits 0.1" if vae.free_bits is None else "more --free-bits"


def _vae_remedies(vae: VAE) -> str:
    """What makes a VAE use its latents, of what the spec has not got yet and could have."""
    return _try(
        "a lower --beta",
        None if callable(vae.beta) else "--beta-warmup over the first thousands of steps",
        _free_bits(vae),
        "a smaller --scale" if isinstance(vae.likelihood, losses.Gaussian) else None,
    )


def _upper_remedies(vae: VAE) -> str:
    """The same of a stochastic layer above the first, which warming up the KL does not wake (docs/collapse.md)."""
    return _try(_free_bits(vae), "leaving it out of --upper-latent-dims")


def _layer_sizes(vae: VAE) -> list[tuple[str, str, int]]:
    """(name of the metric, name in words, number of units) of each stochastic layer."""
    sizes = vae.latent_dims
    if len(sizes) == 1:
        return [("active_units", "the latent layer", sizes[0])]
    return [
        ("active_units" if i == 1 else f"active_units_{i}", f"latent layer {i} of {len(sizes)}", size)
        for i, size in enumerate(sizes, 1)
    ]


def _settled(vae: VAE, step: int | None) -> bool:
    """Whether the first steps are over, and the weight of the KL has stopped rising; True where no step is given."""
    if step is None:
        return True
    rising = callable(vae.beta) and float(vae.beta(jnp.int32(step))) < float(vae.beta(jnp.int32(_FOREVER)))
    return step >= EARLY and not rising


def vae_warnings(vae: VAE, _: Mapping[str, float], measured: Mapping[str, float], step: int | None) -> list[str]:
    """What looks like collapse of a VAE, see `jaxgen.families.Family`: a sentence each, with remedies."""
    # Its active units and diversity are not judged while it is young or the weight of its KL is rising.
    kl, diversity = measured.get("test_kl"), measured.get("sample_diversity")
    if step is not None and step < FIRST_OF_KL:
        return []
    if kl is not None and kl < KL:  # the other signs follow from this one
        return [
            f"the posterior has collapsed onto the prior: test_kl is {kl:.2g} nats (below {KL:g}), so the latents say "
            f"nothing of the image; {_vae_remedies(vae)}"
        ]
    if not _settled(vae, step):
        return []
    warnings = []
    for name, words, size in _layer_sizes(vae):
        active, least = measured.get(name), min(ACTIVE_UNITS, -(-size // 4))
        if active is not None and active < least:
            warnings.append(
                f"{words} is hardly used: {name} is {active:.0f} of {size} (fewer than {least}), so the posterior of "
                f"the other units is the same for every image; "
                f"{_vae_remedies(vae) if name == 'active_units' else _upper_remedies(vae)}"
            )
    if diversity is not None and diversity < VAE_DIVERSITY:
        warnings.append(
            f"the samples are copies of each other: sample_diversity is {diversity:.2g} (below {VAE_DIVERSITY:g}; test "
            f"images have 1), so the decoder makes nothing of the latents; {_vae_remedies(vae)}"
        )
    return warnings


CODES_USED = 0.5  # share of all codes
YOUNG = 500  # step before which a codebook is not judged


def _codebook_remedies(spec: Tokenizer) -> str:
    """What brings codes to life, of what the bottleneck has not got yet."""
    kind = spec.bottleneck
    return _try(
        "--codebook average" if getattr(kind, "decay", 0.0) is None else None,
        "--restart-below 1" if getattr(kind, "restart_below", 0.0) is None else None,
        "a smaller --codebook-size" if hasattr(kind, "codebook_size") else "fewer --levels or --bits",
        "--bottleneck fsq" if type(kind).__name__ != "FSQBottleneck" else None,
    )


def tokenizer_warnings(
    spec: Tokenizer, row: Mapping[str, float], measured: Mapping[str, float], step: int | None
) -> list[str]:
    """What goes wrong with a tokenizer, see `jaxgen.families.Family`: a sentence each, with remedies."""
    warnings = []
    used = measured.get("test_codes_used")
    if used is not None and used < CODES_USED and (step is None or step >= YOUNG):
        warnings.append(
            f"most codes are dead: {used:.0%} of {spec.bottleneck.num_codes} occur in the test images (below "
            f"{CODES_USED:.0%}), so an image says less than its {spec.bottleneck.num_codes} codes could; "
            f"{_codebook_remedies(spec)}"
        )
    active = measured.get("test_active_channels")
    channels = spec.latent_shape[2]
    if active is not None and active < channels and (step is None or step >= YOUNG):
        warnings.append(
            f"only {active:.0f} of {channels} latent channels vary from image to image, the others say nothing; try a "
            "lower --kl-weight or fewer --channels"
        )
    plays = spec.discriminator is not None and step is not None and step > spec.adversarial_start + FIRST_OF_GAN
    left = saturation(spec, row) if plays else None
    if left is not None and left < SATURATION:
        warnings.append(
            f"the discriminator has won: at its mean logits, {row['real_logit']:.3g} for images and "
            f"{row['fake_logit']:.3g} for reconstructions, {left:.2g} of an undecided one's loss is left (below "
            f"{SATURATION:g}); {_try('--penalty r1', '--lecam-weight 0.001', 'a lower --discriminator-learning-rate')}"
        )
    factor = row.get("adaptive_weight")
    if plays and factor is not None and factor >= 0.9 * LARGEST_WEIGHT:
        warnings.append(
            f"the adaptive weight is at its bound, {factor:.3g}: the discriminator says nothing to the decoder's last "
            "layer; try a later --adversarial-start, --loss non_saturating or --no-adaptive-weight"
        )
    return warnings
