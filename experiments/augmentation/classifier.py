"""The small classifier that learns from labelled images, shifted and mirrored by chance."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen import augmentation, data
from jaxgen.batches import to_float
from jaxgen.keys import example_keys, named_key, step_key
from jaxgen.networks import LeNet


def load(options: Any, split: str) -> dict[str, np.ndarray]:
    """A split's images [N, H, W, C] and labels [N]; the options are those of a script."""
    dataset = data.load(options.dataset, split, data_dir=options.data_dir, manual_dir=options.manual_dir)
    if "label" not in dataset:
        raise ValueError(f"{options.dataset} has no labels: a classifier learns from labelled images")
    return dataset


def check_fit(options: Any, images: np.ndarray) -> None:
    """Refuse a --batch-size, or a --shift, that images [N, H, W, C] are too few, or too small, for."""
    if images.ndim != 4:
        raise ValueError(f"{options.dataset}: images [N, H, W, C] are needed, got {list(images.shape)}")
    if options.shift > min(images.shape[1:3]):
        raise ValueError(f"--shift {options.shift} is more than the images' side, {min(images.shape[1:3])} pixels")
    if options.batch_size > len(images):
        raise ValueError(f"--batch-size {options.batch_size} is larger than the {len(images)} images to learn from")


def augment(images: jax.Array, key: jax.Array, shift: int, flip: bool) -> jax.Array:
    """Shift and mirror images [B, H, W, C] by chance."""
    keys = example_keys(key, images.shape[0])
    if flip:
        mirrored = jax.vmap(lambda key: jax.random.bernoulli(named_key(key, "flip")))(keys)
        images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    if shift:
        share = shift / images.shape[1]
        images = augmentation.DiffAugment(color=False, translation=share, cutout=0.0, fill=0.0)(images, keys)
    return images


@partial(jax.jit, static_argnums=(0, 1))
def start(network: LeNet, optimizer: optax.GradientTransformation, key: jax.Array, images: jax.Array) -> Any:
    """A state for `train`, for images [B, H, W, C] of a shape: (parameters, optimizer's state)."""
    params = network.init(named_key(key, "init"), to_float(images[:1]))["params"]
    return params, optimizer.init(params)


@partial(jax.jit, static_argnums=range(5), donate_argnums=5)
def train(network: LeNet, optimizer: optax.GradientTransformation, batch_size: int, shift: int, flip: bool, state: Any,
          dataset: Any, key: jax.Array, first: jax.Array, last: jax.Array) -> Any:  # fmt: skip
    """Take the steps from the first to before the last: (parameters, optimizer's state, sum of losses [])."""

    def step(number: jax.Array, state: Any) -> Any:
        params, optimizer_state, total = state
        chosen = data.batch_indices(key, number, dataset["image"].shape[0], batch_size)
        images = augment(to_float(dataset["image"][chosen]), step_key(key, "augmentation", number), shift, flip)

        def loss(params: Any) -> jax.Array:
            logits = network.apply({"params": params}, images)[1]
            return optax.softmax_cross_entropy_with_integer_labels(logits, dataset["label"][chosen]).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return optax.apply_updates(params, updates), optimizer_state, total + value

    return jax.lax.fori_loop(first, last, step, (*state, jnp.zeros(())))


@partial(jax.jit, static_argnums=0)
def probabilities(network: LeNet, params: Any, images: jax.Array) -> jax.Array:
    """The probabilities of the classes of each image, [B, K]."""
    outputs: Any = network.apply({"params": params}, to_float(images))
    return jax.nn.softmax(outputs[1], axis=1)


def accuracy(network: LeNet, params: Any, dataset: dict[str, np.ndarray]) -> float:
    """Share of a data set's images that are told right."""
    images, label = dataset["image"], dataset["label"]
    found = [np.asarray(probabilities(network, params, images[i : i + 1000])) for i in range(0, len(label), 1000)]
    return float(np.mean(np.argmax(np.concatenate(found), axis=1) == label))
