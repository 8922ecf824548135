"""Warnings of collapse: each fires on rigged numbers and none on healthy ones, those of docs/collapse.md."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen
from jaxgen import augmentation, collapse, data, losses, networks, schedules
from jaxgen.evaluation.during_training import Evaluation
from jaxgen.families import family_of
from tests import models

Numbers = dict[str, float]


def gan_row(real_logit: float, fake_logit: float) -> Numbers:
    return {"generator_loss": 1.0, "discriminator_loss": 1.0, "real_logit": real_logit, "fake_logit": fake_logit}


def left(loss: str, real_logit: float, fake_logit: float) -> float | None:
    return collapse.saturation(models.gan(loss=getattr(losses, loss)), gan_row(real_logit, fake_logit))


@pytest.mark.parametrize("loss", ["minimax", "non_saturating", "hinge", "relativistic", "relativistic_average"])
def test_saturation_of_log_odds_by_hand(loss: str) -> None:
    """Undecided at 0; at 2 and -2, 2 log(1 + exp(-2)) of 2 log 2."""
    assert left(loss, 0.0, 0.0) == pytest.approx(1.0)
    assert left(loss, 2.0, -2.0) == pytest.approx(math.log(1 + math.exp(-2)) / math.log(2))


def test_a_relativistic_loss_sees_only_the_difference_of_logits() -> None:
    assert left("relativistic", 102.0, 98.0) == pytest.approx(left("relativistic", 2.0, -2.0))
    assert left("relativistic_average", 4.0, 0.0) == pytest.approx(left("relativistic", 2.0, -2.0))
    ratio = left("non_saturating", 4.0, 0.0)
    assert ratio is not None
    assert ratio > 0.5


def test_saturation_of_other_losses() -> None:
    """Least squares is undecided at 1/2, where it is 1/4; a distance has no such point."""
    assert left("least_squares", 0.5, 0.5) == pytest.approx(1.0)
    assert left("least_squares", 0.9, 0.1) == pytest.approx(0.01 / 0.25)
    assert left("wasserstein", 30.0, -30.0) is None
    assert collapse.saturation(models.gan(), {}) is None


def warnings_of(spec: Any, row: Numbers, measured: Numbers, step: int | None = None) -> list[str]:
    return family_of(spec).collapse(spec, row, measured, step)


def quiet(spec: Any, row: Numbers, **measured: float) -> bool:
    return not warnings_of(spec, row, measured)


def fires(spec: Any, row: Numbers, *words: str, **measured: float) -> str:
    """The only warning there is, with these words in it."""
    (warning,) = warnings_of(spec, row, measured)
    assert all(word in warning for word in words), warning
    return warning


def test_nothing_known_is_nothing_said() -> None:
    for spec in (models.gan(), models.vae(), models.dlgm()):
        assert quiet(spec, {})
        assert quiet(spec, gan_row(math.nan, math.nan), sample_diversity=math.nan, test_kl=math.nan)


def test_remedies_are_what_the_run_has_not_got() -> None:
    row = gan_row(20.0, -20.0)
    plain = fires(models.gan(), row, "--penalty r1", "--augmentation diffaugment", "--packing 2")
    assert "--dropout-rate" in plain
    tried = models.gan(penalties=(losses.R1(),), packing=2, augmentation=augmentation.DiffAugment())
    warning = fires(tried, row, "--discriminator-learning-rate")
    assert not any(option in warning for option in ("--penalty r1", "--augmentation", "--packing"))
    assert "a higher --penalty-weight" in warning
    warned = fires(models.vae(), {}, "--beta-warmup", "--free-bits 0.1", test_kl=0.0)
    assert "more --free-bits" not in warned
    given = models.vae(beta=schedules.Linear(0.0, 1.0, 100), free_bits=0.1)
    assert "--beta-warmup" not in fires(given, {}, "more --free-bits", test_kl=0.0)
    assert "--free-bits" not in fires(models.vae(objective=losses.dreg), {}, "--beta", test_kl=0.0)
    vectors = models.gan(generator=networks.MLPGenerator((2,)))
    assert "--augmentation" not in fires(vectors, row, "--packing 2")


HEALTHY_GANS = [
    ("non_saturating", 2.44, -0.79, 0.73),  # gan, step 300
    ("non_saturating", 0.57, -0.38, 0.85),  # gan, 30,000
    ("non_saturating", 5.69, -0.89, 0.77),  # --dropout-rate 0, 20,000
    ("non_saturating", 1.92, -1.78, 0.17),  # dcgan, 100
    ("non_saturating", 3.38, -3.40, 0.93),  # dcgan without augmentation, 300
    ("hinge", 4.52, -1.82, 0.42),  # dcgan_conditional, 300
    ("least_squares", 0.78, 0.17, 0.74),
    ("relativistic", 2.88, -0.22, 0.73),
    ("wasserstein", 3.19, -1.79, 0.70),
]
WON = [
    ("non_saturating", 5.27, -6.60),  # --generator-learning-rate 1e-2, step 1000
    ("non_saturating", 28.51, -6.46),  # latents hidden from the generator, 3000
    ("least_squares", 0.97, 0.02),  # --generator-learning-rate 1e-2, 3000
    ("relativistic", 2.20, -9.31),  # the same
    ("minimax", 21.33, -4.48),  # --discriminator-learning-rate 2e-3 --dropout-rate 0, 10,000
    ("hinge", 11.78, -11.13),  # dcgan_conditional with BatchNorm in its discriminator, 937
]


@pytest.mark.parametrize(("loss", "real_logit", "fake_logit", "diversity"), HEALTHY_GANS)
def test_healthy_gans_are_passed_over(loss: str, real_logit: float, fake_logit: float, diversity: float) -> None:
    gan = models.gan(loss=getattr(losses, loss))
    assert quiet(gan, gan_row(real_logit, fake_logit), sample_diversity=diversity, test_sliced_wasserstein=0.1)


@pytest.mark.parametrize(("loss", "real_logit", "fake_logit"), WON)
def test_a_discriminator_that_has_won_is_noticed(loss: str, real_logit: float, fake_logit: float) -> None:
    gan = models.gan(loss=getattr(losses, loss))
    fires(gan, gan_row(real_logit, fake_logit), "the discriminator has won", f"{fake_logit:.3g}", sample_diversity=0.8)


@pytest.mark.parametrize("diversity", [0.0, 0.001, 0.006])
def test_collapsed_samples_are_noticed(diversity: float) -> None:
    fires(models.gan(), gan_row(1.0, -1.0), "nearly copies", f"{diversity:.2g}", sample_diversity=diversity)


def test_nothing_is_judged_before_what_healthy_runs_were_looked_at() -> None:
    collapsed, won = {"sample_diversity": 0.006}, gan_row(20.0, -20.0)
    assert [len(warnings_of(models.gan(), won, collapsed, step)) for step in (20, 99, 100)] == [0, 0, 2]
    assert [len(warnings_of(vae_of(16), {}, {"test_kl": 0.0}, step)) for step in (20, 49, 50)] == [0, 0, 1]


def test_a_young_moving_average_is_no_collapse() -> None:
    """A decay of 0.999 leaves 0.999^t of the untrained generator: 37% after 1,000 steps, a twentieth after 2,995."""
    averaged, row, alike = models.gan(ema_decay=0.999), gan_row(1.0, -1.0), {"sample_diversity": 0.032}
    (young,) = warnings_of(averaged, row, alike, 1000)
    assert "37% of which is still the untrained generator" in young
    assert "--ema-warmup" in young
    assert "untrained" in warnings_of(averaged, row, alike, 2994)[0]
    for spec, step in ((averaged, 2995), (averaged, None), (models.gan(ema_decay=schedules.EMAWarmup(0.999)), 100)):
        (collapsed,) = warnings_of(spec, row, alike, step)
        assert "the mark of mode collapse" in collapsed


def test_gans_of_colour_pictures_are_told_of_the_recipes_made_for_them() -> None:
    """Those of docs/results.md, at the pictures' own size, until the spec is like them."""

    def warned(size: tuple[int, int], **fields: Any) -> str:
        generator = networks.DCGANGenerator((*size, 3), 4)
        return fires(models.gan(generator=generator, **fields), gan_row(20.0, -20.0), "has won")

    assert "begin again with --config r3gan or --config dcgan_64, made for colour" in warned((64, 64))
    assert "--config r3gan --image-size 32x48 or --config dcgan_64 --image-size 32x48," in warned((32, 48))
    spectral = networks.DCGANDiscriminator(4, batch_norm=False, spectral_norm=True)
    assert "with --config r3gan, made" in warned((64, 64), loss=losses.hinge, discriminator=spectral)
    like = {"loss": losses.relativistic, "penalties": (losses.R1(), losses.R2())}
    assert "--config" not in warned((64, 64), **like)
    assert "a higher --penalty-weight" in warned((64, 64), **like)
    assert "--config" not in fires(models.gan(), gan_row(20.0, -20.0), "--penalty r1")


