"""Distances of features, VGG16 and its converter, and AutoencoderKL by diffusers' names; some against PyTorch."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.pytorch import convert_vgg
from jaxgen import losses, perceptual
from jaxgen.diffusers import from_diffusers, to_diffusers
from jaxgen.losses import feature_distance
from jaxgen.networks import VGG16, AutoencoderDecoder, AutoencoderEncoder
from jaxgen.weights import read_arrays
from tests import torch_autoencoder

TORCH_PYTHON = os.environ.get("JAXGEN_TORCH_PYTHON") or (sys.executable if importlib.util.find_spec("torch") else None)
needs_torch = pytest.mark.skipif(
    TORCH_PYTHON is None, reason="no PyTorch here: name an interpreter that has it, JAXGEN_TORCH_PYTHON"
)


def by_torch(what: str, folder: Path, **given: np.ndarray) -> dict[str, np.ndarray]:
    inputs, outputs = folder / "inputs.npz", folder / "outputs.npz"
    np.savez(inputs, **given)  # type: ignore[arg-type]
    subprocess.run([str(TORCH_PYTHON), torch_autoencoder.__file__, what, str(inputs), str(outputs)], check=True)
    with np.load(outputs) as archive:
        return dict(archive)


# -- Distances of features --------------------------------------------------------------------------------------------


def test_a_distance_by_hand() -> None:
    """Protects: unit length over channels, the sum over channels, the mean over places, the sum over maps."""
    # Unit vectors (0.6, 0.8) and (1, 0), 0.16 + 0.64 apart; (0, 1) and (0, 1); of the second map (1) and (-1).
    a = [jnp.asarray([[[[3.0, 4.0], [0.0, 2.0]]]]), jnp.asarray([[[[5.0]]]])]
    b = [jnp.asarray([[[[7.0, 0.0], [0.0, 9.0]]]]), jnp.asarray([[[[-0.1]]]])]
    np.testing.assert_allclose(feature_distance(a, b), [0.5 * 0.8 + 4.0], rtol=1e-5)
    weights = [jnp.asarray([2.0, 0.5]), jnp.asarray([0.25])]
    np.testing.assert_allclose(feature_distance(a, b, weights), [0.5 * (0.32 + 0.32) + 1.0], rtol=1e-5)
    np.testing.assert_allclose(feature_distance(a, a, weights), [0.0])


def test_a_distance_of_many_images(key: jax.Array) -> None:
    """Protects: each image by itself, features [B, D] too; float32 of halves; against NumPy."""
    a, b = (jax.random.normal(k, (5, 3, 2, 7)) for k in jax.random.split(key))
    w = jnp.arange(7.0)
    u, v = (np.asarray(x, np.float64) / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    expected = (((u - v) ** 2) @ np.arange(7.0)).mean(axis=(1, 2))
    np.testing.assert_allclose(feature_distance([a], [b], [w]), expected, rtol=1e-5)
    flat = feature_distance([a.reshape(-1, 7)], [b.reshape(-1, 7)], [w])
    np.testing.assert_allclose(flat.reshape(5, 6).mean(axis=1), expected, rtol=1e-5)
    half = feature_distance([a.astype(jnp.bfloat16)], [b.astype(jnp.bfloat16)])
    assert half.dtype == jnp.float32


def test_the_gradient_where_features_are_zero() -> None:
    """Protects: finite, however many of a network's rectifiers are silent."""
    gradient = jax.grad(lambda x: jnp.sum(feature_distance([x], [jnp.ones((1, 2, 2, 3))])))(jnp.zeros((1, 2, 2, 3)))
    assert jnp.isfinite(gradient).all()
    both = jax.grad(lambda x: jnp.sum(feature_distance([x], [x])))(jnp.zeros((1, 2, 2, 3)))
    np.testing.assert_array_equal(both, 0.0)


