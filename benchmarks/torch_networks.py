"""The networks of the families in PyTorch: the same layers and initialisation as ours."""

import itertools
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from benchmarks.families import Family


class Activation(nn.Module):
    """The activation of the hidden layers."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        if self.name == "leaky_relu":
            return functional.leaky_relu(x, 0.2)
        return functional.relu(x) if self.name == "relu" else torch.tanh(x)


def mlp(sizes: tuple[int, ...], activation: str, last: bool) -> nn.Sequential:
    """Fully connected layers with an activation after each, or after each but the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        # A normal distribution cut at two standard deviations, of variance 1 / inputs after the cut.
        deviation = inputs**-0.5 / 0.87962566103423978
        nn.init.trunc_normal_(linear.weight, 0.0, deviation, -2.0 * deviation, 2.0 * deviation)
        nn.init.zeros_(linear.bias)
        layers += [linear, Activation(activation)]
    return nn.Sequential(*(layers if last else layers[:-1]))


class VAE(nn.Module):
    """Encoder and decoder, and their loss."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.encoder = mlp((family.num_pixels, *family.hidden), family.activation, last=True)
        self.mean, self.logvar = (
            mlp((family.hidden[-1], family.latent_dim), family.activation, last=False) for _ in range(2)
        )
        sizes = (family.latent_dim, *family.hidden[::-1], family.num_pixels)
        self.decoder = mlp(sizes, family.activation, last=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The negative ELBO of images [B, D], averaged."""
        h = self.encoder(x)
        mean, logvar = self.mean(h).float(), self.logvar(h).float()
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        reconstruction = functional.binary_cross_entropy_with_logits(self.decoder(z).float(), x, reduction="sum")
        kl = 0.5 * torch.sum(torch.exp(logvar) + mean.square() - 1.0 - logvar)
        return (reconstruction + kl) / x.shape[0]


class Generator(nn.Module):
    """Latents to images in [0, 1] through transposed convolutions."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        channels = family.width * 2 ** (family.halvings - 1)
        side = family.image_shape[0] >> family.halvings
        self.corner = (channels, side, side)
        self.project = nn.Linear(family.latent_dim, channels * side * side, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels), nn.ReLU()]
        for _ in range(family.halvings - 1):
            up = nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False)
            channels //= 2
            layers += [up, nn.BatchNorm2d(channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(channels, family.image_shape[2], 4, 2, 1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] of latents [B, D]."""
        x = self.project(z).view(-1, *self.corner)
        return torch.sigmoid(self.layers(x).float())


class Discriminator(nn.Module):
    """Images in [0, 1] to one logit each through strided convolutions."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        channels, layers = family.image_shape[2], []
        for number in range(family.halvings):
            features = family.width * 2**number
            layers.append(nn.Conv2d(channels, features, 4, 2, 1, bias=number == 0))
            if number > 0:
                layers.append(nn.BatchNorm2d(features))
            layers.append(nn.LeakyReLU(0.2))
            channels = features
        side = family.image_shape[0] >> family.halvings
        self.layers = nn.Sequential(*layers)
        self.logit = nn.Linear(channels * side * side, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B] of images [B, C, H, W]."""
        return self.logit(self.layers(2.0 * x - 1.0).flatten(1))[:, 0].float()


def spread(module: Any, gain: float = 2.0) -> Any:
    """A kernel from a normal distribution cut at two standard deviations, of variance gain / inputs after the cut."""
    deviation = (gain / module.weight[0].numel()) ** 0.5 / 0.87962566103423978
    nn.init.trunc_normal_(module.weight, 0.0, deviation, -2.0 * deviation, 2.0 * deviation)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


