"""A VAE of a tokenizer's latents, with a Gaussian likelihood: what ``jaxgen train vae --latents RUN`` begins from.

    jaxgen train tokenizer --config tokenizer_kl
    jaxgen train vae --latents runs/tokenizer-001

Dai & Wipf 2019, "Diagnosing and Enhancing VAE Models".
"""

from jaxgen.cli.vae_options import MLPVAEOptions

options = MLPVAEOptions(latent_dim=32, hidden=(512, 512), likelihood="gaussian_learned_variance")
