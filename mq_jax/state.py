"""What a training step carries from one step to the next: arrays and nothing else."""

from typing import Any, NamedTuple

import flax
import jax


class Parts(NamedTuple):
    """One value for each trainable part: parameters, optimizers, optimizer states.

    Attributes:
      autoencoder: theta, the encoder and the decoder.
      codebook: phi, the embedding and the hyper-net that make the codebook.
    """

    autoencoder: Any
    codebook: Any


@flax.struct.dataclass
class TrainState:
    """A plain pytree of arrays, so that saving, donating and sharding it is nothing special.

    Attributes:
      step: i32[], inner updates taken so far.
      params: Parts of parameter trees.
      opt_state: Parts of Optax states.
      batch_stats: running statistics of BatchNorm; evaluation uses them.
      rng: the run's only random key; a step folds its number into it.
    """

    step: jax.Array
    params: Parts
    opt_state: Parts
    batch_stats: Any
    rng: jax.Array
