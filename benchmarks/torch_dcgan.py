"""The peer of dcgan.py: the same step in PyTorch, eager, run under an interpreter that has PyTorch.

It reads a number of steps from each line of its input, takes that many, and answers with the seconds they took. The
same layers, initialisation, losses, optimizer and passes as jaxgen's step:

1. fakes = G(z), once a step, its graph kept;
2. D on the real images, D on the detached fakes, backward to D's parameters, Adam;
3. the updated D on the same fakes, its parameters frozen, backward through it to G's parameters, Adam.
"""

import argparse
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional


class Generator(nn.Module):
    """Latents to images in [0, 1]: 7 x 7, 14 x 14, 28 x 28."""

    def __init__(self, latent_dim: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Linear(latent_dim, 7 * 7 * 2 * width, bias=False)
        self.norm_0 = nn.BatchNorm2d(2 * width)
        self.up_1 = nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(width)
        self.output = nn.ConvTranspose2d(width, 1, 4, 2, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Images [B, 1, 28, 28] of latents [B, D]."""
        x = self.project(z).view(-1, 2 * self.width, 7, 7)
        x = functional.relu(self.norm_0(x))
        x = functional.relu(self.norm_1(self.up_1(x)))
        return torch.sigmoid(self.output(x))


class Discriminator(nn.Module):
    """Images in [0, 1] to one logit each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down_0 = nn.Conv2d(1, width, 4, 2, 1)
        self.down_1 = nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(2 * width)
        self.logit = nn.Linear(7 * 7 * 2 * width, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B] of images [B, 1, 28, 28]."""
        x = functional.leaky_relu(self.down_0(2.0 * x - 1.0), 0.2)
        x = functional.leaky_relu(self.norm_1(self.down_1(x)), 0.2)
        return self.logit(x.flatten(1))[:, 0]


def initialize(module: nn.Module) -> None:
    """Kernels from a normal distribution of standard deviation 0.02."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)


def main() -> None:
    """Answer each line of the input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--latent-dim", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    generator = Generator(options.latent_dim, options.width).apply(initialize).to(memory_format=layout)
    discriminator = Discriminator(options.width).apply(initialize).to(memory_format=layout)
    adam_g, adam_d = (
        torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)
        for network in (generator, discriminator)
    )
    images = torch.randint(0, 256, (options.batch_size, 1, 28, 28), dtype=torch.uint8).to(memory_format=layout)

    def step() -> torch.Tensor:
        fakes = generator(torch.randn(options.batch_size, options.latent_dim))
        real = images.float() / 255.0
        discriminator.requires_grad_(True)
        loss = (
            functional.softplus(-discriminator(real)).mean() + functional.softplus(discriminator(fakes.detach())).mean()
        )
        adam_d.zero_grad()
        loss.backward()
        adam_d.step()
        discriminator.requires_grad_(False)
        adam_g.zero_grad()
        functional.softplus(-discriminator(fakes)).mean().backward()
        adam_g.step()
        return loss

    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            loss = step()
        loss.item()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
