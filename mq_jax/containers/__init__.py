"""Where images lie inside of larger files: Parquet files, tar shards, and an index of either.

Nothing is extracted or copied; one image is read by its place.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.containers.extents import read_extent
    from mq_jax.containers.index import open_index
    from mq_jax.containers.parquet import Columns, parquet_extents
    from mq_jax.containers.tars import tar_extents