def vae_of(*sizes: int, **fields: Any) -> Any:
    """A VAE with layers of these sizes, which nobody calls."""
    spec = models.vae(**fields) if len(sizes) == 1 else models.dlgm(**{"free_bits": None, **fields})
    return dataclasses.replace(spec, latent_dim=sizes if len(sizes) > 1 else sizes[0])


@pytest.mark.parametrize(
    ("sizes", "kl", "active", "diversity"),
    [
        ((16,), 14.6, (9,), 0.66),  # vae
        ((16,), 4.71, (4,), 0.29),  # --likelihood gaussian --scale 1
        ((50,), 22.4, (36,), 0.51),  # binarized_vae
        ((128,), 122.0, (128,), 1.22),  # conv_vae
        ((4,), 8.5, (4,), 1.03),  # vectors
        ((20, 8), 12.3, (20, 7), 0.54),  # --latent-dim 20 --upper-latent-dims 8
        ((100, 50), 24.5, (100, 50), 0.42),  # binarized_two_layers --free-bits 0.1
        ((2,), 3.0, (1,), 0.2),  # too few units to say so
    ],
)
def test_healthy_vaes_are_passed_over(sizes: Any, kl: float, active: Any, diversity: float) -> None:
    names = ("active_units", "active_units_2")
    counts = {name: float(count) for name, count in zip(names, active, strict=False)}
    assert quiet(vae_of(*sizes), {}, test_kl=kl, sample_diversity=diversity, **counts)


