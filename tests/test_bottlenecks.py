"""Bottlenecks of an image tokenizer: codes, latents, losses and gradients by hand, over devices and over seeds."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxgen import metrics, modules, networks, parallel, plain
from jaxgen.keys import AxisName

KEY = jax.random.key(0)
BOTTLENECKS: dict[str, Any] = {
    "kl": networks.KLBottleneck(3, weight=0.1),
    "vq": networks.VQBottleneck(11, 3),
    "vq in space": networks.VQBottleneck(11, 3, normalized=False),
    "vq averaged": networks.VQBottleneck(11, 3, decay=0.5, restart_below=2.0),
    "vq averaged in space": networks.VQBottleneck(11, 3, decay=0.5, restart_below=2.0, normalized=False),
    "fsq": networks.FSQBottleneck((4, 3, 2)),
    "lfq": networks.LFQBottleneck(3, temperature=1.5),
    "lfq in groups": networks.LFQBottleneck(5, temperature=1.5, group_bits=2),
}
QUANTIZED = [name for name in BOTTLENECKS if name != "kl"]


def grid(bottleneck: Any, *, seed: int = 1, num: int = 8) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (num, 2, 3, bottleneck.num_inputs))


def passed(bottleneck: Any, h: Any, *, train: bool = True, params: Any = None, collections: Any = None) -> Any:
    """(Bottled, collections after the call), of a fresh bottleneck where nothing is given."""
    fresh, kept = modules.initialize(bottleneck, KEY, h)
    return modules.apply(bottleneck, params or fresh, collections or kept, h, train=train, key=KEY)


def embedded(bottleneck: Any, codes: Any, variables: Any = None) -> Any:
    return bottleneck.apply(variables or {}, codes, method="embed")


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_what_comes_out(name: str) -> None:
    bottleneck = BOTTLENECKS[name]
    h = grid(bottleneck)
    params, collections = modules.initialize(bottleneck, KEY, h)
    bottled, _ = passed(bottleneck, h.astype(jnp.bfloat16), train=False)
    assert bottled.latents.shape == (8, 2, 3, bottleneck.num_latents)
    assert bottled.loss.shape == (8,)
    numbers = {"kl": {"kl"}, "fs": set(), "vq": {"commitment"}, "lf": {"commitment", "entropy", "batch_entropy"}}
    assert set(bottled.numbers) == numbers[name[:2]]
    floats = (bottled.latents, bottled.loss, *bottled.numbers.values(), *jax.tree.leaves((params, collections)))
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    assert {number.shape for number in bottled.numbers.values()} <= {(8,)}
    if name == "kl":
        assert bottled.codes is bottleneck.num_codes is bottleneck.bits_per_position is None
        return
    assert bottled.codes.shape == (8, 2, 3)
    assert bottled.codes.dtype == jnp.int32
    assert 0 <= int(bottled.codes.min()) <= int(bottled.codes.max()) < bottleneck.num_codes
    assert bottleneck.bits_per_position == pytest.approx(np.log2(bottleneck.num_codes))
    latents = embedded(bottleneck, bottled.codes, {"params": params, **collections})
    np.testing.assert_array_equal(latents, bottled.latents)
    assert plain.from_plain(plain.to_plain(bottleneck)) == bottleneck


# Mentzer et al. 2024: the grids of 8, 5, 3 and 2 levels, divided by floor(L / 2).
GRIDS = {
    8: np.arange(-4, 4) / 4,
    5: np.arange(-2, 3) / 2,
    3: np.arange(-1, 2) / 1,
    2: np.arange(-1, 1) / 1,
}


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3,), (2, 2)])
def test_finite_scalars_reach_every_code_and_no_other(levels: tuple[int, ...]) -> None:
    bottleneck = networks.FSQBottleneck(levels)
    assert bottleneck.num_codes == np.prod(levels)
    assert bottleneck.num_inputs == bottleneck.num_latents == len(levels)
    codes = np.arange(bottleneck.num_codes)
    expected = np.array([digits[::-1] for digits in itertools.product(*(GRIDS[each] for each in reversed(levels)))])
    np.testing.assert_array_equal(embedded(bottleneck, codes), expected)  # the first channel changes fastest
    # Inputs that are bound to the middle of each level, by the inverse of the bounding function.
    half = (np.array(levels) - 1) * 0.999 / 2
    offset = np.where(np.array(levels) % 2 == 1, 0.0, 0.5)
    wanted = np.clip(expected * (np.array(levels) // 2), 1e-3 - half - offset, half - offset - 1e-3)
    h = np.arctanh((wanted + offset) / half) - np.tan(offset / half)
    bottled, _ = passed(bottleneck, jnp.asarray(h[:, None, None], jnp.float32))
    np.testing.assert_array_equal(bottled.codes[:, 0, 0], codes)
    np.testing.assert_array_equal(bottled.latents[:, 0, 0], expected)
    np.testing.assert_array_equal(bottled.loss, 0.0)
    far = jnp.broadcast_to(jnp.array([-1e9, 1e9])[:, None, None, None], (2, 1, 1, len(levels)))
    ends = passed(bottleneck, far)[0].codes
    np.testing.assert_array_equal(ends[:, 0, 0], [0, bottleneck.num_codes - 1])


def test_the_gradient_of_finite_scalars_is_that_of_the_bound() -> None:
    """z = (a tanh(h + s) - o) / floor(L / 2) before the rounding, dz/dh = a (1 - tanh^2) / floor(L / 2)."""
    h = jnp.array([0.3, -0.8, 0.1]).reshape(1, 1, 1, 3)
    gradient = jax.grad(lambda h: jnp.sum(passed(networks.FSQBottleneck((8, 5, 2)), h)[0].latents))(h)
    half, middle = np.array([3.4965, 1.998, 0.4995]), np.array([4.0, 2.0, 1.0])
    shift = np.tan(np.array([0.5, 0.0, 0.5]) / half)
    expected = half * (1 - np.tanh(np.array([0.3, -0.8, 0.1]) + shift) ** 2) / middle
    np.testing.assert_allclose(gradient[0, 0, 0], expected, rtol=1e-5)


def test_signs_by_hand() -> None:
    h = jnp.array([[0.5, -2.0, 1.0], [-0.1, 0.0, 3.0], [-1.0, 0.2, -1.0]]).reshape(1, 1, 3, 3)
    bottleneck = networks.LFQBottleneck(3, commitment=0.25, entropy_weight=0.0)
    bottled, _ = passed(bottleneck, h)
    np.testing.assert_array_equal(bottled.codes[0, 0], [0b101, 0b100, 0b010])
    np.testing.assert_array_equal(bottled.latents[0, 0], [[1, -1, 1], [-1, -1, 1], [-1, 1, -1]])
    squares = [0.25, 1.0, 0.0, 0.81, 1.0, 4.0, 0.0, 0.64, 0.0]
    np.testing.assert_allclose(bottled.numbers["commitment"], [np.mean(squares)], rtol=1e-6)
    np.testing.assert_allclose(bottled.loss, [0.25 * np.mean(squares)], rtol=1e-6)
    gradient = jax.grad(lambda h: jnp.sum(passed(bottleneck, h)[0].latents * h[0, 0, 0, 0]))(h)
    others = np.full((3, 3), 0.5)
    others[0, 0] += np.asarray(bottled.latents).sum()
    np.testing.assert_allclose(gradient[0, 0], others, rtol=1e-6)
    np.testing.assert_array_equal(embedded(networks.LFQBottleneck(31), np.array([2**31 - 1, 0]))[:, 30], [1, -1])


def all_entropies(h: np.ndarray, temperature: float) -> tuple[np.ndarray, float]:
    """(mean H(q) of each image, H(mean of q)) of inputs [B, h, w, bits], by looking at every code."""
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=h.shape[-1])))
    scores = -np.square(h[..., None, :] - signs).sum(-1) / temperature
    q = np.exp(scores - scores.max(-1, keepdims=True))
    q /= q.sum(-1, keepdims=True)

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(np.maximum(p, 1e-300))).sum(-1)

    return entropy(q).mean((1, 2)), float(entropy(q.mean((0, 1, 2))))


@pytest.mark.parametrize(("bits", "temperature"), [(1, 1.0), (5, 3.0), (8, 0.01)])
def test_entropies_are_those_of_all_codes(bits: int, temperature: float) -> None:
    bottleneck = networks.LFQBottleneck(bits, temperature=temperature, diversity=0.7, entropy_weight=0.3)
    h = grid(bottleneck)
    bottled, _ = passed(bottleneck, h)
    entropy, batch_entropy = all_entropies(np.asarray(h, np.float64), temperature)
    np.testing.assert_allclose(bottled.numbers["entropy"], entropy, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bottled.numbers["batch_entropy"], np.full(8, batch_entropy), rtol=1e-5)
    expected = 0.25 * np.asarray(bottled.numbers["commitment"]) + 0.3 * (entropy - 0.7 * batch_entropy)
    np.testing.assert_allclose(bottled.loss, expected, rtol=1e-4)


def test_of_groups_of_bits_the_entropies_are_added() -> None:
    bottleneck = networks.LFQBottleneck(5, temperature=2.0, group_bits=2)
    h = np.asarray(grid(bottleneck), np.float64)
    groups = [h[..., :1], h[..., 1:3], h[..., 3:]]  # as few as there can be of at most two, as even as they may be
    expected = sum(all_entropies(group, 2.0)[1] for group in groups)
    found = passed(bottleneck, grid(bottleneck))[0].numbers
    np.testing.assert_allclose(found["batch_entropy"], np.full(8, expected), rtol=1e-5)
    np.testing.assert_allclose(found["entropy"], all_entropies(h, 2.0)[0], rtol=1e-5)


def test_entropies_of_many_bits_take_little_memory() -> None:
    """2^18 codes of each of 4,096 positions would be 4 GB."""
    bottleneck, h = networks.LFQBottleneck(18), jax.ShapeDtypeStruct((16, 16, 16, 18), jnp.float32)

    def entropy(h: jax.Array) -> jax.Array:
        return jnp.sum(modules.apply(bottleneck, {}, {}, h, train=True, key=KEY)[0].loss)

    memory: Any = jax.jit(jax.grad(entropy)).lower(h).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 200e6


def test_entropy_gradients_against_differences() -> None:
    bottleneck = networks.LFQBottleneck(3, temperature=2.0, entropy_weight=1.0, commitment=0.0)
    h = grid(bottleneck, num=2)
    gradient = jax.grad(lambda h: jnp.sum(passed(bottleneck, h)[0].loss))(h)

    def loss(h: np.ndarray) -> float:
        entropy, batch_entropy = all_entropies(h, 2.0)
        return float((entropy - batch_entropy).sum())

    for place in ((0, 0, 0, 0), (1, 1, 2, 2), (0, 1, 1, 1)):
        step = np.zeros(h.shape)
        step[place] = 1e-4
        exact = np.asarray(h, np.float64)
        expected = (loss(exact + step) - loss(exact - step)) / 2e-4
        np.testing.assert_allclose(gradient[place], expected, rtol=1e-3, atol=1e-5)


CODES = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, -1.0]])
POINTS = np.array([[0.9, 0.2], [0.3, 1.1], [-2.0, 0.1], [0.6, 0.4]])  # nearest: 0, 1, 2, 0


@pytest.mark.parametrize("commitment", [0.25, 2.0])
def test_vector_quantisation_by_hand(commitment: float) -> None:
    """loss = b mean (z - sg(q))^2 + mean (sg(z) - q)^2 over 2 positions x 2 channels of each of two images."""
    bottleneck = networks.VQBottleneck(3, 2, commitment=commitment, normalized=False)
    h, params = jnp.asarray(POINTS, jnp.float32).reshape(2, 1, 2, 2), {"codebook": jnp.asarray(CODES, jnp.float32)}
    nearest = [0, 1, 2, 0]
    difference = POINTS - CODES[nearest]

    def total(params: Any, h: jax.Array) -> jax.Array:
        return jnp.sum(passed(bottleneck, h, params=params)[0].loss)

    bottled, _ = passed(bottleneck, h, params=params)
    np.testing.assert_array_equal(bottled.codes.reshape(-1), nearest)
    np.testing.assert_array_equal(bottled.latents.reshape(-1, 2), CODES[nearest])
    means = np.square(difference).reshape(2, -1).mean(-1)
    np.testing.assert_allclose(bottled.numbers["commitment"], means, rtol=1e-5)
    np.testing.assert_allclose(bottled.loss, (1 + commitment) * means, rtol=1e-5)
    by_codebook, by_h = jax.grad(total, argnums=(0, 1))(params, h)
    np.testing.assert_allclose(by_h.reshape(-1, 2), commitment * 2 * difference / 4, rtol=1e-5)
    pulled = np.zeros((3, 2))
    np.add.at(pulled, nearest, -2 * difference / 4)
    np.testing.assert_allclose(by_codebook["codebook"], pulled, rtol=1e-5)
    still, _ = passed(bottleneck, h, params=params, train=False)
    for found, expected in zip(jax.tree.leaves(still), jax.tree.leaves(bottled), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_vector_quantisation_on_the_sphere_by_hand() -> None:
    """With u = v / |v|, du/dv = (I - u u^T) / |v|: what the losses give by u is brought to inputs and codes."""
    bottleneck = networks.VQBottleneck(3, 2, commitment=0.25)
    params = {"codebook": jnp.asarray(CODES, jnp.float32)}
    points = POINTS[[0, 1, 2]]
    h = jnp.asarray(points, jnp.float32).reshape(1, 1, 3, 2)
    z, codes = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (points, CODES))
    nearest = np.argmax(z @ codes.T, axis=1)
    np.testing.assert_array_equal(nearest, [0, 1, 2])
    bottled, _ = passed(bottleneck, h, params=params)
    np.testing.assert_array_equal(bottled.codes.reshape(-1), nearest)
    np.testing.assert_allclose(bottled.latents.reshape(-1, 2), codes, rtol=1e-6)
    np.testing.assert_allclose(bottled.loss, [1.25 * np.square(z - codes).mean()], rtol=1e-5)
    by_codebook, by_h = jax.grad(
        lambda params, h: jnp.sum(passed(bottleneck, h, params=params)[0].loss), argnums=(0, 1)
    )(params, h)

    def along(v: np.ndarray, g: np.ndarray) -> np.ndarray:
        u = v / np.linalg.norm(v)
        return (g - u * (u @ g)) / np.linalg.norm(v)

    for i in range(3):
        pull = 2 * (z[i] - codes[i]) / 6
        np.testing.assert_allclose(by_h[0, 0, i], along(points[i], 0.25 * pull), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(by_codebook["codebook"][i], along(CODES[i], -pull), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["vq", "vq in space", "vq averaged", "lfq"])
def test_latents_have_the_gradient_of_what_is_quantised(name: str) -> None:
    bottleneck = BOTTLENECKS[name]
    h = grid(bottleneck)
    weights = jax.random.normal(jax.random.key(5), h.shape)
    params, collections = modules.initialize(bottleneck, KEY, h)

    def weighted(params: Any, collections: Any, h: jax.Array) -> jax.Array:
        bottled, _ = modules.apply(bottleneck, params, collections, h, train=True, key=KEY)
        return jnp.sum(bottled.latents * weights)

    by_params, by_kept, by_h = jax.grad(weighted, argnums=(0, 1, 2))(params, collections, h)
    expected = np.asarray(weights)
    if name in ("vq", "vq averaged"):  # through the projection onto the sphere
        length = np.linalg.norm(h, axis=-1, keepdims=True)
        u = np.asarray(h) / length
        expected = (expected - u * (u * expected).sum(-1, keepdims=True)) / length
    np.testing.assert_allclose(by_h, expected, rtol=2e-5, atol=2e-5)
    for leaf in jax.tree.leaves((by_params, by_kept)):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("normalized", [True, False])
def test_an_averaged_codebook_has_no_gradient(normalized: bool) -> None:
    bottleneck = networks.VQBottleneck(5, 3, normalized=normalized, decay=0.9)
    h = grid(bottleneck)
    _, collections = modules.initialize(bottleneck, KEY, h)
    gradient = jax.grad(lambda c: jnp.sum(passed(bottleneck, h, collections=c)[0].loss))(collections)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0.0)


class Averages:
    """Moving averages as one would write them down: a loop over codes."""

    def __init__(self, kept: Any, decay: float, normalized: bool, restart_below: float | None) -> None:
        self.codes, self.counts, self.sums = (
            np.array(kept["codebook"][name], np.float64) for name in ("codes", "counts", "sums")
        )
        np.testing.assert_array_equal(self.counts, 1.0)
        np.testing.assert_array_equal(self.sums, self.codes)
        self.decay, self.normalized, self.restart_below = decay, normalized, restart_below
        self.restarts = 0

    def step(self, h: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Go on by a batch; of restarted codes where they are ``after`` it is taken, if it is one of the vectors."""
        z = h.reshape(-1, h.shape[-1]).astype(np.float64)
        z = z / np.linalg.norm(z, axis=1, keepdims=True) if self.normalized else z
        nearest = np.array([np.argmin([np.square(v - e).sum() for e in self.codes]) for v in z])
        for k in range(len(self.codes)):
            mine = z[nearest == k]
            self.counts[k] = self.decay * self.counts[k] + (1 - self.decay) * len(mine)
            self.sums[k] = self.decay * self.sums[k] + (1 - self.decay) * mine.sum(axis=0)
        total, size = self.counts.sum(), len(self.codes)
        taken = []
        for k in range(size):
            smoothed = (self.counts[k] + 1e-5) / (total + size * 1e-5) * total
            by = np.linalg.norm(self.sums[k]) if self.normalized else smoothed
            self.codes[k] = self.sums[k] / by
        for k in range(size):
            if self.restart_below is not None and self.counts[k] < self.restart_below:
                distances = np.abs(z - after[k]).max(axis=1)
                assert distances.min() < 1e-6, "a code is restarted from a vector of the batch"
                taken.append(int(np.argmin(distances)))
                self.counts[k] = max(1.0, self.restart_below)
                self.codes[k] = z[taken[-1]]
                self.sums[k] = self.counts[k] * self.codes[k]
        assert len(set(taken)) == min(len(taken), len(z)), "no vector serves twice while there are others"
        self.restarts += len(taken)
        return nearest


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("restart_below", [None, 0.8, 3.0])
def test_averaged_codebooks_follow_a_loop(normalized: bool, restart_below: float | None) -> None:
    bottleneck = networks.VQBottleneck(17, 3, normalized=normalized, decay=0.6, restart_below=restart_below)
    _, kept = modules.initialize(bottleneck, KEY, grid(bottleneck))
    averages = Averages(kept, 0.6, normalized, restart_below)
    apply = jax.jit(lambda kept, h, key: modules.apply(bottleneck, {}, kept, h, train=True, key=key))
    for step in range(6):
        h = grid(bottleneck, seed=10 + step)
        bottled, kept = apply(kept, h, jax.random.key(step))
        nearest = averages.step(np.asarray(h), np.asarray(kept["codebook"]["codes"]))
        np.testing.assert_array_equal(bottled.codes.reshape(-1), nearest)
        for name in ("codes", "counts", "sums"):
            np.testing.assert_allclose(kept["codebook"][name], getattr(averages, name), rtol=2e-5, atol=2e-6)
    assert (averages.restarts > 0) == (restart_below is not None)


