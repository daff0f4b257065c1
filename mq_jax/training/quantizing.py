"""From a configuration, or the architecture of an export, to its quantizer."""

import math
from collections.abc import Callable

from flax import linen as nn
from ml_collections import ConfigDict

from mq_jax.models import lpips
from mq_jax.quantizers.anchors import Anchors
from mq_jax.quantizers.bases import scaled_normal
from mq_jax.quantizers.bridge import Bridge
from mq_jax.quantizers.bsq import BSQ
from mq_jax.quantizers.codebook import Codebook
from mq_jax.quantizers.ema import EMA
from mq_jax.quantizers.entropy import Entropy
from mq_jax.quantizers.fsq import FSQ
from mq_jax.quantizers.groups import Groups
from mq_jax.quantizers.gumbel import Gumbel
from mq_jax.quantizers.ibq import IBQ
from mq_jax.quantizers.lfq import LFQ
from mq_jax.quantizers.nearest import Lookup
from mq_jax.quantizers.quantizer import Quantizer
from mq_jax.quantizers.residual import Residual
from mq_jax.quantizers.sphere import cosine_lookup
from mq_jax.quantizers.sqvae import SQVAE
from mq_jax.quantizers.usage_restart import UsageRestart
from mq_jax.quantizers.vq import VQ
from mq_jax.quantizers.wasserstein import Wasserstein

# Bases that are made of data: until `starting.py` has put them in their place, one is drawn.
TABLES = ("kmeans", "file")
BASES = {
    "normal": nn.initializers.normal(1.0),
    "scaled": scaled_normal,
    **dict.fromkeys(TABLES, scaled_normal),
}

# Of what the centres are, of base kmeans.
FEATURES = ("encoder", "vgg")

# Of VGG16: a feature for each 8 x 8 pixels, about as fine as the codes of most tokenizers.
VGG_STAGE, VGG_PIXELS = "relu4_3", 8

# Those whose codes are arithmetic: K and D follow from their own fields.
_ARITHMETIC = {
    "fsq": lambda own: (math.prod(own.levels), len(own.levels)),
    "lfq": lambda own: (2**own.bits, own.bits),
    "bsq": lambda own: (2**own.bits, own.bits),
}

# The nearest codeword, of those that a gradient moves.
NEAREST = ("vq", "l2", "cvq")

# All codewords are weighed for each z, and one or a mixture is drawn.
DRAWN = ("sqvae", "gumbel", "ibq")

# Nothing of them is a parameter, so that there is nothing for an outer level to train.
UNTRAINED = ("ema", *_ARITHMETIC)


def sizes(config: ConfigDict) -> tuple[int, int]:
    """(K, D) of one quantizer of a configuration, D of all groups.

    Args:
      config: its sections codebook and quantizer are read.

    Returns:
      What codebook.size and codebook.dim say, or what the kind makes.
    """
    quantizer = config.quantizer
    if quantizer.kind not in _ARITHMETIC:
        return config.codebook.size, config.codebook.dim
    size, dim = _ARITHMETIC[quantizer.kind](quantizer[quantizer.kind])
    return size, dim * quantizer.groups


def starts_from_tables(config: ConfigDict) -> bool:
    """Whether the quantizer has bases, and these are made of data."""
    return config.codebook.base in TABLES and config.quantizer.kind not in _ARITHMETIC


def are_codewords(config: ConfigDict) -> bool:
    """Whether the rows of a base are themselves codewords, as wide as a group's z."""
    return config.codebook.kind == "embedding" or config.quantizer.kind == "ema"


def base_width(config: ConfigDict) -> int:
    """Columns of a base; of kind `basis`, whose E has no row for each codeword, those too."""
    if are_codewords(config) or config.codebook.kind == "basis":
        return config.codebook.dim // config.quantizer.groups
    return config.codebook.embedding_dim


def feature_width(config: ConfigDict) -> int:
    """Channels of a feature.

    Args:
      config: its sections codebook and quantizer are read.

    Returns:
      Those of z that a group has, or of VGG's feature map.
    """
    if config.codebook.features == "encoder":
        return config.codebook.dim // config.quantizer.groups
    return lpips.weight_shapes("vgg")[VGG_STAGE]["linear"].shape[0]


