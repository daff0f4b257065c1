"""What every prior offers: the contract that training, sampling and export rely on."""

from typing import Any, Protocol

import jax

from mq_jax.generation.losses import Prediction
from mq_jax.generation.sampling import Sampling
from mq_jax.generation.space import TokenSpace


class Prior(Protocol):
    """A distribution over the tokens of an image. Methods are pure, for the caller to compile.

    Attributes:
      space: of the tokens.
    """

    space: TokenSpace

    def init(self, rng: jax.Array) -> Any:
        """Parameters: a tree of float32 arrays with names."""

    def loss(
        self,
        params: Any,
        tokens: jax.Array,
        labels: jax.Array | None,
        rng: jax.Array,
        *,
        train: bool,
    ) -> Prediction:
        """What training minimises, on a batch.

        Args:
          params: the parameters.
          tokens: i32[B, n, J].
          labels: i32[B]; None where there are no classes.
          rng: a key.
          train: whether dropout acts and labels are dropped.

        Returns:
          The losses of the tokens that are predicted.
        """

    def likelihood(
        self, params: Any, tokens: jax.Array, labels: jax.Array | None, rng: jax.Array
    ) -> Prediction:
        """-ln p(t | class) of a batch, or a bound, whose nats over tokens compare between priors.

        Args:
          params: the parameters.
          tokens: i32[B, n, J].
          labels: i32[B]; None where there are no classes.
          rng: a key.

        Returns:
          The losses of all tokens.
        """

    def sample(
        self,
        params: Any,
        images: jax.Array,
        labels: jax.Array | None,
        rng: jax.Array,
        sampling: Sampling,
        *,
        given: jax.Array | None = None,
        known: jax.Array | None = None,
        front: int = 0,
    ) -> jax.Array:
        """Draws tokens; an image's depend on its number, not on the batch that it is drawn in.

        Args:
          params: the parameters.
          images: i32[B], numbers of the images in the whole draw.
          labels: i32[B], `space.null` for none; None where there are no classes.
          rng: a key, the same for the whole draw.
          sampling: its settings.
          given: i32[B, n, J], tokens that are kept where they are known.
          known: bool[B, n] or bool[n].
          front: how many places at the beginning all images have; a prior that draws place after
            place reads these at once.

        Returns:
          i32[B, n, J].

        Raises:
          ValueError: shapes do not fit the space, or there is guidance without classes.
        """