def test_a_posterior_on_the_prior_is_noticed_at_once() -> None:
    """--beta 100 and --likelihood gaussian --scale 10, at any step."""
    gaussian = {"likelihood": losses.gaussian(scale=10.0)}
    for kl, fields in ((0.0079, {}), (0.0024, gaussian)):
        measured = {"test_kl": kl, "active_units": 0.0, "sample_diversity": 0.001}
        for step in (100, None):
            (warning,) = warnings_of(vae_of(16, **fields), {}, measured, step)
            assert "the posterior has collapsed onto the prior" in warning
            assert ("--scale" in warning) == bool(fields)


def test_unused_layers_are_noticed_once_the_run_is_not_young() -> None:
    """--beta 20; the upper of binarized_two_layers, asleep at step 100 of any run, and under a small KL weight."""
    fires(vae_of(16), {}, "the latent layer is hardly used", "2 of 16", "lower --beta", test_kl=2.02, active_units=2.0)
    two, numbers = vae_of(100, 50, beta=1.0), {"test_kl": 15.4, "active_units": 100.0, "active_units_2": 2.0}
    fires(two, {}, "latent layer 2 of 2", "2 of 50", "--free-bits 0.1", "--upper-latent-dims", **numbers)
    assert not warnings_of(two, {}, numbers, 100)
    assert len(warnings_of(two, {}, numbers, 1000)) == 1
    warming = vae_of(100, 50, beta=schedules.Linear(0.0, 1.0, 3000))
    assert [len(warnings_of(warming, {}, numbers, step)) for step in (1000, 2999, 3000)] == [0, 0, 1]
    copies = {"test_kl": 5.0, "active_units": 16.0, "sample_diversity": 0.0}
    fires(vae_of(16), {}, "the samples are copies", **copies)
    assert not warnings_of(vae_of(16), {}, copies, 100)


def test_the_documented_thresholds_are_the_codes() -> None:
    """docs/collapse.md is where a warning's number is looked up."""
    page = (Path(__file__).parent.parent / "docs" / "collapse.md").read_text()
    for words in (
        f"below {collapse.SATURATION:g} |",
        f"`sample_diversity` of a GAN | below {collapse.GAN_DIVERSITY:g} |",
        f"`sample_diversity` of a VAE | below {collapse.VAE_DIVERSITY:g} |",
        f"below {collapse.KL:g} nats |",
        f"fewer than {collapse.ACTIVE_UNITS}, or than a quarter",
        f"Before step {collapse.EARLY:,}",
        f"Before step {collapse.FIRST_OF_KL} a VAE's KL is not",
        f"before step {collapse.FIRST_OF_GAN} nothing of a GAN",
        f"step\n{math.ceil(math.log(collapse.REMEMBERED) / math.log(0.999)):,} at a decay of 0.999",
    ):
        assert words in page, words


