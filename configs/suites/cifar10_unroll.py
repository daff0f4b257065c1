"""Ablation on CIFAR-10: inner updates to one of the codebook, and how many are unrolled.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_unroll.py \
      --workdir=DIR --config.data.dir=TFDS
"""

from configs.suites.budgets import QUICK, THREE
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """Of 1 to 8 updates the last, all or none; some are taken again with the new codebook."""
    updates = (2, 4, 8)
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        overrides=QUICK,
        entries={
            "1": "",
            **{f"{k}-last": f"train.inner_updates={k}" for k in updates},
            **{f"{k}-all": f"train.inner_updates={k} train.unroll={k}" for k in updates},
            **{f"{k}-none": f"train.inner_updates={k} train.hypergradient=none" for k in updates},
            "1-back": "train.roll_back=True",
            "4-all-back": "train.inner_updates=4 train.unroll=4 train.roll_back=True",
        },
        seeds=THREE,
        reference="1",
    )
