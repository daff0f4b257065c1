"""A trained prior in use: restoring it, drawing from it, folders of samples, exports.

Their command line belongs to modes/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.samplers.export import PriorExport
    from mq_jax.samplers.export_reading import read_prior, read_programs
    from mq_jax.samplers.export_writing import write_prior
    from mq_jax.samplers.restored import RestoredPrior, restored_prior
    from mq_jax.samplers.sampler import Drawn, Sampler, load_prior
