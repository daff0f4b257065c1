"""The folder of a run: what is in it, and how it is read back.

What its numbers mean belongs to evaluation/ and metrics/, how any file is read to storage/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.runs.checkpoint import Checkpoints
    from mq_jax.runs.snapshot import Snapshot, read_snapshot
    from mq_jax.runs.workdir import claim, flat, read_config
    from mq_jax.runs.writers import Writers, read_metrics
