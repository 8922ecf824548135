"""Populations: runs that differ in their seed and in the numbers that their states hold, trained by one program.

A member of a population is the run of its own spec and its own key. All members share one compiled step, so their specs
may differ only in what a state holds: ``state.hyperparams`` and the numbers of the optimizers. `jaxgen.training.loop`
trains them.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import batches
from jaxgen.data.limits import memory
from jaxgen.families import family_of
from jaxgen.training.loop import Loop, Totals
from jaxgen.training.run import Optimizer, Spec, init_state

_STATES = 2  # the one that a chunk begins with is kept until the one after it is seen to be finite


def dynamic_values(spec: Spec) -> dict[str, float]:
    """The numbers of a spec that its state holds: those in which members of a population may differ.

    They are, by name, the spec's fields that ``state.hyperparams`` holds, such as ``beta``, and the arguments of its
    optimizers, such as ``optimizer.learning_rate``. What is scheduled is not among them: the step computes it.
    """
    numbers: dict[str, Any] = dict(spec.hyperparams)
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if isinstance(value, Optimizer):
            numbers |= {f"{field.name}.{name}": number for name, number in value.arguments}
    return {name: number for name, number in numbers.items() if number is not None and not callable(number)}


def with_values(spec: Spec, values: Mapping[str, float]) -> Spec:
    """A spec with other values of its `dynamic_values`, numbers by name, equal in everything else."""
    changes: dict[str, Any] = {}
    for name, value in values.items():
        field, _, argument = name.partition(".")
        if argument:
            optimizer = changes.get(field, getattr(spec, field))
            arguments = {**dict(optimizer.arguments), argument: value}
            changes[field] = Optimizer(optimizer.name, tuple(sorted(arguments.items())))
        else:
            changes[field] = value
    return dataclasses.replace(spec, **changes)


def static_differences(spec: Spec, other: Spec) -> list[str]:
    """Names of fields in which a spec and another differ and members of one population may not."""
    if type(spec) is not type(other):
        return ["type"]
    shared = dynamic_values(spec).keys() & dynamic_values(other).keys()
    other = with_values(other, {name: number for name, number in dynamic_values(spec).items() if name in shared})
    return [field.name for field in dataclasses.fields(spec) if getattr(spec, field.name) != getattr(other, field.name)]


def check_members(specs: Sequence[Spec], latent_sizes: Sequence[int] | None = None) -> None:
    """Refuse specs that are no members of one population.

    ``specs`` and ``latent_sizes`` are as of `init`. The error says which fields may differ.
    """
    if not specs:
        raise ValueError("a population needs at least one member, got no specs")
    for spec in dict.fromkeys(specs):
        fields = static_differences(specs[0], spec)
        if fields:
            dynamic = ", ".join([*dynamic_values(specs[0]), "their latent size"])
            raise ValueError(
                f"members 0 and {specs.index(spec)} differ in {', '.join(fields)}, which the compiled step is made of: "
                f"members may differ in {dynamic}; train the others as runs of their own"
            )
    if latent_sizes is None:
        return
    if len(latent_sizes) != len(specs):
        raise ValueError(f"expected a latent size a member, {len(specs)}, got {len(latent_sizes)}")
    for size in latent_sizes:
        if not 1 <= size <= _bottom_dim(specs[0]):
            raise ValueError(
                f"a latent size must be from 1 to the model's latent_dim, {_bottom_dim(specs[0])}, got {size}: build "
                "the model with the largest of the sizes"
            )


def _bottom_dim(spec: Spec) -> int:
    """Latent dimensions of the layer next to the data."""
    return family_of(spec).latent_dims(spec)[0]


def _write(state: Any, spec: Spec, latent_size: int | None) -> Any:
    """A state with the numbers of a spec, and the first dimensions of its latents in use."""
    hyperparams = dict(state.hyperparams)
    for name, value in dynamic_values(spec).items():
        field, _, argument = name.partition(".")
        if argument:
            inner = getattr(state, f"{field}_state")
            held = {**inner.hyperparams, argument: np.asarray(value, inner.hyperparams[argument].dtype)}
            state = state._replace(**{f"{field}_state": inner._replace(hyperparams=held)})
        else:
            hyperparams[field] = np.asarray(value, np.float32)
    if latent_size is not None:
        mask = hyperparams["latent_mask"]
        bottom = (np.arange(_bottom_dim(spec)) < latent_size).astype(np.float32)
        hyperparams["latent_mask"] = (bottom, *mask[1:]) if isinstance(mask, tuple) else bottom
    return state._replace(hyperparams=hyperparams)


def init(
    specs: Sequence[Spec], keys: jax.Array, batch: Mapping[str, Any], latent_sizes: Sequence[int] | None = None
) -> Any:
    """Initialise the states of a population; train them with the step of any of its specs.

    state[m] = init_state(specs[m], keys[m], batch), bit for bit; latent_mask[m] = 1 for the first latent_sizes[m]
    dimensions, 0 for the rest

    Args:
      specs: the spec of each member, M of them, equal but for the numbers of `dynamic_values`.
      keys: typed keys, [M].
      batch: an example batch, ``image`` [B, ...], optionally ``label`` [B].
      latent_sizes: how many latent dimensions each member uses, those next to the data where there are several
        stochastic layers; all of them when None. A masked dimension carries nothing and costs no KL.

    Returns:
      The state, [M, ...] for each array of a member's, on the host.
    """
    check_members(specs, latent_sizes)
    if keys.shape != (len(specs),):
        raise ValueError(f"expected a key a member, [{len(specs)}], got keys of shape {list(keys.shape)}")
    sizes = [None] * len(specs) if latent_sizes is None else latent_sizes
    # One program for all: their specs would compile to one each. Not batched either, which could round differently.
    states = [
        _write(jax.device_get(init_state(specs[0], key, batch)), spec, size)
        for spec, key, size in zip(specs, keys, sizes, strict=True)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states)


def member(tree: Any, number: int) -> Any:
    """One member's part of a tree of arrays [M, ...], such as states and totals: that of its number, from 0."""
    return jax.tree.map(lambda leaf: leaf[number], tree)


