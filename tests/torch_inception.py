"""The FID's Inception v3 once more, in PyTorch's own functions, with weights and images made by a formula.

Run under an interpreter that has PyTorch; jaxgen and JAX are not needed there:

    python tests/torch_inception.py WEIGHTS.pth OUTPUTS.npz

writes the state dictionary, and features and logits of the images. The tests import the formulas alone.
"""

import sys
import zlib
from typing import Any

import numpy as np


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1), float64: a hash of their places, alike everywhere."""
    bits = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint32) + np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> np.uint32(shift))) * np.uint32(factor)
    bits = bits ^ (bits >> np.uint32(16))
    return (bits / 2.0**31 - 1.0).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of the state dictionary: kernels keep the size of what passes, statistics do a little to it."""
    values = uniform(name, shape)
    if len(shape) > 1:
        fan_in = np.prod(shape[1:])
        values = values * np.sqrt(3.0 * (2.0 if len(shape) == 4 else 1.0) / fan_in)
    elif name.endswith(("running_var", "bn.weight")):
        values = 1.0 + 0.3 * values
    else:
        values = 0.3 * values
    return values.astype(np.float32)


def images(num: int = 2, side: int = 32) -> np.ndarray:
    """Waves and noise, float32 [num, side, side, 3] in [0, 1]."""
    number, y, x, channel = np.meshgrid(*map(np.arange, (num, side, side, 3)), indexing="ij")
    waves = np.sin(0.2 * (1 + number) * y + 0.3 * channel) * np.cos(0.5 * x / (1 + number) - channel)
    return (0.5 + 0.3 * waves + 0.2 * uniform("images", waves.shape)).astype(np.float32)


def inception(images: np.ndarray) -> tuple[Any, Any, dict[str, Any]]:
    """(features, logits, the weights that were used) of images [B, H, W, 3] in [0, 1]."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    state: dict[str, Any] = {}

    def get(name: str, *shape: int) -> Any:
        state[name] = torch.from_numpy(weight(name, shape))
        return state[name]

    def conv(x: Any, name: str, outputs: int, kernel: Any = 1, stride: int = 1, padding: Any = 0) -> Any:
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        x = F.conv2d(x, get(f"{name}.conv.weight", outputs, x.shape[1], height, width), None, stride, padding)
        scale, shift = get(f"{name}.bn.weight", outputs), get(f"{name}.bn.bias", outputs)
        mean, var = get(f"{name}.bn.running_mean", outputs), get(f"{name}.bn.running_var", outputs)
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)
        return F.relu(F.batch_norm(x, mean, var, scale, shift, training=False, eps=0.001))

    def average(x: Any) -> Any:
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    def a(x: Any, name: str, pool: int) -> Any:
        one = conv(x, f"{name}.branch1x1", 64)
        five = conv(conv(x, f"{name}.branch5x5_1", 48), f"{name}.branch5x5_2", 64, 5, padding=2)
        three = conv(conv(x, f"{name}.branch3x3dbl_1", 64), f"{name}.branch3x3dbl_2", 96, 3, padding=1)
        three = conv(three, f"{name}.branch3x3dbl_3", 96, 3, padding=1)
        return torch.cat([one, five, three, conv(average(x), f"{name}.branch_pool", pool)], 1)

    def c(x: Any, name: str, n: int) -> Any:
        def across(x: Any, end: str, outputs: int) -> Any:
            return conv(x, f"{name}.{end}", outputs, (1, 7), padding=(0, 3))

        def down(x: Any, end: str, outputs: int) -> Any:
            return conv(x, f"{name}.{end}", outputs, (7, 1), padding=(3, 0))

        single = down(across(conv(x, f"{name}.branch7x7_1", n), "branch7x7_2", n), "branch7x7_3", 192)
        double = across(down(conv(x, f"{name}.branch7x7dbl_1", n), "branch7x7dbl_2", n), "branch7x7dbl_3", n)
        double = across(down(double, "branch7x7dbl_4", n), "branch7x7dbl_5", 192)
        one = conv(x, f"{name}.branch1x1", 192)
        return torch.cat([one, single, double, conv(average(x), f"{name}.branch_pool", 192)], 1)

    def e(x: Any, name: str, pooled: Any) -> Any:
        def both(x: Any, start: str) -> list[Any]:
            return [
                conv(x, f"{name}.{start}a", 384, (1, 3), padding=(0, 1)),
                conv(x, f"{name}.{start}b", 384, (3, 1), padding=(1, 0)),
            ]

        double = conv(conv(x, f"{name}.branch3x3dbl_1", 448), f"{name}.branch3x3dbl_2", 384, 3, padding=1)
        single = both(conv(x, f"{name}.branch3x3_1", 384), "branch3x3_2")
        last = conv(pooled, f"{name}.branch_pool", 192)
        return torch.cat([conv(x, f"{name}.branch1x1", 320), *single, *both(double, "branch3x3dbl_3"), last], 1)

    with torch.no_grad():
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        x = 2 * F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1
        x = conv(conv(x, "Conv2d_1a_3x3", 32, 3, 2), "Conv2d_2a_3x3", 32, 3)
        x = F.max_pool2d(conv(x, "Conv2d_2b_3x3", 64, 3, padding=1), 3, 2)
        x = F.max_pool2d(conv(conv(x, "Conv2d_3b_1x1", 80), "Conv2d_4a_3x3", 192, 3), 3, 2)
        x = a(a(a(x, "Mixed_5b", 32), "Mixed_5c", 64), "Mixed_5d", 64)
        double = conv(conv(x, "Mixed_6a.branch3x3dbl_1", 64), "Mixed_6a.branch3x3dbl_2", 96, 3, padding=1)
        double = conv(double, "Mixed_6a.branch3x3dbl_3", 96, 3, 2)
        x = torch.cat([conv(x, "Mixed_6a.branch3x3", 384, 3, 2), double, F.max_pool2d(x, 3, 2)], 1)
        x = c(c(c(c(x, "Mixed_6b", 128), "Mixed_6c", 160), "Mixed_6d", 160), "Mixed_6e", 192)
        three = conv(conv(x, "Mixed_7a.branch3x3_1", 192), "Mixed_7a.branch3x3_2", 320, 3, 2)
        seven = conv(conv(x, "Mixed_7a.branch7x7x3_1", 192), "Mixed_7a.branch7x7x3_2", 192, (1, 7), padding=(0, 3))
        seven = conv(seven, "Mixed_7a.branch7x7x3_3", 192, (7, 1), padding=(3, 0))
        seven = conv(seven, "Mixed_7a.branch7x7x3_4", 192, 3, 2)
        x = torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)
        x = e(x, "Mixed_7b", average(x))
        x = e(x, "Mixed_7c", F.max_pool2d(x, 3, 1, 1))
        features = x.mean((2, 3))
        logits = F.linear(features, get("fc.weight", 1008, 2048), get("fc.bias", 1008))
    return features.numpy(), logits.numpy(), state


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    features, logits, state = inception(images())
    torch.save(state, sys.argv[1])
    np.savez(sys.argv[2], features=features, logits=logits)
