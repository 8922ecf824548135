"""What only an accelerator can show: skipped where there is none.

JAX_PLATFORMS=cuda python -m pytest -n 0 -p no:cacheprovider tests/test_accelerator.py
"""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import jaxgen
from jaxgen import networks
from jaxgen.networks import convolution
from jaxgen.training import loop
from tests import models

pytestmark = pytest.mark.skipif(jax.default_backend() == "cpu", reason="no accelerator here")

SPECS: dict[str, Any] = {
    "vae": models.vae(num_samples=2),
    "gan": models.gan(),
    "batch_norm_gan": models.batch_norm_gan(),
}


def train(spec: Any, chunks: list[int], key: jax.Array, **options: Any) -> Any:
    training = loop.Loop(partial(models.step(spec), spec), {"image": models.batch(40)["image"]}, key, 16, **options)
    init = partial(models.init, spec)
    state = init(key) if key.ndim == 0 else jax.vmap(init)(key)
    totals = training.zero_totals(state)
    for length in chunks:
        state, totals = training.run(state, totals, length)
    return state, totals


@pytest.mark.parametrize("family", SPECS)
def test_chunks_of_any_length_give_the_same_state(family: str, key: jax.Array) -> None:
    whole = train(SPECS[family], [21], key)
    for chunks in ([1] * 21, [7, 7, 7]):
        chex.assert_trees_all_close(train(SPECS[family], chunks, key), whole, atol=1e-5)


def test_members_together_equal_separate_runs() -> None:
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    with jax.default_matmul_precision("highest"):
        together, _ = train(SPECS["vae"], [5], keys, members="together")
        for number, key in enumerate(keys):
            alone, _ = train(SPECS["vae"], [5], key)
            chex.assert_trees_all_close(jax.tree.map(lambda leaf, n=number: leaf[n], together), alone, atol=1e-4)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 64), (64, 3), (1, 16), (16, 32)])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_equal_those_of_lax(inputs: int, outputs: int, transposed: bool, key: jax.Array) -> None:
    x = jax.random.normal(key, (4, 14, 14, inputs))
    kernel = jax.random.normal(jax.random.fold_in(key, 1), (4, 4, inputs, outputs))
    ours, lax = (
        (convolution.conv_transpose, jax.lax.conv_transpose)
        if transposed
        else (convolution.conv, jax.lax.conv_general_dilated)
    )
    with jax.default_matmul_precision("highest"):

        def value(f: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(f(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))))

        def plain(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **_: Any) -> jax.Array:
            return ours(x, kernel, strides, padding)

        expected = jax.jit(jax.value_and_grad(partial(value, lax), argnums=(0, 1)))(x, kernel)
        got = jax.jit(jax.value_and_grad(partial(value, plain), argnums=(0, 1)))(x, kernel)
        chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-2)


def test_a_bfloat16_dcgan_trains(key: jax.Array) -> None:
    gan = jaxgen.GAN(
        networks.DCGANGenerator((28, 28, 3), width=16, dtype="bfloat16"),
        networks.DCGANDiscriminator(width=16, dtype="bfloat16"),
        optax.adam(2e-4, b1=0.5),
        optax.adam(2e-4, b1=0.5),
        latent_dim=8,
    )
    dataset = {"image": jnp.zeros((40, 28, 28, 3), jnp.uint8)}
    training = loop.Loop(partial(jaxgen.gan_step, gan), dataset, key, 16)
    state = jaxgen.gan_init(gan, key, {"image": dataset["image"][:2]})
    state, totals = training.run(state, training.zero_totals(state), 20)
    assert bool(totals.finite)
    assert jaxgen.gan_sample(gan, state, key, 2).dtype == jnp.float32
