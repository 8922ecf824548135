"""When numbers go wrong: which step it was, what in it was not finite first, and everything needed to do it again."""

import dataclasses
import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.data.limits import check_archive
from jaxgen.families import family_of
from jaxgen.modules import taken
from jaxgen.training.checkpoint import Checkpoints
from jaxgen.training.files import replacing
from jaxgen.training.manifest import on_host, paths, summary

FOLDER = "bad_step"


class NonFiniteError(FloatingPointError):
    """A step made numbers that are not finite."""


class BadStep(NamedTuple):
    """A step that made numbers that are not finite.

    Args:
      state: the state before it.
      batch: its batch, ``image`` [B, ...] and perhaps ``label`` [B].
      key: the run's typed key, [].
      metrics: its metrics, float32 [] by name.
      findings: what was not finite, in the order in which it came about.
    """

    state: Any
    batch: dict[str, Any]
    key: jax.Array
    metrics: dict[str, float]
    findings: list[str]

    @property
    def number(self) -> int:
        """Which step it was; the first is 1."""
        return int(self.state.step) + 1

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {value:.6g}" for name, value in self.metrics.items() if name.endswith("loss"))
        found = summary(self.findings, most=1) if self.findings else "nothing, when it was done once more"
        return f"step {self.number} made numbers that are not finite: {found}; {listed}"


