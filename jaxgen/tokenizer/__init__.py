"""The image tokenizer: an autoencoder with a bottleneck that is trained against a discriminator.

Throughout, ``batch`` holds images, ``image`` [B, H, W, C]; ``key`` is a typed key, []; ``axis_name`` names the mapped
axis or axes over which the global batch is split, None when it is not. The latents [B, h, w, c] that a trained model
gives and takes are normalised: mean 0 and deviation 1 a channel over the split that they were measured on.

The discriminator's half is in `jaxgen.adversary`. Esser et al. 2021, "Taming Transformers for High-Resolution Image
Synthesis"; Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
"""

from jaxgen.tokenizer.inference import (
    tokenizer_codes,
    tokenizer_decode,
    tokenizer_decode_codes,
    tokenizer_encode,
    tokenizer_evaluate,
    tokenizer_frozen,
    tokenizer_made,
    tokenizer_nearest,
    tokenizer_reconstruct,
    tokenizer_settle,
    tokenizer_watch,
)
from jaxgen.tokenizer.kept import tokenizer_kept, tokenizer_restored, tokenizer_without
from jaxgen.tokenizer.spec import Tokenizer, TokenizerState, check_no_prior
from jaxgen.tokenizer.training import (
    LARGEST_WEIGHT,
    Rebuilt,
    adaptive_factor,
    adversarial_play,
    fidelity_loss,
    tokenizer_init,
    tokenizer_rebuilt,
    tokenizer_step,
    tokenizer_update,
)

__all__ = [
    "LARGEST_WEIGHT",
    "Rebuilt",
    "Tokenizer",
    "TokenizerState",
    "adaptive_factor",
    "adversarial_play",
    "check_no_prior",
    "fidelity_loss",
    "tokenizer_codes",
    "tokenizer_decode",
    "tokenizer_decode_codes",
    "tokenizer_encode",
    "tokenizer_evaluate",
    "tokenizer_frozen",
    "tokenizer_init",
    "tokenizer_kept",
    "tokenizer_made",
    "tokenizer_nearest",
    "tokenizer_rebuilt",
    "tokenizer_reconstruct",
    "tokenizer_restored",
    "tokenizer_settle",
    "tokenizer_step",
    "tokenizer_update",
    "tokenizer_watch",
    "tokenizer_without",
]
