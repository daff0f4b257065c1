"""Priors over tokens: transformers, their losses, guidance and sampling.

Knows neither images nor configurations.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.generation.autoregressive import Autoregressive
    from mq_jax.generation.decoder import Decoder
    from mq_jax.generation.losses import Prediction, bits
    from mq_jax.generation.masked import Masked
    from mq_jax.generation.masked_prior import MaskedPrior
    from mq_jax.generation.prior import Prior
    from mq_jax.generation.sampling import Sampling
    from mq_jax.generation.sizes import SIZES, Net, net_of
    from mq_jax.generation.space import TokenSpace
