"""AutoencoderKL's parameters by the names that the library diffusers stores them under, and back.

    arrays, _, _ = jaxgen.weights.read_arrays(Path("diffusion_pytorch_model.safetensors"))
    encoder_params, decoder_params = from_diffusers(arrays, encoder, decoder)

They are those of `jaxgen.networks.AutoencoderEncoder` and `jaxgen.networks.AutoencoderDecoder`. diffusers lays kernels
out as [O, I, kh, kw] and matrices as [O, I].
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxgen.networks import AutoencoderDecoder, AutoencoderEncoder
from jaxgen.training import manifest

_ENDS = {"input": "conv_in", "norm": "conv_norm_out", "output": "conv_out"}
_MIDDLE = {
    "middle_0": "mid_block.resnets.0",
    "middle_attention": "mid_block.attentions.0",
    "middle_1": "mid_block.resnets.1",
}
_PROJECTIONS = {"encoder": "quant_conv", "decoder": "post_quant_conv"}
_OF_BLOCKS = {"norm_0": "norm1", "first": "conv1", "norm_1": "norm2", "second": "conv2", "shortcut": "conv_shortcut"}
_OF_ATTENTION = {"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "output": "to_out.0"}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
# What the attention's layers were called until diffusers 0.14.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_LEVEL = re.compile(r"level_(\d+)_(?:block_(\d+)|(down|up))")
_TO, _FROM = {4: (3, 2, 0, 1), 2: (1, 0)}, {4: (2, 3, 1, 0), 2: (1, 0)}  # axes, by their number


def _layer(side: str, layer: str) -> str | None:
    """diffusers' name of one of the layers that a network has at its top."""
    if layer == "projection":
        return _PROJECTIONS[side]
    name = _ENDS.get(layer) or _MIDDLE.get(layer)
    found = _LEVEL.fullmatch(layer)
    if found:
        level, block, _ = found.groups()
        if side == "encoder":
            within = "downsamplers.0.conv" if block is None else f"resnets.{block}"
            name = f"down_blocks.{level}.{within}"
        else:
            within = "upsamplers.0.conv" if block is None else f"resnets.{block}"
            name = f"up_blocks.{level}.{within}"
    return None if name is None else f"{side}.{name}"


def _name(side: str, path: str) -> str:
    """diffusers' name of a parameter of the encoder's or the decoder's, by its path with slashes."""
    layer, *inner, leaf = path.split("/")
    within = _OF_ATTENTION if layer == "middle_attention" else _OF_BLOCKS
    parts = [_layer(side, layer), *(within.get(part) for part in inner), _LEAVES.get(leaf)]
    if len(inner) > 1 or None in parts:
        raise ValueError(f"{side} has a parameter {path}, which no Autoencoder{side.capitalize()} has: give its own")
    return ".".join(map(str, parts))


def to_diffusers(encoder_params: Any, decoder_params: Any) -> dict[str, np.ndarray]:
    """Parameters as arrays by diffusers' names, such as ``encoder.down_blocks.0.resnets.0.norm1.weight``.

    Args:
      encoder_params: those of an `AutoencoderEncoder`, a tree of arrays of any shapes.
      decoder_params: those of an `AutoencoderDecoder`.
    """
    arrays = {}
    for side, params in (("encoder", encoder_params), ("decoder", decoder_params)):
        for path, leaf in manifest.paths(params).items():
            array = np.asarray(leaf)
            arrays[_name(side, path)] = array.transpose(_TO.get(array.ndim))
    return arrays


def from_diffusers(
    arrays: Mapping[str, Any],
    encoder: AutoencoderEncoder,
    decoder: AutoencoderDecoder,
    latent_channels: int | None = None,
) -> tuple[Any, Any]:
    """Parameters (encoder's, decoder's), float32, of arrays by diffusers' names.

    ValueError names the arrays that are missing, too much or of another shape, as diffusers lays them out.

    Args:
      arrays: floats of any shapes by name; of the attention's layers also by the names of before diffusers 0.14.
      encoder, decoder: the networks that they are for.
      latent_channels: channels of what the decoder takes; half the encoder's ``features`` when None, as AutoencoderKL's
        encoder returns means and log-variances.
    """
    given = {_renamed(name): _wide(array) for name, array in arrays.items()}
    channels = encoder.features // 2 if latent_channels is None else latent_channels
    side = 2 ** (len(encoder.multipliers) - 1)
    of_encoder = manifest.paths(_shapes(encoder, (1, side, side, decoder.channels)))
    of_decoder = manifest.paths(_shapes(decoder, (1, 1, 1, channels)))
    wanted = {_name("encoder", path): leaf for path, leaf in of_encoder.items()}
    wanted |= {_name("decoder", path): leaf for path, leaf in of_decoder.items()}
    described = {name: f"float32{_turned(leaf.shape)}" for name, leaf in wanted.items()}
    wrong = manifest.array_differences(manifest.arrays(given), described)
    if wrong:
        raise ValueError(
            f"these are not the arrays of this AutoencoderEncoder and AutoencoderDecoder: {manifest.summary(wrong)}; "
            "give them the fields of the AutoencoderKL that wrote the arrays"
        )

    def tree(side: str, paths: Mapping[str, Any]) -> Any:
        found = {path: given[_name(side, path)] for path in paths}
        turned = {path: jnp.asarray(array.transpose(_FROM.get(array.ndim))) for path, array in found.items()}
        return traverse_util.unflatten_dict(turned, sep="/")

    return tree("encoder", of_encoder), tree("decoder", of_decoder)


def _shapes(network: Any, shape: tuple[int, ...]) -> Any:
    """Shapes of a network's parameters."""

    def init(x: jax.Array) -> Any:
        return network.init(jax.random.key(0), x, train=False)["params"]

    return jax.eval_shape(init, jax.ShapeDtypeStruct(shape, jnp.float32))


def _turned(shape: tuple[int, ...]) -> list[int]:
    return [shape[axis] for axis in _TO.get(len(shape), range(len(shape)))]


def _wide(array: Any) -> np.ndarray:
    """Floats as float32, anything else as it is."""
    array = np.asarray(array)
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _renamed(name: str) -> str:
    start, found, rest = name.partition(".mid_block.attentions.0.")
    layer, _, leaf = rest.rpartition(".")
    return f"{start}{found}{_OLD[layer]}.{leaf}" if found and layer in _OLD else name
