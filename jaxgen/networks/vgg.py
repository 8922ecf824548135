"""The convolutions of VGG16, on whose maps the perceptual distance LPIPS compares images."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.networks.convolution import Conv
from jaxgen.networks.lenet import halve
from jaxgen.networks.network import Network

_CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Of ImageNet's pixels in [-1, 1], as LPIPS rounds them: mean and standard deviation.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_INIT = nn.initializers.he_normal()


class VGG16(Network):
    """Images to the five maps of VGG16 that LPIPS compares: relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.

    Thirteen convolutions of 3 x 3, each before a ReLU, in five groups of 64, 128, 256, 512 and 512 channels, and the
    maximum of each 2 x 2 pixels between the groups; before them (2 x - 1 - shift) / scale, as LPIPS does it. Its
    weights are to be had by `jaxgen.perceptual.vgg16`.

    Args:
      dtype: type of the computation; parameters and maps are float32.

    Called as ``network(x [B, H, W, 3])``, floats in [0, 1], H and W at least 16; grey images [B, H, W, 1] are repeated
    to three channels. Returns five maps [B, h, w, c].

    References:
      Simonyan & Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition", table 1,
      configuration D. Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        if x.ndim != 4 or x.shape[3] not in (1, 3) or min(x.shape[1:3]) < 16:
            raise ValueError(
                "VGG16 takes images [B, H, W, 3], or grey ones [B, H, W, 1], of at least 16 pixels a side, got "
                f"{list(x.shape)}: resize them"
            )
        x = jnp.broadcast_to(x, (*x.shape[:3], 3))
        shift, scale = (jnp.asarray(values)[None, None, None] for values in (_SHIFT, _SCALE))
        x = (2.0 * x - 1.0 - shift) / scale
        maps: list[jax.Array] = []
        for group, widths in enumerate(_CHANNELS, 1):
            x = halve(x) if maps else x
            for number, channels in enumerate(widths, 1):
                name = f"conv_{group}_{number}"
                x = nn.relu(Conv(channels, (3, 3), dtype=self.dtype, kernel_init=_INIT, name=name)(x))
            maps.append(x.astype(jnp.float32))
        return tuple(maps)

    def features(self, x: jax.Array, *, train: bool = False) -> tuple[jax.Array, ...]:
        """The same five maps [B, h, w, c] of images x [B, H, W, 3], by ``apply(..., method="features")``.

        ``train`` makes no difference.
        """
        return self(x)
