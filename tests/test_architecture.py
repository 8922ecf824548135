"""The house: imports go down only, the core needs few packages, and every public name is documented."""

import ast
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import pytest

import jaxgen
import jaxgen.data.batch_feeds
import jaxgen.data.streaming
from jaxgen import (
    adversary,
    augmentation,
    batches,
    collapse,
    data,
    diffusers,
    families,
    keys,
    losses,
    metrics,
    networks,
    parallel,
    perceptual,
    plain,
    schedules,
    trained,
    untrusted,
    weights,
)
from jaxgen.cli.main import VERBS
from jaxgen.evaluation import evaluator, extractors, figures, measures, records, sample_measures, subject
from jaxgen.training import (
    checkpoint,
    events,
    files,
    loop,
    manifest,
    monitor,
    population,
    run,
    sentinel,
    stopping,
)

ROOT = Path(jaxgen.__file__).parent
# Floors from the bottom. A module may import from its own floor and from those below.
FLOORS = [
    {
        "losses",
        "metrics",
        "networks",
        "augmentation",
        "averaging",
        "batches",
        "intervals",
        "keys",
        "platform",
        "schedules",
    },
    {
        "adversary",
        "annealed",
        "collapse",
        "families",
        "gan",
        "second_stage",
        "vae",
        "tokenizer",
        "latents",
        "parallel",
        "modules",
        "spec",
    },
    {"data", "plain", "untrusted", "training", "evaluation", "weights", "trained", "diffusers", "perceptual"},
    {"cli", "recipes", "__main__"},
]
# What each floor may import besides the standard library.
PACKAGES = [
    {"jax", "flax", "optax", "chex", "jaxgen"},
    {"jax", "flax", "optax", "chex", "jaxgen"},
    {"jax", "flax", "optax", "chex", "jaxgen", "orbax", "numpy", "tqdm"},
    {"jax", "jaxgen", "numpy", "tyro", "tqdm"},
]
# What floors import inside the functions that use it, so that the core imports without it: floors 3 and 4, the metrics.
WHERE_USED = {
    "PIL",
    "tensorflow",
    "tensorflow_datasets",
    "requests",
    "tensorboardX",
    "grain",
    "safetensors",
    "matplotlib",
}
METRICS = {"dm_pix"}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    found = [level for level, names in enumerate(FLOORS) if name in names]
    assert len(found) == 1, f"jaxgen/{name} is on no floor: add it to FLOORS"
    return found[0]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether it is at the top level) of every import of a file."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide their floor"
            if node.module == "jaxgen":
                for alias in node.names:
                    yield f"jaxgen.{alias.name}", top
            else:
                yield str(node.module), top


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    here = floor(room(path))
    for name, top in imports(path):
        package, *rest = name.split(".")
        if package in sys.stdlib_module_names:
            continue
        allowed = PACKAGES[here] | (WHERE_USED if here >= 2 and not top else set())
        allowed |= METRICS if room(path) == "metrics" and not top else set()
        assert package in allowed, f"{path} (floor {here + 1}) must not import {name}"
        if package == "jaxgen" and rest:
            assert floor(rest[0]) <= here, f"{path} (floor {here + 1}) imports {name} from a floor above"
            families = {"gan", "vae", "tokenizer"}
            if room(path) != rest[0] and {room(path), rest[0]} <= families:
                pytest.fail("gan.py, vae/ and tokenizer/ never import each other")
            if room(path) == "adversary" and rest[0] in families:
                pytest.fail("adversary.py serves any generator: it imports no family")
            assert not (here == 1 and rest[0] == "networks"), f"{path} imports networks/"


