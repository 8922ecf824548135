"""The order of examples: a bijection, different every epoch, a pure function of (key, step)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import data


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 60_000])
def test_permute_is_a_bijection(size: int) -> None:
    permute = jax.jit(data.permute, static_argnums=2)
    for seed in range(3):
        elements = permute(jax.random.key(seed), jnp.arange(size), size)
        assert sorted(np.asarray(elements).tolist()) == list(range(size))


def test_every_element_is_equally_likely_at_every_place() -> None:
    size, num = 12, 6000
    keys = jax.random.split(jax.random.key(0), num)
    orders = np.asarray(jax.vmap(lambda key: data.permute(key, jnp.arange(size), size))(keys))
    counts = np.stack([(orders == element).sum(0) for element in range(size)])
    chi_squared = ((counts - num / size) ** 2 / (num / size)).sum()
    freedom = (size - 1) ** 2
    assert abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom)
    follows = np.zeros((size, size))  # and so is every successor of every element
    np.add.at(follows, (orders[:, :-1].ravel(), orders[:, 1:].ravel()), 1)
    expected = num * (size - 1) / (size * (size - 1))
    off_diagonal = follows[~np.eye(size, dtype=bool)]
    chi_squared = ((off_diagonal - expected) ** 2 / expected).sum()
    assert abs(chi_squared - len(off_diagonal)) < 6 * np.sqrt(2 * len(off_diagonal))


def test_an_epoch_shows_every_example_once_and_the_next_another_order(key: jax.Array) -> None:
    indices = jax.jit(data.batch_indices, static_argnums=(2, 3))
    epochs = [np.concatenate([indices(key, e * 10 + t, 50, 5) for t in range(10)]) for e in range(2)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(50))
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_remainder_is_left_out_and_differs_between_epochs(key: jax.Array) -> None:
    seen = [
        frozenset(np.concatenate([data.batch_indices(key, jnp.int32(e * 3 + t), 11, 3) for t in range(3)]).tolist())
        for e in range(6)
    ]
    assert all(len(epoch) == 9 for epoch in seen)
    assert len(set(seen)) > 1


def test_bad_batch_sizes_are_refused(key: jax.Array) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        data.batch_indices(key, jnp.int32(0), 10, 0)
    with pytest.raises(ValueError, match="larger than the data set of 10 images"):
        data.batch_indices(key, jnp.int32(0), 10, 11)
