"""Every test runs on 8 forced host devices, with silent rank promotion and warnings as errors.

Machine code is not optimised: a test compiles many programs and runs each a few times, and is three times faster so.
"""

import gc
import os
from collections.abc import Iterator

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def orbax_fails() -> Iterator[None]:
    """For tests in which Orbax meets errors: the tasks that it leaves behind end here, not in another test."""
    yield
    gc.collect()


@pytest.fixture
def key() -> jax.Array:
    """A run's key."""
    return jax.random.key(0)
