"""A tokenizer of continuous latents, 7 x 7 x 4, for all of Fashion-MNIST.

jaxgen train tokenizer --config tokenizer_kl
"""

from jaxgen.cli.tokenizer_options import TokenizerOptions

options = TokenizerOptions(
    dataset="fashion_mnist",
    bottleneck="kl",
    steps=3000,
    extractor="lenet_fashion_mnist",
)
