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
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from experiments.augmentation.classifier import accuracy, check_fit, load, start, train
from jaxgen.cli.exit_status import command
from jaxgen.intervals import INT32_MAX, Count, CountOrNone, Positive, Seed
from jaxgen.networks import LeNet
from jaxgen.training import machine
from jaxgen.training.files import check_place
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
    epochs: Count = 18
    """How often to see every image."""
    batch_size: Count = 128
    """Number of images in a batch."""
    learning_rate: Positive = 2e-3
    """Adam's learning rate at the start; it decays to zero along a cosine."""
    shift: CountOrNone = 2
    """Greatest random shift of a training image, in pixels; 0 for none."""
    flip: bool = False
    """Mirror every second training image, by chance: for clothes, not for digits."""
    seed: Seed = 0
    """Fixes the initialisation, the order of the images and the augmentation."""
    out: Path = Path("lenet.safetensors")
    """The .safetensors file to write."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is read or written."""
        if self.out.suffix != ".safetensors":
            raise ValueError(f"--out must end in .safetensors, got {self.out}")
        check_place(self.out)


def run(options: Options) -> None:
    """Train, measure and write."""
    options.check()
    training, test = load(options, options.train_split), load(options, options.test_split)
    check_fit(options, training["image"])
    num_classes = int(training["label"].max()) + 1
    steps_per_epoch = len(training["label"]) // options.batch_size
    num_steps = options.epochs * steps_per_epoch
    if num_steps > INT32_MAX:
        raise ValueError(f"--epochs {options.epochs} of {steps_per_epoch} steps are more than {INT32_MAX}: use fewer")
    network = LeNet(num_classes)
    optimizer = optax.adam(optax.cosine_decay_schedule(options.learning_rate, num_steps))
    key = jax.random.key(options.seed)
    state, dataset = start(network, optimizer, key, training["image"][:1]), jax.device_put(training)
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
        "versions": machine.versions(),
    }
    arrays = {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(half, sep=".").items()}
    write_arrays(options.out, arrays, record)
    learnt = accuracy(network, stored, training)
    print(f"test accuracy {measured:.4f} of {len(test['label'])} images, training accuracy {learnt:.4f}")
    print(options.out)


main = command(Options, run, "train_classifier.py")


if __name__ == "__main__":
    sys.exit(main())
