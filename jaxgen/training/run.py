"""A run directory and its config. Specs become plain data and are rebuilt in `jaxgen.plain`."""

import contextlib
import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from jaxgen.plain import (
    Optimizer,
    Spec,
    State,
    from_plain,
    init_state,
    optimizer,
    register,
    spec_from_plain,
    state_shapes,
    to_plain,
)
from jaxgen.training import machine, manifest
from jaxgen.training.checkpoint import Checkpoints, Which
from jaxgen.training.files import exclusive, write_text
from jaxgen.untrusted import ImageType, Plain, check, check_images, differences, one_line, parse, shown

# What of it people know by this module's name.
__all__ = [
    "Optimizer",
    "Plain",
    "Run",
    "Spec",
    "State",
    "differences",
    "from_plain",
    "init_state",
    "optimizer",
    "register",
    "to_plain",
]

_FORMAT = 1
_NEWEST = ".newest"  # the step of the newest checkpoint that was ever saved
_LARGEST = 1_000_000  # bytes of a config: that of a sweep over a thousand listed settings has a tenth


class _Format(TypedDict):
    format: int


class _Data(TypedDict):
    """What is known of the images; ``num_examples``, ``split`` and some more came later than the rest."""

    image_shape: list[int]
    image_type: ImageType
    labels: bool
    name: NotRequired[str]
    split: NotRequired[str]
    num_examples: NotRequired[int]
    binarization: NotRequired[Literal["none", "static", "dynamic"]]
    sha256: NotRequired[str]


class _Sweep(TypedDict):
    over: dict[str, list[float]]
    seeds: int
    settings: NotRequired[list[dict[str, float]]]


class _Identity(TypedDict):
    model: dict
    data: _Data
    seed: int
    batch_size: NotRequired[int]
    sweep: NotRequired[_Sweep]


class _TrainedData(TypedDict):
    name: str
    sha256: str


class _Trained(TypedDict):
    """What jaxgen train has always written besides."""

    data: _TrainedData
    batch_size: int


class _Settings(TypedDict):
    family: NotRequired[str]
    options: NotRequired[dict]
    setting: NotRequired[dict[str, float]]


class _Config(TypedDict):
    identity: _Identity
    settings: _Settings
    versions: dict


