"""Networks: Flax Linen modules with the call signatures that the steps expect, and nothing else."""

from jaxgen.networks.autoencoder import AutoencoderDecoder, AutoencoderEncoder
from jaxgen.networks.bottlenecks import Bottled, FSQBottleneck, KLBottleneck, LFQBottleneck
from jaxgen.networks.codebook import VQBottleneck
from jaxgen.networks.conditioning import Projection
from jaxgen.networks.convolution import Conv, ConvTranspose, conv, conv_transpose
from jaxgen.networks.dcgan import ConvDecoder, ConvEncoder, DCGANDiscriminator, DCGANGenerator, Judgement, num_halvings
from jaxgen.networks.grids import GridDiscriminator, GridGenerator
from jaxgen.networks.inception import InceptionV3
from jaxgen.networks.infogan import InfoGANDiscriminator, InfoGANGenerator
from jaxgen.networks.layers import BatchNorm, Dropout, GroupNorm, MinibatchStandardDeviation, SpectralNorm
from jaxgen.networks.lenet import LeNet
from jaxgen.networks.mlp import (
    Maxout,
    MaxoutDiscriminator,
    MLPDecoder,
    MLPDiscriminator,
    MLPEncoder,
    MLPGaussian,
    MLPGenerator,
    leaky_relu,
)
from jaxgen.networks.nnx import FromNNX, from_nnx
from jaxgen.networks.patches import PatchDiscriminator
from jaxgen.networks.priors import VampPrior
from jaxgen.networks.resnet import ResNetDiscriminator, ResNetGenerator
from jaxgen.networks.vgg import VGG16

__all__ = [
    "VGG16",
    "AutoencoderDecoder",
    "AutoencoderEncoder",
    "BatchNorm",
    "Bottled",
    "Conv",
    "ConvDecoder",
    "ConvEncoder",
    "ConvTranspose",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "Dropout",
    "FSQBottleneck",
    "FromNNX",
    "GridDiscriminator",
    "GridGenerator",
    "GroupNorm",
    "InceptionV3",
    "InfoGANDiscriminator",
    "InfoGANGenerator",
    "Judgement",
    "KLBottleneck",
    "LFQBottleneck",
    "LeNet",
    "MLPDecoder",
    "MLPDiscriminator",
    "MLPEncoder",
    "MLPGaussian",
    "MLPGenerator",
    "Maxout",
    "MaxoutDiscriminator",
    "MinibatchStandardDeviation",
    "PatchDiscriminator",
    "Projection",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "SpectralNorm",
    "VQBottleneck",
    "VampPrior",
    "conv",
    "conv_transpose",
    "from_nnx",
    "leaky_relu",
    "num_halvings",
]
