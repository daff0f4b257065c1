"""From the bytes of one image file to pixels, and the paper's augmentations of them.

Which files there are, and batches of them, belong to data/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.images.decode import Reading, decode_image, read_image
    from mq_jax.images.scale import from_uint8, to_uint8
    from mq_jax.images.transforms import make_eval_transform, make_train_transform
