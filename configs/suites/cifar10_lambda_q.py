"""Ablation on CIFAR-10: lambda_q, the weight of the quantizer's loss.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_lambda_q.py \
      --workdir=DIR --config.data.dir=TFDS
"""

from configs.suites.budgets import QUICK, THREE
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """On one level and on two."""
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        overrides=QUICK,
        entries={
            f"{step}-{weight}": f"train.hypergradient={step} train.quantization_weight={weight}"
            for step in ("joint", "unrolled")
            for weight in (0.025, 0.1, 0.25, 1.0, 4.0)
        },
        seeds=THREE,
        reference="joint-0.1",
    )
