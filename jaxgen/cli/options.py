"""What the options of all families have in common: their fields, what is said of each at the field, and their checks.

A family's options are a dataclass; each of its architectures is a subclass with the fields that it alone has, and
builds its own networks. An option that has a meaning only beside a choice of another one says so at its field.
"""

import ast
import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from jaxgen import intervals
from jaxgen.intervals import LARGEST_SEED, Count, CountOrNone, RelativeLength, Seed
from jaxgen.untrusted import shown

if TYPE_CHECKING:
    from jaxgen.training.checkpoint import Which
    from jaxgen.training.run_data import DataChoice
    from jaxgen.training.session import Cadence

Activation = Literal["elu", "gelu", "glu", "leaky_relu", "relu", "silu", "softplus", "tanh"]
DType = Literal["auto", "float32", "bfloat16"]
Topic = Literal["basics", "data", "model", "optimisation", "training", "checkpoints", "devices"]
PATHS = (
    "dataset",
    "data_dir",
    "manual_dir",
    "extractor",
    "latents",
    "perceptual",
)  # which may name a place from the current directory
TOPICS: tuple[Topic, ...] = ("basics", "data", "model", "optimisation", "training", "checkpoints", "devices")


def option(
    default: Any = dataclasses.MISSING,
    topic: Topic = "model",
    *,
    needs: str | None = None,
    where: Callable[[Any], bool] | None = None,
    saved: bool = True,
) -> Any:
    """A field of options.

    Args:
      default: its value when nothing is given.
      topic: under which ``--help`` lists it.
      needs: the option beside which it has a meaning, in words.
      where: whether options are such that it has one; always when None.
      saved: whether it belongs to the run, and not to one invocation of the command.
    """
    told = {"topic": topic, "needs": needs, "where": where, "saved": saved}
    return dataclasses.field(default=default, metadata=told)


def flag(name: str) -> str:
    """An option as it is typed."""
    return f"--{name.replace('_', '-')}"


def checkpoint(text: str) -> "Which":
    """What ``--checkpoint`` names: newest, best, or a step."""
    if text.isdecimal():
        return int(text)
    if text not in ("newest", "best"):
        raise ValueError(f"--checkpoint must be newest, best or a step, got {text!r}")
    return "newest" if text == "newest" else "best"


def refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse an empty word, such as a variable that is not set: as a path it would be the current folder."""
    named = "the first word"
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not argument.strip() or (name.startswith("--") and equals and not value.strip()):
            raise UsageError(f"{name if equals else named} is empty: is a variable not set? give it, or leave it out")
        named = name if name.startswith("--") else f"the word after {shown(argument)}"


def check_numbers(options: Any) -> None:
    """Refuse options one of whose numbers is outside of the interval that its field declares."""
    intervals.check(options, flag)


def listed(names: Sequence[str]) -> str:
    """Names as they are said: "a, b and c"."""
    return ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]


def check_seeds(seed: int, count: int, name: str = "--seed") -> None:
    """Refuse so many seeds from one on where 32 bits do not hold the last one."""
    if seed + count - 1 > LARGEST_SEED:
        raise ValueError(
            f"{name} {seed} and the seeds after it, {count} in all, go past {LARGEST_SEED}: give smaller ones"
        )


def split_path(value: str) -> tuple[str, str]:
    """What an option says before the path that it names, and the path: ``folder:PATH``; an empty one where none is."""
    kind, _, rest = value.partition(":")
    if kind == "stacked":
        before, path = split_path(rest)
        return f"stacked:{before}", path
    return (f"{kind}:", rest) if kind in ("folder", "zip", "npz", "npy", "idx", "inception", "vgg") else (value, "")


def is_there(path: str) -> bool:
    """Whether a path that was typed leads to something."""
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def check_data(dataset: str, directory: Path, name: str = "--dataset") -> None:
    """Refuse data of a run that are no longer where it had them."""
    before, path = split_path(dataset)
    if path and not is_there(path):
        raise FileNotFoundError(
            f"there are no data at {path}: say where those of {directory} are now, with {name} {before}PATH"
        )


def check_encoding(directory: Path) -> None:
    """Refuse a place whose name is no Unicode text: checkpoints cannot be written there."""
    try:
        str(directory.absolute()).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"the name {str(directory)!a} is no text in this system's encoding, and checkpoints cannot be written "
            "there: set PYTHONUTF8=1, or use another --workdir"
        ) from None


def _anywhere(name: str, value: str) -> str:
    """The value of one of `PATHS`, such that it holds in every directory."""
    before, path = split_path(value) if name in ("dataset", "extractor", "perceptual") else ("", value)
    if name == "latents" and not is_there(value):  # the name of a model in the package
        return value
    try:
        return f"{before}{Path(path).expanduser().absolute()}" if path else value
    except (RuntimeError, OSError):  # a ~user that there is not, or no current directory: said where it is read
        return value


def _is_of_tfds(options: Any) -> bool:
    """Whether the data set is one that TFDS prepares."""
    name = options.dataset.removeprefix("stacked:")
    return ":" not in name and name not in ("fashion_mnist_small", "gaussians")


# What has no meaning where latents are learnt, which a transformation of images does not reach.
OF_IMAGES: dict[str, Any] = {"needs": "images, not --latents", "where": lambda o: getattr(o, "latents", None) is None}
_OF_TFDS: dict[str, Any] = {"needs": "sets of TFDS", "where": _is_of_tfds}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every family."""

    family: ClassVar[str]
    architectures: ClassVar[dict[str, type["Options"]]] = {}  # of a family, the default one first

    config: str | None = option(None, "basics")
    """A named configuration to start from; other options override it."""
    dataset: str = option("fashion_mnist_small", "basics")
    """fashion_mnist_small (embedded), a TFDS image set, folder:PATH, npz:PATH, idx:DIR, stacked:SET or gaussians."""
    steps: Count = option(topic="basics")
    """Number of steps in all."""
    batch_size: Count = option(topic="basics")
    """Number of (real) images in a batch, of all discriminator steps and packs together."""
    seed: Seed = option(0, "basics")
    """Fixes initialisation, the order of the data and all noise."""
    workdir: Path | None = option(None, "basics")
    """The run directory; the next free runs/FAMILY-NNN when not given."""
    resume: bool = option(default=False, topic="basics", saved=False)
    """Continue the run in --workdir from its newest checkpoint."""
    requeue: bool = option(default=False, topic="basics", saved=False)
    """The same, or begin where there is no run yet: for jobs that are started again."""
    data_dir: Path | None = option(None, "data", **_OF_TFDS)
    """Where TFDS keeps prepared sets."""
    manual_dir: Path | None = option(None, "data", **_OF_TFDS)
    """Folder with the original files of a set, instead of the network."""
    image_size: Count | str | None = option(None, "data")
    """Resize images to this many pixels, or to HEIGHTxWIDTH (96x128)."""
    fit: Literal["crop", "pad"] = option("crop", "data", needs="--image-size", where=lambda o: o.image_size is not None)
    """Crop to the middle what is of another shape, or pad with white."""
    flip: bool = option(default=False, topic="data", **OF_IMAGES)
    """Mirror every second image left to right, by chance."""
    standardize: Literal["auto", "never"] = option("auto", "data")
    """Bring vectors that are not in [0, 1] to mean 0 and deviation 1."""
    color: Literal["grey", "rgb"] | None = option(None, "data")
    """Make all images grey or RGB."""
    train_split: str = option("train", "data")
    """The split to train on, or a slice such as train[:90%] or train[:50000]."""
    test_split: str = option("test", "data")
    """The split to evaluate on."""
    streaming: Literal["auto", "always", "never"] = option("auto", "data")
    """Read images as they are needed; auto: where they do not fit."""
    log_every: Count = option(100, "training")
    """Steps between rows of the log."""
    eval_every: Count = option(1000, "training")
    """Steps between evaluations on the test split."""
    extractor: str = option("none", "training")
    """Also measure features: lenet_mnist, pixels, inception:PATH, auto."""
    sample_every: Count = option(1000, "training")
    """Steps between grids of samples."""
    skip_bad_steps: CountOrNone = option(0, "training")
    """Leave out steps that are not finite, and give up after so many."""
    init_from: Path | None = option(None, "training")
    """Start from the weights of another run's newest checkpoint."""
    partial: bool = option(
        default=False, topic="training", needs="--init-from", where=lambda o: o.init_from is not None
    )
    """Take the weights that fit, and name the rest."""
    checkpoint_every: Count = option(1000, "checkpoints")
    """Steps between checkpoints."""
    keep: Count = option(2, "checkpoints")
    """How many of the newest checkpoints to keep, besides the best."""
    keep_every: Count | None = option(None, "checkpoints")
    """Keep for good the checkpoints whose step is a multiple of this."""
    checkpointing: Literal["asynchronous", "synchronous"] = option("asynchronous", "checkpoints")
    """Whether training goes on while one is written."""
    mesh: str | None = option(None, "devices", saved=False)
    """Devices by axis, such as data=8 or data=4,model=2."""
    coordinator: str | None = option(None, "devices", saved=False)
    """HOST:PORT of process 0, to train in several processes."""
    num_processes: Count | None = option(None, "devices", saved=False)
    """Number of processes, with --coordinator."""
    process_id: CountOrNone | None = option(None, "devices", saved=False)
    """Number of this process, from 0, with --coordinator."""

    def __new__(cls, **fields: Any) -> Self:
        """Of a family itself, options of the architecture that is asked for."""
        kinds = {name: kind for name, kind in cls.architectures.items() if issubclass(kind, cls) and kind is not cls}
        if not kinds:
            return super().__new__(cls)
        chosen = fields.get("architecture", next(iter(kinds)))
        if chosen not in kinds:
            raise ValueError(f"unknown architecture {chosen!r} for {cls.family}: use one of {', '.join(kinds)}")
        return super().__new__(kinds[chosen])

    def __post_init__(self) -> None:
        kind = self.architectures.get(getattr(self, "architecture", ""), type(self))
        if kind is not type(self):
            raise ValueError(f"this architecture has options of its own, {kind.__name__}, not {type(self).__name__}")

    @property
    def goes_on(self) -> bool:
        """Whether a run that is there is to be continued."""
        return self.resume or self.requeue

    def spec(self, image_shape: tuple[int, ...], num_classes: int | None = None, unbounded: bool = False) -> Any:
        """The model for images of this shape, and labels of so many classes (None: without labels); for vectors that
        are not in [0, 1] where ``unbounded``."""
        raise NotImplementedError

    def model(self, image_shape: tuple[int, ...], num_classes: int | None = None, unbounded: bool = False) -> Any:
        """What is trained on such images: `spec`, or where latents of images are learnt, the second stage of it."""
        return self.spec(image_shape, num_classes, unbounded)

    def held(self, image_shape: tuple[int, ...]) -> dict[str, Any]:
        """What files hold of a first state, by its fields, for images of this shape: it is put there, not learnt."""
        return {}

    def check(self) -> None:
        """Refuse numbers that make no sense, before anything is read or written."""
        check_numbers(self)
        given = [self.coordinator, self.num_processes, self.process_id]
        if any(value is None for value in given) and any(value is not None for value in given):
            raise ValueError("--coordinator, --num-processes and --process-id go together: pass all of them or none")
        if self.goes_on and self.workdir is None:
            raise ValueError(f"--{'resume' if self.resume else 'requeue'} needs the --workdir of the run to continue")

    def check_given(self, names: set[str]) -> None:
        """Refuse an option that was given and has no meaning beside the others: it would be ignored."""
        for field in dataclasses.fields(self):
            where = field.metadata["where"]
            if field.name in names and where is not None and not where(self):
                raise UsageError(
                    f"{flag(field.name)} would have no effect: it is for {field.metadata['needs']}; leave it out, or "
                    "pass that too"
                )

    def data_choice(self) -> "DataChoice":
        """Which data they say."""
        from jaxgen.training.run_data import DataChoice  # slow to import

        names = [field.name for field in dataclasses.fields(DataChoice) if hasattr(self, field.name)]
        return DataChoice(**{name: getattr(self, name) for name in names})

    def cadence(self) -> "Cadence":
        """How often they say to look."""
        from jaxgen.training.session import Cadence  # slow to import

        values = {name: getattr(self, name) for name in Cadence._fields if hasattr(self, name)}
        if not getattr(self, "average_lengths", ()):
            values.pop("snapshot_every", None)
        return Cadence(**values)

    def saved(self) -> dict[str, Any]:
        """What the run's config keeps of them, as plain data: what is of one invocation has its default."""
        kept = {
            field.name: getattr(self, field.name) if field.metadata["saved"] else field.default
            for field in dataclasses.fields(self)
        }
        return {name: str(value) if isinstance(value, Path) else value for name, value in kept.items()}

    def settings(self) -> dict[str, Any]:
        """What the run's config keeps besides its identity: the options as they were typed, and where their paths
        lead from any directory."""
        kept = self.saved()
        lead = {name: (kept[name], _anywhere(name, kept[name])) for name in PATHS if kept.get(name) is not None}
        paths = {name: path for name, (typed, path) in lead.items() if path != typed}
        return {"family": self.family, "options": kept, **({"paths": paths} if paths else {})}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AveragedOptions(Options):
    """Options of families whose weights are averaged so that the length is chosen after training."""

    average_lengths: tuple[RelativeLength, ...] = option((), "optimisation")
    """Keep averages of these relative lengths besides (0.05 0.1), for explore ema."""
    snapshot_every: Count = option(
        1000, "checkpoints", needs="--average-lengths", where=lambda o: bool(o.average_lengths)
    )
    """Steps between those that are left in the run."""


def nothing_to_resume(workdir: Path) -> FileNotFoundError:
    """What is said where a run ought to be, and is not."""
    return FileNotFoundError(
        f"{workdir} holds no run to resume: give the --workdir of one, leave out --resume to begin one there, or pass "
        "--requeue to resume or begin, whichever fits"
    )


class UsageError(ValueError):
    """A command line that cannot be meant: status 2."""


@functools.cache
def documentation(kind: Any) -> dict[str, str]:
    """What is said of each field of a dataclass, by its name: the string below it."""
    found: dict[str, str] = {}
    for parent in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(parent))).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(line.target, ast.Name):
                found[line.target.id] = " ".join(ast.literal_eval(below.value).split())
    return found


def network_dtype(wanted: str) -> str:
    """The networks' compute type of a ``--dtype``."""
    if wanted != "auto":
        return wanted
    from jaxgen import platform  # slow to import

    return platform.computed_dtype(wanted)


def classes(conditional: bool, num_classes: int | None) -> int | None:
    """Number of classes of the networks; None of unconditional ones."""
    if not conditional:
        return None
    if num_classes is None:
        raise ValueError("--conditional needs a data set with labels: this one has none")
    return num_classes
