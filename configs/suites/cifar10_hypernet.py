"""Ablation on CIFAR-10: what makes the codewords, on one level and on two.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_hypernet.py \
      --workdir=DIR --config.data.dir=TFDS
"""

from configs.suites.budgets import QUICK, THREE
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """Every kind of codebook, and SimVQ's frozen base."""
    kinds = {kind: kind for kind in ("mlp", "mlp-relu", "linear", "basis", "embedding")}
    kinds["transformer"] = "transformer"
    kinds["frozen"] = "linear codebook.train_embedding=False codebook.base=scaled"
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        # A base of data has no rows for all of these.
        overrides=f"{QUICK} codebook.base=normal",
        entries={
            f"{name}-{step}": f"train.hypergradient={step} codebook.kind={kind}"
            for step in ("joint", "unrolled")
            for name, kind in kinds.items()
        },
        seeds=THREE,
        reference="mlp-joint",
    )
