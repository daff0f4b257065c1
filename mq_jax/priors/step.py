"""One update of a prior."""

from collections.abc import Callable

import jax
import optax

from mq_jax.algorithm.accumulation import in_parts, mean_over_parts
from mq_jax.algorithm.bilevel import take_step
from mq_jax.algorithm.optim import averaged
from mq_jax.generation.losses import bits
from mq_jax.generation.prior import Prior
from mq_jax.priors.state import PriorState

LOSS = "prior/loss"


def make_train_step(
    prior: Prior,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    ema_decay: float,
    parts: int,
) -> Callable:
    """The step that minimises a prior's loss.

    Args:
      prior: whose.
      optimizer: with its learning rate.
      schedule: count -> that rate, to be logged.
      ema_decay: of the averages; 0 for none.
      parts: into which a batch is cut, one in memory at a time.

    Returns:
      train_step(state, frozen, tokens i32[B, n, J], labels i32[B]) -> (state, metrics), pure;
      labels are not read where there are no classes.
    """

    def train_step(state: PriorState, frozen, tokens, labels):
        del frozen
        keys = jax.random.split(jax.random.fold_in(state.rng, state.step), parts)

        def on_part(part):
            def loss(params):
                tokens, labels, key = part
                labels = labels if prior.space.classes else None
                found = prior.loss(params, tokens, labels, key, train=True)
                return found.objective, found

            (value, found), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
            return (value, gradient), found

        batch = in_parts(tokens, parts), in_parts(labels, parts), keys
        (loss, gradient), found = mean_over_parts(on_part, batch)
        params, opt_state = take_step(optimizer, gradient, state.opt_state, state.params)
        ema = averaged(state.ema, params, ema_decay, state.step) if ema_decay else state.ema
        nats = found.nats.sum() / found.tokens.sum()
        metrics = {
            LOSS: loss,
            "prior/nats_per_token": nats,
            "prior/bits_per_token": bits(nats),
            "prior/gradient_norm": optax.tree.norm(gradient),
            "prior/learning_rate": schedule(state.step),
        }
        advanced = {"step": state.step + 1, "params": params, "opt_state": opt_state, "ema": ema}
        return state.replace(**advanced), metrics

    return train_step
