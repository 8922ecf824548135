"""Flax NNX modules as networks."""

import dataclasses
import inspect
from typing import Any

from flax import nnx
from flax.core import FrozenDict


@dataclasses.dataclass(frozen=True)
class FromNNX:
    """An NNX module class with Linen's ``init`` and ``apply``, made by `from_nnx`.

    It is constructed as ``module_class(*args, **kwargs, rngs=rngs)``, ``kwargs`` as sorted pairs, and called like the
    network it is, e.g. ``generator(z [B, D], label=None, *, train)`` -> images [B, ...].
    """

    module_class: type[nnx.Module]
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    @property
    def axis_name(self) -> Any:
        """The mapped axis of the global batch; only there when the constructor takes an ``axis_name``."""
        if "axis_name" not in inspect.signature(self.module_class.__init__).parameters:
            raise AttributeError(f"{self.module_class.__name__} takes no axis_name")
        return dict(self.kwargs).get("axis_name")

    def clone(self, *, axis_name: Any) -> "FromNNX":
        """The same network over a mapped axis."""
        return from_nnx(self.module_class, *self.args, **{**dict(self.kwargs), "axis_name": axis_name})

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Construct the module and split it: ``{"params": ..., "batch_stats": ...}``; see Linen's ``init``."""
        return self._linen().init(rngs, *args, **kwargs)

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Merge the variables into the module and call it; see Linen's ``apply``."""
        return self._linen().apply(variables, *args, **kwargs)

    def _linen(self) -> Any:
        return nnx.bridge.ToLinen(self.module_class, args=self.args, kwargs=FrozenDict(dict(self.kwargs)))


def from_nnx(module_class: type[nnx.Module], *args: Any, **kwargs: Any) -> FromNNX:
    """Make an NNX module class a network for the steps, whose parameters and statistics live in the state.

    Args:
      module_class: the class. Its constructor takes ``rngs``, and ``axis_name`` when it keeps batch statistics; its
        call is a network's, e.g. ``__call__(self, z [B, D], label=None, *, train)`` -> images [B, ...].
      *args, **kwargs: arguments of its constructor, hashable; ``rngs`` is given to it.
    """
    return FromNNX(module_class, args, tuple(sorted(kwargs.items())))
