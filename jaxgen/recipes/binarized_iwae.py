"""The VAE of ``binarized_vae`` trained on the bound of 50 importance samples (Burda et al. 2016).

    jaxgen train vae --config binarized_iwae

Reached with seed 0, test log p(x) in nats with 500 importance samples, 28 minutes on one core of an Intel Xeon
(Sapphire Rapids) virtual machine:

    epoch             5      10      15      20
    log p(x)    -105.84  -98.56  -95.97  -94.54

2.6 nats better than the ELBO's -97.10.
"""

import dataclasses

from jaxgen.recipes import binarized_vae

options = dataclasses.replace(binarized_vae.options, objective="iwae", num_samples=50)
