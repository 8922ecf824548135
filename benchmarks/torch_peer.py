"""The same steps in PyTorch, run under an interpreter that has it and need not have JAX.

The same layers, initialisation, losses, optimizer and passes as jaxgen's steps. A VAE's is one pass with one backward.
A GAN's:

1. fakes = G(z), once a step, its graph kept;
2. D on the real images, D on the detached fakes, backward to D's parameters, Adam;
3. the updated D on the same fakes, its parameters frozen, backward through it to G's parameters, Adam.

The data set lies on the device as bytes, and each batch is gathered there. A variant is one or more of these, joined by
plus signs: ``eager``; ``compile``, the losses compiled with their forward passes; ``graphs``, the same replayed as CUDA
graphs; ``channels_last``; ``amp``, bfloat16 where autocast has it.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks import families, protocol
from benchmarks.families import Family
from benchmarks.torch_networks import (
    VAE,
    Discriminator,
    Generator,
    MLPDiscriminator,
    MLPGenerator,
    PatchDiscriminator,
    ResNetDiscriminator,
    ResNetGenerator,
    Tokenizer,
    radford,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Step = Callable[[], torch.Tensor]


def batches(family: Family, layout: Any) -> Callable[[], torch.Tensor]:
    """Each call gathers the next batch, as floats."""
    height, width, channels = family.image_shape
    if family.convolutional:
        shape: tuple[int, ...] = (family.num_examples, channels, height, width)
        images = torch.randint(0, 256, shape, dtype=torch.uint8).to(DEVICE).to(memory_format=layout)
    else:
        images = torch.randint(0, 256, (family.num_examples, family.num_pixels), dtype=torch.uint8).to(DEVICE)
    order = torch.empty(0, dtype=torch.int64)
    place = 0

    def gather() -> torch.Tensor:
        nonlocal order, place
        if place + family.batch_size > len(order):
            order, place = torch.randperm(len(images), device=DEVICE), 0
        x = images[order[place : place + family.batch_size]].float() / 255.0
        place += family.batch_size
        return torch.bernoulli(x) if family.binarized else x

    return gather


def compiler(parts: set[str]) -> Callable[[Any], Any]:
    """What the variant does to a function."""
    if "graphs" in parts:
        return lambda function: torch.compile(function, mode="reduce-overhead")
    return torch.compile if "compile" in parts else lambda function: function


def autocast(parts: set[str]) -> Any:
    """A context in which products take bfloat16, where the variant says so."""
    return torch.autocast(DEVICE, torch.bfloat16) if "amp" in parts else contextlib.nullcontext()


def optimizer_of(family: Family, network: nn.Module) -> torch.optim.Optimizer:
    """Fused Adam."""
    return torch.optim.Adam(network.parameters(), lr=family.learning_rate, betas=(family.b1, 0.999), fused=True)


def num_parameters(*networks: nn.Module) -> int:
    """Parameters of networks."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def vae_step(family: Family, parts: set[str]) -> tuple[Step, int]:
    """A step of a VAE, and its parameters."""
    vae = VAE(family).to(DEVICE)
    adam, gather, loss_of = optimizer_of(family, vae), batches(family, None), compiler(parts)(vae)

    def step() -> torch.Tensor:
        with autocast(parts):
            loss = loss_of(gather())
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    return step, num_parameters(vae)


