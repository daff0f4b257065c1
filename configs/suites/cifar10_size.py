"""Ablation on CIFAR-10: K from 256 to 65,536 codewords.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_size.py \
      --workdir=DIR --config.data.dir=TFDS
"""

from configs.suites.budgets import QUICK
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """A hyper-net on one level and on two, and plain codewords."""
    kinds = {
        "joint": "train.hypergradient=joint",
        "unrolled": "train.hypergradient=unrolled",
        "embedding": "train.hypergradient=joint codebook.kind=embedding",
    }
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        overrides=f"{QUICK} codebook.base=normal",
        entries={
            f"{kind}-{size}": f"{words} codebook.size={size}"
            for kind, words in kinds.items()
            for size in (256, 1024, 4096, 16_384, 65_536)
        },
        reference="joint-1024",
    )