def test_more_codes_than_vectors_share_them() -> None:
    bottleneck = networks.VQBottleneck(40, 3, normalized=False, decay=0.6, restart_below=100.0)
    h = grid(bottleneck, num=2)
    _, kept = passed(bottleneck, h)
    served = {tuple(vector) for vector in np.asarray(h).reshape(-1, 3)}
    found = [tuple(code) for code in np.asarray(kept["codebook"]["codes"])]
    assert set(found) == served
    assert {found.count(vector) for vector in served} <= {3, 4}  # 40 codes on 12 vectors
    np.testing.assert_array_equal(kept["codebook"]["counts"], 100.0)


def test_a_code_on_the_sphere_that_is_never_chosen_stays() -> None:
    bottleneck = networks.VQBottleneck(2, 2, decay=0.5)
    kept = {"codebook": {"codes": jnp.eye(2), "counts": jnp.ones(2), "sums": jnp.eye(2)}}
    h = jnp.broadcast_to(jnp.array([1.0, 0.1]), (1, 2, 2, 2))
    apply = jax.jit(lambda kept: modules.apply(bottleneck, {}, kept, h, train=True, key=KEY)[1])
    for _ in range(200):
        kept = apply(kept)
    np.testing.assert_allclose(kept["codebook"]["codes"], [np.array([1.0, 0.1]) / np.hypot(1.0, 0.1), [0.0, 1.0]], 1e-6)


