"""An export once more, as other programs load it: diffusers, taming-transformers, PyTorch alone."""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.formats.choosing import FORMATS, chosen
