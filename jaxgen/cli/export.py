"""Take a trained model out of jaxgen: its parameters, and programs that JAX alone runs.

jaxgen export runs/gan-001 --out exported
jaxgen export dcgan-fashion-mnist-conditional --out exported --platforms cpu
jaxgen export runs/vae-001 --out vae.safetensors --dtype float16

The folder holds the weights inside of the programs (StableHLO, batches of any size), and
parameters.safetensors besides; manifest.json says what every program takes and gives; use.py, a few lines, draws images
where jaxgen is not installed. Of a tokenizer there are encoder, decoder and reconstructor, and no sampler.
A name that ends in .safetensors is that one file, which `jaxgen.load` reads.
"""

import dataclasses
import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import tyro
from jax import export as jax_export

import jaxgen
from jaxgen.cli.exit_status import command
from jaxgen.cli.options import checkpoint
from jaxgen.trained import Trained, decode, prior_noise
from jaxgen.training import machine
from jaxgen.training.monitor import read_rows
from jaxgen.training.run import Run, to_plain
from jaxgen.weights import save_weights

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
FORMAT = "jaxgen export 1"
_SUFFIX = ".jaxexport"


@dataclasses.dataclass(frozen=True)
class Options:
    """Take a trained model out of jaxgen: its parameters, and programs that JAX alone runs."""

    source: Annotated[str, tyro.conf.Positional]
    """A run directory, a .safetensors file, or the name of a pretrained model."""
    out: Path = Path("exported")
    """The folder to write, which must not exist or be an export; or a .safetensors file for the weights alone."""
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")
    """What the programs are to run on: any of cpu, cuda, rocm and tpu; one program holds all of them."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type that the parameters are stored in; float16 halves their file, and rounds what the programs hold too."""
    checkpoint: str = "newest"
    """Of a run: newest, best, or the step of a checkpoint."""
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    """What else to say of how the model was made, as pairs: --notes hardware "one H100" author "..."."""

    def check(self) -> None:
        """Refuse what cannot be before anything is loaded."""
        checkpoint(self.checkpoint)
        if self.weights_alone:
            return
        unknown = [name for name in self.platforms if name not in PLATFORMS]
        if unknown or not self.platforms:
            raise ValueError(
                f"--platforms {' '.join(unknown)}: there is no such platform, choose from {', '.join(PLATFORMS)}"
            )
        if len(set(self.platforms)) < len(self.platforms):
            raise ValueError(f"--platforms {' '.join(self.platforms)}: one is named twice")
        if importlib.util.find_spec("flatbuffers") is None:
            raise ModuleNotFoundError(
                "jax.export writes programs with flatbuffers, which is not installed: pip install flatbuffers"
            )
        check_free(self.out)

    @property
    def weights_alone(self) -> bool:
        """Whether one file of weights is asked for."""
        return self.out.suffix == ".safetensors"


