"""CIFAR-10 in 800 steps on two CPU cores: every hyper-gradient and every quantizer.

  python -m mq_jax.main --mode=compare --suite=configs/suites/cifar10_quick.py \
      --workdir=DIR --config.data.dir=TFDS

Three seeds where the question is the step. Cost: `--dry_run` tells, once an entry was measured.
"""

from configs.quantizers import PRESETS
from configs.suites.budgets import NORMED, PLAIN, QUICK, THREE
from mq_jax.suites import Suite

_LEADING = ("joint", "none", "unrolled", "ln-joint", "ln-none", "ln-unrolled")


def get_suite() -> Suite:
    """MQ's steps, the codebook's rate, all presets, and longer runs of four entries."""
    entries = {
        "joint": f"train.hypergradient=joint {PLAIN}",
        "none": f"train.hypergradient=none {PLAIN}",
        "unrolled": f"train.hypergradient=unrolled {PLAIN}",
        "finite-difference": f"train.hypergradient=finite-difference {PLAIN}",
        "joint-rate10": f"train.hypergradient=joint outer.learning_rate_ratio=10 {PLAIN}",
        "unrolled-rate10": f"train.hypergradient=unrolled outer.learning_rate_ratio=10 {PLAIN}",
        "ln-joint": f"train.hypergradient=joint {NORMED}",
        "ln-none": f"train.hypergradient=none {NORMED}",
        "ln-unrolled": f"train.hypergradient=unrolled {NORMED}",
        "ln-finite-difference": f"train.hypergradient=finite-difference {NORMED}",
        "ln-joint-rate30": f"train.hypergradient=joint outer.learning_rate_ratio=30 {NORMED}",
        **{preset: f":{preset}" for preset in PRESETS},
        "l2-unrolled": ":l2 train.hypergradient=unrolled quantizer.commitment=1",
        "simvq-unrolled": ":simvq train.hypergradient=unrolled quantizer.commitment=1",
    }
    longer = ("joint", "none", "unrolled", "joint-rate10")
    entries |= {f"{name}-2400": f"{entries[name]} train.steps=2400" for name in longer}
    return Suite(
        experiment="configs/cifar10_mqvae.py",
        overrides=QUICK,
        entries=entries,
        seeds_of=dict.fromkeys(_LEADING, THREE),
        reference="joint",
    )
