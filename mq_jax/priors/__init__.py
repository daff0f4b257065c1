"""The second stage: from a configuration and a token set to a trained prior.

The models are of generation/, the loop is of training/; here is what is between both.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.priors.build import Built, init_state, make_prior, steps_of
    from mq_jax.priors.fields import RULES
    from mq_jax.priors.state import PriorState
