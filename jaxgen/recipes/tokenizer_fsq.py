"""A tokenizer of 1,000 codes without a codebook, 7 x 7 of them an image, for all of Fashion-MNIST.

jaxgen train tokenizer --config tokenizer_fsq
"""

from jaxgen.cli.tokenizer_options import TokenizerOptions

options = TokenizerOptions(
    dataset="fashion_mnist",
    bottleneck="fsq",
    steps=3000,
    extractor="lenet_fashion_mnist",
)
