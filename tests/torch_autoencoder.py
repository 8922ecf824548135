"""diffusers' AutoencoderKL once more, in PyTorch's own layers, with its structure and its names; and VGG16 with LPIPS.

Run under an interpreter that has PyTorch; jaxgen and JAX are not needed there:

    python tests/torch_autoencoder.py autoencoder INPUTS.npz OUTPUTS.npz
    python tests/torch_autoencoder.py vgg INPUTS.npz OUTPUTS.npz

The first takes ``images`` and ``latents`` [B, H, W, C] and a state dictionary, and writes moments and images that it
makes with it; then the same with one of its own, which it writes too. The second takes ``a`` and ``b``, images in
[0, 1], and the weights of torchvision's and lpips's files, and writes maps and distances.
"""

import sys
from typing import Any

import numpy as np

GROUPS, WIDTHS, BLOCKS, LATENTS, CHANNELS = 4, (8, 16, 16), 2, 3, 3


def autoencoder() -> Any:
    """The network, initialised at random, biases and scales too."""
    import torch
    from torch import nn
    from torch.nn import functional as F  # noqa: N812

    def norm(channels: int) -> Any:
        return nn.GroupNorm(GROUPS, channels, eps=1e-6)

    class Resnet(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.norm1, self.conv1 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
            self.norm2, self.conv2 = norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
            if inputs != outputs:
                self.conv_shortcut = nn.Conv2d(inputs, outputs, 1)

        def forward(self, x: Any) -> Any:
            h = self.conv1(F.silu(self.norm1(x)))
            h = self.conv2(F.silu(self.norm2(h)))
            return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)

    class Attention(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.group_norm = norm(channels)
            self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
            self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Dropout(0.0)])

        def forward(self, x: Any) -> Any:
            h = self.group_norm(x).flatten(2).transpose(1, 2)
            h = F.scaled_dot_product_attention(self.to_q(h), self.to_k(h), self.to_v(h))
            return x + self.to_out[0](h).transpose(1, 2).reshape(x.shape)

    class Middle(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.resnets = nn.ModuleList([Resnet(channels, channels) for _ in range(2)])
            self.attentions = nn.ModuleList([Attention(channels)])

        def forward(self, x: Any) -> Any:
            return self.resnets[1](self.attentions[0](self.resnets[0](x)))

    class Resampling(nn.Module):
        def __init__(self, channels: int, down: bool) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 3, *((2, 0) if down else (1, 1)))
            self.down = down

        def forward(self, x: Any) -> Any:
            x = F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2.0, mode="nearest")
            return self.conv(x)

    class Level(nn.Module):
        def __init__(self, inputs: int, outputs: int, blocks: int, resampling: str | None) -> None:
            super().__init__()
            self.resnets = nn.ModuleList([Resnet(outputs if number else inputs, outputs) for number in range(blocks)])
            self.name = resampling
            if resampling is not None:
                setattr(self, resampling, nn.ModuleList([Resampling(outputs, resampling == "downsamplers")]))

        def forward(self, x: Any) -> Any:
            for resnet in self.resnets:
                x = resnet(x)
            return x if self.name is None else getattr(self, self.name)[0](x)

    class Half(nn.Module):
        def __init__(self, kind: str, widths: tuple[int, ...], blocks: int, inputs: int, outputs: int) -> None:
            super().__init__()
            self.conv_in = nn.Conv2d(inputs, widths[0], 3, padding=1)
            resampling = {"down": "downsamplers", "up": "upsamplers"}[kind]
            levels = [
                Level(widths[max(n - 1, 0)], width, blocks, resampling if n < len(widths) - 1 else None)
                for n, width in enumerate(widths)
            ]
            setattr(self, f"{kind}_blocks", nn.ModuleList(levels))
            self.mid_block = Middle(widths[-1] if kind == "down" else widths[0])
            self.conv_norm_out = norm(widths[-1])
            self.conv_out = nn.Conv2d(widths[-1], outputs, 3, padding=1)
            self.kind = kind

        def forward(self, x: Any) -> Any:
            x = self.conv_in(x)
            x = self.mid_block(x) if self.kind == "up" else x
            for level in getattr(self, f"{self.kind}_blocks"):
                x = level(x)
            x = self.mid_block(x) if self.kind == "down" else x
            return self.conv_out(F.silu(self.conv_norm_out(x)))

    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Half("down", WIDTHS, BLOCKS, CHANNELS, 2 * LATENTS)
            self.decoder = Half("up", WIDTHS[::-1], BLOCKS + 1, LATENTS, CHANNELS)
            self.quant_conv = nn.Conv2d(2 * LATENTS, 2 * LATENTS, 1)
            self.post_quant_conv = nn.Conv2d(LATENTS, LATENTS, 1)

    network = Autoencoder()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return network


def made(network: Any, images: Any, latents: Any) -> dict[str, np.ndarray]:
    """Moments [B, h, w, 2 c] of images in [0, 1], and images in [-1, 1] of latents."""
    encoded = network.quant_conv(network.encoder(2.0 * images - 1.0))
    decoded = network.decoder(network.post_quant_conv(latents))
    return {"moments": encoded.permute(0, 2, 3, 1).numpy(), "decoded": decoded.permute(0, 2, 3, 1).numpy()}


def of_autoencoder(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import torch

    torch.manual_seed(0)
    network = autoencoder()
    inputs = [torch.from_numpy(given.pop(name)).permute(0, 3, 1, 2) for name in ("images", "latents")]
    own = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    outputs = {f"own.{name}": array for name, array in made(network, *inputs).items()}
    network.load_state_dict({name: torch.from_numpy(array) for name, array in given.items()}, strict=True)
    return {**outputs, **own, **{f"given.{name}": array for name, array in made(network, *inputs).items()}}


def of_vgg(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import torch
    from torch.nn import functional as F  # noqa: N812

    def maps(images: np.ndarray) -> list[Any]:
        x = 2.0 * torch.from_numpy(images).permute(0, 3, 1, 2) - 1.0
        shift, scale = (torch.tensor(v)[None, :, None, None] for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
        x = (x - shift) / scale
        found = []
        for place in range(31):  # torchvision's sequence: convolutions, rectifiers and maxima by their numbers
            if f"features.{place}.weight" in given:
                weight, bias = (torch.from_numpy(given[f"features.{place}.{kind}"]) for kind in ("weight", "bias"))
                x = F.conv2d(x, weight, bias, padding=1)
            elif place in (4, 9, 16, 23, 30):
                found.append(x)
                x = F.max_pool2d(x, 2, 2) if place < 30 else x
            else:
                x = F.relu(x)
        return found

    both = [maps(given[name]) for name in "ab"]
    distance: Any = 0.0
    for number, (a, b) in enumerate(zip(*both, strict=True)):
        a, b = (x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b))
        distance = distance + F.conv2d((a - b).square(), torch.from_numpy(given[f"lin{number}.model.1.weight"])).mean(
            (1, 2, 3)
        )
    outputs = {f"map_{number}": found.permute(0, 2, 3, 1).numpy() for number, found in enumerate(both[0])}
    return {**outputs, "distance": distance.numpy()}


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    with np.load(sys.argv[2]) as archive, torch.no_grad():
        outputs: Any = {"autoencoder": of_autoencoder, "vgg": of_vgg}[sys.argv[1]](dict(archive))
        np.savez(sys.argv[3], **outputs)
