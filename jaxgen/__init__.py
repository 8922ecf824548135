"""jaxgen: GANs and VAEs in JAX as pure functions.

What there is stands in ``__init__.pyi``, for type checkers and for this module, and is imported when it is first used.
"""

import ast
import importlib
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_HOMES = {name.name: node.module for node in _STUB.body if isinstance(node, ast.ImportFrom) for name in node.names}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """A module of the package, or what one of them offers (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxgen' has no attribute {name!r}")
    home = _HOMES[name]
    module = importlib.import_module(f"jaxgen.{home or name}")
    globals()[name] = value = module if home is None else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
