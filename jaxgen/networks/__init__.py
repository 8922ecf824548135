"""Networks: Flax Linen modules with the call signatures that the steps expect, and nothing else."""

from jaxgen.networks.layers import Dropout
from jaxgen.networks.mlp import MLPDecoder, MLPDiscriminator, MLPEncoder, MLPGenerator, leaky_relu
from jaxgen.networks.nnx import FromNNX, from_nnx

__all__ = [
    "Dropout",
    "FromNNX",
    "MLPDecoder",
    "MLPDiscriminator",
    "MLPEncoder",
    "MLPGenerator",
    "from_nnx",
    "leaky_relu",
]
