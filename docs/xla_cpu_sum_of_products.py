"""XLA's CPU compiler is wrong about the squared norm of a product with a broadcast constant (jaxlib 0.10.2, 0.12.0.1).

    python xla_cpu_sum_of_products.py
    XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=-reduce python xla_cpu_sum_of_products.py

Each of the 64 x 8 results is the sum of eight squares. The program is one fusion given to YNNPACK (``__ynn_fusion``),
whose HLO, printed last, is right: a product, a multiplication, a sum. With the flag sums are left to XLA and the error
is that of rounding. Related: jax-ml/jax issue 39103, mended in 0.12.0.1, which this is not.
"""

import jax
import jax.numpy as jnp
import jaxlib


def squared_norms(a):
    """[64, 8, 16] -> [64, 8]."""
    product = jnp.einsum("bik,bjk->bij", a, jnp.broadcast_to(jnp.ones(16), (64, 8, 16)))
    return jnp.sum(product * product, -1)


a = jax.random.normal(jax.random.key(0), (64, 8, 16))
uncompiled, compiled = squared_norms(a), jax.jit(squared_norms)(a)
print("jaxlib", jaxlib.__version__, "largest value", float(jnp.max(uncompiled)))
print("largest error of the compiled program", float(jnp.max(jnp.abs(compiled - uncompiled))))
print(jax.jit(squared_norms).lower(a).compile().as_text())
