"""What may be added to a codebook that gradients move: further loss terms, and restarts.

Each keeps a state of its own; what it observes of a batch merges over parts of the batch.
"""

from typing import Any, Protocol

import jax


class Term(Protocol):
    """A further term of a quantizer's loss.

    Attributes:
      name: by which it is reported.
      weight: in the loss.
    """

    name: str
    weight: float

    def init(self, size: int, dim: int) -> Any:
        """The state before the first step, for K codewords of D channels."""

    def __call__(self, state: Any, z: jax.Array, codewords: jax.Array) -> jax.Array:
        """z f32[..., D], codewords f32[K, D] -> f32[], without the weight."""

    def observe(
        self, z: jax.Array, codewords: jax.Array, indices: jax.Array, rng: jax.Array
    ) -> Any:
        """What `advance` takes of this batch; () where there is no state."""

    def advance(self, state: Any, statistics: Any) -> Any:
        """The state a step later; statistics have an axis of parts before their own."""


class Restart(Protocol):
    """A rule by which idle codewords are overwritten."""

    def init(self, size: int, dim: int) -> Any:
        """The state before the first step, for K codewords of D channels."""

    def observe(
        self, z: jax.Array, codewords: jax.Array, indices: jax.Array, rng: jax.Array
    ) -> Any:
        """What `advance` takes of this batch; draws come from rng."""

    def advance(
        self, codewords: jax.Array, state: Any, statistics: Any, rng: jax.Array
    ) -> tuple[jax.Array, Any, jax.Array]:
        """(codewords f32[K, D], state, bool[K] of codewords replaced) a step later.

        Statistics have an axis of parts before their own.
        """