class Block(nn.Module):
    """resize(shortcut(x)) + branch(x): two activated 3 x 3 convolutions, the image doubled before or halved after."""

    def __init__(self, channels: int, features: int, enlarges: bool) -> None:
        super().__init__()
        self.enlarges = enlarges

        def conv(inputs: int, size: int, bias: bool) -> nn.Module:
            module = spread(nn.Conv2d(inputs, features, size, 1, size // 2, bias=bias))
            return module if enlarges else spectral_norm(module)

        self.norms = nn.ModuleList([nn.BatchNorm2d(n) if enlarges else nn.Identity() for n in (channels, features)])
        self.first, self.second = conv(channels, 3, not enlarges), conv(features, 3, True)
        self.shortcut = conv(channels, 1, False) if channels != features else nn.Identity()

    def resize(self, x: torch.Tensor) -> torch.Tensor:
        """Twice the size by repeating pixels, or half of it by their mean."""
        return functional.interpolate(x, scale_factor=2.0) if self.enlarges else functional.avg_pool2d(x, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, C', 2H, 2W] or [B, C', H / 2, W / 2]."""
        h = functional.leaky_relu(self.norms[0](x), 0.2)
        h = self.first(self.resize(h) if self.enlarges else h)
        h = self.second(functional.leaky_relu(self.norms[1](h), 0.2))
        return self.resize(self.shortcut(x)) + (h if self.enlarges else self.resize(h))


class ResNetGenerator(nn.Module):
    """Latents to images in [0, 1] through residual blocks."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        sizes = [family.width * 2 ** min(n, 3) for n in reversed(range(family.halvings))]
        side = family.image_shape[0] >> family.halvings
        self.corner = (sizes[0], side, side)
        self.project = spread(nn.Linear(family.latent_dim, sizes[0] * side * side))
        self.blocks = nn.Sequential(*(Block(i, o, True) for i, o in itertools.pairwise([sizes[0], *sizes])))
        self.norm = nn.BatchNorm2d(sizes[-1])
        self.output = spread(nn.Conv2d(sizes[-1], family.image_shape[2], 3, 1, 1), 1.0)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] of latents [B, D]."""
        x = self.norm(self.blocks(self.project(z).view(-1, *self.corner)))
        return torch.sigmoid(self.output(functional.leaky_relu(x, 0.2)).float())


class ResNetDiscriminator(nn.Module):
    """Images in [0, 1] to one logit each through residual blocks, every kernel divided by its spectral norm."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        sizes = [family.width * 2 ** min(n, 3) for n in range(family.halvings + 1)]
        side = family.image_shape[0] >> family.halvings
        self.stem = spectral_norm(spread(nn.Conv2d(family.image_shape[2], sizes[0], 3, 1, 1)))
        self.blocks = nn.Sequential(*(Block(i, o, False) for i, o in itertools.pairwise(sizes)))
        logit = nn.Linear(sizes[-1] * side * side, 1, bias=False)
        nn.init.normal_(logit.weight, 0.0, 0.02)
        self.logit = spectral_norm(logit)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B] of images [B, C, H, W]."""
        x = functional.leaky_relu(self.blocks(self.stem(2.0 * x - 1.0)), 0.2)
        return self.logit(x.flatten(1))[:, 0].float()


class AutoencoderBlock(nn.Module):
    """x -> shortcut(x) + two convolutions of 3 x 3, each behind GroupNorm and swish."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(32, n, 1e-6) for n in (channels, features)])
        self.convs = nn.ModuleList([spread(nn.Conv2d(n, features, 3, 1, 1), 1.0) for n in (channels, features)])
        self.shortcut = spread(nn.Conv2d(channels, features, 1), 1.0) if channels != features else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, C', H, W]."""
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(functional.silu(norm(h)))
        return self.shortcut(x) + h


class Tokenizer(nn.Module):
    """Convolutional encoder and decoder of two halvings, and a grid of codes between them."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        width, channels, latents = family.width, family.image_shape[2], len(family.levels)
        self.encoder = nn.Sequential(
            spread(nn.Conv2d(channels, width, 3, 1, 1), 1.0),
            AutoencoderBlock(width, width),
            nn.ZeroPad2d((0, 1, 0, 1)),
            spread(nn.Conv2d(width, width, 3, 2), 1.0),
            AutoencoderBlock(width, 2 * width),
            nn.ZeroPad2d((0, 1, 0, 1)),
            spread(nn.Conv2d(2 * width, 2 * width, 3, 2), 1.0),
            AutoencoderBlock(2 * width, 2 * width),
            nn.GroupNorm(32, 2 * width, 1e-6),
            nn.SiLU(),
            spread(nn.Conv2d(2 * width, latents, 3, 1, 1), 1.0),
        )
        self.decoder = nn.Sequential(
            spread(nn.Conv2d(latents, 2 * width, 3, 1, 1), 1.0),
            AutoencoderBlock(2 * width, 2 * width),
            nn.Upsample(scale_factor=2),
            spread(nn.Conv2d(2 * width, 2 * width, 3, 1, 1), 1.0),
            AutoencoderBlock(2 * width, 2 * width),
            nn.Upsample(scale_factor=2),
            spread(nn.Conv2d(2 * width, 2 * width, 3, 1, 1), 1.0),
            AutoencoderBlock(2 * width, width),
            nn.GroupNorm(32, width, 1e-6),
            nn.SiLU(),
            spread(nn.Conv2d(width, channels, 3, 1, 1), 1.0),
        )
        self.register_buffer("levels", torch.tensor(family.levels, dtype=torch.float32)[:, None, None])

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        """Codes [B, c, h, w], each level of a channel in [-1, 1], with the gradient of what was rounded."""
        half = (self.levels - 1.0) * (1.0 - 1e-3) / 2.0
        offset = 0.5 * (self.levels % 2 == 0)
        bounded = torch.tanh(x + torch.tan(offset / half)) * half - offset
        return (bounded + (bounded.round() - bounded).detach()) / (self.levels // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reconstructions of images [B, C, H, W] in [0, 1]."""
        return 0.5 * (self.decoder(self.quantized(self.encoder(2.0 * x - 1.0).float())).float() + 1.0)


class PatchDiscriminator(nn.Module):
    """Images in [0, 1] to a logit for each patch."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        channels, layers = family.image_shape[2], []
        for number, stride in enumerate((2, 2, 1)):
            features = family.discriminator_width * 2**number
            layers += [nn.Conv2d(channels, features, 4, stride, 1), nn.LeakyReLU(0.2)]
            channels = features
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, 1, h, w] of images [B, C, H, W]."""
        return self.layers(2.0 * x - 1.0).float()


class MLPGenerator(nn.Module):
    """Latents to images in [0, 1] through fully connected layers."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.layers = mlp((family.latent_dim, *family.hidden, family.num_pixels), family.activation, last=False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Images [B, D'] of latents [B, D]."""
        return torch.sigmoid(self.layers(z).float())


class MLPDiscriminator(nn.Module):
    """Images to one logit each through fully connected layers."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.layers = mlp((family.num_pixels, *family.hidden, 1), family.activation, last=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B] of images [B, D]."""
        return self.layers(x)[:, 0].float()


def radford(module: nn.Module) -> None:
    """Kernels from a normal distribution of standard deviation 0.02."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