@pytest.mark.parametrize("name", ["vq averaged", "vq averaged in space"])
def test_the_codebook_is_learnt_in_training_only(name: str) -> None:
    bottleneck = BOTTLENECKS[name]
    h = grid(bottleneck)
    _, kept = modules.initialize(bottleneck, KEY, h)
    np.testing.assert_array_equal(kept["codebook"]["counts"], 1.0)
    np.testing.assert_array_equal(bottleneck.init(KEY, h, train=True)["codebook"]["counts"], 1.0)
    before, after = passed(bottleneck, h, train=False)[1], passed(bottleneck, h)[1]
    for old, same, new in zip(*map(jax.tree.leaves, (kept, before, after)), strict=True):
        np.testing.assert_array_equal(old, same)
        assert not np.array_equal(old, new)


# Over devices.


def trained(bottleneck: Any, axis_name: AxisName, params: Any, kept: Any, x: jax.Array) -> Any:
    """Two steps' outputs and averaged gradients, of an encoder and a codebook, and the collections after them."""
    network, found = modules.bind_axis(bottleneck, kept, axis_name), []
    for step in range(2):

        def loss(params: Any, kept: Any = kept, step: int = step) -> Any:
            h = jnp.einsum("bhwi,io->bhwo", x, params["encoder"])
            bottled, after = modules.apply(
                network, params["bottleneck"], kept, h, train=True, key=jax.random.fold_in(KEY, step)
            )
            decoded = jnp.sum(jnp.sin(bottled.latents), axis=(1, 2, 3))
            return jnp.mean(bottled.loss + decoded), (bottled, after)

        (_, (bottled, kept)), gradient = parallel.value_and_averaged_gradient(loss, params, axis_name)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
        found.append(bottled)
    return found, (params, kept)


