"""The VAE under pythae's own trainer, run under an interpreter that has it.

The networks have our sizes; model, loss, optimizer, data loader and loop are pythae's. It trains in epochs, so a turn
is as many of them as come next to the steps asked for. What it does between epochs (a copy of the best model) is left
out.
"""

import itertools
import tempfile
import time
from typing import Any

import pythae
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import nn

from benchmarks import families, protocol
from benchmarks.families import Family

BATCHES_AN_EPOCH = 40


def layers(sizes: tuple[int, ...]) -> nn.Sequential:
    """Fully connected layers, each with a rectifier."""
    return nn.Sequential(*(part for i, o in itertools.pairwise(sizes) for part in (nn.Linear(i, o), nn.ReLU())))


class Encoder(BaseEncoder):
    """Images to the posterior."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.latent_dim = family.latent_dim
        self.hidden = layers((family.num_pixels, *family.hidden))
        self.mean, self.logvar = (nn.Linear(family.hidden[-1], family.latent_dim) for _ in range(2))

    def forward(self, x: torch.Tensor) -> Any:
        """What pythae calls embedding and log_covariance."""
        h = self.hidden(x.flatten(1))
        return ModelOutput(embedding=self.mean(h), log_covariance=self.logvar(h))


class Decoder(BaseDecoder):
    """Latents to probabilities."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.shape = family.image_shape
        self.hidden = layers((family.latent_dim, *family.hidden[::-1]))
        self.output = nn.Linear(family.hidden[0], family.num_pixels)

    def forward(self, z: torch.Tensor) -> Any:
        """What pythae calls reconstruction."""
        return ModelOutput(reconstruction=torch.sigmoid(self.output(self.hidden(z))).view(-1, *self.shape))


def main() -> None:
    """Answer each line of the input."""
    options = protocol.arguments().parse_args()
    family = families.read(options.family, options.changes)
    torch.set_num_threads(protocol.num_cores())
    num = BATCHES_AN_EPOCH * family.batch_size
    images = torch.randint(0, 256, (num, *family.image_shape)).float() / 255.0
    config = VAEConfig(input_dim=family.image_shape, latent_dim=family.latent_dim, reconstruction_loss="bce")
    with tempfile.TemporaryDirectory() as folder:
        training = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1,
            learning_rate=family.learning_rate,
            per_device_train_batch_size=family.batch_size,
            optimizer_cls="Adam",
        )
        model = VAE(config, encoder=Encoder(family), decoder=Decoder(family))
        trainer = BaseTrainer(model, BaseDataset(images, torch.zeros(num)), training_config=training)
        trainer.prepare_training()
        epoch = 0

        def take(steps: int) -> dict[str, Any]:
            nonlocal epoch
            epochs = max(1, round(steps / BATCHES_AN_EPOCH))
            start = time.perf_counter()
            for _ in range(epochs):
                epoch += 1
                trainer.train_step(epoch)  # an epoch, in pythae's words; it reads the loss of each batch
            return {"seconds": time.perf_counter() - start, "steps": epochs * BATCHES_AN_EPOCH}

        about = {
            "versions": {"pythae": getattr(pythae, "__version__", "unknown"), "torch": torch.__version__},
            "precision": "float32",
            "threads": torch.get_num_threads(),
        }
        protocol.serve(about, take, lambda: torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None)


if __name__ == "__main__":
    main()
