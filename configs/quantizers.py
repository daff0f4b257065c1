"""Quantizers by one word, in any experiment: --config=configs/cifar10_mqvae.py:fsq; no experiment.

A preset changes the quantizer, its loss and its weight, and trains on one level, at one learning
rate for all (`sqvae` has its own of the codebook); data, nets, batches, that rate and its schedule
stay the experiment's, and so do K and D where a preset does not say otherwise. That alone differs
from what was published, beside what each line calls ours. LayerNorm over z is of MQ's code: no
preset keeps it.
"""

import math
from collections.abc import Callable

from ml_collections import ConfigDict

from mq_jax.terminal.spelling import suggestion


def vqvae(config: ConfigDict) -> None:
    """VQ-VAE (van den Oord et al., 2017): beta 0.25, weights 1; ours: codewords of norm 1."""
    _plain(config)


def ema(config: ConfigDict) -> None:
    """VQ-VAE by running means, decay 0.99 (its appendix); ours: counts start at 1, no restart."""
    _alone(config, "ema")


def ema_restart(config: ConfigDict) -> None:
    """As `ema`, codes with a running count below 0.5 restart; the threshold is ours."""
    _alone(config, "ema")
    config.quantizer.ema.restart_below = 0.5


def l2(config: ConfigDict) -> None:
    """ViT-VQGAN (Yu et al., 2022), as LlamaGen: unit vectors of 8 channels, beta 0.25."""
    _plain(config)
    config.quantizer.kind = "l2"
    config.codebook.dim = 8


def cvq(config: ConfigDict) -> None:
    """CVQ-VAE (Zheng & Vedaldi, 2023): anchors `closest` by the cosine; no contrastive term."""
    _plain(config)
    config.quantizer.kind = "cvq"
    config.quantizer.cvq.cosine = True


def sqvae(config: ConfigDict) -> None:
    """SQ-VAE, Gaussian I (Takida et al., 2022); ours: its rate, 1e-3 where we have 1e-4, of phi."""
    _alone(config, "sqvae")
    config.codebook.kind = "embedding"
    config.train.reconstruction = "log-mse"
    # Adam moves the logarithm of the variance by a rate a step, from 3 to about 0: at 1e-4 a whole
    # run, in which codes are mixtures and evaluation decodes what the decoder has not seen.
    config.outer.learning_rate_ratio = 10.0


def gumbel(config: ConfigDict) -> None:
    """Gumbel-softmax as in taming: hard codes, KL 5e-4, codewords N(0, 1); ours: temperature 1."""
    _alone(config, "gumbel")
    config.codebook.kind = "embedding"


def ibq(config: ConfigDict) -> None:
    """IBQ (Shi et al., 2025): its four terms, codewords N(0, 1); ours: D, there 256."""
    _alone(config, "ibq")
    config.codebook.kind = "embedding"


def simvq(config: ConfigDict) -> None:
    """SimVQ (Zhu et al., 2025): a frozen base N(0, 1 / D) under one linear map, beta 0.25."""
    _plain(config)
    config.codebook.kind = "linear"
    config.codebook.embedding_dim = config.codebook.dim
    config.codebook.train_embedding = False


def vqgan_lc(config: ConfigDict) -> None:
    """VQGAN-LC (Zhu et al., 2024): frozen centres of features to D = 8; ours: VGG's, not CLIP's."""
    _plain(config)
    config.codebook.kind = "linear"
    config.codebook.base = "kmeans"
    config.codebook.features = "vgg"
    config.codebook.embedding_dim = 512
    config.codebook.dim = 8
    config.codebook.train_embedding = False
    config.quantizer.commitment, config.quantizer.codebook = 1.0, 0.33
    config.train.quantization_weight = 0.1


def fvq(config: ConfigDict) -> None:
    """FVQ (2026): all codewords through a transformer, beta 0.25; ours: its widths and rate."""
    _plain(config)
    config.codebook.kind = "transformer"
    config.codebook.embedding_dim = config.codebook.dim


