"""The folder of a run: what is in it, who may write to it, and how its files are read back.

What its numbers mean belongs to evaluation/ and metrics/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.runs.checkpoint import Checkpoints
    from mq_jax.runs.claims import claimed, read_manifest
    from mq_jax.runs.snapshot import Snapshot, read_snapshot
    from mq_jax.runs.workdir import claim, flat, read_config
    from mq_jax.runs.writers import Writers, read_metrics
