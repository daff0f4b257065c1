"""One pass over a set of images, the card that says how it was made, and what its codes tell.

What is measured in it belongs to metrics/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.evaluation.evaluate import Evaluation, Evaluator
    from mq_jax.evaluation.generation import evaluate_samples
    from mq_jax.evaluation.image_sets import open_image_set
    from mq_jax.evaluation.protocol import protocol_card, read_evaluation