def over_devices(regime: str, devices: int, bottleneck: Any, *given: Any) -> Any:
    params, kept, x = given
    step: Callable[..., Any] = partial(trained, bottleneck, "data")
    if regime == "shard_map":
        mesh = parallel.make_mesh({"data": devices})
        mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=(P("data"), P()))
        return jax.jit(mapped)(params, kept, x)
    parts = x.reshape(devices, -1, *x.shape[1:])
    if regime == "pmap":
        found = jax.pmap(step, "data", in_axes=(None, None, 0), devices=jax.devices()[:devices])(params, kept, parts)
    else:
        found = jax.jit(jax.vmap(step, (None, None, 0), axis_name="data"))(params, kept, parts)
    bottled, after = found
    for leaf in jax.tree.leaves(after):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    joined = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), bottled)
    return joined, jax.tree.map(lambda leaf: leaf[0], after)


def agree(found: Any, expected: Any) -> None:
    for (path, ours), theirs in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(ours.dtype, jnp.integer):
            np.testing.assert_array_equal(ours, theirs, err_msg=jax.tree_util.keystr(path))
        else:
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_any_layout_of_the_global_batch_is_the_same(name: str) -> None:
    bottleneck = BOTTLENECKS[name]
    x = jax.random.normal(jax.random.key(2), (8, 2, 3, 4))
    params, kept = modules.initialize(bottleneck, KEY, grid(bottleneck))
    given = ({"encoder": jax.random.normal(KEY, (4, bottleneck.num_inputs)), "bottleneck": params}, kept, x)
    expected = jax.jit(partial(trained, bottleneck, None))(*given)
    for devices in (1, 2, 4, 8):
        agree(over_devices("shard_map", devices, bottleneck, *given), expected)
    for regime, devices in (("pmap", 4), ("vmap", 8)):
        agree(over_devices(regime, devices, bottleneck, *given), expected)


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_a_seed_beside_others_is_the_seed_alone(name: str) -> None:
    bottleneck = BOTTLENECKS[name]

    def run(key: jax.Array) -> Any:
        h = jax.random.normal(key, (3, 2, 3, bottleneck.num_inputs))
        params, kept = modules.initialize(bottleneck, key, h)
        return modules.apply(bottleneck, params, kept, h, train=True, key=key)

    keys = jax.random.split(KEY, 3)
    together, alone = jax.jit(jax.vmap(run))(keys), jax.jit(run)
    for i, key in enumerate(keys):
        agree(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone(key))


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_all_is_finite_at_zeros(name: str) -> None:
    bottleneck = BOTTLENECKS[name]
    h = jnp.zeros((2, 2, 2, bottleneck.num_inputs))
    params, kept = modules.initialize(bottleneck, KEY, h)

    def loss(params: Any, h: jax.Array) -> Any:
        bottled, after = modules.apply(bottleneck, params, kept, h, train=True, key=KEY)
        return jnp.sum(bottled.loss) + jnp.sum(bottled.latents), (bottled, after)

    for at in (params, jax.tree.map(jnp.zeros_like, params)):
        found = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(at, h)
        for leaf in jax.tree.leaves(found):
            assert np.isfinite(leaf).all()


