"""Every test runs on 8 forced host devices, with silent rank promotion and warnings as errors.

Machine code is not optimised: a test compiles many programs and runs each a few times, and is three times faster so.
XLA's older code generator, which jaxlib 0.10 still has and 0.12 has not, halves the compiling again.
OpenBLAS, which finds eigenvalues, gets one thread: those of several workers wait for one another, at three to sixteen
times the work.
What one test compiled, another one finds in a folder that is gone in the end; each worker has its own, as JAX does not
write there atomically.
"""

import atexit
import datetime
import gc
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxlib.version

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxgen-tests-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import pytest

from jaxgen.cli.platforms import compile_rightly
from jaxgen.evaluation import curves

atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", type=int, default=1, help="run one of so many parts of the tests, another one each day")
    parser.addoption("--as-users-run", action="store_true", help="run what compiles as the commands do, and that alone")


def pytest_configure(config: pytest.Config) -> None:
    """Before JAX starts, which reads the flags then; what was in XLA_FLAGS counts, and comes first."""
    if config.getoption("--as-users-run"):
        compile_rightly()
        return
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
        " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        " --xla_cpu_parallel_codegen_split_count=1"
        " --xla_cpu_experimental_ynn_fusion_type=-reduce"  # as the commands do: jaxgen.platform
    )
    if jaxlib.version.__version_info__ < (0, 11):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"


# Said once, for all workers: a day may end while tests are collected.
os.environ.setdefault("JAXGEN_TEST_DAY", str(datetime.date.today().toordinal()))


def part_of_today(config: pytest.Config) -> int:
    return int(os.environ["JAXGEN_TEST_DAY"]) % config.getoption("--share")


def pytest_report_header(config: pytest.Config) -> str:
    return f"part {part_of_today(config) + 1} of {config.getoption('--share')}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that are compiled as this process compiles, and today's part of them: in so many days all run."""
    share, today = config.getoption("--share"), part_of_today(config)
    as_users_run = config.getoption("--as-users-run")

    def kept(item: pytest.Item) -> bool:
        marked = item.get_closest_marker("as_users_run") is not None
        return marked == as_users_run and zlib.crc32(item.nodeid.encode()) % share == today

    config.hook.pytest_deselected(items=[item for item in items if not kept(item)])
    items[:] = [item for item in items if kept(item)]


@pytest.fixture(autouse=True, scope="module")
def _forget_programs() -> Iterator[None]:
    """A process may map so many pieces of memory, and each compiled program takes some: thousands end in a crash."""
    yield
    jax.clear_caches()


_draw_run: Callable[[Path], Path] = curves.draw_run


@pytest.fixture(autouse=True, scope="session")
def _no_curves() -> Iterator[None]:
    """The picture of its log takes a tiny training a good part of its time: only tests of that have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "prepare", lambda: None)
        patch.setattr(curves, "draw_run", lambda directory: directory / "curves.png")
        yield


@pytest.fixture
def with_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the picture that a training leaves of its log."""
    monkeypatch.setattr(curves, "draw_run", _draw_run)


@pytest.fixture
def orbax_fails() -> Iterator[None]:
    """For tests in which Orbax meets errors: the tasks that it leaves behind end here, not in another test."""
    yield
    gc.collect()


@pytest.fixture
def key() -> jax.Array:
    """A run's key."""
    return jax.random.key(0)
