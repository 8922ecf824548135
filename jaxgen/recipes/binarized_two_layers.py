"""Two stochastic layers on fixed binarised MNIST: 100 latents under 50, the rest as ``binarized_vae``.

    jaxgen train vae --config binarized_two_layers --steps 50000 --beta-warmup 10000

Reached with seed 0, test log p(x) in nats with 50 importance samples, 7 minutes a run on one core of an Intel Xeon
(Sapphire Rapids) virtual machine (docs/results.md has the curves):

    epoch                                    20     50    100
    two layers                          -104.82 -99.06 -96.84
    two layers, warm-up over 20 epochs   -97.68 -94.92 -93.42
    one layer                            -97.92 -94.32 -92.82
    one layer, warm-up over 20 epochs    -98.52 -94.76 -93.09

After 100 epochs the KL is 20.2 nats without the warm-up and 26.4 with it.
"""

import dataclasses

from jaxgen.recipes import binarized_vae

options = dataclasses.replace(
    binarized_vae.options,
    latent_dim=100,
    upper_latent_dims=(50,),
    upper_hidden=(100, 100),
)
