"""From sets and folders of images to batches on devices: sources, splits, streams.

What becomes of one image belongs to images/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.data.pipeline import eval_batches, train_stream
    from mq_jax.data.sources import Source, open_source
