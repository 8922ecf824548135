"""The command ``jaxgen``: its verbs, and what it refuses before anything slow is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

import jaxgen
from jaxgen import families, recipes
from jaxgen.cli.main import VERBS, main, usage

LAZILY = """
import sys
from jaxgen.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as error:
    status = error.code
slow = [name for name in ("jax", "flax", "optax", "orbax", "numpy", "matplotlib") if name in sys.modules]
print(f"imported {slow}", file=sys.stderr)
raise SystemExit(status)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LAZILY, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "usage: jaxgen VERB"),
        (["--version"], 0, f"jaxgen {jaxgen.__version__}"),
        ([], 2, "usage: jaxgen VERB"),
        (["trian"], 2, "error: there is no jaxgen trian, did you mean train? use one of train, sample, "),
        (["train", "vea"], 2, "unknown family 'vea'"),
        (["train", "gan", "--help"], 0, "--discriminator-learning-rate"),
        (["train", "gan", "--config", "conv_vae"], 2, "unknown configuration 'conv_vae' for gan: it is one of vae"),
        (["train", "gan", "--config", "dcgna"], 2, "unknown configuration 'dcgna' for gan: the nearest are dcgan"),
        (["train", "gan", "--architecture", "resnet", "--dropout-rate", "0.5"], 2, "is an option of mlp, maxout and"),
        (["train", "gan", "--beta", "2"], 2, "--beta is an option of vae, not of gan: leave it out"),
        (
            ["sweep", "vae", "--penalty", "r1", "--over", "beta=1,2"],
            2,
            "--penalty is an option of gan and tokenizer, not",
        ),
    ],
)
def test_a_command_line_is_judged_before_anything_slow_is_imported(
    arguments: list[str], status: int, said: str
) -> None:
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    assert said in (done.stdout if status == 0 or not arguments else done.stderr)
    assert "imported []" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_package_holds_is_imported_when_it_is_used() -> None:
    program = "import sys, jaxgen\nassert 'jax' not in sys.modules and 'numpy' not in sys.modules\n"
    program += "assert jaxgen.losses.hinge and 'jax' in sys.modules and 'orbax' not in sys.modules\n"
    program += "from jaxgen import *\nassert gan_step is jaxgen.gan.gan_step and len(jaxgen.__all__) > 50\n"
    program += "assert set(jaxgen.__all__) < set(dir(jaxgen))\n"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_verb_is_a_module_and_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(jaxgen.__file__).parent / "cli"
    assert all((folder / f"{verb}.py").is_file() for verb in VERBS)
    assert len(usage().splitlines()) < 24, "a screen"
    for verb in VERBS:
        with pytest.raises(SystemExit) as caught:
            main([verb, "--help"])
        assert caught.value.code == 0
        assert "jaxgen" in capsys.readouterr().out


def test_the_recipes_are_those_that_ship() -> None:
    folder = Path(recipes.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} == {"__init__", *recipes.NAMES}
    for name in recipes.NAMES:
        options, reproduction = recipes.load(name)
        assert reproduction is None
        spec = options.spec((64, 64, 3), 10)
        assert sum(families.family_of(spec).latent_dims(spec)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train", "sweep", "sample", "evaluate", "explore", "export", "plot", "compare"])
def test_the_launchers_need_nothing_but_the_package(script: str, tmp_path: Path) -> None:
    """Not even the repository on the path: they find it, or do without."""
    root = Path(jaxgen.__file__).parents[1]
    (tmp_path / "jaxgen").symlink_to(root / "jaxgen")  # the package alone
    program = f"""
import runpy, sys
sys.path = [path for path in sys.path if path != {str(root)!r}]
sys.path.append({str(tmp_path)!r})
sys.argv = ["{script}.py", "--help"]
runpy.run_path({str(root / "experiments" / f"{script}.py")!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout or "VAE" in done.stdout
