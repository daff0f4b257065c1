"""CIFAR-10 as in the paper, 90 epochs: MQ beside its parts and the paper's other columns.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_paper.py \
      --workdir=DIR --config.data.dir=TFDS

Cost and result: not measured.
"""

from configs.suites.budgets import THREE
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """MQ as the paper has it is `unrolled`; `code` has the released code's values."""
    kinds = ("unrolled", "pipelined", "none", "joint", "finite-difference")
    presets = ("vqvae", "ema", "sqvae", "cvq", "gumbel", "simvq", "wasserstein", "rotation", "fsq")
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        entries={
            **{kind: f"train.hypergradient={kind}" for kind in kinds},
            "code": ":code",
            **{preset: f":{preset}" for preset in presets},
        },
        seeds=THREE,
        reference="joint",
    )
