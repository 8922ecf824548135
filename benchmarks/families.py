"""What is measured: models, sizes and optimizers. Only the standard library, so that every peer reads it.

A worker gets a family's name, and sizes to replace, on its command line; nothing about a model is written down twice.
"""

import dataclasses
import json
import math
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Family:
    """A model with its training.

    Args:
      name: its name on the command line.
      title: its name in tables.
      kind: which networks: a VAE or a GAN of fully connected layers, a GAN of strided or of residual convolutions, or
        a tokenizer of codes of a grid (FSQ).
      image_shape: height, width and channels.
      batch_size: images a step.
      latent_dim: latent dimensions.
      hidden: sizes of the hidden layers of both networks; a decoder has them in reverse.
      width: channels next to the image, of convolutional networks.
      levels: of each number of a tokenizer's latents.
      discriminator_width: channels next to the image of a tokenizer's discriminator; 0 for none.
      activation: activation of the hidden layers: relu, leaky_relu or tanh.
      learning_rate: Adam's.
      b1: Adam's decay of the first moment.
      loss: a GAN's.
      dtype: type that the networks compute in.
      binarized: whether each step draws binary images.
      num_examples: size of the data set.
      total_steps: length of a published run that its speed is projected to; None for none.
    """

    name: str
    title: str
    kind: Literal["vae", "gan", "dcgan", "resnet", "tokenizer"]
    image_shape: tuple[int, int, int]
    batch_size: int
    latent_dim: int
    hidden: tuple[int, ...] = ()
    width: int = 64
    levels: tuple[int, ...] = (8, 5, 5, 5)
    discriminator_width: int = 32
    activation: str = "leaky_relu"
    learning_rate: float = 2e-4
    b1: float = 0.5
    loss: Literal["non_saturating", "hinge"] = "non_saturating"
    dtype: Literal["float32", "bfloat16"] = "float32"
    binarized: bool = False
    num_examples: int = 10_000
    total_steps: int | None = None

    @property
    def num_pixels(self) -> int:
        """Values of an image."""
        return math.prod(self.image_shape)

    @property
    def convolutional(self) -> bool:
        """Whether its networks see images, not vectors."""
        return self.kind in ("dcgan", "resnet", "tokenizer")

    @property
    def halvings(self) -> int:
        """How often a convolutional network halves its images: to 7 pixels from 28, to 4 from 64."""
        count, side = 2, self.image_shape[0] // 4
        while side % 2 == 0 and side > 4:
            count, side = count + 1, side // 2
        return count


VAE = Family(
    name="vae",
    title="MLP VAE 784-500-20, batch 128",
    kind="vae",
    image_shape=(28, 28, 1),
    batch_size=128,
    latent_dim=20,
    hidden=(500,),
    activation="relu",
    learning_rate=1e-3,
    b1=0.9,
)
GAN = Family(
    name="gan",
    title="MLP GAN 784, 128-128, batch 64",
    kind="gan",
    image_shape=(28, 28, 1),
    batch_size=64,
    latent_dim=64,
    hidden=(128, 128),
)
DCGAN = Family(
    name="dcgan",
    title="DCGAN 28 x 28, width 64, batch 64",
    kind="dcgan",
    image_shape=(28, 28, 1),
    batch_size=64,
    latent_dim=64,
)
DCGAN_64 = Family(
    name="dcgan64",
    title="DCGAN 64 x 64 x 3, width 64, batch 256, bfloat16",
    kind="dcgan",
    image_shape=(64, 64, 3),
    batch_size=256,
    latent_dim=64,
    dtype="bfloat16",
)
BURDA = Family(
    name="burda",
    title="one-layer VAE of Burda et al., 784-200-200-50, batch 20",
    kind="vae",
    image_shape=(28, 28, 1),
    batch_size=20,
    latent_dim=50,
    hidden=(200, 200),
    activation="tanh",
    learning_rate=1e-3,
    b1=0.9,
    binarized=True,
    num_examples=60_000,
    total_steps=3280 * 3000,
)
RESNET = Family(
    name="resnet",
    title="residual SNGAN 32 x 32 x 3, width 64, batch 16",
    kind="resnet",
    image_shape=(32, 32, 3),
    batch_size=16,
    latent_dim=128,
    b1=0.0,
    loss="hinge",
)
TOKENIZER = Family(
    name="tokenizer",
    title="tokenizer 28 x 28, FSQ of 7 x 7, width 32, batch 64",
    kind="tokenizer",
    image_shape=(28, 28, 1),
    batch_size=64,
    latent_dim=4,
    width=32,
    learning_rate=1e-3,
    b1=0.9,
    loss="hinge",
)
FAMILIES = {family.name: family for family in (VAE, GAN, DCGAN, DCGAN_64, BURDA, RESNET, TOKENIZER)}
ON_CPU = ("vae", "gan", "dcgan")
ON_ACCELERATOR = ("vae", "gan", "dcgan64", "burda", "dcgan")  # in the order of their weight, should time run out


def read(name: str, changes: str = "{}") -> Family:
    """A family by its name, with fields replaced as a JSON object says."""
    values: dict[str, Any] = json.loads(changes)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return dataclasses.replace(FAMILIES[name], **values)