def check_free(out: Path) -> None:
    """Refuse a place that holds something else than an export, which would be lost."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        found = json.loads((out / "manifest.json").read_text())["format"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != FORMAT:
        raise FileExistsError(f"{out} exists and is no export: give --out another name, or move it away")


class Array(NamedTuple):
    """An input or an output of a program."""

    name: str
    shape: tuple[int | str, ...]  # "N" is the size of the batch
    dtype: str
    meaning: str


class Program(NamedTuple):
    """A function of arrays to be exported; several outputs are a dictionary by their names."""

    function: Callable[..., Any]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


def held(state: Any) -> Any:
    """Weights that the compiler must not compute with in advance: programs then give the bits of the functions here."""
    return jax.lax.optimization_barrier(state)


def programs_of(model: Trained) -> dict[str, Program]:
    """The programs of a model by name."""
    spec: Any = model.spec
    state: Any = model.state
    family = model.family
    if family.sample is not None and not family.standard_prior(spec):
        raise ValueError(
            f"{model.name} has a learnt prior, and programs draw latents from the standard normal: export its weights "
            "alone (jaxgen.weights.save_weights)"
        )
    # What a program does not use would stay in it.
    generator = family.to_decode(spec, state)
    size = model.latent_dim
    images = Array("images", ("N", *model.image_shape), "float32", "in [0, 1]" if len(model.image_shape) == 3 else "")
    label: tuple[Array, ...] = ()
    if model.num_classes is not None:
        label = (Array("label", ("N",), "int32", f"classes, from 0 to {model.num_classes - 1}"),)
    key = Array("key", (2,), "uint32", "jax.random.key_data(jax.random.key(seed))")
    numbers = Array("numbers", ("N",), "int32", "of the images: each depends on the key and its number")
    z = Array("z", ("N", size), "float32", "latents; standard normal numbers make samples")
    if family.sample is None:
        return _without_prior(model, images)

    def sampler(key: jax.Array, numbers: jax.Array, label: jax.Array | None = None) -> jax.Array:
        noise = prior_noise(spec, jax.random.wrap_key_data(key, impl="threefry2x32"), numbers)
        return model.in_units(decode(spec, held(generator), noise, label))

    def decoder(z: jax.Array, label: jax.Array | None = None) -> jax.Array:
        return model.in_units(decode(spec, held(generator), z, label))

    programs = {
        "sampler": Program(sampler, (key, numbers, *label), (images,)),
        "decoder": Program(decoder, (z, *label), (images,)),
    }
    if family.encode is not None:
        deep = len(family.latent_dims(spec)) > 1
        encoder_state = family.to_encode(spec, state)
        outputs = [Array("z", ("N", size), "float32", "latents at the posterior means, as the decoder takes them")]
        if not deep:
            outputs.append(Array("logvar", ("N", size), "float32", "logarithms of the posterior variances"))

        def encoder(images: jax.Array, label: jax.Array | None = None) -> Any:
            standardize = model.standardization or (lambda vectors: vectors)
            batch = {"image": standardize(images), "label": label}
            if deep:
                return {"z": family.encode(spec, held(encoder_state), batch)}
            mean, logvar = family.posteriors(spec, held(encoder_state), batch)[0][:2]
            return {"z": mean, "logvar": logvar}

        programs["encoder"] = Program(encoder, (images, *label), tuple(outputs))
    return programs


def _without_prior(model: Trained, images: Array) -> dict[str, Program]:
    """The programs of a tokenizer: there is nothing to draw from."""
    spec, family, shape = model.spec, model.family, model.latent_shape
    state = {"encoder": family.to_encode(spec, model.state), "decoder": family.to_decode(spec, model.state)}
    # Only what is used stays in a program: the averages where there are some.
    whole = model.state if model.state.ema is None else model.state._replace(params=None, collections=None)
    z = Array("z", ("N", *shape), "float32", "latents, of mean 0 and deviation 1 a channel")
    codes = Array("codes", ("N", *shape[:2]), "int32", f"of the places, from 0 to {model.num_codes - 1}")

    def encoder(images: jax.Array) -> dict[str, jax.Array]:
        held_state, batch = held(state["encoder"]), {"image": images}
        found = {"z": family.encode(spec, held_state, batch).reshape(-1, *shape)}
        return {**found, "codes": family.codes(spec, held_state, batch)} if model.num_codes else found

    def decoder(z: jax.Array) -> jax.Array:
        return decode(spec, held(state["decoder"]), z)

    def reconstructor(images: jax.Array) -> jax.Array:
        return family.reconstruct(spec, held(whole), {"image": images})

    def code_decoder(codes: jax.Array) -> jax.Array:
        return family.decode_codes(spec, held(state["decoder"]), codes)

    programs = {
        "encoder": Program(encoder, (images,), (z, *([codes] if model.num_codes else []))),
        "decoder": Program(decoder, (z,), (images,)),
        "reconstructor": Program(reconstructor, (images,), (images,)),
    }
    return {**programs, "code_decoder": Program(code_decoder, (codes,), (images,))} if model.num_codes else programs


def exported(program: Program, platforms: Sequence[str]) -> bytearray:
    """A program, lowered for platforms, with its weights and for batches of any size."""
    (num,) = jax_export.symbolic_shape("N")
    arguments = [
        jax.ShapeDtypeStruct([num if side == "N" else side for side in array.shape], array.dtype)
        for array in program.inputs
    ]
    return jax_export.export(jax.jit(program.function), platforms=list(platforms))(*arguments).serialize()


USE = '''"""Draw images with JAX alone: pip install jax flatbuffers; python use.py"""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

program = export.deserialize(bytearray((Path(__file__).parent / "sampler.jaxexport").read_bytes()))
key, numbers = jax.random.key_data(jax.random.key(0)), jnp.arange(16, dtype=jnp.int32)
images = jax.jit(program.call)(key, numbers{label})
print(images.shape, images.dtype, float(images.min()), float(images.max()))
'''


USE_OF_RECONSTRUCTOR = '''"""Encode and decode images with JAX alone: pip install jax flatbuffers; python use.py"""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

folder = Path(__file__).parent
names = ("encoder", "decoder")
encoder, decoder = (export.deserialize(bytearray((folder / f"{{n}}.jaxexport").read_bytes())) for n in names)
images = jax.random.uniform(jax.random.key(0), (16, {shape}))
latents = jax.jit(encoder.call)(images)["z"]
rebuilt = jax.jit(decoder.call)(latents)
print(latents.shape, rebuilt.shape, rebuilt.dtype, float(jnp.abs(rebuilt - images).mean()))
'''


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record_of(model: Trained, options: Options) -> dict[str, Any]:
    """How a model was made: of a run its data, its seed and the numbers in its metrics.jsonl; and the notes."""
    if not Path(options.source).is_dir() or "identity" not in model.record:
        return {**model.record, **options.notes}
    run = Run.open(Path(options.source))
    identity, step = run.config["identity"], int(model.state.step)
    rows = read_rows(run.directory / "metrics.jsonl", step)
    measured = {
        name: value
        for row in rows
        if row["step"] == step and any(name.startswith("test_") for name in row)
        for name, value in row.items()
        if name != "step" and not name.startswith("time_")
    }
    return {
        "steps": step,
        "seed": identity["seed"],
        "batch_size": identity["batch_size"],
        "data": identity["data"],
        "numbers": measured,
        "versions": run.config["versions"],
        **({"class_names": model.record["class_names"]} if "class_names" in model.record else {}),
        **options.notes,
    }


def write(model: Trained, record: dict[str, Any], options: Options, folder: Path) -> None:
    """Write an export into an empty folder."""
    parameters = folder / "parameters.safetensors"
    save(model, record, options, parameters)
    # From what was written: rounded where it was, so that programs and parameters agree.
    model = jaxgen.load(parameters)
    described = {}
    for name, program in programs_of(model).items():
        file = folder / f"{name}{_SUFFIX}"
        file.write_bytes(exported(program, options.platforms))
        described[name] = {
            "file": file.name,
            "sha256": sha256_of(file),
            "inputs": [array._asdict() for array in program.inputs],
            "outputs": [array._asdict() for array in program.outputs],
        }
    contents = {
        "format": FORMAT,
        "what": "programs for jax.export.deserialize (StableHLO, weights inside); N is any number of images",
        "model": {
            "family": type(model.spec).__name__,
            "image_shape": list(model.image_shape),
            "image_type": model.image_type,
            "latent_dim": model.latent_dim,
            "num_classes": model.num_classes,
            "spec": to_plain(model.spec),
            "record": record,
        },
        "platforms": list(options.platforms),
        "programs": described,
        "parameters": {"file": parameters.name, "sha256": sha256_of(parameters), "floats": options.dtype},
        "versions": {**machine.versions(), "jaxgen": jaxgen.__version__},
    }
    label = "" if model.num_classes is None else f", numbers % {model.num_classes}"
    (folder / "manifest.json").write_text(json.dumps(contents, indent=2) + "\n")
    shape = ", ".join(map(str, model.image_shape))
    use = USE_OF_RECONSTRUCTOR.format(shape=shape) if model.family.sample is None else USE.format(label=label)
    (folder / "use.py").write_text(use)


def save(model: Trained, record: dict[str, Any], options: Options, path: Path) -> None:
    """Write the weights."""
    save_weights(
        path,
        model.spec,
        model.state,
        image_shape=model.image_shape,
        image_type=model.image_type,
        dtype=options.dtype,
        record=record,
    )


def run(options: Options) -> Path:
    """Load, export and write, whole or not at all; returns what was written."""
    options.check()
    model = jaxgen.load(options.source, checkpoint(options.checkpoint))
    record = record_of(model, options)
    out = options.out
    if options.weights_alone:
        save(model, record, options, out)
        return out
    partial, old = (out.with_name(f".{out.name}.{what}") for what in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write(model, record, options, partial)
        if out.exists():
            out.rename(old)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return out


main = command(Options, run, "jaxgen export")
