"""What is measured, as pure functions and mergeable collections.

A pass over a set, which fills them, belongs to evaluation/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.metrics.fingerprint import PixelDigest
    from mq_jax.metrics.frechet import frechet_distance
    from mq_jax.metrics.generation import SetStatistics, generation_metrics
    from mq_jax.metrics.manifold import precision_recall
    from mq_jax.metrics.measures import Measures, load_measures
    from mq_jax.metrics.perceptual import perceptual_distance
    from mq_jax.metrics.spaces import load_spaces
    from mq_jax.metrics.ssim import ssim_per_image
