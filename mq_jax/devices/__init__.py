"""Devices and processes: the mesh, what processes tell one another, signals, caches.

Nothing here knows of images, models or runs.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.devices.agreement import FailedElsewhere, gather, together
    from mq_jax.devices.cache import cache_directory, use_compilation_cache
    from mq_jax.devices.distributed import find_cluster, initialize
    from mq_jax.devices.interrupt import Interrupt
    from mq_jax.devices.places import local_path
    from mq_jax.devices.platforms import require_platform
    from mq_jax.devices.sharding import make_mesh, replicated, shard_batch, split
