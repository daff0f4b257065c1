"""The paper: the bi-level engine, its steps, the objective, losses, optimizers, the state.

Pure functions of arrays, modules and numbers; no configuration, no files.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.algorithm.adversary import Adversary
    from mq_jax.algorithm.bilevel import hypergradient
    from mq_jax.algorithm.mq import Problem, make_inner_step, make_joint_step, make_train_step
    from mq_jax.algorithm.objective import Objective
    from mq_jax.algorithm.optim import make_optimizer, make_warmup_cosine
    from mq_jax.algorithm.state import Parts, TrainState
