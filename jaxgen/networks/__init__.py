"""Networks: Flax Linen modules with the call signatures that the steps expect, and nothing else."""

from jaxgen.networks.layers import Dropout
from jaxgen.networks.mlp import MLPDecoder, MLPDiscriminator, MLPEncoder, MLPGenerator, leaky_relu

__all__ = ["Dropout", "MLPDecoder", "MLPDiscriminator", "MLPEncoder", "MLPGenerator", "leaky_relu"]
