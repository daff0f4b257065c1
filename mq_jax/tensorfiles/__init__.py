"""Files of arrays that other programs write, read within limits; nothing of them is ever run.

What the arrays mean belongs to models/ and to peers/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.tensorfiles.arrays import Arrays
    from mq_jax.tensorfiles.msgpack_file import open_msgpack
    from mq_jax.tensorfiles.safetensors_file import open_safetensors
    from mq_jax.tensorfiles.torch_file import open_torch, read_state_dict
