"""A tokenizer of 1,024 codes in a learnt book, 7 x 7 of them an image, for all of Fashion-MNIST.

jaxgen train tokenizer --config tokenizer_vq
"""

from jaxgen.cli.tokenizer_options import TokenizerOptions

options = TokenizerOptions(
    dataset="fashion_mnist",
    bottleneck="vq",
    channels=8,
    steps=3000,
    extractor="lenet_fashion_mnist",
)
