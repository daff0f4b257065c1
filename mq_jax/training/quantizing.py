"""From a configuration, or the architecture of an export, to its quantizer."""

from ml_collections import ConfigDict

from mq_jax.quantizers.codebook import Codebook
from mq_jax.quantizers.nearest import Lookup
from mq_jax.quantizers.quantizer import Quantizer
from mq_jax.quantizers.vq import VQ


def make_quantizer(config: ConfigDict, lookup: Lookup) -> Quantizer:
    """The quantizer that a configuration names.

    Args:
      config: its sections codebook and quantizer are read.
      lookup: of the nearest codeword.

    Returns:
      A Quantizer.
    """
    return VQ(
        Codebook(
            kind=config.codebook.kind,
            size=config.codebook.size,
            dim=config.codebook.dim,
            embedding_dim=config.codebook.embedding_dim,
            hidden=config.codebook.hidden,
        ),
        lookup,
    )
