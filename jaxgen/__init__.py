"""jaxgen: GANs and VAEs in JAX as pure functions.

What there is stands in ``__init__.pyi``, and is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
