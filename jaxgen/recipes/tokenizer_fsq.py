"""A tokenizer of 1,000 codes without a codebook, 7 x 7 of them an image, for all of Fashion-MNIST.

jaxgen train tokenizer --config tokenizer_fsq

With ``--dtype bfloat16``, one seed: rFD-LeNet of the 10,000 test images 3.75, squared error 0.0043 (PSNR 23.7 dB), all
codes used, perplexity 516; 27 minutes on two cores of a Zen 4 that other programs used as well.
"""

from jaxgen.cli.tokenizer_options import TokenizerOptions

options = TokenizerOptions(
    dataset="fashion_mnist",
    bottleneck="fsq",
    steps=3000,
    extractor="lenet_fashion_mnist",
)
