"""Augmentation against its formulas, its ranges, its gradients and other layouts of the batch."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from jaxgen.augmentation import DiffAugment, adapt_probability
from jaxgen.keys import AxisName, example_keys

NONE = DiffAugment(color=False, translation=0.0, cutout=0.0)
COLOR = DiffAugment(translation=0.0, cutout=0.0)
TRANSLATION = DiffAugment(color=False, cutout=0.0)
CUTOUT = DiffAugment(color=False, translation=0.0)
ALL = {"color": COLOR, "translation": TRANSLATION, "cutout": CUTOUT, "all": DiffAugment()}
COMPILED = {name: jax.jit(augment) for name, augment in ALL.items()}
color, translation, cutout = (COMPILED[name] for name in ("color", "translation", "cutout"))
ALWAYS = np.float32(1.0)
NUM = 2048  # one shape for most tests: they share the compiled programs


def images_of(key: jax.Array, num: int = NUM, channels: int = 3) -> jax.Array:
    return jax.random.uniform(key, (num, 8, 16, channels))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_type_and_shape_stay_and_probability_zero_is_the_identity(dtype: jnp.dtype, key: jax.Array) -> None:
    images, keys = images_of(key).astype(dtype), example_keys(key, NUM)
    augmented = COMPILED["all"](images, keys, ALWAYS)
    assert augmented.dtype == dtype
    assert augmented.shape == images.shape
    assert jnp.isfinite(augmented).all()
    assert (augmented != images).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(COMPILED["all"](images, keys, np.float32(0.0)), images)
    np.testing.assert_array_equal(NONE(images, keys), images)


def test_color_is_affine_in_each_image_with_the_ranges_of_the_paper(key: jax.Array) -> None:
    """One grey value shows the brightness alone, two of them the contrast as well, colours the saturation."""
    keys = example_keys(key, NUM)
    flat = color(jnp.full((NUM, 8, 16, 1), 0.5), keys, ALWAYS)
    shift = flat[:, 0, 0, 0] - 0.5
    np.testing.assert_allclose(flat - 0.5, jnp.broadcast_to(shift[:, None, None, None], flat.shape), atol=1e-6)
    assert -0.25 <= shift.min() < -0.24
    assert 0.24 < shift.max() <= 0.25
    halves = jnp.zeros((NUM, 8, 16, 1)).at[:, 4:].set(1.0)
    two = color(halves, keys, ALWAYS)
    contrast = two[:, 7, 0, 0] - two[:, 0, 0, 0]
    np.testing.assert_allclose(two.mean((1, 2, 3)), 0.5 + shift, atol=1e-6)  # contrast and saturation keep the mean
    assert 0.5 <= contrast.min() < 0.52
    assert 1.48 < contrast.max() <= 1.5
    red = color(jnp.broadcast_to(jnp.array([1.0, 0.0, 0.0]), (NUM, 8, 16, 3)), keys, ALWAYS)
    saturation = (red[:, 0, 0, 0] - red[:, 0, 0, 1]) / contrast
    assert 0.0 <= saturation.min() < 0.02
    assert 1.98 < saturation.max() <= 2.0 + 1e-5
    grey = color(jnp.broadcast_to(halves, (NUM, 8, 16, 3)), keys, ALWAYS)
    np.testing.assert_allclose(grey, np.broadcast_to(two, grey.shape), atol=1e-5)  # grey has no saturation


def test_translation_moves_by_up_to_an_eighth_and_pads_with_grey(key: jax.Array) -> None:
    images, keys = images_of(key), example_keys(key, NUM)
    moved = np.asarray(translation(images, keys, ALWAYS))
    padded = np.pad(images, ((0, 0), (1, 1), (2, 2), (0, 0)), constant_values=0.5)
    places = [(top, left) for top in range(3) for left in range(5)]
    seen = np.zeros(len(places), int)
    for image, candidates in zip(moved, padded, strict=True):
        same = [np.array_equal(image, candidates[top : top + 8, left : left + 16]) for top, left in places]
        assert sum(same) == 1
        seen += same
    # 15 equally likely places: 34 each, with a standard deviation of nearly its root.
    assert (np.abs(seen - NUM / 15) < 5 * np.sqrt(NUM / 15)).all()


def test_cutout_fills_a_rectangle_of_half_the_size_around_a_uniform_centre(key: jax.Array) -> None:
    images, keys = images_of(key), example_keys(key, NUM)
    cut = cutout(images, keys, ALWAYS)
    mask = np.array((cut != images).any(-1))
    np.testing.assert_array_equal(np.where(mask[..., None], 0.5, images), cut)
    rows, columns = mask.max(2), mask.max(1)
    np.testing.assert_array_equal(mask, rows[:, :, None] & columns[:, None, :])
    # A centre on the border leaves half of the rectangle: between 2 and 4 of 8 rows, 4 and 8 of 16 columns.
    assert set(rows.sum(1)) == {2, 3, 4}
    assert set(columns.sum(1)) == {4, 5, 6, 7, 8}
    assert all((np.diff(np.flatnonzero(row)) == 1).all() for row in rows)
    # Nine centres 0 ... 8 fill the rows [centre - 2, centre + 2): row 0 from 0 to 2, row 4 from 3 to 6, row 7 from 6.
    for row, share in ((0, 3 / 9), (4, 4 / 9), (7, 3 / 9)):
        np.testing.assert_allclose(rows[:, row].mean(), share, atol=4 * np.sqrt(share * (1 - share) / NUM))


def test_the_fill_is_what_comes_from_outside(key: jax.Array) -> None:
    images, keys = jnp.full((4, 8, 16, 1), 0.5), example_keys(key, 4)
    filled = jax.jit(DiffAugment(color=False, cutout=1.0, fill=-1.0))(images, keys)
    assert set(np.unique(filled)) == {-1.0, 0.5}


def test_each_transformation_is_applied_with_the_probability(key: jax.Array) -> None:
    probability = np.float32(0.3)
    images, keys = images_of(key), example_keys(key, NUM)
    error = 4 * np.sqrt(probability * (1 - probability) / NUM)
    for augment, likely in ((cutout, 1.0), (translation, 14 / 15)):
        changed = (augment(images, keys, probability) != images).any(axis=(1, 2, 3))
        np.testing.assert_allclose(changed.mean(), probability * likely, atol=error)
    untouched = (color(images, keys, probability) == images).all(axis=(1, 2, 3))
    np.testing.assert_allclose(untouched.mean(), (1 - probability) ** 3, atol=error)  # three independent coins


def test_gradients_reach_the_images(key: jax.Array) -> None:
    images, keys = images_of(key, 4, channels=2), example_keys(key, 4)

    @jax.jit
    def squared(images: jax.Array) -> jax.Array:
        return jnp.square(DiffAugment()(images, keys))

    check_grads(squared, (images,), order=1, modes=("rev",), atol=2e-2, rtol=2e-2)


def test_the_layout_of_the_batch_and_loops_do_not_matter(key: jax.Array) -> None:
    images, devices = images_of(key, 16), jax.devices()[:4]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=devices)

    def augment(images: jax.Array, key: jax.Array, axis_name: AxisName = None) -> jax.Array:
        return DiffAugment()(images, example_keys(key, images.shape[0], axis_name), 0.7)

    expected = jax.jit(augment)(images, key)
    place = P("data")
    mapped = jax.shard_map(partial(augment, axis_name="data"), mesh=mesh, in_specs=(place, P()), out_specs=place)
    sharded = jax.jit(augment)(jax.device_put(images, NamedSharding(mesh, place)), key)
    one_by_one = jax.lax.map(
        lambda pair: DiffAugment()(pair[0][None], pair[1][None], 0.7)[0], (images, example_keys(key, 16))
    )
    for got in (jax.jit(mapped)(images, key), sharded, one_by_one):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_adaptation_by_hand() -> None:
    """64 images of a ramp of 640 move the probability by a tenth."""

    @jax.jit
    def adapt(probability: float, r: float) -> jax.Array:
        return adapt_probability(jnp.float32(probability), jnp.float32(r), images=64, target=0.6, ramp=640)

    for (probability, r), expected in {
        (0.5, 0.7): 0.6,
        (0.5, 0.5): 0.4,
        (0.5, 0.6): 0.5,
        (0.95, 1.0): 1.0,
        (0.05, -1.0): 0.0,
    }.items():
        np.testing.assert_allclose(adapt(probability, r), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"color": 1}, TypeError, "DiffAugment.color must be True or False"),
        ({"translation": -0.1}, ValueError, r"DiffAugment.translation must be in \[0, 1\], got -0.1"),
        ({"cutout": 1.5}, ValueError, r"DiffAugment.cutout must be in"),
        ({"cutout": float("nan")}, ValueError, r"DiffAugment.cutout must be in"),
        ({"fill": float("inf")}, ValueError, "DiffAugment.fill must be finite"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DiffAugment(**fields)


def test_bad_arguments_are_refused(key: jax.Array) -> None:
    images, keys = images_of(key, 4), example_keys(key, 4)
    with pytest.raises(TypeError, match="floating point"):
        DiffAugment()(images.astype(jnp.uint8), keys)
    with pytest.raises(ValueError, match=r"\[B, H, W, C\]"):
        DiffAugment()(images[..., 0], keys)
    with pytest.raises(ValueError, match="one typed key per image"):
        DiffAugment()(images, keys[:2])
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got 1.5"):
        DiffAugment()(images, keys, 1.5)
    with pytest.raises(ValueError, match="probability must be one number"):
        DiffAugment()(images, keys, jnp.zeros(4))
    for name, wrong in (("images", 0), ("ramp", 0), ("target", 1.2)):
        arguments: dict[str, Any] = {"images": 8, name: wrong}
        with pytest.raises(ValueError, match=f"{name} must be"):
            adapt_probability(jnp.zeros(()), jnp.zeros(()), **arguments)


def test_equal_augmentations_are_equal_and_hashable() -> None:
    assert DiffAugment() == DiffAugment(True, 0.125, 0.5)
    assert hash(DiffAugment(cutout=0.0)) == hash(DiffAugment(cutout=0.0))
