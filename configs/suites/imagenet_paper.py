"""ImageNet at 128 as in the paper, K = 65,536: MQGAN beside its parts and other quantizers.

  python -m mq_jax.main --mode=compare --suite=configs/suites/imagenet_paper.py \
      --workdir=DIR --config.data.dir=TFDS

One seed: a run is days on the GPUs that it is for. Cost and result: not measured; of the cost
`--dry_run --count_flops` tells a bound.
"""

from configs.suites.budgets import mqgan_paper
from mq_jax.suites import Suite


def get_suite() -> Suite:
    """MQ as the paper has it is `unrolled`; `code` has the released code's values."""
    return mqgan_paper("configs/imagenet_mqgan.py")
