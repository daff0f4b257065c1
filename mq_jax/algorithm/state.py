"""What a training step carries from one step to the next: arrays and nothing else."""

from typing import Any, NamedTuple

import flax
import jax


class Parts(NamedTuple):
    """One value for each trainable part: parameters, optimizers, optimizer states.

    Attributes:
      autoencoder: theta, the encoder and the decoder.
      codebook: phi, the parameters of the quantizer: of plain vector quantization the embedding
        and the hyper-net that make the codebook.
      discriminator: psi; without an adversarial loss, empty.
    """

    autoencoder: Any
    codebook: Any
    discriminator: Any = ()


class Model(NamedTuple):
    """What encodes and decodes, whole: raw as the step left it, or averaged alike.

    Attributes:
      autoencoder: theta.
      codebook: phi.
      batch_stats: running statistics of BatchNorm, of this theta; empty without BatchNorm.
      quantizer: what no gradient moves of the quantizer; () for most.
    """

    autoencoder: Any
    codebook: Any
    batch_stats: Any
    quantizer: Any = ()


class Past(NamedTuple):
    """The step before, as far as a pipelined hyper-gradient goes through it.

    Attributes:
      params: Parts, from which it set out.
      opt_state: of the auto-encoder, likewise.
      quantizer: what no gradient moves of the quantizer, likewise.
      gradient: of theta, that it followed.
      images: f32[B, H, W, 3] in [-1, 1], its batch.
    """

    params: Parts
    opt_state: Any
    quantizer: Any
    gradient: Any
    images: jax.Array


class Kept(NamedTuple):
    """The step before, where the activations that its derivative needs are kept.

    Attributes:
      theta: from which it set out.
      opt_state: of the auto-encoder, likewise.
      gradient: of theta, that it followed.
      residuals: what reverse mode left of (d/dphi) grad_theta L there, in its own order: arrays
        with rows of the batch first, and parameters.
    """

    theta: Any
    opt_state: Any
    gradient: Any
    residuals: tuple[jax.Array, ...]


@flax.struct.dataclass
class TrainState:
    """A plain pytree of arrays, so that saving, donating and sharding it is nothing special.

    Attributes:
      step: i32[], inner updates taken so far.
      params: Parts of parameter trees.
      opt_state: Parts of Optax states.
      batch_stats: running statistics of BatchNorm under params. Empty without BatchNorm.
      rng: the run's only random key, the same in all steps; a step draws from fold_in(rng, step).
      ema: Model of moving averages; empty where none is kept.
      anchors: f32[2], moving averages of the discriminator's output on real and on
        reconstructed images, for LeCAM.
      quantizer: what no gradient moves of the quantizer, counts and averages say; () for most.
      past: Past or Kept of a pipelined run; () for all others.
    """

    step: jax.Array
    params: Parts
    opt_state: Parts
    batch_stats: Any
    rng: jax.Array
    ema: Any
    anchors: jax.Array
    quantizer: Any = ()
    past: Any = ()

    @property
    def parts(self) -> dict[str, Any]:
        """Parameters by the name of their part."""
        return self.params._asdict()

    @property
    def learned(self) -> Any:
        """All that a finite run keeps finite."""
        return self.params, self.batch_stats

    @property
    def raw(self) -> Model:
        """The model as the last step left it."""
        trained = self.params.autoencoder, self.params.codebook
        return Model(*trained, self.batch_stats, self.quantizer)

    @property
    def evaluated(self) -> Model:
        """The model as evaluation and export take it: the averages where they are kept."""
        return self.ema or self.raw