def gives_log_variances(config: ConfigDict) -> bool:
    """Whether the quantizer takes D log-variances from the encoder, behind z."""
    return config.quantizer.kind == "sqvae" and config.quantizer.sqvae.variance == "III"


def make_quantizer(config: ConfigDict, lookup: Lookup) -> Quantizer:
    """The quantizer that a configuration names.

    Args:
      config: its sections codebook and quantizer are read.
      lookup: of the nearest codeword.

    Returns:
      A Quantizer: groups of residual levels of the kind.
    """
    fields = config.quantizer
    made = _MAKERS[fields.kind](config, lookup)
    if fields.depth > 1:
        made = Residual(
            made, fields.depth, shared=fields.shared, dropout=fields.dropout, noise=fields.noise
        )
    return Groups(made, fields.groups) if fields.groups > 1 else made


def _codebook(config):
    """The codewords of a group, through the hyper-net."""
    fields = config.codebook
    shape = {
        "size": fields.size,
        "dim": fields.dim // config.quantizer.groups,
        "embedding_dim": fields.embedding_dim,
        "hidden": fields.hidden,
        "base": BASES[fields.base],
    }
    return Bridge(**shape) if fields.kind == Bridge.kind else Codebook(fields.kind, **shape)


def _vq(config, lookup, **changes):
    """Nearest codewords that a gradient moves, with what is added to them."""
    fields = config.quantizer
    terms = []
    if fields.wasserstein:
        terms.append(Wasserstein(fields.wasserstein))
    if fields.entropy:
        terms.append(Entropy(fields.entropy, chunk=config.codebook.lookup_chunk))
    if fields.restart_every:
        changes = {"restart": UsageRestart(every=fields.restart_every), **changes}
    return VQ(
        _codebook(config),
        lookup,
        commitment=fields.commitment,
        codebook_weight=fields.codebook,
        noise=fields.noise,
        terms=tuple(terms),
        **changes,
    )


def _cvq(config, lookup):
    own = config.quantizer.cvq
    anchors = Anchors(
        own.by, decay=own.decay, cosine=own.cosine, chunk=config.codebook.lookup_chunk
    )
    return _vq(config, cosine_lookup(lookup) if own.cosine else lookup, restart=anchors)


def _ema(config, lookup):
    dim = config.codebook.dim // config.quantizer.groups
    base = BASES[config.codebook.base]
    return EMA(config.codebook.size, dim, lookup, base=base, **config.quantizer.ema.to_dict())


def _sqvae(config, lookup):
    own = config.quantizer.sqvae.to_dict()
    return SQVAE(_codebook(config), lookup=lookup, chunk=config.codebook.lookup_chunk, **own)


def _gumbel(config, lookup):
    codebook, own = _codebook(config), config.quantizer.gumbel.to_dict()
    return Gumbel(codebook, codebook.dim, chunk=config.codebook.lookup_chunk, **own)


def _ibq(config, lookup):
    own = config.quantizer.ibq.to_dict()
    return IBQ(_codebook(config), chunk=config.codebook.lookup_chunk, **own)


def _fsq(config, lookup):
    # config.json has a list for a tuple, and what is jitted is hashed.
    return FSQ(tuple(config.quantizer.fsq.levels), noise=config.quantizer.noise)


def _signs(kind: type, name: str) -> Callable:
    def make(config, lookup):
        return kind(**config.quantizer[name].to_dict(), noise=config.quantizer.noise)

    return make


_MAKERS = {
    "vq": _vq,
    "l2": lambda config, lookup: _vq(config, lookup, unit=True),
    "cvq": _cvq,
    "ema": _ema,
    "sqvae": _sqvae,
    "gumbel": _gumbel,
    "ibq": _ibq,
    "fsq": _fsq,
    "lfq": _signs(LFQ, "lfq"),
    "bsq": _signs(BSQ, "bsq"),
}

KINDS = tuple(_MAKERS)
