"""Five errors of a widely copied introduction to GANs and VAEs, one test each.

They were found by reading; what each does to a model stands in its test's docstring.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import losses, networks
from tests import models


def test_discriminators_return_logits_not_probabilities() -> None:
    """(i) A sigmoid's output is fed to a cross-entropy that applies another one.

    The loss then never sees a probability outside [0.5, 0.73]: a perfect discriminator still pays 0.31 nats for each
    real image, and its gradient all but vanishes. Here the networks return logits, and the losses take them.
    """
    discriminator = networks.MLPDiscriminator(hidden=(8,))
    x = 1e3 * jax.random.normal(jax.random.key(1), (64, 4))
    variables = discriminator.init(jax.random.key(0), x, train=False)
    logits = np.asarray(discriminator.apply(variables, x, train=False))
    assert float(logits.min()) < 0.0 or float(logits.max()) > 1.0
    certain = jnp.array([40.0])
    np.testing.assert_allclose(losses.non_saturating.discriminator(certain, -certain), [0.0], atol=1e-6)


def test_kl_and_reconstruction_are_both_sums() -> None:
    """(ii) The KL is averaged over dimensions while the reconstruction is summed over pixels.

    That is a beta of 1/D: the prior hardly counts, samples are noise and the "ELBO" is no bound. Here doubling the
    dimensions doubles both terms.
    """
    mean, logvar = jnp.ones((3, 5)), jnp.full((3, 5), -0.5)
    twice = losses.gaussian_kl(jnp.tile(mean, 2), jnp.tile(logvar, 2))
    np.testing.assert_allclose(twice, 2 * losses.gaussian_kl(mean, logvar), rtol=1e-6)
    parameters, x = jnp.full((3, 5), 0.3), jnp.full((3, 5), 0.9)
    twice = losses.bernoulli.log_prob(jnp.tile(parameters, 2), jnp.tile(x, 2))
    np.testing.assert_allclose(twice, 2 * losses.bernoulli.log_prob(parameters, x), rtol=1e-6)


def test_the_decoder_is_trained_on_the_encoders_sample(key: jax.Array) -> None:
    """(iii) While training, fresh noise is decoded instead of z = mean + std * noise.

    The encoder then gets no gradient from the reconstruction, and the decoder learns the mean image. Here the
    reconstruction's gradient reaches the encoder's mean, and images far apart are reconstructed apart.
    """
    vae = models.vae(beta=0.0)  # with no KL, every gradient comes from the reconstruction
    state = models.init(vae, key)
    gradient = jax.grad(lambda p: jaxgen.vae_loss(vae, p, state, models.batch(), key)[0])(state.params)
    assert float(jnp.abs(gradient["encoder"]["mean"]["kernel"]).max()) > 1e-3
    assert float(jnp.abs(gradient["encoder"]["logvar"]["kernel"]).max()) > 1e-4


def test_the_optimal_discriminator_has_both_densities_below() -> None:
    """(iv) The optimal discriminator is written as p_data / p_g, which is no probability.

    It is p_data / (p_data + p_g), and one half where the two agree.
    """
    p_data, p_generator = jnp.array([0.2, 0.5, 0.9]), jnp.array([0.2, 0.1, 0.3])
    logit = losses.optimal_discriminator_logit(jnp.log(p_data), jnp.log(p_generator))
    np.testing.assert_allclose(jax.nn.sigmoid(logit), p_data / (p_data + p_generator), rtol=1e-6)
    np.testing.assert_allclose(jax.nn.sigmoid(logit[0]), 0.5, rtol=1e-6)

    def value(logit: jax.Array) -> jax.Array:  # the game's value at each point, which D* maximises
        return p_data * jax.nn.log_sigmoid(logit) + p_generator * jax.nn.log_sigmoid(-logit)

    np.testing.assert_allclose(jax.grad(lambda d: value(d).sum())(logit), np.zeros(3), atol=1e-6)
    for offset in (-0.1, 0.1):
        assert (value(logit) > value(logit + offset)).all()


@pytest.mark.parametrize("make", [models.gan, models.batch_norm_gan])
def test_the_discriminator_is_shown_real_images(key: jax.Array, make: Callable[[], jaxgen.GAN]) -> None:
    """(v) The training loop never shows the discriminator a real image.

    It then learns to call everything fake, and the generator learns nothing about the data. Here other real images
    make another discriminator, and the fakes of the same step are the same.
    """
    gan = make()
    state = models.init(gan, key)
    black = {"image": np.zeros((16, *models.IMAGE_SHAPE), np.uint8)}
    white = {"image": np.full((16, *models.IMAGE_SHAPE), 255, np.uint8)}
    seen = [jaxgen.gan_step(gan, state, b, key) for b in (black, white)]
    kernels = [jax.tree.leaves(s.discriminator_params) for s, _ in seen]
    assert any(not np.allclose(a, b) for a, b in zip(*kernels, strict=True))
    assert float(seen[0][1]["real_logit"]) != float(seen[1][1]["real_logit"])
    np.testing.assert_array_equal(
        jaxgen.gan_fakes(gan, state.generator_params, state, black, key)[0],
        jaxgen.gan_fakes(gan, state.generator_params, state, white, key)[0],
    )
