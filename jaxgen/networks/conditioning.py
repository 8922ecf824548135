"""How networks take a label: one-hot, or by projection."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.intervals import Count
from jaxgen.networks.network import Network


def one_hot(network: nn.Module, label: jax.Array | None, num_classes: int) -> jax.Array:
    """The label of a conditional network, int [B], as zeros and a one: floats [B, K] for K = ``num_classes``.

    Without a label it raises ValueError, which names the ``network`` that asks, or the whole one of a layer that does.
    """
    if label is None:
        while isinstance(network.parent, nn.Module):
            network = network.parent
        raise ValueError(
            f"{type(network).__name__}(num_classes={num_classes}) is conditional and was given no label: pass label=, "
            "or a batch with 'label'"
        )
    return jax.nn.one_hot(label, num_classes)


class Projection(Network):
    """What a conditional discriminator adds to its logit: how well the features fit one of ``num_classes`` classes.

    <embedding(y), h>

    Called as ``layer(h [B, F], label [B])``; returns [B], float32.

    References:
      Miyato & Koyama 2018, "cGANs with Projection Discriminator", equation 3.
    """

    num_classes: Count

    @nn.compact
    def __call__(self, h: jax.Array, label: jax.Array | None) -> jax.Array:
        embedding = nn.Dense(h.shape[-1], use_bias=False, name="embedding")
        return jnp.sum(embedding(one_hot(self, label, self.num_classes)) * h.astype(jnp.float32), axis=-1)
