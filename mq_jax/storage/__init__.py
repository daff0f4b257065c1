"""Files of any origin: written whole or not at all, read within limits, one writer to a folder.

What they mean belongs to runs/ and to the packages that write them.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.storage.archive import read_arrays
    from mq_jax.storage.files import read_bytes, replacing
    from mq_jax.storage.lock import held
    from mq_jax.storage.schema import read_json