def _check_config(config: dict[str, Plain]) -> None:
    """Refuse a config whose fields are not what is read of them anywhere."""
    check(config, _Config, "")
    identity = config["identity"]
    data = identity["data"]
    check_images(data["image_shape"], data["image_type"], "identity.data.")
    if "options" in config["settings"]:  # a run of jaxgen train's
        check(identity, _Trained, "identity")
    sizes = {"identity.batch_size": identity.get("batch_size", 1)}
    sizes |= {"identity.data.num_examples": data.get("num_examples", 1)}
    sizes |= {"identity.sweep.seeds": identity.get("sweep", {}).get("seeds", 1)}
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory: ``config.json``, ``metrics.jsonl``, ``checkpoints/``, ``samples/``, ``tensorboard/``.

    Args:
      directory: the folder.
      config: plain data: ``identity`` (model, data, batch size, seed: what makes it this run), ``settings`` (all
        options of the command), ``versions``.
    """

    directory: Path
    config: dict[str, Plain]

    @classmethod
    def exists(cls, directory: Path) -> bool:
        """Whether the folder holds a run."""
        return (directory / "config.json").is_file()

    @classmethod
    def create(cls, directory: Path, identity: Plain, settings: Plain) -> "Run":
        """Make a run directory, a folder that holds no run, with its parents.

        ``identity`` is plain data, with at least ``model`` (a spec's), ``data`` and ``seed``; so are the ``settings``.
        """
        if cls.exists(directory):
            raise FileExistsError(
                f"{directory} already holds a run: pass --resume to continue it, or another --workdir"
            )
        config = {"format": _FORMAT, "identity": identity, "settings": settings, "versions": machine.versions()}
        write_text(directory / "config.json", json.dumps(config, indent=2) + "\n")
        return cls(directory, config)

    @classmethod
    def open(cls, directory: Path) -> "Run":
        """Open the run of an existing directory."""
        path = directory / "config.json"
        if not path.is_file():
            raise FileNotFoundError(
                one_line(directory, "holds no run: expected config.json in it, which jaxgen train writes")
            )
        try:
            with path.open("rb") as file:
                config = parse(file.read(_LARGEST + 1), "config", _LARGEST)
            check(config, _Format, "config")
        except ValueError as error:
            raise ValueError(one_line(path, f"is not the config of a run ({error}): restore it from a copy")) from error
        if config["format"] != _FORMAT:
            other = f"is of format {shown(config['format'])}, this jaxgen reads {_FORMAT}: use the jaxgen that wrote it"
            raise ValueError(one_line(path, other))
        try:
            _check_config(config)
        except ValueError as error:
            raise ValueError(one_line(path, f"is not the config of a run ({error}): restore it from a copy")) from error
        return cls(directory, config)

    def check_identity(self, identity: Plain, what: str = "what is asked for") -> None:
        """Refuse to go on as another run: the error names each field of ``identity`` with its old and new value.

        ``what`` says whose identity it is.
        """
        changed = differences(self.config["identity"], json.loads(json.dumps(identity)))
        if changed:
            raise ValueError(
                f"{self.directory} holds another run than {what}: {manifest.summary(changed)}: use the old values, or "
                "another --workdir"
            )

    @property
    def spec(self) -> Spec:
        """The run's GAN or VAE, rebuilt from the config; a ValueError of one line names the field that does not fit."""
        try:
            return spec_from_plain(self.config["identity"]["model"], "model")
        except ValueError as error:
            raise ValueError(one_line(self.directory / "config.json", f"holds no model: {error}")) from error

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the run for this process alone, in a ``with`` statement; see `jaxgen.training.files.exclusive`."""
        return exclusive(self.directory)

    def checkpoints(self, **options: Any) -> Checkpoints:
        """The run's checkpoints, to be used in a ``with`` statement; the options are those of `Checkpoints`."""
        return Checkpoints(self.directory / "checkpoints", record=self.directory / "checkpoints" / _NEWEST, **options)

    def steps(self) -> list[int]:
        """Steps of the completed checkpoints, ascending; none before the first one."""
        return self.checkpoints(read_only=True).steps()

    def shapes(self) -> State:
        """Shapes and types of the run's state, as a state of `jax.ShapeDtypeStruct`."""
        spec, data = self.spec, self.config["identity"]["data"]
        try:
            return state_shapes(spec, data["image_shape"], data["image_type"], labels=data["labels"])
        except ValueError as error:
            raise ValueError(one_line(self.directory / "config.json", error)) from error

    def restore(self, which: Which = "newest") -> State:
        """Read a state of the run, bit for bit as it was saved; a training may go on meanwhile.

        ``which`` is ``"newest"`` (the newest whole one, with a warning when a newer one is damaged), ``"best"`` or a
        step.

        Raises:
          FileNotFoundError: there is no such checkpoint.
          ValueError: it is of another model, or of another run than the directory's config; or these are many runs.
          DamagedCheckpointError: it is damaged, or with ``"newest"`` all are.
        """
        if "sweep" in self.config["identity"]:
            raise ValueError(f"{self.directory} holds a sweep: open one of its members, such as members/000")
        if not self.steps():
            raise FileNotFoundError(f"{self.directory} has no checkpoint yet: train it first")
        wanted = {"state": self.shapes()}
        with self.checkpoints(read_only=True) as checkpoints:
            restored = checkpoints.restore_one(which, wanted)
        for reason in restored.damaged.values():
            warnings.warn(f"{reason}: using checkpoint {restored.step}", RuntimeWarning, stacklevel=2)
        self.check_identity(restored.manifest["config"]["identity"], f"checkpoint {restored.step}")
        return restored.items["state"]
