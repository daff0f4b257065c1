"""What turns z into codes: quantizers of one contract, codebooks, estimators, code statistics.

Usable alone; nothing here knows of images, losses or training.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.quantizers.anchors import Anchors
    from mq_jax.quantizers.bases import given, is_base, scaled_normal, started_from
    from mq_jax.quantizers.bridge import Bridge
    from mq_jax.quantizers.bsq import BSQ
    from mq_jax.quantizers.codebook import Codebook
    from mq_jax.quantizers.ema import EMA
    from mq_jax.quantizers.entropy import Entropy
    from mq_jax.quantizers.fsq import FSQ
    from mq_jax.quantizers.groups import Groups
    from mq_jax.quantizers.gumbel import Gumbel
    from mq_jax.quantizers.histogram import code_counts, perplexity, usage
    from mq_jax.quantizers.ibq import IBQ
    from mq_jax.quantizers.lfq import LFQ
    from mq_jax.quantizers.lookup import make_lookup
    from mq_jax.quantizers.nearest import Lookup, nearest_codeword
    from mq_jax.quantizers.quantizer import Advanced, Quantized, Quantizer
    from mq_jax.quantizers.residual import Residual
    from mq_jax.quantizers.sphere import cosine_lookup
    from mq_jax.quantizers.sqvae import SQVAE
    from mq_jax.quantizers.straight_through import STRAIGHT_THROUGH, apply_straight_through
    from mq_jax.quantizers.usage_restart import UsageRestart
    from mq_jax.quantizers.vq import VQ
    from mq_jax.quantizers.wasserstein import Wasserstein