def mlp_vae(latent_dim: int, beta: float) -> jaxgen.VAE:
    return jaxgen.VAE(
        encoder=networks.MLPEncoder(latent_dim, hidden=(128,)),
        decoder=networks.MLPDecoder((28, 28, 1), hidden=(128,)),
        optimizer=optax.adam(1e-3),
        latent_dim=latent_dim,
        beta=beta,
    )


@functools.partial(jax.jit, static_argnums=0)
def train(vae: jaxgen.VAE, images: jax.Array, key: jax.Array) -> tuple[Any, Any]:
    state = jaxgen.vae_init(vae, key, {"image": images[:1]})

    def step(state: Any, i: jax.Array) -> Any:
        batch = {"image": jax.lax.dynamic_slice_in_dim(images, i % 15 * 128, 128)}
        return jaxgen.vae_step(vae, state, batch, key)

    state, metrics = jax.lax.scan(step, state, jnp.arange(300))
    return state, jax.tree.map(lambda values: values[-100:].mean(), metrics)


@pytest.mark.slow
@pytest.mark.parametrize(("beta", "warnings"), [(1.0, 0), (100.0, 1)])
def test_a_rigged_vae_is_noticed_and_a_healthy_one_is_not(beta: float, warnings: int, key: jax.Array) -> None:
    vae = mlp_vae(8, beta)
    state, row = train(vae, jnp.asarray(data.load()["image"]), key)
    measured, _ = Evaluation(vae, data.load(split="test"), key)(state)
    found = warnings_of(vae, {name: float(value) for name, value in row.items()}, measured)
    assert len(found) == warnings, found
    assert all("the posterior has collapsed" in warning for warning in found)


def evaluate(spec: Any, key: jax.Array, **hyperparams: Any) -> Numbers:
    batch = models.batch(300)
    state = models.init(spec, key)
    state = state._replace(hyperparams={**state.hyperparams, **hyperparams})
    return Evaluation(spec, {name: batch[name] for name in ("image", "label")}, key)(state)[0]


@pytest.mark.parametrize(
    "spec", [models.gan(), models.vae(), models.dcgan(), models.conv_vae()], ids=lambda s: type(s).__name__
)
def test_an_evaluation_measures_diversity_from_the_same_latents(spec: Any, key: jax.Array) -> None:
    """Twice the same; zero where the latents are hidden from the generator, but for what the labels make different."""
    measured = evaluate(spec, key)
    assert measured["sample_diversity"] > 0.0
    assert evaluate(spec, key) == measured
    hidden = evaluate(spec, key, latent_mask=jnp.zeros(models.LATENT_DIM))
    np.testing.assert_allclose(hidden["sample_diversity"], 0.0, atol=1e-6)


@pytest.mark.slow
def test_an_evaluation_counts_active_units_of_each_layer(key: jax.Array) -> None:
    vae = models.dlgm()
    state = models.init(vae, key)
    encoder = list(state.params["encoder"])
    encoder[1] = jax.tree.map(jnp.zeros_like, encoder[1])  # the upper posterior is the same for every image
    encoder[0] = jax.tree.map(lambda leaf: 3.0 * leaf, encoder[0])
    state = state._replace(params={**state.params, "encoder": tuple(encoder)})
    measured, _ = Evaluation(vae, {"image": models.batch(40)["image"]}, key)(state)
    assert (measured["active_units"], measured["active_units_2"]) == (3.0, 0.0)
    fires(vae, {}, "latent layer 2 of 2 is hardly used", **{**measured, "test_kl": 5.0, "sample_diversity": 1.0})


def test_one_test_image_has_no_diversity(key: jax.Array) -> None:
    vae = models.vae()
    measured, _ = Evaluation(vae, {"image": models.batch(1)["image"]}, key)(models.init(vae, key))
    assert not {"sample_diversity", "active_units"} & set(measured)
