"""Warnings of collapse, in words: what was seen, what it means, and what to try.

A warning is a pure function of one evaluation and of the log's last row, so that a resumed run says what an
uninterrupted one says. docs/collapse.md has the measurements behind each threshold.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from jaxgen.gan import GAN
from jaxgen.training.run import Spec
from jaxgen.vae import VAE

SATURATION = 0.05  # of an undecided discriminator's loss
DIVERSITY = 0.25  # of the data's
KL = 0.2  # nats
ACTIVE_SHARE = 0.04  # of a layer's units
_UNDECIDED = (0.0, 0.5)  # outputs of an undecided discriminator: 1/2 is least squares', 0 the other losses'


def _loss_at(gan: GAN, real_logit: float, fake_logit: float) -> float:
    return float(gan.loss.discriminator(jnp.float32([real_logit]), jnp.float32([fake_logit]))[0])


def undecided_loss(gan: GAN) -> float:
    """The loss of the best discriminator that says the same of every image.

    min_c loss.discriminator(c, c): 2 log 2 of the cross-entropy, 1/4 of least squares, 2 of hinge, log 2 of the
    relativistic loss, 0 of Wasserstein's

    Args:
      gan: the spec; no arrays [] are involved but its loss's.

    Returns:
      The loss.
    """
    return min(_loss_at(gan, output, output) for output in _UNDECIDED)


def saturation(gan: GAN, row: Mapping[str, float]) -> float | None:
    """What is left of an undecided discriminator's loss at the mean logits: about 1 at equilibrium, 0 when it has won.

    loss.discriminator(real_logit, fake_logit) / min_c loss.discriminator(c, c)

    The losses being convex, that is at most the share that is left of the mean loss.

    Args:
      gan: the spec.
      row: means of the training metrics, numbers by name.

    Returns:
      The share, or None for a loss that says nothing of it (Wasserstein's is a distance), or a row without logits.
    """
    if not {"real_logit", "fake_logit"} <= set(row):
        return None
    undecided = undecided_loss(gan)
    if undecided <= 0.0:
        return None
    return _loss_at(gan, row["real_logit"], row["fake_logit"]) / undecided


def _try(*remedies: str | None) -> str:
    """A list of remedies in words."""
    given = [remedy for remedy in remedies if remedy is not None]
    return "try " + (", ".join(given[:-1]) + " or " if len(given) > 1 else "") + given[-1]


def _gan_remedies(gan: GAN) -> str:
    """What weakens a discriminator or shows it collapse, of what the spec has not got yet."""
    return _try(
        None if gan.penalties else "--penalty r1",
        None if gan.augmentation is not None else "--augmentation diffaugment",
        None if gan.packing > 1 else "--packing 2",
        "a higher --dropout-rate",
        "a lower --discriminator-learning-rate",
    )


def _gan_warnings(gan: GAN, row: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    warnings = []
    left = saturation(gan, row)
    if left is not None and left < SATURATION:
        warnings.append(
            f"the discriminator has won: at its mean logits, {row['real_logit']:.3g} for real and "
            f"{row['fake_logit']:.3g} for generated images, {left:.2g} of an undecided one's loss is left (below "
            f"{SATURATION:g}), so the generator learns little from it; {_gan_remedies(gan)}"
        )
    diversity = measured.get("sample_diversity")
    if diversity is not None and diversity < DIVERSITY:
        warnings.append(
            f"the samples are nearly copies of each other: sample_diversity is {diversity:.2g} (below {DIVERSITY:g}; "
            f"test images have 1), the mark of mode collapse; {_gan_remedies(gan)}"
        )
    return warnings


def _vae_remedies(vae: VAE) -> str:
    """What makes a VAE use its latents, of what the spec has not got yet."""
    return _try(
        "a lower --beta" if callable(vae.beta) or vae.beta > 0.0 else None,
        None if callable(vae.beta) else "--beta-warmup over the first thousands of steps",
        "--free-bits 0.1" if vae.free_bits is None else "more --free-bits",
        "a likelihood with less noise (a smaller --scale) if it is gaussian",
    )


def _layer_sizes(vae: VAE) -> list[tuple[str, str, int]]:
    """(name of the metric, name in words, number of units) of each stochastic layer."""
    sizes = vae.latent_dim if isinstance(vae.latent_dim, tuple) else (vae.latent_dim,)
    if len(sizes) == 1:
        return [("active_units", "the latent layer", sizes[0])]
    return [
        ("active_units" if i == 1 else f"active_units_{i}", f"latent layer {i} of {len(sizes)}", size)
        for i, size in enumerate(sizes, 1)
    ]


def _vae_warnings(vae: VAE, row: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    warnings = []
    kl, diversity = measured.get("test_kl"), measured.get("sample_diversity")
    collapsed = kl is not None and kl < KL
    if collapsed:
        warnings.append(
            f"the posterior has collapsed onto the prior: test_kl is {kl:.2g} nats (below {KL:g}), so the latents "
            f"say nothing of the image; {_vae_remedies(vae)}"
        )
    for name, words, size in _layer_sizes(vae):
        active = measured.get(name)
        if not collapsed and active is not None and active < ACTIVE_SHARE * size:
            warnings.append(
                f"{words} is unused: {name} is {active:.0f} of {size} (below {ACTIVE_SHARE:g} of them), the others' "
                f"posterior means do not depend on the image; {_vae_remedies(vae)}"
            )
    if not collapsed and diversity is not None and diversity < DIVERSITY:
        warnings.append(
            f"the samples are nearly copies of each other: sample_diversity is {diversity:.2g} (below {DIVERSITY:g}; "
            f"test images have 1), the decoder makes little of the latents; {_vae_remedies(vae)}"
        )
    return warnings


def collapse_warnings(spec: Spec, row: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """What looks like collapse in one evaluation, each in words with remedies as options of ``train.py``.

    Args:
      spec: the GAN or VAE.
      row: means of the training metrics since the log's last row, numbers by name; empty when there are none.
      measured: what the evaluation of the state found, numbers by name. A name that is missing, or a number that is
        not one, is passed over.

    Returns:
      One or two sentences each; none for a healthy run.
    """
    return _gan_warnings(spec, row, measured) if isinstance(spec, GAN) else _vae_warnings(spec, row, measured)
