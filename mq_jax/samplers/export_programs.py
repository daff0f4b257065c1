"""What a prior computes as pure functions of arrays by name, and as StableHLO programs."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from flax import traverse_util

from mq_jax.generation.autoregressive import Autoregressive
from mq_jax.generation.blocks import Cache
from mq_jax.generation.decoder import Decoder
from mq_jax.generation.masked_prior import MaskedPrior
from mq_jax.tokenizers.programs import exported

Kinds = Autoregressive | MaskedPrior
Arrays = Mapping[str, jax.Array]


def functions_of(prior: Kinds) -> dict[str, Callable]:
    """What is drawn from, without what draws; pure.

    Weights are an argument, a dictionary by name as the safetensors file has it: inside, each
    program would have a copy. The codes of an image are numbered place by place, and at a place
    level by level: code p J + j is that of level j at place p.

    Args:
      prior: of any kind.

    Returns:
      Of an autoregressive prior `prefill`: (weights, labels i32[B], tokens i32[B, m, J] of the
      first m < n places) -> (state, logits f32[B, K] of code m J); and `step`: (weights, state,
      codes i32[B], which are those of number - 1, number i32[]) -> (state, logits f32[B, K] of that
      number). A state is of dictionaries of arrays.
      Of a masked prior `logits`: (weights, labels i32[B], tokens i32[B, n, J], known bool[B, n]) ->
      f32[B, n, J, K]: of a place that is not known those of each level, given the levels before it
      as the tokens have them.
      Labels are `space.null` where an image has no class.
    """
    model = prior.model
    if isinstance(prior, Autoregressive):
        return _stepping(model)

    def logits(weights: Arrays, labels: jax.Array, tokens: jax.Array, known: jax.Array):
        return model.apply(_variables(weights), tokens, labels, known)

    return {"logits": logits}


def _stepping(model: Decoder) -> dict[str, Callable]:
    """`prefill` and `step`."""
    levels = model.space.levels

    def applied(weights, method, *args):
        return model.apply(_variables(weights), *args, method=method)

    def next_code(weights, context, level, total, places, within):
        """The logits of a level, and the state from which the code after it comes."""
        logits, within = applied(weights, "level_step", context, level, within)
        state = {"places": places._asdict(), "sum": total}
        if within is not None:
            state["levels"] = within._asdict()
        return state, logits[:, 0]

    def prefill(weights: Arrays, labels: jax.Array, tokens: jax.Array):
        context, places = applied(weights, "begin", labels, tokens)
        within = applied(weights, "level_cache", labels.shape[0])
        total = jnp.zeros(context.shape, jnp.float32)
        return next_code(weights, context, 0, total, places, within)

    def step(weights: Arrays, state: Any, codes: jax.Array, number: jax.Array):
        places, level = Cache(**state["places"]), number % levels
        within = Cache(**state["levels"]) if levels > 1 else None
        vector = applied(weights, "embed_level", codes[:, None], (number - 1) % levels)
        total = state["sum"] + vector.astype(jnp.float32)
        x = total.astype(vector.dtype)

        def next_place():
            context, cache = applied(weights, "step", x, number // levels, places)
            return context, cache, jnp.zeros_like(total)

        def same_place():
            return x, places, total

        if levels == 1:
            context, places, total = next_place()
        else:
            context, places, total = jax.lax.cond(level == 0, next_place, same_place)
        return next_code(weights, context, level, total, places, within)

    return {"prefill": prefill, "step": step}


def stablehlo(prior: Kinds, weights: Arrays) -> dict[str, jax.export.Exported]:
    """The functions of a prior as programs of their own, for any batch.

    Args:
      prior: of any kind.
      weights: of it by name; shapes and dtypes are read.

    Returns:
      Programs by name of file.
    """
    space, functions = prior.space, functions_of(prior)
    (b,) = jax.export.symbolic_shape("b", constraints=["b >= 1"])
    weights = {name: _described(x.shape, x.dtype) for name, x in weights.items()}
    labels, tokens = _described((b,)), _described((b, space.places, space.levels))
    if "logits" in functions:
        given = {"logits": (labels, tokens, _described(tokens.shape[:2], bool))}
    else:
        nothing = _described((b, 0, space.levels))
        state, _ = jax.eval_shape(functions["prefill"], weights, labels, nothing)
        # Each program has symbols of its own, and JAX holds every symbol to be at least 1.
        limits = ["b >= 1", f"positions <= {space.places}"]
        rows, front = jax.export.symbolic_shape("b, positions - 1", constraints=limits)
        first = _described((rows,)), _described((rows, front, space.levels))
        given = {"prefill": first, "step": (state, labels, _described(()))}
    return {
        f"{name}.stablehlo": exported(functions[name], weights, *arguments)
        for name, arguments in given.items()
    }


def _described(shape, dtype=jnp.int32):
    return jax.ShapeDtypeStruct(shape, dtype)


def _variables(weights: Arrays) -> dict[str, Any]:
    """As Flax takes them."""
    return {"params": traverse_util.unflatten_dict(dict(weights), sep="/")}
