"""A trained prior in use: restoring it, drawing tokens and images from it, folders of samples.

Their command line belongs to modes/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.samplers.restored import RestoredPrior, restored_prior
    from mq_jax.samplers.sampler import Drawn, Sampler, load_prior