# The Gaussian.


def test_the_divergence_is_the_closed_form_of_an_image() -> None:
    bottleneck = networks.KLBottleneck(2, weight=0.5)
    h = grid(bottleneck)
    mean, variance = np.asarray(h[..., :2], np.float64), np.exp(np.asarray(h[..., 2:], np.float64))
    expected = 0.5 * (variance + mean**2 - 1 - np.log(variance)).sum((1, 2, 3))
    for train in (True, False):
        bottled, _ = passed(bottleneck, h, train=train)
        np.testing.assert_allclose(bottled.numbers["kl"], expected, rtol=1e-5)
        np.testing.assert_allclose(bottled.loss, 0.5 * expected, rtol=1e-5)
    found = bottleneck.apply({}, h, method="posterior")
    np.testing.assert_array_equal(found[0], h[..., :2])
    np.testing.assert_array_equal(found[1], h[..., 2:])


def test_samples_have_the_posteriors_moments_and_evaluation_its_mean() -> None:
    bottleneck = networks.KLBottleneck(1)
    h = jnp.broadcast_to(jnp.array([1.5, np.log(0.25)]), (20, 40, 50, 2))
    sample = np.asarray(passed(bottleneck, h)[0].latents)
    assert abs(sample.mean() - 1.5) < 4 * 0.5 / 200  # of 40,000 values
    assert abs(sample.var() - 0.25) < 4 * 0.25 * (2 / 40_000) ** 0.5
    assert abs(np.corrcoef(sample[0].ravel(), sample[1].ravel())[0, 1]) < 4 / 2000**0.5
    for each, train in ((bottleneck, False), (networks.KLBottleneck(1, sampled=False), True)):
        np.testing.assert_array_equal(passed(each, h, train=train)[0].latents, 1.5)


