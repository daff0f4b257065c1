"""Ablation on CIFAR-10: what the outer level sees.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_outer_data.py \
      --workdir=DIR --config.data.dir=TFDS
"""

from configs.suites.budgets import QUICK, THREE
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """The hyper-gradient, and alternating without it, on each."""
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        overrides=QUICK,
        entries={
            f"{kind}-{data}": f"train.hypergradient={kind} train.outer_data={data}"
            for kind in ("unrolled", "none")
            for data in ("other", "same", "held-out")
        },
        seeds=THREE,
        reference="unrolled-other",
    )
