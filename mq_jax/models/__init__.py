"""Networks, as Flax modules or functions, and the reading of their published weights.

Codebooks belong to quantizers/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.models.discriminator import Discriminator
    from mq_jax.models.inception import inception_features
    from mq_jax.models.maskgit import AutoEncoder as MaskGIT
    from mq_jax.models.vqgan import AutoEncoder as VQGAN
    from mq_jax.models.vqvae import AutoEncoder as VQVAE
