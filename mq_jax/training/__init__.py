"""From a configuration to a trained state: checks, parts, the compiled step, the loop.

The mathematics belongs to algorithm/. Its verbs are modules: build, validate, train.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.training.build import Built, total_steps
    from mq_jax.training.first import init_state
    from mq_jax.training.program import Program, compile_program
    from mq_jax.training.train import monitored
