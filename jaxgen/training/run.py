"""A run directory and its config: specs to plain data and back, without executing anything from a file.

A spec becomes plain data through registered names: a registered class by its name and fields, a registered
function by its name. Register your own with `register` before you create or open a run that uses it.
"""

import contextlib
import dataclasses
import functools
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import optax
from flax import linen as nn

from jaxgen import augmentation, losses, networks, schedules
from jaxgen.gan import GAN, GANState, gan_init
from jaxgen.spec import Schedule
from jaxgen.training.checkpoint import Checkpoints, Which
from jaxgen.training.files import exclusive, replacing
from jaxgen.training.manifest import versions
from jaxgen.vae import VAE, VAEState, vae_init

Plain = Any  # None, bool, int, float, str, and lists and dictionaries of them
Spec = GAN | VAE
State = GANState | VAEState

_FORMAT = 1
_NEWEST = ".newest_checkpoint"
_OPTIMIZERS = ("adabelief", "adam", "adamax", "adamw", "amsgrad", "lamb", "lion", "rmsprop", "sgd")
_OF_FLAX = ("parent", "name")  # fields that every Linen module has


@functools.cache
def _transformation(name: str, arguments: tuple[tuple[str, float | Schedule], ...]) -> optax.GradientTransformation:
    return optax.inject_hyperparams(getattr(optax, name))(**dict(arguments))


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optax optimizer as plain data: equal ones are equal, so a rebuilt spec is not compiled again.

    Its numbers are held by ``optax.inject_hyperparams`` in the optimizer state, where a population may vary them.

    Args:
      name: an optimizer of optax, e.g. ``"adam"``.
      arguments: its arguments, numbers or schedules (step [] -> number []), as sorted pairs, e.g. ``(("b1", 0.5),
        ("learning_rate", 2e-4))``; see `optimizer`.

    Raises:
      ValueError: the name is not one of the known optimizers, or it does not take those arguments.
    """

    name: str
    arguments: tuple[tuple[str, float | Schedule], ...]

    def __post_init__(self) -> None:
        if self.name not in _OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.name!r}: use one of {', '.join(_OPTIMIZERS)}")
        try:
            _transformation(self.name, self.arguments)
        except TypeError as error:
            raise ValueError(f"optimizer {self.name} does not take these arguments: {error}") from error

    def init(self, params: Any) -> Any:
        """The optimizer's state for a tree of parameters of any shapes."""
        return _transformation(self.name, self.arguments).init(params)

    def update(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """(updates, new state) from gradients like the parameters; see ``optax.GradientTransformation``."""
        return _transformation(self.name, self.arguments).update(updates, state, params)


def optimizer(name: str, **arguments: float | Schedule) -> Optimizer:
    """Describe an optax optimizer, e.g. ``optimizer("adam", learning_rate=1e-3)``.

    Args:
      name: an optimizer of optax.
      **arguments: its arguments: numbers, or schedules, step [] -> number [], such as `jaxgen.schedules.Cosine`.

    Returns:
      The optimizer, to be used wherever an optax transformation is.

    Raises:
      ValueError: the name is not one of the known optimizers, or it does not take those arguments.
    """
    numbers = {key: value if callable(value) else float(value) for key, value in arguments.items()}
    return Optimizer(name, tuple(sorted(numbers.items())))


_classes: dict[str, type] = {}
_values: dict[str, Any] = {}


def register(name: str, thing: Any) -> None:
    """Give a class or a function a name under which configs know it.

    Args:
      name: the name.
      thing: a (frozen) dataclass, such as a Linen module, or a module-level function or constant.

    Raises:
      ValueError: the name is taken by something else.
    """
    registry = _classes if isinstance(thing, type) else _values
    if registry.setdefault(name, thing) is not thing:
        raise ValueError(f"the name {name!r} is already registered for {registry[name]!r}: choose another")


_FUNCTIONS = (
    nn.elu,
    nn.gelu,
    nn.glu,
    networks.leaky_relu,
    nn.relu,
    jax.nn.sigmoid,
    nn.silu,
    nn.softplus,
    nn.tanh,
)
_LOSSES = (
    "elbo",
    "dreg",
    "hinge",
    "iwae",
    "least_squares",
    "minimax",
    "non_saturating",
    "relativistic",
    "relativistic_average",
    "sampled_elbo",
    "stl",
    "wasserstein",
)


def _classes_of(module: Any) -> list[type]:
    """The dataclasses that a module offers: specs may hold any of them."""
    return [
        thing
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and isinstance(thing, type)
        and dataclasses.is_dataclass(thing)
        and thing.__module__.startswith(module.__name__)
    ]


for _class in (GAN, VAE, *(c for m in (augmentation, losses, networks, schedules) for c in _classes_of(m))):
    register(_class.__name__, _class)
for _function in _FUNCTIONS:
    register(_function.__name__, _function)
for _name in _LOSSES:
    register(_name, getattr(losses, _name))


def to_plain(value: Any) -> Plain:
    """Describe a spec, or a part of one, as plain data.

    Args:
      value: a registered dataclass, function or constant, a tuple, a number, a string or None.

    Returns:
      Plain data: ``{"type": name, field: ...}`` for a dataclass, ``{"named": name}`` for a function,
      ``{"optimizer": name, argument: ...}`` for an optimizer.

    Raises:
      TypeError: it, or a part of it, is not registered.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    for name, known in _values.items():
        if known is value:
            return {"named": name}
    if isinstance(value, Optimizer):
        return {"optimizer": value.name, **{key: to_plain(number) for key, number in value.arguments}}
    if dataclasses.is_dataclass(value) and _classes.get(type(value).__name__) is type(value):
        hidden = _OF_FLAX if isinstance(value, nn.Module) else ()
        fields = [field.name for field in dataclasses.fields(value) if field.name not in hidden]
        return {"type": type(value).__name__, **{name: to_plain(getattr(value, name)) for name in fields}}
    raise TypeError(
        f"{value!r} has no name for the config: give it one with jaxgen.training.run.register (specs need the "
        "optimizers of jaxgen.training.run.optimizer)"
    )


def from_plain(plain: Plain) -> Any:
    """Rebuild what `to_plain` described.

    Args:
      plain: plain data.

    Returns:
      An equal value.

    Raises:
      ValueError: it names something that is not registered, or fields that do not fit.
    """
    if isinstance(plain, list):
        return tuple(from_plain(item) for item in plain)
    if not isinstance(plain, dict):
        return plain
    if set(plain) == {"named"}:
        if plain["named"] not in _values:
            raise ValueError(
                f"unknown name {plain['named']!r} in the config: register it, or use one of {sorted(_values)}"
            )
        return _values[plain["named"]]
    fields = dict(plain)
    if "type" not in fields and "optimizer" in fields:
        name = fields.pop("optimizer")
        return optimizer(name, **{key: from_plain(number) for key, number in fields.items()})
    name = fields.pop("type", None)
    if name not in _classes:
        raise ValueError(f"unknown type {name!r} in the config: register it, or use one of {sorted(_classes)}")
    try:
        return _classes[name](**{key: from_plain(value) for key, value in fields.items()})
    except TypeError as error:
        raise ValueError(f"the config's fields do not fit {name}: {error}") from error


def differences(saved: Plain, requested: Plain, path: str = "") -> list[str]:
    """Where two configs differ, in words.

    Args:
      saved: plain data of the saved config.
      requested: plain data of the requested one.
      path: the name of the whole.

    Returns:
      One line per difference, naming the field, the old and the new value.
    """
    if isinstance(saved, dict) and isinstance(requested, dict):
        return [
            line
            for key in [*saved, *(key for key in requested if key not in saved)]
            for line in differences(saved.get(key), requested.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if saved == requested else [f"{path} was {saved!r}, now {requested!r}"]


def init_state(spec: Spec, key: jax.Array, batch: Mapping[str, Any]) -> State:
    """Initialise the state of a spec of either family.

    Args:
      spec: a GAN or a VAE.
      key: typed key, [].
      batch: an example batch, ``image`` [B, ...].

    Returns:
      Its state at step 0.
    """
    return gan_init(spec, key, batch) if isinstance(spec, GAN) else vae_init(spec, key, batch)


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
        """Make a run directory.

        Args:
          directory: a folder that holds no run; made with its parents.
          identity: plain data, with at least ``model`` (a spec's), ``data`` and ``seed``.
          settings: plain data.

        Returns:
          The run.

        Raises:
          FileExistsError: the folder already holds a run.
        """
        if cls.exists(directory):
            raise FileExistsError(
                f"{directory} already holds a run: pass --resume to continue it, or another --workdir"
            )
        config = {"format": _FORMAT, "identity": identity, "settings": settings, "versions": versions()}
        with replacing(directory / "config.json") as partial:
            partial.write_text(json.dumps(config, indent=2) + "\n")
        return cls(directory, config)

    @classmethod
    def open(cls, directory: Path) -> "Run":
        """Open an existing run directory.

        Args:
          directory: the folder.

        Returns:
          The run.

        Raises:
          FileNotFoundError: the folder holds no run.
          ValueError: its config cannot be read, or is of another version of the format.
        """
        path = directory / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{directory} holds no run: expected {path}, which train.py writes")
        try:
            config = json.loads(path.read_text())
            version = config["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not the config of a run ({error}): restore it from a copy") from error
        if version != _FORMAT:
            raise ValueError(
                f"{path} is of format {version}, this jaxgen reads {_FORMAT}: use the jaxgen that wrote it"
            )
        return cls(directory, config)

    def check_identity(self, identity: Plain, what: str = "what is asked for") -> None:
        """Refuse to go on as another run.

        Args:
          identity: plain data of the run requested.
          what: whose identity it is.

        Raises:
          ValueError: it differs from the saved one; the error names each field with its old and new value.
        """
        changed = differences(self.config["identity"], json.loads(json.dumps(identity)))
        if changed:
            raise ValueError(
                f"{self.directory} holds another run than {what}: {'; '.join(changed)}: use the old values, or another "
                "--workdir"
            )

    @property
    def spec(self) -> Spec:
        """The run's GAN or VAE, rebuilt from the config."""
        return from_plain(self.config["identity"]["model"])

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the run for this process alone, in a ``with`` statement; see `jaxgen.training.files.exclusive`."""
        return exclusive(self.directory)

    def checkpoints(self, **options: Any) -> Checkpoints:
        """The run's checkpoints, to be used in a ``with`` statement.

        Args:
          **options: of `Checkpoints`.

        Returns:
          The checkpoints; no shapes involved.
        """
        return Checkpoints(self.directory / "checkpoints", record=self.directory / _NEWEST, **options)

    def steps(self) -> list[int]:
        """Steps of the completed checkpoints, ascending; none before the first one."""
        return self.checkpoints(read_only=True).steps()

    def shapes(self) -> State:
        """Shapes and types of the run's state, as a state of `jax.ShapeDtypeStruct`."""
        data = self.config["identity"]["data"]
        batch = {"image": jax.ShapeDtypeStruct((1, *data["image_shape"]), data["image_type"])}
        if data["labels"]:
            batch["label"] = jax.ShapeDtypeStruct((1,), "int32")
        return jax.eval_shape(lambda batch: init_state(self.spec, jax.random.key(0), batch), batch)

    def restore(self, which: Which = "newest") -> State:
        """Read a state of the run.

        Args:
          which: ``"newest"`` (the newest whole one, with a warning when a newer one is damaged), ``"best"`` or a step.
            A training may go on meanwhile.

        Returns:
          The state, bit for bit as it was saved, arrays of the shapes of `shapes`.

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
