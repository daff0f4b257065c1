"""CelebA as in the paper, 90 epochs: MQ beside its parts and the paper's other columns.

  python -m mq_jax.main --mode=compare --suite=configs/suites/celeba_paper.py \
      --workdir=DIR --config.data.dir=TFDS

Cost and result: not measured; of the cost `--dry_run --count_flops` tells a bound.
"""

from configs.suites.budgets import mqvae_paper
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """MQ as the paper has it is `unrolled`; `code` has the released code's values."""
    return mqvae_paper("configs/celeba_mqvae.py")