def test_log_variances_are_clipped() -> None:
    bottleneck = networks.KLBottleneck(1)
    h = jnp.array([[0.0, -100.0], [0.0, 100.0]]).reshape(2, 1, 1, 2)
    posterior: Any = bottleneck.apply({}, h, method="posterior")
    np.testing.assert_array_equal(posterior[1].ravel(), [-30.0, 20.0])
    expected = [0.5 * (np.exp(-30) - 1 + 30), 0.5 * (np.exp(20) - 1 - 20)]
    np.testing.assert_allclose(passed(bottleneck, h)[0].numbers["kl"], expected, rtol=1e-6)


# What is refused.


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_another_number_of_channels_is_refused(name: str) -> None:
    bottleneck = BOTTLENECKS[name]
    channels = bottleneck.num_inputs
    for shape in ((2, 4, 4, channels + 1), (4, 4, channels)):
        with pytest.raises(ValueError, match=rf"takes \[B, h, w, {channels}\], got \[.*\]: let the encoder") as error:
            modules.initialize(bottleneck, KEY, jnp.zeros(shape))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", QUANTIZED)
def test_what_is_no_code_is_refused(name: str) -> None:
    bottleneck = BOTTLENECKS[name]
    params, kept = modules.initialize(bottleneck, KEY, grid(bottleneck))
    variables, size = {"params": params, **kept}, bottleneck.num_codes
    with pytest.raises(TypeError, match=r"^codes must be integers, got float32: ") as error:
        embedded(bottleneck, jnp.zeros((1, 2, 2)), variables)
    assert "\n" not in str(error.value)
    for low, high in ((0, size), (-1, 0)):
        codes = jnp.array([low, high]).reshape(1, 1, 2)
        with pytest.raises(ValueError, match=f"^codes must be from 0 to {size - 1}, got values from {low} to {high}: "):
            embedded(bottleneck, codes, variables)
        traced = np.isnan(jax.jit(lambda codes: embedded(bottleneck, codes, variables))(codes)).all(axis=-1)
        np.testing.assert_array_equal(traced.ravel(), [low < 0, high >= size])


