"""A discriminator that judges patches of an image, not the whole: PatchGAN."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.intervals import Count
from jaxgen.networks.convolution import Conv
from jaxgen.networks.layers import BatchNorm, GroupNorm
from jaxgen.networks.mlp import leaky_relu
from jaxgen.networks.network import Network

_INIT = nn.initializers.normal(0.02)  # Isola et al. 2017, section 6.2


class PatchDiscriminator(Network):
    """Images to one logit for each patch of 9 * 2^num_layers - 2 pixels: PatchGAN, by convolutions of 4 x 4 alone.

    ``num_layers`` convolutions of stride 2 and one of stride 1, each before a leaky ReLU; then the logits'. Patches are
    34 pixels wide with two layers of stride 2 and 70 with three, and lie 2^num_layers pixels apart; what of one is
    beyond the image is zero.

    Args:
      width: channels of the layer next to the image; they double with every layer, up to eightfold.
      num_layers: number of layers that halve the image.
      normalization: "batch" or "group" to normalise all layers but the first and the last, "spectral" to divide every
        kernel by its spectral norm, or None.
      dtype: type of the computation; parameters, statistics and logits are float32.
      axis_name: mapped axis or axes over which the global batch is split; the step sets it.

    Called as ``discriminator(x [B, H, W, C], *, train)``, H and W at least 3 * 2^num_layers; returns logits [B, h, w],
    h = floor(H / 2^num_layers) - 2.

    References:
      Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", section 3.2.2 and appendix
      6.1.2.
    """

    width: Count = 64
    num_layers: Count = 3
    normalization: Literal["batch", "group", "spectral"] | None = "batch"
    dtype: str = "float32"
    axis_name: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalization not in ("batch", "group", "spectral", None):
            raise ValueError(
                "PatchDiscriminator.normalization must be 'batch', 'group', 'spectral' or None, got "
                f"{self.normalization!r}"
            )

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self._layers(x, train)[-1][..., 0].astype(jnp.float32)

    def features(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """What each layer makes of images but the last, [B, H, W, C] -> [B, h, w, c] each, from the images down.

        Called by ``apply(..., method="features")``, with ``train`` as elsewhere. Distances of them are those of Larsen
        et al. 2016, "Autoencoding beyond Pixels Using a Learned Similarity Metric", equation 6.
        """
        return tuple(self._layers(x, train)[:-1])

    @nn.compact
    def _layers(self, x: jax.Array, train: bool) -> list[jax.Array]:
        """What each layer makes of images."""
        if x.ndim != 4 or min(x.shape[1:3]) < 3 * 2**self.num_layers:
            raise ValueError(
                f"PatchDiscriminator(num_layers={self.num_layers}) takes images [B, H, W, C] of at least "
                f"{3 * 2**self.num_layers} pixels a side, got {list(x.shape)}: give it fewer layers, or larger images"
            )

        def conv(x: jax.Array, features: int, stride: int, name: str, use_bias: bool = True) -> jax.Array:
            layer = Conv(
                features,
                (4, 4),
                (stride, stride),
                ((1, 1), (1, 1)),
                use_bias=use_bias,
                kernel_init=_INIT,
                dtype=self.dtype,
                spectral_norm=self.normalization == "spectral",
                axis_name=self.axis_name,
                name=name,
            )
            return layer(x, train=train)

        x = 2.0 * x - 1.0
        made = []
        for number in range(self.num_layers + 1):
            features, stride = self.width * 2 ** min(number, 3), 1 if number == self.num_layers else 2
            normalized = number > 0 and self.normalization in ("batch", "group")
            x = conv(x, features, stride, f"layer_{number}", use_bias=not normalized)
            if normalized and self.normalization == "batch":
                x = BatchNorm(self.axis_name, dtype=self.dtype, name=f"norm_{number}")(x, train=train)
            elif normalized:
                x = GroupNorm(dtype=self.dtype, name=f"norm_{number}")(x)
            x = leaky_relu(x)
            made.append(x)
        return [*made, conv(x, 1, 1, "output")]
