"""What of a tokenizer's state is kept in a file, and what of it is used for what."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.tokenizer.spec import Tokenizer, TokenizerState


def tokenizer_kept(state: TokenizerState) -> dict[str, Any]:
    """Not the network of the perceptual distance, which others have made and is for training alone."""
    learnt = {"params": state.params, "collections": state.collections}
    if state.ema is not None:
        learnt = jax.tree.map(lambda average, leaf: jnp.asarray(average, leaf.dtype), state.ema, learnt)
    return {
        **learnt["params"],
        **{f"{name}_collections": tree for name, tree in learnt["collections"].items()},
        "discriminator": state.discriminator_params,
        "discriminator_collections": state.discriminator_collections,
        "hyperparams": state.hyperparams,
        "step": state.step,
    }


def tokenizer_restored(spec: Tokenizer, kept: dict[str, Any]) -> TokenizerState:
    """A moving average starts from what is stored."""
    params, collections = (
        {name: kept[name + suffix] for name in ("encoder", "bottleneck", "decoder")} for suffix in ("", "_collections")
    )
    average = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), {"params": params, "collections": collections})
    optimizer = spec.discriminator_optimizer
    return TokenizerState(
        step=kept["step"],
        params=params,
        collections=collections,
        discriminator_params=kept["discriminator"],
        discriminator_collections=kept["discriminator_collections"],
        discriminator_optimizer_state=None if optimizer is None else optimizer.init(kept["discriminator"]),
        optimizer_state=spec.optimizer.init(params),
        perceptual_params={},
        perceptual_weights=(),
        ema=None if spec.ema_decay is None else average,
        hyperparams=kept["hyperparams"],
        averages=(average,) * len(spec.average_lengths),
    )


def tokenizer_without(*parts: str) -> Callable[[Tokenizer, TokenizerState], TokenizerState]:
    """The state without those of encoder and decoder, and without all that only trains."""

    def left(trees: Any) -> Any:
        return {**trees, **dict.fromkeys(parts)}

    def reduced(spec: Tokenizer, state: TokenizerState) -> TokenizerState:
        only_trains = [name for name in state._fields if name.startswith(("discriminator", "perceptual"))]
        nothing: dict[str, Any] = {**dict.fromkeys([*only_trains, "optimizer_state"]), "averages": ()}
        if state.ema is None:
            return state._replace(params=left(state.params), collections=left(state.collections), **nothing)
        nothing |= {"params": None, "collections": None}
        return state._replace(ema={name: left(trees) for name, trees in state.ema.items()}, **nothing)

    return reduced