def test_what_a_distance_refuses() -> None:
    x, y = jnp.ones((2, 4, 4, 3)), jnp.ones((2, 2, 2, 3))
    for arguments, message in (
        (([x], [x, y]), "got 1 and 2 maps"),
        (([], []), "got 0 and 0 maps"),
        (([x], [x], [jnp.ones(3), jnp.ones(3)]), "got 1 and 1 maps and 2 weights"),
        (([x], [y]), r"features_a\[0\] \[2, 4, 4, 3\], features_b\[0\] \[2, 2, 2, 3\]"),
        (([x], [x], [jnp.ones(4)]), r"weights\[0\] \[4\], channels \[3\]"),
        (([jnp.ones(3)], [jnp.ones(3)]), r"must be \[B, ..., C\], got \[3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            losses.feature_distance(*arguments)
    with pytest.raises(TypeError, match="floating point"):
        feature_distance([jnp.ones((2, 3), int)], [jnp.ones((2, 3), int)])


# -- VGG16 ------------------------------------------------------------------------------------------------------------

CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


@functools.cache
def torch_weights() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random weights as torchvision's and lpips's files have them."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    for place, inputs, outputs in zip(PLACES, (3, *CHANNELS), CHANNELS, strict=False):
        kernel = rng.standard_normal((outputs, inputs, 3, 3), np.float32) * np.float32((2.0 / (9 * inputs)) ** 0.5)
        weights[f"features.{place}.weight"] = kernel
        weights[f"features.{place}.bias"] = 0.1 * rng.standard_normal(outputs, np.float32)
    lpips = {
        f"lin{number}.model.1.weight": rng.random((1, channels, 1, 1), np.float32)
        for number, channels in enumerate((64, 128, 256, 512, 512))
    }
    return weights, lpips


def images(seed: int, side: int = 19) -> np.ndarray:
    return np.random.default_rng(seed).random((2, 16, side, 3), np.float32)


def converted(folder: Path) -> Path:
    weights, lpips = torch_weights()
    more = {"classifier.0.bias": np.zeros(4096, np.float32)}
    save_file({**weights, **more}, folder / "vgg16.safetensors")
    save_file(lpips, folder / "lpips.safetensors")
    target = folder / "converted.safetensors"
    arguments = [folder / "vgg16.safetensors", target, "--lpips", folder / "lpips.safetensors"]
    assert convert_vgg.main(list(map(str, arguments))) == 0
    return target


@functools.cache
def _maps() -> Any:
    return jax.jit(functools.partial(VGG16().apply, method="features"))


def found(read: perceptual.Perceptual, a: np.ndarray, b: np.ndarray) -> tuple[Any, jax.Array]:
    """The maps of a, and its distance to b."""
    both = [_maps()({"params": read.params}, image) for image in (a, b)]
    return both[0], feature_distance(both[0], both[1], read.weights)


@pytest.mark.slow
def test_vgg_from_a_file(tmp_path: Path) -> None:
    """Protects: converter, reader, normalisation, which maps, odd sides; against XLA's own convolutions."""
    read = perceptual.vgg16(converted(tmp_path))
    assert len(read.sha256) == 64
    weights, lpips = torch_weights()
    shift, scale = (np.array(v, np.float32) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    x = (2.0 * images(0) - 1.0 - shift) / scale
    expected = []
    with jax.default_matmul_precision("highest"):
        for place in PLACES:
            kernel = jnp.asarray(weights[f"features.{place}.weight"])
            y = jax.lax.conv_general_dilated(
                jnp.asarray(x), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC")
            )
            x = np.maximum(np.asarray(y) + weights[f"features.{place}.bias"], 0.0)
            if place in (2, 7, 14, 21, 28):
                expected.append(x)
            if place in (2, 7, 14, 21):
                height, width = (side // 2 for side in x.shape[1:3])
                x = x[:, : 2 * height, : 2 * width].reshape(2, height, 2, width, 2, -1).max(axis=(2, 4))
    maps, distance = found(read, images(0), images(0))
    assert [m.shape for m in maps] == [
        (2, 16, 19, 64), (2, 8, 9, 128), (2, 4, 4, 256), (2, 2, 2, 512), (2, 1, 1, 512)
    ]  # fmt: skip
    chex.assert_trees_all_close(list(maps), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(distance, 0.0, atol=1e-6)
    assert read.weights is not None
    for number, vector in enumerate(read.weights):
        np.testing.assert_array_equal(vector, lpips[f"lin{number}.model.1.weight"][0, :, 0, 0])
    grey = images(1)[..., :1]
    (ours, *_), (three, *_) = (_maps()({"params": read.params}, x) for x in (grey, grey.repeat(3, axis=3)))
    np.testing.assert_allclose(ours, three, atol=1e-5)


@pytest.mark.slow
@needs_torch
def test_vgg_against_pytorch(tmp_path: Path) -> None:
    """Protects: the whole way from PyTorch's weights to the distance LPIPS, by PyTorch's own computation."""
    weights, lpips = torch_weights()
    made = by_torch("vgg", tmp_path, a=images(0), b=images(1), **weights, **lpips)
    maps, distance = found(perceptual.vgg16(converted(tmp_path)), images(0), images(1))
    for number, each in enumerate(maps):
        np.testing.assert_allclose(each, made[f"map_{number}"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(distance, made["distance"], rtol=1e-4)


def test_what_the_converter_of_vgg_and_its_reader_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: jax.Array
) -> None:
    weights, lpips = torch_weights()
    for wrong, of_lpips, message in (
        ({name: a for name, a in weights.items() if name != "features.5.bias"}, None, "conv_2_1.bias: saved nothing"),
        ({**weights, "features.1.weight": np.zeros(64, np.float32)}, None, "features.1.weight: saved float32"),
        ({**weights, "features.0.bias": np.full(64, np.nan, np.float32)}, None, "conv_1_1.bias"),
        (weights, {}, "distance.0: saved nothing"),
        (weights, {**lpips, "lin2.model.1.weight": -lpips["lin2.model.1.weight"]}, r"distance.2 \(negative\)"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_vgg.convert(wrong, of_lpips)
    target = tmp_path / "target.safetensors"
    save_file(lpips, tmp_path / "lpips.safetensors")
    assert convert_vgg.main([str(tmp_path / "lpips.safetensors"), str(target)]) == 1
    assert "not the weights of VGG16" in capsys.readouterr().err
    assert convert_vgg.main([str(tmp_path / "lpips.safetensors"), str(tmp_path / "target.npz")]) == 1
    assert not target.exists()
    with pytest.raises(
        ValueError, match=r"lpips.safetensors does not hold the weights of VGG16: write it with .*convert_vgg.py \(conv"
    ):
        perceptual.vgg16(tmp_path / "lpips.safetensors")
    with pytest.raises(FileNotFoundError, match="is no file"):
        perceptual.vgg16(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match=r"at least 16 pixels a side, got \[1, 16, 15, 3\]: resize"):
        VGG16().init(key, jnp.zeros((1, 16, 15, 3)))


def test_a_file_of_vgg_without_a_distance(tmp_path: Path) -> None:
    weights, _ = torch_weights()
    arrays = convert_vgg.convert(weights)
    save_file(arrays, tmp_path / "vgg.safetensors", {"jaxgen": json.dumps({"network": "VGG16"})})
    read = perceptual.vgg16(tmp_path / "vgg.safetensors")
    assert read.weights is None
    kernel = weights["features.7.weight"]
    np.testing.assert_array_equal(read.params["conv_2_2"]["kernel"], kernel.transpose(2, 3, 1, 0))
    assert load_file(tmp_path / "vgg.safetensors").keys() == perceptual.arrays_of_vgg16(weights=False).keys()


# -- AutoencoderKL ----------------------------------------------------------------------------------------------------

FIELDS: dict[str, Any] = {
    "width": 8, "multipliers": (1, 2, 2), "blocks": 2, "groups": 4, "middle": "attention", "projection": True
}  # fmt: skip
ENCODER, DECODER = AutoencoderEncoder(6, **FIELDS), AutoencoderDecoder(3, **{**FIELDS, "blocks": 3})
LARGE: dict[str, Any] = {**FIELDS, "width": 128, "multipliers": (1, 2, 4, 4), "groups": 32}


def shapes(network: Any, *shape: int) -> Any:
    init = functools.partial(network.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))["params"]


def random_params(network: Any, *shape: int) -> Any:
    rng = np.random.default_rng(shape)
    return jax.tree.map(lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32), shapes(network, *shape))


@functools.cache
def params_of_both() -> tuple[Any, Any]:
    return random_params(ENCODER, 1, 8, 8, 3), random_params(DECODER, 1, 2, 2, 3)


def test_the_names_and_shapes_of_stable_diffusion() -> None:
    """Protects: names and number of its AutoencoderKL's arrays, 248 of 83,653,863 numbers together; some by hand."""
    networks = (
        (AutoencoderEncoder(8, **LARGE), (1, 8, 8, 3)),
        (AutoencoderDecoder(3, **{**LARGE, "blocks": 3}), (1, 1, 1, 4)),
    )
    zeros = [
        jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0.0), leaf.shape), shapes(network, *shape))
        for network, shape in networks
    ]
    arrays = to_diffusers(*zeros)
    assert (len(arrays), sum(array.size for array in arrays.values())) == (248, 83_653_863)
    for name, shape in {
        "encoder.conv_in.weight": (128, 3, 3, 3),
        "encoder.down_blocks.0.resnets.0.norm1.weight": (128,),
        "encoder.down_blocks.1.resnets.0.conv_shortcut.weight": (256, 128, 1, 1),
        "encoder.down_blocks.2.downsamplers.0.conv.bias": (512,),
        "encoder.down_blocks.3.resnets.1.conv2.weight": (512, 512, 3, 3),
        "encoder.mid_block.attentions.0.group_norm.bias": (512,),
        "encoder.mid_block.attentions.0.to_out.0.weight": (512, 512),
        "encoder.mid_block.resnets.1.conv1.weight": (512, 512, 3, 3),
        "encoder.conv_norm_out.bias": (512,),
        "encoder.conv_out.weight": (8, 512, 3, 3),
        "quant_conv.weight": (8, 8, 1, 1),
        "post_quant_conv.bias": (4,),
        "decoder.conv_in.weight": (512, 4, 3, 3),
        "decoder.mid_block.attentions.0.to_q.bias": (512,),
        "decoder.up_blocks.0.upsamplers.0.conv.weight": (512, 512, 3, 3),
        "decoder.up_blocks.2.resnets.0.conv_shortcut.weight": (256, 512, 1, 1),
        "decoder.up_blocks.3.resnets.2.norm2.weight": (128,),
        "decoder.conv_out.bias": (3,),
    }.items():
        assert arrays[name].shape == shape, name
    assert not any(name.startswith(("encoder.down_blocks.3.down", "decoder.up_blocks.3.up")) for name in arrays)


def test_there_and_back(tmp_path: Path) -> None:
    """Protects: no number is changed on the way through a file, and the attention's older names are read."""
    params = params_of_both()
    arrays = to_diffusers(*params)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, tmp_path / "vae.safetensors")
    read = read_arrays(tmp_path / "vae.safetensors").arrays
    chex.assert_trees_all_equal(from_diffusers(read, ENCODER, DECODER), params)
    kernel = params[0]["middle_attention"]["query"]["kernel"]
    np.testing.assert_array_equal(arrays["encoder.mid_block.attentions.0.to_q.weight"], kernel.T)
    kernel = params[1]["level_0_up"]["kernel"]
    assert arrays["decoder.up_blocks.0.upsamplers.0.conv.weight"][3, 5, 0, 2] == kernel[0, 2, 5, 3]
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, before in old.items():
        read = {name.replace(f".attentions.0.{new}.", f".attentions.0.{before}."): a for name, a in read.items()}
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in read
    chex.assert_trees_all_equal(from_diffusers(read, ENCODER, DECODER), params)
    halves = {name: array.astype(np.float16) for name, array in read.items()}
    chex.assert_trees_all_close(from_diffusers(halves, ENCODER, DECODER), params, atol=1e-3)


def test_a_decoder_of_other_latents() -> None:
    """Protects: an encoder whose features are the latents themselves."""
    fields: dict[str, Any] = {"width": 4, "multipliers": (1,)}
    encoder, decoder = AutoencoderEncoder(5, **fields), AutoencoderDecoder(1, **fields)
    params = random_params(encoder, 1, 4, 4, 1), random_params(decoder, 1, 4, 4, 5)
    made = from_diffusers(to_diffusers(*params), encoder, decoder, latent_channels=5)
    chex.assert_trees_all_equal(made, params)


def test_what_is_refused_by_name() -> None:
    arrays = to_diffusers(*params_of_both())
    name = "decoder.up_blocks.1.resnets.0.conv1.weight"
    without = {other: array for other, array in arrays.items() if other != name}
    for wrong, message in (
        (without, f"{name}: saved nothing, wanted float32[16, 16, 3, 3]"),
        ({**arrays, "encoder.extra.weight": np.zeros(3, np.float32)}, "encoder.extra.weight: saved float32[3], wanted"),
        ({**arrays, name: np.zeros((16, 16, 1, 1), np.float32)}, f"{name}: saved float32[16, 16, 1, 1], wanted"),
        ({**arrays, name: np.zeros((16, 16, 3, 3), np.int32)}, f"{name}: saved int32[16, 16, 3, 3], wanted float32"),
    ):
        with pytest.raises(ValueError, match="not the arrays of this AutoencoderEncoder") as raised:
            from_diffusers(wrong, ENCODER, DECODER)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="decoder has a parameter project/kernel, which no AutoencoderDecoder has"):
        to_diffusers({}, {"project": {"kernel": np.zeros((3, 3))}})


@pytest.mark.slow
@needs_torch
def test_autoencoder_kl_against_pytorch(tmp_path: Path) -> None:
    """Protects: encoded moments and decoded images, of PyTorch's weights here and of ours there."""
    rng = np.random.default_rng(0)
    x, z = rng.random((2, 16, 8, 3), np.float32), rng.standard_normal((2, 4, 2, 3), np.float32)
    params = params_of_both()
    ours = {name: np.ascontiguousarray(array) for name, array in to_diffusers(*params).items()}
    made = by_torch("autoencoder", tmp_path, images=x, latents=z, **ours)
    theirs = {name: array for name, array in made.items() if not name.startswith(("own.", "given."))}
    assert theirs.keys() == ours.keys()

    @jax.jit
    def run(params: Any) -> Any:
        moments = ENCODER.apply({"params": params[0]}, x, train=False)
        return moments, DECODER.apply({"params": params[1]}, z, train=False)

    for name, given in (("given", params), ("own", from_diffusers(theirs, ENCODER, DECODER))):
        moments, images = run(given)
        scale = np.abs(made[f"{name}.moments"]).max(), np.abs(made[f"{name}.decoded"]).max()
        np.testing.assert_allclose(moments, made[f"{name}.moments"], atol=1e-4 * max(scale[0], 1.0))
        np.testing.assert_allclose(2.0 * images - 1.0, made[f"{name}.decoded"], atol=1e-4 * max(scale[1], 1.0))