def gan_step(family: Family, parts: set[str]) -> tuple[Step, int]:
    """A step of a GAN, and its parameters."""
    layout = torch.channels_last if "channels_last" in parts else torch.contiguous_format
    if family.kind == "gan":
        generator: nn.Module = MLPGenerator(family)
        discriminator: nn.Module = MLPDiscriminator(family)
    elif family.kind == "resnet":
        generator, discriminator = ResNetGenerator(family), ResNetDiscriminator(family)
    else:
        generator, discriminator = Generator(family).apply(radford), Discriminator(family).apply(radford)
    generator, discriminator = (each.to(DEVICE).to(memory_format=layout) for each in (generator, discriminator))
    adam_g, adam_d = optimizer_of(family, generator), optimizer_of(family, discriminator)
    gather = batches(family, layout)
    amp = autocast(parts)

    hinge = family.loss == "hinge"

    def discriminator_loss(real: torch.Tensor, fakes: torch.Tensor) -> torch.Tensor:
        if hinge:
            return (
                functional.relu(1.0 - discriminator(real)).mean() + functional.relu(1.0 + discriminator(fakes)).mean()
            )
        return functional.softplus(-discriminator(real)).mean() + functional.softplus(discriminator(fakes)).mean()

    def generator_loss(fakes: torch.Tensor) -> torch.Tensor:
        if hinge:
            return -discriminator(fakes).mean()
        return functional.softplus(-discriminator(fakes)).mean()

    make = compiler(parts)
    generate, loss_of_d, loss_of_g = make(generator), make(discriminator_loss), make(generator_loss)

    def step() -> torch.Tensor:
        with amp:
            fakes = generate(torch.randn(family.batch_size, family.latent_dim, device=DEVICE))
            discriminator.requires_grad_(True)
            loss = loss_of_d(gather(), fakes.detach())
        adam_d.zero_grad()
        loss.backward()
        adam_d.step()
        discriminator.requires_grad_(False)
        with amp:
            other = loss_of_g(fakes)
        adam_g.zero_grad()
        other.backward()
        adam_g.step()
        return loss

    return step, num_parameters(generator, discriminator)


def tokenizer_step(family: Family, parts: set[str]) -> tuple[Step, int]:
    """A step of a tokenizer: one pass of the autoencoder, the discriminator's update, and the autoencoder's."""
    layout = torch.channels_last if "channels_last" in parts else torch.contiguous_format
    tokenizer = Tokenizer(family).to(DEVICE).to(memory_format=layout)
    gather, make, amp = batches(family, layout), compiler(parts), autocast(parts)
    adam, rebuild = optimizer_of(family, tokenizer), make(tokenizer)
    if family.discriminator_width == 0:

        def alone() -> torch.Tensor:
            with amp:
                x = gather()
                loss = 10.0 * (rebuild(x) - x).abs().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            return loss

        return alone, num_parameters(tokenizer)
    discriminator = PatchDiscriminator(family).apply(radford).to(DEVICE).to(memory_format=layout)
    adam_d = optimizer_of(family, discriminator)

    def discriminator_loss(real: torch.Tensor, fakes: torch.Tensor) -> torch.Tensor:
        return functional.relu(1.0 - discriminator(real)).mean() + functional.relu(1.0 + discriminator(fakes)).mean()

    def generator_loss(fakes: torch.Tensor) -> torch.Tensor:
        return -discriminator(fakes).mean()

    loss_of_d, loss_of_g = make(discriminator_loss), make(generator_loss)

    def step() -> torch.Tensor:
        with amp:
            x = gather()
            y = rebuild(x)
            discriminator.requires_grad_(True)
            judged = loss_of_d(x, y.detach())
        adam_d.zero_grad()
        judged.backward()
        adam_d.step()
        discriminator.requires_grad_(False)
        with amp:
            loss = 10.0 * (y - x).abs().mean() + 0.02 * loss_of_g(y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    return step, num_parameters(tokenizer, discriminator)


def product_precision() -> str:
    """What a float32 matrix product is computed in here, found by what it rounds away."""

    def kept(exponent: int) -> bool:
        x = torch.full((512, 512), 1.0 + 2.0**-exponent, device=DEVICE)
        return bool((x @ torch.eye(512, device=DEVICE)).max() > 1.0 + 2.0 ** -(exponent + 1))

    return "float32" if kept(20) else "TF32" if kept(10) else "bfloat16"


def main() -> None:
    """Answer each line of the input."""
    options = protocol.arguments().parse_args()
    family = families.read(options.family, options.changes)
    parts = set(options.variant.split("+"))
    torch.set_num_threads(protocol.num_cores())
    torch.set_float32_matmul_precision("high")  # TF32 where the chip has it, as JAX takes it
    torch.manual_seed(0)
    make = {"vae": vae_step, "tokenizer": tokenizer_step}.get(family.kind, gan_step)
    step, parameters = make(family, parts)

    def take(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            if "graphs" in parts:
                torch.compiler.cudagraph_mark_step_begin()
            loss = step()
        loss.item()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    about = {
        "versions": {"torch": torch.__version__},
        "precision": "bfloat16" if "amp" in parts else product_precision(),
        "threads": torch.get_num_threads(),
        "parameters": parameters,
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
    }
    protocol.serve(about, take, lambda: torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None)


if __name__ == "__main__":
    main()