def test_only_the_table_asks_which_family_a_spec_is_of() -> None:
    """A new family is one file and one row; see `jaxgen.families`."""
    asked = []
    specs = {name for family in families.families() for name in (family.spec.__name__, family.state.__name__)}
    for path in (
        path
        for folder in (ROOT, *(ROOT.parent / n for n in ("experiments", "benchmarks")))
        for path in folder.rglob("*.py")
    ):
        own = path.parent.name in ("vae", "tokenizer") or path.name in ("gan.py", "families.py", "second_stage.py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance" and not own:
                kinds = {getattr(part, "attr", getattr(part, "id", "")) for part in ast.walk(node.args[1])}
                asked += [f"{path}:{node.lineno}"] * bool(kinds & specs)
    assert asked == []


def test_the_top_only_reexports() -> None:
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    assert not [node for node in stub.body if not isinstance(node, ast.ImportFrom | ast.Assign | ast.AnnAssign)]
    tree = ast.parse((ROOT / "__init__.py").read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert functions == {"__getattr__", "__dir__"}
    kinds = ast.Import | ast.ImportFrom | ast.Assign | ast.Expr | ast.FunctionDef
    assert not [node for node in tree.body if not isinstance(node, kinds)]
    with pytest.raises(AttributeError, match="no attribute 'gan_stpe'"):
        jaxgen.gan_stpe  # type: ignore[attr-defined]  # noqa: B018


def test_the_core_imports_without_the_rest() -> None:
    """Where only jax, flax, optax, chex and orbax (and what they need) are installed, ``import jaxgen`` works."""
    missing = sorted(WHERE_USED | METRICS | {"tyro", "tqdm", "importlib_resources", "lazy_loader"})
    program = f"""
import sys
for name in {missing}:
    sys.modules[name] = None
import jaxgen
assert not [name for name in sys.modules if name.startswith("orbax")], "it takes most of a second"
import jaxgen.training.run, jaxgen.training.loop, jaxgen.training.checkpoint, jaxgen.training.monitor
import jaxgen.evaluation.extractors
assert jaxgen.data.load()["image"].shape == (2000, 28, 28, 1)
try:
    jaxgen.data.load("mnist")
except ModuleNotFoundError as error:
    assert "pip install tensorflow-datasets" in str(error), error
else:
    raise SystemExit("expected an error")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


HOUSE = ("jaxgen", "experiments", "benchmarks")
# Why they are longer than 450 lines.
LONG = {
    "jaxgen/trained.py": "one class, which offers all that a trained model does",
    "jaxgen/training/checkpoint.py": "one class: what may go wrong between a state and a disk",
}


def house() -> dict[str, Path]:
    """Every module by its name."""
    files = [path for folder in HOUSE for path in sorted((ROOT.parent / folder).rglob("*.py"))]
    return {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in files
    }


def imported_modules() -> dict[str, set[str]]:
    """Which modules of the house each of them imports, inside functions and for types too."""
    modules = house()
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                # ``from package import name`` takes a module where there is one, or else what __init__ holds.
                found[name] |= {one if one in modules else node.module for one in whole}
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in modules}
    return found


def test_imports_go_in_no_circle() -> None:
    """Protects: each file can be read after those that it imports, those that it imports for types too."""
    left = imported_modules()
    assert sum(map(len, left.values())) > 500
    while free := {name for name, others in left.items() if not others}:
        left = {name: others - free for name, others in left.items() if name not in free}
    assert not left, f"a circle of imports among {sorted(left)}"


def test_the_package_stands_alone_and_scripts_import_no_scripts() -> None:
    """Protects: what is shared has a room of its own; a script can be read, and deleted, alone."""
    modules, imported = house(), imported_modules()
    scripts = {
        name
        for name, path in modules.items()
        if path.parent.name == "experiments" and "\nif __name__ == " in path.read_text()
    }
    assert {"experiments.train", "experiments.reproduce"} <= scripts
    verbs = {f"jaxgen.cli.{verb}" for verb in VERBS}  # which jaxgen.cli.main imports by their names
    assert verbs <= set(modules)
    scripts |= verbs
    for name, others in imported.items():
        assert not others & scripts, f"{name} imports a script: {sorted(others & scripts)}"
        mine = name.partition(".")[0]
        strangers = {other for other in others if other.partition(".")[0] not in (mine, "jaxgen")}
        assert not strangers, f"{name} imports {sorted(strangers)}"


def test_few_scripts_and_no_long_files() -> None:
    assert len(list((ROOT.parent / "experiments").glob("*.py"))) <= 15
    lengths = {str(path.relative_to(ROOT.parent)): len(path.read_text().splitlines()) for path in house().values()}
    assert {name for name, length in lengths.items() if length > 450} == set(LONG)


def public() -> Iterator[tuple[str, Any]]:
    """Every public function and class, by its full name."""
    lists: list[tuple[ModuleType, list[str]]] = [
        *((module, list(module.__all__)) for module in (jaxgen, losses, metrics, networks, data)),
        *((m, [n for n, v in vars(m).items() if not n.startswith("_") and getattr(v, "__module__", "") == m.__name__])
          for m in (adversary, augmentation, batches, families, keys, parallel, schedules, jaxgen.modules, jaxgen.spec,
                    evaluator, extractors, figures, checkpoint, collapse, diffusers, events, data.batch_feeds, files,
                    loop, manifest, measures, monitor, perceptual, plain, population, records, run, sample_measures,
                    sentinel, stopping, data.streaming, subject, trained, untrusted, weights)),
    ]  # fmt: skip
    for module, names in lists:
        for name in names:
            thing = getattr(module, name)
            if inspect.isroutine(thing) or inspect.isclass(thing) or hasattr(thing, "__wrapped__"):
                yield f"{module.__name__}.{name}", thing


def method_cases() -> Iterator[tuple[str, Any]]:
    for name, thing in public():
        if inspect.isclass(thing) and thing.__module__.startswith("jaxgen"):
            for method, member in vars(thing).items():
                if not method.startswith("_") and inspect.isfunction(member) and not hasattr(member, "__wrapped__"):
                    yield f"{name}.{method}", member


# Arrays by name are handled as a whole, and have shapes of their own; of all others a docstring gives the shape.
TREE = re.compile(r"(dict|Mapping)\[str, [^\[\]]*\]")
ARRAYS = re.compile(r"(Array|ArrayLike|ndarray|Batch)\b")
SHAPE = re.compile(r"\[([A-Z0-9]|height|\*|\.\.\.|\])[^\]]*\]?|any shape\b")
# What these are is the same everywhere: the spec, its state, a typed key, the axes over which the global batch is
# split, and a batch of images with their labels (whose shapes are given all the same).
SELF_EVIDENT = {"gan", "vae", "spec", "state", "key", "axis_name", "batch", "label"}


def fields(thing: type) -> list[str]:
    """Those that a class adds to its parent or changes: what it shares with it is documented there."""
    annotations = vars(thing).get("__annotations__", {})
    given = [name for name, hint in annotations.items() if typing.get_origin(hint) is not typing.ClassVar]
    return [name for name in given if name not in ("parent", "name") and not name.startswith("_")]


def undocumented(documentation: str, parameters: list[str]) -> list[str]:
    """Parameters of which a docstring says nothing: in its Args section if it has one, else in its sentences."""
    if "Args:" in documentation:
        section = documentation.partition("Args:")[2].split("\n\n")[0]
        entries = re.findall(r"^\s*([\w*][\w*, ]*): ", section, re.MULTILINE)
        named = {name.strip(" *") for entry in entries for name in entry.split(",")}
        return [name for name in parameters if name not in named]
    if len(documentation.splitlines()) == 1:
        return []  # one sentence may say it in its own words
    words = {name: name.replace("_", "[_ -]") for name in parameters if name not in SELF_EVIDENT}
    return [name for name, word in words.items() if not re.search(rf"\b{word}s?\b", documentation, re.IGNORECASE)]


@pytest.mark.parametrize(("name", "thing"), sorted(dict(public()).items()))
def test_public_names_are_documented(name: str, thing: Any) -> None:
    """A sentence, each parameter, and the shape of each array; errors only where the remedy is not obvious."""
    documentation = inspect.getdoc(thing) or ""
    assert documentation, f"{name} has no docstring"
    first = documentation.splitlines()[0]
    assert first.endswith((".", ":")), f"{name}: the first line must be one sentence, got {first!r}"
    if inspect.isclass(thing):
        parameters = fields(thing)
        seen = str({field: vars(thing)["__annotations__"][field] for field in parameters})
        seen += str(inspect.signature(thing.__call__)) if "__call__" in vars(thing) else ""
    else:
        parameters = list(inspect.signature(thing).parameters)
        seen = str(inspect.signature(thing))
    if ARRAYS.search(TREE.sub("", seen)):
        assert SHAPE.search(documentation), f"{name} handles arrays: give their shapes"
    missing = undocumented(documentation, parameters)
    assert not missing, f"{name}: {', '.join(missing)} is not documented"
    if thing.__module__.startswith("jaxgen.") and floor(thing.__module__.split(".")[1]) < 2:
        assert "Raises:" not in documentation, f"{name}: errors of pure functions of arrays say what to pass instead"


def test_the_test_of_documentation_can_fail() -> None:
    def half(images: jax.Array, key: Any) -> Any:
        """Do something.

        Args:
          images: some, [B].
        """

    def shapeless(images: jax.Array) -> Any:
        """Do something with images."""

    def silent(images: jax.Array, num_samples: int) -> Any:
        """Do something with images [B].

        It takes some time.
        """

    def enough(images: jax.Array, num_samples: int, key: Any) -> Any:
        """Do something with images [B], ``num_samples`` times.

        It takes some time.
        """

    class Parent:
        """Does something.

        Args:
          width, height: in pixels.
        """

        width: int
        height: int

    class Same(Parent):
        """Does something else.

        It has the fields of its parent.
        """

    class More(Parent):
        """Does more.

        It has a field more than its parent.
        """

        depth: int

    def loud(images: jax.Array) -> Any:
        """Do something with images [B].

        Raises:
          ValueError: they are of another shape.
        """

    loud.__module__ = "jaxgen.losses"
    for thing, message in (
        (loud, "say what to pass instead"),
        (half, "key is not documented"),
        (shapeless, "give their shapes"),
        (silent, "num_samples is not documented"),
        (More, "depth is not documented"),
    ):
        with pytest.raises(AssertionError, match=message):
            test_public_names_are_documented(thing.__name__, thing)
    for fine in (enough, Parent, Same):
        test_public_names_are_documented(fine.__name__, fine)
    assert not SHAPE.search("an array, or [a list](link) of them, or arrays of any shapes")
    assert all(SHAPE.search(text) for text in ("[B]", "[]", "[N, H, W, C]", "[*image_shape]", "[..., D]"))


@pytest.mark.parametrize(("name", "thing"), sorted(dict(method_cases()).items()))
def test_public_methods_are_documented(name: str, thing: Any) -> None:
    documentation = inspect.getdoc(thing) or ""
    assert documentation.splitlines()[:1], f"{name} has no docstring"
    missing = undocumented(documentation, list(inspect.signature(thing).parameters)[1:])
    assert not missing, f"{name}: {', '.join(missing)} is not documented"


def test_no_file_outgrows_a_screen_of_purpose() -> None:
    """A step fits on a screen: the bodies of the compiled steps stay short."""
    for function in (jaxgen.gan._step, jaxgen.vae.training._step, jaxgen.gan_step, jaxgen.vae_step):
        assert len(inspect.getsource(function).splitlines()) <= 60
