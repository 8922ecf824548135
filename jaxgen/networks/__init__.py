"""Networks: Flax Linen modules with the call signatures that the steps expect, and nothing else."""

from jaxgen.networks.convolution import Conv, ConvTranspose, conv, conv_transpose
from jaxgen.networks.layers import Dropout
from jaxgen.networks.mlp import MLPDecoder, MLPDiscriminator, MLPEncoder, MLPGenerator, leaky_relu
from jaxgen.networks.nnx import FromNNX, from_nnx

__all__ = [
    "Conv",
    "ConvTranspose",
    "Dropout",
    "FromNNX",
    "MLPDecoder",
    "MLPDiscriminator",
    "MLPEncoder",
    "MLPGenerator",
    "conv",
    "conv_transpose",
    "from_nnx",
    "leaky_relu",
]