def recording(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimizer that keeps the last gradient in its state, (its state, gradient), and is otherwise the same."""

    def init(params: Any) -> Any:
        return optimizer.init(params), jax.tree.map(jnp.zeros_like, params)

    def update(gradient: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates, inner = optimizer.update(gradient, state[0], params, **taken(optimizer.update, extra))
        return updates, (inner, gradient)

    return optax.GradientTransformationExtraArgs(init, update)


def gradients(spec: Any, state: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
    """The gradients that a step of a GAN or a VAE gives to its optimizers, of the last update of each.

    They are trees like the parameters by the name of the state's field, such as ``discriminator_params``. The batch is
    ``image`` [B, ...], optionally ``label`` [B], and the key the run's.
    """
    names = [field.name for field in dataclasses.fields(spec) if field.name.endswith("optimizer")]
    names = [name for name in names if getattr(spec, name) is not None]  # of a network that is not there
    recorded = dataclasses.replace(spec, **{name: recording(getattr(spec, name)) for name in names})
    parameters = {f"{name}_state": name.replace("optimizer", "params") for name in names}
    wrapped = {
        field: (getattr(state, field), jax.tree.map(jnp.zeros_like, getattr(state, params)))
        for field, params in parameters.items()
    }
    step = jax.jit(functools.partial(family_of(spec).step, recorded))  # traced: the batch may be what is not finite
    after, _ = step(state._replace(**wrapped), batch, key)
    return {params: getattr(after, field)[1] for field, params in parameters.items()}


def non_finite(tree: Any) -> list[str]:
    """Paths, such as ``hidden_layers/Dense_0/kernel``, of the arrays of a tree that hold a NaN or an infinity."""
    arrays = {path: on_host(leaf) for path, leaf in paths(tree).items()}
    return [p for p, a in arrays.items() if jnp.issubdtype(a.dtype, jnp.inexact) and not np.isfinite(a).all()]


# Kinds of fields of a state, in the order in which a step moves them.
_KINDS = {"params": "parameters", "collections": "statistics", "optimizer_state": "optimizer's state"}


def _whose(field: str, path: str) -> tuple[str, str]:
    """(what an array is, its path within that): fields are those of a state of either family."""
    for suffix, kind in _KINDS.items():
        if field.endswith(suffix) and field != "hyperparams":
            owner = field.removesuffix(suffix).rstrip("_")
            if not owner and suffix == "optimizer_state":
                return "the optimizer's state", path
            if not owner:  # a VAE's field holds both networks
                owner, _, path = path.partition("/")
            return f"the {owner}'s {kind}", path
    return f"the state's {field}", path


def _order(field: str) -> tuple[int, int, str]:
    """What moves first in a step comes first: the discriminator before the generator, parameters before the rest."""
    kinds = [i for i, suffix in enumerate(_KINDS) if field.endswith(suffix) and field != "hyperparams"]
    return (field.startswith("generator"), kinds[0], field) if kinds else (2, 0, field)


def _encoder_first(found: list[str]) -> list[str]:
    return sorted(found, key=lambda path: not path.startswith("encoder/"))


def find(
    spec: Any, before: Any, batch: Mapping[str, Any], key: jax.Array, after: Any, metrics: Mapping[str, Any]
) -> list[str]:
    """Say what was not finite in a step of a GAN or a VAE, in the order in which it came about.

    One line an array, such as ``the discriminator's gradient at hidden_layers/Dense_0/kernel``. The states are those
    before and after it, its batch is ``image`` [B, ...] and perhaps ``label`` [B], the key the run's, and its metrics
    are float32 [] by name.
    """
    fields = sorted(after._fields, key=_order)
    found = [f"the batch's {path}" for path in non_finite(batch)]
    found += [
        f"{_whose(field, path)[0]} before the step at {_whose(field, path)[1]}"
        for field in fields
        for path in non_finite(getattr(before, field))
    ]
    grads = gradients(spec, before, batch, key)
    for field in fields:
        for path in _encoder_first(non_finite(grads.get(field, ()))):
            whose, rest = _whose(field, path)
            found.append(f"{whose.replace('parameters', 'gradient')} at {rest}")
        for path in _encoder_first(non_finite(getattr(after, field))):
            whose, rest = _whose(field, path)
            found.append(f"{whose} at {rest}")
    return found + [f"the metric {name}" for name in non_finite(dict(metrics))]


def keep(directory: Path, bad: BadStep, config: Mapping[str, Any]) -> Path:
    """Keep a bad step: the state before it, its batch and key, and what was found. It replaces an earlier one.

    It lies in the run's directory, with the run's ``config``: a folder, which is returned, of checkpoints, with what
    was found in the manifest, and ``batch.npz``.
    """
    folder = directory / FOLDER
    batch: dict[str, Any] = {name: on_host(array) for name, array in bad.batch.items()}
    if jax.process_index() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        with replacing(folder / "batch.npz") as partial:
            np.savez(partial, **batch)
    key = [int(word) for word in jax.random.key_data(bad.key)]
    metrics = {name: str(value) for name, value in bad.metrics.items()}
    with Checkpoints(folder / "checkpoints") as checkpoints:
        notes = {"key": key, "metrics": metrics, "findings": bad.findings, "config": config}
        checkpoints.save(bad.number - 1, {"state": bad.state}, notes=notes)
    return folder


def load(directory: Path, shapes: Any) -> BadStep:
    """Read the step kept in a run's directory back; ``shapes`` are the shapes and types of its state, or a state."""
    folder = directory / FOLDER
    if not folder.is_dir():
        raise FileNotFoundError(f"{directory} holds no bad step: nothing went wrong in this run, expected {folder}")
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        kept = checkpoints.restore_newest({"state": shapes})
    check_archive(folder / "batch.npz")
    with np.load(folder / "batch.npz", allow_pickle=False) as archive:
        batch = dict(archive)
    key = jax.random.wrap_key_data(jnp.array(kept.manifest["key"], jnp.uint32), impl="threefry2x32")
    metrics = {name: float(value) for name, value in kept.manifest["metrics"].items()}
    return BadStep(kept.items["state"], batch, key, metrics, kept.manifest["findings"])


def replay(spec: Any, bad: BadStep) -> tuple[str, FloatingPointError] | None:
    """Do a bad step again under ``jax.debug_nans``, which stops at the operation that makes the first NaN.

    Returns:
      (``"nan"`` or ``"inf"``, JAX's error, whose traceback leads to the operation), the infinity where no NaN was made;
      None when all was finite this time.
    """
    step = family_of(spec).step
    for name, debug in (("nan", jax.debug_nans), ("inf", jax.debug_infs)):
        try:
            with debug(True):
                jax.block_until_ready(step(spec, bad.state, bad.batch, bad.key))
        except FloatingPointError as error:
            return name, error
    return None
