"""Ablation on CIFAR-10: the kind of hyper-gradient, without LayerNorm.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_hypergradient.py \
      --workdir=DIR --config.data.dir=TFDS
"""

from configs.suites.budgets import PLAIN, QUICK, THREE
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """`none` has the direct part alone, `joint` one level."""
    exact = ("joint", "none", "unrolled", "pipelined", "sama", "identity")
    solved = ("neumann", "cg", "finite-difference")
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        overrides=f"{QUICK} {PLAIN}",
        entries={kind: f"train.hypergradient={kind}" for kind in exact + solved},
        seeds=THREE,
        reference="none",
    )