def test_other_mistakes_are_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match=r"^KLBottleneck has no codes to embed: ") as error:
        embedded(networks.KLBottleneck(2), jnp.zeros((1, 2, 2), jnp.int32))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"^KLBottleneck\.logvar_bounds must be \(low, high\) with low < high"):
        networks.KLBottleneck(2, logvar_bounds=(3.0, -3.0))
    with pytest.raises(ValueError, match=r"^VQBottleneck\.restart_below=1\.0 must be None without decay, [^\n]*$"):
        networks.VQBottleneck(5, 2, restart_below=1.0)
    with pytest.raises(ValueError, match=r"^FSQBottleneck\.levels must be sizes of at least 2, got \(8, 1\)$"):
        networks.FSQBottleneck((8, 1))
    for levels in ((), (2**16, 2**16)):
        with pytest.raises(ValueError, match=r"^FSQBottleneck\.levels must be at least one number, [^\n]*$"):
            networks.FSQBottleneck(levels)
    for bits in (0, 32):
        with pytest.raises(ValueError, match=rf"^LFQBottleneck\.bits must be from 1 to 31, got {bits}$"):
            networks.LFQBottleneck(bits)


# How codes are used.


def test_code_usage_by_hand() -> None:
    found = metrics.code_usage(jnp.array([2, 1, 1, 0]))
    assert float(found.share_used) == 0.75
    np.testing.assert_allclose(found.perplexity, 2**1.5, rtol=1e-6)  # 1.5 bits
    even = jax.jit(metrics.code_usage)(jnp.full(1000, 7))
    np.testing.assert_allclose((even.share_used, even.perplexity), (1.0, 1000.0), rtol=1e-5)
    np.testing.assert_allclose(metrics.code_usage(jnp.array([0.0, 9.0])), (0.5, 1.0), rtol=1e-6)
    for wrong in (jnp.zeros(3), jnp.array([1.0, -1.0])):
        with pytest.raises(ValueError, match=r"^counts must be finite counts or shares of at least 0, not all 0"):
            metrics.code_usage(wrong)
        assert np.isnan(jax.jit(metrics.code_usage)(wrong)).all()
    with pytest.raises(ValueError, match=r"^counts must be one number for each code, \[K\], got shape \[2, 2\]$"):
        metrics.code_usage(jnp.ones((2, 2)))
