"""What a step of a prior's training carries to the next one: arrays and nothing else."""

from typing import Any

import flax
import jax

# Logged name of what decides which state is best, the lower the better.
MONITOR = "eval/nats_per_token"


@flax.struct.dataclass
class PriorState:
    """A plain pytree of arrays, as algorithm.state.TrainState.

    Attributes:
      step: i32[], updates taken so far.
      params: of the prior, a dictionary by part.
      opt_state: of Optax.
      rng: the run's only random key; a step draws from fold_in(rng, step).
      ema: moving averages of params; () where none are kept.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    rng: jax.Array
    ema: Any

    @property
    def parts(self) -> dict[str, Any]:
        """Parameters by the name of their part."""
        return dict(self.params)

    @property
    def learned(self) -> Any:
        """All that a finite run keeps finite."""
        return self.params

    @property
    def evaluated(self) -> Any:
        """Parameters as evaluation and sampling take them: the averages where they are kept."""
        return self.ema or self.params
