"""Train the small classifier whose features generated images are judged by.

    uv run experiments/train_classifier.py --dataset mnist --epochs 6 --shift 2 --out digits.safetensors
    uv run experiments/train_classifier.py --dataset fashion_mnist --epochs 18 --shift 1 --flip --out wear.safetensors

The weights are stored in half precision; the accuracy is that of what is stored. The same options give the same file
on the same machine and versions.
"""

import dataclasses
import hashlib
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import traverse_util

from experiments.command import exit_status
from jaxgen import augmentation, data
from jaxgen.batches import to_float
from jaxgen.keys import example_keys, named_key, step_key
from jaxgen.networks import LeNet
from jaxgen.training import manifest
from jaxgen.weights import write_arrays


@dataclasses.dataclass(frozen=True)
class Options:
    """Train the small classifier whose features generated images are judged by."""

    dataset: str = "fashion_mnist_small"
    """A set with labels: fashion_mnist_small (embedded), the TFDS name of an image set, folder:PATH, npz:PATH or
    idx:DIR."""
    name: str | None = None
    """What to call the set in the record; what --dataset says before a colon when not given."""
    data_dir: Path | None = None
    """Where TFDS keeps prepared sets; its own default when not given."""
    manual_dir: Path | None = None
    """Folder with the original files of a TFDS set, used instead of the network."""
    train_split: str = "train"
    """The split to train on."""
    test_split: str = "test"
    """The split whose accuracy is reported; nothing is chosen by it."""
    epochs: int = 18
    """How often to see every image."""
    batch_size: int = 128
    """Number of images in a batch."""
    learning_rate: float = 2e-3
    """Adam's learning rate at the start; it decays to zero along a cosine."""
    shift: int = 2
    """Greatest random shift of a training image, in pixels; 0 for none."""
    flip: bool = False
    """Mirror every second training image, by chance: for clothes, not for digits."""
    seed: int = 0
    """Fixes the initialisation, the order of the images and the augmentation."""
    out: Path = Path("lenet.safetensors")
    """The .safetensors file to write."""

    def check(self) -> None:
        """Refuse numbers that make no sense, before anything is read or written."""
        for name, least in (("epochs", 1), ("batch_size", 1), ("shift", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"--learning-rate must be positive, got {self.learning_rate}")
        if self.out.suffix != ".safetensors":
            raise ValueError(f"--out must end in .safetensors, got {self.out}")


def load(options: Options, split: str) -> dict[str, np.ndarray]:
    """A split's images [N, H, W, C] and labels [N]."""
    dataset = data.load(options.dataset, split, data_dir=options.data_dir, manual_dir=options.manual_dir)
    if "label" not in dataset:
        raise ValueError(f"{options.dataset} has no labels: a classifier learns from labelled images")
    return dataset


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
def classify(network: LeNet, params: Any, images: jax.Array) -> jax.Array:
    """The most likely class of each image, int [B]."""
    outputs: Any = network.apply({"params": params}, to_float(images))
    return jnp.argmax(outputs[1], axis=1)


def accuracy(network: LeNet, params: Any, dataset: dict[str, np.ndarray]) -> float:
    """Share of a data set's images that are told right."""
    images, label = dataset["image"], dataset["label"]
    found = [np.asarray(classify(network, params, images[i : i + 1000])) for i in range(0, len(label), 1000)]
    return float(np.mean(np.concatenate(found) == label))


def run(options: Options) -> None:
    """Train, measure and write."""
    options.check()
    training, test = load(options, options.train_split), load(options, options.test_split)
    num_classes = int(training["label"].max()) + 1
    steps_per_epoch = len(training["label"]) // options.batch_size
    num_steps = options.epochs * steps_per_epoch
    network = LeNet(num_classes)
    optimizer = optax.adam(optax.cosine_decay_schedule(options.learning_rate, num_steps))
    key = jax.random.key(options.seed)
    params = jax.jit(network.init)(named_key(key, "init"), to_float(training["image"][:1]))["params"]
    state, dataset = (params, optimizer.init(params)), jax.device_put(training)
    print(f"{len(training['label'])} training images, {num_classes} classes, {num_steps} steps on {jax.devices()[0]}")
    begin = time.monotonic()
    program = partial(train, network, optimizer, options.batch_size, options.shift, options.flip)
    for epoch in range(options.epochs):
        first = epoch * steps_per_epoch
        *state, total = program(tuple(state), dataset, key, first, first + steps_per_epoch)
        print(
            f"epoch {epoch + 1}/{options.epochs}  loss {float(total) / steps_per_epoch:.4f}  "
            f"{time.monotonic() - begin:.0f} s",
            flush=True,
        )
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), state[0])
    stored = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    measured = accuracy(network, stored, test)
    record = {
        "network": "LeNet",
        "dataset": options.name or options.dataset.partition(":")[0],
        "images_sha256": hashlib.sha256(training["image"].tobytes()).hexdigest(),
        "num_images": len(training["label"]),
        "test_accuracy": measured,
        "num_test_images": len(test["label"]),
        "steps": num_steps,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "shift": options.shift,
        "flip": options.flip,
        "seed": options.seed,
        "versions": manifest.versions(),
    }
    arrays = {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(half, sep=".").items()}
    write_arrays(options.out, arrays, record)
    learnt = accuracy(network, stored, training)
    print(f"test accuracy {measured:.4f} of {len(test['label'])} images, training accuracy {learnt:.4f}")
    print(options.out)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns its exit status."""
    return exit_status(lambda: run(tyro.cli(Options, args=arguments, prog="train_classifier.py")))


if __name__ == "__main__":
    sys.exit(main())
