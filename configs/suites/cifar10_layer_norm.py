"""Ablation on CIFAR-10: LayerNorm over z, and the learning rate of the codebook.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_layer_norm.py \
      --workdir=DIR --config.data.dir=TFDS
"""

from configs.suites.budgets import NORMED, PLAIN, QUICK
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """A grid on one level and on two."""
    norms = {"": PLAIN, "ln-": NORMED}
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        overrides=QUICK,
        entries={
            f"{prefix}{step}-rate{rate}": f"train.hypergradient={step} {norm} "
            f"outer.learning_rate_ratio={rate}"
            for prefix, norm in norms.items()
            for step in ("joint", "unrolled")
            for rate in (1, 3, 10, 30)
        },
        reference="joint-rate1",
    )
