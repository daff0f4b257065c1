"""Ablation on CIFAR-10: the estimator of the gradient through the code.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_straight_through.py \
      --workdir=DIR --config.data.dir=TFDS
"""

from configs.suites.budgets import QUICK, THREE
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """Under the exact hyper-gradient, and on one level."""
    kinds = ("encoder", "encoder-and-codewords", "rotation")
    field = "train.straight_through"
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        overrides=QUICK,
        entries={
            **{kind: f"{field}={kind}" for kind in kinds},
            "encoder-and-codewords-inside": f"{field}=encoder-and-codewords-inside",
            "diveq": f"{field}=diveq quantizer.noise=1e-3",
            **{f"{kind}-joint": f"{field}={kind} train.hypergradient=joint" for kind in kinds},
        },
        seeds=THREE,
        reference="encoder",
    )
