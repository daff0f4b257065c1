"""From files to batches on devices: sources, decoding, the paper's augmentations, streams.

What is measured on images belongs to metrics/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.data.decode import decode_image
    from mq_jax.data.images import from_uint8, to_uint8
    from mq_jax.data.pipeline import eval_batches, train_stream
    from mq_jax.data.sources import Source, open_source
    from mq_jax.data.transforms import make_eval_transform, make_train_transform
