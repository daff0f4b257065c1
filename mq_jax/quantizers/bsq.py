"""Binary spherical quantization: a code is a corner of the cube in the unit sphere."""

import dataclasses

import jax

from mq_jax.quantizers.lfq import LFQ
from mq_jax.quantizers.sphere import unit_vectors


@dataclasses.dataclass(frozen=True)
class BSQ(LFQ):
    """z_q = sign(u) / sqrt(L), u = z / ||z|| (Zhao et al., 2025): LFQ on the unit sphere.

    The estimator passes the rounding of u to sign(u) by, and what it gives is then scaled: z gets
    J^T g / sqrt(L), J the slope of u. The terms compare u with the codes. The field's weights
    are not LFQ's: no commitment, temperature 1, and H_b over groups of nine bits.

    Attributes:
      commitment: as LFQ's.
      temperature: as LFQ's.
      group: as LFQ's.
    """

    commitment: float = 0.0
    temperature: float = 1.0
    group: int = 9

    @property
    def _scale(self) -> float:
        return self.bits**-0.5

    def _placed(self, z: jax.Array) -> jax.Array:
        return unit_vectors(z)