def check_memory(
    spec: Spec, batch: Mapping[str, Any], num_members: int, dataset: Mapping[str, Any], batch_size: int = 1
) -> None:
    """Refuse a run or a population that the memory cannot hold, before it is made; says how many members it would.

    bytes = 2 M state + data + batch: the states before and after a chunk, the data set, and a step's images, as many
    times as the spec has samples of each; what else a step needs comes on top

    M is ``num_members``, 1 of a run, each of the ``spec``, which sees batches of ``batch_size``; ``batch`` is an
    example of one, and ``dataset`` is what is held on the device, arrays [N, ...].
    """
    try:
        shapes = jax.eval_shape(lambda batch: init_state(spec, jax.random.key(0), batch), batches.select(batch))
    except (OverflowError, MemoryError) as error:
        raise ValueError(f"the model has more numbers than can be counted ({error}): use a smaller model") from error
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    images = 4 * batch_size * getattr(spec, "num_samples", 1) * math.prod(batch["image"].shape[1:])
    data = sum(array.nbytes for array in dataset.values()) + images
    device = jax.local_devices()[0]
    there = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    there = memory() if there is None else there
    needed = _STATES * num_members * state + data
    if needed > there:
        most = max(0, (there - data) // (_STATES * state))
        what = "the run" if num_members == 1 else f"a population of {num_members} members"
        remedy = f"train at most {most} at a time, or a smaller model" if num_members > 1 else "use a smaller model"
        raise ValueError(
            f"{what} needs at least {needed / 1e9:,.4g} GB ({_STATES} states of {state / 1e6:,.4g} MB each, and "
            f"{data / 1e6:,.4g} MB of images), and {device.platform} has {there / 1e9:,.4g} GB: {remedy}"
        )


@jax.jit
def hold(alive: jax.Array, new: Any, old: Any) -> Any:
    """What is new of the members that are alive, bool [M], and what is old of the others: trees of arrays [M, ...]."""
    return jax.tree.map(lambda n, o: jnp.where(alive.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, old)


def advance(
    training: Loop, state: Any, totals: Totals, alive: np.ndarray, num_steps: int
) -> tuple[Any, Totals, np.ndarray]:
    """Train the members that are alive for some steps; one whose numbers stop being finite stays as it last was.

    Args:
      training: the population's loop, with the sentinel ``"watch"``.
      state: the members' states, arrays [M, ...]; a member that is not alive has a smaller step than the others.
      totals: their totals, [M].
      alive: which members are to be trained, bool [M].
      num_steps: number of steps, at least 1.

    Returns:
      (state, totals, alive) after them. Of a member that diverged on the way, the state and the totals are those just
      before its first step that was not finite.
    """
    while True:
        after = _run(training, (state, totals), alive, num_steps)
        diverging = alive & ~np.asarray(after[1].finite)
        if not diverging.any():
            return *after, alive
        last, found = _before_divergence(training, (state, totals), alive, num_steps)
        found = found if found.any() else diverging  # not found again, on a device whose sums are not always the same
        state, totals = hold(~found, (state, totals), last)
        alive = alive & ~found


def _run(training: Loop, before: tuple[Any, Totals], alive: np.ndarray, num_steps: int) -> tuple[Any, Totals]:
    after = training.run(*before, num_steps)
    return after if alive.all() else hold(alive, after, before)


def _before_divergence(
    training: Loop, before: tuple[Any, Totals], alive: np.ndarray, num_steps: int
) -> tuple[tuple[Any, Totals], np.ndarray]:
    """(states just before the first step in which a member diverges, by halving the chunk; which members do there)."""
    while num_steps > 1:
        middle = _run(training, before, alive, num_steps // 2)
        if np.asarray(middle[1].finite)[alive].all():
            before, num_steps = middle, num_steps - num_steps // 2
        else:
            num_steps //= 2
    after = _run(training, before, alive, 1)
    return before, alive & ~np.asarray(after[1].finite)