# The levels of FSQ's paper, by the bits of the codebook that they stand for.
LEVELS = {
    8: (8, 6, 5),
    9: (8, 8, 8),
    10: (8, 5, 5, 5),
    12: (7, 5, 5, 5, 5),
    14: (8, 8, 8, 6, 5),
    16: (8, 8, 8, 5, 5, 5),
}


def fsq(config: ConfigDict) -> None:
    """FSQ (Mentzer et al., 2024): its levels for the experiment's K, which they come near to."""
    bits = math.log2(config.codebook.size)
    _alone(config, "fsq")
    config.quantizer.fsq.levels = LEVELS[min(LEVELS, key=lambda known: abs(known - bits))]


def lfq(config: ConfigDict) -> None:
    """LFQ (Yu et al., 2024) with Open-MAGVIT2's weights; ours: bits, by the experiment's K."""
    bits = round(math.log2(config.codebook.size))
    _alone(config, "lfq")
    config.quantizer.lfq.bits = bits


def bsq(config: ConfigDict) -> None:
    """BSQ (Zhao et al., 2024) with its weights, without their ramp; ours: bits, by K."""
    bits = round(math.log2(config.codebook.size))
    _alone(config, "bsq")
    config.quantizer.bsq.bits = bits


def residual(config: ConfigDict) -> None:
    """RQ-VAE (Lee et al., 2022): 4 levels of one codebook; ours: gradients, not running means."""
    _plain(config)
    config.quantizer.depth = 4
    config.quantizer.shared = True


def groups(config: ConfigDict) -> None:
    """Product quantization: 4 codebooks, each on a quarter of the channels; the number is ours."""
    _plain(config)
    config.quantizer.groups = 4


def rotation(config: ConfigDict) -> None:
    """The rotation trick (Fifty et al., 2025) on `vqvae`; there also with running means."""
    _plain(config)
    config.train.straight_through = "rotation"


def diveq(config: ConfigDict) -> None:
    """DiVeQ (Vali et al., 2026): no term of its own, noise 1e-3, a restart every 100 steps."""
    _plain(config)
    config.train.straight_through = "diveq"
    config.quantizer.noise = 1e-3
    config.quantizer.commitment = config.quantizer.codebook = 0.0
    config.quantizer.restart_every = 100


def wasserstein(config: ConfigDict) -> None:
    """Wasserstein VQ (2025) on `vqvae`, weight 0.5; ours: running moments, no queue of features."""
    _plain(config)
    config.quantizer.wasserstein = 0.5


_ALL: tuple[Callable[[ConfigDict], None], ...] = (
    *(vqvae, ema, ema_restart, l2, cvq, sqvae, gumbel, ibq, simvq, vqgan_lc, fvq),
    *(fsq, lfq, bsq, residual, groups, rotation, diveq, wasserstein),
)
PRESETS = {preset.__name__: preset for preset in _ALL}


def with_quantizer(config: ConfigDict, preset: str, others: tuple[str, ...] = ()) -> ConfigDict:
    """An experiment under a preset.

    Args:
      config: the experiment; changed.
      preset: one of PRESETS, or "" for the experiment as it is.
      others: presets that the experiment knows beside these, and has followed.

    Returns:
      The configuration.

    Raises:
      ValueError: on an unknown preset.
    """
    known = (*others, *PRESETS)
    if preset and preset not in known:
        near = suggestion(preset, known)
        raise ValueError(f"the preset is {preset!r}{near}; expected one of {', '.join(known)}")
    if preset in PRESETS:
        PRESETS[preset](config)
    return config


def _alone(config: ConfigDict, kind: str) -> None:
    """A kind on one level, with its whole loss and z as it is."""
    config.quantizer.kind = kind
    config.train.hypergradient = "joint"
    config.train.quantization_weight = 1.0
    config.model.layer_norm = False
    # As published; an experiment's own rate and base are for a hyper-net.
    config.outer.learning_rate_ratio = 1.0
    config.codebook.base, config.codebook.base_images = "normal", 2048


def _plain(config: ConfigDict) -> None:
    """The plain codebook, nearest by the Euclidean distance."""
    _alone(config, "vq")
    config.quantizer.commitment = 0.25
    config.codebook.kind = "embedding"
    config.codebook.base = "scaled"
