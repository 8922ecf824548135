"""Where JAX is told to compute, and cannot."""

import logging
import os


def missing_platform() -> str | None:
    """What is wrong with JAX_PLATFORMS, in one line; None where it names what is here, or nothing."""
    named = os.environ.get("JAX_PLATFORMS", "")
    if not named:
        return None
    import jax  # slow

    logging.disable(logging.CRITICAL)  # it is said below
    try:
        jax.devices()
    except Exception:  # of whatever kind: a bare assertion, too
        jax.config.update("jax_platforms", None)
        here = ", ".join(sorted({"cpu", jax.devices()[0].platform}))
    else:
        return None
    finally:
        logging.disable(logging.NOTSET)
    return f"JAX_PLATFORMS is {named!r}, and not all of that is here: there is {here}; name that, or leave it unset"
